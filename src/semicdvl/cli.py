"""The command line: one function per command; the work is done in the rooms."""

from __future__ import annotations

import os
from enum import StrEnum
from functools import partial
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
out = Console(quiet=os.environ.get("RANK", "0") != "0")  # of several processes the first one speaks

Find = Annotated[str | None, typer.Option(help="What to look for, in words: house,building")]
Background = Annotated[str | None, typer.Option(help="What else there is, in words: road,grass,tree,water")]
PromptSet = Annotated[str, typer.Option("--prompts", help="A named set of both: buildings, roads, water, forest, ...")]
VLMName = Annotated[str, typer.Option("--vlm", help="See `semicdvl list vlms`; or package.module:builder")]
VLMFrom = Annotated[
    Path | None,
    typer.Option(
        "--weights", "--vlm-from", help="Weights of the VLM: folder, file or hub name; or the folder of kept answers"
    ),
]
Device = Annotated[str | None, typer.Option(help="Where the VLM runs: auto, cpu, cuda, cuda:1; else its own choice")]
Dtype = Annotated[str | None, typer.Option(help="Numbers that it computes with: auto, float32, bfloat16, float16")]
VLMSet = Annotated[
    list[str] | None, typer.Option("--vlm-set", help="Another option of the VLM, key=value: threshold=0.4, sam=DIR")
]
Gsd = Annotated[float | None, typer.Option("--gsd", min=0.01, help="Metres per pixel, where the files don't say")]
Gamma = Annotated[
    float | None, typer.Option(min=0, max=1, help="A pixel is reliable from this score on; else the VLM's own choice")
]
Delta = Annotated[float, typer.Option(min=0, max=1, help="Greatest sum of IoUs of a changed object")]
ShiftPx = Annotated[
    int, typer.Option(min=0, max=32, help="Objects this far apart count as one: dates that don't lie exactly over")
]
ReplacedIoU = Annotated[
    float | None, typer.Option(min=0, max=1, help="Changed, too: an object whose best partner has a lower IoU")
]
ReplacedClass = Annotated[
    bool, typer.Option(help="Changed, too: an object whose partner answers another word (not with synonyms)")
]
DataSetName = Annotated[str, typer.Option("--dataset", help="Reader of DATA, see `semicdvl list datasets`")]


class Level(StrEnum):
    """Kinds of change labels."""

    mixed = "mixed"
    instance = "instance"
    pixel = "pixel"


