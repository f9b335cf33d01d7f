"""Image sheets: inputs, targets and predictions of the current batch, for visual inspection.

One row per pair; maps are those of the weak view, so they lie over its images. The strong view is shown as the network
gets it, CutMix included: the outlined part comes from another pair, labels and all.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor, nn

from semicdvl import losses
from semicdvl.atomic_files import write_atomically
from semicdvl.methods.common.weak_to_strong import cutmix_strong_view, eval_mode, label_weak_view
from semicdvl.reports.colours import CHANGED_COLOUR
from semicdvl.types import IGNORE, IMAGENET_MEAN, IMAGENET_STD, LabelledBatch, Method, UnlabelledBatch

ByteArray = NDArray[np.uint8]
COLUMNS = (
    "weak view, date 1",
    "weak view, date 2",
    "strong view, date 1",
    "strong view, date 2",
    "true label",
    "own pseudo-label",
    "VLM label",
    "prediction",
)
WEAK_T1, WEAK_T2, STRONG_T1, STRONG_T2, TRUTH, PSEUDO, VLM, PREDICTION = COLUMNS
PADDING = 254
"""Value of a pixel that the crop added, in the maps of a sheet."""

CLASS_COLORS = {0: (38, 42, 54), 1: CHANGED_COLOUR, IGNORE: (128, 134, 146), PADDING: (214, 222, 235)}
LEGEND = {
    0: "unchanged",
    1: "changed",
    IGNORE: "ignored: no label, VLM not confident, or pseudo-label not confident",
    PADDING: "padding",
}
TRUTH_NOTE = "True labels of unlabelled pairs are shown for comparison; they are not used for training."
CUTMIX_COLOR = (0, 200, 220)
BACKGROUND_COLOR, TEXT_COLOR, NOTE_COLOR = (255, 255, 255), (20, 22, 28), (112, 118, 128)
CELL_PX, GAP_PX, MARGIN_PX, NAME_PX = 168, 8, 16, 118
ROWS_PER_PART = 3


@dataclass(frozen=True)
class SheetRow:
    """One pair: its kind, a note, images (RGB, HWC) and maps (HW) by column, and the CutMix box if there is one."""

    name: str
    note: str
    cells: Mapping[str, ByteArray]
    box_HW: NDArray[np.bool_] | None = None


# ------------------------------------------------------------------------------------------------ what is shown
def build_sheet(
    student: nn.Module,
    teacher: nn.Module,
    method: Method,
    *,
    labelled: LabelledBatch,
    unlabelled: UnlabelledBatch | None,
) -> list[SheetRow]:
    """Return the rows of a sheet: the first few labelled and unlabelled pairs of a batch.

    Weights, running statistics and random numbers stay as they are.

    Args:
        student: gives the prediction (eval mode, weak view).
        teacher: gives the pseudo-labels; those below the method's confidence threshold are shown as ignored.
        method: gives the confidence threshold of pseudo-labels and the pairs that CutMix pastes from.
        labelled: batch with normalised images.
        unlabelled: the same, or None.
    """
    rows = list(_build_labelled_rows(student, labelled))
    if unlabelled is not None:
        rows += _build_unlabelled_rows(student, teacher, method, unlabelled)
    return rows


def _build_labelled_rows(student: nn.Module, batch: LabelledBatch) -> Iterator[SheetRow]:
    """Yield the rows of labelled pairs."""
    found_BHW = _predict_classes(student, batch.t1_BCHW[:ROWS_PER_PART], batch.t2_BCHW[:ROWS_PER_PART])
    for index, found_HW in enumerate(found_BHW):
        cells = {
            WEAK_T1: _to_rgb_image(batch.t1_BCHW[index]),
            WEAK_T2: _to_rgb_image(batch.t2_BCHW[index]),
            TRUTH: _to_class_map(batch.label_BHW[index]),
            PREDICTION: _to_class_map(found_HW),
        }
        if batch.vlm is not None:
            cells[VLM] = _to_class_map(batch.vlm.change_BHW[index])
        yield SheetRow("labelled", _describe_changed_share(cells[TRUTH]), cells)


def _build_unlabelled_rows(
    student: nn.Module, teacher: nn.Module, method: Method, batch: UnlabelledBatch
) -> Iterator[SheetRow]:
    """Yield the rows of unlabelled pairs."""
    pseudo = label_weak_view(teacher, batch)
    strong = cutmix_strong_view(batch, own=pseudo, pasted=pseudo, partner=method.cutmix_partner)
    confident_BHW = losses.is_confident(
        pseudo.label_BHW,
        pseudo.confidence_BHW,
        confidence_min=method.confidence_min,
        confidence_min_changed=method.confidence_min_changed,
    )
    found_BHW = _predict_classes(student, batch.weak_t1_BCHW[:ROWS_PER_PART], batch.weak_t2_BCHW[:ROWS_PER_PART])
    for index, found_HW in enumerate(found_BHW):
        valid_HW, confident_HW = batch.valid_BHW[index], confident_BHW[index]
        cells = {
            WEAK_T1: _to_rgb_image(batch.weak_t1_BCHW[index]),
            WEAK_T2: _to_rgb_image(batch.weak_t2_BCHW[index]),
            STRONG_T1: _to_rgb_image(strong.t1_BCHW[index]),
            STRONG_T2: _to_rgb_image(strong.t2_BCHW[index]),
            PSEUDO: _to_class_map(pseudo.label_BHW[index].where(confident_HW, IGNORE), valid_HW),
            PREDICTION: _to_class_map(found_HW, valid_HW),
        }
        if batch.vlm is not None:
            cells[VLM] = _to_class_map(batch.vlm.change_BHW[index], valid_HW)
        if batch.truth_BHW is not None:
            cells[TRUTH] = _to_class_map(batch.truth_BHW[index], valid_HW)
        share = (confident_HW & valid_HW).sum().item() / max(int(valid_HW.sum()), 1)
        yield SheetRow("unlabelled", f"{share:.0%} confident", cells, batch.cutmix_box_BHW[index].cpu().numpy())


def _predict_classes(student: nn.Module, t1_BCHW: Tensor, t2_BCHW: Tensor) -> Tensor:
    """Return the class of each pixel, BHW."""
    with torch.no_grad(), eval_mode(student):
        logits_BKHW: Tensor = student(t1_BCHW, t2_BCHW, heads=frozenset({"change"})).change_BKHW
    return logits_BKHW.argmax(dim=1)


def _to_rgb_image(image_CHW: Tensor) -> ByteArray:
    """Return a normalised image as RGB bytes, HWC; of more bands the first three."""
    image_CHW = image_CHW[: len(IMAGENET_MEAN)]
    mean, std = (image_CHW.new_tensor(values)[:, None, None] for values in (IMAGENET_MEAN, IMAGENET_STD))
    image_HWC: ByteArray = ((image_CHW * std + mean) * 255).round().clamp(0, 255).byte().permute(1, 2, 0).cpu().numpy()
    return np.ascontiguousarray(image_HWC)


def _to_class_map(classes_HW: Tensor, valid_HW: Tensor | None = None) -> ByteArray:
    """Return a class map as bytes, padding marked where it is known."""
    if valid_HW is not None:
        classes_HW = classes_HW.where(valid_HW, PADDING)
    plain_HW: ByteArray = classes_HW.to(torch.uint8).cpu().numpy()
    return plain_HW


def _describe_changed_share(label_HW: ByteArray) -> str:
    """Return in words how much of a labelled pair is changed."""
    return f"{(label_HW == 1).sum() / max((label_HW != IGNORE).sum(), 1):.1%} changed"


# ------------------------------------------------------------------------------------------------ how it is drawn
def write_sheet(path: Path, rows: list[SheetRow], *, title: str) -> None:
    """Draw the rows under a title and the columns' names, with a legend, and write the PNG whole.

    A column that no row fills is left out.
    """
    columns = [column for column in COLUMNS if any(column in row.cells for row in rows)]
    left, top, step = MARGIN_PX + NAME_PX, MARGIN_PX + 62, CELL_PX + GAP_PX
    size = (max(left + len(columns) * step + MARGIN_PX, 860), top + len(rows) * step + 64)
    sheet = Image.new("RGB", size, BACKGROUND_COLOR)
    draw = ImageDraw.Draw(sheet)
    draw.text((MARGIN_PX, MARGIN_PX), title, TEXT_COLOR, _load_font(20))
    for number, column in enumerate(columns):
        draw.text((left + number * step, top - 20), column, TEXT_COLOR, _load_font(14))
    for line, row in enumerate(rows):
        y = top + line * step
        draw.text((MARGIN_PX, y + 4), row.name, TEXT_COLOR, _load_font(15))
        draw.text((MARGIN_PX, y + 24), row.note, NOTE_COLOR, _load_font(12))
        for number, column in enumerate(columns):
            _draw_cell(sheet, (left + number * step, y), row, column)
    unlabelled = any(row.box_HW is not None for row in rows)
    _draw_legend(draw, (left, top + len(rows) * step + 8), with_box=unlabelled)
    if unlabelled and TRUTH in columns:
        draw.text((MARGIN_PX, size[1] - 28), TRUTH_NOTE, NOTE_COLOR, _load_font(12))
    with write_atomically(path) as temporary:
        sheet.save(temporary)


def _draw_cell(sheet: Image.Image, place: tuple[int, int], row: SheetRow, column: str) -> None:
    """Draw one image or map, or an empty frame where the pair has none."""
    cell = row.cells.get(column)
    if cell is None:
        corner = (place[0] + CELL_PX, place[1] + CELL_PX)
        draw = ImageDraw.Draw(sheet)
        draw.rectangle((place, corner), outline=(225, 228, 233))
        draw.text((place[0] + CELL_PX // 2 - 14, place[1] + CELL_PX // 2 - 8), "none", (170, 175, 183), _load_font(13))
        return
    image_HWC = _scale_to_cell(cell)
    if row.box_HW is not None and column in (STRONG_T1, STRONG_T2):
        _draw_box_outline(image_HWC, row.box_HW)
    sheet.paste(Image.fromarray(image_HWC), place)


def _scale_to_cell(cell: ByteArray) -> ByteArray:
    """Resize an image, or a map in its colours, to the size of a cell."""
    height, width = cell.shape[:2]
    factor = CELL_PX / max(height, width)
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    if cell.ndim == 3:
        how = cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR
        return np.asarray(cv2.resize(cell, size, interpolation=how), dtype=np.uint8)
    small_HW = cv2.resize(cell, size, interpolation=cv2.INTER_NEAREST_EXACT)
    image_HWC = np.zeros((*small_HW.shape, 3), np.uint8)
    for value, colour in CLASS_COLORS.items():
        image_HWC[small_HW == value] = colour
    return image_HWC


def _draw_box_outline(image_HWC: ByteArray, box_HW: NDArray[np.bool_]) -> None:
    """Draw the outline of the CutMix box into an image."""
    height, width = image_HWC.shape[:2]
    inside_HW = cv2.resize(box_HW.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST_EXACT)
    edge_HW = inside_HW - cv2.erode(inside_HW, np.ones((5, 5), np.uint8), borderValue=0)
    image_HWC[edge_HW.astype(bool)] = CUTMIX_COLOR


def _draw_legend(draw: ImageDraw.ImageDraw, place: tuple[int, int], *, with_box: bool) -> None:
    """Draw a patch of each colour and what it means."""
    x, y = place
    entries = [(CLASS_COLORS[value], text) for value, text in LEGEND.items()]
    for colour, text in [*entries, *([(CUTMIX_COLOR, "pasted by CutMix")] if with_box else [])]:
        draw.rectangle((x, y, x + 14, y + 14), fill=colour)
        draw.text((x + 20, y), text, TEXT_COLOR, _load_font(13))
        x += 20 + int(draw.textlength(text, _load_font(13))) + 18


@lru_cache
def _load_font(size_px: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Return Pillow's own font."""
    return ImageFont.load_default(size_px)
