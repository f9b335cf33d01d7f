"""Settings of change event generation: those of the paper, and the options beyond it, which are off by default."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from semicdvl.errors import ConfigError

CEGLevel = Literal["mixed", "instance", "pixel"]

SCORE_STEPS = 200
"""The store keeps scores as multiples of 1 / SCORE_STEPS, so thresholds must be such multiples, too."""
MAX_SHIFT_PX = 32
"""Greatest shift tolerance: computation grows with its square; align pairs with larger misregistration first."""


@dataclass(frozen=True)
class CEGSettings:
    """How the scores of two dates become labels; the defaults are the paper's (Tables 6 and 8), all options off.

    The field names are stored with every label and are options of the command line.

    Examples:
        >>> import semicdvl as cd
        >>> settings = cd.CEGSettings(level="instance", gamma=0.5, delta=0.01)
        >>> settings.level, settings.active_options
        ('instance', ())
    """

    level: CEGLevel = "mixed"  # which change label: pixel, instance, or both combined where reliable
    gamma: float = 0.8  # confidence threshold of the change label: lowest best score of both dates
    gamma_segmentation: float = 0.8  # confidence threshold of the single-date labels
    delta: float = 0.0  # greatest sum of IoUs of a change event; the authors' later code uses 0.01
    instance_score: float = 0.5  # lowest score of a foreground pixel of an object (VLMs without instances)
    min_area_px: int = 16  # smallest object (VLMs without instances)
    shift_px: int = 0  # instances match up to this distance (imperfect co-registration)
    replaced_iou: float | None = None  # a matched instance whose best IoU is below this was replaced
    replaced_class: bool = False  # a matched instance whose best match answers another prompt was replaced
    min_cosine: float | None = None  # a matched instance whose feature similarity is below this was replaced

    def __post_init__(self) -> None:
        """Refuse values out of range, and thresholds that the store's 8-bit steps cannot represent exactly.

        Raises:
            ConfigError: an unknown level, a threshold between two steps, or an option out of range.
        """
        if self.level not in ("mixed", "instance", "pixel"):
            raise ConfigError(f"unknown CEG level '{self.level}'. Known: mixed, instance, pixel.")
        for name in ("gamma", "gamma_segmentation", "instance_score"):
            value = getattr(self, name)
            if not math.isfinite(value) or abs(value * SCORE_STEPS - round(value * SCORE_STEPS)) > 1e-6:
                raise ConfigError(
                    f"{name} = {value}: give a multiple of {1 / SCORE_STEPS:g}, the precision of stored scores."
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
                f"{', '.join(options)}: these options apply to objects, and the pixel level has none. "
                "Choose the level mixed or instance."
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
        """Return the settings as plain values without the options that are off; keys of labels are made of them.

        An option that is added in the future thus leaves the keys of earlier labels unchanged.
        """
        return {
            name: value
            for name, value in asdict(self).items()
            if name not in OPTIONS_BEYOND_PAPER or name in self.active_options
        }


OPTIONS_BEYOND_PAPER = ("shift_px", "replaced_iou", "replaced_class", "min_cosine")
"""The options beyond the paper; see `instance_events`."""
