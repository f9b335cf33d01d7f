"""Load a split as endless training batches, and pairs as evaluation batches.

One item of the loader is a whole batch, and everything random in it depends on (seed, step, position in the step) only.
So step 700 is the same batch in an uninterrupted run, in one resumed there, and with any number of workers; and several
processes (`LoaderOptions.rank`, `world_size`) or batches per step (`LoaderOptions.accumulate`) together draw what one
process with the larger batch would. CutMix alone differs: it pastes from a pair of the same process's batch, never from
another one; boxes are drawn for each pair, so how often and how much is pasted is the same (but a batch of one pair
pastes from itself).
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeVar

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from semicdvl.data.images.cache import ImageCache
from semicdvl.data.pair_checks import check_all_pair_files
from semicdvl.data.pairs import read_class_maps, read_pair, read_pair_size
from semicdvl.data.samples import BatchBuilder, LoaderOptions, stack_images
from semicdvl.errors import DataError, SemicdvlError
from semicdvl.types import IGNORE, ClassTargets, LabelledBatch, PairFiles, Split, UnlabelledBatch, VLMLabelSource

TrainBatch = tuple[LabelledBatch, UnlabelledBatch | None]
_T = TypeVar("_T")
_LABELLED, _UNLABELLED = 0, 1
"""Seeds of two independent random streams: the two lists are shuffled independently."""


# ------------------------------------------------------------------------------------------------ training
def load_train_batches(  # noqa: PLR0913  one call says all that determines the batches
    split: Split,
    *,
    crop_px: int,
    labelled_batch: int,
    unlabelled_batch: int,
    vlm: VLMLabelSource | None,
    steps: int,
    start_step: int = 0,
    seed: int,
    workers: int = 0,
    options: LoaderOptions | None = None,
) -> Iterator[TrainBatch]:
    """Return an iterator over the batches of steps `start_step` to `steps - 1` in order; the data is checked first.

    Both lists are reshuffled at the end of each pass and repeat without end.

    Args:
        split: its labelled and unlabelled pairs are used.
        crop_px: side of the square crops.
        labelled_batch: labelled pairs per batch; 0 gives a `LabelledBatch` without pairs, for methods that learn
        without.
        unlabelled_batch: unlabelled pairs per batch; 0 gives None in place of `UnlabelledBatch`.
        vlm: source of the VLM's labels, or None. With workers it must be picklable.
        steps: number of steps of the whole training.
        start_step: first step to yield; skipping the earlier ones takes no time.
        seed: of everything random.
        workers: processes that prepare batches (at most one per core); 0 prepares them in this one.
        options: augmentation, checks and everything else.

    Raises:
        DataError: there is no labelled pair, no unlabelled pair where some are needed, or no change to learn from.
        InputError: a file is missing or broken, sizes differ, or a mask holds unknown values.
        StoreError: the VLM's labels are of another size than their images.
    """
    options = options or LoaderOptions()
    unlabelled = split.unlabelled + (split.labelled if options.unlabelled_includes_labelled else ())
    check_split(split, needs_labelled=labelled_batch > 0, needs_unlabelled=unlabelled_batch > 0, options=options)
    workers = _limit_workers(workers)
    budget = options.cache_bytes // max(workers, 1)
    cache = ImageCache(budget, label_values=options.label_values, stretch=options.stretch, bands=options.bands)
    samples = BatchBuilder(crop_px=crop_px, seed=seed, vlm=vlm, options=options, cache=cache)
    dataset = _TrainBatches(
        samples, split.labelled, unlabelled, labelled_batch=labelled_batch, unlabelled_batch=unlabelled_batch
    )
    return _iterate_items(dataset, range(start_step * options.accumulate, steps * options.accumulate), workers=workers)


def check_split(
    split: Split, *, needs_labelled: bool = True, needs_unlabelled: bool, options: LoaderOptions
) -> float | None:
    """Check what would be trained on; the files are read only with `options.check_files`.

    Returns:
        The share of the labelled pixels that are changed; None where no label was read.

    Raises:
        DataError, InputError: as `load_train_batches`, which calls this.
    """
    labelled = split.labelled
    unlabelled = split.unlabelled + (labelled if options.unlabelled_includes_labelled else ())
    if needs_labelled and not labelled:
        raise DataError("The split has no labelled pair. Raise the labelled fraction, or name pairs in a list.")
    if without := [pair.name for pair in labelled if not pair.has_label]:
        number = f"{len(without)} labelled pairs have" if len(without) > 1 else "1 labelled pair has"
        raise DataError(f"{number} no label file, e.g. '{without[0]}'. Remove such pairs from the labelled list.")
    if needs_unlabelled and not unlabelled:
        raise DataError(
            "The split has no unlabelled pair. Lower the labelled fraction, add images, or train with labels alone."
        )
    if not options.check_files:
        return None
    numbers = None if options.bands is None else options.bands.numbers
    changed_frac = check_all_pair_files(
        labelled, label_values=options.label_values, read_classes=options.with_classes, bands=numbers
    )
    check_all_pair_files(unlabelled if needs_unlabelled else (), read_masks=False, bands=numbers)
    return changed_frac


class _TrainBatches(Dataset[TrainBatch]):
    """The batches of this process by number; which pairs each holds depends on seed and number alone."""

    def __init__(
        self,
        samples: BatchBuilder,
        labelled: tuple[PairFiles, ...],
        unlabelled: tuple[PairFiles, ...],
        *,
        labelled_batch: int,
        unlabelled_batch: int,
    ) -> None:
        self.samples, self.labelled, self.unlabelled = samples, labelled, unlabelled
        self.labelled_batch, self.unlabelled_batch = labelled_batch, unlabelled_batch
        self.with_truth = samples.options.with_truth and any(pair.has_label for pair in unlabelled)

    def __getitem__(self, number: int) -> TrainBatch:
        """Return one batch; `LoaderOptions.accumulate` of them make a step."""
        labelled = self._draw_pairs(number, self.labelled, self.labelled_batch, stream=_LABELLED)
        unlabelled = self._draw_pairs(number, self.unlabelled, self.unlabelled_batch, stream=_UNLABELLED)
        part = self.samples.build_unlabelled(unlabelled, with_truth=self.with_truth) if unlabelled else None
        return self.samples.build_labelled(labelled) if labelled else self.samples.build_empty_labelled(), part

    def _draw_pairs(
        self, number: int, pairs: tuple[PairFiles, ...], batch: int, *, stream: int
    ) -> list[tuple[PairFiles, np.random.Generator]]:
        """Return the pairs of one of this process's batches, each with its own generator."""
        options, seed = self.samples.options, self.samples.seed
        step, part = divmod(number, options.accumulate)
        batch_of_step = part * options.world_size + options.rank  # counted over all processes
        drawn = []
        for place in range(batch_of_step * batch, (batch_of_step + 1) * batch):
            epoch, index = divmod(step * batch * options.world_size * options.accumulate + place, len(pairs))
            pair = pairs[_shuffle(len(pairs), seed, stream, epoch)[index]]
            drawn.append((pair, np.random.default_rng((seed, 1, stream, step, place))))
        return drawn


