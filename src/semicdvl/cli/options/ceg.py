"""Options of change event generation: its level and thresholds, and the features that it compares."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any, ClassVar

import typer

import semicdvl as cd
from semicdvl.ceg.config import RESIDUAL_OPTIONS, choose_detection_level, choose_learning_level
from semicdvl.cli.app import ADVANCED, TARGET
from semicdvl.cli.options.groups import list_values


class Level(StrEnum):
    """Levels of change event generation."""

    mixed = "mixed"
    instance = "instance"
    pixel = "pixel"
    residual = "residual"


@dataclass(frozen=True)
class CEGOptions:
    """Change event generation.

    Attributes:
        learned: whether the change events are labels to learn from, which have a usual level of their own.
    """

    learned: ClassVar[bool] = False

    level: Annotated[
        Level | None,
        typer.Option(
            help="Level of the change events, for detection without a model: what is left of one date's objects "
            "without the other's (residual), whole objects (instance), single pixels (pixel), or both where reliable "
            "(mixed); by default residual, or instance where an option of whole objects is given",
            rich_help_panel=TARGET,
        ),
    ] = None
    gamma: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            help="Confidence threshold of the levels mixed and pixel: a pixel is reliable from this score on; by "
            "default the VLM's own",
            rich_help_panel=TARGET,
        ),
    ] = None
    instance_score: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            help="Lowest score of an object's pixels at the levels instance and mixed, for VLMs without instances of "
            "their own; a multiple of 0.005, by default 0.5",
            rich_help_panel=TARGET,
        ),
    ] = None
    delta: Annotated[
        float,
        typer.Option(min=0, max=1, help="Largest sum of IoUs of a changed instance", rich_help_panel=ADVANCED),
    ] = 0.0
    shift_px: Annotated[
        int,
        typer.Option(
            min=0,
            max=32,
            help="Instances up to this many pixels apart count as one, for dates that are not exactly co-registered",
            rich_help_panel=ADVANCED,
        ),
    ] = 0
    replaced_iou: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            help="Also changed: an instance whose best match has a lower IoU",
            rich_help_panel=ADVANCED,
        ),
    ] = None
    replaced_class: Annotated[
        bool,
        typer.Option(
            help="Also changed: an instance whose match answers another prompt (not with synonyms)",
            rich_help_panel=ADVANCED,
        ),
    ] = False

    residual_score: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            help="Level residual: lowest score of what one date shows; a multiple of 0.005",
            rich_help_panel=ADVANCED,
        ),
    ] = None
    residual_other_score: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            help="Level residual: lowest score from which the other date shows it, too",
            rich_help_panel=ADVANCED,
        ),
    ] = None
    residual_apart_m: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=20,
            help="Level residual: how far the other date's objects are grown, in metres",
            rich_help_panel=ADVANCED,
        ),
    ] = None
    residual_open_m: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=20,
            help="Level residual: narrower parts than twice this many metres are left out",
            rich_help_panel=ADVANCED,
        ),
    ] = None
    residual_area_m2: Annotated[
        float | None,
        typer.Option(
            min=0,
            help="Level residual: smallest change in square metres",
            rich_help_panel=ADVANCED,
        ),
    ] = None
    residual_regrow_m: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=20,
            help="Level residual: how far a change is grown back inside its object, in metres",
            rich_help_panel=ADVANCED,
        ),
    ] = None
    residual_outlines: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            help="Level residual: weight of the image's own segments of even colour in the scores; 0: off",
            rich_help_panel=ADVANCED,
        ),
    ] = None
    residual_segment_scale: Annotated[
        float | None,
        typer.Option(
            min=1,
            max=10000,
            help="Level residual: larger values make larger segments",
            rich_help_panel=ADVANCED,
        ),
    ] = None
    residual_distance: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            help="Level residual: a change's features must differ by this part of the way from unchanged ground to 1; "
            "0: not compared",
            rich_help_panel=ADVANCED,
        ),
    ] = None
    residual_distance_most: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            help="Level residual: feature distance that is enough on any ground",
            rich_help_panel=ADVANCED,
        ),
    ] = None

    @property
    def settings(self) -> dict[str, Any]:
        """The settings of change event generation that were given; the VLM's threshold fills in what was not.

        Raises:
            ConfigError: an option was given that the level does not use.
        """
        off = [name for name in ("delta", "shift_px", "replaced_class") if not getattr(self, name)]
        settings = {name: value for name, value in list_values(self).items() if value is not None and name not in off}
        self.refuse_unused_settings(settings)
        return settings

    def refuse_unused_settings(self, settings: Mapping[str, Any]) -> None:
        """Refuse a setting that was given and that changes nothing at the level.

        Raises:
            ConfigError: there is one; the text names it.
        """
        level = settings.get("level") or (choose_learning_level if self.learned else choose_detection_level)(settings)
        usable = {
            "gamma": ("mixed", "pixel"),
            "instance_score": ("instance", "mixed"),
            **dict.fromkeys(RESIDUAL_OPTIONS, ("residual",)),
        }
        for name, levels in usable.items():
            if name in settings and level not in levels:
                option = f"--{name.replace('_', '-')}"
                raise cd.ConfigError(
                    f"{option} {settings[name]:g} changes nothing at the level {level}. "
                    f"Leave it out, or take --level {' or '.join(levels)}."
                )


@dataclass(frozen=True)
class FeatureOptions:
    """Comparison of instances by the features of a network."""

    min_cosine: Annotated[
        float | None,
        typer.Option(
            min=-1,
            max=1,
            help="Also changed: an instance whose feature similarity between the dates is lower; needs --features",
            rich_help_panel=ADVANCED,
        ),
    ] = None
    features: Annotated[
        str | None,
        typer.Option(
            "--features",
            help="Encoder whose features of the dates are compared: aerial is the embedded VLM's own, which the level "
            "residual takes by default; else efficientnet_lite0 or one of timm",
            rich_help_panel=ADVANCED,
        ),
    ] = None

    @property
    def settings(self) -> dict[str, Any]:
        """The settings of change event generation that were given."""
        return {} if self.min_cosine is None else {"min_cosine": self.min_cosine}
