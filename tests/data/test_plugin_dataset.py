"""A data set whose patches share tiles is one file: with one registry line, or named as `module:function`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.dataset_files import folder_of_pairs

from semicdvl.catalog import describe_parts
from semicdvl.config import Recipe, parse_recipe
from semicdvl.data import DATASETS
from semicdvl.data.loaders import load_train_batches
from semicdvl.data.name_lists import read_name_list
from semicdvl.data.prepare.published import cut_published
from semicdvl.data.readers.folder import read_folder
from semicdvl.data.splits import count_leaks, split_by_fraction
from semicdvl.errors import ConfigError, DataError
from semicdvl.training.parts import make_split, read_dataset
from semicdvl.training.run import train_recipe

READER = '''"""Harbours: change of piers, in patches that were cut from tiles (`pier7-3`: the third of tile `pier7`)."""

from dataclasses import replace
from pathlib import Path

from semicdvl.data.change_dataset import ChangeDataset
from semicdvl.data.publication import Publication
from semicdvl.data.readers.folder import read_folder


def read_harbours(root: Path, *, skip: str = "") -> ChangeDataset:
    """Read the patches, without those of one tile."""
    dataset = read_folder(root, name="harbours")
    pairs = tuple(pair for pair in dataset.pairs if find_tile(pair.name) != skip)
    return replace(dataset, pairs=pairs, source_tiles={pair.name: find_tile(pair.name) for pair in pairs})


def find_tile(name: str) -> str | None:
    """Return the tile of a patch."""
    return name.partition("-")[0] if name.startswith("pier") else None


PUBLICATION = Publication(
    find_tile=find_tile,
    list_ground_keys=lambda name: frozenset({find_tile(name)} - {None}),
    lists={"train": (4, "0" * 16), "val": (4, "0" * 16), "test": (4, "0" * 16)},
)
'''
NAMES = [f"pier{tile}-{number}" for tile in range(8) for number in range(4)]
TILE_PX = (48, 40)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return folder_of_pairs(tmp_path / "HARBOURS", NAMES, size_px=TILE_PX)


@pytest.fixture
def reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The one file of the new data set, in a folder that Python imports from."""
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "harbours_reader.py").write_text(READER)
    monkeypatch.syspath_prepend(tmp_path / "code")
    yield "harbours_reader:read_harbours"
    sys.modules.pop("harbours_reader", None)


@pytest.fixture
def registered(reader: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The one registry line."""
    monkeypatch.setitem(DATASETS, "harbours", reader)
    return "harbours"


def recipe_of(dataset: str, root: Path) -> Recipe:
    content = {
        "data": {"dataset": dataset, "root": str(root), "crop_px": 32, "labelled": 0.25, "options": {"skip": "pier5"}},
        "model": {"name": "tests.support.plain_network:build"},
        "method": {"name": "supervised"},
        "train": {"steps": 1, "labelled_batch": 2, "eval_every": 1, "device": "cpu"},
    }
    return parse_recipe(content, source="test")


def tiles(names: Iterator[str] | list[str]) -> set[str]:
    return {name.partition("-")[0] for name in names}


@pytest.mark.parametrize("where", ["inside", "outside"])
def test_it_is_configured_split_by_tile_and_loaded(
    where: str, reader: str, root: Path, request: pytest.FixtureRequest
) -> None:
    name = request.getfixturevalue("registered") if where == "inside" else reader
    data = recipe_of(name, root).data
    assert len(read_dataset(data, root).pairs) == 28
    split = make_split(data)
    trained = tiles([pair.name for pair in split.labelled + split.unlabelled])
    assert not trained & tiles([pair.name for pair in split.val + split.test])
    assert "pier5" not in trained and len(split.test) == 8 and len(split.val) == 4 and len(split.labelled) == 4
    batches = load_train_batches(
        split, crop_px=32, labelled_batch=3, unlabelled_batch=2, vlm=None, steps=2, seed=0, workers=0
    )
    shapes = [(labelled.t1_BCHW.shape, unlabelled.weak_t1_BCHW.shape) for labelled, unlabelled in batches if unlabelled]
    assert shapes == [((3, 3, 32, 32), (2, 3, 32, 32))] * 2


def test_a_network_trains_on_it(registered: str, root: Path, tmp_path: Path) -> None:
    trained = train_recipe(recipe_of(registered, root), tmp_path / "run", quiet=True)
    assert any("iou" in scores for scores in trained.list_score_columns().values())


def test_it_is_listed_with_its_first_line(registered: str) -> None:
    assert dict(describe_parts("datasets"))[registered].startswith("Harbours: change of piers")


def test_its_names_are_known_wherever_they_occur(registered: str, root: Path) -> None:
    plain = read_folder(root)
    split = split_by_fraction(plain, labelled=0.5, seed=1)
    assert not plain.source_tiles and count_leaks(split) == 0 and len(split.test) == 8


def test_without_the_registry_line_its_names_mean_nothing(root: Path) -> None:
    split = split_by_fraction(read_folder(root), labelled=0.5, seed=1)
    assert len(split.test) == 6 and count_leaks(split) == 0


def test_its_published_lists_are_verified(registered: str, root: Path) -> None:
    subsets = {"train": NAMES[:4], "val": NAMES[4:8], "test": [*NAMES[8:11], NAMES[3]]}
    for subset, names in subsets.items():
        (root / f"{subset}.txt").write_text("\n".join(names))
    with pytest.raises(DataError, match=f"1 name in common, e.g. '{NAMES[3]}'"):
        cut_published(registered, root)
    (root / "test.txt").write_text("\n".join(NAMES[8:12]))
    checked = cut_published(registered, root)
    assert [(check.name, check.count, check.is_published) for check in checked.lists] == [
        (subset, 4, False) for subset in subsets
    ]
    assert checked.leak_counts == {"val": 0, "test": 0} and read_name_list(root / "val.txt") == tuple(NAMES[4:8])
    with pytest.raises(ConfigError, match="'folder' has no published lists"):
        cut_published("folder", root)
