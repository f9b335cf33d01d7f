"""The materials of ground, roofs and plants: colours by season, texture and land-cover class.

The colours were chosen by eye from aerial images, which are darker, greyer and of less contrast than one remembers.
All are sRGB, 0-255, before sun, haze and camera.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

LAND_COVER_CLASSES = ("building", "road", "pavement", "grass", "tree", "water", "soil", "field", "car")
"""Names of the land-cover classes; the index is the value in the class maps.

`pavement` is sealed ground that is not a street (sidewalk, drive, yard, parking lot), `field` is farmland in any state.
"""

Rgb = tuple[int, int, int]


@dataclass(frozen=True)
class Material:
    """The material of a surface.

    Attributes:
        name: key.
        kind: one of `LAND_COVER_CLASSES`.
        summer: colour in full leaf.
        winter: colour in the leafless season (the same where nothing grows).
        fine, mid, coarse: relative strength of brightness noise of about 1 px, 5 px and 50 px.
        green: relative strength of hue noise (patchy green against yellow), 0 where nothing grows.
    """

    name: str
    kind: str
    summer: Rgb
    winter: Rgb
    fine: float
    mid: float
    coarse: float
    green: float = 0.0


MATERIALS = (
    Material("asphalt", "road", (112, 111, 107), (112, 111, 107), 0.022, 0.025, 0.05),
    Material("marking", "road", (206, 205, 198), (206, 205, 198), 0.031, 0.05, 0.05),
    Material("concrete", "pavement", (160, 157, 148), (160, 157, 148), 0.031, 0.03, 0.05),
    Material("yard", "pavement", (124, 122, 116), (124, 122, 116), 0.028, 0.045, 0.07),
    Material("stall", "pavement", (158, 157, 150), (158, 157, 150), 0.031, 0.05, 0.05),
    Material("gravel", "pavement", (158, 149, 131), (152, 144, 128), 0.056, 0.07, 0.07),
    Material("lawn", "grass", (88, 99, 65), (112, 106, 80), 0.11, 0.09, 0.11, 0.045),
    Material("meadow", "grass", (104, 107, 72), (126, 114, 86), 0.13, 0.12, 0.15, 0.06),
    Material("pitch", "grass", (84, 108, 64), (104, 112, 74), 0.06, 0.05, 0.06, 0.04),
    Material("hedge", "tree", (52, 63, 42), (70, 68, 52), 0.22, 0.18, 0.10, 0.06),
    Material("tree", "tree", (60, 72, 45), (98, 90, 76), 0.20, 0.08, 0.05, 0.03),
    Material("water", "water", (66, 77, 72), (70, 76, 72), 0.020, 0.035, 0.07),
    Material("pool", "water", (92, 152, 160), (88, 140, 150), 0.03, 0.05, 0.04),
    Material("soil", "soil", (142, 121, 94), (134, 115, 92), 0.10, 0.13, 0.14),
    Material("sand", "soil", (176, 161, 132), (170, 156, 130), 0.07, 0.08, 0.08),
    Material("crop", "field", (90, 108, 62), (104, 114, 72), 0.09, 0.07, 0.12, 0.04),
    Material("ripe", "field", (158, 143, 98), (146, 132, 98), 0.08, 0.08, 0.11, 0.04),
    Material("ploughed", "field", (120, 100, 79), (112, 95, 78), 0.12, 0.10, 0.13),
    Material("stubble", "field", (144, 131, 96), (136, 124, 96), 0.10, 0.10, 0.12, 0.04),
    Material("vehicle", "car", (120, 120, 120), (120, 120, 120), 0.02, 0.02, 0.0),
    Material("wall", "building", (150, 143, 132), (150, 143, 132), 0.031, 0.05, 0.03),
    Material("tile_red", "building", (138, 96, 80), (138, 96, 80), 0.043, 0.035, 0.04),
    Material("tile_brown", "building", (116, 98, 84), (116, 98, 84), 0.043, 0.035, 0.04),
    Material("tile_grey", "building", (108, 107, 106), (108, 107, 106), 0.043, 0.035, 0.04),
    Material("shingle", "building", (134, 126, 114), (134, 126, 114), 0.043, 0.035, 0.04),
    Material("gravel_roof", "building", (156, 151, 141), (156, 151, 141), 0.025, 0.05, 0.06),
    Material("membrane", "building", (198, 197, 191), (198, 197, 191), 0.015, 0.03, 0.05),
    Material("bitumen", "building", (88, 87, 87), (88, 87, 87), 0.037, 0.10, 0.08),
    Material("metal", "building", (158, 163, 165), (158, 163, 165), 0.019, 0.04, 0.05),
    Material("metal_blue", "building", (112, 134, 152), (112, 134, 152), 0.019, 0.05, 0.05),
    Material("metal_rust", "building", (138, 110, 94), (138, 110, 94), 0.031, 0.09, 0.08),
)
MATERIAL_INDEX = {material.name: index for index, material in enumerate(MATERIALS)}

MATERIAL_CLASS: NDArray[np.uint8] = np.array([LAND_COVER_CLASSES.index(m.kind) for m in MATERIALS], np.uint8)
MATERIAL_TEXTURE_M4: NDArray[np.float32] = np.array([(m.fine, m.mid, m.coarse, m.green) for m in MATERIALS], np.float32)
"""Noise strengths per material: fine, mid, coarse, green."""

NEAR_INFRARED: dict[str, tuple[int, int]] = {
    "lawn": (172, 128),
    "meadow": (160, 122),
    "pitch": (180, 150),
    "hedge": (150, 112),
    "tree": (164, 104),
    "crop": (182, 140),
    "ripe": (172, 158),
    "ploughed": (134, 124),
    "stubble": (160, 150),
    "soil": (158, 148),
    "sand": (188, 182),
    "water": (20, 22),
    "pool": (34, 34),
    "tile_red": (156, 156),
    "tile_brown": (130, 130),
}
"""Near infrared of materials in summer and winter, 0-255; of the others it is their mean of red, green and blue.

