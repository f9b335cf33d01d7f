"""The command line: one function per command; the work is done in the rooms."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from semicdvl import __version__

if TYPE_CHECKING:
    from semicdvl.data.pairs import DataSet
    from semicdvl.pseudo.generate import CEGSettings
    from semicdvl.pseudo.prompts import Prompts
    from semicdvl.types import VLM

app = typer.Typer(
    help="Find what changed between two images of one place, with 0 to 100 % of labels.",
    epilog="No data at hand? `semicdvl demo` runs everything on a made-up city, offline.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
out = Console()

Find = Annotated[str | None, typer.Option(help="What to look for, in words: house,building")]
Background = Annotated[str | None, typer.Option(help="What else there is, in words: road,grass,tree,water")]
PromptSet = Annotated[str, typer.Option("--prompts", help="A named set of both: buildings, roads, water, forest, ...")]
VLMName = Annotated[str, typer.Option("--vlm", help="See `semicdvl list vlms`; or package.module:builder")]
VLMFrom = Annotated[Path | None, typer.Option(help="Weights of the VLM, or the folder of `precomputed` answers")]
Gsd = Annotated[float | None, typer.Option("--gsd", min=0.01, help="Metres per pixel, where the files don't say")]
Gamma = Annotated[
    float | None, typer.Option(min=0, max=1, help="A pixel is reliable from this score on; else the VLM's own choice")
]
Delta = Annotated[float, typer.Option(min=0, max=1, help="Greatest sum of IoUs of a changed object")]
DataSetName = Annotated[str, typer.Option("--dataset", help="Reader of DATA, see `semicdvl list datasets`")]


class Level(StrEnum):
    """Kinds of change labels."""

    mixed = "mixed"
    instance = "instance"
    pixel = "pixel"


class Kind(StrEnum):
    """What can be listed."""

    methods = "methods"
    models = "models"
    vlms = "vlms"
    datasets = "datasets"
    classic = "classic"
    prompts = "prompts"


def _version(wanted: bool) -> None:
    """Print the version and stop."""
    if wanted:
        out.print(f"semicdvl {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version")
    ] = False,
) -> None:
    """Options of every command."""


@app.command()
def demo(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the city, the runs and the report")] = Path(
        "demo"
    ),
    seed: Annotated[int, typer.Option(min=0, help="Another seed is another city")] = 0,
) -> None:
    """Everything on a made-up city pair, offline, in minutes: detect, pseudo, train, evaluate, one report."""
    from semicdvl.demo import run_demo

    run_demo(output, seed=seed, console=out)


@app.command()
def detect(
    before: Annotated[Path, typer.Argument(help="Image of date 1: a GeoTIFF or any raster that GDAL reads")],
    after: Annotated[Path, typer.Argument(help="Image of date 2; on another grid it is resampled onto that of date 1")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the map, the polygons and the report")],
    model: Annotated[Path | None, typer.Option(help="A trained run; without it: no labels, VLM + CEG")] = None,
    find: Find = None,
    background: Background = None,
    prompts: PromptSet = "buildings",
    vlm: VLMName = "aerial",
    vlm_from: VLMFrom = None,
    level: Annotated[Level, typer.Option(help="Kind of change event without a model")] = Level.instance,
    gamma: Gamma = None,
    delta: Delta = 0.0,
    gsd: Gsd = None,
    tile: Annotated[int, typer.Option(min=64, help="Side of a tile in pixels")] = 1024,
    overlap: Annotated[int, typer.Option(min=0, help="Overlap of tiles in pixels")] = 128,
    min_area_m2: Annotated[float, typer.Option(min=0, help="Leave out smaller objects (pixels, without a CRS)")] = 0.0,
    overwrite: Annotated[bool, typer.Option(help="Replace OUT even if something else wrote it")] = False,
) -> None:
    """Two rasters in; a change map (GeoTIFF), change polygons (GPKG) and a report (HTML) out.

    Without labels:  semicdvl detect before.tif after.tif -o out --find house --background road,grass,tree,water

    With a trained network:  semicdvl detect before.tif after.tif -o out --model runs/my-run
    """
    from semicdvl.predict import run as predict
    from semicdvl.types import Detector

    detector: Detector
    if model is not None:
        detector = predict.network_detector(model)
    else:
        words, asked = _prompts(find, background, prompts), _vlm(vlm, vlm_from)
        ceg = _ceg(asked, level=level.value, delta=delta, gamma=gamma)
        detector = predict.vlm_detector(asked, prompts=words, settings=ceg)
    settings = predict.DetectSettings(
        tile_px=tile, overlap_px=overlap, min_area_m2=min_area_m2, gsd_m=gsd, overwrite=overwrite
    )
    result = predict.detect(before, after, output, detector=detector, settings=settings)
    out.print(result.summary, highlight=False, soft_wrap=True)


@app.command()
def pseudo(
    data: Annotated[Path, typer.Argument(help="Folder of a data set (A/ B/, with or without label/)")],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="The pseudo-label store; an existing one is gone on with")
    ],
    dataset: DataSetName = "folder",
    tile: Annotated[int | None, typer.Option(min=32, help="Cut images into tiles of this side, as in training")] = None,
    find: Find = None,
    background: Background = None,
    prompts: PromptSet = "buildings",
    vlm: VLMName = "aerial",
    vlm_from: VLMFrom = None,
    level: Annotated[Level, typer.Option(help="Kind of change label")] = Level.mixed,
    gamma: Gamma = None,
    gamma_segmentation: Gamma = None,
    delta: Delta = 0.0,
    gsd: Gsd = None,
    verify: Annotated[bool, typer.Option(help="Only read the store again and say what is damaged")] = False,
) -> None:
    """Ask a VLM about every image and keep the answers, and the change labels made from them, in a store.

    It can be interrupted and started again; what is there is not done twice. With other thresholds the labels are made
    anew in seconds, from the answers that are kept.
    """
    from semicdvl.pseudo.coverage import fill, verified

    if verify:
        out.print(verified(output))
        return
    asked = _vlm(vlm, vlm_from)
    settings = _ceg(asked, level=level.value, delta=delta, gamma=gamma, gamma_segmentation=gamma_segmentation)
    words, pairs = _prompts(find, background, prompts), _dataset(dataset, data, tile).pairs
    filled = fill(pairs, vlm=asked, prompts=words, settings=settings, root=output, gsd_m=gsd)
    out.print(filled.summary, highlight=False, soft_wrap=True)
    out.print(filled.table())


@app.command()
def train(
    recipe: Annotated[Path, typer.Argument(help="A TOML file; the shipped ones are in recipes/")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Run directory; else runs/NAME, with the recipe's name")
    ] = None,
    override: Annotated[
        list[str] | None, typer.Option("--set", help="key=value, such as steps=2000 or data.root=DIR")
    ] = None,
) -> None:
    """Train a network with 0-100 % of labels. Started again with the same recipe, it goes on where it stopped."""
    from semicdvl.config import load_recipe
    from semicdvl.train.run import train as train_recipe

    checked = load_recipe(recipe, overrides=tuple(override or ()))
    run = output or Path("runs") / checked.name
    result = train_recipe(checked, run)
    out.print(_scores_table(f"{run}", {"validation (selected)": result.val, "test": result.test}))
    out.print(f"weights and record: {run}", highlight=False)


class Subset(StrEnum):
    """What to evaluate on."""

    val = "val"
    test = "test"
    all = "all"


@app.command()
def evaluate(
    run: Annotated[Path, typer.Argument(help="A folder that `semicdvl train` wrote")],
    data: Annotated[Path, typer.Argument(help="Folder of a data set with labels")],
    split: Annotated[
        Subset, typer.Option(help="Which pairs; `val` and `test` of the run's own split where it is that data")
    ] = Subset.test,
    dataset: DataSetName = "folder",
    tile: Annotated[int | None, typer.Option(min=32, help="Cut images into tiles of this side")] = None,
) -> None:
    """Measure a trained run: IoU, F1, precision, recall and kappa of the changed class, and scores by object."""
    from semicdvl.train.run import evaluate_run

    scores = evaluate_run(run, _dataset(dataset, data, tile), subset=split.value)
    out.print(_scores_table(f"{run} on {split.value} of {data}", {split.value: scores}))


@app.command(name="list")
def list_parts(
    kind: Annotated[Kind, typer.Argument(help="What to list")],
    params: Annotated[bool, typer.Option(help="Also count the parameters of each network")] = False,
) -> None:
    """List what can be named in recipes and on the command line."""
    from semicdvl.listing import counted, described

    columns = ("name", "what it is", *(("parameters in training", "at inference") if params else ()))
    table = Table(*columns, box=None, header_style="bold")
    for name, text in described(kind.value):
        table.add_row(name, text, *(counted(name) if params and kind is Kind.models else ()))
    out.print(table)


# ------------------------------------------------------------------------------------------------ options -> parts
def _prompts(find: str | None, background: str | None, name: str) -> Prompts:
    """Return the prompts that the options name."""
    from semicdvl.pseudo.prompts import prompts_of

    return prompts_of(find=find, background=background, prompt_set=name)


def _vlm(name: str, source: Path | None) -> VLM:
    """Build a VLM by name."""
    from semicdvl.checkpoint import build
    from semicdvl.vlms import VLMS

    vlm: VLM = build("VLM", name, VLMS, {} if source is None else {"weights": source})
    return vlm


def _ceg(vlm: VLM, **settings: Any) -> CEGSettings:
    """Return CEG settings, the options that were not given at their defaults."""
    from semicdvl.pseudo.generate import CEGSettings

    given = {name: value for name, value in settings.items() if value is not None}
    return CEGSettings(**{"gamma": vlm.gamma, "gamma_segmentation": vlm.gamma, **given})


def _dataset(name: str, root: Path, tile_px: int | None) -> DataSet:
    """Read a data set."""
    from semicdvl.checkpoint import build
    from semicdvl.data import DATASETS

    options: dict[str, Any] = {"root": root} if tile_px is None else {"root": root, "crop_px": tile_px}
    dataset: DataSet = build("data set", name, DATASETS, options)
    return dataset


def _scores_table(title: str, columns: dict[str, dict[str, float]]) -> Table:
    """Return scores as a table, one column per set of pairs."""
    table = Table("", *columns, title=title, title_justify="left", box=None, header_style="bold")
    for name in dict.fromkeys(name for scores in columns.values() for name in scores):
        table.add_row(name, *(f"{scores[name]:.4f}" if name in scores else "" for scores in columns.values()))
    return table
