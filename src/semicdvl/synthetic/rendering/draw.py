"""Paint one date of a synthetic city on a canvas: ground, shadows and cars.

Everything is painted twice: in colour with smooth edges, and as the index of a material with hard edges. Roofs and
crowns are displaced by `view` metres per metre of height, as an oblique camera sees them; the ground is not.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from semicdvl.synthetic.layout.geometry import Points
from semicdvl.synthetic.layout.scene import Cars, GroundPatch
from semicdvl.synthetic.materials import CAR_RGB, MATERIAL_INDEX

_SHIFT = 4  # OpenCV takes vertices in sixteenths of a pixel
SHADOW_FACTORS = (0.36, 0.40, 0.48)
"""Share of the light in a shadow, by band: the light of the sky, which is blue."""


@dataclass(frozen=True)
class AcquisitionConditions:
    """The conditions under which the image of one date is taken.

    Attributes:
        sun_azimuth: direction of the sun in the image, radians from +x towards +y.
        sun_elevation: angle of the sun above the horizon, radians.
        view: (x, y) displacement of a roof in metres per metre of height.
        winter_frac: 0 full leaf, 1 bare.
        haze: share of the light that comes from haze.
        gain: factor per band.
        noise_dn: standard deviation of noise in grey values.
        blur_px: blur in addition to that of the lens.
        shift_px: (x, y) displacement of the whole image.
    """

    sun_azimuth: float
    sun_elevation: float
    view: tuple[float, float]
    winter_frac: float
    haze: float
    gain: tuple[float, float, float]
    noise_dn: float
    blur_px: float
    shift_px: tuple[float, float]

    def shadow_per_metre(self) -> Points:
        """Return the (x, y) displacement in metres of the tip of a shadow per metre of height."""
        away: Points = -np.array([np.cos(self.sun_azimuth), np.sin(self.sun_azimuth)])
        return away / float(np.tan(self.sun_elevation))

    def illumination(self, slope: float, facing: float) -> float:
        """Return the light on a plane of this slope and direction, relative to level ground."""
        sun_z, sun_xy = np.sin(self.sun_elevation), np.cos(self.sun_elevation)
        direct = np.cos(slope) * sun_z + np.sin(slope) * sun_xy * np.cos(facing - self.sun_azimuth)
        return float((0.34 + 0.85 * max(direct, 0.0)) / (0.34 + 0.85 * sun_z))


class Canvas:
    """Colour, material and shadow of one date, with the transform from metres of the world to pixels."""

    def __init__(
        self, shape_px: tuple[int, int], *, origin_m: float, gsd_m: float, palette: NDArray[np.float32]
    ) -> None:
        """Start with tarmac everywhere; `origin_m` is the corner of the canvas in the world, on both axes."""
        self.origin_m, self.gsd_m, self.palette = origin_m, gsd_m, palette
        self.rgb_HWC = np.empty((*shape_px, 3), np.uint8)
        self.rgb_HWC[:] = palette[MATERIAL_INDEX["asphalt"]].astype(np.uint8)
        self.material_HW = np.full(shape_px, MATERIAL_INDEX["asphalt"], np.uint8)
        self.shade_HW = np.zeros(shape_px, np.uint8)

    def to_pixels(self, points_N2: Points) -> Points:
        """Return pixel coordinates; whole numbers are pixel centres."""
        out: Points = (points_N2 - self.origin_m) / self.gsd_m - 0.5
        return out

    def to_fixed_point(self, points_N2: Points) -> NDArray[np.int32]:
        """Return pixel coordinates as fixed-point numbers of OpenCV."""
        scale = (1 << _SHIFT) / self.gsd_m
        fixed: NDArray[np.float64] = np.rint(points_N2 * scale - (self.origin_m * scale + (1 << _SHIFT) / 2))
        return fixed.astype(np.int32)

    def is_outside(self, points_N2: Points, margin_m: float = 0.0) -> bool:
        """Tell whether an outline is outside the canvas."""
        (x0, y0), (x1, y1) = points_N2.min(axis=0).tolist(), points_N2.max(axis=0).tolist()
        height, width = self.material_HW.shape
        low, high_x, high_y = self.origin_m - margin_m, width * self.gsd_m, height * self.gsd_m
        far = self.origin_m + margin_m
        return bool(x1 < low or y1 < low or x0 > far + high_x or y0 > far + high_y)

    def fill(self, rings: list[Points], rgb: Points, material: str | None = None) -> None:
        """Paint an area; further rings are holes."""
        fixed = [self.to_fixed_point(ring) for ring in rings]
        cv2.fillPoly(self.rgb_HWC, fixed, _to_cv2_colour(rgb), cv2.LINE_AA, _SHIFT)
        if material is not None:
            cv2.fillPoly(self.material_HW, fixed, MATERIAL_INDEX[material], cv2.LINE_8, _SHIFT)

    def stroke(self, line_N2: Points, width_m: float, rgb: Points, material: str | None = None) -> None:
        """Paint a line of this width; one thinner than a pixel is mixed with what is below."""
        width_px = width_m / self.gsd_m
        if width_px >= 2.5:
            for band in _outline_band(line_N2, width_m):
                self.fill([band], rgb, material)
            return
        fixed = self.to_fixed_point(line_N2)
        if width_px < 0.8:
            x, y = np.clip(
                self.to_pixels(line_N2[len(line_N2) // 2]).astype(int), 0, np.array(self.material_HW.shape[::-1]) - 1
            )
            rgb = self.rgb_HWC[y, x] + (np.asarray(rgb) - self.rgb_HWC[y, x]) * (width_px / 0.8)
        cv2.polylines(self.rgb_HWC, [fixed], False, _to_cv2_colour(rgb), max(1, round(width_px)), cv2.LINE_AA, _SHIFT)
        if material is not None and width_px >= 0.8:
            cv2.polylines(
                self.material_HW, [fixed], False, MATERIAL_INDEX[material], round(width_px), cv2.LINE_8, _SHIFT
            )

    def add_shadow(self, ring_N2: Points, reach_m: Points) -> None:
        """Add the shadow of an upright prism whose top is displaced by `reach_m` in the shadow's direction."""
        far = ring_N2 + reach_m
        if len(ring_N2) == 4:
            hull = cv2.convexHull(self.to_fixed_point(np.vstack([ring_N2, far])))
            cv2.fillConvexPoly(self.shade_HW, hull, 255, cv2.LINE_AA, _SHIFT)
            return
        for i in range(len(ring_N2)):
            quad = np.array([ring_N2[i - 1], ring_N2[i], far[i], far[i - 1]])
            cv2.fillConvexPoly(self.shade_HW, self.to_fixed_point(quad), 255, cv2.LINE_AA, _SHIFT)
        cv2.fillPoly(self.shade_HW, [self.to_fixed_point(far)], 255, cv2.LINE_AA, _SHIFT)

    def apply_shadows(self) -> None:
        """Darken what is painted so far by the collected shadows."""
        cv2.blur(self.shade_HW, (3, 3), dst=self.shade_HW)
        left = np.arange(256)[:, None] * (1 - np.array(SHADOW_FACTORS)) / 255
        table = np.round(255 * (1 - left)).astype(np.uint8)[None]
        for top in range(0, len(self.rgb_HWC), 256):
            part = self.rgb_HWC[top : top + 256]
            factor = cv2.LUT(cv2.merge([self.shade_HW[top : top + 256]] * 3), table)
            cv2.multiply(part, factor, dst=part, scale=1 / 255)

    def illumination_at(self, xy: Points) -> float:
        """Return the light on a point of the ground: 1 in the sun, less in a shadow."""
        x, y = self.to_pixels(xy).astype(int)
        height, width = self.shade_HW.shape
        if not (0 <= x < width and 0 <= y < height):
            return 1.0
        return 1.0 - 0.52 * float(self.shade_HW[y, x]) / 255