@lru_cache(maxsize=8)
def _shuffle(count: int, seed: int, stream: int, epoch: int) -> NDArray[np.int64]:
    """Return the order of a list in one epoch, as indices N."""
    return np.random.default_rng((seed, 0, stream, epoch)).permutation(count)


# ------------------------------------------------------------------------------------------------ evaluation
def load_eval_batches(
    pairs: Sequence[PairFiles],
    *,
    batch: int,
    workers: int = 0,
    cache: ImageCache | None = None,
    with_classes: bool = False,
) -> Iterator[LabelledBatch]:
    """Return an iterator over whole pairs, not augmented, in their order; a batch holds pairs of one size only.

    Args:
        pairs: with or without a label file; without one the label is IGNORE everywhere.
        batch: maximum number of pairs in a batch.
        workers: processes that read the files.
        cache: reads the files, and keeps decoded images from one call to the next; each worker starts with a copy of
            it. None: nothing is kept, and masks have the usual values.
        with_classes: batches have the true classes of both dates.
    """
    source = cache or ImageCache(0)
    groups = [
        tuple(some)
        for _, alike in itertools.groupby(pairs, key=read_pair_size)
        for some in _split_into_batches(tuple(alike), batch)
    ]
    return _iterate_items(
        _WholePairs(groups, source, with_classes=with_classes), range(len(groups)), workers=_limit_workers(workers)
    )


