"""Draw the sheets that a labeller looks at: plain pictures with a ruler, numbered segments, outlines of labels."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from label_answers import UNKNOWN

Image = NDArray[np.uint8]

PANEL_PX = 768
REVIEW_PX = 512
FONT = cv2.FONT_HERSHEY_SIMPLEX
TINTS = np.array([
    (235, 220, 60), (255, 30, 30), (150, 90, 255), (20, 180, 40), (0, 220, 255), (255, 150, 0), (255, 0, 255),
    (255, 255, 255),
], dtype=np.float32)  # fmt: skip
"""RGB of the classes, in their order: ground yellow, building red, paved violet, tree green, water cyan, tank orange,
object magenta, court white."""
TINT_SHARE = 0.27


def _enlarge(image: Image, size_px: int, interpolation: int = cv2.INTER_CUBIC) -> Image:
    return np.asarray(cv2.resize(image, (size_px, size_px), interpolation=interpolation), np.uint8)


def _write(image: Image, text: str, at: tuple[int, int], scale: float = 0.38) -> None:
    cv2.putText(image, text, at, FONT, scale, (0, 0, 0), 3, cv2.LINE_AA)
    cv2.putText(image, text, at, FONT, scale, (255, 255, 255), 1, cv2.LINE_AA)


def _draw_ruler(panel: Image, size_px: int) -> None:
    """Mark every sixteenth of the scene's pixels at the edges."""
    step = size_px // 16
    for mark in range(step, size_px, step):
        at = round(mark * len(panel) / size_px)
        cv2.line(panel, (at, 0), (at, 7), (255, 255, 0), 1)
        cv2.line(panel, (0, at), (7, at), (255, 255, 0), 1)
        if (mark // step) % 2 == 0:
            _write(panel, str(mark), (at - 10, 18), 0.33)
            _write(panel, str(mark), (9, at + 4), 0.33)


def draw_plain(image_HWC: Image, name: str) -> Image:
    """Return the enlarged scene with its name and a ruler in its own pixels."""
    panel = _enlarge(image_HWC, PANEL_PX)
    _draw_ruler(panel, image_HWC.shape[0])
    _write(panel, name, (30, PANEL_PX - 10), 0.6)
    return panel


def _tint(panel: Image, labels_HW: Image, share: float) -> Image:
    big_HW = _enlarge(labels_HW, len(panel), cv2.INTER_NEAREST)
    colours = TINTS[np.where(big_HW == UNKNOWN, 0, big_HW)]
    mixed = panel * (1 - share) + colours * share
    return np.where((big_HW == UNKNOWN)[..., None], panel, mixed).astype(np.uint8)


def find_edges(labels_HW: Image) -> NDArray[np.bool_]:
    """Return the pixels whose right or lower neighbour is another."""
    edge_HW = np.zeros(labels_HW.shape, bool)
    edge_HW[:, :-1] |= labels_HW[:, 1:] != labels_HW[:, :-1]
    edge_HW[:-1] |= labels_HW[1:] != labels_HW[:-1]
    return edge_HW


def draw_numbered(image_HWC: Image, segments_HW: Image, labels_HW: Image) -> Image:
    """Return the enlarged scene, tinted by the proposal, with outlined and numbered segments."""
    panel = _tint(_enlarge(image_HWC, PANEL_PX), labels_HW, TINT_SHARE)
    big_HW = _enlarge(segments_HW, PANEL_PX, cv2.INTER_NEAREST)
    panel[find_edges(big_HW)] = (0, 0, 0)
    for number in np.unique(segments_HW).tolist():
        inside = np.pad((big_HW == number).astype(np.uint8), 1)
        distance = cv2.distanceTransform(inside, cv2.DIST_L2, 3)[1:-1, 1:-1]
        row, col = np.unravel_index(int(distance.argmax()), distance.shape)
        text = str(number)
        _write(panel, text, (int(col) - 4 * len(text), int(row) + 4))
    return panel


def draw_review(image_HWC: Image, labels_HW: Image, name: str) -> Image:
    """Return the scene with the outlines of its labels in the colours of the classes; unknown is hatched."""
    panel = _tint(_enlarge(image_HWC, REVIEW_PX), labels_HW, 0.12)
    big_HW = _enlarge(labels_HW, REVIEW_PX, cv2.INTER_NEAREST)
    for label in range(len(TINTS)):
        inner = cv2.erode((big_HW == label).astype(np.uint8), np.ones((3, 3), np.uint8))
        panel[(big_HW == label) & (inner == 0)] = TINTS[label]
    rows, cols = np.indices(big_HW.shape)
    panel[(big_HW == UNKNOWN) & ((rows + cols) % 8 == 0)] = (0, 0, 0)
    _draw_ruler(panel, image_HWC.shape[0])
    _write(panel, name, (24, REVIEW_PX - 8), 0.5)
    return panel


def stack_sheet(rows: list[list[Image]]) -> Image:
    """Return panels set in rows with a small gap."""
    gap = 4
    height, width = rows[0][0].shape[:2]
    count = max(len(row) for row in rows)
    sheet = np.zeros((len(rows) * (height + gap), count * (width + gap), 3), np.uint8)
    for r, row in enumerate(rows):
        for c, panel in enumerate(row):
            top, left = r * (height + gap), c * (width + gap)
            sheet[top : top + height, left : left + width] = panel
    return sheet
