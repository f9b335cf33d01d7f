"""Settings of change event generation: those of the paper, and the options beyond it, which are off by default."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal, get_args

from semicdvl.errors import ConfigError
from semicdvl.reading.limits import MAX_GSD_M, MIN_GSD_M

CEGLevel = Literal["mixed", "instance", "pixel", "residual"]
LEVELS_WITHOUT_GAMMA: tuple[CEGLevel, ...] = ("instance", "residual")
"""Levels at which every pixel has a change label, whatever the confidence threshold is."""
DETECTION_LEVEL: CEGLevel = "residual"
"""Level of a map without labels, where none is named and no option of matched objects is given."""

SCORE_STEPS = 200
"""The store keeps scores as multiples of 1 / SCORE_STEPS, so thresholds must be such multiples, too."""
MAX_SHIFT_PX = 32
"""Greatest shift tolerance: computation grows with its square; align pairs with larger misregistration first."""
MAX_LENGTH_M = 20
"""Greatest length of the residual rule: computation grows with its square."""


@dataclass(frozen=True)
class CEGSettings:
    """How the scores of two dates become labels; the defaults are the paper's (Tables 6 and 8), all options off.

    The field names are stored with every label and are options of the command line.

    Attributes:
        level: which change label: pixel, instance, both combined where reliable, or residual.
        gamma: confidence threshold of the change label: lowest best score of both dates.
        gamma_segmentation: confidence threshold of the single-date labels.
        delta: greatest sum of IoUs of a change event; the authors' later code uses 0.01.
        instance_score: lowest score of a foreground pixel of an object (VLMs without instances).
        min_area_px: smallest object (VLMs without instances).
        shift_px: instances match up to this distance (imperfect co-registration).
        replaced_iou: a matched instance whose best IoU is below this was replaced.
        replaced_class: a matched instance whose best match answers another prompt was replaced.
        min_cosine: a matched instance whose feature similarity is below this was replaced.
        residual_score: residual level: lowest score of what one date shows.
        residual_other_score: residual level: lowest score from which the other date shows it, too.
        residual_apart_m: residual level: how far the other date's foreground is grown.
        residual_open_m: residual level: radius of the opening.
        residual_area_m2: residual level: smallest event.
        residual_regrow_m: residual level: how far an event is grown back inside its own object.
        residual_outlines: residual level: weight of the image's own segments in the scores; 0: none.
        residual_segment_scale: residual level: larger values make larger segments.
        residual_distance: residual level: how much more than unchanged ground an event must differ; 0: off.
        residual_distance_most: residual level: feature distance that is enough on any ground.
        gsd_m: residual level: metres per pixel; None: 0.5 is assumed.

    Examples:
        >>> import semicdvl as cd
        >>> settings = cd.CEGSettings(level="instance", gamma=0.5, delta=0.01)
        >>> settings.level, settings.active_options
        ('instance', ())
    """

    level: CEGLevel = "mixed"
    gamma: float = 0.8
    gamma_segmentation: float = 0.8
    delta: float = 0.0
    instance_score: float = 0.5
    min_area_px: int = 16
    shift_px: int = 0
    replaced_iou: float | None = None
    replaced_class: bool = False
    min_cosine: float | None = None
    residual_score: float = 0.6
    residual_other_score: float = 0.4
    residual_apart_m: float = 2.0
    residual_open_m: float = 2.0
    residual_area_m2: float = 12.0
    residual_regrow_m: float = 2.0
    residual_outlines: float = 0.75
    residual_segment_scale: float = 60.0
    residual_distance: float = 0.25
    residual_distance_most: float = 0.6
    gsd_m: float | None = None

    def __post_init__(self) -> None:
        """Refuse values out of range, and thresholds that the store's 8-bit steps cannot represent exactly.

        Raises:
            ConfigError: an unknown level, a threshold between two steps, or an option out of range.
        """
        if self.level not in get_args(CEGLevel):
            raise ConfigError(f"unknown CEG level '{self.level}'. Known: {', '.join(get_args(CEGLevel))}.")
        for name in ("gamma", "gamma_segmentation", "instance_score", "residual_score", "residual_other_score"):
            value = getattr(self, name)
            if not math.isfinite(value) or abs(value * SCORE_STEPS - round(value * SCORE_STEPS)) > 1e-6:
                raise ConfigError(
                    f"{name} = {value}: give a multiple of {1 / SCORE_STEPS:g}, the precision of stored scores."
                )
        for name, low, high in (
            ("gamma", 0, 1),
            ("gamma_segmentation", 0, 1),
            ("instance_score", 0, 1),
            ("residual_score", 0, 1),
            ("min_area_px", 0, math.inf),
            ("delta", 0, 1),
            ("shift_px", 0, MAX_SHIFT_PX),
            ("replaced_iou", 0, 1),
            ("min_cosine", -1, 1),
            ("residual_other_score", 0, self.residual_score),
            ("residual_apart_m", 0, MAX_LENGTH_M),
            ("residual_open_m", 0, MAX_LENGTH_M),
            ("residual_area_m2", 0, math.inf),
            ("residual_regrow_m", 0, MAX_LENGTH_M),
            ("residual_outlines", 0, 1),
            ("residual_segment_scale", 1, 10000),
            ("residual_distance", 0, 1),
            ("residual_distance_most", 0, 1),
        ):
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                raise ConfigError(f"{name} = {value}: give a number from {low} to {high}.")
        if self.gsd_m is not None and not MIN_GSD_M <= self.gsd_m <= MAX_GSD_M:
            raise ConfigError(
                f"gsd_m = {self.gsd_m}: give metres per pixel, from {MIN_GSD_M:g} to {MAX_GSD_M:,}. Where the images'"
                " georeference is wrong, name the size of a pixel with --gsd; resample finer images."
            )
        if self.level in ("pixel", "residual") and (options := self.active_options):
            raise ConfigError(
                f"{', '.join(options)}: these options apply to matched objects, and the {self.level} level has none. "
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

        The settings of the residual level are left out at the other levels. An option that is added in the future thus
        leaves the keys of earlier labels unchanged.
        """
        residual, active = self.level == "residual", self.active_options
        return {
            name: value
            for name, value in asdict(self).items()
            if (residual if name in RESIDUAL_SETTINGS else name not in OPTIONS_BEYOND_PAPER or name in active)
        }

    @property
    def compares_features(self) -> bool:
        """Tell whether feature maps of the dates are of use: with `min_cosine`, and at the residual level."""
        return self.min_cosine is not None or (self.level == "residual" and self.residual_distance > 0)

    @property
    def vetoes_by_distance(self) -> bool:
        """Tell whether the residual level leaves out events whose features differ too little."""
        return self.level == "residual" and self.residual_distance > 0

    def at_gsd(self, gsd_m: float | None) -> CEGSettings:
        """Return the settings for images of a ground sampling distance; one that was given already stays.

        Only the residual level measures in metres; the others return themselves.
        """
        if self.level != "residual" or self.gsd_m is not None or gsd_m is None:
            return self
        return replace(self, gsd_m=gsd_m)

    def describe_thresholds(self) -> str:
        """Return the thresholds of a level as a line of a report."""
        if self.level == "residual":
            return (
                f"score {self.residual_score:g} at one date, below {self.residual_other_score:g} within "
                f"{self.residual_apart_m:g} m at the other; opened by {self.residual_open_m:g} m, at least "
                f"{self.residual_area_m2:g} m², grown back {self.residual_regrow_m:g} m; segments of scale "
                f"{self.residual_segment_scale:g} with weight {self.residual_outlines:g}; feature distance "
                f"{self.residual_distance:.0%} of the way from unchanged ground to 1, at most "
                f"{self.residual_distance_most:g}"
            )
        return (
            f"gamma {self.gamma:g}, delta {self.delta:g}, "
            f"objects from score {self.instance_score:g} and {self.min_area_px} px"
        )


