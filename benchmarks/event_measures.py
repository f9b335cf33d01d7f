"""Candidates of change events of a pair with what can be measured about each, for `event_check.py`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from scipy import ndimage

from comparison_cache import PROMPTS, AnsweredPair
from comparison_study import residual
from semicdvl.ceg.config import CEGSettings
from semicdvl.ceg.residual.appearance import compute_distance_map
from semicdvl.ceg.residual.outlines import prepare_residual_scores
from semicdvl.ceg.residual.rule import (
    PairForeground,
    ResidualSizes,
    convert_to_pixels,
    find_opened_residuals,
    find_pair_foreground,
    grow_back,
)

LOOSER = (
    {},
    {"residual_score": 0.4},
    {"residual_other_score": 0.6},
    {"residual_open_m": 1.0},
    {"residual_score": 0.25, "residual_other_score": 0.25},
)
"""Settings of each level of candidates; a level adds what none before it has."""
MEASURES = (
    "log area", "score own", "score own outlined", "score own 90 %", "score other", "score other 90 %", "margin own",
    "margin other", "score other around", "share of object", "object seen at other", "rim seen at other", "distance",
    "distance above ground", "distance 25 %", "distance of ground", "distance around", "lightness change",
    "colour change", "correlation", "edges own : other", "compactness", "solidity", "rectangularity", "elongation",
    *(f"{word} at {date}" for date in ("own", "other") for word in PROMPTS.background),
    "texture own", "texture other", "greenness own", "greenness other", "lightness own", "lightness other",
    *(f"level {level}" for level in range(1, len(LOOSER))),
)  # fmt: skip


@dataclass(frozen=True)
class Candidates:
    """All candidates of a pair.

    Attributes:
        measures_NM: the measures.
        level_N: which of `LOOSER` found it.
        counts_N2: its pixels that changed, and those that did not.
        changed_px: pixels of the pair that changed.
        rule: counts of the default rule: tp, fp.
    """

    measures_NM: np.ndarray
    level_N: np.ndarray
    counts_N2: np.ndarray
    changed_px: int
    rule: np.ndarray


def find_candidates(pair: AnsweredPair) -> Candidates:
    """Return the candidates of a pair with their measures; no pixel belongs to two."""
    settings = CEGSettings(level="residual", gsd_m=pair.pair.gsd_m)
    outlined = [
        prepare_residual_scores(answer, image_HWC, prompts=PROMPTS, settings=settings).scores_CHW
        for answer, image_HWC in zip(pair.answers, pair.images_HWC, strict=True)
    ]
    context = PairContext.build(pair, outlined)
    taken_HW = np.zeros(pair.truth_HW.shape, bool)
    rows, levels, counts = [], [], []
    for level, changes in enumerate(LOOSER):
        now = CEGSettings(level="residual", gsd_m=pair.pair.gsd_m, **changes)
        sizes = convert_to_pixels(now)
        both = find_pair_foreground(*outlined, foreground=PROMPTS.foreground, settings=now)
        for date, opened_HW in enumerate(find_opened_residuals(both, sizes)):
            event_HW = opened_HW * ~taken_HW
            if level:
                event_HW = cv2.morphologyEx(event_HW.astype(np.uint8), cv2.MORPH_OPEN, disc(1 / pair.pair.gsd_m))
            for part_HW, whole_HW in split_events(event_HW.astype(np.uint8), both.found[date], sizes, taken_HW):
                taken_HW |= whole_HW
                measured = context.measure(part_HW, whole_HW, both, date)
                rows.append([*measured, *(float(level == one) for one in range(1, len(LOOSER)))])
                levels.append(level)
                counts.append([np.sum(whole_HW & pair.truth_HW), np.sum(whole_HW & ~pair.truth_HW)])
    found_HW = residual()(pair)
    rule = np.array([np.sum(found_HW & pair.truth_HW), np.sum(found_HW & ~pair.truth_HW)])
    shape = len(rows), len(MEASURES)
    return Candidates(
        np.array(rows, np.float64).reshape(shape), np.array(levels, int), np.array(counts, float).reshape(-1, 2),
        int(pair.truth_HW.sum()), rule,
    )  # fmt: skip


def split_events(
    event_HW: np.ndarray, found_HW: np.ndarray, sizes: ResidualSizes, taken_HW: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield each event of a mask, and it with what it grows back to."""
    count, labels_HW, stats, _ = cv2.connectedComponentsWithStats(event_HW, connectivity=8)
    large = [label for label in range(1, count) if stats[label, cv2.CC_STAT_AREA] >= sizes.area_px]
    kept_HW = np.where(np.isin(labels_HW, large), labels_HW, 0)
    if not large:
        return
    grown_HW = grow_back((kept_HW > 0).astype(np.uint8), found_HW, sizes).astype(bool) & ~taken_HW
    nearest = ndimage.distance_transform_edt(kept_HW == 0, return_distances=False, return_indices=True)
    owner_HW = np.where(grown_HW, kept_HW[tuple(nearest)], 0)
    for label in large:
        yield kept_HW == label, (owner_HW == label) | (kept_HW == label)


