"""What the VLM says about the patches, without the ground that has no data, and which patches are worth training on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from semicdvl.ceg.config import STEPS, CEGSettings
from semicdvl.ceg.prompts import Prompts
from semicdvl.errors import DataError
from semicdvl.pseudo_labels.quality import fill, spread
from semicdvl.pseudo_labels.store import PseudoStore
from semicdvl.training.self_training.patches import no_data_HW
from semicdvl.types import IGNORE, VLM, PairFiles

MOST_CHANGED_FRAC = 0.75
"""Share of the patches that may show change where there are more than are wanted: quiet ground must be seen, too."""


GAMMA_SHARE = 0.4
"""Part of a VLM's own gamma from which answers are labels here. A VLM is unsure along outlines: without a label there a
network learns blobs (`docs/adapt.md`)."""


def gamma_of(vlm: VLM) -> float:
    """Return the score from which an answer becomes a label, where the user names none."""
    return round(GAMMA_SHARE * vlm.gamma * STEPS) / STEPS


@dataclass(frozen=True)
class Taught:
    """The patches that are trained on, and what their labels cover.

    Attributes:
        pairs: the patches.
        reliable_frac: share of their pixels that have a label.
        changed_frac: share of their pixels that are labelled as changed.
        with_change: patches on which some pixel is.
    """

    pairs: tuple[PairFiles, ...]
    reliable_frac: float
    changed_frac: float
    with_change: int


def teach(
    pairs: Sequence[PairFiles],
    *,
    vlm: VLM,
    prompts: Prompts,
    ceg: CEGSettings,
    store: Path,
    gsd_m: float | None,
    most: int,
) -> Taught:
    """Fill the store for all patches and choose the ones to train on.

    Args:
        pairs: the patches.
        vlm: who is asked.
        prompts: what it is asked.
        ceg: how its answers become labels.
        store: folder of the store; what it holds is not asked again.
        gsd_m: metres per pixel, handed to the VLM.
        most: patches to choose.

    Raises:
        DataError: no patch has a pixel that is labelled as changed: there is nothing to learn.
        SemicdvlError: see `pseudo_labels.quality.fill`.
    """
    fill(pairs, vlm=vlm, prompts=prompts, settings=ceg, root=store, gsd_m=gsd_m)
    kept = PseudoStore.open(store)
    records = [_without_no_data(pair, kept) for pair in pairs]
    changed = [record["changed_frac"] for record in records]
    if not any(changed):
        raise DataError(_nothing(len(pairs), prompts, ceg, float(np.mean([each["reliable_frac"] for each in records]))))
    chosen = choose(pairs, changed, most=most)
    names = {pair.name for pair in chosen}
    of_chosen = [record for pair, record in zip(pairs, records, strict=True) if pair.name in names]
    return Taught(
        chosen,
        float(np.mean([record["reliable_frac"] for record in of_chosen])),
        float(np.mean([record["changed_frac"] for record in of_chosen])),
        sum(record["changed_frac"] > 0 for record in of_chosen),
    )


def _without_no_data(pair: PairFiles, store: PseudoStore) -> dict[str, float]:
    """Take the labels away where a patch has no data; return the record of what is left."""
    none_HW = no_data_HW(pair)
    if none_HW.any():
        labels = store.labels(pair)
        maps = {name: np.where(none_HW, np.uint8(IGNORE), map_HW) for name, map_HW in vars(labels).items()}
        return store.keep_labels(pair, replace(labels, **maps))
    return store.record(pair)


def choose(pairs: Sequence[PairFiles], changed_frac: Sequence[float], *, most: int) -> tuple[PairFiles, ...]:
    """Return at most `most` patches: those that show change first, evenly over the raster, then others likewise.

    Args:
        pairs: all patches, row by row.
        changed_frac: share of each patch that is labelled as changed.
        most: patches wanted.
    """
    if len(pairs) <= most:
        return tuple(pairs)
    loud = [pair for pair, frac in zip(pairs, changed_frac, strict=True) if frac > 0]
    quiet = [pair for pair, frac in zip(pairs, changed_frac, strict=True) if frac == 0]
    wanted = max(most - len(quiet), min(len(loud), max(1, int(MOST_CHANGED_FRAC * most))))
    taken = {pair.name for pair in (*spread(loud, wanted), *spread(quiet, most - wanted))}
    return tuple(pair for pair in pairs if pair.name in taken)


def _nothing(count: int, prompts: Prompts, ceg: CEGSettings, reliable_frac: float) -> str:
    """Say that there is nothing to learn from, and what may help."""
    unsure = (
        f"only {reliable_frac:.0%} of the pixels have a reliable answer: lower --gamma ({ceg.gamma:g}), or check --gsd"
        if reliable_frac < 0.1
        else "check --gsd and the words of --find and --background"
    )
    return (
        f"the VLM sees no change of {', '.join(prompts.find)} in any of {count} patches, so there is nothing to learn. "
        f"Look at what it sees with `semicdvl detect` first; {unsure}. Perhaps nothing changed."
    )
