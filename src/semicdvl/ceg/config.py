"""Settings of change event generation: the paper's, and the options beyond it, which are off unless asked for."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from semicdvl.errors import ConfigError

CEGLevel = Literal["mixed", "instance", "pixel"]

SCORE_STEPS = 200
"""Scores are kept in the store as multiples of 1 / STEPS, so thresholds must be such multiples, too."""
MAX_SHIFT_PX = 32
"""Greatest shift tolerance: the work grows with its square, and a pair that is further off should be aligned first."""


@dataclass(frozen=True)
class CEGSettings:
    """How two answers become labels; the defaults are the paper's (Table 6 and 8), without the options beyond it."""

    level: CEGLevel = "mixed"  # which change label: pixel, instance, or both agreeing where reliable
    gamma: float = 0.8  # least best score, of both dates, of a reliable pixel of the change label
    gamma_segmentation: float = 0.8  # least best score of a reliable pixel of a single-date label
    delta: float = 0.0  # greatest sum of IoUs of a changed instance; the authors' later code uses 0.01
    instance_score: float = 0.5  # least score of a foreground pixel that belongs to an object (VLMs without instances)
    min_area_px: int = 16  # smallest object (VLMs without instances)
    shift_px: int = 0  # an instance counts as met by one that is this far off (dates that don't lie exactly over)
    replaced_iou: float | None = None  # a met instance whose best IoU is below this was replaced by another
    replaced_class: bool = False  # a met instance whose best partner answers another prompt was replaced
    min_cosine: float | None = None  # a met instance whose features at the two dates agree less than this was replaced

    def __post_init__(self) -> None:
        """Refuse what cannot be meant, and thresholds that the store's 8-bit steps cannot keep exactly.

        Raises:
            ConfigError: an unknown level, a threshold between two steps, or an option out of its range.
        """
        if self.level not in ("mixed", "instance", "pixel"):
            raise ConfigError(f"unknown CEG level '{self.level}'. Known: mixed, instance, pixel.")
        for name in ("gamma", "gamma_segmentation", "instance_score"):
            value = getattr(self, name)
            if not math.isfinite(value) or abs(value * SCORE_STEPS - round(value * SCORE_STEPS)) > 1e-6:
                raise ConfigError(
                    f"{name} = {value}: give a multiple of {1 / SCORE_STEPS:g}, the precision of kept scores."
                )
        for name, low, high in (
            ("delta", 0, 1),
            ("shift_px", 0, MAX_SHIFT_PX),
            ("replaced_iou", 0, 1),
            ("min_cosine", -1, 1),
        ):
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                raise ConfigError(f"{name} = {value}: give a number from {low} to {high}.")
        if self.level == "pixel" and (options := self.active_options):
            raise ConfigError(
                f"{', '.join(options)}: rules for objects, and the pixel level has none. "
                "Take the level mixed or instance."
            )

    @property
    def active_options(self) -> tuple[str, ...]:
        """Names of the options beyond the paper that are on."""
        return tuple(
            field.name
            for field in fields(self)
            if field.name in OPTIONS_BEYOND_PAPER and getattr(self, field.name) != field.default
        )

    def to_plain_dict(self) -> dict[str, Any]:
        """Return the settings as plain values, without the options that are off: what a key is made of.

        An option that is added later thus leaves the keys of all earlier labels as they are.
        """
        return {
            name: value
            for name, value in asdict(self).items()
            if name not in OPTIONS_BEYOND_PAPER or name in self.active_options
        }


OPTIONS_BEYOND_PAPER = ("shift_px", "replaced_iou", "replaced_class", "min_cosine")
"""The options beyond the paper; see `events`."""
