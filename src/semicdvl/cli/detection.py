"""Commands on two rasters: demo, check, detect."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

import semicdvl as cd
from semicdvl.cli.app import ADVANCED, DETECTION, INPUT, OUTPUT, app, out, remark_on_run
from semicdvl.cli.options import (
    BandOptions,
    CEGOptions,
    DetectorOptions,
    Executor,
    FeatureOptions,
    OptionalPairArguments,
    PairArguments,
    PromptOptions,
    ReadingOptions,
    TrustOptions,
    VLMOptions,
    expand_option_groups,
    list_values,
    split_words,
)
from semicdvl.cli.tables import build_failure_table
from semicdvl.raster.vector.formats import VECTOR_FORMATS

FURTHER_FORMATS = ",".join(name for name in VECTOR_FORMATS if name != "gpkg")


@app.command(name="demo", rich_help_panel=DETECTION)
def demo_command(
    output: Annotated[
        Path,
        typer.Option("--output", "-o", help="Folder for the city, the runs and the report", rich_help_panel=OUTPUT),
    ] = Path("demo"),
    seed: Annotated[int, typer.Option(min=0, help="Another seed is another city", rich_help_panel=ADVANCED)] = 0,
) -> None:
    """Run everything on a synthetic city pair, offline, in minutes: detect, pseudo, train, evaluate, one report."""
    cd.run_demo(output, seed=seed, console=out)


@app.command(name="check", rich_help_panel=DETECTION)
@expand_option_groups
def check_command(
    pair: PairArguments,
    reading: BandOptions,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="Folder for check.json and the page check.html; by default nothing is written",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
) -> None:
    """Check whether two images fit each other: grid, CRS, overlap, no-data, radiometry and shift, and what to do.

    An image may be one file, a folder of tiles, several files with commas in between, or an address.

    Exit code: 0 fine, 1 usable with warnings, 2 not usable.
    """
    from semicdvl.detection.pair_check.results import format_check_summary, format_check_table

    checked = cd.check_pair(
        pair.before,
        pair.after,
        out=output,
        **reading.config_fields,
    )
    out.print(format_check_table(checked))
    out.print(format_check_summary(checked, output), soft_wrap=True)
    raise typer.Exit(checked.verdict)


@dataclass(frozen=True)
class MapOptions:
    """Tiles, post-processing and files of a result."""

    tile_px: Annotated[
        int, typer.Option("--tile", min=64, help="Side of a tile in pixels", rich_help_panel=ADVANCED)
    ] = 1024
    overlap_px: Annotated[
        int, typer.Option("--overlap", min=0, help="Overlap of the tiles in pixels", rich_help_panel=ADVANCED)
    ] = 128
    min_area_m2: Annotated[
        float | None,
        typer.Option(
            min=0,
            help="Leave out objects with a smaller area in m2 (in pixels, where the size of a pixel is not known). By "
            "default 12; at another --level 20 where buildings are looked for and 10 for other words; 0 keeps all",
            rich_help_panel=OUTPUT,
        ),
    ] = None
    simplify_m: Annotated[
        float,
        typer.Option(
            min=0, help="Simplify the polygons with this tolerance (pixels, without a CRS)", rich_help_panel=OUTPUT
        ),
    ] = 0.0
    regularise: Annotated[
        bool,
        typer.Option(
            help="Regularise the polygons: right angles where they fit, for buildings", rich_help_panel=OUTPUT
        ),
    ] = False
    polygons: Annotated[
        str | None,
        typer.Option(
            help=f"Further formats of the polygons beside GeoPackage: {FURTHER_FORMATS}", rich_help_panel=OUTPUT
        ),
    ] = None
    overwrite: Annotated[
        bool,
        typer.Option(
            help="Use OUT even if it holds other files, which stay beside the results", rich_help_panel=OUTPUT
        ),
    ] = False
    force: Annotated[
        bool,
        typer.Option(
            help="Call the result reliable even beyond what the detector was measured on; the result is the same",
            rich_help_panel=OUTPUT,
        ),
    ] = False

    @property
    def config_fields(self) -> dict[str, Any]:
        """The options as fields of `DetectionConfig`."""
        return list_values(self) | {"polygons": split_words(self.polygons)}


@app.command(name="detect", rich_help_panel=DETECTION)
@expand_option_groups
def detect_command(
    context: typer.Context,
    pair: OptionalPairArguments,
    reading: ReadingOptions,
    chosen: DetectorOptions,
    prompts: PromptOptions,
    vlm: VLMOptions,
    ceg: CEGOptions,
    features: FeatureOptions,
    trusted: TrustOptions,
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            help="Folder for the map, the polygons and the report; with --pairs: for all results",
            rich_help_panel=OUTPUT,
        ),
    ],
    result: MapOptions,
    pairs: Annotated[
        Path | None,
        typer.Option(
            help="In place of BEFORE AFTER: a table (CSV, parquet) with the columns before, after and maybe name",
            rich_help_panel=INPUT,
        ),
    ] = None,
    engine: Annotated[
        Executor,
        typer.Option(
            help="Where tiles are computed: this process, or a Ray cluster; the result is the same",
            rich_help_panel=ADVANCED,
        ),
    ] = Executor.local,
    workers: Annotated[
        int,
        typer.Option(
            min=1, help="With --engine ray: processes; each loads the detector once", rich_help_panel=ADVANCED
        ),
    ] = 1,
) -> None:
    """Detect change between two rasters: write a change map (GeoTIFF), change polygons (GPKG) and a report (HTML).

    An image may be one file, a folder of tiles, several files with commas in between (later ones cover earlier ones),
    or an address: https://..., s3://..., /vsizip/tiles.zip/a.tif

    Without labels:  semicdvl detect before.tif after.tif -o out --find house --background road,grass,tree,water

    With a trained network:  semicdvl detect before.tif after.tif -o out --model runs/my-run

    With both, for a run of `adapt` on its own pair:  semicdvl detect before.tif after.tif -o out --model runs/here
    --combine both

    With an unsupervised method:  semicdvl detect before.tif after.tif -o out --method irmad

    Many pairs:  semicdvl detect --pairs pairs.csv -o out; each goes to out/NAME, out/index.html lists them, and what is
    finished is not done again. Paths are relative to the table's folder. The exit code is 2 where a pair failed.
    """
    chosen.refuse_unused(context)
    _check_inputs(pair, pairs)
    config = cd.DetectionConfig(**reading.config_fields, **result.config_fields)
    build = chosen.make_builder(prompts, vlm, ceg, features, trust=trusted.trust or ())
    running: dict[str, Any] = {
        "detector": build,
        "config": config,
        "executor": engine.value,
        "workers": workers,
    }
    if pairs is None:
        saved = cd.detect_to_folder(pair.before or "", pair.after or "", output, **running)
        out.print(saved.format_text(), soft_wrap=True)
        if chosen.model is not None:
            remark_on_run(Path(chosen.model))
        return
    done = cd.detect_pairs(pairs, output, **running)
    out.print(done.summary, soft_wrap=True)
    if done.failed:
        out.print(build_failure_table({one.name: str(one.error) for one in done.failed}))
        raise typer.Exit(2)


def _check_inputs(pair: OptionalPairArguments, pairs: Path | None) -> None:
    """Refuse a table together with images, and one image alone.

    Raises:
        ConfigError: either was given.
    """
    given = [image for image in (pair.before, pair.after) if image is not None]
    if pairs is not None and given:
        raise cd.ConfigError(f"--pairs {pairs} names the images already. Leave out {' '.join(given)}, or --pairs.")
    if pairs is None and len(given) < 2:
        found = f"Only {given[0]}" if given else "No image"
        raise cd.ConfigError(
            f"{found} was given. Give BEFORE and AFTER, or --pairs TABLE with columns before and after."
        )
