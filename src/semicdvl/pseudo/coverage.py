"""How much of the images the labels cover, and, where true labels exist, how good they are for each gamma."""

from __future__ import annotations

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


def fill(
    pairs: Sequence[PairFiles],
    *,
    vlm: VLM,
    prompts: Prompts,
    settings: CEGSettings,
    root: Path,
    gsd_m: float | None = None,
) -> Table:
    """Fill a store with progress shown on standard error; return what came out as a table."""
    console = Console(stderr=True)
    work = generate(pairs, vlm=vlm, prompts=prompts, settings=settings, root=root, gsd_m=gsd_m)
    records = list(track(work, total=len(pairs), description="pseudo labels", console=console, transient=True))
    reliable = np.mean([record["reliable_frac"] for record in records])
    changed = np.mean([record["changed_frac"] for record in records])
    caption = (
        f"{len(records)} pairs in {root}: {reliable:.1%} of the pixels have a label, {changed:.2%} say changed "
        f"(level {settings.level}, gamma {settings.gamma:g}, delta {settings.delta:g}, {vlm.identity})"
    )
    if changed == 0:
        caption += ". No change was found: lower --gamma, or look at the prompts."
    table = Table(title=caption, title_justify="left", box=None, header_style="bold")
    labelled = [pair for pair in pairs if pair.label is not None]
    if labelled:
        for column in ("gamma", "with label", "IoU (valid)", "precision", "recall", "IoU (total)"):
            table.add_column(column, justify="right")
        for row in quality(labelled, PseudoStore.open(root), settings=settings):
            numbers = (row.valid.iou, row.valid.precision, row.valid.recall, row.total.iou)
            mark = " *" if row.gamma == settings.gamma else ""
            table.add_row(f"{row.gamma:g}{mark}", f"{row.reliable_frac:.1%}", *(f"{number:.3f}" for number in numbers))
        table.caption = "against the true labels; * the gamma of the kept labels"
    return table


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
