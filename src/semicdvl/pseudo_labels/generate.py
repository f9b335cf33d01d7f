"""Generate pseudo-labels: pairs -> VLM answers -> labels in the store; finished work is never repeated."""

from __future__ import annotations

import math
from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semicdvl.ceg.config import CEGLevel, CEGSettings
from semicdvl.ceg.features import FeatureExtractor, PairFeatures, refuse_unused_features, scale_extractor
from semicdvl.ceg.instances.events import ChangeEvents
from semicdvl.ceg.labels import (
    find_instance_events,
    make_class_labels_from_events,
    make_labels,
    make_labels_from_events,
)
from semicdvl.ceg.prompts import ClassPrompts, Prompts
from semicdvl.ceg.residual.outlines import prepare_residual_answers
from semicdvl.data.images.cache import ImageCache
from semicdvl.data.pairs import PairArrays, read_pair
from semicdvl.errors import ConfigError, InputError
from semicdvl.pseudo_labels.locks import leave_no_empty_store, lock_for_writing
from semicdvl.pseudo_labels.store import CEG_FEATURES_KEY, PseudoLabelStore
from semicdvl.pseudo_labels.store_spec import StoreSpec
from semicdvl.reading.regular_files import FileStamps
from semicdvl.types import VLM, DescribedVLM, PairFiles, Segments, VLMLabels

__all__ = ["CEGLevel", "CEGSettings", "PseudoLabeler", "build_store_spec", "generate_labels", "make_labels"]


def build_store_spec(
    vlm: VLM,
    *,
    prompts: Prompts | ClassPrompts,
    settings: CEGSettings,
    gsd_m: float | None = None,
    features: FeatureExtractor | None = None,
    stretch: str | None = None,
) -> StoreSpec:
    """Return the specification of a store.

    Args:
        vlm: the vision-language model.
        prompts: its prompts: of foreground and background, or of several classes.
        settings: settings of change event generation.
        gsd_m: ground sampling distance in metres per pixel that the VLM is told, if any.
        features: feature extractor; with `min_cosine`, or for the residual level.
        stretch: of images with more than 8 bits, see `StoreSpec`.

    Raises:
        ConfigError: `min_cosine` without a feature extractor, or the reverse; the VLM does not know a word; or the
            ground sampling distance is none.
    """
    if gsd_m is not None and not 0 < gsd_m < math.inf:
        raise ConfigError(f"gsd_m = {gsd_m}: give metres per pixel, a number above 0.")
    classes = prompts if isinstance(prompts, ClassPrompts) else None
    asked = prompts.prompts if isinstance(prompts, ClassPrompts) else prompts
    if isinstance(vlm, DescribedVLM):
        vlm.check_words(asked.words)
    refuse_unused_features(settings, features)
    plain = (
        settings.to_plain_dict()
        if features is None
        else settings.to_plain_dict() | {CEG_FEATURES_KEY: features.identity}
    )
    known_m = None if gsd_m is None else float(gsd_m)  # keys are made of it: 1 and 1.0 would be two
    return StoreSpec(vlm.identity, asked, plain, known_m, classes, stretch)


def generate_labels(
    pairs: Iterable[PairFiles],
    *,
    vlm: VLM,
    prompts: Prompts | ClassPrompts,
    settings: CEGSettings,
    root: Path,
    gsd_m: float | None = None,
    features: FeatureExtractor | None = None,
    stretch: str | None = None,
) -> Generator[dict[str, Any]]:
    """Fill the store at `root` pair by pair; yield each pair's record, so that a caller can show progress.

    Labels and answers that the store holds already are used again.

    Args:
        pairs: the pairs.
        vlm: the vision-language model.
        prompts: its prompts: of foreground and background, or of several classes.
        settings: settings of change event generation.
        root: folder of the store; made if it does not exist.
        gsd_m: ground sampling distance in metres per pixel that the VLM is told, if any.
        features: feature extractor; with `min_cosine`, or for the residual level.
        stretch: of images with more than 8 bits, see `StoreSpec`.

    Raises:
        StoreError: `root` holds other files, a store of another version, or a damaged file.
        InputError: an image cannot be read, or the VLM's answer cannot be used.
        OutputError: the store cannot be written.
    """
    asked: dict[str, Any] = {"prompts": prompts, "gsd_m": gsd_m, "features": features, "stretch": stretch}
    spec = build_store_spec(vlm, settings=settings, **asked)
    with leave_no_empty_store(root):
        labeler = PseudoLabeler(PseudoLabelStore.create(root, spec), settings, vlm, features)
        with lock_for_writing(root):
            for pair in pairs:
                yield labeler.label_pair(pair)


PairEvents = tuple[ChangeEvents | None, ...]
"""Change events of a pair, of each of `StoreSpec.concepts`; None at the pixel level."""


def find_pair_events(
    t1: Segments, t2: Segments, *, spec: StoreSpec, settings: CEGSettings, features: PairFeatures | None
) -> PairEvents:
    """Return the change events of a pair, of each of `spec.concepts`."""
    if settings.level == "pixel":
        return (None,) * len(spec.concepts)
    return tuple(find_instance_events(t1, t2, each, settings, features=features) for each in spec.concepts)


def make_pair_labels(
    events: PairEvents, t1: Segments, t2: Segments, *, spec: StoreSpec, settings: CEGSettings
) -> VLMLabels:
    """Return the labels of a pair whose change events are known."""
    if spec.classes is None:
        return make_labels_from_events(events[0], t1, t2, prompts=spec.prompts, settings=settings)
    return make_class_labels_from_events(events, t1, t2, classes=spec.classes, settings=settings)