def paint_ground(canvas: Canvas, patches: list[GroundPatch]) -> None:
    """Paint pieces of ground in their order."""
    for patch in patches:
        if canvas.is_outside(patch.points_N2, patch.width_m or 0.0):
            continue
        rgb = canvas.palette[MATERIAL_INDEX[patch.material]] * np.array(patch.tint)
        if patch.width_m is not None:
            canvas.stroke(patch.points_N2, patch.width_m, rgb, patch.material)
        else:
            canvas.fill([patch.points_N2], rgb, patch.material)
        if patch.furrows is not None:
            _draw_furrows(canvas, patch.points_N2, patch.furrows)


def _draw_furrows(canvas: Canvas, ring_N2: Points, furrows: tuple[float, float, float]) -> None:
    """Draw rows over a field: a wave of brightness across."""
    turn, spacing_m, strength = furrows
    outline = np.round(canvas.to_pixels(ring_N2)).astype(np.int32)
    low = np.maximum(outline.min(axis=0), 0)
    high = np.minimum(outline.max(axis=0) + 1, canvas.material_HW.shape[::-1])
    if (high <= low).any():
        return
    mask = np.zeros((high[1] - low[1], high[0] - low[0]), np.uint8)
    cv2.fillPoly(mask, [outline - low.astype(np.int32)], 1)
    x = (np.arange(low[0], high[0], dtype=np.float32)[None] + 0.5) * canvas.gsd_m
    y = (np.arange(low[1], high[1], dtype=np.float32)[:, None] + 0.5) * canvas.gsd_m
    across = (y * np.cos(turn) - x * np.sin(turn)) * np.float32(2 * np.pi / spacing_m)
    # Every eighth row is a tractor's track.
    wave = np.sin(across) + 1.2 * np.maximum(np.cos(across / 8) - 0.93, 0) / 0.07
    factor = 1 - strength * wave * mask
    part = canvas.rgb_HWC[low[1] : high[1], low[0] : high[0]]
    part[:] = np.clip(part * factor[..., None], 0, 255)


