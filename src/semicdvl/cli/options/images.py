"""Options of the images: which ones, their bands and grid, and how values become grey values."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

import semicdvl as cd
from semicdvl.cli.app import INPUT
from semicdvl.cli.options.groups import list_values, parse_numbers


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
            help="Band that says where there is data: auto (the one tagged so, unless it holds many values), none, or "
            "its number",
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
            help="Borders without a no-data tag that are no data: auto (of one colour, with straight edges), black, "
            "white, none",
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


@dataclass(frozen=True)
class BandOptions(PixelOptions):
    """Which bands are read, and on which grid."""

    after_bands: Annotated[
        str | None,
        typer.Option(
            help="The bands of date 2 for --bands, where they are in another order",
            rich_help_panel=INPUT,
        ),
    ] = None
    grid: Annotated[
        str,
        typer.Option(
            "--grid",
            help="Grid of the result: before, after, finest, utm (square pixels), or a raster file",
            rich_help_panel=INPUT,
        ),
    ] = "before"
    bands: Annotated[
        str | None,
        typer.Option(
            help="Numbers of the red, green and blue bands, like 4,3,2; by default as named or tagged, or 1,2,3",
            rich_help_panel=INPUT,
        ),
    ] = None

    @property
    def config_fields(self) -> dict[str, Any]:
        """The options as fields of the settings of a command, or as arguments of `check_pair`."""
        numbers = {"bands": parse_numbers(self.bands, "--bands")}
        return list_values(self) | numbers | {"after_bands": parse_numbers(self.after_bands, "--after-bands")}


@dataclass(frozen=True)
class RegistrationOptions(BandOptions):
    """How a pair is read: bands and grid, and how the after image is fitted to the before image."""

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


@dataclass(frozen=True)
class ReadingOptions(RegistrationOptions):
    """How a pair is read for a detection, which depends on the size of a pixel."""

    gsd_m: Annotated[
        float | None,
        typer.Option(
            "--gsd",
            min=0.01,
            help="Ground sampling distance in metres per pixel, where the files do not tell it",
            rich_help_panel=INPUT,
        ),
    ] = None


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
