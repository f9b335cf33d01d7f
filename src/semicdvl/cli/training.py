"""Commands that train networks and exchange their weights: train, import-official, export."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

import semicdvl as cd
from semicdvl.cli.app import ADVANCED, INPUT, OUTPUT, TRAINING, app, out, remark_on_run
from semicdvl.cli.options import TrustOptions, expand_option_groups
from semicdvl.cli.tables import build_metrics_table


class Select(StrEnum):
    """Pairs that select the step whose weights are kept."""

    val = "val"
    test = "test"
    last = "last"


@app.command(name="train", rich_help_panel=TRAINING)
def train_command(
    recipe: Annotated[
        Path, typer.Argument(help="A TOML file, or the name of a shipped recipe, see `semicdvl list recipes`")
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="Run directory; by default runs/NAME, with the recipe's name", rich_help_panel=OUTPUT
        ),
    ] = None,
    override: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="key=value, such as steps=2000 or data.root=DIR; all keys: `semicdvl list recipe-keys`",
            rich_help_panel=INPUT,
        ),
    ] = None,
    select: Annotated[
        Select | None,
        typer.Option(
            help="Pairs that select the step whose weights are kept; `test` is for parity with the paper",
            rich_help_panel=ADVANCED,
        ),
    ] = None,
) -> None:
    """Train a network with 0-100 % of labels. Started again with the same recipe, it resumes where it stopped.

    On several GPUs:  accelerate launch -m semicdvl train RECIPE.toml -o RUN
    """
    selected = () if select is None else (f"train.select={select.value}",)
    trained = cd.train(recipe, output, overrides=(*(override or ()), *selected))
    out.print(build_metrics_table(f"{trained.run}", trained.list_score_columns()))
    for remark in (trained.leaks, trained.give_advice()):
        if remark:
            out.print(remark, style="yellow", soft_wrap=True)
    out.print(f"weights and record: {trained.run}")


class PublicSource(StrEnum):
    """Public codes whose checkpoints can be imported."""

    semicd_vl = "semicd_vl"
    unimatch_v2 = "unimatch_v2"


@app.command(name="import-official", rich_help_panel=TRAINING)
def import_official_command(
    checkpoint: Annotated[Path, typer.Argument(help="A .pth file of the public code, such as its best.pth")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Run directory to write", rich_help_panel=OUTPUT)],
    source: Annotated[
        PublicSource, typer.Option("--from", help="The public code that wrote the file", rich_help_panel=INPUT)
    ] = PublicSource.semicd_vl,
    weights: Annotated[
        str | None,
        typer.Option(
            help="Key of the weights in the file, such as model; without it those that the public code validates (of "
            "UniMatch V2 model_ema, the moving average)",
            rich_help_panel=INPUT,
        ),
    ] = None,
) -> None:
    """Turn a checkpoint of the public SemiCD-VL or UniMatch V2 code into a run for `detect --model` and Python."""
    imported = cd.import_official(checkpoint, output, source=source.value, weights=weights)
    out.print(f"{imported.tensors} tensors, encoder {imported.model['backbone']}, in {output}", soft_wrap=True)
    out.print("Its best epoch was selected on the test pairs, so its scores on them count as test-selected.")


class Form(StrEnum):
    """File formats of an exported network."""

    onnx = "onnx"


@app.command(name="export", rich_help_panel=TRAINING)
@expand_option_groups
def export_command(
    run: Annotated[Path, typer.Argument(help="A folder that `semicdvl train` wrote")],
    trusted: TrustOptions,
    to: Annotated[
        Form, typer.Option(help="Format of the file; needs semicdvl[onnx]", rich_help_panel=OUTPUT)
    ] = Form.onnx,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="File to write; by default RUN/model.onnx", rich_help_panel=OUTPUT),
    ] = None,
    threshold: Annotated[
        float, typer.Option(min=0, max=1, help="Least probability of a changed pixel", rich_help_panel=ADVANCED)
    ] = 0.5,
    heads: Annotated[
        bool,
        typer.Option(
            "--heads", help="Also write the heads that tell the classes of both dates", rich_help_panel=OUTPUT
        ),
    ] = False,
) -> None:
    """Write a trained network as one file that `detect --model FILE` runs without torch.

    The file is compared with the network before it takes its place. It holds the change head (with --heads also those
    of the classes of both dates), for pairs of any number and size, and says in its metadata how images are normalised.
    """
    exported = cd.export(run, output, to=to.value, threshold=threshold, heads=heads, trust=trusted.trust or ())
    sizes = (
        "any size"
        if exported.multiple_px == 1
        else f"sides that are multiples of {exported.multiple_px} px (others are padded)"
    )
    out.print(f"{exported.path}: {exported.size_mb:.1f} MB, opset {exported.opset}, {sizes}", soft_wrap=True)
    out.print(f"largest difference from torch: {exported.largest_difference:.1e} of the largest logit")
    remark_on_run(run)
