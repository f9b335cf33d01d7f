"""Commands on two rasters: demo, check, detect."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from semicdvl.cli.app import app, out
from semicdvl.cli.options import (
    After,
    AfterBands,
    Background,
    Bands,
    Before,
    Delta,
    Device,
    Dtype,
    Find,
    Gamma,
    GridOf,
    Gsd,
    Level,
    Normalise,
    PromptSet,
    ReplacedClass,
    ReplacedIoU,
    ShiftPx,
    VLMFrom,
    VLMName,
    VLMSet,
    build_vlm,
    ceg_settings,
    numbers_in,
    prompts_from,
    words_in,
)


class Precision(StrEnum):
    """Numbers that a trained network computes with."""

    fp32 = "fp32"
    bf16 = "bf16"


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
    before: Before,
    after: After,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder for check.json and the picture sheet check.html")
    ] = Path("check"),
    bands: Bands = None,
    after_bands: AfterBands = None,
    grid: GridOf = "before",
) -> None:
    """Do these two images fit? Grid, CRS, overlap, no data, light and the shift between them, and what to do about it.

    A date may be one file, a folder of tiles, several files with commas in between, or an address.

    Exit code: 0 fine, 1 usable with warnings, 2 not usable.
    """
    from semicdvl.predict.check import check as check_pair
    from semicdvl.predict.check import summary, table

    asked = {"bands": numbers_in(bands, "--bands"), "after_bands": numbers_in(after_bands, "--after-bands")}
    checked = check_pair(before, after, output, grid=grid, **asked)
    out.print(table(checked))
    out.print(summary(checked, output), highlight=False, soft_wrap=True, markup=False)
    raise typer.Exit(checked.verdict)


@app.command()
def detect(
    before: Before,
    after: After,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the map, the polygons and the report")],
    model: Annotated[
        Path | None,
        typer.Option(help="A trained run, or a file of `semicdvl export`; without it: no labels, VLM + CEG"),
    ] = None,
    method: Annotated[
        str | None, typer.Option(help="Without training: see `semicdvl list classic`; or package.module:builder")
    ] = None,
    method_set: Annotated[
        list[str] | None, typer.Option("--method-set", help="An option of it, key=value: threshold=3, backbone=vgg16")
    ] = None,
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
    bands: Bands = None,
    after_bands: AfterBands = None,
    grid: GridOf = "before",
    normalise: Annotated[
        Normalise,
        typer.Option(help="match: bring the after image to the before image's light, once for the whole pair"),
    ] = Normalise.none,
    tile: Annotated[int, typer.Option(min=64, help="Side of a tile in pixels")] = 1024,
    overlap: Annotated[int, typer.Option(min=0, help="Overlap of tiles in pixels")] = 128,
    min_area_m2: Annotated[float, typer.Option(min=0, help="Leave out smaller objects (pixels, without a CRS)")] = 0.0,
    simplify_m: Annotated[
        float, typer.Option(min=0, help="Leave out the polygons' corners that lie off by less (pixels, without a CRS)")
    ] = 0.0,
    regularise: Annotated[bool, typer.Option(help="Polygons with right angles where they fit: buildings")] = False,
    polygons: Annotated[
        str | None, typer.Option(help="Write the polygons as these, too: geojson,fgb,parquet (gpkg is always there)")
    ] = None,
    align: Annotated[bool, typer.Option(help="Move the after image by the shift that `check` measures")] = False,
    overwrite: Annotated[bool, typer.Option(help="Replace OUT even if something else wrote it")] = False,
    precision: Annotated[
        Precision, typer.Option(help="Numbers that a trained network computes with; bf16 is faster where there is AMX")
    ] = Precision.fp32,
    compiled: Annotated[
        bool, typer.Option("--compile", help="Compile a trained network: slow to start (needs a C++ compiler)")
    ] = False,
) -> None:
    """Two rasters in; a change map (GeoTIFF), change polygons (GPKG) and a report (HTML) out.

    A date may be one file, a folder of tiles, several files with commas in between (later ones lie over earlier ones),
    or an address: https://..., s3://..., /vsizip/tiles.zip/a.tif

    Without labels:  semicdvl detect before.tif after.tif -o out --find house --background road,grass,tree,water

    With a trained network:  semicdvl detect before.tif after.tif -o out --model runs/my-run

    With a method that is not trained on labels:  semicdvl detect before.tif after.tif -o out --method irmad
    """
    from semicdvl.predict import run as predict
    from semicdvl.predict.classic import classic_detector, refuse_both
    from semicdvl.predict.classic import options_of as method_options
    from semicdvl.types import Detector

    refuse_both(model=model, method=method, options=method_set)
    detector: Detector
    if model is not None:
        detector = predict.network_detector(
            model, device=device or "auto", precision=precision.value, compiled=compiled
        )
    elif method is not None:
        detector = classic_detector(method, method_options(method_set))
    else:
        words, asked = prompts_from(find, background, prompts), build_vlm(vlm, vlm_from, device, dtype, vlm_set)
        beyond = {"shift_px": shift_px, "replaced_iou": replaced_iou, "replaced_class": replaced_class}
        ceg = ceg_settings(asked, level=level.value, delta=delta, gamma=gamma, **beyond)
        detector = predict.vlm_detector(asked, prompts=words, settings=ceg)
    settings = predict.DetectSettings(
        tile_px=tile,
        overlap_px=overlap,
        min_area_m2=min_area_m2,
        gsd_m=gsd,
        bands=numbers_in(bands, "--bands"),
        after_bands=numbers_in(after_bands, "--after-bands"),
        grid=grid,
        normalise=normalise.value,
        simplify_m=simplify_m,
        regularise=regularise,
        polygons=tuple(words_in(polygons)),
        align=align,
        overwrite=overwrite,
    )
    result = predict.detect(before, after, output, detector=detector, settings=settings)
    out.print(result.summary, highlight=False, soft_wrap=True)
