"""Scores of a run: by validation during training, on the test pairs afterwards, and of the VLM alone beside them.

Before every validation the data must still be what was read of it (`DataGuard`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import track
from torch import nn

from semicdvl.atomic_files import write_json
from semicdvl.ceg.config import CEGSettings
from semicdvl.checkpoint import load_weights, load_weights_into
from semicdvl.config import Recipe
from semicdvl.data.images.cache import ImageCache
from semicdvl.data.pairs import read_known_label
from semicdvl.errors import CheckpointError, SemicdvlError
from semicdvl.metrics.change import ConfusionCounts
from semicdvl.metrics.pair_sets import compute_pixel_scores
from semicdvl.pseudo_labels.quality import read_answered_pair
from semicdvl.pseudo_labels.store import PseudoLabelStore
from semicdvl.raster.stored_values import Stretch
from semicdvl.reading.regular_files import FileStamps
from semicdvl.training.distributed import ProcessGroup
from semicdvl.training.evaluate import Validator, build_validator, evaluate_network
from semicdvl.training.run_record import TEST_SCORE_PREFIX
from semicdvl.types import InputBands, PairFiles, Split

VLM_ALONE_SETTINGS = CEGSettings(level="instance")
"""How the VLM's answers become a map without any training: the paper's instance level, which needs no images again."""
CHANGED_DATA = "changed_while_trained"
"""Key of a record: the file of the data that was written to. Such a run is not resumed."""


def build_run_validator(
    recipe: Recipe,
    split: Split,
    processes: ProcessGroup,
    *,
    stretch: Stretch | None = None,
    bands: InputBands | None = None,
) -> Validator:
    """Return what the loop validates with; with `train.score_test` it also gives the scores of the test pairs."""
    select = recipe.train.select
    values: dict[str, Any] = {
        "label_values": recipe.data.label_values,
        "stretch": stretch,
        "bands": bands,
        "classes": list_scored_classes(recipe),
    }
    pairs = split.val if select == "last" else getattr(split, select)
    chosen = build_validator(pairs, processes=processes, **values) if pairs else _score_nothing
    if not recipe.train.score_test or select == "test" or not split.test:
        return chosen
    watched = build_validator(split.test, processes=processes, **values)

    def both(model: nn.Module, device: torch.device) -> dict[str, float]:
        """Return the scores that select the step, and those that are only logged."""
        return chosen(model, device) | {
            f"{TEST_SCORE_PREFIX}{name}": value for name, value in watched(model, device).items()
        }

    return both


def list_scored_classes(recipe: Recipe) -> tuple[str, ...]:
    """Return the names of the classes that the recipe's network tells apart."""
    return () if recipe.classes is None else recipe.classes.names


def _score_nothing(model: nn.Module, device: torch.device) -> dict[str, float]:
    """Return no scores: there are no labelled pairs."""
    return {}


def score_test_pairs(
    recipe: Recipe,
    run: Path,
    *,
    model: nn.Module,
    pairs: tuple[PairFiles, ...],
    processes: ProcessGroup,
    stretch: Stretch | None = None,
    bands: InputBands | None = None,
) -> dict[str, float]:
    """Score the selected weights on the test pairs; what is undefined without change in the labels is NaN."""
    if not pairs:
        return {}
    load_weights_into(model, load_weights(run / "model.safetensors"), source=run)
    return evaluate_network(
        model.eval(),
        pairs,
        processes=processes,
        label_values=recipe.data.label_values,
        stretch=stretch,
        bands=bands,
        classes=list_scored_classes(recipe),
        network=f"{run}: its network",
    ).list_meaningful_scores()


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
        label_values: as in `data.labels.files.read_mask`.
        quiet: show no progress.

    Returns:
        As `metrics.pair_sets.compute_pixel_scores`. None where no pair has a label, the store lacks answers (it need
        only have labels of the training pairs), or the answers give no instances (in a store at the pixel level).
    """
    counts, console = ConfusionCounts(), Console(stderr=True, quiet=quiet)
    labels = ImageCache(0, label_values=label_values)
    for pair in track(pairs, description="the VLM alone", console=console, transient=True, disable=quiet):
        try:
            answered = read_answered_pair(pair, store, settings=VLM_ALONE_SETTINGS)
            change_HW = answered.make_labels(store.spec, VLM_ALONE_SETTINGS).change_HW
        except SemicdvlError:  # a comparison only: a training that has ended well must not fail because of it
            return None
        truth_HW = read_known_label(pair, cache=labels)
        if truth_HW is not None:
            counts += ConfusionCounts.from_maps(change_HW, truth_HW)
    return compute_pixel_scores(counts) if counts.total else None


# ------------------------------------------------------------------------------------------------ data that changes
@dataclass(frozen=True)
class DataGuard:
    """The files of a run's data as they were before they were read; a run ends for good when one is written to.

    Attributes:
        stamps: of the files.
        record: of the run, which names the file that was changed.
        run: run directory.
        is_main: whether this process writes the record.
    """

    stamps: FileStamps
    record: dict[str, Any]
    run: Path
    is_main: bool

    @classmethod
    def watch(cls, pairs: Iterable[PairFiles], *, record: dict[str, Any], run: Path, is_main: bool) -> DataGuard:
        """Remember the files of pairs as they are now.

        Raises:
            CheckpointError: the run was ended by a change: its weights fit no data.
        """
        if record.get(CHANGED_DATA) is not None:
            raise CheckpointError(
                f"{run}: was trained while {record[CHANGED_DATA]} was changed, so its weights fit no data. Give a new "
                "folder with -o, or remove it."
            )
        files = [(pair.before, pair.after, pair.label, *(pair.classes.files if pair.classes else ())) for pair in pairs]
        stamps = FileStamps.take(path for of_pair in files for path in of_pair if path is not None)
        return cls(stamps, record, run, is_main)

    def require_unchanged(self) -> None:
        """End the run if a file was written to.

        Raises:
            InputError: one was; the file is named.
        """
        changed = self.stamps.find_changed()
        if changed is None:
            return
        if self.is_main and (self.run / "run.json").exists():
            write_json(self.run / "run.json", self.record | {CHANGED_DATA: str(changed)})
        self.stamps.require_unchanged(outcome="the weights fit no data", remedy="Train again, in a new folder with -o")

    def before_each(self, validate: Validator) -> Validator:
        """Return a validation that first makes sure that no file was written to."""

        def validate_same_data(model: nn.Module, device: torch.device) -> dict[str, float]:
            self.require_unchanged()
            return validate(model, device)

        return validate_same_data