Leaves reflect three to five times as much near infrared as red light, water nearly none, and brick more than its colour
suggests. Chosen by eye from aerial images with four bands, as the colours are.
"""

PITCHED_ROOFS = ("tile_red", "tile_brown", "tile_grey", "shingle")
FLAT_ROOFS = ("gravel_roof", "membrane", "bitumen")
HALL_ROOFS = ("metal", "membrane", "metal_blue", "metal_rust", "gravel_roof")
WALL_RGB = (150.0, 143.0, 132.0)
CAR_RGB = (
    (206, 206, 204),
    (160, 163, 166),
    (92, 94, 97),
    (44, 45, 48),
    (62, 78, 108),
    (128, 50, 46),
    (178, 172, 156),
    (216, 216, 214),
)


def seasonal_colours(winter_frac: float) -> NDArray[np.float32]:
    """Return the colour of every material, M3, 0-255, for a season from 0 (summer) to 1 (winter)."""
    summer = np.array([m.summer for m in MATERIALS], np.float32)
    winter = np.array([m.winter for m in MATERIALS], np.float32)
    return summer + (winter - summer) * np.float32(winter_frac)


def seasonal_near_infrared(winter_frac: float) -> NDArray[np.float32]:
    """Return how much brighter than its mean of red, green and blue each material is in near infrared, M."""
    grey_M = seasonal_colours(winter_frac).mean(axis=1)
    own = [NEAR_INFRARED.get(m.name) for m in MATERIALS]
    wanted = [
        grey if pair is None else pair[0] + (pair[1] - pair[0]) * winter_frac
        for pair, grey in zip(own, grey_M, strict=True)
    ]
    return np.asarray(np.array(wanted, np.float32) / grey_M)
