"""The simulated VLM: each kind of error has its effect, and its files get into a store in the usual way."""

from functools import cache
from pathlib import Path

import numpy as np
import pytest
import rasterio.features
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as rle

from semicdvl.ceg.prompts import PROMPT_SETS
from semicdvl.errors import ConfigError, DataError
from semicdvl.metrics.change import ConfusionCounts
from semicdvl.pseudo_labels.generate import CEGSettings, generate_labels
from semicdvl.pseudo_labels.store import PseudoLabelStore
from semicdvl.synthetic.city import SyntheticCity
from semicdvl.synthetic.config import CitySpec
from semicdvl.synthetic.generate import generate_city
from semicdvl.synthetic.materials import LAND_COVER_CLASSES
from semicdvl.synthetic.vlm_answers import (
    ANSWER_PROMPTS,
    BUILDING,
    HOUSE,
    NO_ERRORS,
    PROMPT_OF_CLASS,
    SMALL_BUILDING_M2,
    AnswerErrors,
    SyntheticAnswer,
    simulate_answers,
    write_answers,
)
from semicdvl.synthetic.write import write_city_patches
from semicdvl.types import PairFiles
from semicdvl.vlms.precomputed import files


@cache
def city() -> SyntheticCity:
    return generate_city(CitySpec(size_px=(320, 448), seed=3))


def with_errors(**values: float) -> AnswerErrors:
    """Perfect but for these."""
    return AnswerErrors(**(vars(NO_ERRORS) | values))


def covered(answer: SyntheticAnswer) -> np.ndarray:
    outlines = [one.outline for one in answer.instances]
    return rasterio.features.rasterize(outlines, out_shape=city().change_HW.shape) if outlines else np.zeros((1, 1))


# ------------------------------------------------------------------------------------------------ answers
def test_prompts_are_the_papers() -> None:
    assert PROMPT_SETS["buildings"].words == ANSWER_PROMPTS


def test_without_errors_answers_are_the_truth() -> None:
    truth = ((city().classes_t1_HW, city().buildings_t1), (city().classes_t2_HW, city().buildings_t2))
    for answer, (classes_HW, buildings) in zip(simulate_answers(city(), NO_ERRORS), truth, strict=True):
        assert len(answer.instances) == len(buildings)
        assert answer.scores_CHW.shape == (6, 320, 448)
        is_building = classes_HW == LAND_COVER_CLASSES.index("building")
        np.testing.assert_array_equal(covered(answer) == 1, is_building)
        said_HW = answer.scores_CHW.argmax(axis=0)
        np.testing.assert_array_equal((said_HW <= BUILDING) & (answer.scores_CHW.max(axis=0) > 0.5), is_building)
        for name, channel in PROMPT_OF_CLASS.items():
            assert (said_HW[classes_HW == LAND_COVER_CLASSES.index(name)] == channel).all()
        asked = [LAND_COVER_CLASSES.index(name) for name in (*PROMPT_OF_CLASS, "building")]
        assert answer.scores_CHW[:, ~np.isin(classes_HW, asked)].max() < 0.5, "what nobody asked for scores low"


def test_equal_settings_give_equal_answers_and_another_seed_others() -> None:
    first, again, other = (
        simulate_answers(city(), errors)[1] for errors in (AnswerErrors(), AnswerErrors(), AnswerErrors(seed=1))
    )
    np.testing.assert_array_equal(first.scores_CHW, again.scores_CHW)
    assert first.instances == again.instances
    assert first.instances != other.instances


def test_misses_have_their_share_and_small_buildings_are_missed_more() -> None:
    large = city().buildings_t1[city().buildings_t1["area_m2"] > SMALL_BUILDING_M2]
    small = len(city().buildings_t1) - len(large)
    errors = [with_errors(miss_frac=0.3, seed=seed) for seed in range(12)]
    missed = [len(city().buildings_t1) - len(simulate_answers(city(), one)[0].instances) for one in errors]
    expected = 0.3 * len(large) + 0.6 * small
    assert np.mean(missed) == pytest.approx(expected, abs=4 * np.sqrt(expected / len(errors)))
    assert not simulate_answers(city(), with_errors(miss_frac=1.0))[0].instances


def test_false_positives_are_where_no_building_is() -> None:
    errors = with_errors(invented_per_ha=20.0, persistence_frac=0.5)
    true = len(city().buildings_t1)
    invented = simulate_answers(city(), errors)[0].instances[true:]
    area_ha = 320 * 448 * 0.25 / 1e4
    assert len(invented) == pytest.approx(20 * area_ha, rel=0.4)
    built_HW = city().classes_t1_HW == LAND_COVER_CLASSES.index("building")
    for one in invented:
        x, y = (int(value) for value in one.outline.centroid.coords[0])
        if 0 <= y < 320 and 0 <= x < 448:
            assert not built_HW[y, x]


def test_misalignment_moves_outlines_by_its_deviation() -> None:
    true, moved = (
        simulate_answers(city(), errors)[0].instances
        for errors in (NO_ERRORS, with_errors(misalignment_px=2.0, persistence_frac=0))
    )
    assert len(true) == len(moved)
    ways = [
        np.subtract(b.outline.centroid.coords[0], a.outline.centroid.coords[0])
        for a, b in zip(true, moved, strict=True)
    ]
    assert np.std(ways) == pytest.approx(2.0, rel=0.25)