@dataclass(frozen=True)
class PairContext:
    """What the measures of an event are taken from."""

    gsd_m: float
    raw: tuple[np.ndarray, np.ndarray]
    outlined: tuple[np.ndarray, np.ndarray]
    distance_HW: np.ndarray
    ground: float
    lab: tuple[np.ndarray, np.ndarray]
    edges: tuple[np.ndarray, np.ndarray]
    usual: tuple[float, float]

    @classmethod
    def build(cls, pair: AnsweredPair, outlined: list[np.ndarray]) -> PairContext:
        """Compute maps of the pair."""
        distance_HW = compute_distance_map(pair.features, shape_hw=pair.truth_HW.shape)
        lab = tuple(cv2.cvtColor(image, cv2.COLOR_RGB2LAB).astype(np.float32) for image in pair.images_HWC)
        edges = []
        for one in lab:
            smooth = cv2.GaussianBlur(one[..., 0], (0, 0), max(0.5, 0.5 / pair.pair.gsd_m))
            edges.append(np.hypot(cv2.Sobel(smooth, cv2.CV_32F, 1, 0), cv2.Sobel(smooth, cv2.CV_32F, 0, 1)))
        change = np.abs(lab[0] - lab[1])
        usual = float(np.median(change[..., 0])), float(np.median(change[..., 1:].sum(axis=-1)))
        raw = tuple(answer.scores_CHW for answer in pair.answers)
        return cls(pair.pair.gsd_m, raw, tuple(outlined), distance_HW, float(np.median(distance_HW)), lab,
                   tuple(edges), usual)  # fmt: skip

    def measure(self, part_HW: np.ndarray, whole_HW: np.ndarray, both: PairForeground, date: int) -> list[float]:
        """Return the measures of an event; `own` is the date that shows it."""
        reach = int(np.ceil(10 / self.gsd_m))
        rows, cols = np.nonzero(whole_HW | part_HW)
        at = (slice(max(0, rows.min() - reach), rows.max() + reach + 1),
              slice(max(0, cols.min() - reach), cols.max() + reach + 1))  # fmt: skip
        in_HW, part_HW = (whole_HW | part_HW)[at], part_HW[at]
        ring_HW = (cv2.dilate(in_HW.astype(np.uint8), disc(5 / self.gsd_m)) > 0) & ~(
            cv2.dilate(in_HW.astype(np.uint8), disc(1 / self.gsd_m)) > 0)  # fmt: skip
        ring_HW = ring_HW if ring_HW.any() else in_HW
        raw_o, raw_p = self.raw[date][:, *at], self.raw[1 - date][:, *at]
        return [
            *self._measure_scores(raw_o, raw_p, self.outlined[date][:, *at], part_HW, in_HW, ring_HW),
            *self._measure_objects(part_HW, in_HW, both.found[date], both.present[1 - date], at),
            *self._measure_looks(in_HW, ring_HW, date, at),
            *measure_shape(in_HW),
            *(float(scores[row][in_HW].mean()) for scores in (raw_o, raw_p)
              for row in range(len(PROMPTS.words)) if row not in PROMPTS.foreground),
            *self._measure_colours(in_HW, date, at),
        ]  # fmt: skip

    def _measure_scores(self, raw_o, raw_p, outlined, part_HW, in_HW, ring_HW) -> list[float]:
        own, other = [fg(raw)[in_HW] for raw in (raw_o, raw_p)]
        margins = [(fg(raw) - bg(raw))[in_HW].mean() for raw in (raw_o, raw_p)]
        return [
            np.log(part_HW.sum() * self.gsd_m**2), own.mean(), fg(outlined)[in_HW].mean(), np.quantile(own, 0.9),
            other.mean(), np.quantile(other, 0.9), *margins, fg(raw_p)[ring_HW].mean(),
        ]  # fmt: skip

    def _measure_objects(self, part_HW, in_HW, found_HW, present_HW, at) -> list[float]:
        _, labels_HW = cv2.connectedComponents(found_HW, connectivity=8)
        own = np.unique(labels_HW[at][part_HW])
        object_HW = np.isin(labels_HW, own[own > 0])
        area = max(object_HW.sum(), 1)
        wide, near = (cv2.dilate(in_HW.astype(np.uint8), disc(m / self.gsd_m)) > 0 for m in (4, 1))
        rim = wide & ~near
        return [min(in_HW.sum() / area, 1), (object_HW & (present_HW > 0)).sum() / area,
                present_HW[at][rim].mean() if rim.any() else 0.0]  # fmt: skip

    def _measure_looks(self, in_HW, ring_HW, date, at) -> list[float]:
        inside = self.distance_HW[at][in_HW]
        above = (inside.mean() - self.ground) / max(1 - self.ground, 0.1)
        own, other = self.lab[date][at], self.lab[1 - date][at]
        light = np.abs(own[..., 0] - other[..., 0])[in_HW].mean() - self.usual[0]
        colour = np.abs(own[..., 1:] - other[..., 1:]).sum(axis=-1)[in_HW].mean() - self.usual[1]
        a, b = own[..., 0][in_HW], other[..., 0][in_HW]
        ncc = float(np.mean((a - a.mean()) * (b - b.mean())) / (a.std() * b.std() + 25))
        edge = cv2.morphologyEx(in_HW.astype(np.uint8), cv2.MORPH_GRADIENT, disc(1 / self.gsd_m)) > 0
        edges = [self.edges[one][at][edge].mean() + 1 for one in (date, 1 - date)]
        return [
            inside.mean(), above, np.quantile(inside, 0.25), self.ground, self.distance_HW[at][ring_HW].mean(),
            light / 20, colour / 20, ncc, np.log(edges[0] / edges[1]),
        ]  # fmt: skip

    def _measure_colours(self, in_HW, date, at) -> list[float]:
        own, other = (self.lab[one][at][in_HW] for one in (date, 1 - date))
        texture = [np.log(one[:, 0].std() + 1) for one in (own, other)]
        green = [-(one[:, 1].mean() - 128) / 10 for one in (own, other)]
        return [*texture, *green, *((one[:, 0].mean() - 128) / 50 for one in (own, other))]