class Engine(StrEnum):
    """What runs the processes that fill a store."""

    local = "local"
    ray = "ray"


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
def check(
    before: Annotated[Path, typer.Argument(help="Image of date 1: a GeoTIFF or any raster that GDAL reads")],
    after: Annotated[Path, typer.Argument(help="Image of date 2, on any grid; plain PNG or JPEG pairs work, too")],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder for check.json and the picture sheet check.html")
    ] = Path("check"),
) -> None:
    """Do these two images fit? Grid, CRS, overlap, no data, light and the shift between them, and what to do about it.

    Exit code: 0 fine, 1 usable with warnings, 2 not usable.
    """
    from semicdvl.predict.check import check as check_pair
    from semicdvl.predict.check import summary, table

    checked = check_pair(before, after, output)
    out.print(table(checked))
    out.print(summary(checked, output), highlight=False, soft_wrap=True, markup=False)
    raise typer.Exit(checked.verdict)


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
    device: Device = None,
    dtype: Dtype = None,
    vlm_set: VLMSet = None,
    level: Annotated[Level, typer.Option(help="Kind of change event without a model")] = Level.instance,
    gamma: Gamma = None,
    delta: Delta = 0.0,
    shift_px: ShiftPx = 0,
    replaced_iou: ReplacedIoU = None,
    replaced_class: ReplacedClass = False,
    gsd: Gsd = None,
    tile: Annotated[int, typer.Option(min=64, help="Side of a tile in pixels")] = 1024,
    overlap: Annotated[int, typer.Option(min=0, help="Overlap of tiles in pixels")] = 128,
    min_area_m2: Annotated[float, typer.Option(min=0, help="Leave out smaller objects (pixels, without a CRS)")] = 0.0,
    align: Annotated[bool, typer.Option(help="Move the after image by the shift that `check` measures")] = False,
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
        words, asked = _prompts(find, background, prompts), _vlm(vlm, vlm_from, device, dtype, vlm_set)
        beyond = {"shift_px": shift_px, "replaced_iou": replaced_iou, "replaced_class": replaced_class}
        ceg = _ceg(asked, level=level.value, delta=delta, gamma=gamma, **beyond)
        detector = predict.vlm_detector(asked, prompts=words, settings=ceg)
    settings = predict.DetectSettings(
        tile_px=tile, overlap_px=overlap, min_area_m2=min_area_m2, gsd_m=gsd, align=align, overwrite=overwrite
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
    device: Device = None,
    dtype: Dtype = None,
    vlm_set: VLMSet = None,
    level: Annotated[Level, typer.Option(help="Kind of change label")] = Level.mixed,
    gamma: Gamma = None,
    gamma_segmentation: Gamma = None,
    delta: Delta = 0.0,
    shift_px: ShiftPx = 0,
    replaced_iou: ReplacedIoU = None,
    replaced_class: ReplacedClass = False,
    min_cosine: Annotated[
        float | None, typer.Option(min=-1, max=1, help="Changed, too: an object whose looks agree less; see --features")
    ] = None,
    features: Annotated[
        str | None, typer.Option(help="Backbone that says what objects look like: efficientnet_lite0 or one of timm")
    ] = None,
    gsd: Gsd = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes; each loads the VLM once")] = 1,
    engine: Annotated[Engine, typer.Option(help="Where they run: this machine, or a Ray cluster")] = Engine.local,
    report: Annotated[bool, typer.Option(help="Also write report.html into the store: pictures and numbers")] = False,
    verify: Annotated[bool, typer.Option(help="Only read the store again and say what is damaged")] = False,
) -> None:
    """Ask a VLM about every image and keep the answers, and the change labels made from them, in a store.

    It can be interrupted and started again; what is there is not done twice. With other thresholds the labels are made
    anew in seconds, from the answers that are kept.
    """
    from semicdvl.predict.store_page import write_report
    from semicdvl.pseudo.coverage import fill, verified
    from semicdvl.pseudo.features import backbone_features
    from semicdvl.pseudo.workers import Crew

    if verify:
        out.print(verified(output))
        return
    build_vlm = partial(_vlm, vlm, vlm_from, device, dtype, vlm_set)
    build_features = None if features is None else partial(backbone_features, features)
    asked, source = build_vlm(), None if build_features is None else build_features()
    beyond = {"shift_px": shift_px, "replaced_iou": replaced_iou, "replaced_class": replaced_class}
    settings = _ceg(
        asked,
        level=level.value,
        delta=delta,
        gamma=gamma,
        gamma_segmentation=gamma_segmentation,
        min_cosine=min_cosine,
        **beyond,
    )
    words, pairs = _prompts(find, background, prompts), _dataset(dataset, data, tile).pairs
    crew = Crew(build_vlm, build_features, workers=workers, engine=engine.value)
    filled = fill(
        pairs, vlm=asked, prompts=words, settings=settings, root=output, gsd_m=gsd, features=source, crew=crew
    )
    out.print(filled.summary, highlight=False, soft_wrap=True)
    out.print(filled.table())
    if report:
        out.print(f"report: {write_report(output, pairs, settings=settings)}", highlight=False)


prepare_app = typer.Typer(
    help="""Make training patches: from two rasters and polygons of change, or from a published data set.

    semicdvl prepare --before B.tif --after A.tif --labels changes.gpkg --labelled-area aoi.gpkg -o DATA

    semicdvl prepare levir-cd ROOT -o DATA
    """
)
app.add_typer(prepare_app, name="prepare")


