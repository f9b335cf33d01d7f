"""`semicdvl.ceg` offers the functions of change event generation, with the signatures that they were published with."""

import inspect

import numpy as np
import pytest
from pycocotools import mask as rle

from semicdvl import DataError
from semicdvl.ceg import instance_level, mixed, pixel_level, segmentation

PARAMETERS = {
    pixel_level: ("scores_t1_CHW", "scores_t2_CHW", "*foreground", "*gamma"),
    instance_level: ("instances_t1", "instances_t2", "*shape_hw", "*delta"),
    mixed: ("pixel_HW", "reliable_HW", "instance_HW"),
    segmentation: ("scores_CHW", "*foreground", "*gamma"),
}


@pytest.mark.parametrize("function", PARAMETERS, ids=lambda function: function.__name__)
def test_signatures_are_a_contract(function: object) -> None:
    parameters = inspect.signature(function).parameters.values()  # type: ignore[arg-type]
    names = tuple(f"{'*' if one.kind is inspect.Parameter.KEYWORD_ONLY else ''}{one.name}" for one in parameters)
    assert names == PARAMETERS[function]  # type: ignore[index]


def _square(top: int, left: int) -> np.ndarray:
    """Return a square of 3 px in an image of 8 x 12 px."""
    mask_HW = np.zeros((8, 12), bool)
    mask_HW[top : top + 3, left : left + 3] = True
    return mask_HW


def test_an_instance_without_a_partner_is_a_change_event() -> None:
    stays, appears = _square(1, 1), _square(4, 8)
    events_HW = instance_level([stays], [stays, appears], shape_hw=(8, 12))
    np.testing.assert_array_equal(events_HW, appears)
    encoded = [rle.encode(np.asfortranarray(mask, np.uint8)) for mask in (stays, appears)]
    np.testing.assert_array_equal(instance_level(encoded[:1], encoded, shape_hw=(8, 12)), appears)
    assert not instance_level([], [], shape_hw=(8, 12)).any()


def test_the_levels_make_the_mixed_label() -> None:
    appears = _square(4, 8)
    building_HW = np.where(appears, np.float32(0.9), np.float32(0.1))
    after_CHW = np.stack([building_HW, 1 - building_HW])
    before_CHW = np.stack([np.full_like(building_HW, 0.1), np.full_like(building_HW, 0.9)])
    before_CHW[:, 0] = 0.4  # nothing is sure in the first row
    change_HW, reliable_HW = pixel_level(before_CHW, after_CHW, foreground=[0], gamma=0.8)
    np.testing.assert_array_equal(change_HW, appears | (np.arange(8)[:, None] == 0))  # a tie is foreground
    assert not reliable_HW[0].any() and reliable_HW[1:].all()
    label_HW = mixed(change_HW, reliable_HW, appears)
    assert (label_HW[0] == 255).all()
    np.testing.assert_array_equal(label_HW[1:] == 1, appears[1:])
    np.testing.assert_array_equal(segmentation(after_CHW, foreground=[0], gamma=0.8), appears.astype(np.uint8))


def test_foreground_must_be_among_the_prompts() -> None:
    with pytest.raises(DataError, match="foreground"):
        segmentation(np.zeros((2, 8, 12), np.float32), foreground=[2], gamma=0.5)