@dataclass(frozen=True)
class PseudoLabeler:
    """Labels one pair after the other; every worker process has one.

    Attributes:
        store: store of answers and labels.
        settings: settings of change event generation.
        vlm: the vision-language model.
        features: feature extractor; with `min_cosine`, or for the residual level.
    """

    store: PseudoLabelStore
    settings: CEGSettings
    vlm: VLM
    features: FeatureExtractor | None = None

    def label_pair(self, pair: PairFiles) -> dict[str, Any]:
        """Return the record of a pair's labels, which are made if the store does not hold them."""
        if self.store.has_pair(pair):
            return self.store.read_record(pair)
        content = _PairImages(pair, self.store.spec)
        t1, t2 = (self._get_answer(content, date) for date in (0, 1))
        described = self._get_features(content) if self.settings.level != "pixel" else None
        settings, spec = self.settings.at_gsd(self.store.spec.gsd_m), self.store.spec
        if settings.level == "residual":
            images_HWC = content.read_image(0), content.read_image(1)
            t1, t2 = prepare_residual_answers(
                (t1, t2), images_HWC, prompts=spec.searched, concepts=spec.concepts, settings=settings
            )
        events = find_pair_events(t1, t2, spec=spec, settings=settings, features=described)
        labels = make_pair_labels(events, t1, t2, spec=spec, settings=settings)
        content.require_unchanged("no label fits it")
        return self.store.write_labels(pair, labels)

    def _get_answer(self, content: _PairImages, date: int) -> Segments:
        """Return the answer for one date, from the store if it holds it."""
        path, words = content.paths[date], self.store.spec.prompts.words
        key = self.store.answer_key(path, content.pair.window_px)

        def ask() -> Segments:
            image_HWC = content.read_image(date)
            segments = self.vlm.segment(image_HWC, words, gsd_m=self.store.spec.gsd_m)
            content.require_unchanged("no answer fits it")
            return _check_answer(segments, path, words=words, shape_hw=image_HWC.shape[:2])

        return self.store.get_or_make_answer(key, ask)

    def _get_features(self, content: _PairImages) -> PairFeatures | None:
        """Return the feature maps of both dates, or None where nothing is compared by them."""
        if self.features is None:
            return None
        source = scale_extractor(self.features, self.store.spec.gsd_m)

        def describe(date: int) -> NDArray[np.float32]:
            features_DHW = source.extract_features(content.read_image(date))
            content.require_unchanged("no features fit it")
            return features_DHW

        window_px, (before, after) = content.pair.window_px, content.paths
        return PairFeatures(
            self.store.get_or_make_features(before, window_px, lambda: describe(0)),
            self.store.get_or_make_features(after, window_px, lambda: describe(1)),
        )


def read_stored_pair(
    pair: PairFiles, spec: StoreSpec, *, label_values: Mapping[int, int] | None = None, with_label: bool = True
) -> PairArrays:
    """Decode a pair as the VLM of a store sees it; arguments as in `data.pairs.read_pair`."""
    cache = ImageCache(0, label_values=label_values, stretch=spec.get_stretch())
    return read_pair(pair, cache=cache, with_label=with_label)


class _PairImages:
    """The images of a pair, both read once one of them is needed; keys in the store are those of their files."""

    def __init__(self, pair: PairFiles, spec: StoreSpec) -> None:
        self.pair, self.paths, self.spec = pair, (pair.before, pair.after), spec
        self._stamps = FileStamps.take(self.paths)
        self._read: PairArrays | None = None

    def read_image(self, date: int) -> NDArray[np.uint8]:
        if self._read is None:
            self._read = read_stored_pair(self.pair, self.spec, with_label=False)
        return self._read.t2_HWC if date else self._read.t1_HWC

    def require_unchanged(self, outcome: str) -> None:
        """Refuse what was made of images that are other ones by now: it would be stored under their keys."""
        self._stamps.require_unchanged(outcome=outcome)


def _check_answer(segments: Segments, path: Path, *, words: Sequence[str], shape_hw: tuple[int, ...]) -> Segments:
    """Return a VLM's answer after checking it.

    Raises:
        InputError: maps or masks of another size, scores that are not finite, instances of other prompts than asked or
            with a score beyond 0 to 1.
    """
    wanted, remedy = (len(words), *shape_hw), "Check the VLM, its weights and its precision"
    if segments.scores_CHW.shape != wanted:
        shape = segments.scores_CHW.shape
        raise InputError(
            path, f"was answered with scores of shape {shape} instead of {wanted} (prompts, rows, columns)", remedy
        )
    if not np.isfinite(segments.scores_CHW).all():
        raise InputError(path, "was answered with scores that are not finite", remedy)
    for number, instance in enumerate(segments.instances or ()):
        mask = instance.mask
        size = tuple(mask.shape if isinstance(mask, np.ndarray) else mask["size"])
        if size != tuple(shape_hw):
            raise InputError(path, f"instance {number} has a mask of {size}, the image is {tuple(shape_hw)}", remedy)
        if not 0 <= instance.prompt < len(words) or not 0 <= instance.score <= 1:
            raise InputError(
                path, f"instance {number} has prompt {instance.prompt} of {len(words)}, score {instance.score}", remedy
            )
    return segments
