"""Options that several commands share, each declared once; see `option_groups.expand_option_groups`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import semicdvl as cd
from semicdvl.ceg.config import RESIDUAL_SETTINGS, choose_detection_level
from semicdvl.cli.app import out
from semicdvl.registry import parse_assignments

if TYPE_CHECKING:
    from semicdvl import VLM, Prompts

INPUT, TARGET, OUTPUT, ADVANCED = "Input", "What to look for", "Output", "Advanced"
"""Panels of `--help`."""


class Level(StrEnum):
    """Levels of change event generation."""

    mixed = "mixed"
    instance = "instance"
    pixel = "pixel"
    residual = "residual"


class Normalise(StrEnum):
    """Radiometric normalisation of the two dates."""

    none = "none"
    match = "match"


class Collar(StrEnum):
    """Borders without a no-data tag that count as no data."""

    auto = "auto"
    none = "none"
    black = "black"
    white = "white"


class Executor(StrEnum):
    """Where the work is computed."""

    local = "local"
    ray = "ray"


# ------------------------------------------------------------------------------------------------ images
@dataclass(frozen=True)
class PairArguments:
    """The two images of a pair."""

    before: Annotated[
        str,
        typer.Argument(help="Image of date 1: a GeoTIFF or another raster, a folder of tiles, a.tif,b.tif, or a URL"),
    ]
    after: Annotated[
        str,
        typer.Argument(help="Image of date 2, likewise; it is resampled onto the grid. PNG and JPEG pairs work too"),
    ]


@dataclass(frozen=True)
class OptionalPairArguments:
    """The two images of a pair, or neither of them."""

    before: Annotated[
        str | None, typer.Argument(help="Image of date 1: a GeoTIFF or another raster, a folder of tiles, ...")
    ] = None
    after: Annotated[str | None, typer.Argument(help="Image of date 2, likewise; on another grid it is resampled")] = (
        None
    )


@dataclass(frozen=True)
class PixelOptions:
    """Which pixels have data, how they become grey values, and which files may hold them."""

    alpha: Annotated[
        str,
        typer.Option(
            "--alpha",
            help="Band that says where there is data: auto (as tagged, if it looks like one), none, or its number",
            rich_help_panel=INPUT,
        ),
    ] = "auto"
    stretch: Annotated[
        str,
        typer.Option(
            "--stretch",
            help="Grey values of 16-bit data: auto (one for both dates if comparable), each, or data values LOW,HIGH",
            rich_help_panel=INPUT,
        ),
    ] = "auto"
    collar: Annotated[
        Collar,
        typer.Option(
            "--collar",
            help="Borders without a no-data tag that are no data: auto (of one colour, straight), black, white, none",
            rich_help_panel=INPUT,
        ),
    ] = Collar.auto
    allow_outside: Annotated[
        bool,
        typer.Option(
            "--allow-outside",
            help="Let a virtual raster (VRT) be made of files outside of its folder",
            rich_help_panel=INPUT,
        ),
    ] = False

    @property
    def pixel_fields(self) -> dict[str, Any]:
        """The options as fields of the settings that have them."""
        return {
            "alpha": self.alpha,
            "stretch": self.stretch,
            "collar": self.collar.value,
            "allow_outside": self.allow_outside,
        }


@dataclass(frozen=True)
class BandOptions(PixelOptions):
    """Which bands are read, and on which grid."""

    bands: Annotated[
        str | None,
        typer.Option(
            help="Numbers of the red, green and blue bands, like 4,3,2; by default as tagged, or 1,2,3",
            rich_help_panel=INPUT,
        ),
    ] = None
    after_bands: Annotated[
        str | None,
        typer.Option(
            help="The same for date 2, where its bands are in another order",
            rich_help_panel=INPUT,
        ),
    ] = None
    grid: Annotated[
        str,
        typer.Option(
            "--grid",
            help="Grid of the result: before, after, finest, or a raster file",
            rich_help_panel=INPUT,
        ),
    ] = "before"

    @property
    def band_numbers(self) -> dict[str, Any]:
        """The bands of both dates as numbers."""
        return {
            "bands": parse_numbers(self.bands, "--bands"),
            "after_bands": parse_numbers(self.after_bands, "--after-bands"),
        }


@dataclass(frozen=True)
class ReadingOptions(BandOptions):
    """How a pair is read for a detection."""

    gsd: Annotated[
        float | None,
        typer.Option(
            "--gsd",
            min=0.01,
            help="Ground sampling distance in metres per pixel, where the files do not tell it",
            rich_help_panel=INPUT,
        ),
    ] = None
    normalise: Annotated[
        Normalise,
        typer.Option(
            help="Radiometric normalisation; match: fit the after image to the before image, once for the whole pair. "
            "For methods that compare pixel values; a VLM looks at each date by itself and is better without",
            rich_help_panel=INPUT,
        ),
    ] = Normalise.none
    align: Annotated[
        bool,
        typer.Option(
            help="Co-register: move the after image by the shift that `check` measures",
            rich_help_panel=INPUT,
        ),
    ] = False

    @property
    def config_fields(self) -> dict[str, Any]:
        """The options as fields of `DetectionConfig`."""
        return {
            **self.band_numbers,
            "grid": self.grid,
            **self.pixel_fields,
            "gsd_m": self.gsd,
            "normalise": self.normalise.value,
            "align": self.align,
        }


@dataclass(frozen=True)
class DatasetOptions:
    """How a data set is read."""

    dataset: Annotated[
        str,
        typer.Option("--dataset", help="Reader of the data set, see `semicdvl list datasets`", rich_help_panel=INPUT),
    ] = "folder"
    tile: Annotated[
        int | None,
        typer.Option(
            min=32,
            help="Cut the images into tiles with this side in pixels, as in training",
            rich_help_panel=INPUT,
        ),
    ] = None

    def load(self, root: Path) -> cd.ChangeDataset:
        """Read the data set."""
        return cd.load_dataset(root, reader=self.dataset, tile_px=self.tile)


@dataclass(frozen=True)
class TrustOptions:
    """Which code a stored run may name."""

    trust: Annotated[
        list[str] | None,
        typer.Option(
            "--trust",
            help="Module whose network the run may name, such as mymodule; runs may else name those of semicdvl alone",
            rich_help_panel=ADVANCED,
        ),
    ] = None

    @property
    def modules(self) -> tuple[str, ...]:
        """The modules that were given."""
        return tuple(self.trust or ())


# ------------------------------------------------------------------------------------------------ VLM and CEG
@dataclass(frozen=True)
class PromptOptions:
    """What a vision-language model is asked for."""

    find: Annotated[
        str | None, typer.Option(help="What to look for, in words: house,building", rich_help_panel=TARGET)
    ] = None
    background: Annotated[
        str | None, typer.Option(help="What else is there, in words: road,grass,tree,water", rich_help_panel=TARGET)
    ] = None
    prompts: Annotated[
        str,
        typer.Option(
            "--prompts",
            help="A named set of both: buildings, roads, water, forest, ...; see `semicdvl list prompts`",
            rich_help_panel=TARGET,
        ),
    ] = "buildings"

    def resolve(self, vlm: str) -> Prompts:
        """Return the prompts; say which background is taken where only what to look for was given.

        Args:
            vlm: name of the VLM, which may be known not to know a word.

        Raises:
            ConfigError: it does not, or there is no such set of prompts.
        """
        from semicdvl.vlms import check_prompt_words

        prompts = cd.resolve_prompts(find=self.find, background=self.background, prompt_set=self.prompts)
        check_prompt_words(vlm, prompts.words)
        if self.find is not None and self.background is None:
            out.print(
                f"Looking for {', '.join(prompts.find)} against {', '.join(prompts.background)}: the other words of "
                f"the prompt set '{self.prompts}'. Give your own with --background, since a VLM assigns every pixel "
                "to one of the words it is given.",
                soft_wrap=True,
            )
        return prompts


@dataclass(frozen=True)
class VLMOptions:
    """Which vision-language model is asked, and how it runs."""

    vlm: Annotated[
        str,
        typer.Option(
            "--vlm",
            help="Vision-language model, see `semicdvl list vlms`; or package.module:builder",
            rich_help_panel=TARGET,
        ),
    ] = "aerial"
    vlm_from: Annotated[
        Path | None,
        typer.Option(
            "--weights",
            "--vlm-from",
            help="Weights of the VLM: a folder, file or hub name; or the folder of precomputed answers",
            rich_help_panel=TARGET,
        ),
    ] = None
    device: Annotated[
        str | None,
        typer.Option(
            help="Device of the VLM: auto, cpu, cuda, cuda:1; by default its own choice", rich_help_panel=ADVANCED
        ),
    ] = None
    dtype: Annotated[
        str | None,
        typer.Option(
            help="Number type that the VLM computes with: auto, float32, bfloat16, float16", rich_help_panel=ADVANCED
        ),
    ] = None
    vlm_set: Annotated[
        list[str] | None,
        typer.Option(
            "--vlm-set",
            help="Another option of the VLM, key=value: threshold=0.4, sam=DIR",
            rich_help_panel=ADVANCED,
        ),
    ] = None

    def parse_options(self) -> dict[str, Any]:
        """Return the options of the VLM that were given.

        Raises:
            ConfigError: one is no `key=value`, or is given twice.
        """
        named = {"weights": self.vlm_from, "device": self.device, "dtype": self.dtype}
        return parse_assignments(self.vlm_set or (), option="--vlm-set", named=named)

    def make_builder(self) -> Callable[[], VLM]:
        """Return what builds the VLM, in this process or in a worker."""
        return partial(cd.create_vlm, self.vlm, **self.parse_options())


RESIDUAL_OPTIONS = tuple(name for name in RESIDUAL_SETTINGS if name != "gsd_m")
"""Options of the residual level; the ground sampling distance is an option of reading the images."""


@dataclass(frozen=True)
class CEGOptions:
    """Change event generation."""

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
        given = {
            "level": None if self.level is None else self.level.value,
            "gamma": self.gamma,
            "instance_score": self.instance_score,
            "delta": self.delta or None,
            "shift_px": self.shift_px or None,
            "replaced_iou": self.replaced_iou,
            "replaced_class": self.replaced_class or None,
            **{name: getattr(self, name) for name in RESIDUAL_OPTIONS},
        }
        settings = {name: value for name, value in given.items() if value is not None}
        self.refuse_unused_settings(settings)
        return settings

    def refuse_unused_settings(self, settings: Mapping[str, Any]) -> None:
        """Refuse a setting that was given and that changes nothing at the level.

        Raises:
            ConfigError: there is one; the text names it.
        """
        level = settings.get("level") or choose_detection_level(settings)
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


# ------------------------------------------------------------------------------------------------ texts -> values
def split_words(text: str | None) -> tuple[str, ...]:
    """Return the words of a list with commas."""
    return tuple(word.strip() for word in (text or "").split(",") if word.strip())


def parse_numbers(text: str | None, option: str) -> tuple[int, ...] | None:
    """Return the whole numbers of a list with commas; None where nothing was given.

    Raises:
        ConfigError: a word is no whole number.
    """
    if text is None:
        return None
    try:
        return tuple(int(word) for word in split_words(text))
    except ValueError as error:
        raise cd.ConfigError(
            f"{option} is {text!r}; it must be whole numbers with commas in between, like 4,3,2."
        ) from error
