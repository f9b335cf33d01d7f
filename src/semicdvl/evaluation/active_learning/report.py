"""The report of the patches to label next: both dates, the map and the score of each."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from semicdvl.evaluation.active_learning.patch_scores import PatchScores, read_patch
from semicdvl.evaluation.map_vs_truth import DetectedMap
from semicdvl.raster.io.pair_reader import RasterPair
from semicdvl.reports import colours, html
from semicdvl.reports.numbers import format_count
from semicdvl.types import IGNORE

FIGURE_PX = 320
"""Longest side of a figure."""
MAX_CARDS = 100
"""Further patches are in suggest.gpkg only."""


def write_suggestion_report(
    path: Path,
    result: DetectedMap,
    pair: RasterPair,
    patches: PatchScores,
    novelty_N: NDArray[np.float64],
    notes: Sequence[str],
) -> None:
    """Write suggest.html.

    Args:
        path: the file.
        result: the result of `detect`.
        pair: its images.
        patches: the first to label first.
        novelty_N: distance in appearance of each from those before it, 0 to 1.
        notes: what a reader should know.
    """
    cards = [_build_card(result, pair, patches, novelty_N, at) for at in range(min(len(patches), MAX_CARDS))]
    lead = (
        "Uncertainty is the expected share of wrong pixels, taking the score as the probability of change; novelty is "
        "the distance in appearance from the patches before it."
    )
    columns = ["rank", "row (px)", "column (px)", "uncertainty", "novelty", "changed", "data"]
    facts = (patches.uncertainty_N, novelty_N, patches.changed_frac_N, patches.valid_frac_N)
    rows = [
        [at + 1, row, col, f"{doubt:.1%}", f"{novelty:.2f}", f"{changed:.1%}", f"{valid:.0%}"]
        for at, (row, col, doubt, novelty, changed, valid) in enumerate(
            zip(patches.row_N.tolist(), patches.col_N.tolist(), *facts, strict=True)
        )
    ]
    sections = [
        html.Section("Patches", [html.render_notes(notes), Markup("").join(cards)], lead=lead),
        html.Section("All patches", [html.render_table(columns, rows)]),
    ]
    title = f"Patches to label next in {result.out.resolve().name}"
    html.write_page(
        path, title, sections, subtitle=f"{format_count(len(patches), 'patch', 'patches')} of {patches.side_px} px"
    )


def _build_card(
    result: DetectedMap, pair: RasterPair, patches: PatchScores, novelty_N: NDArray[np.float64], at: int
) -> Markup:
    """Return one patch: both dates, the map over the after image, and the score."""
    row, col, side = int(patches.row_N[at]), int(patches.col_N[at]), patches.side_px
    window = pair.read(row, col, side, side)
    change_HW, score_HW = (read_patch(result, name, row, col, side) for name in ("change", "score"))
    valid_HW = change_HW != IGNORE
    mapped = colours.draw_overlay(window.t2_HWC, (change_HW == 1).astype(np.int32), [colours.CHANGED_COLOUR])
    grey_HW = (255 * (1 - np.clip(np.nan_to_num(score_HW), 0, 1))).astype(np.uint8)
    pictures = {
        "before": window.t1_HWC,
        "after": window.t2_HWC,
        "mapped change": mapped,
        "score (black: 1)": np.repeat(grey_HW[..., None], 3, axis=2),
    }
    figures = [
        html.render_figure(_shrink_image(colours.hatch_no_data(image, valid_HW)), title)
        for title, image in pictures.items()
    ]
    line = (
        f"row {row}, column {col}: uncertainty {patches.uncertainty_N[at]:.1%}, novelty {novelty_N[at]:.2f}, "
        f"{patches.changed_frac_N[at]:.1%} mapped as changed"
    )
    return html.render_card(f"Patch {at + 1}", line, figures)


def _shrink_image(image_HWC: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return an image no larger than a figure."""
    side = image_HWC.shape[0]
    if side <= FIGURE_PX:
        return image_HWC
    return np.asarray(cv2.resize(image_HWC, (FIGURE_PX, FIGURE_PX), interpolation=cv2.INTER_AREA), np.uint8)
