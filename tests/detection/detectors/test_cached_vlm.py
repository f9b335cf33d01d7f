"""Kept answers of a VLM: the same whether they were kept before or not, and nothing but plain arrays is read."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from pycocotools import mask as rle

from semicdvl.api.detection import detect as detect_arrays
from semicdvl.api.parts import create_vlm_detector
from semicdvl.ceg.features import FeatureSharingVLM, segment_with_features
from semicdvl.ceg.prompts import Prompts
from semicdvl.detection.detectors.cached_vlm import SHIPPED_WORDS, cache_answers
from semicdvl.detection.results import DetectionResult
from semicdvl.errors import InputError, OutputError
from semicdvl.types import DescribedVLM, Instance, Segments
from semicdvl.vlms.answer_cache import (
    SCORE_STEPS,
    AnswerCache,
    pack_steps,
    restore_scores,
    round_scores,
    unpack_steps,
)

IMAGE = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)


@dataclass
class Counting(DescribedVLM):
    """A VLM that counts how often it is asked; a score is the image's red times a number of the word."""

    identity: str = "counting-1"
    gamma: float = 0.5
    words_are_independent: bool = True
    asked: list[tuple[str, ...]] = field(default_factory=list)
    features_identity: str = "counting-1-encoder"

    def segment(self, image_HWC, prompts, *, gsd_m=None):
        self.asked.append(tuple(prompts))
        factors = [1 / (1 + len(word)) for word in prompts]
        red_HW = image_HWC[..., 0].astype(np.float32) / 255
        return Segments(np.stack([red_HW * factor for factor in factors]).astype(np.float32), tuple(prompts))

    def segment_with_features(self, image_HWC, prompts, *, gsd_m=None):
        return self.segment(image_HWC, prompts, gsd_m=gsd_m), np.full((2, 3, 4), 1 / 3, np.float32)


class WithInstances:
    """A VLM of instances whose answer depends on all words."""

    identity, gamma = "instances-1", 0.4

    def __init__(self) -> None:
        self.asked = 0

    def segment(self, image_HWC, prompts, *, gsd_m=None):
        self.asked += 1
        mask_HW = np.zeros(image_HWC.shape[:2], bool)
        mask_HW[3:9, 5:20] = True
        scores_CHW = np.full((len(prompts), *mask_HW.shape), 1 / len(prompts), np.float32)
        return Segments(scores_CHW, tuple(prompts), (Instance(mask_HW, 0, 0.7),))


def test_other_words_of_the_shipped_sets_take_kept_answers(tmp_path: Path):
    vlm = Counting()
    cached = cache_answers(vlm, AnswerCache(tmp_path / "kept"))
    first = cached.segment(IMAGE, ("house", "grass", "chimney"), gsd_m=0.5)
    assert vlm.asked == [tuple(dict.fromkeys(("house", "grass", "chimney", *SHIPPED_WORDS)))]
    again = cache_answers(vlm, AnswerCache(tmp_path / "kept"))
    second = again.segment(IMAGE, ("house", "grass", "chimney"), gsd_m=0.5)
    others = again.segment(IMAGE, ("river", "house"), gsd_m=0.5)
    assert len(vlm.asked) == 1
    np.testing.assert_array_equal(first.scores_CHW, second.scores_CHW)
    np.testing.assert_array_equal(others.scores_CHW[1], first.scores_CHW[0])
    truth_CHW = Counting().segment(IMAGE, ("house", "grass", "chimney")).scores_CHW
    difference_CHW = truth_CHW - first.scores_CHW
    assert difference_CHW.min() > -1e-5 and 0 < difference_CHW.max() < 1 / SCORE_STEPS
    again.segment(IMAGE, ("zebra",), gsd_m=0.5)
    again.segment(IMAGE, ("house",), gsd_m=0.6)
    again.segment(IMAGE[1:], ("house",), gsd_m=0.5)
    assert len(vlm.asked) == 4
    assert cached.identity == "counting-1-kept" and cached.words_are_independent


def test_features_are_kept_as_they_are(tmp_path: Path):
    vlm = Counting()
    cached = cache_answers(vlm, AnswerCache(tmp_path))
    assert isinstance(cached, FeatureSharingVLM) and cached.features_identity == vlm.features_identity

    class Never:
        identity = vlm.features_identity

        def extract_features(self, image_HWC):
            raise AssertionError("the VLM's own pass gives them")

    for _ in range(2):
        answer, features_DHW = segment_with_features(IMAGE, ("house",), vlm=cached, features=Never())
        assert (
            features_DHW is not None and (features_DHW == np.float32(1 / 3)).all() and features_DHW.shape == (2, 3, 4)
        )
        assert answer.prompts == ("house",)
    assert len(vlm.asked) == 1


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_kept_features_that_are_not_finite_count_as_missing(value: float, tmp_path: Path):
    vlm = Counting()
    cached = cache_answers(vlm, AnswerCache(tmp_path))
    cached.segment_with_features(IMAGE, ("house",))
    (path,) = (path for path in tmp_path.glob("*/*.npz") if "features" in np.load(path).files)
    np.savez(path, features=np.full((2, 3, 4), value, np.float32))
    _, features_DHW = cached.segment_with_features(IMAGE, ("house",))
    assert (features_DHW == np.float32(1 / 3)).all() and len(vlm.asked) == 2


