"""Pseudo-labels of the patches, no-data areas ignored, and the choice of the patches to train on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from semicdvl.ceg.config import SCORE_STEPS, CEGSettings
from semicdvl.ceg.features import AERIAL_ENCODER, build_feature_extractor
from semicdvl.ceg.prompts import Prompts
from semicdvl.errors import DataError
from semicdvl.pseudo_labels.quality import fill_store, select_evenly
from semicdvl.pseudo_labels.store import PseudoLabelStore
from semicdvl.training.self_training.patches import find_nodata_pixels
from semicdvl.training.self_training.whole_map import read_patch_change
from semicdvl.types import IGNORE, VLM, PairFiles

MAX_CHANGED_FRAC = 0.75
"""Share of the patches that may show change where not all are taken: unchanged ground must be seen too."""

GAMMA_SHARE = 0.4
"""Part of a VLM's own gamma from which answers are labels here. A VLM is unsure along outlines: without a label there a
network learns blobs (`docs/guides/self-training.md`)."""


def default_gamma_of(vlm: VLM) -> float:
    """Return the score from which an answer becomes a label, where the user names none."""
    return round(GAMMA_SHARE * vlm.gamma * SCORE_STEPS) / SCORE_STEPS


@dataclass(frozen=True)
class LabelledPatches:
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


def label_patches(
    pairs: Sequence[PairFiles],
    *,
    vlm: VLM,
    prompts: Prompts,
    ceg: CEGSettings,
    store: Path,
    gsd_m: float | None,
    max_patches: int,
    whole_map: Path | None = None,
) -> LabelledPatches:
    """Fill the store for all patches and choose the ones to train on.

    Args:
        pairs: the patches.
        vlm: gives the answers.
        prompts: what it looks for.
        ceg: how its answers become labels.
        store: folder of the store; answers that it holds are not computed again.
        gsd_m: metres per pixel, handed to the VLM.
        max_patches: patches to choose.
        whole_map: change map of the whole pair that gives the change labels; None: those of each patch by itself do.

    Raises:
        DataError: no patch has a pixel that is labelled as changed: there is nothing to learn.
        SemicdvlError: see `pseudo_labels.quality.fill_store`.
    """
    features = build_feature_extractor(AERIAL_ENCODER) if ceg.vetoes_by_distance else None
    fill_store(pairs, vlm=vlm, prompts=prompts, settings=ceg, root=store, gsd_m=gsd_m, features=features)
    kept = PseudoLabelStore.open(store)
    records = [_finish_labels(pair, kept, whole_map) for pair in pairs]
    changed = [record["changed_frac"] for record in records]
    if not any(changed):
        raise DataError(
            _explain_no_change(len(pairs), prompts, ceg, float(np.mean([each["reliable_frac"] for each in records])))
        )
    chosen = select_training_patches(pairs, changed, max_patches=max_patches)
    names = {pair.name for pair in chosen}
    of_chosen = [record for pair, record in zip(pairs, records, strict=True) if pair.name in names]
    return LabelledPatches(
        chosen,
        float(np.mean([record["reliable_frac"] for record in of_chosen])),
        float(np.mean([record["changed_frac"] for record in of_chosen])),
        sum(record["changed_frac"] > 0 for record in of_chosen),
    )


def _finish_labels(pair: PairFiles, store: PseudoLabelStore, whole_map: Path | None) -> dict[str, float]:
    """Take the change label from the map of the whole pair, and ignore what has no data; return the label's record."""
    nodata_HW = find_nodata_pixels(pair)
    if whole_map is None and not nodata_HW.any():
        return store.read_record(pair)
    labels = store.read_labels(pair)
    if whole_map is not None:
        shape_hw = labels.change_HW.shape[0], labels.change_HW.shape[1]
        labels = replace(labels, change_HW=read_patch_change(whole_map, pair.name, shape_hw))
    maps = {name: np.where(nodata_HW, np.uint8(IGNORE), map_HW) for name, map_HW in vars(labels).items()}
    return store.write_labels(pair, replace(labels, **maps))


def select_training_patches(
    pairs: Sequence[PairFiles], changed_frac: Sequence[float], *, max_patches: int
) -> tuple[PairFiles, ...]:
    """Return at most `max_patches` patches: those with change first, evenly over the raster, then others likewise.

    Args:
        pairs: all patches, row by row.
        changed_frac: share of each patch that is labelled as changed.
        max_patches: how many to return at most.
    """
    if len(pairs) <= max_patches:
        return tuple(pairs)
    changed = [pair for pair, frac in zip(pairs, changed_frac, strict=True) if frac > 0]
    unchanged = [pair for pair, frac in zip(pairs, changed_frac, strict=True) if frac == 0]
    wanted = max(max_patches - len(unchanged), min(len(changed), max(1, int(MAX_CHANGED_FRAC * max_patches))))
    taken = {pair.name for pair in (*select_evenly(changed, wanted), *select_evenly(unchanged, max_patches - wanted))}
    return tuple(pair for pair in pairs if pair.name in taken)


def _explain_no_change(count: int, prompts: Prompts, ceg: CEGSettings, reliable_frac: float) -> str:
    """Return the message that there is nothing to learn from, and what may help."""
    of_patches = "the patch" if count == 1 else f"any of {count} patches"
    unsure = (
        f"only {reliable_frac:.0%} of the pixels have a reliable answer: lower --gamma ({ceg.gamma:g}), or check --gsd"
        if reliable_frac < 0.1
        else "check --gsd and the prompts of --find and --background"
    )
    return (
        f"the VLM detects no change of {', '.join(prompts.find)} in {of_patches}, so there is nothing to "
        f"learn. Look at its answers with `semicdvl detect` first; {unsure}. It may also be that nothing changed."
    )
