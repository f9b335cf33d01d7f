"""A network's scores on labelled pairs: pixels pooled over the whole set, never a mean over pairs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from semicdvl.checkpoint import load_network, read_run, read_run_bands, read_run_stretch
from semicdvl.config import DataConfig
from semicdvl.data.change_dataset import ChangeDataset
from semicdvl.data.images.cache import ImageCache
from semicdvl.data.loaders import load_eval_batches
from semicdvl.data.split_file import read_split
from semicdvl.errors import ConfigError, DataError
from semicdvl.metrics.change import ConfusionCounts
from semicdvl.metrics.objects import ObjectCounts, count_objects
from semicdvl.metrics.pair_sets import ClassEvaluation, PairSetCounts, RunScores, compute_pixel_scores
from semicdvl.metrics.semantic import SemanticCounts
from semicdvl.metrics.transition_objects import TransitionObjectCounts, count_transition_objects
from semicdvl.models.common.finite import check_finite_scores
from semicdvl.raster.stored_values import Stretch
from semicdvl.reading.regular_files import is_file, resolve_links
from semicdvl.training.batches import normalise_images
from semicdvl.training.distributed import ProcessGroup, join_process_group
from semicdvl.types import IGNORE, InputBands, LabelledBatch, Outputs, PairFiles, Split

LabelValues = Mapping[int, int] | None
CountsT = TypeVar("CountsT", ConfusionCounts, ObjectCounts, TransitionObjectCounts)
CHANGE_HEAD = frozenset({"change"})
SEMANTIC_HEADS = CHANGE_HEAD | {"segmentation"}
Validator = Callable[[nn.Module, torch.device], dict[str, float]]
SUBSETS = ("val", "test", "all")
EVAL_BATCH = 4
CACHE_BYTES = 512 * 2**20
"""Decoded images that validation keeps."""


def evaluate_network(
    model: nn.Module,
    pairs: Sequence[PairFiles],
    *,
    processes: ProcessGroup,
    label_values: LabelValues = None,
    stretch: Stretch | None = None,
    bands: InputBands | None = None,
    classes: tuple[str, ...] = (),
    network: str = "The network",
) -> PairSetCounts:
    """Compare a network in eval mode with the labels of pairs, each at its full size.

    Args:
        model: the network, on the device of the processes.
        pairs: with labels.
        processes: that evaluate together, each a share of the pairs; all return the counts of the whole.
        label_values: as in `data.labels.files.read_mask`.
        stretch: as in `data.images.reading.read_rgb`: that of the run.
        bands: those of the run; None: RGB.
        classes: names of the classes of its segmentation heads, if they are to be scored, too.
        network: what an error calls it, such as "runs/levir: its network".

    Raises:
        DataError: the pairs have other classes.
        CheckpointError: the network gives scores that are not numbers.
    """
    check_class_names(pairs, classes)
    pixels, objects, of_classes = ConfusionCounts(), ObjectCounts(), _start_class_counts(classes)
    changed_objects = TransitionObjectCounts()
    cache = ImageCache(0, label_values=label_values, stretch=stretch, bands=bands)
    share, device = processes.take_share(pairs), processes.device
    for batch in _predict_batches(model, share, device=device, cache=cache, classes=classes, network=network):
        for predicted_HW, label_HW in zip(batch.change_BHW, batch.label_BHW, strict=True):
            pixels += ConfusionCounts.from_maps(predicted_HW, label_HW)
            objects += count_objects(predicted_HW, label_HW)
        of_classes, changed_objects = _add_class_counts(of_classes, batch.classes), changed_objects + batch.objects
    return PairSetCounts(
        _sum_over_processes(pixels, processes),
        _sum_over_processes(objects, processes),
        _evaluate_classes(of_classes, pairs, classes, processes, objects=changed_objects),
    )


def build_validator(
    pairs: Sequence[PairFiles],
    *,
    processes: ProcessGroup,
    label_values: LabelValues = None,
    stretch: Stretch | None = None,
    bands: InputBands | None = None,
    classes: tuple[str, ...] = (),
) -> Validator:
    """Return the function that the training loop validates with; images are decoded once.

    Arguments as `evaluate_network`.
    """
    check_class_names(pairs, classes)
    cache = ImageCache(CACHE_BYTES, label_values=label_values, stretch=stretch, bands=bands)
    share = processes.take_share(pairs)

    def validate(model: nn.Module, device: torch.device) -> dict[str, float]:
        """Return the scores of a network in eval mode."""
        counts, of_classes = ConfusionCounts(), _start_class_counts(classes)
        for batch in _predict_batches(model, share, device=device, cache=cache, classes=classes):
            for predicted_HW, label_HW in zip(batch.change_BHW, batch.label_BHW, strict=True):
                counts += ConfusionCounts.from_maps(predicted_HW, label_HW)
            of_classes = _add_class_counts(of_classes, batch.classes)
        scores = compute_pixel_scores(_sum_over_processes(counts, processes))
        found = _evaluate_classes(of_classes, pairs, classes, processes)
        return scores if found is None else scores | found.compute_headline_scores()

    return validate


def _sum_over_processes(counts: CountsT, processes: ProcessGroup) -> CountsT:
    """Return counts added up over the processes."""
    names = [each.name for each in fields(counts)]
    totals = processes.sum_counts([getattr(counts, name) for name in names])
    return replace(counts, **dict(zip(names, totals, strict=True)))


# ------------------------------------------------------------------------------------------------ maps of a network
@dataclass(frozen=True)
class _BatchPrediction:
    """What a network made of a batch, and the labels; the counts of its classes where the pairs have both dates'."""

    change_BHW: NDArray[np.uint8]
    label_BHW: NDArray[np.uint8]
    classes: SemanticCounts | None = None
    objects: TransitionObjectCounts = field(default_factory=TransitionObjectCounts)