def test_instances_are_kept_with_all_words_of_a_question(tmp_path: Path):
    vlm = WithInstances()
    cached = cache_answers(vlm, AnswerCache(tmp_path))
    first, second = (cached.segment(IMAGE, ("house", "road", "tree")) for _ in range(2))
    assert vlm.asked == 1 and not isinstance(cached, FeatureSharingVLM)
    np.testing.assert_array_equal(first.scores_CHW, second.scores_CHW)
    assert second.instances is not None
    (found,) = second.instances
    assert (found.prompt, found.score) == (0, 0.7)
    assert rle.area(found.mask) == 6 * 15
    cached.segment(IMAGE, ("road", "house", "tree"))
    assert vlm.asked == 2


def test_a_damaged_file_counts_as_missing(tmp_path: Path):
    vlm = Counting()
    cached = cache_answers(vlm, AnswerCache(tmp_path))
    first = cached.segment(IMAGE, ("house",))
    for number, path in enumerate(sorted(tmp_path.glob("*/*.npz"))):
        content = path.read_bytes()
        path.write_bytes(content[:-40] if number % 2 else b"\x80\x04c" + content)
    np.testing.assert_array_equal(cached.segment(IMAGE, ("house",)).scores_CHW, first.scores_CHW)
    assert len(vlm.asked) == 2
    cached.segment(IMAGE, ("house",))
    assert len(vlm.asked) == 2


def test_scores_that_are_not_finite_are_refused(tmp_path: Path):
    class Broken(WithInstances):
        def segment(self, image_HWC, prompts, *, gsd_m=None):
            return Segments(np.full((len(prompts), 40, 50), np.nan, np.float32), tuple(prompts))

    with pytest.raises(InputError, match="not finite"):
        cache_answers(Broken(), AnswerCache(tmp_path)).segment(IMAGE, ("house",))


def test_the_folder_stays_below_its_limit_and_holds_nothing_else(tmp_path: Path):
    cache = AnswerCache(tmp_path / "kept", max_bytes=10_000)
    keys = [f"{number:064x}" for number in range(8)]
    for key in keys[:4]:
        cache.write(key, {"values": np.zeros(1_900, np.uint8)})
    assert cache.read(keys[0]) is not None  # used just now, so that another one is the oldest
    for key in keys[4:]:
        cache.write(key, {"values": np.zeros(1_900, np.uint8)})
    sizes = [path.stat().st_size for path in (tmp_path / "kept").glob("*/*.npz")]
    assert 5_000 < sum(sizes) <= 10_000
    assert cache.read(keys[1]) is None and cache.read(keys[7]) is not None
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "map.tif").touch()
    with pytest.raises(OutputError, match="other files"):
        AnswerCache(tmp_path / "other")


def test_steps_are_packed_without_loss_and_keep_comparisons_with_thresholds():
    scores_CHW = np.random.default_rng(1).random((3, 20, 30)).astype(np.float32)
    scores_CHW[0, 0] = np.arange(30, dtype=np.float32) * np.float32(0.005)
    steps_CHW = round_scores(scores_CHW)
    np.testing.assert_array_equal(unpack_steps(pack_steps(steps_CHW), (3, 20, 30)), steps_CHW)
    np.testing.assert_array_equal(steps_CHW[0, 0], np.arange(30) * 20)
    for gamma in np.arange(0.1, 1, 0.1):
        step = np.float32(gamma)
        np.testing.assert_array_equal(restore_scores(steps_CHW) >= step - 1e-6, scores_CHW >= step - 1e-6)
    with pytest.raises(ValueError, match="unpack"):
        unpack_steps(pack_steps(steps_CHW), (3, 20, 31))
    with pytest.raises(ValueError, match="beyond 1"):
        unpack_steps(pack_steps(steps_CHW + np.uint16(4000)), (3, 20, 30))


def test_a_second_detection_with_another_rule_asks_nothing(tmp_path: Path):
    vlm, prompts = Counting(), Prompts(("house",), ("grass",))
    before, after = (np.random.default_rng(seed).integers(0, 256, (64, 96, 3), np.uint8) for seed in (1, 2))

    def detect(least: float) -> DetectionResult:
        detector = create_vlm_detector(
            vlm, prompts=prompts, ceg={"level": "instance", "instance_score": least}, cache=tmp_path / "kept"
        )
        return detect_arrays(before, after, detector=detector)

    first = detect(0.1)
    asked = len(vlm.asked)
    again, other = detect(0.1), detect(0.15)
    assert asked == len(vlm.asked) > 0
    np.testing.assert_array_equal(first.change, again.change)
    assert (first.change != other.change).any()