OPTIONS_BEYOND_PAPER = ("shift_px", "replaced_iou", "replaced_class", "min_cosine")
"""The options beyond the paper; see `instances.events`."""
MATCHING_SETTINGS = frozenset({"delta", "instance_score", "min_area_px", *OPTIONS_BEYOND_PAPER})
"""The settings of whole objects, which the residual level does not have."""
RESIDUAL_SETTINGS = (*(field.name for field in fields(CEGSettings) if field.name.startswith("residual_")), "gsd_m")
"""The settings of the residual level; see `residual.rule`."""
RESIDUAL_OPTIONS = tuple(name for name in RESIDUAL_SETTINGS if name != "gsd_m")
"""Those that are its own options; the ground sampling distance is one of reading the images."""


def choose_detection_level(given: Collection[str], *, calibrate: bool = False) -> CEGLevel:
    """Return the level of a map without labels where none is named: the one that the given settings belong to.

    Args:
        given: names of the settings that were given.
        calibrate: objects get a calibrated probability.

    Examples:
        >>> choose_detection_level(()), choose_detection_level(("shift_px",))
        ('residual', 'instance')
    """
    return "instance" if calibrate or MATCHING_SETTINGS.intersection(given) else DETECTION_LEVEL


def choose_learning_level(given: Collection[str]) -> CEGLevel:
    """Return the level of the labels that `adapt` learns from, where none is named.

    Args:
        given: names of the settings that were given; a threshold of confidence and those of whole objects are of the
            mixed level.

    Examples:
        >>> choose_learning_level(()), choose_learning_level(("gamma",))
        ('residual', 'mixed')
    """
    return "mixed" if MATCHING_SETTINGS.union(("gamma",)).intersection(given) else DETECTION_LEVEL
