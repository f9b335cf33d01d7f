"""A store that lacks files, or whose images change under it: what is missing is made again, nothing false is kept."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.support.dataset_files import save

from semicdvl.ceg.config import CEGSettings
from semicdvl.ceg.prompts import Prompts
from semicdvl.errors import ConfigError, InputError, StoreError
from semicdvl.pseudo_labels.generate import generate_labels
from semicdvl.pseudo_labels.quality import fill_store, verify_entries
from semicdvl.pseudo_labels.store import PseudoLabelStore
from semicdvl.pseudo_labels.workers import WorkerSettings
from semicdvl.types import Instance, PairFiles, Segments
from semicdvl.vlms.models.fake import FakeVLM

WORDS = Prompts(("building",), ("grass", "water"))
SETTINGS = CEGSettings(gamma=0.5, gamma_segmentation=0.5)
GRASS, HOUSE = (110, 170, 80), (220, 220, 220)


class Plain:
    """Features for tests: the colours themselves."""

    identity = "plain-1"

    def extract_features(self, image_HWC: np.ndarray) -> np.ndarray:
        return np.moveaxis(image_HWC, -1, 0).astype(np.float32) + 1


def draw(path: Path, *, house: bool, size: tuple[int, int] = (23, 31)) -> Path:
    image_HWC = np.full((*size, 3), GRASS, np.uint8)
    if house:
        image_HWC[4:13, 5:18] = HOUSE
    save(path, image_HWC)
    return path


@pytest.fixture
def pair(tmp_path: Path) -> PairFiles:
    """A new house, with its true label."""
    label_HW = np.zeros((23, 31), np.uint8)
    label_HW[4:13, 5:18] = 255
    save(tmp_path / "label.png", label_HW)
    dates = [draw(tmp_path / f"{name}.png", house=house) for name, house in (("before", False), ("after", True))]
    return PairFiles("new", *dates, label=tmp_path / "label.png")


def fill(pair: PairFiles, root: Path, vlm: FakeVLM | None = None, *, alike: bool = False) -> list[dict]:
    chosen = replace(SETTINGS, min_cosine=0.5) if alike else SETTINGS
    features = Plain() if alike else None
    asked = {"vlm": vlm or FakeVLM(), "prompts": WORDS, "settings": chosen, "root": root, "features": features}
    return list(generate_labels([pair], **asked))


def read_all(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


@pytest.mark.parametrize("kind", ["labels/*/*.png", "labels/*/*.json", "answers/*/*.npz", "features/*/*.npz"])
def test_a_deleted_file_is_made_again(tmp_path: Path, pair: PairFiles, kind: str) -> None:
    """As every message about a damaged file advises; the others of the pair are complete."""
    root = tmp_path / "store"
    fill(pair, root, alike=True)
    whole = read_all(root)
    for path in root.glob(kind):
        path.unlink()
    fill(pair, root, alike=True)
    assert read_all(root) == whole


def test_labels_without_their_picture_are_not_trained_on(tmp_path: Path, pair: PairFiles) -> None:
    fill(pair, tmp_path / "store")
    store = PseudoLabelStore.open(tmp_path / "store")
    assert store.has_labels(pair)
    next(store.root.glob("labels/*/*.png")).unlink()
    assert not store.has_labels(pair)


def test_a_store_without_answers_is_measured_again(tmp_path: Path, pair: PairFiles) -> None:
    asked = {"vlm": FakeVLM(), "prompts": WORDS, "settings": SETTINGS, "root": tmp_path / "store"}
    workers = WorkerSettings(FakeVLM, quiet=True)
    first = fill_store([pair], workers=workers, **asked)
    for path in (tmp_path / "store").glob("answers/*/*.npz"):
        path.unlink()
    assert fill_store([pair], workers=workers, **asked) == first


class Overwriting(FakeVLM):
    """The fake, during whose first answer somebody writes a file."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path

    def segment(self, image_HWC: np.ndarray, prompts: Sequence[str], *, gsd_m: float | None = None) -> Segments:
        draw(self.path, house=False)
        return super().segment(image_HWC, prompts, gsd_m=gsd_m)


