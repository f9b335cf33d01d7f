"""The sheet of the patches that should be labelled next: both dates, the map and the score of each."""

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
from semicdvl.types import IGNORE

FIGURE_PX = 320
"""Side of a picture at most."""
MAPPED_CHANGE_COLOUR = (230, 60, 40)
MAX_CARDS = 100
"""Further patches stand in suggest.gpkg only."""


def write_suggestion_report(
    path: Path,
    result: DetectedMap,
    pair: RasterPair,
    patches: PatchScores,
    novelty_N: NDArray[np.float64],
    notes: Sequence[str],
) -> None:
    """Write the page.

    Args:
        path: where to.
        result: what the patches are of.
        pair: its images.
        patches: the first to label first.
        novelty_N: how far each looks from those before it.
        notes: what a reader should know first.
    """
    cards = [_build_card(result, pair, patches, novelty_N, at) for at in range(min(len(patches), MAX_CARDS))]
    lead = (
        "Doubt is the share of the patch that is probably wrong, if the score were the probability of change; novelty "
        "is how far its looks are from those of the patches before it."
    )
    columns = ["rank", "row (px)", "column (px)", "doubt", "novelty", "changed", "data"]
    facts = (patches.uncertainty_N, novelty_N, patches.changed_frac_N, patches.valid_frac_N)
    rows = [
        [at + 1, row, col, f"{doubt:.1%}", f"{novelty:.2f}", f"{changed:.1%}", f"{valid:.0%}"]
        for at, (row, col, doubt, novelty, changed, valid) in enumerate(
            zip(patches.row_N.tolist(), patches.col_N.tolist(), *facts, strict=True)
        )
    ]
    sections = [
        html.Section("Patches", [html.render_notes(notes), Markup("").join(cards)], lead=lead),
        html.Section("All of them", [html.render_table(columns, rows)]),
    ]
    title = f"What to label next in {result.out.resolve().name}"
    html.write_page(path, title, sections, subtitle=f"{len(patches)} patches of {patches.side_px} px")


def _build_card(
    result: DetectedMap, pair: RasterPair, patches: PatchScores, novelty_N: NDArray[np.float64], at: int
) -> Markup:
    """Return one patch: both dates, the map over the after image, and the score."""
    row, col, side = int(patches.row_N[at]), int(patches.col_N[at]), patches.side_px
    window = pair.read(row, col, side, side)
    change_HW, score_HW = (read_patch(result, name, row, col, side) for name in ("change", "score"))
    valid_HW = change_HW != IGNORE
    mapped = colours.draw_overlay(window.t2_HWC, (change_HW == 1).astype(np.int32), [MAPPED_CHANGE_COLOUR])
    grey_HW = (255 * (1 - np.clip(np.nan_to_num(score_HW), 0, 1))).astype(np.uint8)
    pictures = {
        "before": window.t1_HWC,
        "after": window.t2_HWC,
        "found": mapped,
        "score (black is 1)": np.repeat(grey_HW[..., None], 3, axis=2),
    }
    figures = [
        html.render_figure(_shrink_image(colours.hatch_no_data(image, valid_HW)), title)
        for title, image in pictures.items()
    ]
    line = (
        f"row {row}, column {col}: doubt {patches.uncertainty_N[at]:.1%}, novelty {novelty_N[at]:.2f}, "
        f"{patches.changed_frac_N[at]:.1%} found changed"
    )
    return html.render_card(f"{at + 1}", line, figures)


def _shrink_image(image_HWC: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return a picture no larger than a page needs."""
    side = image_HWC.shape[0]
    if side <= FIGURE_PX:
        return image_HWC
    return np.asarray(cv2.resize(image_HWC, (FIGURE_PX, FIGURE_PX), interpolation=cv2.INTER_AREA), np.uint8)
