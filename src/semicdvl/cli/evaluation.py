"""Commands that measure: evaluate, benchmark."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

import semicdvl as cd
from semicdvl.cli.app import ADVANCED, EVALUATION, INPUT, OUTPUT, app, out, remark_on_run
from semicdvl.cli.options import DatasetOptions, TrustOptions, expand_option_groups, list_given_options
from semicdvl.cli.tables import build_metrics_table, build_transition_table

OF_RUNS = ("split", "dataset", "tile", "trust")
"""Options that a trained run alone has a use for."""
OF_TRUTHS = ("truth", "layer", "label_values", "truth_nodata")
"""Options that only the comparison of a map with its truth has a use for."""
OF_MAPS = (*OF_TRUTHS, "area", "area_layer", "sample", "seed")


class Subset(StrEnum):
    """Pairs to evaluate on."""

    val = "val"
    test = "test"
    all = "all"


@dataclass(frozen=True)
class TruthOptions:
    """What a map is compared with."""

    truth: Annotated[
        Path | None,
        typer.Option(
            help="Compare a result of `detect` with this: polygons, a mask raster, or a sample", rich_help_panel=INPUT
        ),
    ] = None
    layer: Annotated[
        str | None, typer.Option(help="Layer of the truth's file, where it has several", rich_help_panel=INPUT)
    ] = None
    area: Annotated[
        Path | None,
        typer.Option(help="Polygons of the ground on which the truth is known", rich_help_panel=INPUT),
    ] = None
    area_layer: Annotated[
        str | None, typer.Option(help="Layer of the area's file, where it has several", rich_help_panel=INPUT)
    ] = None

    label_values: Annotated[
        str | None,
        typer.Option(
            help="What the values of a mask mean, such as 255=changed,0=unchanged or 0-127=unchanged,128-255=changed;"
            " by default white, 255 or 1 is changed, black or 0 is not",
            rich_help_panel=INPUT,
        ),
    ] = None
    truth_nodata: Annotated[
        int | None, typer.Option(help="Value of a mask where the truth is not known", rich_help_panel=INPUT)
    ] = None

    @property
    def mask_options(self) -> dict[str, Any]:
        """What the values of a mask mean, as arguments."""
        return {"label_values": self.label_values, "truth_nodata": self.truth_nodata}

    @property
    def area_options(self) -> dict[str, Any]:
        """The ground on which the truth is known, as arguments."""
        return {"area": self.area, "area_layer": self.area_layer}


@app.command(name="evaluate", rich_help_panel=EVALUATION)
@expand_option_groups
def evaluate_command(
    context: typer.Context,
    run: Annotated[Path, typer.Argument(help="A folder that `semicdvl train` wrote; with --truth one of `detect`")],
    reading: DatasetOptions,
    truth: TruthOptions,
    trusted: TrustOptions,
    data: Annotated[Path | None, typer.Argument(help="Folder of a data set with labels, for a trained run")] = None,
    split: Annotated[
        Subset,
        typer.Option(
            help="Which pairs; `val` and `test` of the run's own split where it is that data", rich_help_panel=INPUT
        ),
    ] = Subset.test,
    sample: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Number of places that are checked by eye, from which accuracy and changed area are estimated with "
            "confidence intervals; without --truth they are only drawn",
            rich_help_panel=INPUT,
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Another seed draws other places", rich_help_panel=ADVANCED)] = 0,
) -> None:
    """Evaluate a trained run on labelled pairs, or a result of `detect` against polygons or a mask.

    A run:     semicdvl evaluate RUN DATA

    A result:  semicdvl evaluate OUT --truth changes.gpkg --area aoi.gpkg

    No truth yet:  semicdvl evaluate OUT --sample 300, fill the column `truth` of OUT/sample.gpkg in a GIS, and then
    semicdvl evaluate OUT --truth OUT/sample.gpkg
    """
    if data is None and truth.truth is None and not sample:
        raise cd.ConfigError("evaluate: give RUN DATA for a trained run, or OUT --truth FILE for a result of `detect`.")
    _refuse_unused(list_given_options(context), data=data, truth=truth.truth)
    if data is not None:
        _evaluate_run(run, reading.load(data), split=split, data=data, trust=trusted.trust or ())
    elif truth.truth is not None:
        options = {"layer": truth.layer, "sample": sample, "seed": seed, **truth.mask_options, **truth.area_options}
        _evaluate_map(run, truth.truth, **options)
    else:
        assert sample, "this was asked above"
        drawn = cd.draw_sample(run, count=sample, seed=seed, **truth.area_options)
        out.print(f"Fill the column `truth` (0 or 1) of {drawn}.", soft_wrap=True)


def _refuse_unused(given: Mapping[str, str], *, data: Path | None, truth: Path | None) -> None:
    """Refuse an option that has no effect on what is evaluated.

    Raises:
        ConfigError: there is one; the text names it.
    """
    of_maps, of_runs, of_truths = (
        next((given[name] for name in names if name in given), None) for names in (OF_MAPS, OF_RUNS, OF_TRUTHS)
    )
    if data is not None and of_maps is not None:
        raise cd.ConfigError(
            f"evaluate: {of_maps} is for a result of `detect`, and {data} for a trained run. Leave one out."
        )
    if data is None and of_runs is not None:
        raise cd.ConfigError(
            f"evaluate: {of_runs} is for a trained run and its DATA, and has no effect on a result of `detect`. "
            "Leave it out."
        )
    if data is None and truth is None and of_truths is not None:
        raise cd.ConfigError(
            f"evaluate: {of_truths} says how the file of --truth is read, and no place of a sample depends on it. "
            "Leave it out, or give --truth."
        )


def _evaluate_run(run: Path, dataset: cd.ChangeDataset, *, split: Subset, data: Path, trust: Sequence[str]) -> None:
    """Print the scores of a trained run."""
    from semicdvl.metrics.pair_sets import RunScores, describe_trained_pairs
    from semicdvl.training.run_record import name_score_column

    scores = cd.evaluate(run, dataset, split=split.value, trust=trust)
    title = f"{run} on {split.value} of {data}"
    out.print(build_metrics_table(title, {name_score_column(run, split.value): scores}))
    remark_on_run(run)
    if not isinstance(scores, RunScores):
        return
    if scores.trained_count:
        out.print(describe_trained_pairs(scores), style="yellow", soft_wrap=True)
    if scores.classes is not None:
        counts = scores.classes.counts
        title = "pixels by class before (row) and after (column): found / in the labels"
        found_KK, true_KK = counts.transitions_KK, counts.true_transitions_KK
        out.print(build_transition_table(title, scores.classes.names, found_KK, true_KK))


def _evaluate_map(folder: Path, truth: Path, **options: Any) -> None:
    """Print how a result of `detect` compares with the truth."""
    evaluation = cd.evaluate_map(folder, truth, **options)
    table = Table("", truth.name, title=str(folder), title_justify="left", box=None, header_style="bold")
    for row in evaluation.format_rows():
        table.add_row(*row)
    out.print(table)
    for note in evaluation.notes:
        out.print(f"note: {note}", soft_wrap=True)
    out.print(f"numbers: {folder / 'evaluation.json'}", soft_wrap=True)


@app.command(name="benchmark", rich_help_panel=EVALUATION)
def benchmark_command(
    suite: Annotated[
        Path, typer.Argument(help="A TOML file, or a shipped suite, such as suites/small; see `semicdvl list recipes`")
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="Folder for everything; by default runs/NAME, with the suite's name",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    jobs: Annotated[
        int,
        typer.Option(min=0, help="Runs at a time, each in its own process; 0: in this one", rich_help_panel=ADVANCED),
    ] = 1,
    data: Annotated[
        Path | None,
        typer.Option(help="Folder of the real pairs, in place of the one that the suite names", rich_help_panel=INPUT),
    ] = None,
    retry: Annotated[
        bool, typer.Option(help="Make runs again that failed or diverged", rich_help_panel=ADVANCED)
    ] = False,
    devices: Annotated[
        str | None,
        typer.Option(
            help="GPUs that runs are distributed to, such as 0,1; by default all. Give at least as many --jobs",
            rich_help_panel=ADVANCED,
        ),
    ] = None,
) -> None:
    """Compare methods x label fractions x seeds, from one suite: a table with spreads, paired tests, and a page.

    Detectors that are not trained (`semicdvl list classic`, VLM + CEG) can be compared too: the suite's `detectors`.

    Started again, it makes only what is missing. A run that fails becomes a line of the table; the others go on.
    """
    named = devices.split(",") if devices else None
    result = cd.benchmark(suite, output, jobs=jobs, data=data, retry=retry, devices=named)
    out.print(result.table.read_text(encoding="utf-8"), soft_wrap=True)
    out.print(f"page: {result.report}, all runs: {result.csv}", soft_wrap=True)
