"""Commands on two rasters: demo, check, detect."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from semicdvl.cli.app import app, out
from semicdvl.cli.options import (
    Background,
    Delta,
    Device,
    Dtype,
    Find,
    Gamma,
    Gsd,
    Level,
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
)


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
        words, asked = prompts_from(find, background, prompts), build_vlm(vlm, vlm_from, device, dtype, vlm_set)
        beyond = {"shift_px": shift_px, "replaced_iou": replaced_iou, "replaced_class": replaced_class}
        ceg = ceg_settings(asked, level=level.value, delta=delta, gamma=gamma, **beyond)
        detector = predict.vlm_detector(asked, prompts=words, settings=ceg)
    settings = predict.DetectSettings(
        tile_px=tile, overlap_px=overlap, min_area_m2=min_area_m2, gsd_m=gsd, align=align, overwrite=overwrite
    )
    result = predict.detect(before, after, output, detector=detector, settings=settings)
    out.print(result.summary, highlight=False, soft_wrap=True)
