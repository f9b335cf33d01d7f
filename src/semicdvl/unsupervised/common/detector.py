"""Base classes of the unsupervised detectors: their identity, and the decision by one threshold."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any

from semicdvl.types import ChangeMap, Detector, PairTiles, ScoreStrips
from semicdvl.unsupervised.common.statistics import measure_moments
from semicdvl.unsupervised.common.thresholds import ThresholdRule, decide_by_threshold

PLAIN_TYPES = (str, int, float, bool, tuple)


class UnsupervisedDetector(Detector):
    """A detector whose subclasses are frozen dataclasses of options; its identity is its name and all options."""

    @property
    def identity(self) -> str:
        """Options, those of its networks included, and name: equal identities mean equal maps of equal images.

        What the detector learned from a pair is not part of it. The string is stored with results, so its words stay as
        they are ("planes_count" is `map_count`).
        """
        return f"{_list_options(self)}, name={self.name!r}, planes_count={self.map_count}"


class ThresholdDetector(UnsupervisedDetector):
    """A detector whose first score map is split by one threshold for the whole raster.

    Attributes:
        rule: how the threshold is found.
    """

    rule: ThresholdRule

    def fit_rule(self, tiles: PairTiles) -> ThresholdRule:
        """Return the rule for a pair of colour images: whether the guard of the threshold is needed is measured.

        Raises:
            DataError: no data, one colour, or fewer than three bands.
        """
        return self.rule.for_pair(measure_moments(tiles, method=self.name, bands=3))

    def decide(self, strips: ScoreStrips) -> Iterator[ChangeMap]:
        """Yield the change map of every strip: changed where the first score map exceeds the threshold."""
        return decide_by_threshold(strips, self.rule)


def _list_options(part: Any) -> str:
    """Return the options of a dataclass, and those of the networks and the rule among its fields."""
    words = []
    for item in fields(part):
        value = getattr(part, item.name)
        if isinstance(value, PLAIN_TYPES):
            words.append(f"{item.name}={value!r}")
        elif is_dataclass(value) and (hasattr(value, "identity") or item.name == "rule"):
            words.append(f"{item.name}=({_list_options(value)})")
        elif hasattr(value, "identity"):
            words.append(f"{item.name}={value.identity}")
    return ", ".join(words)