class _WholePairs(Dataset[LabelledBatch]):
    """Groups of pairs of one size by number, not augmented."""

    def __init__(self, groups: list[tuple[PairFiles, ...]], cache: ImageCache, *, with_classes: bool) -> None:
        self.groups, self.cache, self.with_classes = groups, cache, with_classes

    def __getitem__(self, index: int) -> LabelledBatch:
        """Read one group."""
        read = [read_pair(pair, cache=self.cache) for pair in self.groups[index]]
        labels = [
            np.full(each.t1_HWC.shape[:2], IGNORE, np.uint8) if each.label_HW is None else each.label_HW
            for each in read
        ]
        label_BHW = torch.from_numpy(np.stack(labels).astype(np.int64))
        t1_BCHW = stack_images([each.t1_HWC for each in read], self.cache.bands)
        t2_BCHW = stack_images([each.t2_HWC for each in read], self.cache.bands)
        return LabelledBatch(
            t1_BCHW, t2_BCHW, label_BHW, classes=self._read_classes(index) if self.with_classes else None
        )

    def _read_classes(self, index: int) -> ClassTargets:
        """Read the true classes of one group."""
        maps = [read_class_maps(pair, cache=self.cache) for pair in self.groups[index]]
        of_dates = (np.stack(of_date).astype(np.int64) for of_date in zip(*maps, strict=True))
        return ClassTargets(*(torch.from_numpy(of_date) for of_date in of_dates))


def _split_into_batches(pairs: tuple[PairFiles, ...], size: int) -> Iterator[tuple[PairFiles, ...]]:
    """Yield batches of at most `size` pairs."""
    for start in range(0, len(pairs), size):
        yield pairs[start : start + size]


# ------------------------------------------------------------------------------------------------ workers
def _limit_workers(workers: int) -> int:
    """Limit the number of workers to the cores of this process; the batches don't depend on it."""
    return min(workers, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)


def _iterate_items(dataset: Dataset[_T], order: range, *, workers: int) -> Iterator[_T]:
    """Yield the items of a data set, which are whole batches, in order, prepared by workers or in this process."""
    loader: DataLoader[_T | _WorkerFailure] = DataLoader(
        _ErrorCatchingDataset(dataset),
        batch_size=None,
        sampler=order,
        num_workers=workers,
        worker_init_fn=_limit_opencv_threads,
        collate_fn=_keep_collated,
        generator=torch.Generator(),  # without it the loader draws from the global generator, and a resumed run differs
    )
    for item in loader:
        if isinstance(item, _WorkerFailure):
            raise item.restore()
        yield item


def _keep_collated(item: _T) -> _T:
    """Return the batch, which is collated already."""
    return item


@dataclass(frozen=True)
class _WorkerFailure:
    """An error of the user on its way out of a worker; torch would turn it into another kind with a traceback."""

    kind: type[SemicdvlError]
    text: str
    details: dict[str, Any]

    def restore(self) -> SemicdvlError:
        """Return the error as it was raised."""
        error = self.kind.__new__(self.kind, self.text)
        vars(error).update(self.details)
        return error


class _ErrorCatchingDataset(Dataset[Any]):
    """A data set that returns the user's errors as items."""

    def __init__(self, dataset: Dataset[Any]) -> None:
        self.dataset = dataset

    def __getitem__(self, index: int) -> Any:
        """Return an item, or the error that reading it raised."""
        try:
            return self.dataset[index]
        except SemicdvlError as error:
            return _WorkerFailure(type(error), str(error), dict(vars(error)))


def _limit_opencv_threads(_: int) -> None:
    """Limit OpenCV in a worker to one thread: its thread pool does not survive a fork."""
    cv2.setNumThreads(0)
