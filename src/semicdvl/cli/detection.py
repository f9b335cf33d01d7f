"""Commands on two rasters: demo, check, detect."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import semicdvl as cd
from semicdvl.cli.app import DETECTION, app, out
from semicdvl.cli.option_groups import expand_option_groups
from semicdvl.cli.options import (
    ADVANCED,
    INPUT,
    OUTPUT,
    RESIDUAL_OPTIONS,
    TARGET,
    BandOptions,
    CEGOptions,
    Executor,
    FeatureOptions,
    OptionalPairArguments,
    PairArguments,
    PromptOptions,
    ReadingOptions,
    TrustOptions,
    VLMOptions,
    split_words,
)
from semicdvl.cli.tables import build_failure_table
from semicdvl.raster.vector.formats import VECTOR_FORMATS

if TYPE_CHECKING:
    from semicdvl import Detector

FURTHER_FORMATS = ",".join(name for name in VECTOR_FORMATS if name != "gpkg")


class Deciding(StrEnum):
    """Which heads of a trained network decide what has changed."""

    change = "change"
    both = "both"


class Precision(StrEnum):
    """Number types that a trained network computes with."""

    fp32 = "fp32"
    bf16 = "bf16"


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
        grid=reading.grid,
        **reading.pixel_fields,
        **reading.band_numbers,
    )
    out.print(format_check_table(checked))
    out.print(format_check_summary(checked, output), soft_wrap=True)
    raise typer.Exit(checked.verdict)


@dataclass(frozen=True)
class DetectorOptions:
    """What detects the change."""

    model: Annotated[
        Path | None,
        typer.Option(
            help="A trained run, or a file of `semicdvl export`; without it no labels are needed: VLM and CEG",
            rich_help_panel=TARGET,
        ),
    ] = None
    method: Annotated[
        str | None,
        typer.Option(
            help="An unsupervised method, see `semicdvl list classic`; or package.module:builder",
            rich_help_panel=TARGET,
        ),
    ] = None
    method_set: Annotated[
        list[str] | None,
        typer.Option(
            "--method-set",
            help="An option of the method, key=value: threshold=3, backbone=vgg16",
            rich_help_panel=ADVANCED,
        ),
    ] = None
    calibrate: Annotated[
        bool,
        typer.Option(
            help="Without labels: give objects a calibrated probability of change; keep those from 0.5 on",
            rich_help_panel=TARGET,
        ),
    ] = False
    class_score: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            help="Without labels: the class of an object before or after is 'unsure' below this mean score; 0 always "
            "names one; by default what the VLM was measured to need",
            rich_help_panel=TARGET,
        ),
    ] = None
    precision: Annotated[
        Precision,
        typer.Option(
            help="Number type that a trained network computes with; bf16 is faster where the CPU has AMX",
            rich_help_panel=ADVANCED,
        ),
    ] = Precision.fp32
    decide: Annotated[
        Deciding,
        typer.Option(
            help="Which heads of a trained network decide what has changed: the change head, or both: where it says so "
            "and the classes of the dates differ",
            rich_help_panel=TARGET,
        ),
    ] = Deciding.change
    compiled: Annotated[
        bool,
        typer.Option(
            "--compile", help="Compile a trained network: slow to start, needs a C++ compiler", rich_help_panel=ADVANCED
        ),
    ] = False


@dataclass(frozen=True)
class MapOptions:
    """Tiles, post-processing and files of a result."""

    tile: Annotated[int, typer.Option(min=64, help="Side of a tile in pixels", rich_help_panel=ADVANCED)] = 1024
    overlap: Annotated[int, typer.Option(min=0, help="Overlap of the tiles in pixels", rich_help_panel=ADVANCED)] = 128
    min_area_m2: Annotated[
        float | None,
        typer.Option(
            min=0,
            help="Leave out objects with a smaller area in m2 (in pixels, where the size of a pixel is not known). By "
            "default 20 where buildings are looked for and 10 for other words; 0 keeps all",
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
        bool, typer.Option(help="Replace OUT even if something else wrote it", rich_help_panel=OUTPUT)
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
        return {
            "tile_px": self.tile,
            "overlap_px": self.overlap,
            "min_area_m2": self.min_area_m2,
            "simplify_m": self.simplify_m,
            "regularise": self.regularise,
            "polygons": split_words(self.polygons),
            "overwrite": self.overwrite,
            "force": self.force,
        }


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

    With an unsupervised method:  semicdvl detect before.tif after.tif -o out --method irmad

    Many pairs:  semicdvl detect --pairs pairs.csv -o out; each goes to out/NAME, out/index.html lists them, and what is
    finished is not done again. Paths are relative to the table's folder. The exit code is 2 where a pair failed.
    """
    _refuse_unused_options(context, chosen)
    _check_inputs(pair, pairs)
    config = cd.DetectionConfig(**reading.config_fields, **result.config_fields)
    build = _make_detector_builder(chosen, prompts, vlm, ceg, features, trust=trusted.modules)
    running: dict[str, Any] = {
        "detector": build,
        "config": config,
        "executor": engine.value,
        "workers": workers,
    }
    if pairs is None:
        saved = cd.detect_to_folder(pair.before or "", pair.after or "", output, **running)
        out.print(saved.format_text(), soft_wrap=True)
        return
    done = cd.detect_pairs(pairs, output, **running)
    out.print(done.summary, soft_wrap=True)
    if done.failed:
        out.print(build_failure_table({one.name: str(one.error) for one in done.failed}))
        raise typer.Exit(2)


