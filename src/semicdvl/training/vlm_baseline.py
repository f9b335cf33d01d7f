"""The VLM that guides a training, scored by itself: what a student should be better than."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.progress import track

from semicdvl.ceg.config import CEGSettings
from semicdvl.data.pairs import read_pair
from semicdvl.errors import SemicdvlError
from semicdvl.metrics.change import ConfusionCounts
from semicdvl.pseudo_labels.quality import read_answered_pair
from semicdvl.pseudo_labels.store import PseudoLabelStore
from semicdvl.training.evaluate import compute_pixel_scores
from semicdvl.types import PairFiles

VLM_ALONE_SETTINGS = CEGSettings(level="instance")
"""What makes the VLM's answers a map without any training: the instance level, as `detect` takes it."""


def score_vlm_alone(
    store: PseudoLabelStore,
    pairs: Sequence[PairFiles],
    *,
    label_values: Mapping[int, int] | None = None,
    quiet: bool = False,
) -> dict[str, float] | None:
    """Score what the VLM alone says of labelled pairs, from its kept answers; it is not asked again.

    Args:
        store: where the answers are.
        pairs: those without a label don't count.
        label_values: as in `data.images.read_mask`.
        quiet: show no progress.

    Returns:
        As `evaluate.compute_pixel_scores`. None where no pair has a label, the store lacks answers (it need only have
        labels of
        the training pairs), or they make no instances (of a store at the pixel level).
    """
    counts, console = ConfusionCounts(), Console(stderr=True, quiet=quiet)
    for pair in track(pairs, description="the VLM alone", console=console, transient=True, disable=quiet):
        try:
            change_HW = (
                read_answered_pair(pair, store, settings=VLM_ALONE_SETTINGS)
                .make_labels(store.spec.prompts, VLM_ALONE_SETTINGS)
                .change_HW
            )
        except SemicdvlError:  # this is a comparison: a training that has ended well does not fail for it
            return None
        truth_HW = read_pair(pair, label_values=label_values).label_HW
        if truth_HW is not None:
            counts += ConfusionCounts.from_maps(change_HW, truth_HW)
    return compute_pixel_scores(counts) if counts.total else None
