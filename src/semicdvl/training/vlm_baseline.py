"""The scores of the VLM alone, which a network trained under its guidance should exceed."""

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
"""How the VLM's answers become a map without any training: the instance level, as in `detect`."""


def score_vlm_alone(
    store: PseudoLabelStore,
    pairs: Sequence[PairFiles],
    *,
    label_values: Mapping[int, int] | None = None,
    quiet: bool = False,
) -> dict[str, float] | None:
    """Score the VLM alone on labelled pairs, from its stored answers; it is not run again.

    Args:
        store: holds the answers.
        pairs: those without a label don't count.
        label_values: as in `data.images.read_mask`.
        quiet: show no progress.

    Returns:
        As `evaluate.compute_pixel_scores`. None where no pair has a label, the store lacks answers (it need only have
        labels of the training pairs), or the answers give no instances (in a store at the pixel level).
    """
    counts, console = ConfusionCounts(), Console(stderr=True, quiet=quiet)
    for pair in track(pairs, description="the VLM alone", console=console, transient=True, disable=quiet):
        try:
            answered = read_answered_pair(pair, store, settings=VLM_ALONE_SETTINGS)
            change_HW = answered.make_labels(store.spec.prompts, VLM_ALONE_SETTINGS).change_HW
        except SemicdvlError:  # a comparison only: a training that has ended well must not fail because of it
            return None
        truth_HW = read_pair(pair, label_values=label_values).label_HW
        if truth_HW is not None:
            counts += ConfusionCounts.from_maps(change_HW, truth_HW)
    return compute_pixel_scores(counts) if counts.total else None
