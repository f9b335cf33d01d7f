"""Views of a pair: shared geometry, the published ranges, looks and CutMix boxes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semicdvl.data.augment import (
    CropTransform,
    CutMixSettings,
    PhotometricTransform,
    StrongAugmentation,
    WeakAugmentation,
    draw_crop,
    draw_cutmix_box,
    draw_photometric,
)
from semicdvl.errors import ConfigError
from semicdvl.types import IGNORE

SEEDS = st.integers(0, 2**32 - 1)


def _ramp(height: int, width: int) -> np.ndarray:
    """An image whose first two bands say where a pixel is, at most 200 px a side."""
    rows, cols = np.mgrid[:height, :width]
    return np.stack([rows, cols, np.full_like(rows, 9)], axis=-1).astype(np.uint8)


@settings(max_examples=150, deadline=None)
@given(SEEDS, st.integers(20, 200), st.integers(20, 200), st.integers(16, 96), st.booleans())
def test_images_and_masks_share_all_geometry(seed: int, height: int, width: int, side_px: int, to_crop: bool) -> None:
    weak = WeakAugmentation(scale_to="crop" if to_crop else "image", vflip=0.5, rot90=True)
    crop = draw_crop((height, width), weak, crop_px=side_px, rng=np.random.default_rng(seed))
    image_HWC = crop.apply_to_image(_ramp(height, width)).astype(int)
    masks_HWC = crop.apply_to_masks(_ramp(height, width)).astype(int)
    valid_HW = crop.make_valid_mask()
    assert image_HWC.shape == masks_HWC.shape == (side_px, side_px, 3)
    # A resampled ramp tells the position to about half a source pixel, and nearest is off by another half.
    step_px = max(crop.window_px[2] / crop.resized_px[0], crop.window_px[3] / crop.resized_px[1], 1)
    assert np.abs(image_HWC - masks_HWC)[valid_HW].max() <= 0.5 + 0.5 * step_px + 0.5
    # No shift between both on average: a nearest that is not centred would be off by up to half a pixel.
    assert step_px > 1.3 or np.abs((image_HWC - masks_HWC)[valid_HW].mean(axis=0)).max() <= 0.3
    assert (masks_HWC[~valid_HW] == IGNORE).all() and (image_HWC[~valid_HW] == 0).all()
    assert (masks_HWC[valid_HW][:, 2] == 9).all()


@settings(max_examples=150, deadline=None)
@given(SEEDS, st.integers(1, 700), st.integers(1, 700), st.integers(8, 300))
def test_crops_stay_inside_and_keep_the_scale(seed: int, height: int, width: int, side_px: int) -> None:
    crop = draw_crop((height, width), WeakAugmentation(), crop_px=side_px, rng=np.random.default_rng(seed))
    row, col, rows, cols = crop.window_px
    assert 0 <= row and row + rows <= height and 0 <= col and col + cols <= width
    assert 1 <= crop.resized_px[0] <= side_px and 1 <= crop.resized_px[1] <= side_px
    for filled, length in zip(crop.resized_px, (rows, cols), strict=True):
        if length > 20:  # in shorter ones rounding to whole pixels shows
            assert 0.75 < filled / length < 1.27


def test_ranges_are_the_published_ones() -> None:
    rng = np.random.default_rng(0)
    crops = [draw_crop((256, 256), WeakAugmentation(), crop_px=256, rng=rng) for _ in range(2000)]
    padded = [crop.resized_px[0] for crop in crops if crop.resized_px[0] < 256]
    windows = [crop.window_px[2] for crop in crops if crop.resized_px[0] == 256]
    assert min(padded) == 204 and len(padded) / 2000 == pytest.approx(52 / 104, abs=0.04)  # U{204..307}
    assert min(windows) == round(256 * 256 / 307)
    assert sum(crop.hflip for crop in crops) / 2000 == pytest.approx(0.5, abs=0.04)
    assert not any(crop.vflip or crop.quarter_turns for crop in crops)


def test_a_crop_of_a_large_image_keeps_its_ground_sampling() -> None:
    crop = draw_crop((1024, 800), WeakAugmentation(scale=(1, 1)), crop_px=64, rng=np.random.default_rng(0))
    assert crop.window_px[2:] == (64, 64) == crop.resized_px
    to_crop = draw_crop(
        (1024, 800), WeakAugmentation(scale=(1, 1), scale_to="crop"), crop_px=64, rng=np.random.default_rng(0)
    )
    assert to_crop.window_px == (0, 0, 1024, 800) and to_crop.resized_px == (64, 50)


def test_padding_is_at_the_bottom_right_before_the_flip() -> None:
    plain = CropTransform((0, 0, 4, 6), (4, 6), 7)
    assert plain.make_valid_mask()[:4, :6].all() and plain.make_valid_mask().sum() == 24
    flipped = CropTransform((0, 0, 4, 6), (4, 6), 7, hflip=True)
    np.testing.assert_array_equal(flipped.make_valid_mask(), plain.make_valid_mask()[:, ::-1])
    turned = CropTransform((0, 0, 4, 6), (4, 6), 7, vflip=True, quarter_turns=1)
    np.testing.assert_array_equal(turned.make_valid_mask(), np.rot90(plain.make_valid_mask()[::-1]))


@pytest.mark.parametrize("hflip", [False, True])
@pytest.mark.parametrize("vflip", [False, True])
@pytest.mark.parametrize("turns", range(4))
def test_flips_and_rotations_follow_their_definitions(hflip: bool, vflip: bool, turns: int) -> None:
    source_HWC = _ramp(9, 8)
    wanted_HWC = source_HWC[1:8, :7]
    wanted_HWC = wanted_HWC[:, ::-1] if hflip else wanted_HWC
    wanted_HWC = wanted_HWC[::-1] if vflip else wanted_HWC
    crop = CropTransform((1, 0, 7, 7), (7, 7), 7, hflip=hflip, vflip=vflip, quarter_turns=turns)
    np.testing.assert_array_equal(crop.apply_to_image(source_HWC), np.rot90(wanted_HWC, turns))
    np.testing.assert_array_equal(crop.apply_to_masks(source_HWC), np.rot90(wanted_HWC, turns))


@pytest.mark.parametrize("bands", [3, 6, 13])
def test_a_rotation_moves_images_and_masks_alike_and_uncovers_padding(bands: int) -> None:
    rows, cols = np.mgrid[:41, :41]
    ramp_HWC = np.stack([rows, cols, *[np.full_like(rows, 7)] * (bands - 2)], axis=-1).astype(np.float32)
    crop = CropTransform((0, 0, 41, 41), (41, 41), 41, angle_deg=12.0)
    image_HWC, valid_HW = crop.apply_to_image(ramp_HWC), crop.make_valid_mask()
    masks_HWC = crop.apply_to_masks(ramp_HWC.astype(np.uint8))
    inner = np.s_[10:31, 10:31]
    assert np.abs(image_HWC[inner] - masks_HWC[inner]).max() <= 0.71
    assert valid_HW[inner].all() and not valid_HW[0, 0] and not valid_HW[-1, -1]
    assert (masks_HWC[~valid_HW] == IGNORE).all() and image_HWC.shape == (41, 41, bands)
    moved_row = 20 - 10 * np.sin(np.radians(12.0))  # ten columns right of the middle was ten lower on a turned axis
    assert image_HWC[20, 30, 0] == pytest.approx(40 - moved_row, abs=0.3), "anticlockwise"


def test_rotations_are_drawn_only_where_they_are_asked_for() -> None:
    rng = np.random.default_rng(0)
    angles = [draw_crop((64, 64), WeakAugmentation(rotate_deg=15.0), crop_px=64, rng=rng).angle_deg for _ in range(500)]
    assert 0 <= min(angles) < 0.5 and 14.5 < max(angles) <= 15.0
    plain, other = (
        draw_crop((64, 64), WeakAugmentation(rotate_deg=degrees), crop_px=64, rng=np.random.default_rng(1))
        for degrees in (0.0, 15.0)
    )
    assert plain.angle_deg == 0.0 and plain.window_px == other.window_px and plain.hflip == other.hflip


def test_one_class_map_keeps_its_axis() -> None:
    crop = CropTransform((1, 0, 4, 6), (5, 7), 7, hflip=True)
    assert crop.apply_to_masks(np.ones((5, 6, 1), np.uint8)).shape == (7, 7, 1)


# ------------------------------------------------------------------------------------------------ looks
def _noise(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(30, 200, (24, 18, 3), dtype=np.uint8)


@pytest.mark.parametrize("name", ["brightness", "contrast", "saturation"])
def test_factor_one_changes_nothing(name: str) -> None:
    assert np.abs(PhotometricTransform(((name, 1.0),)).apply(_noise()).astype(int) - _noise()).max() <= 1


def test_colour_steps_follow_their_definitions() -> None:
    image_HWC = _noise()
    halved = PhotometricTransform((("brightness", 0.5),)).apply(image_HWC)
    assert np.abs(halved - image_HWC / 2).max() <= 1
    flat = PhotometricTransform((("contrast", 0.0),)).apply(image_HWC)
    assert np.ptp(flat) <= 1 and abs(flat.mean() - (image_HWC @ [0.299, 0.587, 0.114]).mean()) < 1.5
    grey = PhotometricTransform((("saturation", 0.0),)).apply(image_HWC).astype(int)
    assert np.ptp(grey, axis=-1).max() <= 1
    third = PhotometricTransform((("hue", 1 / 3),)).apply(image_HWC).astype(int)  # red becomes green
    assert np.abs(third - np.roll(image_HWC.astype(int), 1, axis=-1)).max() <= 6


def test_colour_steps_agree_with_pillow() -> None:
    from PIL import Image, ImageEnhance

    image_HWC = _noise(1)
    makers = {
        "brightness": ImageEnhance.Brightness,
        "contrast": ImageEnhance.Contrast,
        "saturation": ImageEnhance.Color,
    }
    for name, maker in makers.items():
        for factor in (0.5, 0.8, 1.4):
            theirs = np.asarray(maker(Image.fromarray(image_HWC)).enhance(factor)).astype(int)
            assert np.abs(PhotometricTransform(((name, factor),)).apply(image_HWC) - theirs).max() <= 2, (name, factor)


def test_values_clip_and_never_wrap() -> None:
    bright = PhotometricTransform((("brightness", 1.5),)).apply(np.full((5, 7, 3), 250, np.uint8))
    assert (bright == 255).all()
    dark = PhotometricTransform((("contrast", 1.5),)).apply(
        np.concatenate([np.zeros((5, 7, 3)), np.full((5, 7, 3), 200)]).astype(np.uint8)
    )
    assert dark.min() == 0 and dark.max() >= 250


def test_blur_smooths_and_keeps_the_mean() -> None:
    image_HWC = _noise()
    blurred = PhotometricTransform(blur_sigma_px=2.0).apply(image_HWC)
    assert blurred.std() < image_HWC.std() / 2 and abs(blurred.mean() - image_HWC.mean()) < 2
    point = np.zeros((31, 31, 3), np.uint8)
    point[15, 15] = 255
    spread = PhotometricTransform(blur_sigma_px=1.0).apply(point)[15, :, 0].astype(float)
    assert spread[16] / spread[15] == pytest.approx(np.exp(-0.5), abs=0.05)


def test_inputs_are_not_modified() -> None:
    image_HWC = _noise()
    before = image_HWC.copy()
    rng = np.random.default_rng(0)
    for _ in range(20):
        draw_photometric(StrongAugmentation(color_p=1, blur_p=1), rng=rng).apply(image_HWC)
    np.testing.assert_array_equal(image_HWC, before)


def test_photometric_transforms_are_drawn_in_their_ranges() -> None:
    rng = np.random.default_rng(0)
    looks = [draw_photometric(StrongAugmentation(), rng=rng) for _ in range(2000)]
    jittered = [dict(look.colors) for look in looks if look.colors]
    assert len(jittered) / 2000 == pytest.approx(0.8, abs=0.04)
    for name, low, high in (
        ("brightness", 0.5, 1.5),
        ("contrast", 0.5, 1.5),
        ("saturation", 0.5, 1.5),
        ("hue", -0.25, 0.25),
    ):
        values = [steps[name] for steps in jittered]
        assert low <= min(values) < low + 0.02 and high - 0.02 < max(values) <= high
    assert len({tuple(name for name, _ in look.colors) for look in looks if look.colors}) == 24  # any order
    sigmas = [look.blur_sigma_px for look in looks if look.blur_sigma_px is not None]
    assert len(sigmas) / 2000 == pytest.approx(0.5, abs=0.04) and 0.1 <= min(sigmas) and max(sigmas) <= 2


# ------------------------------------------------------------------------------------------------ CutMix
@settings(max_examples=200, deadline=None)
@given(SEEDS, st.integers(32, 300))
def test_boxes_keep_area_and_aspect(seed: int, crop_px: int) -> None:
    box_HW = draw_cutmix_box(CutMixSettings(p=1), crop_px=crop_px, rng=np.random.default_rng(seed))
    rows, cols = np.flatnonzero(box_HW.any(axis=1)), np.flatnonzero(box_HW.any(axis=0))
    height, width = len(rows), len(cols)
    assert box_HW.shape == (crop_px, crop_px) and box_HW.sum() == height * width  # one full rectangle
    assert height * width <= 0.4 * crop_px**2 and (height + 1) * (width + 1) >= 0.02 * crop_px**2
    assert (height + 1) / width >= 0.3 and height / (width + 1) <= 1 / 0.3


def test_boxes_are_tall_more_often_than_wide_as_the_public_code_draws_them() -> None:
    rng, ours, theirs = np.random.default_rng(0), [], []
    for _ in range(1200):
        box_HW = draw_cutmix_box(CutMixSettings(p=1), crop_px=256, rng=rng)
        ours.append(box_HW.any(axis=1).sum() / box_HW.any(axis=0).sum())
        theirs.append(_draw_public_aspect(rng))
    assert np.median(ours) == pytest.approx(np.median(theirs), rel=0.06) and np.median(ours) > 1.1


def _draw_public_aspect(rng: np.random.Generator) -> float:
    """Height over width of a box of the public code: the ratio multiplies the height, and is redrawn until it fits."""
    size = rng.uniform(0.02, 0.4) * 256 * 256
    while True:
        ratio = rng.uniform(0.3, 1 / 0.3)
        width, height = int(np.sqrt(size / ratio)), int(np.sqrt(size * ratio))
        x, y = rng.integers(0, 256, 2)
        if x + width <= 256 and y + height <= 256:
            return height / width


def test_half_of_the_pairs_get_a_box() -> None:
    rng = np.random.default_rng(0)
    areas = np.array([draw_cutmix_box(CutMixSettings(), crop_px=64, rng=rng).mean() for _ in range(1500)])
    assert (areas > 0).mean() == pytest.approx(0.5, abs=0.05)
    assert areas[areas > 0].mean() == pytest.approx(0.21, abs=0.02)
    assert not draw_cutmix_box(CutMixSettings(p=0), crop_px=64, rng=rng).any()


@pytest.mark.parametrize(
    "make",
    [
        lambda: WeakAugmentation(scale=(1.2, 0.8)),
        lambda: WeakAugmentation(scale_to="crp"),  # type: ignore[arg-type]
        lambda: WeakAugmentation(rotate_deg=181.0),
        lambda: StrongAugmentation(hue=0.7),
        lambda: StrongAugmentation(contrast=2.0),
        lambda: StrongAugmentation(blur_sigma_px=(0.0, 1.0)),
        lambda: CutMixSettings(area_frac=(0.5, 0.2)),
        lambda: CutMixSettings(aspect=(0.0, 1.0)),
        lambda: CutMixSettings(area_frac=(0.5, 0.9), aspect=(5.0, 6.0)),
    ],
)
def test_settings_out_of_range_are_refused(make: object) -> None:
    with pytest.raises(ConfigError):
        make()  # type: ignore[operator]