def _predict_batches(
    model: nn.Module,
    pairs: Sequence[PairFiles],
    *,
    device: torch.device,
    cache: ImageCache,
    classes: tuple[str, ...] = (),
    network: str = "The network",
) -> Iterator[_BatchPrediction]:
    """Yield maps and labels of all pairs; the prediction is the argmax of each head."""
    classified = [pair for pair in pairs if classes and _has_classes(pair)]
    others = [pair for pair in pairs if not (classes and _has_classes(pair))]
    for group, heads in ((classified, SEMANTIC_HEADS), (others, CHANGE_HEAD)):
        with_classes = heads == SEMANTIC_HEADS
        for batch in load_eval_batches(group, batch=EVAL_BATCH, cache=cache, with_classes=with_classes):
            t1_BCHW, t2_BCHW = (normalise_images(images.to(device)) for images in (batch.t1_BCHW, batch.t2_BCHW))
            with torch.inference_mode():
                out: Outputs = model(t1_BCHW, t2_BCHW, heads=heads)
                _check_numbers(out, network)
                change_BHW = out.change_BKHW.argmax(dim=1).to(torch.uint8).cpu().numpy()
            counted = _count_classes(out, change_BHW, batch, classes=len(classes)) if with_classes else ()
            yield _BatchPrediction(change_BHW, batch.label_BHW.to(torch.uint8).numpy(), *counted)


def _check_numbers(out: Outputs, network: str) -> None:
    """Refuse outputs that are no numbers: their argmax is "unchanged" everywhere."""
    for logits_BKHW in (out.change_BKHW, out.t1_BKHW, out.t2_BKHW):
        if logits_BKHW is not None:
            check_finite_scores(logits_BKHW.float().cpu().numpy(), network)


def _has_classes(pair: PairFiles) -> bool:
    """Tell whether a pair has a label of both dates."""
    return pair.classes is not None and len(pair.classes.files) == 2


def check_class_names(pairs: Sequence[PairFiles], names: tuple[str, ...]) -> None:
    """Refuse pairs whose labels of both dates have other classes than a run; without names nothing is compared.

    Raises:
        DataError: they have.
    """
    for pair in pairs if names else ():
        if _has_classes(pair) and pair.classes is not None and pair.classes.legend.names != names:
            raise DataError(
                f"'{pair.name}' has the classes {', '.join(pair.classes.legend.names)}, but the run knows"
                f" {', '.join(names)}. Give labels with the run's classes, in its order."
            )


def _count_classes(
    out: Outputs, change_BHW: NDArray[np.uint8], batch: LabelledBatch, *, classes: int
) -> tuple[SemanticCounts, TransitionObjectCounts]:
    """Return the counts of one batch, by pixel and by object."""
    assert batch.classes is not None and out.t1_BKHW is not None and out.t2_BKHW is not None
    maps = [change_BHW, *(logits.argmax(dim=1).cpu().numpy() for logits in (out.t1_BKHW, out.t2_BKHW))]
    truth = [label.numpy() for label in (batch.label_BHW, batch.classes.t1_BHW, batch.classes.t2_BHW)]
    names = ("true_change_HW", "true_t1_HW", "true_t2_HW")
    pixels = SemanticCounts.from_maps(*maps, **dict(zip(names, truth, strict=True)), class_count=classes, ignore=IGNORE)
    objects = TransitionObjectCounts()
    for *of_pair, change_HW, t1_HW, t2_HW in zip(*maps, *truth, strict=True):
        known = dict(zip(names, (change_HW, t1_HW, t2_HW), strict=True))
        objects += count_transition_objects(*of_pair, **known, class_count=classes, ignore=IGNORE)
    return pixels, objects


