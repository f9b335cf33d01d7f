"""The detector without labels, with a calibrated probability of change for every object: `detect --calibrate`.

The change map of `VLMDetector` is read twice. The first pass collects the scores of its objects (those that become
polygons: 8-connected regions of the map), of the objects that are there at both dates, and of the background;
`ceg.calibration` turns them into probabilities; the second pass drops the objects that are probably unchanged. Memory
grows with the number of objects, not with the raster.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, fields, replace

import numpy as np
from numpy.typing import NDArray

from semicdvl.ceg.calibration import BackgroundScores, CalibrationResult, ObjectEvidence, calibrate, logit
from semicdvl.ceg.instances.rule import find_components
from semicdvl.detection.detectors.vlm_ceg import VLMDetector
from semicdvl.errors import ConfigError
from semicdvl.raster.object_sums import ObjectSums, label_regions
from semicdvl.reports.numbers import format_count
from semicdvl.types import ChangeMap, ScoreStrip, ScoreStrips

MIN_PROBABILITY = 0.5
"""Objects below are dropped; 0.5 is the threshold with the smallest expected error."""
PERSISTING_FRAC = 0.5
"""An object persists if more than this share of it is an object at the other date, too."""
MATCHED_FRAC = 0.1
"""A changed object of which more than this share is an object at both dates was not decided by being unmatched alone:
its scores say nothing about it. The same holds for an object with any pixel that counts as replaced (`--replaced-iou`
and the like), however little of it is an object at both dates."""
SCORE_BINS = 4096
"""Number of bins in which background scores are counted, so that the division into strips makes no difference."""


@dataclass(frozen=True)
class CalibratedVLMDetector(VLMDetector):
    """A `VLMDetector` that keeps only objects that probably changed; see `VLMDetector` for further attributes.

    Attributes:
        min_probability: objects with a smaller probability are dropped.
        calibration_notes: how the last raster was calibrated, for the report.
    """

    stored_kind = "semicdvl.predict.calibrated.CalibratedVLMCEG"

    min_probability: float = MIN_PROBABILITY
    calibration_notes: list[str] = field(default_factory=list, compare=False, repr=False)

    def __post_init__(self) -> None:
        """Refuse levels without objects.

        Raises:
            ConfigError: the level is not "instance".
        """
        super().__post_init__()
        if self.settings.level != "instance":
            raise ConfigError(
                f"--calibrate gives the objects of the level instance a probability, and not those of the level "
                f"{self.settings.level}. Leave it out, or take --level instance."
            )

    @property
    def name(self) -> str:  # type: ignore[override]  # the base class has a plain attribute
        """Short name for reports."""
        return f"{super().name}, calibrated"

    def description(self) -> dict[str, str]:
        """Return model, prompts and thresholds."""
        return super().description() | {"Calibrated": f"objects from a probability of {self.min_probability:g}"}

    def notes(self) -> tuple[str, ...]:
        """Return how the raster was calibrated; known once `decide` has finished."""
        return (*super().notes(), *self.calibration_notes)

    def decide(self, strips: ScoreStrips) -> Iterator[ChangeMap]:
        """Yield the change map with probabilities, without the objects that are probably unchanged."""
        evidence = _EvidenceCollector(self)
        for (change, found), strip in zip(super().decide_with_events(strips), strips, strict=True):
            evidence.add(change, strip, replaced_HW=None if found is None else found.replaced_HW)
        probability_L, starts = evidence.compute_probabilities(self.calibration_notes)
        for change, strip in zip(super().decide(strips), strips, strict=True):
            labels_HW, start = label_regions(change.change_HW == 1), starts[strip.row]
            own_L = probability_L[start : start + int(labels_HW.max(initial=0))]
            probability_HW = np.concatenate([[np.nan], own_L]).astype(np.float32)[labels_HW]
            dropped_HW = probability_HW < self.min_probability  # False where it is not known
            probability_HW[dropped_HW] = np.nan
            kept_HW = np.where(dropped_HW, 0, change.change_HW).astype(np.uint8)
            yield replace(change, change_HW=kept_HW, probability_HW=probability_HW)


def add_calibration(detector: VLMDetector) -> CalibratedVLMDetector:
    """Return the detector with calibrated probabilities.

    Raises:
        ConfigError: the detector runs at a level without objects.
    """
    return CalibratedVLMDetector(**{each.name: getattr(detector, each.name) for each in fields(VLMDetector)})


# ------------------------------------------------------------------------------------------------ the first round
class _EvidenceCollector:
    """Collects the changed objects, the persisting objects and the scores of the background."""

    def __init__(self, detector: CalibratedVLMDetector) -> None:
        """Start empty."""
        self._foreground, self._settings = detector.prompts.foreground, detector.settings
        self._least = detector.min_probability
        self._changes, self._dates = ObjectSums(), (ObjectSums(), ObjectSums())
        self._starts: dict[int, int] = {}
        self._ground = np.zeros(SCORE_BINS, np.int64)

    def add(self, change: ChangeMap, strip: ScoreStrip, *, replaced_HW: NDArray[np.bool_] | None) -> None:
        """Add the next rows; `replaced_HW` are the instances with a match that count as replaced."""
        count = len(strip.scores_PHW) // 2
        seen = [np.where(strip.valid_HW, part, np.float32(0)) for part in np.split(strip.scores_PHW, [count])]
        found = [scores_CHW[list(self._foreground)].max(axis=0) for scores_CHW in seen]
        objects = [
            find_components(scores_CHW, foreground=self._foreground, threshold=self._settings.instance_score)
            for scores_CHW in seen
        ]
        both_HW = (objects[0] > 0) & (objects[1] > 0)
        self._starts[strip.row] = self._changes.count
        replaced = np.zeros_like(both_HW) if replaced_HW is None else replaced_HW
        self._changes.add(label_regions(change.change_HW == 1), *found, both_HW, replaced)
        for at, date in enumerate(self._dates):
            date.add(objects[at], found[at], found[1 - at], both_HW)
        background_HW = strip.valid_HW & (objects[0] == 0) & (objects[1] == 0)
        for scores_HW in found:
            steps = np.minimum((scores_HW[background_HW] * SCORE_BINS).astype(np.int64), SCORE_BINS - 1)
            self._ground += np.bincount(steps, minlength=SCORE_BINS)

    def compute_probabilities(self, notes: list[str]) -> tuple[NDArray[np.float64], dict[int, int]]:
        """Return the probability of every label of the map (NaN: not calibrated) and the first label of every strip."""
        group_L, (area_N, *sums_N, matched_N, replaced_N) = self._changes.merge_objects()
        means_2N = np.stack(sums_N) / area_N
        unmatched_N = (matched_N <= MATCHED_FRAC * area_N) & (replaced_N == 0)
        events = ObjectEvidence(
            means_2N.max(axis=0)[unmatched_N], means_2N.min(axis=0)[unmatched_N], area_N[unmatched_N]
        )
        settings = self._settings
        found = calibrate(
            events,
            self._collect_persisting(),
            _summarise_background(self._ground),
            least_score=settings.instance_score,
            least_area_px=settings.min_area_px,
        )
        dropped = int((found.probability_N < self._least).sum())
        notes[:] = [_describe_calibration(found, dropped=dropped, others=int((~unmatched_N).sum()))]
        probability_N = np.full(len(area_N), np.nan)
        probability_N[unmatched_N] = found.probability_N
        return probability_N[group_L], self._starts

    def _collect_persisting(self) -> ObjectEvidence:
        """Return the persisting objects, with the scores of both dates."""
        dates = []
        for date in self._dates:
            area_N, own_N, other_N, both_N = date.merge_objects()[1]
            stays_N = (both_N > PERSISTING_FRAC * area_N) & (area_N >= self._settings.min_area_px)
            dates.append(np.stack([own_N / area_N, other_N / area_N, area_N])[:, stays_N])
        return ObjectEvidence(*np.concatenate(dates, axis=1))


def _summarise_background(counts: NDArray[np.int64]) -> BackgroundScores:
    """Return mean and variance of the logits of the counted scores."""
    if not counts.any():
        return BackgroundScores(float(logit(np.zeros(1))[0]), 1.0)
    logits = logit((np.arange(len(counts)) + 0.5) / len(counts))
    mean = float(np.average(logits, weights=counts))
    return BackgroundScores(mean, float(np.average((logits - mean) ** 2, weights=counts)))


def _describe_calibration(found: CalibrationResult, *, dropped: int, others: int) -> str:
    """Return how many objects were calibrated and dropped, in a sentence."""
    calibrated = format_count(len(found.probability_N), "object")
    text = f"Calibration: {dropped} of {calibrated} are probably unchanged and were dropped ({found.summary})."
    if not others:
        return text
    matched = format_count(
        others, "object that was matched with another one was", "objects that were matched with others were"
    )
    return f"{text} {matched} kept without a probability."
