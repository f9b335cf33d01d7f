"""What the review says of the whole map: precision, recall and changed area, with 95 % confidence intervals.

Objects that a person looked at because their score is high or their area large say little about the others. So every
object has a random rank, and only the objects count that were all decided from the first rank on without a gap: they
are a simple random sample, whatever else was reviewed. Whoever reviews in random order has all of them counted; when
every object is decided, the precision is known and no estimate any more.

The ground that the map calls unchanged has no objects, so places of it (pixels) are drawn at random and answered one by
one. With as many places of the changed ground, which the decisions on the objects answer, they give the area-adjusted
estimates of Olofsson et al. 2014 (`metrics.area_adjusted`, the same as of `semicdvl evaluate --sample`).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import shapely
from shapely import STRtree

from semicdvl.evaluation.map_vs_truth import DetectedMap
from semicdvl.evaluation.stratified_sample import StratifiedSample, draw_stratified_sample
from semicdvl.metrics.area_adjusted import Z95, Estimate
from semicdvl.raster.grid import Grid
from semicdvl.review.store import Change, ReviewStore
from semicdvl.types import IGNORE

PLACES = 100
"""Places of a sample, half of them in each class of the map."""
MIN_SAMPLE = 5
"""With fewer objects no precision is shown."""
RIGHT, WRONG = "accepted", "rejected"


@dataclass(frozen=True)
class Interval:
    """A share or an area with its 95 % confidence interval."""

    value: float
    low: float
    high: float


def rank_at_random(number: int, *, key: str) -> float:
    """Return the random rank of an object, 0 to 1, the same at every start: a hash of map and number."""
    return int.from_bytes(hashlib.sha256(f"{key}:{number}".encode()).digest()[:6], "big") / 2**48


def estimate_share(right: int, sampled: int, *, population: int) -> Interval:
    """Return a share and its 95 % confidence interval from a simple random sample without replacement.

    It is the interval of Wilson (1927, "Probable inference, the law of succession, and statistical inference"), which
    holds for small samples and shares near 0 and 1, with the sample counted as larger by the finite population
    correction: a sample of everything has no error.

    Args:
        right: number in the sample that have the property.
        sampled: size of the sample, at least 1.
        population: number of all.
    """
    share = right / sampled
    if sampled >= population:
        return Interval(share, share, share)
    many = sampled * (population - 1) / (population - sampled)
    centre = (share + Z95**2 / (2 * many)) / (1 + Z95**2 / many)
    half = Z95 / (1 + Z95**2 / many) * math.sqrt(share * (1 - share) / many + Z95**2 / (4 * many**2))
    return Interval(share, max(0.0, centre - half), min(1.0, centre + half))


# ------------------------------------------------------------------------------------------------ objects
@dataclass(frozen=True)
class ObjectEstimate:
    """The precision by objects.

    Attributes:
        total: objects that the detection found.
        decided: how many of them are accepted or rejected.
        sampled: how many of these are a random sample.
        right: how many of the sample are accepted.
        precision: share of all found objects that are right; None while the sample is too small.
        waits_for: the first object of the random order that is not decided, at which the sample ends; None: there is
            none.
    """

    total: int
    decided: int
    sampled: int
    right: int
    precision: Interval | None
    waits_for: int | None = None


def estimate_precision(changes: Sequence[Change], *, key: str) -> ObjectEstimate:
    """Estimate which share of the found objects are right.

    Args:
        changes: all objects, those that were split or merged included.
        key: of the map, for the random ranks.
    """
    found = sorted(
        (one for one in changes if one.source == "detected"), key=lambda one: rank_at_random(one.id, key=key)
    )
    answers = answer_for_detected(changes)
    states = [answers[one.id] for one in found]
    decided = sum(state is not None for state in states)
    sample = _take_until_gap(states)
    right = sum(state == RIGHT for state in sample)
    enough = len(sample) >= MIN_SAMPLE or (len(sample) == len(found) and sample)
    precision = estimate_share(right, len(sample), population=len(found)) if enough else None
    waits_for = found[len(sample)].id if len(sample) < len(found) else None
    return ObjectEstimate(len(found), decided, len(sample), right, precision, waits_for)


def answer_for_detected(changes: Sequence[Change]) -> dict[int, str | None]:
    """Return for each object of the detection whether it is right, wrong or not decided.

    One that was split or merged is right where a descendant is accepted, and wrong where all are rejected.
    """
    children: dict[int, list[Change]] = {}
    for one in changes:
        for parent in one.parents:
            children.setdefault(parent, []).append(one)
    answers: dict[int, str | None] = {}
    for one in sorted(changes, key=lambda one: -one.id):  # a descendant has a larger number, so its answer is known
        below = [child.id for child in children.get(one.id, []) if child.id > one.id and _leads_on(child, children)]
        answers[one.id] = _answer(one, [answers[number] for number in below])
    return {one.id: answers[one.id] for one in changes if one.source == "detected"}


def _answer(one: Change, below: Sequence[str | None]) -> str | None:
    """Return whether an object is right, wrong or not decided; `below` are the answers of what it became."""
    if one.live:
        return one.state if one.state in (RIGHT, WRONG) else None
    if RIGHT in below:
        return RIGHT
    return WRONG if below and all(state == WRONG for state in below) else None


def _leads_on(one: Change, children: Mapping[int, list[Change]]) -> bool:
    """Tell whether an object counts: it is on the map, or was divided further; an undone one is neither."""
    return one.live or one.id in children


def _take_until_gap(states: Iterable[str | None]) -> list[str]:
    """Return the states up to the first object that is not decided."""
    taken: list[str] = []
    for state in states:
        if state is None:
            break
        taken.append(state)
    return taken


# ------------------------------------------------------------------------------------------------ places
@dataclass(frozen=True)
class AreaEstimate:
    """The estimates by area.

    Attributes:
        places: size of the sample.
        checked: places that count: answered from the first one on without a gap, in each class of the map.
        open_places: places of unchanged ground that nobody has answered.
        precision: share of the mapped change that is change.
        recall: share of the change that is mapped.
        changed_area: in the unit of the map; all three None while there are too few places.
        mapped_area: as the map shows it.
    """

    places: int
    checked: int
    open_places: int
    precision: Interval | None
    recall: Interval | None
    changed_area: Interval | None
    mapped_area: float


def draw_places(store: ReviewStore, result: DetectedMap, *, key: str) -> None:
    """Draw the random places and store them, unless they are there already.

    Raises:
        InputError: the change map cannot be read.
    """
    if store.read_meta("class_px") is not None:
        return
    seed = int.from_bytes(hashlib.sha256(key.encode()).digest()[:4], "big")
    sample = draw_stratified_sample(result, total=PLACES, seed=seed)
    order_N = np.random.default_rng(seed).permutation(len(sample.rows_N))
    places = [(int(sample.rows_N[at]), int(sample.cols_N[at]), int(sample.mapped_N[at])) for at in order_N]
    store.store_places(places, {"class_px": f"{sample.class_px[0]},{sample.class_px[1]}"})


def answer_places(places: Sequence[Mapping[str, Any]], changes: Sequence[Change], grid: Grid) -> list[int | None]:
    """Return the truth of each place: what a person said of it, or what follows from the objects; None: not known."""
    live = [one for one in changes if one.live]
    if not places:
        return []
    centres = [grid.transform @ (place["col"] + 0.5, place["row"] + 0.5) for place in places]
    points = shapely.points(centres)
    now_tree = STRtree([one.geometry for one in live])
    hits: dict[int, list[Change]] = {}
    for at, index in zip(*now_tree.query(points, predicate="intersects"), strict=True):
        hits.setdefault(int(at), []).append(live[int(index)])
    found = [one for one in changes if one.source == "detected"]
    answers = answer_for_detected(changes)
    origin: dict[int, int] = {}
    if found:
        tree = STRtree([one.original or one.geometry for one in found])
        pairs_2N = tree.query_nearest(points, all_matches=False)
        origin = {int(at): int(index) for at, index in pairs_2N.T}
    truth: list[int | None] = []
    for at, place in enumerate(places):
        states = {one.state for one in hits.get(at, [])}
        if RIGHT in states:
            truth.append(1)
        elif place["mapped"] == 1:
            owner = found[origin[at]] if at in origin else None
            decided = owner is not None and answers[owner.id] is not None and not states & {"open", "skipped"}
            truth.append(0 if decided else None)
        else:
            truth.append(place["truth"])
    return truth


def estimate_area(
    places: Sequence[Mapping[str, Any]], truth: Sequence[int | None], *, class_px: tuple[int, int], pixel_area: float
) -> AreaEstimate:
    """Estimate precision, recall and changed area from the places that are a random sample.

    Args:
        places: in their random order.
        truth: of each, see `answer_places`.
        class_px: pixels of the map in each class.
        pixel_area: of one pixel, in the unit of the map.
    """
    counted: list[tuple[int, int]] = []
    for mapped in (0, 1):
        answers = [answer for place, answer in zip(places, truth, strict=True) if place["mapped"] == mapped]
        counted += [(mapped, int(answer)) for answer in _take_known(answers)]
    waiting = sum(place["mapped"] == 0 and answer is None for place, answer in zip(places, truth, strict=True))
    mapped_area = class_px[1] * pixel_area
    per_class = [sum(mapped == value for mapped, _ in counted) for value in (0, 1)]
    enough = all(count >= MIN_SAMPLE or size == 0 for count, size in zip(per_class, class_px, strict=True))
    if not enough or not counted:
        return AreaEstimate(len(places), len(counted), waiting, None, None, None, mapped_area)
    zeros = np.zeros(len(counted), np.int64)
    sample = StratifiedSample(
        zeros, zeros, np.array([mapped for mapped, _ in counted], np.uint8),
        np.array([answer for _, answer in counted], np.uint8), class_px,
    )  # fmt: skip
    assert not (sample.truth_N == IGNORE).any()
    accuracy = sample.estimate_accuracy(pixel_m2=pixel_area)
    total_area = sum(class_px) * pixel_area
    return AreaEstimate(
        len(places),
        len(counted),
        waiting,
        _to_interval(accuracy.users_accuracies[1], 1.0),
        _to_interval(accuracy.producers_accuracies[1], 1.0),
        _to_interval(accuracy.estimated_areas[1], total_area),
        mapped_area,
    )


def _take_known(answers: Iterable[int | None]) -> list[int]:
    """Return the answers up to the first that is missing."""
    taken: list[int] = []
    for answer in answers:
        if answer is None:
            break
        taken.append(answer)
    return taken


def _to_interval(estimate: Estimate, most: float) -> Interval | None:
    """Return an estimate as an interval within what is possible; None where the sample does not define it."""
    if not math.isfinite(estimate.value) or not math.isfinite(estimate.half_width):
        return None
    low, high = estimate.value - estimate.half_width, estimate.value + estimate.half_width
    return Interval(estimate.value, max(0.0, low), min(most, high))


def describe_precision(estimate: ObjectEstimate) -> str:
    """Return the precision so far in a sentence."""
    if estimate.precision is None:
        need = min(MIN_SAMPLE, estimate.total)
        if not need:
            return "no estimate: the map shows no object"
        head = f"no estimate yet: {estimate.decided} of {estimate.total} objects decided"
        if estimate.decided < need:
            return f"{head}; {need} {'is' if need == 1 else 'are'} needed, in random order"
        return f"{head}, but of the first {need} in random order only {estimate.sampled}"
    head = f"after {estimate.sampled} of {estimate.total} objects"
    if estimate.sampled == estimate.total:
        return f"{head}: precision {estimate.precision.value:.2f}"
    return f"{head}: precision {estimate.precision.low:.2f}-{estimate.precision.high:.2f}"
