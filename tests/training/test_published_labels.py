"""Training on the pseudo-labels that SemiCD-VL's authors publish, in place of a store."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.support.dataset_files import save
from tests.support.tiny_training import build_tiny_recipe

from semicdvl.config import Recipe
from semicdvl.data.readers import folder
from semicdvl.errors import ConfigError, InputError, StoreError
from semicdvl.pseudo_labels.published_png import PublishedLabels
from semicdvl.pseudo_labels.store import PseudoLabelStore
from semicdvl.training.run import train_recipe


@pytest.fixture
def published(data: Path, store: Path, tmp_path: Path) -> Path:
    """The store's labels in the published layout."""
    labels = PseudoLabelStore.open(store)
    for pair in folder.read_folder(data).pairs:
        maps = labels.read_labels(pair)
        save(tmp_path / "cd" / f"{pair.name}.png", maps.change_HW)
        save(tmp_path / "seg" / "A" / f"{pair.name}.png", maps.t1_HW)
        save(tmp_path / "seg" / "B" / f"{pair.name}.png", maps.t2_HW)
    return tmp_path


def recipe_of(data: Path, published: Path, store: Path | None = None) -> Recipe:
    recipe = build_tiny_recipe(data, store)
    pseudo = {"source": "semicdvl_png", "change": str(published / "cd"), "segmentation": str(published / "seg")}
    content = json.loads(recipe.model_dump_json()) | {"pseudo": {"store": store and str(store)} | pseudo}
    return Recipe.model_validate(content)


def test_published_labels_train_exactly_as_a_store_of_the_same_labels(data: Path, store: Path, published: Path) -> None:
    of_files = train_recipe(recipe_of(data, published, Path("is-not-read")), published / "files", quiet=True)
    of_store = train_recipe(build_tiny_recipe(data, store), published / "store", quiet=True)
    assert of_files.test == of_store.test

    def losses(run: str) -> list[float]:
        events = (json.loads(line) for line in (published / run / "log.jsonl").read_text().splitlines())
        return [event["loss"] for event in events if "loss" in event]

    assert losses("files") == losses("store") and len(losses("files")) == 4


def test_missing_files_are_named_before_training(data: Path, published: Path) -> None:
    (published / "seg" / "B" / "p03.png").unlink()
    pairs = folder.read_folder(data).pairs
    with pytest.raises(StoreError, match=r"1 of 36 published label files are missing, such as .*seg/B/p03.png"):
        PublishedLabels.open(published / "cd", published / "seg", pairs=pairs)
    with pytest.raises(StoreError, match=r"nothing/A: is no folder"):
        PublishedLabels.open(published / "cd", published / "nothing", pairs=pairs)


def test_pairs_of_one_name_in_several_folders_have_no_label_of_their_own(data: Path, published: Path) -> None:
    first, second, *_ = folder.read_folder(data).pairs
    pairs = [replace(first, name="north/p00"), replace(second, name="south/p00")]
    with pytest.raises(StoreError, match=r"p00\.png would be the label of several training pairs"):
        PublishedLabels.open(published / "cd", published / "seg", pairs=pairs)


def test_other_values_bands_and_parts_of_images_are_refused(data: Path, published: Path) -> None:
    labels = PublishedLabels(published / "cd", published / "seg")
    pair = folder.read_folder(data).pairs[0]
    assert labels.read_labels(pair).change_HW.shape == (64, 64)
    with pytest.raises(StoreError, match="is a part of a larger image"):
        labels.read_labels(replace(pair, window_px=(0, 0, 32, 32)))
    save(published / "cd" / f"{pair.name}.png", np.full((64, 64), 7, np.uint8))
    with pytest.raises(InputError, match=r"holds \[7\] where 0, 1 and 255"):
        labels.read_labels(pair)
    save(published / "cd" / f"{pair.name}.png", np.zeros((64, 64, 3), np.uint8))
    with pytest.raises(InputError, match="has the bands RGB where one is expected"):
        labels.read_labels(pair)
    save(published / "cd" / f"{pair.name}.png", np.zeros((32, 64), np.uint8))
    with pytest.raises(StoreError, match="published labels have the sizes"):
        labels.read_labels(pair)
    (published / "cd" / f"{pair.name}.png").write_bytes(b"no PNG")
    with pytest.raises(InputError, match="cannot be read as a PNG"):
        labels.read_labels(pair)


def test_a_source_without_its_folders_is_refused(data: Path) -> None:
    with pytest.raises(ConfigError, match="source 'semicdvl_png' needs change and segmentation"):
        build_tiny_recipe(data, Path("store"), pseudo__source="semicdvl_png")
