"""Commands on labelled data: train, import-official, evaluate, benchmark; and the list of all parts."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from semicdvl.cli.app import app, out
from semicdvl.cli.options import DataSetName, read_dataset, scores_table


class Kind(StrEnum):
    """What can be listed."""

    methods = "methods"
    models = "models"
    vlms = "vlms"
    datasets = "datasets"
    classic = "classic"
    prompts = "prompts"


class Select(StrEnum):
    """What chooses the step that is kept."""

    val = "val"
    test = "test"
    last = "last"


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
        Select | None, typer.Option(help="What chooses the step that is kept; `test` is for parity with the paper")
    ] = None,
) -> None:
    """Train a network with 0-100 % of labels. Started again with the same recipe, it goes on where it stopped.

    On several GPUs:  accelerate launch -m semicdvl train RECIPE.toml -o RUN
    """
    from semicdvl.config import load_recipe
    from semicdvl.training.run import train as train_recipe

    chosen = () if select is None else (f"train.select={select.value}",)
    checked = load_recipe(recipe, overrides=(*(override or ()), *chosen))
    run = output or Path("runs") / checked.name
    result = train_recipe(checked, run)
    out.print(scores_table(f"{run}", result.list_score_columns()))
    if advice := result.give_advice():
        out.print(advice, style="yellow", markup=False, highlight=False)
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


class Form(StrEnum):
    """What a run can be exported to."""

    onnx = "onnx"


@app.command()
def export(
    run: Annotated[Path, typer.Argument(help="A folder that `semicdvl train` wrote")],
    to: Annotated[Form, typer.Option(help="Form of the file; needs semicdvl[onnx]")] = Form.onnx,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="File to write; else RUN/model.onnx")] = None,
    threshold: Annotated[float, typer.Option(min=0, max=1, help="Least probability of a changed pixel")] = 0.5,
) -> None:
    """Write a trained network as one file that `detect --model FILE` runs without torch.

    The file is compared with the network before it takes its place. It holds the change head alone, for pairs of any
    number and size, and says in its metadata how images are normalised.
    """
    from semicdvl.detection.detectors.onnx_export import export_onnx

    done = export_onnx(run, output or run / f"model.{to.value}", threshold=threshold)
    sizes = (
        "any size"
        if done.multiple_px == 1
        else f"sides that are multiples of {done.multiple_px} px (others are padded)"
    )
    out.print(f"{done.path}: {done.size_mb:.1f} MB, opset {done.opset}, {sizes}", highlight=False, soft_wrap=True)
    out.print(f"largest difference from torch: {done.largest_difference:.1e} of the largest logit", highlight=False)


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
    from semicdvl.training.evaluate import evaluate_run
    from semicdvl.training.run_record import name_score_column

    scores = evaluate_run(run, read_dataset(dataset, data, tile), subset=split.value)
    out.print(scores_table(f"{run} on {split.value} of {data}", {name_score_column(run, split.value): scores}))


def _evaluate_result(
    folder: Path, data: Path | None, truth: Path | None, *, sample: int | None, **options: Any
) -> None:
    """Compare a result of `detect` with the truth, or draw places to be checked."""
    from semicdvl.errors import ConfigError
    from semicdvl.evaluation.evaluate import DEFAULT_SAMPLE_SIZE, draw_sample, evaluate_map

    if data is not None:
        raise ConfigError(f"evaluate: --truth is for a result of `detect`, {data} for a trained run. Leave one out.")
    if truth is not None:
        done = evaluate_map(folder, truth, sample=DEFAULT_SAMPLE_SIZE if sample is None else sample, **options)
        table = Table("", f"{truth.name}", title=f"{folder}", title_justify="left", box=None, header_style="bold")
        for row in done.format_rows():
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
    devices: Annotated[
        str | None, typer.Option(help="GPUs that runs are dealt to, such as 0,1; else all. Give as many --jobs or more")
    ] = None,
) -> None:
    """Methods x label fractions x seeds, from one suite: a table with spreads, paired tests, and a page with plots.

    Detectors that are not trained (`semicdvl list classic`, VLM + CEG) stand beside them: rows under [[detectors]].

    Started again, it makes only what is missing. A run that fails becomes a line of the table; the others go on.
    """
    from semicdvl.benchmarking.config import load_suite
    from semicdvl.benchmarking.run import run_benchmark

    checked = load_suite(suite).replace_data_root(data)
    named = devices.split(",") if devices else None
    result = run_benchmark(checked, output or Path("runs") / checked.name, jobs=jobs, retry=retry, devices=named)
    out.print(result.table.read_text(encoding="utf-8"), highlight=False, markup=False, soft_wrap=True)
    out.print(f"page: {result.report}, all runs: {result.csv}", highlight=False, soft_wrap=True)


@app.command(name="list")
def list_parts(
    kind: Annotated[Kind, typer.Argument(help="What to list")],
    params: Annotated[bool, typer.Option(help="Also count the parameters of each network")] = False,
) -> None:
    """List what can be named in recipes and on the command line."""
    from semicdvl.catalog import describe_details, describe_parts, list_detail_headings

    table = Table("name", "what it is", *list_detail_headings(kind.value, params=params), box=None, header_style="bold")
    for name, text in describe_parts(kind.value):
        table.add_row(name, text, *describe_details(kind.value, name, params=params))
    out.print(table)
