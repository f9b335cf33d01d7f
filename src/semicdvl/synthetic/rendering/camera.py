"""Render a planned city as images of two dates with exact land-cover classes: light, texture, haze, lens, sensor."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from semicdvl.synthetic.config import CitySpec
from semicdvl.synthetic.layout.scene import GroundPatch, Scene
from semicdvl.synthetic.layout.streets import WORLD_PADDING_M
from semicdvl.synthetic.materials import (
    MATERIAL_CLASS,
    MATERIAL_INDEX,
    MATERIAL_TEXTURE_M4,
    seasonal_colours,
    seasonal_near_infrared,
)
from semicdvl.synthetic.rendering.draw import AcquisitionConditions, Canvas, paint_cars, paint_ground
from semicdvl.synthetic.rendering.roofs import add_building_shadow, paint_building
from semicdvl.synthetic.rendering.trees import paint_trees

RENDER_MARGIN_PX = 20
"""The canvas is larger than the image by this on each side, so that a shifted image has no empty edge."""

_STRIP = 256  # rows processed at a time, so that they stay in the processor's cache
NIR_HAZE, NIR_AIR = 0.45, 120.0
"""Haze in near infrared: its share of that in visible light, and its grey value."""
LENS_BLUR_PX = 0.45
"""Blur of every image: at 0.5 m no edge is sharp to one pixel."""

NoiseField = NDArray[np.int8]


@dataclass(frozen=True)
class TextureNoise:
    """Texture of the ground, the same on both dates, as int8: noise of about 1 px, 5 px and 50 px, and one for hue."""

    fine_HW: NoiseField
    mid_HW: NoiseField
    coarse_HW: NoiseField
    green_HW: NoiseField


def draw_acquisitions(spec: CitySpec) -> tuple[AcquisitionConditions, AcquisitionConditions]:
    """Draw sun, view, season, haze and camera of both dates; a nuisance of 0 is the same on both."""
    rng = np.random.default_rng([spec.seed, 77])
    azimuth, elevation = rng.uniform(0, 2 * np.pi), np.deg2rad(rng.uniform(38, 52))
    turn, lift = rng.uniform(-1, 1, 2)
    winter_second = rng.random() < 0.5
    base_winter = rng.uniform(0.0, 0.15)
    acquisitions = []
    directions = rng.uniform(0, 2 * np.pi, 3)
    for i in (0, 1):
        half = np.deg2rad(spec.sun_deg) * (0.5 if i else -0.5)
        tilt, haze, gain, exposure, blur = (
            rng.uniform(0.35, 1),
            rng.uniform(0.15, 1),
            rng.normal(size=3),
            rng.normal(),
            rng.random(),
        )
        winter = base_winter + spec.season * (0.95 - base_winter) * float(winter_second == bool(i))
        shift = spec.shift_px * i
        acquisitions.append(
            AcquisitionConditions(
                sun_azimuth=float(azimuth + half * turn),
                sun_elevation=float(elevation + 0.4 * half * lift),
                view=_from_polar(spec.parallax * tilt, directions[i]),
                winter_frac=float(winter),
                haze=float(spec.haze * haze),
                gain=_to_gain(
                    spec.white_balance * (gain * (1.0, 0.0, 0.3) + gain[0] * np.array((0, 0.15, -0.9)) + 2.0 * exposure)
                ),
                noise_dn=spec.noise_dn,
                blur_px=float(spec.blur_px * blur),
                shift_px=_from_polar(shift, directions[2]),
            )
        )
    return acquisitions[0], acquisitions[1]


def _from_polar(length: float, angle: float) -> tuple[float, float]:
    """Return (x, y) of a vector."""
    return float(length * np.cos(angle)), float(length * np.sin(angle))


def _to_gain(log_gain_C: NDArray[np.float64]) -> tuple[float, float, float]:
    """Return the gain of each band from its limited logarithm."""
    r, g, b = np.exp(np.clip(log_gain_C, -0.5, 0.4))
    return float(r), float(g), float(b)


def draw_texture_noise(spec: CitySpec, shape_px: tuple[int, int]) -> TextureNoise:
    """Draw the noise fields; their correlation lengths are in metres, so texture is the same at every resolution."""
    rng = np.random.default_rng([spec.seed, 78])
    scale = 0.5 / spec.gsd_m
    white = rng.integers(-96, 97, shape_px, dtype=np.int8)
    return TextureNoise(
        fine_HW=white,
        mid_HW=_draw_smooth_noise(rng, shape_px, (3 * scale, 8 * scale), 32),
        coarse_HW=_draw_smooth_noise(rng, shape_px, (30 * scale, 110 * scale), 32),
        green_HW=_draw_smooth_noise(rng, shape_px, (14 * scale, 60 * scale), 32),
    )


def _draw_smooth_noise(
    rng: np.random.Generator, shape_px: tuple[int, int], sizes_px: tuple[float, ...], deviation: float
) -> NoiseField:
    """Return smooth noise: random numbers on coarse grids, resampled and added."""
    out = np.zeros(shape_px, np.float32)
    for size in sizes_px:
        small = rng.standard_normal([int(n / max(size, 1)) + 3 for n in shape_px], dtype=np.float32)
        out += cv2.resize(small, shape_px[::-1], interpolation=cv2.INTER_CUBIC)
    out *= deviation / 0.75 / np.sqrt(len(sizes_px))
    return np.clip(out, -127, 127, out=out).astype(np.int8)


def render_acquisition(
    scene: Scene, spec: CitySpec, date: int, conditions: AcquisitionConditions, texture: TextureNoise
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return the image of one date (HWC uint8) and its land-cover classes (HW uint8) on the ideal grid of date 1.

    With `spec.nir` the image has near infrared as its fourth band.
    """
    height, width = (n + 2 * RENDER_MARGIN_PX for n in spec.shape_px)
    canvas = Canvas(
        (height, width),
        origin_m=WORLD_PADDING_M - RENDER_MARGIN_PX * spec.gsd_m,
        gsd_m=spec.gsd_m,
        palette=seasonal_colours(conditions.winter_frac),
    )
    paint_ground(canvas, _order_ground(scene, date))
    buildings = sorted((b for _, b in scene.buildings(date)), key=lambda b: b.height_m)
    for building in buildings:
        add_building_shadow(canvas, building, conditions)
    paint_trees(canvas, scene.trees, date, conditions, shadows=True)
    canvas.apply_shadows()
    paint_cars(canvas, scene.cars[date - 1], conditions)
    classes_HW = _paint_classes(canvas, scene, date, spec)
    for building in buildings:
        paint_building(canvas, building, conditions)
    paint_trees(canvas, scene.trees, date, conditions, shadows=False)
    _apply_texture(canvas, texture)
    rgb_HWC = _simulate_camera(canvas.rgb_HWC, conditions, spec, date)
    if not spec.nir:
        return rgb_HWC, classes_HW
    nir_HW = _simulate_nir_camera(_paint_near_infrared(canvas, conditions), conditions, spec, date)
    return np.dstack([rgb_HWC, nir_HW]), classes_HW