def _make_detector_builder(
    chosen: DetectorOptions,
    prompts: PromptOptions,
    vlm: VLMOptions,
    ceg: CEGOptions,
    features: FeatureOptions,
    *,
    trust: tuple[str, ...],
) -> Callable[[], Detector]:
    """Return what builds the detector that the options name, in this process or in a worker."""
    if chosen.model is not None:
        return partial(
            cd.load_detector,
            chosen.model,
            device=vlm.device or "auto",
            precision=chosen.precision.value,
            compiled=chosen.compiled,
            trust=trust,
            decide=chosen.decide.value,
        )
    if chosen.method is not None:
        from semicdvl.detection.detectors.unsupervised import parse_method_options

        return partial(cd.create_detector, chosen.method, **parse_method_options(chosen.method_set))
    return partial(
        cd.create_vlm_detector,
        vlm.make_builder(),
        prompts=prompts.resolve(vlm.vlm),
        ceg=ceg.settings | features.settings,
        features=features.features,
        calibrate=chosen.calibrate,
        class_score=chosen.class_score,
    )


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


VLM_OPTIONS = (
    *("find", "background", "prompts", "vlm", "vlm_from", "dtype", "vlm_set", "level", "gamma", "delta"),
    *("instance_score", "shift_px", "replaced_iou", "replaced_class", "min_cosine", "features", "calibrate"),
    *("class_score", *RESIDUAL_OPTIONS),
)
"""Options of a VLM and of change event generation."""
TRAINED_NETWORK_OPTIONS = ("precision", "compiled", "trust", "decide")
"""Options of a trained network."""


def _refuse_unused_options(context: typer.Context, chosen: DetectorOptions) -> None:
    """Refuse options that were given and that the chosen detector does not use, and two detectors at once.

    Raises:
        ConfigError: there is such an option; the text names it.
    """
    model, method = chosen.model, chosen.method
    if model is not None and method is not None:
        raise cd.ConfigError(f"--model {model} and --method {method} exclude each other. Give one of them.")
    if chosen.method_set and method is None:
        raise cd.ConfigError(f"--method-set {chosen.method_set[0]} needs --method, see `semicdvl list classic`.")
    given = {}
    for option in context.command.params:
        source = context.get_parameter_source(str(option.name))
        if source is not None and source.name in ("COMMANDLINE", "ENVIRONMENT"):
            given[str(option.name)] = " / ".join(option.opts)
    of_networks, of_vlms = (
        next((given[name] for name in names if name in given), None) for names in (TRAINED_NETWORK_OPTIONS, VLM_OPTIONS)
    )
    if of_networks is not None and model is None:
        raise cd.ConfigError(f"{of_networks} is for trained networks. Give --model, or leave out {of_networks}.")
    if model is None and method is None:
        return
    used = f"--model {model}" if model is not None else f"--method {method}"
    if of_vlms is not None:
        raise cd.ConfigError(
            f"{of_vlms} is for detection with a vision-language model, which {used} does not use. "
            "Leave out one of the two."
        )
    if method is not None and "device" in given:
        raise cd.ConfigError(
            f"--device has no effect on {used}. Give --method-set device=cuda for methods with a network."
        )
