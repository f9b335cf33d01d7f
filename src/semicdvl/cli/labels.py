"""Commands that make labels: pseudo, suggest, prepare."""

from __future__ import annotations

from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from semicdvl.cli.app import app, out
from semicdvl.cli.options import (
    Background,
    DataSetName,
    Delta,
    Device,
    Dtype,
    FeaturesName,
    Find,
    Gamma,
    Gsd,
    Level,
    MinCosine,
    PromptSet,
    ReplacedClass,
    ReplacedIoU,
    ShiftPx,
    VLMFrom,
    VLMName,
    VLMSet,
    build_vlm,
    ceg_settings,
    prompts_from,
    read_dataset,
)


class Engine(StrEnum):
    """What runs the processes that fill a store."""

    local = "local"
    ray = "ray"


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
    min_cosine: MinCosine = None,
    features: FeaturesName = None,
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
    from semicdvl.ceg.features import build_feature_extractor
    from semicdvl.pseudo_labels.quality import fill_store, verify_store
    from semicdvl.pseudo_labels.report import write_store_report
    from semicdvl.pseudo_labels.workers import WorkerSettings

    if verify:
        out.print(verify_store(output))
        return
    ask = partial(build_vlm, vlm, vlm_from, device, dtype, vlm_set)
    build_features = None if features is None else partial(build_feature_extractor, features)
    asked, source = ask(), None if build_features is None else build_features()
    beyond = {"shift_px": shift_px, "replaced_iou": replaced_iou, "replaced_class": replaced_class}
    settings = ceg_settings(
        asked,
        level=level.value,
        delta=delta,
        gamma=gamma,
        gamma_segmentation=gamma_segmentation,
        min_cosine=min_cosine,
        **beyond,
    )
    words, pairs = prompts_from(find, background, prompts), read_dataset(dataset, data, tile).pairs
    crew = WorkerSettings(ask, build_features, workers=workers, engine=engine.value)
    filled = fill_store(
        pairs, vlm=asked, prompts=words, settings=settings, root=output, gsd_m=gsd, features=source, workers=crew
    )
    out.print(filled.summary, highlight=False, soft_wrap=True)
    out.print(filled.to_table())
    if report:
        out.print(f"report: {write_store_report(output, pairs, settings=settings)}", highlight=False)


@app.command()
def suggest(
    result: Annotated[Path, typer.Argument(help="Folder that `semicdvl detect` wrote")],
    count: Annotated[int, typer.Option("--count", "-n", help="How many patches")] = 20,
    patch_px: Annotated[int, typer.Option(help="Their side; `prepare --size-px` should be the same")] = 256,
    features: Annotated[
        str | None,
        typer.Option(help="Backbone that says what patches look like: efficientnet_lite0 or one of timm; else colours"),
    ] = None,
    before: Annotated[str | None, typer.Option(help="Where date 1 lies now, if it was moved")] = None,
    after: Annotated[str | None, typer.Option(help="Where date 2 lies now, if it was moved")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Decides between patches that are equally good")] = 0,
) -> None:
    """Which patches to label next: boxes (GPKG) and a picture sheet (HTML) in the folder of a result.

    Patches are taken where map and score are most in doubt, and so that they differ in looks. Draw all change inside
    the boxes; `semicdvl prepare --labelled-area RESULT/suggest.gpkg` then makes training patches of them.
    """
    from semicdvl.ceg.features import build_feature_extractor
    from semicdvl.evaluation.active_learning.select import SuggestConfig
    from semicdvl.evaluation.active_learning.select import suggest_patches as choose

    source = None if features is None else build_feature_extractor(features)
    settings = SuggestConfig(count=count, patch_px=patch_px, seed=seed, before=before, after=after)
    suggested = choose(result, config=settings, source=source)
    out.print(suggested.summary, highlight=False, markup=False, soft_wrap=True)


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
    from semicdvl.data.prepare.config import PrepareSettings
    from semicdvl.data.prepare.run import prepare_patches as cut
    from semicdvl.data.prepare.run import require_paths

    if context.invoked_subcommand is not None:
        return
    files = require_paths(before=before, after=after, labels=labels, output=output)
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
    from semicdvl.data.prepare.published import prepare_published

    found = prepare_published("levir_cd", root, output, lists=lists, only_verify=verify)
    out.print(found.summary, highlight=False, markup=False, soft_wrap=True)


@prepare_app.command(name="whu-cd")
def prepare_whu_cd(root: Root, output: Patches = None, lists: Lists = None, verify: OnlyVerify = False) -> None:
    """Cut WHU-CD into its 7,434 patches of 256 px, and check patches and split lists."""
    from semicdvl.data.prepare.published import prepare_published

    found = prepare_published("whu_cd", root, output, lists=lists, only_verify=verify)
    out.print(found.summary, highlight=False, markup=False, soft_wrap=True)