def _order_ground(scene: Scene, date: int) -> list[GroundPatch]:
    """Return the ground of a date in painting order: water, street surface, blocks from the kerb inwards, all else."""
    plan, water = scene.plan, []
    if plan.banks is not None and plan.river is not None:
        water = [GroundPatch(plan.banks.outline_N2, "meadow", layer=-2)]
        water += [
            GroundPatch(plan.river.outline_N2, "soil", layer=-2, width_m=4.0),
            GroundPatch(plan.river.outline_N2, "water", layer=-2),
        ]
    kerbs = [GroundPatch(b.kerb_N2, "meadow" if b.use == "field" else "concrete") for b in plan.blocks]
    mine = [p for p in scene.patches if p.dates & date]
    streets = [p for p in mine if p.layer == 0 and p.material in ("asphalt", "gravel")]
    blocks = [p for p in mine if p.layer == 0 and p.material not in ("asphalt", "gravel")]
    return [*water, *streets, *kerbs, *blocks, *(p for p in mine if p.layer > 0)]


def _paint_classes(canvas: Canvas, scene: Scene, date: int, spec: CitySpec) -> NDArray[np.uint8]:
    """Return the classes without parallax: ground and cars as painted, then crowns; buildings are rasterised later."""
    inner = slice(RENDER_MARGIN_PX, -RENDER_MARGIN_PX)
    classes: NDArray[np.uint8] = MATERIAL_CLASS[canvas.material_HW[inner, inner]]
    tree = int(MATERIAL_CLASS[MATERIAL_INDEX["tree"]])
    radius_m = scene.trees.radius_m_N2[:, date - 1]
    for i in np.flatnonzero(radius_m > 0):
        x, y = (scene.trees.xy_N2[i] - WORLD_PADDING_M) / spec.gsd_m - 0.5
        centre = (round(float(x) * 16), round(float(y) * 16))
        cv2.circle(classes, centre, round(float(radius_m[i]) / spec.gsd_m * 16), tree, -1, cv2.LINE_8, 4)
    return classes


def _apply_texture(canvas: Canvas, texture: TextureNoise) -> None:
    """Add to every surface the texture of its material."""
    strength = (MATERIAL_TEXTURE_M4 / np.array([55, 32, 32, 32], np.float32)).astype(np.float32)
    for top in range(0, len(canvas.rgb_HWC), _STRIP):
        rows = slice(top, top + _STRIP)
        material = canvas.material_HW[rows]
        bright = cv2.LUT(material, _to_lookup_table(strength[:, 0])) * texture.fine_HW[rows]
        bright += cv2.LUT(material, _to_lookup_table(strength[:, 1])) * texture.mid_HW[rows]
        bright += cv2.LUT(material, _to_lookup_table(strength[:, 2])) * texture.coarse_HW[rows]
        bright += 1
        green = cv2.LUT(material, _to_lookup_table(strength[:, 3])) * texture.green_HW[rows]
        factor = cv2.merge([bright + green, bright, bright + 0.4 * green])
        part = canvas.rgb_HWC[rows]
        cv2.multiply(part, factor, dst=part, dtype=cv2.CV_8U)


