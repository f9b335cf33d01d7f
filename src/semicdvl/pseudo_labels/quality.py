"""Fill a store, and measure its pseudo-labels: coverage, and accuracy for each gamma where true labels exist."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from rich.table import Table

from semicdvl.atomic_files import leave_nothing_if_refused
from semicdvl.ceg.config import CEGSettings
from semicdvl.ceg.features import FeatureExtractor, PairFeatures
from semicdvl.ceg.prompts import ClassPrompts, Prompts
from semicdvl.ceg.residual.outlines import prepare_residual_answers
from semicdvl.data.images.cache import ImageCache
from semicdvl.data.pair_checks import measure_pairs_stretch
from semicdvl.data.pairs import read_known_label, read_pair_size
from semicdvl.errors import StoreError
from semicdvl.metrics.change import ConfusionCounts
from semicdvl.pseudo_labels.executor import fill_with_workers
from semicdvl.pseudo_labels.generate import (
    PairEvents,
    build_store_spec,
    find_pair_events,
    generate_labels,
    make_pair_labels,
    read_stored_pair,
)
from semicdvl.pseudo_labels.store import CEG_FEATURES_KEY, PseudoLabelStore
from semicdvl.pseudo_labels.store_spec import StoreSpec
from semicdvl.pseudo_labels.workers import WorkerSettings
from semicdvl.raster.io.pair_stretch import format_stretch, have_common_range
from semicdvl.types import IGNORE, VLM, PairFiles, Segments, VLMLabels

DEFAULT_GAMMAS = (0.1, 0.3, 0.5, 0.65, 0.8, 0.9)
LABEL_VALUES = {0: 0, 1: 1, 128: IGNORE, 255: 1}
"""Values in label files; 128 marks pixels that `semicdvl prepare` had no label for."""
MAX_MEASURED_PAIRS = 200
"""Quality is measured on at most this many labelled pairs, evenly selected."""


@dataclass(frozen=True)
class LabelQuality:
    """Accuracy of the change labels at one gamma, as in Table 6 of the paper.

    Attributes:
        gamma: the confidence threshold.
        reliable_frac: fraction of pixels with a label.
        changed_frac: fraction of pixels that are labelled as changed.
        valid: confusion counts over the pixels with a label.
        total: confusion counts over all pixels, those without a label counted as unchanged.
    """

    gamma: float
    reliable_frac: float
    changed_frac: float
    valid: ConfusionCounts
    total: ConfusionCounts


@dataclass(frozen=True)
class FillResult:
    """Result of filling a store.

    Attributes:
        summary: how many labels and answers there are and were made, in a line.
        quality: the labels against the truth, of each confidence threshold; empty where no true labels exist.

    Examples:
        >>> import semicdvl as cd
        >>> filled = cd.pseudo_label(patches, store, vlm="fake", progress=False)
        >>> len(filled.quality) > 0
        True
    """

    summary: str
    quality: tuple[LabelQuality, ...]

    def to_table(self) -> Table:
        """Return the quality for each gamma as a table, without rows where there are no true labels."""
        columns = ("gamma", "with label", "IoU (valid)", "precision", "recall", "IoU (total)") if self.quality else ()
        table = Table(box=None, header_style="bold", caption="compared with the true labels" if columns else None)
        for column in columns:
            table.add_column(column, justify="right")
        for row in self.quality:
            scores = (row.valid.iou, row.valid.precision, row.valid.recall, row.total.iou)
            shown = ("-" if math.isnan(score) else f"{score:.3f}" for score in scores)
            table.add_row(f"{row.gamma:g}", f"{row.reliable_frac:.1%}", *shown)
        return table


def fill_store(
    pairs: Sequence[PairFiles],
    *,
    vlm: VLM,
    prompts: Prompts | ClassPrompts,
    settings: CEGSettings,
    root: Path,
    gsd_m: float | None = None,
    features: FeatureExtractor | None = None,
    workers: WorkerSettings | None = None,
) -> FillResult:
    """Fill a store, with progress on standard error, and return what it holds.

    Args:
        pairs: the pairs.
        vlm: the vision-language model.
        prompts: its prompts: of foreground and background, or of several classes.
        settings: settings of change event generation.
        root: folder of the store.
        gsd_m: ground sampling distance in metres per pixel that the VLM is told, if any.
        features: feature extractor; with `min_cosine` only.
        workers: worker processes, each with its own VLM and feature extractor; None: this process works alone.

    Raises:
        SemicdvlError: see `generate.generate_labels` and `workers.fill_with_workers`.
    """
    work: Generator[dict[str, Any]]
    stretch = choose_store_stretch(pairs, root)
    asked: dict[str, Any] = {"prompts": prompts, "gsd_m": gsd_m, "features": features, "stretch": stretch}
    if workers is None or workers.runs_in_process:
        work = generate_labels(pairs, vlm=vlm, settings=settings, root=root, **asked)
    else:
        spec = build_store_spec(vlm, settings=settings, **asked)
        work = fill_with_workers(pairs, workers, spec=spec, settings=settings, root=root)
    quiet = workers is not None and workers.quiet
    with leave_nothing_if_refused(root, keep=lambda: any(root.glob("answers/*/*.npz"))):
        return _fill_and_measure(work, pairs, settings=settings, root=root, quiet=quiet)


def choose_store_stretch(pairs: Sequence[PairFiles], root: Path) -> str | None:
    """Return the limits of the grey values of pairs with more than 8 bits, for all of them; None: they have 8 bits.

    A store keeps the limits that it was begun with while the values of the pairs are in their range, so that further
    pairs of the same place do not make its answers useless.

    Raises:
        InputError: some images have 8 bits and others more, or a file is missing or broken.
        StoreError: `root` holds a damaged store.
    """
    measured = measure_pairs_stretch(pairs)
    if measured is None:
        return None
    kept = PseudoLabelStore.open(root).spec if (root / "manifest.json").exists() else None
    known = None if kept is None else kept.get_stretch()
    if kept is not None and known is not None and have_common_range(known, measured):
        return kept.stretch
    return format_stretch(measured)


def _fill_and_measure(
    work: Generator[dict[str, Any]], pairs: Sequence[PairFiles], *, settings: CEGSettings, root: Path, quiet: bool
) -> FillResult:
    """Generate the labels with a progress bar, and summarise them."""
    console = Console(stderr=True, quiet=quiet)
    with contextlib.closing(work):
        records = list(track(work, total=len(pairs), description="pseudo-labels", console=console, transient=True))
    sizes = [math.prod(read_pair_size(pair)) for pair in pairs]  # images of a data set may be of several
    reliable, changed = (
        np.average([record[name] for record in records], weights=sizes) for name in ("reliable_frac", "changed_frac")
    )
    count = f"{len(records)} pair{'s' if len(records) != 1 else ''}"
    store = PseudoLabelStore.open(root)
    summary = (
        f"{count} in {root}: {reliable:.1%} of the pixels have a label, {changed:.2%} are labelled as changed "
        f"(level {settings.level}, gamma {settings.gamma:g}, delta {settings.delta:g}, "
        f"{''.join(f'{name} {getattr(settings, name)}, ' for name in settings.active_options)}{store.spec.vlm})"
    )
    if changed == 0:
        summary += ". No change was found: lower --gamma, or check the prompts."
    labelled = [pair for pair in pairs if pair.has_label]
    rows = measure_quality(labelled, store, settings=settings) if labelled else []
    return FillResult(summary, tuple(rows))


def select_evenly(pairs: Sequence[PairFiles], most: int) -> list[PairFiles]:
    """Return at most `most` pairs, evenly selected from the list."""
    return [pairs[at] for at in np.unique(np.linspace(0, len(pairs) - 1, min(most, len(pairs))).astype(int))]


@dataclass(frozen=True)
class AnsweredPair:
    """A pair, its answers from the store, and its change events, which do not depend on gamma."""

    pair: PairFiles
    t1: Segments
    t2: Segments
    events: PairEvents

    def make_labels(self, spec: StoreSpec, settings: CEGSettings) -> VLMLabels:
        """Return the labels under `settings`, whose gammas can differ from the store's."""
        return make_pair_labels(self.events, self.t1, self.t2, spec=spec, settings=settings)