def test_confusion_affects_its_share_of_the_ground() -> None:
    right, wrong = (
        simulate_answers(city(), errors)[0].scores_CHW for errors in (NO_ERRORS, with_errors(confusion_frac=0.2))
    )
    ground_HW = city().classes_t1_HW != LAND_COVER_CLASSES.index("building")
    assert (right.argmax(axis=0) != wrong.argmax(axis=0))[ground_HW].mean() == pytest.approx(0.2, abs=0.06)


def test_noise_has_its_strength_and_length() -> None:
    logits = [
        np.log(s / (1 - s))
        for s in (simulate_answers(city(), f)[0].scores_CHW[5] for f in (NO_ERRORS, with_errors(noise=0.5)))
    ]
    grass_HW = city().classes_t1_HW == LAND_COVER_CLASSES.index("grass")
    noise_HW = np.where(grass_HW, logits[1] - logits[0], np.nan)
    assert np.nanstd(noise_HW) == pytest.approx(0.5, rel=0.3)
    assert np.nanmean(noise_HW[:, 1:] * noise_HW[:, :-1]) > 0.6 * np.nanvar(noise_HW), "neighbours are alike"


def test_persistence_gives_both_dates_the_same_errors() -> None:
    """What stands on both dates is found on both, or on neither."""
    stay = set(city().buildings_t1["id"][city().buildings_t1["kind"] == "unchanged"])

    def differently(persistence: float) -> int:
        """Unchanged buildings whose scores differ between the dates; scores are drawn with the rest of their luck."""
        errors = with_errors(miss_frac=0.4, misalignment_px=0.0, persistence_frac=persistence)
        scores = [{one.score for one in answer.instances} for answer in simulate_answers(city(), errors)]
        return len(scores[0] ^ scores[1])

    changed = len(city().buildings_t1) + len(city().buildings_t2) - 2 * len(stay)
    assert differently(1.0) <= changed
    assert differently(0.0) > len(stay) / 2


@settings(max_examples=30)
@given(st.sampled_from([name for name in vars(NO_ERRORS) if name != "seed"]), st.floats(-5, 5))
def test_errors_out_of_range_are_refused(name: str, value: float) -> None:
    fine = value >= 0 and (value <= 1 or not name.endswith("_frac"))
    if fine:
        assert getattr(AnswerErrors(**{name: value}), name) == value
    else:
        with pytest.raises(ConfigError, match=name):
            AnswerErrors(**{name: value})


# ------------------------------------------------------------------------------------------------ files
def test_files_hold_the_answers(tmp_path: Path) -> None:
    pairs = write_city_patches(city(), tmp_path / "pairs", size_px=64)
    write_answers(city(), pairs, tmp_path / "answers", images=tmp_path / "pairs", size_px=64, errors=AnswerErrors())
    vlm = files.build_precomputed(weights=tmp_path / "answers")
    whole = simulate_answers(city(), AnswerErrors())[1]
    row, col = 128, 192
    said = vlm.segment(city().t2_HWC[row : row + 64, col : col + 64], ANSWER_PROMPTS)
    np.testing.assert_allclose(said.scores_CHW, whole.scores_CHW[:, row : row + 64, col : col + 64], atol=1e-3)
    assert said.instances is not None
    masks = [rle.decode(dict(one.mask)) for one in said.instances]
    np.testing.assert_array_equal(
        np.max(masks, axis=0), covered(whole)[row : row + 64, col : col + 64], "objects are cut at the patch's border"
    )
    assert {one.prompt for one in said.instances} <= {HOUSE, BUILDING}


def test_a_worse_vlm_gives_worse_labels(tmp_path: Path) -> None:
    pairs = write_city_patches(city(), tmp_path / "pairs", size_px=64)
    worse = AnswerErrors(miss_frac=0.4, invented_per_ha=4.0, misalignment_px=2.5)
    truth_HW = {pair.name: city().change_HW[slice(*_span(pair, 1)), slice(*_span(pair, 2))] for pair in pairs}
    ious = []
    for name, errors in (("perfect", NO_ERRORS), ("default", AnswerErrors()), ("worse", worse)):
        write_answers(city(), pairs, tmp_path / name, images=tmp_path / "pairs", size_px=64, errors=errors)
        vlm, store = files.build_precomputed(weights=tmp_path / name), tmp_path / f"store-{name}"
        made = CEGSettings(level="instance")
        list(generate_labels(pairs, vlm=vlm, prompts=PROMPT_SETS["buildings"], settings=made, root=store))
        counts = ConfusionCounts()
        for pair in pairs:
            counts += ConfusionCounts.from_maps(
                PseudoLabelStore.open(store).read_labels(pair).change_HW, truth_HW[pair.name]
            )
        ious.append(counts.iou)
    assert ious[0] > 0.6, "but for rebuilt houses, which touch their forerunners, the perfect VLM finds every change"
    assert ious[0] > ious[1] + 0.1 > ious[2] + 0.15


def _span(pair: PairFiles, part: int) -> tuple[int, int]:
    start = int(pair.name.split("_")[part][1:])
    return start, start + 64


def test_a_patch_without_position_in_its_name_is_refused(tmp_path: Path) -> None:
    odd = PairFiles("somewhere", Path("a.png"), Path("b.png"))
    with pytest.raises(DataError, match="somewhere"):
        write_answers(city(), [odd], tmp_path / "answers", images=tmp_path, size_px=64, errors=NO_ERRORS)