def _to_lookup_table(values_M: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return a table of 256 entries for OpenCV, by index of the material."""
    table = np.zeros(256, np.float32)
    table[: len(values_M)] = values_M
    return table


def _paint_near_infrared(canvas: Canvas, conditions: AcquisitionConditions) -> NDArray[np.uint8]:
    """Return the near infrared of what was painted: its grey, with light, shadows and texture, times the material's."""
    ratio_HW = cv2.LUT(canvas.material_HW, _to_lookup_table(seasonal_near_infrared(conditions.winter_frac)))
    grey_HW = canvas.rgb_HWC.mean(axis=2, dtype=np.float32)
    return _to_bytes(grey_HW * np.asarray(ratio_HW, np.float32))


def _simulate_camera(
    rgb_HWC: NDArray[np.uint8], conditions: AcquisitionConditions, spec: CitySpec, date: int
) -> NDArray[np.uint8]:
    """Apply shift, blur, haze, gain and noise, and crop the margin."""
    sharp = _shift_and_blur(rgb_HWC, conditions)
    rng = np.random.default_rng([spec.seed, 79, date])
    height, width = sharp.shape[:2]
    veil = _draw_veil(rng, (height, width))
    out = np.empty((height, width, 3), np.uint8)
    gain = np.array(conditions.gain, np.float32)
    air = np.array([172, 178, 186], np.float32)
    for top in range(0, height, _STRIP):
        rows = slice(top, top + _STRIP)
        haze = (conditions.haze * (0.6 + 0.8 * veil[rows]))[..., None]
        strip = sharp[rows] * ((1 - haze) * gain)
        strip += haze * (air * gain)
        if conditions.noise_dn:
            strip += _draw_sensor_noise(rng, strip.shape, conditions.noise_dn)
        out[rows] = np.clip(np.rint(strip, out=strip), 0, 255, out=strip)
    return out


def _simulate_nir_camera(
    nir_HW: NDArray[np.uint8], conditions: AcquisitionConditions, spec: CitySpec, date: int
) -> NDArray[np.uint8]:
    """Apply to near infrared what a camera does: the shift, blur and veil of RGB, thinner haze, noise of its own."""
    sharp_HW = _shift_and_blur(nir_HW, conditions).astype(np.float32)
    veil_HW = _draw_veil(np.random.default_rng([spec.seed, 79, date]), sharp_HW.shape[:2])
    haze_HW = NIR_HAZE * conditions.haze * (0.6 + 0.8 * veil_HW)
    seen_HW = (sharp_HW * (1 - haze_HW) + haze_HW * NIR_AIR) * np.float32(conditions.gain[0])
    noise_HW = np.random.default_rng([spec.seed, 80, date]).standard_normal(seen_HW.shape, dtype=np.float32)
    return _to_bytes(seen_HW + noise_HW * np.float32(spec.noise_dn))


def _to_bytes(values_HW: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Round and clip to bytes."""
    return np.asarray(np.clip(np.rint(values_HW), 0, 255), np.uint8)


def _shift_and_blur(image: NDArray[np.uint8], conditions: AcquisitionConditions) -> NDArray[np.uint8]:
    """Shift and blur a canvas, of several bands or of one, and crop its margin."""
    if any(conditions.shift_px):
        move = np.array([[1, 0, conditions.shift_px[0]], [0, 1, conditions.shift_px[1]]], np.float32)
        size = image.shape[1::-1]
        image = np.asarray(cv2.warpAffine(image, move, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT))
    sigma = float(np.hypot(LENS_BLUR_PX, conditions.blur_px))
    inner = slice(RENDER_MARGIN_PX, -RENDER_MARGIN_PX)
    return np.asarray(cv2.GaussianBlur(image, (0, 0), sigma), np.uint8)[inner, inner]


def _draw_veil(rng: np.random.Generator, shape_px: tuple[int, ...]) -> NDArray[np.float32]:
    """Draw where haze is thick."""
    coarse = rng.random((4, 4), dtype=np.float32)
    return np.asarray(cv2.resize(coarse, shape_px[1::-1], interpolation=cv2.INTER_CUBIC), np.float32)


def _draw_sensor_noise(rng: np.random.Generator, shape: tuple[int, ...], deviation: float) -> NDArray[np.float32]:
    """Return noise that is mostly common to the bands, as pan-sharpened images have it, and a little red to blue."""
    common = rng.standard_normal(shape[:2], dtype=np.float32) * np.float32(0.88 * deviation)
    hue = rng.standard_normal(shape[:2], dtype=np.float32) * np.float32(0.47 * deviation)
    return np.asarray(cv2.merge([common + hue, common + 0.3 * hue, common - hue]))
