"""The base class of the detectors of trained networks, whatever runs them: torch or ONNX Runtime."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from semicdvl.detection.detectors.date_classes import CLASS_SCORE, DateClasses, DecidingHeads
from semicdvl.errors import CheckpointError, ConfigError
from semicdvl.models.common.finite import check_finite_scores
from semicdvl.types import IGNORE, ChangeMap, Detector, InputBands, ScoreStrips


def check_deciding_heads(deciding: str, classes: DateClasses | None, source: object) -> None:
    """Refuse an unknown way to decide, and classes that decide where a network has none.

    Raises:
        ConfigError: one of the two.
    """
    if deciding not in get_args(DecidingHeads):
        raise ConfigError(f"decide = '{deciding}' is unknown. Known: {', '.join(get_args(DecidingHeads))}.")
    if deciding == "both" and classes is None:
        raise ConfigError(
            f"{source}: has no classes of either date that could decide. Leave out --decide, or give a run with them."
        )


@dataclass
class HeadAgreement:
    """How often the change head and the classes of the dates say the same, counted over a raster.

    Attributes:
        changed_px: pixels that the change head calls changed.
        same_class_px: of these, those with the same class at both dates.
        unchanged_px: pixels that the change head calls unchanged.
        other_class_px: of these, those whose classes differ.
    """

    changed_px: int = 0
    same_class_px: int = 0
    unchanged_px: int = 0
    other_class_px: int = 0

    def reset(self) -> None:
        """Set all counts to 0."""
        self.changed_px = self.same_class_px = self.unchanged_px = self.other_class_px = 0

    def add(self, change_HW: NDArray[np.uint8], differ_HW: NDArray[np.bool_]) -> None:
        """Count some rows."""
        changed_HW, unchanged_HW = change_HW == 1, change_HW == 0
        self.changed_px += int(np.count_nonzero(changed_HW))
        self.same_class_px += int(np.count_nonzero(changed_HW & ~differ_HW))
        self.unchanged_px += int(np.count_nonzero(unchanged_HW))
        self.other_class_px += int(np.count_nonzero(unchanged_HW & differ_HW))

    def describe(self, deciding: DecidingHeads) -> str:
        """Return the counts as a sentence."""
        same, other = (
            f"{part:,} of {total:,} px ({part / max(total, 1):.1%})"
            for part, total in ((self.same_class_px, self.changed_px), (self.other_class_px, self.unchanged_px))
        )
        taken = "they count as unchanged" if deciding == "both" else "`--decide both` makes them unchanged"
        return (
            f"Agreement of the heads: {same} that the change head calls changed have the same class at both dates"
            f" ({taken}); {other} that it calls unchanged have different classes."
        )


class TrainedDetector(Detector):
    """Decide by the probability of change of a trained network, and by its classes of each date where it has them.

    The first score map is the probability of change; pixels from `threshold` on are changed. Where the network has its
    segmentation head, which says per date what is foreground, or which of several classes is there, further score maps
    hold these probabilities (`date_classes.DateClasses`), and every object has a kind (appeared, disappeared, replaced)
    and its two classes.

    A subclass computes the score maps, with `stack_score_maps` at the end.

    Attributes:
        deciding: which heads decide what has changed.
        agreement: how far the heads agreed on the last raster.
    """

    max_bands = 3

    deciding: DecidingHeads
    agreement: HeadAgreement

    @property
    @abstractmethod
    def threshold(self) -> float:
        """Smallest probability of a changed pixel; 0.5 is the argmax of the two classes."""

    @property
    @abstractmethod
    def input_bands(self) -> InputBands | None:
        """The bands that the network was trained with, whose values are standardised; None: RGB."""

    @property
    def bands(self) -> tuple[int, ...] | None:  # type: ignore[override]  # the base class has a plain attribute
        """The numbers of the bands that the network was trained with."""
        return None if self.input_bands is None else self.input_bands.raster_numbers

    @property
    def reads_values(self) -> bool:  # type: ignore[override]  # the base class has a plain attribute
        """Whether it takes the images' own values: where it was trained with other bands than RGB."""
        return self.input_bands is not None

    @property
    @abstractmethod
    def date_classes(self) -> DateClasses | None:
        """The classes of each date, which are kept beside the change; None for a network with the change head alone."""

    @property
    def tells_transitions(self) -> bool:  # type: ignore[override]  # the base class has a plain attribute
        """Whether what became what is a result of its own: where classes are named."""
        return self.date_classes is not None and self.date_classes.are_named

    @property
    def map_count(self) -> int:  # type: ignore[override]  # the base class has a plain attribute
        """P(changed), and the maps of the classes of both dates where these are known."""
        return 1 + (2 * self.date_classes.maps_per_date if self.date_classes else 0)

    def describe_decision(self) -> dict[str, str]:
        """Return threshold, classes and bands as lines of a report."""
        classes, bands = self.date_classes, self.input_bands
        return {
            "Threshold": f"{self.threshold:g}",
            **({"Classes": classes.describe(self.deciding)} if classes else {}),
            **({"Bands": f"{bands.describe()}, standardised"} if bands else {}),
        }

    def stack_score_maps(
        self, change_HW: NDArray[np.float32], dates_KHW: Sequence[NDArray[np.float32]]
    ) -> NDArray[np.float32]:
        """Return the score maps of a tile as PHW: the probability of change, and those of the classes of each date.

        Raises:
            CheckpointError: they are no numbers: the map would be empty; or of another number of classes.
        """
        classes = self.date_classes
        try:
            of_dates = [] if classes is None else [classes.select_maps(each) for each in dates_KHW]
        except CheckpointError as error:
            raise CheckpointError(f"{self.name}: {error}") from error
        maps_PHW = np.concatenate([change_HW[None], *of_dates]).astype(np.float32, copy=False)
        check_finite_scores(maps_PHW, f"{self.name}: its network")
        return maps_PHW

    def decide(self, strips: ScoreStrips) -> Iterator[ChangeMap]:
        """Yield where the probability reaches the threshold; the score is the probability."""
        self.agreement.reset()
        for strip in strips:
            probability_HW, valid_HW = strip.scores_PHW[0], strip.valid_HW
            change_HW = np.where(valid_HW, probability_HW >= self.threshold, np.uint8(IGNORE)).astype(np.uint8)
            score_HW = np.where(valid_HW, probability_HW, np.float32(np.nan)).astype(np.float32)
            yield self._add_classes(ChangeMap(change_HW, score_HW), strip.scores_PHW[1:], valid_HW)

    def _add_classes(
        self, change: ChangeMap, scores_PHW: NDArray[np.float32], valid_HW: NDArray[np.bool_]
    ) -> ChangeMap:
        """Return a map with the classes of both dates, which may take back a change where both heads decide."""
        classes = self.date_classes
        if classes is None:
            return change
        maps = np.split(scores_PHW, [classes.maps_per_date])
        (t1_HW, t1_score_HW), (t2_HW, t2_score_HW) = (classes.choose_classes(each, valid_HW) for each in maps)
        change_HW = change.change_HW
        self.agreement.add(change_HW, t1_HW != t2_HW)
        if self.deciding == "both":
            change_HW[(change_HW == 1) & (t1_HW == t2_HW)] = 0
        return ChangeMap(
            change_HW, change.score_HW, classes.names, classes.foreground, t1_HW, t2_HW,
            t1_score_HW=t1_score_HW, t2_score_HW=t2_score_HW, class_score=CLASS_SCORE,
        )  # fmt: skip

    def notes(self) -> tuple[str, ...]:
        """Return how far the heads agree, where classes are named; known once `decide` has finished."""
        return (self.agreement.describe(self.deciding),) if self.tells_transitions else ()
