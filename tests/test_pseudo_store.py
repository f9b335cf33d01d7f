"""The store: keyed by content, resumable, exact at the thresholds, and it never asks a VLM twice."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semicdvl.errors import ConfigError, InputError, StoreError
from semicdvl.pseudo.generate import CEGSettings, generate, make_labels, spec_of
from semicdvl.pseudo.prompts import Prompts, prompts_of
from semicdvl.pseudo.store import STEPS, PseudoStore, quantised
from semicdvl.types import Instance, PairFiles, Segments

WORDS = Prompts(("house",), ("grass", "water"))
SHAPE = (12, 17)


class Colours:
    """A VLM for tests: red is house, green is grass, blue is water; it counts how often it is asked."""

    identity = "colours-1"

    def __init__(self, *, instances: bool = False, broken: bool = False) -> None:
        self.asked, self.instances, self.broken = 0, instances, broken

    def segment(self, image_HWC: np.ndarray, prompts: Sequence[str], *, gsd_m: float | None = None) -> Segments:
        self.asked += 1
        bands = {"house": 0, "grass": 1, "water": 2}
        scores = np.stack([image_HWC[..., bands[word]] for word in prompts]).astype(np.float32) / 255
        if self.broken:
            scores[0, 0, 0] = np.nan
        found = (Instance(scores[0] > 0.5, 0, 0.9),) if self.instances else None
        return Segments(scores, tuple(prompts), found)


def _pair(folder: Path, name: str, *, house: bool, level: int = 250) -> PairFiles:
    """Grass at date 1; at date 2, if so wanted, with a house of 5 x 6 px."""
    images = []
    for date in ("A", "B"):
        image = np.zeros((*SHAPE, 3), np.uint8)
        image[..., 1] = level
        if house and date == "B":
            image[3:8, 4:10] = (level, 0, 0)
        path = folder / date / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), image[..., ::-1])
        images.append(path)
    return PairFiles(name, images[0], images[1])


def _fill(pairs: list[PairFiles], root: Path, vlm: Colours, ceg: CEGSettings | None = None) -> list[dict]:
    return list(generate(pairs, vlm=vlm, prompts=WORDS, settings=ceg or CEGSettings(), root=root))


def _bytes(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


@pytest.fixture
def pairs(tmp_path: Path) -> list[PairFiles]:
    return [_pair(tmp_path / "data", name, house=name == "new") for name in ("new", "same")]


@pytest.mark.parametrize("instances", [False, True])
def test_a_new_house_is_the_change_label(tmp_path: Path, pairs: list[PairFiles], instances: bool) -> None:
    records = _fill(pairs, tmp_path / "store", Colours(instances=instances))
    assert [record["name"] for record in records] == ["new", "same"]
    labels = PseudoStore.open(tmp_path / "store").labels(pairs[0])
    wanted = np.zeros(SHAPE, np.uint8)
    wanted[3:8, 4:10] = 1
    assert np.array_equal(labels.change_HW, wanted)
    assert np.array_equal(labels.t2_HW, wanted)
    assert not labels.t1_HW.any()
    assert not PseudoStore.open(tmp_path / "store").labels(pairs[1]).change_HW.any()


def test_nothing_is_asked_twice_and_other_thresholds_ask_nothing(tmp_path: Path, pairs: list[PairFiles]) -> None:
    vlm, root = Colours(), tmp_path / "store"
    _fill(pairs, root, vlm)
    asked = vlm.asked
    assert asked == 2  # the three "grass" images are one image: keys are content, not names
    before = _bytes(root)
    _fill(pairs, root, vlm)
    assert vlm.asked == asked
    assert _bytes(root) == before
    _fill(pairs, root, vlm, CEGSettings(gamma=0.985))
    assert vlm.asked == asked
    labels = PseudoStore.open(root).labels(pairs[0])
    assert (labels.change_HW == 255).all()


def test_an_interrupted_store_ends_as_an_uninterrupted_one(tmp_path: Path, pairs: list[PairFiles]) -> None:
    _fill(pairs, tmp_path / "whole", Colours())
    work = generate(pairs, vlm=Colours(), prompts=WORDS, settings=CEGSettings(), root=tmp_path / "cut")
    next(work)
    work.close()
    _fill(pairs, tmp_path / "cut", Colours())
    assert _bytes(tmp_path / "cut") == _bytes(tmp_path / "whole")


def test_instances_come_back_as_they_were(tmp_path: Path, pairs: list[PairFiles]) -> None:
    vlm = Colours(instances=True)
    store = PseudoStore.create(tmp_path / "s", spec_of(vlm, prompts=WORDS, settings=CEGSettings()))
    answer = vlm.segment(cv2.imread(str(pairs[0].after))[..., ::-1], WORDS.words)
    kept = store.keep_answer("ab12", answer)
    assert kept.instances is not None and answer.instances is not None
    assert (kept.instances[0].prompt, kept.instances[0].score) == (0, 0.9)
    assert np.array_equal(
        make_labels(kept, kept, prompts=WORDS, settings=CEGSettings(level="instance")).change_HW,
        np.zeros(SHAPE, np.uint8),
    )


@settings(deadline=None)
@given(st.integers(0, STEPS), st.sampled_from([-2, -1, 0, 1, 2]))
def test_thresholds_on_the_grid_are_kept_exactly(step: int, ulps: int) -> None:
    gamma = np.float32(step / STEPS)
    score = gamma
    for _ in range(abs(ulps)):
        score = np.nextafter(score, np.float32(2 if ulps > 0 else -1))
    kept = quantised(np.full((1, 1, 1), score)).astype(np.float32) / np.float32(STEPS)
    assert (kept[0, 0, 0] >= gamma) == (np.clip(score, 0, 1) >= gamma)
    assert abs(kept[0, 0, 0] - np.clip(score, 0, 1)) <= 1 / STEPS + 1e-6


def test_labels_for_other_images_are_refused(tmp_path: Path, pairs: list[PairFiles]) -> None:
    _fill(pairs, tmp_path / "store", Colours())
    other = _pair(tmp_path / "other", "new", house=True, level=200)
    with pytest.raises(StoreError, match="holds no labels for the pair 'new'"):
        PseudoStore.open(tmp_path / "store").labels(other)
    with pytest.raises(StoreError, match="holds no labels"):
        PseudoStore.open(tmp_path / "store").labels(replace(pairs[0], window_px=(0, 0, 4, 4)))


def test_damage_is_found(tmp_path: Path, pairs: list[PairFiles]) -> None:
    root = tmp_path / "store"
    _fill(pairs, root, Colours())
    store = PseudoStore.open(root)
    assert store.verify() == []
    answer = next((root / "answers").glob("*/*.npz"))
    answer.write_bytes(answer.read_bytes()[:40])
    next((root / "labels").glob("*/*.png")).write_bytes(b"no picture")
    assert len(store.verify()) == 2


def test_a_folder_that_is_no_store_and_a_store_of_another_version(tmp_path: Path, pairs: list[PairFiles]) -> None:
    with pytest.raises(StoreError, match="exists and is no pseudo-label store"):
        _fill(pairs, tmp_path / "data", Colours())
    with pytest.raises(StoreError, match="no pseudo-label store here"):
        PseudoStore.open(tmp_path / "none")
    _fill(pairs, tmp_path / "store", Colours())
    manifest = tmp_path / "store" / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"version": 1', '"version": 99'))
    with pytest.raises(StoreError, match="version 99"):
        PseudoStore.open(tmp_path / "store")


def test_scores_that_are_no_numbers_are_refused(tmp_path: Path, pairs: list[PairFiles]) -> None:
    with pytest.raises(InputError, match="not numbers"):
        _fill(pairs, tmp_path / "store", Colours(broken=True))


def test_prompts_and_settings_are_checked() -> None:
    assert prompts_of(find="Solar Panel, roof").find == ("solar panel", "roof")
    assert "building" in prompts_of(find="car").background  # what the set looked for is background now
    assert "water" not in prompts_of(find="water").background
    with pytest.raises(ConfigError, match="no background prompt"):
        prompts_of(background="")
    with pytest.raises(ConfigError, match="given twice: road"):
        prompts_of(find="road", background="road,grass")
    with pytest.raises(ConfigError, match="Did you mean 'buildings'"):
        prompts_of(prompt_set="building")
    with pytest.raises(ConfigError, match="multiple of 0"):
        CEGSettings(gamma=0.8012)
