"""Colours of classes and kinds of change, and maps drawn over images."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from semicdvl.raster.vector.qgis_style import CHANGE_KIND_STYLE

Colour = tuple[int, int, int]

KIND_COLOURS: dict[str, Colour] = dict(CHANGE_KIND_STYLE.colours)
"""The same in reports as in a GIS."""
CHANGE_MAP_COLOURS: tuple[Colour, Colour] = ((245, 245, 240), KIND_COLOURS["changed"])
"""Unchanged and changed, where the kind of change is not shown."""
CHANGED_COLOUR, NO_DATA_COLOUR = KIND_COLOURS["changed"], (188, 188, 188)
OUTCOME_COLOURS: dict[str, Colour] = {
    "correctly detected": (0, 158, 115),
    "falsely detected": (213, 94, 0),
    "missed": (0, 114, 178),
}
"""A map against the truth, in every report and picture (Okabe and Ito's green, orange and blue)."""
SCORE_STOPS: tuple[tuple[float, Colour], ...] = (
    (0.0, (255, 247, 236)), (0.25, (253, 212, 158)), (0.5, (252, 141, 89)), (0.75, (215, 48, 31)),
    (1.0, (127, 0, 0)),
)  # fmt: skip
"""Colours of change scores, from pale to dark (ColorBrewer's OrRd)."""
OUTLINE_COLOUR: Colour = (255, 225, 0)

COMMON_CLASS_COLOURS: dict[str, Colour] = {
    "building": (214, 69, 65), "house": (232, 120, 96), "roof": (190, 90, 80), "warehouse": (168, 50, 62),
    "road": (110, 110, 118), "street": (140, 140, 148), "pavement": (170, 170, 176), "parking lot": (150, 142, 160),
    "grass": (156, 204, 101), "tree": (46, 125, 50), "forest": (20, 90, 45), "vegetation": (85, 160, 75),
    "water": (54, 130, 200), "river": (70, 150, 215), "lake": (90, 165, 225), "pond": (120, 180, 220),
    "bare soil": (190, 150, 105), "bare": (190, 150, 105), "bare ground": (190, 150, 105),
    "sand": (225, 205, 150), "field": (205, 190, 110), "background": (215, 215, 210),
}  # fmt: skip
SPARE_COLOURS: tuple[Colour, ...] = (
    (141, 211, 199), (190, 186, 218), (251, 128, 114), (128, 177, 211), (253, 180, 98), (179, 222, 105),
    (252, 205, 229), (188, 128, 189),
)  # fmt: skip


def choose_class_colours(names: Sequence[str]) -> list[Colour]:
    """Return a colour per class: the usual colour on maps for common words, else the next of a fixed list."""
    spare = iter(SPARE_COLOURS * (len(names) // len(SPARE_COLOURS) + 1))
    return [COMMON_CLASS_COLOURS.get(name.lower()) or next(spare) for name in names]


def draw_overlay(
    image_HWC: NDArray[np.uint8], labels_HW: NDArray[np.int32], colours: Sequence[Colour]
) -> NDArray[np.uint8]:
    """Draw labelled objects (label n in `colours[n - 1]`) over a pale grey version of an image of the same size."""
    grey_HW = cv2.cvtColor(image_HWC, cv2.COLOR_RGB2GRAY).astype(np.float32)
    pale_HWC = np.repeat((95 + 0.6 * grey_HW)[..., None], 3, axis=2)
    table = np.array([(0, 0, 0), *colours], np.float32)
    inside_HW = labels_HW > 0
    painted_HWC = pale_HWC.copy()
    painted_HWC[inside_HW] = 0.25 * pale_HWC[inside_HW] + 0.75 * table[labels_HW[inside_HW]]
    painted = np.clip(painted_HWC, 0, 255).astype(np.uint8)
    return painted


def draw_outcomes(
    image_HWC: NDArray[np.uint8], found_HW: NDArray[np.bool_], truth_HW: NDArray[np.bool_]
) -> NDArray[np.uint8]:
    """Paint what was detected, rightly and falsely, and what was missed over a pale grey version of an image."""
    masks = (found_HW & truth_HW, found_HW & ~truth_HW, truth_HW & ~found_HW)
    labels_HW = np.zeros(found_HW.shape, np.int32)
    for number, mask_HW in enumerate(masks, start=1):
        labels_HW[mask_HW] = number
    return draw_overlay(image_HWC, labels_HW, list(OUTCOME_COLOURS.values()))


def hatch_no_data(image_HWC: NDArray[np.uint8], valid_HW: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Return an image with grey hatching where there is no data, so that it is not mistaken for something black."""
    diagonal_HW = np.add.outer(np.arange(valid_HW.shape[0]), np.arange(valid_HW.shape[1]))
    hatch_HW = np.where(diagonal_HW % 16 < 2, 150, 188).astype(np.uint8)
    return np.where(valid_HW[..., None], image_HWC, hatch_HW[..., None])


def draw_outline(image_HWC: NDArray[np.uint8], mask_HW: NDArray[np.bool_], *, side_px: int = 360) -> NDArray[np.uint8]:
    """Enlarge an image so that its longer side is `side_px` and draw the outline of a mask of the original size."""
    height, width = mask_HW.shape
    scale = side_px / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    canvas = cv2.resize(image_HWC, size, interpolation=cv2.INTER_CUBIC if scale > 1 else cv2.INTER_AREA)
    enlarged = cv2.resize(mask_HW.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
    contours = cv2.findContours(enlarged, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)[0]
    canvas = cv2.drawContours(np.ascontiguousarray(canvas), contours, -1, (0, 0, 0), 4, cv2.LINE_AA)
    drawn = cv2.drawContours(canvas, contours, -1, OUTLINE_COLOUR, 2, cv2.LINE_AA)
    return np.asarray(drawn, np.uint8)


def apply_palette(classes_HW: NDArray[np.uint8], colours: Sequence[Colour]) -> NDArray[np.uint8]:
    """Return a class map in colours; values beyond the colours (no data) are grey."""
    table = np.full((256, 3), NO_DATA_COLOUR, np.uint8)
    table[: len(colours)] = colours
    return table[classes_HW]