def measure_shape(in_HW: np.ndarray) -> list[float]:
    """Return compactness, solidity, share of the least rectangle, and the log of its elongation."""
    outlines, _ = cv2.findContours(in_HW.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    outline = max(outlines, key=len)
    area, around = float(in_HW.sum()), max(cv2.arcLength(outline, True), 1)
    hull = max(cv2.contourArea(cv2.convexHull(outline)), 1)
    sides = np.array(cv2.minAreaRect(outline)[1]) + 1
    return [min(4 * np.pi * area / around**2, 1.2), min(area / hull, 1.2), min(area / sides.prod(), 1.2),
            float(np.log(sides.max() / sides.min()))]  # fmt: skip


def fg(scores_CHW: np.ndarray) -> np.ndarray:
    """Return the score of what is looked for."""
    return scores_CHW[list(PROMPTS.foreground)].max(axis=0)


def bg(scores_CHW: np.ndarray) -> np.ndarray:
    """Return the score of everything else."""
    return scores_CHW[[row for row in range(len(PROMPTS.words)) if row not in PROMPTS.foreground]].max(axis=0)


def disc(radius_px: float) -> np.ndarray:
    """Return a disc of at least one pixel's radius."""
    reach = max(1, round(radius_px))
    return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1, 2 * reach + 1))