@prepare_app.callback(invoke_without_command=True)
def prepare(
    context: typer.Context,
    before: Annotated[Path | None, typer.Option(help="Image of date 1: any raster that GDAL reads")] = None,
    after: Annotated[Path | None, typer.Option(help="Image of date 2; it may lie on another grid")] = None,
    labels: Annotated[Path | None, typer.Option(help="Polygons of what changed (GPKG, GeoJSON, ...), any CRS")] = None,
    labelled_area: Annotated[
        Path | None, typer.Option(help="Polygons of the ground on which all change is in LABELS; else it is everywhere")
    ] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Folder for the patches")] = None,
    layer: Annotated[str | None, typer.Option(help="Layer of LABELS, where it has several")] = None,
    area_layer: Annotated[str | None, typer.Option(help="Layer of LABELLED_AREA, where it has several")] = None,
    size_px: Annotated[int, typer.Option(help="Side of a patch")] = 256,
    val_frac: Annotated[float, typer.Option(help="Share of the labelled patches for validation; 0: none")] = 0.15,
    test_frac: Annotated[float, typer.Option(help="Share of the labelled patches for test; 0: none")] = 0.25,
    block_m: Annotated[
        float | None, typer.Option(help="Side of the blocks of ground that go to one side; else by the ground at hand")
    ] = None,
    buffer_px: Annotated[
        int | None, typer.Option(help="Unused gap between blocks; else a quarter of a patch", show_default=False)
    ] = None,
    min_known_frac: Annotated[
        float, typer.Option(help="Below 1: also label patches known on this share only, with 128 on the rest")
    ] = 1.0,
    seed: Annotated[int, typer.Option(help="Another seed draws other blocks")] = 0,
) -> None:
    """Cut two rasters into training patches."""
    from semicdvl.data.prepare import PrepareSettings, asked_for
    from semicdvl.data.prepare import prepare as cut

    if context.invoked_subcommand is not None:
        return
    files = asked_for(before=before, after=after, labels=labels, output=output)
    settings = PrepareSettings(
        size_px=size_px,
        val_frac=val_frac,
        test_frac=test_frac,
        block_m=block_m,
        buffer_px=buffer_px,
        seed=seed,
        min_known_frac=min_known_frac,
        layer=layer,
        area_layer=area_layer,
    )
    prepared = cut(
        files["before"],
        files["after"],
        files["output"],
        labels=files["labels"],
        labelled_area=labelled_area,
        settings=settings,
    )
    out.print(prepared.summary, highlight=False, markup=False, soft_wrap=True)


Root = Annotated[Path, typer.Argument(help="Folder of the data set as it was published, or of its patches")]
Patches = Annotated[
    Path | None, typer.Option("--output", "-o", help="Folder for the patches; else ROOT-256 beside ROOT")
]
Lists = Annotated[
    Path | None, typer.Option(help="Folder of published lists (train.txt, 5%/labeled.txt, ...); else those in ROOT")
]
OnlyVerify = Annotated[bool, typer.Option("--verify", help="Write nothing: only check files and lists")]


@prepare_app.command(name="levir-cd")
def prepare_levir_cd(root: Root, output: Patches = None, lists: Lists = None, verify: OnlyVerify = False) -> None:
    """Cut LEVIR-CD into its 10,192 patches of 256 px, and check patches and split lists."""
    from semicdvl.data.published import prepare_published

    found = prepare_published("levir_cd", root, output, lists=lists, only_verify=verify)
    out.print(found.summary, highlight=False, markup=False, soft_wrap=True)


@prepare_app.command(name="whu-cd")
def prepare_whu_cd(root: Root, output: Patches = None, lists: Lists = None, verify: OnlyVerify = False) -> None:
    """Cut WHU-CD into its 7,434 patches of 256 px, and check patches and split lists."""
    from semicdvl.data.published import prepare_published

    found = prepare_published("whu_cd", root, output, lists=lists, only_verify=verify)
    out.print(found.summary, highlight=False, markup=False, soft_wrap=True)


