"""The classes that the segmentation heads of a trained network tell apart at each date."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from semicdvl.errors import CheckpointError
from semicdvl.reading.json_files import shorten
from semicdvl.types import IGNORE

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
                f"{shorten(', '.join(self.names))}. Train again, or take the file from a backup."
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
