"""The classes of both dates as a trained network tells them: their score maps, and maps of change and classes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from semicdvl.errors import CheckpointError, ConfigError
from semicdvl.types import IGNORE, ChangeMap, ScoreStrips

CLASS_SCORE = 0.5
"""Mean probability from which the class of an object at a date is named."""
DecidingHeads = Literal["change", "both"]
"""`change`: the change head alone decides what has changed; `both`: the classes of the dates must differ, too."""


@dataclass(frozen=True)
class DateClasses:
    """The classes that the segmentation heads of a network tell apart.

    Of two classes the score map of a date is the probability of class 1; of more, there is one map for each.

    Attributes:
        names: of the classes 0 .. K-1.
        foreground: indices of the classes whose coming and going is change; empty where all are alike.
        are_named: whether the recipe named them; else they are background and foreground.
    """

    names: tuple[str, ...] = ("background", "foreground")
    foreground: tuple[int, ...] = (1,)
    are_named: bool = False

    @property
    def maps_per_date(self) -> int:
        """Number of score maps of a date."""
        return 1 if len(self.names) == 2 else len(self.names)

    def select_maps(self, probability_KHW: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the score maps of a date from the probabilities of its classes.

        Raises:
            CheckpointError: the network has another number of classes.
        """
        if len(probability_KHW) != len(self.names):
            raise CheckpointError(
                f"the network tells {len(probability_KHW)} classes of a date apart, but {len(self.names)} are named: "
                f"{', '.join(self.names)}. Train again, or take the file from a backup."
            )
        return probability_KHW[1:] if len(self.names) == 2 else probability_KHW

    def choose_classes(
        self, scores_PHW: NDArray[np.float32], valid_HW: NDArray[np.bool_]
    ) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """Return the class of every pixel at a date, IGNORE where not valid, and its probability."""
        if len(self.names) == 2:
            class_HW = (scores_PHW[0] >= 0.5).astype(np.uint8)
            score_HW = np.maximum(scores_PHW[0], 1 - scores_PHW[0])
        else:
            class_HW, score_HW = scores_PHW.argmax(axis=0).astype(np.uint8), scores_PHW.max(axis=0)
        return np.where(valid_HW, class_HW, np.uint8(IGNORE)), score_HW

    def describe(self, deciding: DecidingHeads) -> str:
        """Return the classes as a line of a report."""
        naming = f"'unsure' below a mean probability of {CLASS_SCORE:g}; how often they are right: not measured"
        kinds = ", ".join(self.names) if self.are_named else "foreground or background"
        both = "; ground has changed where they differ, too" if deciding == "both" else ""
        return f"{kinds} at each date, by its own head{both}; {naming}"


def read_date_classes(recipe: Mapping[str, Any]) -> DateClasses:
    """Return the classes that the recipe in a run's record names, or background and foreground."""
    section = recipe.get("classes") or {}
    count = (recipe.get("model") or {}).get("segmentation_classes", 2)
    names = tuple(section.get("names", ()))
    if not names:
        return DateClasses() if count == 2 else DateClasses(tuple(f"class {at}" for at in range(count)), (), True)
    changing = section.get("changing") or [name for name in names if name.lower() not in ("background", "other")]
    foreground = tuple(at for at, name in enumerate(names) if name in changing)
    return DateClasses(names, foreground if len(foreground) < len(names) else (), True)


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

    def start_anew(self) -> None:
        """Forget what was counted."""
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


def decide_change_maps(
    strips: ScoreStrips,
    *,
    threshold: float,
    classes: DateClasses | None,
    deciding: DecidingHeads,
    agreement: HeadAgreement,
) -> Iterator[ChangeMap]:
    """Yield the maps of a trained network: changed where the probability reaches the threshold.

    Args:
        strips: the probability of change, then the score maps of either date where there are classes.
        threshold: smallest probability of a changed pixel.
        classes: of the dates; None: there are none.
        deciding: which heads decide.
        agreement: is counted anew.
    """
    agreement.start_anew()
    for strip in strips:
        probability_HW, valid_HW = strip.scores_PHW[0], strip.valid_HW
        change_HW = np.where(valid_HW, probability_HW >= threshold, np.uint8(IGNORE)).astype(np.uint8)
        score_HW = np.where(valid_HW, probability_HW, np.float32(np.nan)).astype(np.float32)
        if classes is None:
            yield ChangeMap(change_HW, score_HW)
            continue
        maps = np.split(strip.scores_PHW[1:], [classes.maps_per_date])
        (t1_HW, t1_score_HW), (t2_HW, t2_score_HW) = (classes.choose_classes(each, valid_HW) for each in maps)
        agreement.add(change_HW, t1_HW != t2_HW)
        if deciding == "both":
            change_HW[(change_HW == 1) & (t1_HW == t2_HW)] = 0
        yield ChangeMap(
            change_HW, score_HW, classes.names, classes.foreground, t1_HW, t2_HW,
            t1_score_HW=t1_score_HW, t2_score_HW=t2_score_HW, class_score=CLASS_SCORE,
        )  # fmt: skip


def stack_score_maps(
    change_HW: NDArray[np.float32], dates_KHW: Sequence[NDArray[np.float32]], classes: DateClasses | None
) -> NDArray[np.float32]:
    """Return the score maps of a tile as PHW: the probability of change, and those of the classes of either date."""
    of_dates = [] if classes is None else [classes.select_maps(each) for each in dates_KHW]
    return np.concatenate([change_HW[None], *of_dates]).astype(np.float32, copy=False)