def _start_class_counts(names: tuple[str, ...]) -> SemanticCounts | None:
    """Return counts of nothing; None without classes."""
    return SemanticCounts.make_empty(len(names)) if names else None


def _add_class_counts(sums: SemanticCounts | None, more: SemanticCounts | None) -> SemanticCounts | None:
    """Return the counts of both; those of a batch without classes are None."""
    return sums if sums is None or more is None else sums + more


def _evaluate_classes(
    counts: SemanticCounts | None,
    pairs: Sequence[PairFiles],
    names: tuple[str, ...],
    processes: ProcessGroup,
    *,
    objects: TransitionObjectCounts | None = None,
) -> ClassEvaluation | None:
    """Return what all processes counted; None where no pair has a label of both dates."""
    if counts is None or not any(map(_has_classes, pairs)):
        return None
    totals = processes.sum_counts(counts.to_numbers())
    pooled = SemanticCounts.from_numbers(totals, class_count=len(names))
    return ClassEvaluation(names, pooled, _sum_over_processes(objects or TransitionObjectCounts(), processes))


# ------------------------------------------------------------------------------------------------ a trained run
def evaluate_run(run: Path, dataset: ChangeDataset, *, subset: str, trust: Sequence[str] = ()) -> RunScores:
    """Score a trained run on a data set: on the run's own val or test pairs, the set's published ones, or all labelled.

    A run that knows classes is scored by them, too, on the pairs with labels of both dates. Where the labels hold no
    change, scores that say how well it is found, such as IoU and recall, are NaN; where nothing is detected, precision.

    Raises:
        ConfigError: there is no such subset.
        DataError: the subset is not known for this data.
    """
    if subset not in SUBSETS:
        raise ConfigError(f"split = {subset!r} is not known. Give one of {', '.join(SUBSETS)}.")
    processes = join_process_group("auto")
    record = read_run(run)
    recipe, stretch = record["recipe"], read_run_stretch(record)
    names = tuple((recipe.get("classes") or {}).get("names", ()))
    model = load_network(run, device=str(processes.device), train_heads=bool(names), trust=trust)
    own = _read_own_split(run, record)
    pairs = _select_pairs(own, dataset, subset)
    if not pairs:
        raise DataError(
            f"{dataset.name}: no pair of '{subset}' has a label to evaluate on. Take all labelled pairs (--split all),"
            " or add labels."
        )
    data = recipe.get("data")  # an imported run has none
    values = None if data is None else DataConfig.model_validate(data).label_values
    counts = evaluate_network(
        model,
        pairs,
        processes=processes,
        label_values=values,
        stretch=stretch,
        bands=read_run_bands(record),
        classes=names,
        network=f"{run}: its network",
    )
    scores = RunScores(counts.list_meaningful_scores())
    scores.classes = counts.classes
    scores.pair_count, scores.trained_count = len(pairs), _count_trained_pairs(own, pairs)
    return scores


def _read_own_split(run: Path, record: dict[str, Any]) -> Split | None:
    """Return the split that a run was trained with, whether its files are still there or not; None: it has none."""
    path = run / "split.json"
    if not path.exists() and not path.is_symlink():  # an imported run
        return None
    return read_split(path, sha256=(record.get("split") or {}).get("sha256"), need_files=False)


def _select_pairs(split: Split | None, dataset: ChangeDataset, subset: str) -> tuple[PairFiles, ...]:
    """Return the pairs of a subset, in the run's own split where the data is what the run was trained with."""
    labelled = tuple(pair for pair in dataset.pairs if pair.has_label)
    if subset == "all":
        return labelled
    if split is not None:
        own: tuple[PairFiles, ...] = getattr(split, subset)
        if own and {_identify(pair) for pair in own} <= {_identify(pair) for pair in labelled}:
            return own
    if subset not in dataset.subsets:
        raise DataError(
            f"{dataset.name}: has no list of {subset} pairs, and the run was not trained on this data, so it has none"
            f" of its own. Take all labelled pairs (--split all), or write the names into list/{subset}.txt."
        )
    return tuple(pair for pair in dataset.select_subset(subset) if pair.has_label)


def _identify(pair: PairFiles) -> tuple[Path, tuple[int, int, int, int] | None]:
    """Return what tells a pair from others: its image, and the window in it."""
    return resolve_links(pair.before), pair.window_px


def _count_trained_pairs(split: Split | None, pairs: Sequence[PairFiles]) -> int:
    """Return how many of the pairs the run was trained on, with their labels or without.

    Where none of the run's own files is there any more, since data or run were moved, pairs are told by their names.
    """
    if split is None:
        return 0
    own = split.labelled + split.unlabelled
    if not any(is_file(pair.before) for pair in own):
        names = {pair.name for pair in own}
        return sum(pair.name in names for pair in pairs)
    trained = {_identify(pair) for pair in own}
    return sum(_identify(pair) in trained for pair in pairs)
