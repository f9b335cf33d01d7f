"""Commands that make training patches: prepare, prepare levir-cd, prepare whu-cd."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import typer

import semicdvl as cd
from semicdvl.cli.app import ADVANCED, INPUT, LABELS, OUTPUT, app, out
from semicdvl.cli.options import RegistrationOptions, expand_option_groups, list_values, split_words

prepare_app = typer.Typer(
    rich_markup_mode="markdown",
    help="""Make training patches: from two rasters and polygons of change, or from a published data set.

    semicdvl prepare --before B.tif --after A.tif --labels changes.gpkg --labelled-area aoi.gpkg -o DATA

    semicdvl prepare levir-cd ROOT -o DATA
    """,
)
app.add_typer(prepare_app, name="prepare", rich_help_panel=LABELS)


@dataclass(frozen=True)
class SplitOptions:
    """How the ground is divided into training, validation and test."""

    size_px: Annotated[int, typer.Option(help="Side of a patch in pixels", rich_help_panel=ADVANCED)] = 256
    val_frac: Annotated[
        float, typer.Option(help="Share of the labelled patches for validation; 0: none", rich_help_panel=ADVANCED)
    ] = 0.15
    test_frac: Annotated[
        float, typer.Option(help="Share of the labelled patches for test; 0: none", rich_help_panel=ADVANCED)
    ] = 0.25
    block_m: Annotated[
        float | None,
        typer.Option(
            help="Side in metres of the blocks of ground that are split; by default chosen from the labelled area",
            rich_help_panel=ADVANCED,
        ),
    ] = None
    buffer_px: Annotated[
        int | None,
        typer.Option(
            help="Unused gap between blocks in pixels; by default a quarter of a patch",
            show_default=False,
            rich_help_panel=ADVANCED,
        ),
    ] = None
    min_known_frac: Annotated[
        float,
        typer.Option(
            help="Below 1: also label patches of which only this share is known, with 128 on the rest",
            rich_help_panel=ADVANCED,
        ),
    ] = 1.0
    seed: Annotated[int, typer.Option(help="Another seed draws other blocks", rich_help_panel=ADVANCED)] = 0


@dataclass(frozen=True)
class KeptBandOptions(RegistrationOptions):
    """How a pair is read for patches, which may have more than three bands."""

    bands: Annotated[
        str | None,
        typer.Option(
            help="Numbers of the bands to keep, red, green and blue first, like 3,2,1,4; more than three keep their "
            "values, in GeoTIFF patches. By default red, green and blue as named or tagged, or 1,2,3",
            rich_help_panel=INPUT,
        ),
    ] = None


@prepare_app.callback(invoke_without_command=True)
@expand_option_groups
def prepare_command(
    context: typer.Context,
    before: Annotated[
        Path | None,
        typer.Option(
            help="Image of date 1: any raster that GDAL reads; needed, as are --after, --labels and -o",
            rich_help_panel=INPUT,
        ),
    ] = None,
    after: Annotated[
        Path | None, typer.Option(help="Image of date 2; it may be on another grid", rich_help_panel=INPUT)
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option(help="Polygons of what changed (GPKG, GeoJSON, ...), in any CRS", rich_help_panel=INPUT),
    ] = None,
    labelled_area: Annotated[
        Path | None,
        typer.Option(
            help="Polygons of the ground on which LABELS holds all change; by default everywhere",
            rich_help_panel=INPUT,
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder for the patches", rich_help_panel=OUTPUT)
    ] = None,
    layer: Annotated[
        str | None, typer.Option(help="Layer of LABELS, where it has several", rich_help_panel=INPUT)
    ] = None,
    area_layer: Annotated[
        str | None, typer.Option(help="Layer of LABELLED_AREA, where it has several", rich_help_panel=INPUT)
    ] = None,
    *,
    class_columns: Annotated[
        str | None,
        typer.Option(
            help="Columns of LABELS with the class before and after, such as from,to: writes label_A, label_B and "
            "classes.toml, too",
            rich_help_panel=INPUT,
        ),
    ] = None,
    class_names: Annotated[
        str | None,
        typer.Option(
            help="The classes in the order of their index; by default all of the two columns, sorted",
            rich_help_panel=INPUT,
        ),
    ] = None,
    reading: KeptBandOptions,
    split: SplitOptions,
) -> None:
    """Cut two rasters into training patches."""
    from semicdvl.data.prepare.run import require_paths

    if context.invoked_subcommand is not None:
        return
    files = require_paths(before=before, after=after, labels=labels, output=output)
    config = cd.PrepareSettings(
        **list_values(split),
        **reading.config_fields,
        layer=layer,
        area_layer=area_layer,
        class_columns=_split_columns(class_columns),
        class_names=None if class_names is None else split_words(class_names),
    )
    prepared = cd.prepare(
        files["before"],
        files["after"],
        files["output"],
        labels=files["labels"],
        labelled_area=labelled_area,
        config=config,
    )
    out.print(prepared.summary, soft_wrap=True)


def _split_columns(text: str | None) -> tuple[str, str] | None:
    """Return the names of two columns.

    Raises:
        ConfigError: they are not two.
    """
    if text is None:
        return None
    names = split_words(text)
    if len(names) != 2:
        raise cd.ConfigError(
            f"--class-columns {text}: give the columns of the class before and after, such as from,to."
        )
    return names[0], names[1]


@dataclass(frozen=True)
class PublishedOptions:
    """Where a published data set is, and where its patches go."""

    root: Annotated[Path, typer.Argument(help="Folder of the data set as it was published, or of its patches")]
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="Folder for the patches; by default ROOT-256 beside ROOT", rich_help_panel=OUTPUT
        ),
    ] = None
    lists: Annotated[
        Path | None,
        typer.Option(
            help="Folder of published lists (train.txt, 5%/labeled.txt, ...); by default those in ROOT",
            rich_help_panel=INPUT,
        ),
    ] = None
    verify: Annotated[
        bool, typer.Option("--verify", help="Write nothing: only check files and lists", rich_help_panel=OUTPUT)
    ] = False

    def run(self, name: Literal["levir_cd", "whu_cd"]) -> None:
        """Prepare the data set and print what was done."""
        found = cd.prepare_published(name, self.root, self.output, lists=self.lists, only_verify=self.verify)
        out.print(found.summary, soft_wrap=True)


@prepare_app.command(name="levir-cd")
@expand_option_groups
def prepare_levir_cd(published: PublishedOptions) -> None:
    """Cut LEVIR-CD into its 10,192 patches of 256 px, and check patches and split lists."""
    published.run("levir_cd")


@prepare_app.command(name="whu-cd")
@expand_option_groups
def prepare_whu_cd(published: PublishedOptions) -> None:
    """Cut WHU-CD into its 7,434 patches of 256 px, and check patches and split lists."""
    published.run("whu_cd")