def read_answered_pair(pair: PairFiles, store: PseudoLabelStore, *, settings: CEGSettings) -> AnsweredPair:
    """Read a pair's answers from the store; the VLM is never asked.

    Raises:
        StoreError: the store has no answer for an image, or, under `min_cosine`, no features.
    """
    images = (pair.before, pair.after)
    t1, t2 = (store.read_answer(store.answer_key(image, pair.window_px)) for image in images)
    if t1 is None or t2 is None:
        raise StoreError(f"{store.root}: holds no answer for the pair '{pair.name}'. Run `semicdvl pseudo` again.")
    features, at_gsd = None, settings.at_gsd(store.spec.gsd_m)
    if settings.min_cosine is not None or (settings.compares_features and CEG_FEATURES_KEY in store.spec.ceg):

        def missing() -> NDArray[np.float32]:
            raise StoreError(f"{store.root}: holds no features of the pair '{pair.name}'. Run `semicdvl pseudo` again.")

        features = PairFeatures(*(store.get_or_make_features(image, pair.window_px, missing) for image in images))
    if settings.level == "residual":
        shown, spec = read_stored_pair(pair, store.spec, with_label=False), store.spec
        images_HWC = shown.t1_HWC, shown.t2_HWC
        t1, t2 = prepare_residual_answers(
            (t1, t2), images_HWC, prompts=spec.searched, concepts=spec.concepts, settings=at_gsd
        )
    events = find_pair_events(t1, t2, spec=store.spec, settings=at_gsd, features=features)
    return AnsweredPair(pair, t1, t2, events)