def test_an_image_that_changes_while_the_other_one_is_asked_for_has_no_answer(tmp_path: Path, pair: PairFiles) -> None:
    """Both images are read at once: else the answer for the older content would be kept for the newer one."""
    root = tmp_path / "store"
    with pytest.raises(InputError, match=r"after\.png: was changed while it was read"):
        fill(pair, root, Overwriting(pair.after))
    fill(pair, root)
    assert not (PseudoLabelStore.open(root).read_labels(pair).change_HW == 1).any()


def test_an_image_that_changes_before_the_label_is_made_has_none(tmp_path: Path, pair: PairFiles) -> None:
    """The answers are in the store already; the residual level and features look at the images once more."""
    root = tmp_path / "store"
    fill(pair, root)

    class Late(Plain):
        def extract_features(self, image_HWC: np.ndarray) -> np.ndarray:
            draw(pair.after, house=False)
            return super().extract_features(image_HWC)

    asked = {"vlm": FakeVLM(), "prompts": WORDS, "settings": replace(SETTINGS, min_cosine=0.5), "root": root}
    with pytest.raises(InputError, match=r"after\.png: was changed while it was read"):
        list(generate_labels([pair], features=Late(), **asked))
    assert not list(root.glob("features/*/*.npz"))


def test_what_a_process_left_unfinished_is_neither_a_store_nor_damaged(tmp_path: Path, pair: PairFiles) -> None:
    """Killed before the manifest had its name, or as a second process finds a store that is just being made."""
    root = tmp_path / "store"
    root.mkdir()
    (root / ".part-0123456789abcdef.json").write_text("{")
    assert len(fill(pair, root)) == 1
    record = next(root.glob("labels/*/*.json"))
    record.with_name(".part-0123456789abcdef.json").write_text("{")
    assert verify_entries(root).endswith("intact, 1 label.")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / ".thesis").write_text("years")
    with pytest.raises(StoreError, match="is not a pseudo-label store"):
        fill(pair, tmp_path / "mine")


@pytest.mark.parametrize("gsd_m", [1, 1.0, np.float32(1)])
def test_a_sampling_distance_is_one_key_whatever_kind_of_number_it_is(
    tmp_path: Path, pair: PairFiles, gsd_m: float
) -> None:
    root, workers = tmp_path / "store", WorkerSettings(FakeVLM, quiet=True)
    asked = {"vlm": FakeVLM(), "prompts": WORDS, "settings": SETTINGS, "workers": workers}
    assert fill_store([pair], root=root, gsd_m=gsd_m, **asked).quality
    assert PseudoLabelStore.open(root).has_labels(pair)
    for none in (0, -1.0, math.nan, math.inf):
        with pytest.raises(ConfigError, match="give metres per pixel, a number above 0"):
            fill_store([pair], root=tmp_path / "other", gsd_m=none, **asked)
    assert not (tmp_path / "other").exists()


class Scoring(FakeVLM):
    """The fake, with an instance of a score."""

    def __init__(self, score: float) -> None:
        super().__init__()
        self.score = score

    def segment(self, image_HWC: np.ndarray, prompts: Sequence[str], *, gsd_m: float | None = None) -> Segments:
        answer = super().segment(image_HWC, prompts, gsd_m=gsd_m)
        return replace(answer, instances=(Instance(answer.scores_CHW[0] > 0.5, np.int64(0), self.score),))


def test_scores_of_instances_are_numbers_from_0_to_1_of_any_kind(tmp_path: Path, pair: PairFiles) -> None:
    fill(pair, tmp_path / "numpy", Scoring(np.float32(0.75)))
    store = PseudoLabelStore.open(tmp_path / "numpy")
    kept = store.read_answer(store.answer_key(pair.after, None))
    assert kept is not None and kept.instances is not None
    assert (kept.instances[0].prompt, kept.instances[0].score) == (0, 0.75)
    with pytest.raises(InputError, match=r"before\.png: instance 0 has prompt 0 of 3, score 1\.2"):
        fill(pair, tmp_path / "beyond", Scoring(1.2))
    assert not (tmp_path / "beyond").exists()
