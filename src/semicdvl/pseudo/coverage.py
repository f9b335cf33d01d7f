"""How much of the images the labels cover, and, where true labels exist, how good they are for each gamma."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from semicdvl.data.pairs import read_pair
from semicdvl.metrics import Confusion
from semicdvl.pseudo.generate import CEGSettings, generate, make_labels
from semicdvl.pseudo.prompts import Prompts
from semicdvl.pseudo.store import PseudoStore
from semicdvl.types import IGNORE, VLM, PairFiles

GAMMAS = (0.1, 0.3, 0.5, 0.65, 0.8, 0.9)
MOST_PAIRS = 200
"""Quality is measured on at most this many labelled pairs, spread evenly."""


@dataclass(frozen=True)
class Quality:
    """Change labels against the truth at one gamma, as in the paper's Table 6.

    Attributes:
        gamma: the threshold.
        reliable_frac: share of pixels with a label.
        valid: counts over the pixels with a label.
        total: counts over all pixels, those without a label taken as unchanged.
    """

    gamma: float
    reliable_frac: float
    valid: Confusion
    total: Confusion


@dataclass(frozen=True)
class Filled:
    """What filling a store came to: a line of words, and the labels' quality where the truth is known."""

    summary: str
    quality: tuple[Quality, ...]

    def table(self) -> Table:
        """Return the quality for each gamma as a table; one without rows where no truth is known."""
        columns = ("gamma", "with label", "IoU (valid)", "precision", "recall", "IoU (total)") if self.quality else ()
        table = Table(box=None, header_style="bold", caption="against the true labels" if columns else None)
        for column in columns:
            table.add_column(column, justify="right")
        for row in self.quality:
            scores = (row.valid.iou, row.valid.precision, row.valid.recall, row.total.iou)
            shown = ("-" if math.isnan(score) else f"{score:.3f}" for score in scores)
            table.add_row(f"{row.gamma:g}", f"{row.reliable_frac:.1%}", *shown)
        return table


def fill(
    pairs: Sequence[PairFiles],
    *,
    vlm: VLM,
    prompts: Prompts,
    settings: CEGSettings,
    root: Path,
    gsd_m: float | None = None,
) -> Filled:
    """Fill a store, with progress shown on standard error, and say what came out."""
    console = Console(stderr=True)
    work = generate(pairs, vlm=vlm, prompts=prompts, settings=settings, root=root, gsd_m=gsd_m)
    records = list(track(work, total=len(pairs), description="pseudo labels", console=console, transient=True))
    reliable = np.mean([record["reliable_frac"] for record in records])
    changed = np.mean([record["changed_frac"] for record in records])
    count = f"{len(records)} pair{'s' if len(records) != 1 else ''}"
    summary = (
        f"{count} in {root}: {reliable:.1%} of the pixels have a label, {changed:.2%} say changed "
        f"(level {settings.level}, gamma {settings.gamma:g}, delta {settings.delta:g}, {vlm.identity})"
    )
    if changed == 0:
        summary += ". No change was found: lower --gamma, or look at the prompts."
    labelled = [pair for pair in pairs if pair.label is not None]
    rows = quality(labelled, PseudoStore.open(root), settings=settings) if labelled else []
    return Filled(summary, tuple(rows))


def quality(pairs: Sequence[PairFiles], store: PseudoStore, *, settings: CEGSettings) -> list[Quality]:
    """Measure the change labels of labelled pairs for several gammas, from the answers that the store keeps."""
    some = [pairs[at] for at in np.unique(np.linspace(0, len(pairs) - 1, MOST_PAIRS).astype(int))]
    rows = []
    for gamma in sorted({*GAMMAS, settings.gamma}):
        valid, total, reliable = Confusion(), Confusion(), []
        for pair in some:
            answers = [store.answer(store.answer_key(image, pair.window_px)) for image in (pair.before, pair.after)]
            truth_HW = read_pair(pair).label_HW
            t1, t2 = answers
            if t1 is None or t2 is None or truth_HW is None:
                continue
            labels = make_labels(t1, t2, prompts=store.spec.prompts, settings=replace(settings, gamma=gamma))
            known_HW = labels.change_HW != IGNORE
            reliable.append(known_HW.mean())
            valid += Confusion.from_maps(labels.change_HW, np.where(known_HW, truth_HW, IGNORE))
            total += Confusion.from_maps((labels.change_HW == 1).astype(np.uint8), truth_HW)
        rows.append(Quality(gamma, float(np.mean(reliable)), valid, total))
    return rows


def verified(root: Path) -> str:
    """Read a store again and say what is damaged."""
    store = PseudoStore.open(root)
    wrong = store.verify()
    if wrong:
        return f"{len(wrong)} damaged files:\n" + "\n".join(wrong)
    return f"{root}: sound, {sum(1 for _ in store.records())} labels."
