"""Commands that make labels: pseudo, suggest."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

import semicdvl as cd
from semicdvl.cli.app import ADVANCED, INPUT, LABELS, OUTPUT, TARGET, app, out
from semicdvl.cli.options import (
    CEGOptions,
    DatasetOptions,
    Executor,
    FeatureOptions,
    Level,
    PromptOptions,
    VLMOptions,
    expand_option_groups,
)


@dataclass(frozen=True)
class PseudoLabelOptions(CEGOptions):
    """Change event generation for training labels."""

    level: Annotated[Level, typer.Option(help="Level of the change label", rich_help_panel=TARGET)] = Level.mixed
    gamma_segmentation: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            help="Confidence threshold of the single-date labels; by default the VLM's own",
            rich_help_panel=TARGET,
        ),
    ] = None


@app.command(name="pseudo", rich_help_panel=LABELS)
@expand_option_groups
def pseudo_command(
    data: Annotated[Path, typer.Argument(help="Folder of a data set (A/ and B/, with or without label/)")],
    output: Annotated[
        Path,
        typer.Option(
            "--output", "-o", help="The pseudo-label store; an existing one is resumed", rich_help_panel=OUTPUT
        ),
    ],
    reading: DatasetOptions,
    prompts: PromptOptions,
    vlm: VLMOptions,
    ceg: PseudoLabelOptions,
    features: FeatureOptions,
    gsd: Annotated[
        float | None,
        typer.Option(
            "--gsd",
            min=0.01,
            help="Ground sampling distance in metres per pixel; it is not read from the files",
            rich_help_panel=INPUT,
        ),
    ] = None,
    workers: Annotated[
        int, typer.Option(min=1, help="Processes; each loads the VLM once", rich_help_panel=ADVANCED)
    ] = 1,
    engine: Annotated[
        Executor,
        typer.Option(help="Where the processes run: this machine, or a Ray cluster", rich_help_panel=ADVANCED),
    ] = Executor.local,
    classes: Annotated[
        Path | None,
        typer.Option(
            help="A recipe whose [classes] have prompts: single-date labels of these classes, in place of foreground "
            "and background",
            rich_help_panel=TARGET,
        ),
    ] = None,
    report: Annotated[
        bool,
        typer.Option(help="Also write report.html into the store: pictures and numbers", rich_help_panel=OUTPUT),
    ] = False,
    verify: Annotated[
        bool, typer.Option(help="Only read the store again and list damaged files", rich_help_panel=ADVANCED)
    ] = False,
) -> None:
    """Ask a VLM about every image and keep its answers, and the change labels made from them, in a store.

    It can be interrupted and started again; what is finished is not done again. With other thresholds the labels are
    made anew in seconds, from the answers in the store.
    """
    if verify:
        out.print(cd.verify_store(output))
        return
    if classes is not None and prompts != PromptOptions():
        raise cd.ConfigError("--classes gives the prompts. Leave out --find, --background and --prompts.")
    filled = cd.pseudo_label(
        reading.load(data),
        output,
        vlm=vlm.make_builder(),
        prompts=prompts.resolve(vlm.vlm),
        classes=classes,
        ceg=ceg.settings | features.settings,
        features=features.features,
        gsd_m=gsd,
        executor=engine.value,
        workers=workers,
        report=report,
    )
    out.print(filled.summary, soft_wrap=True)
    out.print(filled.to_table())
    if report:
        out.print(f"report: {output / 'report.html'}", soft_wrap=True)


@app.command(name="suggest", rich_help_panel=LABELS)
def suggest_command(
    result: Annotated[Path, typer.Argument(help="Folder that `semicdvl detect` wrote")],
    count: Annotated[int, typer.Option("--count", "-n", help="Number of patches", rich_help_panel=OUTPUT)] = 20,
    patch_px: Annotated[
        int,
        typer.Option(help="Side of a patch in pixels; give the same to `prepare --size-px`", rich_help_panel=OUTPUT),
    ] = 256,
    features: Annotated[
        str | None,
        typer.Option(
            help="Encoder that compares patches: efficientnet_lite0 or one of timm; by default their colours",
            rich_help_panel=ADVANCED,
        ),
    ] = None,
    before: Annotated[
        str | None, typer.Option(help="Path of the image of date 1, if it was moved", rich_help_panel=INPUT)
    ] = None,
    after: Annotated[
        str | None, typer.Option(help="Path of the image of date 2, if it was moved", rich_help_panel=INPUT)
    ] = None,
    seed: Annotated[
        int, typer.Option(min=0, help="Chooses between patches that are equally good", rich_help_panel=ADVANCED)
    ] = 0,
) -> None:
    """Suggest which patches to label next: boxes (GPKG) and a picture sheet (HTML) in the folder of a result.

    Patches are taken where map and score are most uncertain, and so that they differ from each other. Draw all change
    inside the boxes; `semicdvl prepare --labelled-area RESULT/suggest.gpkg` then makes training patches of them.
    """
    config = cd.SuggestConfig(count=count, patch_px=patch_px, seed=seed, before=before, after=after)
    out.print(cd.suggest(result, config=config, features=features).summary, soft_wrap=True)