class Select(StrEnum):
    """Pairs that choose the best step."""

    val = "val"
    test = "test"


@app.command()
def train(
    recipe: Annotated[Path, typer.Argument(help="A TOML file; the shipped ones are in recipes/")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Run directory; else runs/NAME, with the recipe's name")
    ] = None,
    override: Annotated[
        list[str] | None, typer.Option("--set", help="key=value, such as steps=2000 or data.root=DIR")
    ] = None,
    select: Annotated[
        Select | None, typer.Option(help="Pairs that choose the best step; `test` is for parity with the paper")
    ] = None,
) -> None:
    """Train a network with 0-100 % of labels. Started again with the same recipe, it goes on where it stopped.

    On several GPUs:  accelerate launch -m semicdvl train RECIPE.toml -o RUN
    """
    from semicdvl.config import load_recipe
    from semicdvl.train.run import train as train_recipe

    chosen = () if select is None else (f"train.select={select.value}",)
    checked = load_recipe(recipe, overrides=(*(override or ()), *chosen))
    run = output or Path("runs") / checked.name
    result = train_recipe(checked, run)
    out.print(_scores_table(f"{run}", result.columns()))
    out.print(f"weights and record: {run}", highlight=False)


@app.command(name="import-official")
def import_official(
    checkpoint: Annotated[Path, typer.Argument(help="A .pth file of the public SemiCD-VL code, such as its best.pth")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Run directory to write")],
) -> None:
    """Turn a checkpoint of the public SemiCD-VL code into a run for `detect --model`, `evaluate` and Python."""
    from semicdvl.official import import_official as import_checkpoint

    imported = import_checkpoint(checkpoint, output)
    out.print(f"{imported.tensors} tensors, backbone {imported.model['backbone']}, in {output}", highlight=False)
    out.print("Its best epoch was chosen on the test pairs, so its scores on them count as test-selected.")


class Subset(StrEnum):
    """What to evaluate on."""

    val = "val"
    test = "test"
    all = "all"


@app.command()
def evaluate(
    run: Annotated[Path, typer.Argument(help="A folder that `semicdvl train` wrote; with --truth one of `detect`")],
    data: Annotated[Path | None, typer.Argument(help="Folder of a data set with labels, for a trained run")] = None,
    split: Annotated[
        Subset, typer.Option(help="Which pairs; `val` and `test` of the run's own split where it is that data")
    ] = Subset.test,
    dataset: DataSetName = "folder",
    tile: Annotated[int | None, typer.Option(min=32, help="Cut images into tiles of this side")] = None,
    truth: Annotated[
        Path | None, typer.Option(help="Compare a result of `detect` with this: polygons, a mask raster, or a sample")
    ] = None,
    layer: Annotated[str | None, typer.Option(help="Layer of the truth's file, where it has several")] = None,
    area: Annotated[Path | None, typer.Option(help="Polygons of the ground on which the truth is known")] = None,
    area_layer: Annotated[str | None, typer.Option(help="Layer of the area's file, where it has several")] = None,
    sample: Annotated[
        int | None,
        typer.Option(min=0, help="Places for the area-adjusted accuracy; without --truth: only draw them"),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Another seed draws other places")] = 0,
) -> None:
    """Measure a trained run on labelled pairs, or a result of `detect` against polygons or a mask.

    A run:     semicdvl evaluate RUN DATA

    A result:  semicdvl evaluate OUT --truth changes.gpkg --area aoi.gpkg

    No truth yet:  semicdvl evaluate OUT --sample 300, fill the column `truth` of OUT/sample.gpkg in a GIS, and then
    semicdvl evaluate OUT --truth OUT/sample.gpkg
    """
    if data is None or truth is not None:
        options = {"layer": layer, "area": area, "area_layer": area_layer, "seed": seed}
        _evaluate_result(run, data, truth, sample=sample, **options)
        return
    from semicdvl.train.record import column_of
    from semicdvl.train.run import evaluate_run

    scores = evaluate_run(run, _dataset(dataset, data, tile), subset=split.value)
    out.print(_scores_table(f"{run} on {split.value} of {data}", {column_of(run, split.value): scores}))


def _evaluate_result(
    folder: Path, data: Path | None, truth: Path | None, *, sample: int | None, **options: Any
) -> None:
    """Compare a result of `detect` with the truth, or draw places to be checked."""
    from semicdvl.errors import ConfigError
    from semicdvl.predict.evaluation import SAMPLE, draw_sample, evaluate_result

    if data is not None:
        raise ConfigError(f"evaluate: --truth is for a result of `detect`, {data} for a trained run. Leave one out.")
    if truth is not None:
        done = evaluate_result(folder, truth, sample=SAMPLE if sample is None else sample, **options)
        table = Table("", f"{truth.name}", title=f"{folder}", title_justify="left", box=None, header_style="bold")
        for row in done.rows():
            table.add_row(*row)
        out.print(table)
        out.print(*(f"note: {note}" for note in done.notes), f"numbers: {folder / 'evaluation.json'}", sep="\n")
    elif sample:
        del options["layer"]
        out.print(f"fill the column `truth` (0 or 1) of {draw_sample(folder, count=sample, **options)}", soft_wrap=True)
    else:
        raise ConfigError("evaluate: give RUN DATA for a trained run, or OUT --truth FILE for a result of `detect`.")


@app.command()
def benchmark(
    suite: Annotated[Path, typer.Argument(help="A TOML file; the shipped one is recipes/suites/small.toml")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder for everything; else runs/NAME, with the suite's name")
    ] = None,
    jobs: Annotated[int, typer.Option(min=0, help="Runs at a time, each in its own process; 0: in this one")] = 1,
    data: Annotated[Path | None, typer.Option(help="Where the real pairs lie, in place of what the suite says")] = None,
    retry: Annotated[bool, typer.Option(help="Make runs again that failed or diverged")] = False,
) -> None:
    """Methods x label fractions x seeds, from one suite: a table with spreads, paired differences and a plot.

    Started again, it makes only what is missing. A run that fails becomes a line of the table; the others go on.
    """
    from semicdvl.suite.config import load_suite
    from semicdvl.suite.run import run_suite

    checked = load_suite(suite).with_data(data)
    result = run_suite(checked, output or Path("runs") / checked.name, jobs=jobs, retry=retry)
    out.print(result.table.read_text(encoding="utf-8"), highlight=False, markup=False, soft_wrap=True)
    out.print(f"table: {result.table}, all runs: {result.csv}", highlight=False, soft_wrap=True)


@app.command(name="list")
def list_parts(
    kind: Annotated[Kind, typer.Argument(help="What to list")],
    params: Annotated[bool, typer.Option(help="Also count the parameters of each network")] = False,
) -> None:
    """List what can be named in recipes and on the command line."""
    from semicdvl.listing import described, details, headings

    table = Table("name", "what it is", *headings(kind.value, params=params), box=None, header_style="bold")
    for name, text in described(kind.value):
        table.add_row(name, text, *details(kind.value, name, params=params))
    out.print(table)


# ------------------------------------------------------------------------------------------------ options -> parts
def _prompts(find: str | None, background: str | None, name: str) -> Prompts:
    """Return the prompts that the options name."""
    from semicdvl.pseudo.prompts import prompts_of

    return prompts_of(find=find, background=background, prompt_set=name)


def _vlm(name: str, weights: Path | None, device: str | None, dtype: str | None, more: list[str] | None) -> VLM:
    """Build a VLM by name, with the options that were given."""
    from semicdvl.checkpoint import build
    from semicdvl.vlms import VLMS
    from semicdvl.vlms.options import options_of

    options = options_of(weights=weights, device=device, dtype=dtype, more=more or ())
    vlm: VLM = build("VLM", name, VLMS, options)
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