def measure_quality(
    pairs: Sequence[PairFiles],
    store: PseudoLabelStore,
    *,
    settings: CEGSettings,
    gammas: Sequence[float] = DEFAULT_GAMMAS,
    track_pairs: Callable[[Iterable[PairFiles]], Iterable[PairFiles]] = iter,
    on_pair: Callable[[AnsweredPair], None] = lambda _: None,
) -> list[LabelQuality]:
    """Measure the change labels for several gammas, from the stored answers.

    Args:
        pairs: at most `MAX_MEASURED_PAIRS` of them are used, evenly selected; pairs without a label file count in the
            fractions only.
        store: the store with the answers.
        settings: settings of change event generation; its own gamma is measured as well.
        gammas: the other gammas.
        track_pairs: wraps the loop over pairs, to show progress.
        on_pair: called with every pair, so that a caller need not read the answers again.

    Raises:
        StoreError: the store lacks an answer.
    """
    wanted = sorted({*gammas, settings.gamma})
    rows = {gamma: LabelQuality(gamma, 0.0, 0.0, ConfusionCounts(), ConfusionCounts()) for gamma in wanted}
    some, labels = select_evenly(pairs, MAX_MEASURED_PAIRS), ImageCache(0, label_values=LABEL_VALUES)
    total_px = sum(math.prod(read_pair_size(pair)) for pair in some)
    for pair in track_pairs(some):
        kept = read_answered_pair(pair, store, settings=settings)
        truth_HW = read_known_label(pair, cache=labels)
        on_pair(kept)
        for gamma in wanted:
            change_HW = kept.make_labels(store.spec, replace(settings, gamma=gamma)).change_HW
            rows[gamma] = _add_pair(rows[gamma], change_HW, truth_HW, total_px=total_px)
    return [rows[gamma] for gamma in wanted]


def _add_pair(
    row: LabelQuality, change_HW: NDArray[np.uint8], truth_HW: NDArray[np.uint8] | None, *, total_px: int
) -> LabelQuality:
    """Return a row of the table with one more pair; all pairs have `total_px`, of which the fractions are."""
    known_HW = change_HW != IGNORE
    row = replace(
        row,
        reliable_frac=row.reliable_frac + int(known_HW.sum()) / total_px,
        changed_frac=row.changed_frac + int((change_HW == 1).sum()) / total_px,
    )
    if truth_HW is None:
        return row
    return replace(
        row,
        valid=row.valid + ConfusionCounts.from_maps(change_HW, np.where(known_HW, truth_HW, IGNORE)),
        total=row.total + ConfusionCounts.from_maps((change_HW == 1).astype(np.uint8), truth_HW),
    )


def verify_entries(root: Path) -> str:
    """Read all files of a store and return a line that says that it is intact.

    Raises:
        StoreError: files are damaged; each is named.
    """
    store = PseudoLabelStore.open(root)
    wrong = store.verify()
    if wrong:
        many = f"{len(wrong)} damaged file{'s' if len(wrong) != 1 else ''}"
        raise StoreError(f"{root}: {many}. Delete them and run `semicdvl pseudo` again. " + " ".join(wrong))
    count = sum(1 for _ in store.iterate_records())
    return f"{root}: intact, {count} label{'' if count == 1 else 's'}."
