"""Pairs -> VLM answers -> labels, into the store; whatever is there already is not done again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from semicdvl.data.pairs import read_pair
from semicdvl.errors import ConfigError
from semicdvl.pseudo import ceg
from semicdvl.pseudo.prompts import Prompts
from semicdvl.pseudo.store import STEPS, PseudoStore, StoreSpec
from semicdvl.types import VLM, PairFiles, Segments, VLMLabels

Level = Literal["mixed", "instance", "pixel"]


@dataclass(frozen=True)
class CEGSettings:
    """How two answers become labels; the defaults are the paper's (Table 6 and 8)."""

    level: Level = "mixed"  # which change label: pixel, instance, or both agreeing where reliable
    gamma: float = 0.8  # least best score, of both dates, of a reliable pixel of the change label
    gamma_segmentation: float = 0.8  # least best score of a reliable pixel of a single-date label
    delta: float = 0.0  # greatest sum of IoUs of a changed instance; the authors' later code uses 0.01
    instance_score: float = 0.5  # least score of a foreground pixel that belongs to an object (VLMs without instances)
    min_area_px: int = 16  # smallest object (VLMs without instances)

    def __post_init__(self) -> None:
        """Refuse thresholds that the store's 8-bit steps cannot keep exactly."""
        if self.level not in ("mixed", "instance", "pixel"):
            raise ConfigError(f"unknown CEG level '{self.level}'. Known: mixed, instance, pixel.")
        for name in ("gamma", "gamma_segmentation", "instance_score"):
            value = getattr(self, name)
            if abs(value * STEPS - round(value * STEPS)) > 1e-6:
                raise ConfigError(f"{name} = {value}: give a multiple of {1 / STEPS:g}, the precision of kept scores.")


def instances_of(
    segments: Segments, *, foreground: tuple[int, ...], settings: CEGSettings
) -> list[ceg.InstanceMask] | NDArray[np.int32]:
    """Return the foreground objects: the VLM's own, or the components of its maps as a label image."""
    if segments.instances is None:
        return ceg.components(
            segments.scores_CHW,
            foreground=foreground,
            threshold=settings.instance_score,
            min_area_px=settings.min_area_px,
        )
    return [instance.mask for instance in segments.instances if instance.prompt in foreground]


def instance_change(
    t1: Segments, t2: Segments, *, foreground: tuple[int, ...], settings: CEGSettings
) -> NDArray[np.bool_]:
    """Return the instance-level change of two answers."""
    found = [instances_of(segments, foreground=foreground, settings=settings) for segments in (t1, t2)]
    first, second = found
    if isinstance(first, np.ndarray) and isinstance(second, np.ndarray):
        return ceg.instance_level_labels(first, second, delta=settings.delta)
    if isinstance(first, np.ndarray) or isinstance(second, np.ndarray):
        raise ConfigError("one date has instances and the other has none; ask the same VLM for both.")
    height, width = t1.scores_CHW.shape[1:]
    return ceg.instance_level(first, second, shape_hw=(height, width), delta=settings.delta)


def make_labels(t1: Segments, t2: Segments, *, prompts: Prompts, settings: CEGSettings) -> VLMLabels:
    """Turn the answers for both dates into the change label and the single-date labels."""
    foreground, gammas = (
        prompts.foreground,
        {"gamma": settings.gamma, "gamma_segmentation": settings.gamma_segmentation},
    )
    if settings.level == "pixel":
        instance_HW = np.ones(t1.scores_CHW.shape[1:], bool)
    else:
        instance_HW = instance_change(t1, t2, foreground=foreground, settings=settings)
    change_HW, t1_HW, t2_HW = ceg.labels_of(t1.scores_CHW, t2.scores_CHW, instance_HW, foreground=foreground, **gammas)
    if settings.level == "instance":  # this level alone has no reliability
        change_HW = instance_HW.astype(np.uint8)
    return VLMLabels(change_HW, t1_HW, t2_HW)


def spec_of(vlm: VLM, *, prompts: Prompts, settings: CEGSettings, gsd_m: float | None = None) -> StoreSpec:
    """Return the specification of a store made with these parts."""
    return StoreSpec(vlm.identity, prompts, asdict(settings), gsd_m)


def generate(
    pairs: Iterable[PairFiles],
    *,
    vlm: VLM,
    prompts: Prompts,
    settings: CEGSettings,
    root: Path,
    gsd_m: float | None = None,
) -> Iterator[dict[str, Any]]:
    """Fill the store at `root` pair by pair; yield each pair's record, so that a caller can show progress.

    Labels that are there are not made again; answers that are there are not asked again.
    """
    store = PseudoStore.create(root, spec_of(vlm, prompts=prompts, settings=settings, gsd_m=gsd_m))
    for pair in pairs:
        if store.has(pair):
            yield store.record(pair)
            continue
        t1, t2 = _answers(pair, vlm=vlm, store=store)
        yield store.keep_labels(pair, make_labels(t1, t2, prompts=prompts, settings=settings))


def _answers(pair: PairFiles, *, vlm: VLM, store: PseudoStore) -> tuple[Segments, Segments]:
    """Return the answers for both dates, from the store where it has them."""
    keys = [store.answer_key(image, pair.window_px) for image in (pair.before, pair.after)]
    kept = [store.answer(key) for key in keys]
    if any(answer is None for answer in kept):
        content = read_pair(pair)
        for at, image_HWC in enumerate((content.t1_HWC, content.t2_HWC)):
            if kept[at] is None:
                segments = vlm.segment(image_HWC, store.spec.prompts.words, gsd_m=store.spec.gsd_m)
                kept[at] = store.keep_answer(keys[at], segments)
    t1, t2 = kept
    assert t1 is not None and t2 is not None
    return t1, t2