def paint_cars(canvas: Canvas, cars: Cars, conditions: AcquisitionConditions) -> None:
    """Paint cars with shadow, body and windows; a lorry is a box behind a cab."""
    reach = conditions.shadow_per_metre() * 1.3
    for (x, y, heading, length), number in zip(cars.place_N4, cars.colour_N, strict=True):
        spot = np.array([x, y])
        if canvas.is_outside(spot[None], 6.0):
            continue
        light = canvas.illumination_at(spot)
        c, s = np.cos(heading), np.sin(heading)
        turn = np.array([[c, s], [-s, c]])
        half_u, half_v = length / 2, 0.92 if length < 6 else 1.25
        body = np.array([(-half_u, -half_v), (half_u, -half_v), (half_u, half_v), (-half_u, half_v)])
        ground = spot + body @ turn
        under = cv2.convexHull(canvas.to_fixed_point(np.vstack([ground, ground + reach])))
        cv2.fillConvexPoly(
            canvas.rgb_HWC, under, (int(46 * light), int(47 * light), int(50 * light)), cv2.LINE_AA, _SHIFT
        )
        colour = np.array(CAR_RGB[number % len(CAR_RGB)], float) * light * (0.86 + 0.28 * (number // 8 % 64) / 64)
        canvas.fill([ground], colour if length < 6 else np.array([196.0, 196, 192]) * light, "vehicle")
        if length < 6:
            for u0, u1, tone in ((0.12, 0.26, 0.42), (-0.37, -0.28, 0.62)):
                glass = np.array([(u0, -0.8), (u1, -0.75), (u1, 0.75), (u0, 0.8)]) * (length, 1.0)
                canvas.fill([spot + glass @ turn], colour * tone + 14)
        else:
            cab = np.array([(0.32, -1.2), (0.5, -1.2), (0.5, 1.2), (0.32, 1.2)]) * (length, 1.0)
            canvas.fill([spot + cab @ turn], colour)


def _outline_band(line_N2: Points, width_m: float) -> list[Points]:
    """Return the outlines of a wide line with square ends; where it bends sharply there are several."""
    if len(line_N2) > 2:
        ahead = np.diff(line_N2, axis=0)
        turn = np.abs(np.diff(np.unwrap(np.arctan2(ahead[:, 1], ahead[:, 0]))))
        if turn.max() > 0.9:
            return [band for i in range(len(line_N2) - 1) for band in _outline_band(line_N2[i : i + 2], width_m)]
    ahead = np.gradient(line_N2, axis=0)
    ahead /= np.maximum(np.hypot(*ahead.T), 1e-9)[:, None]
    side = np.stack([-ahead[:, 1], ahead[:, 0]], 1) * width_m / 2
    return [np.vstack([line_N2 - side, (line_N2 + side)[::-1]])]


def _to_cv2_colour(rgb: Points) -> tuple[int, int, int]:
    """Return a colour as whole numbers from 0 to 255."""
    r, g, b = np.asarray(rgb).tolist()
    return min(max(round(r), 0), 255), min(max(round(g), 0), 255), min(max(round(b), 0), 255)
