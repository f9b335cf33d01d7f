"""Commands on two rasters: demo, check, detect."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from semicdvl.cli.app import app, out
from semicdvl.cli.options import (
    After,
    AfterBands,
    Align,
    Background,
    Bands,
    Before,
    Delta,
    Device,
    Dtype,
    FeaturesName,
    Find,
    Gamma,
    GridOf,
    Gsd,
    Level,
    MinCosine,
    Normalise,
    NormaliseBy,
    OneAfter,
    OneBefore,
    PromptSet,
    ReplacedClass,
    ReplacedIoU,
    ShiftPx,
    VLMFrom,
    VLMName,
    VLMSet,
    build_vlm,
    ceg_settings,
    failures_table,
    numbers_in,
    prompts_from,
    refuse_idle,
    words_in,
)

if TYPE_CHECKING:
    from semicdvl.ceg.features import FeatureExtractor
    from semicdvl.types import VLM, Detector


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
    from semicdvl.detection.pair_check.check import check_pair
    from semicdvl.detection.pair_check.results import format_check_summary, format_check_table

    asked = {"bands": numbers_in(bands, "--bands"), "after_bands": numbers_in(after_bands, "--after-bands")}
    checked = check_pair(before, after, output, grid=grid, **asked)
    out.print(format_check_table(checked))
    out.print(format_check_summary(checked, output), highlight=False, soft_wrap=True, markup=False)
    raise typer.Exit(checked.verdict)


class Engine(StrEnum):
    """What computes the tiles."""

    local = "local"
    ray = "ray"


@app.command()
def detect(
    context: typer.Context,
    output: Annotated[
        Path,
        typer.Option("--output", "-o", help="Folder for the map, the polygons and the report; of --pairs: for all"),
    ],
    before: OneBefore = None,
    after: OneAfter = None,
    pairs: Annotated[
        Path | None,
        typer.Option(help="In place of BEFORE AFTER: a table (CSV, parquet) with columns before, after and maybe name"),
    ] = None,
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
    min_cosine: MinCosine = None,
    features: FeaturesName = None,
    calibrate: Annotated[
        bool,
        typer.Option(help="Without labels: give objects a probability, learned from the pair; keep those from 0.5 on"),
    ] = False,
    gsd: Gsd = None,
    bands: Bands = None,
    after_bands: AfterBands = None,
    grid: GridOf = "before",
    normalise: NormaliseBy = Normalise.none,
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
    align: Align = False,
    overwrite: Annotated[bool, typer.Option(help="Replace OUT even if something else wrote it")] = False,
    precision: Annotated[
        Precision, typer.Option(help="Numbers that a trained network computes with; bf16 is faster where there is AMX")
    ] = Precision.fp32,
    compiled: Annotated[
        bool, typer.Option("--compile", help="Compile a trained network: slow to start (needs a C++ compiler)")
    ] = False,
    engine: Annotated[
        Engine, typer.Option(help="Where tiles are computed: this process, or a Ray cluster; the result is the same")
    ] = Engine.local,
    workers: Annotated[int, typer.Option(min=1, help="Of --engine ray: processes; each loads the detector once")] = 1,
) -> None:
    """Two rasters in; a change map (GeoTIFF), change polygons (GPKG) and a report (HTML) out.

    A date may be one file, a folder of tiles, several files with commas in between (later ones lie over earlier ones),
    or an address: https://..., s3://..., /vsizip/tiles.zip/a.tif

    Without labels:  semicdvl detect before.tif after.tif -o out --find house --background road,grass,tree,water

    With a trained network:  semicdvl detect before.tif after.tif -o out --model runs/my-run

    With a method that is not trained on labels:  semicdvl detect before.tif after.tif -o out --method irmad

    Many pairs:  semicdvl detect --pairs pairs.csv -o out; each goes to out/NAME, out/index.html lists them, and what is
    done is not done twice. Paths are meant from the table's folder. Exit code 2 where a pair failed.
    """
    from semicdvl.ceg.features import build_feature_extractor
    from semicdvl.detection.batch.pairs_table import PairsTable
    from semicdvl.detection.batch.run import detect_batch, parse_inputs
    from semicdvl.detection.config import DetectionConfig
    from semicdvl.detection.detectors.calibrated import build_calibrated_detector
    from semicdvl.detection.detectors.network import build_network_detector
    from semicdvl.detection.detectors.unsupervised import build_unsupervised_detector, refuse_model_with_method
    from semicdvl.detection.detectors.unsupervised import parse_method_options as method_options
    from semicdvl.detection.detectors.vlm_ceg import build_vlm_detector
    from semicdvl.detection.pipeline import detect_to_folder
    from semicdvl.detection.tiles.ray_executor import open_executor

    refuse_model_with_method(model=model, method=method, options=method_set)
    refuse_idle(context, model=model, method=method)
    given = parse_inputs(before, after, pairs)
    build: Callable[[], Detector]  # what builds the detector once more, in a process of an engine
    if model is not None:
        build = partial(
            build_network_detector, model, device=device or "auto", precision=precision.value, compiled=compiled
        )
        detector = build()
    elif method is not None:
        build = partial(build_unsupervised_detector, method, method_options(method_set))
        detector = build()
    else:
        ask = partial(build_vlm, vlm, vlm_from, device, dtype, vlm_set)
        words, asked = prompts_from(find, background, prompts), ask()
        beyond = {"shift_px": shift_px, "replaced_iou": replaced_iou, "replaced_class": replaced_class}
        ceg = ceg_settings(asked, level=level.value, delta=delta, gamma=gamma, min_cosine=min_cosine, **beyond)
        finish = partial(build_calibrated_detector if calibrate else build_vlm_detector, prompts=words, settings=ceg)
        describe = None if features is None else partial(build_feature_extractor, features)
        build = partial(_of_vlm, ask, describe, finish)
        detector = _of_vlm(lambda: asked, describe, finish)
    settings = DetectionConfig(
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
    with open_executor(engine.value, workers=workers, build=build, built=detector) as tiles:
        if isinstance(given, PairsTable):
            found = detect_batch(given, output, detector=detector, config=settings, executor=tiles)
            out.print(found.summary, highlight=False, soft_wrap=True, markup=False)
            if found.failed:
                out.print(failures_table({one.name: str(one.error) for one in found.failed}))
                raise typer.Exit(2)
        else:
            result = detect_to_folder(*given, output, detector=detector, config=settings, executor=tiles)
            out.print(result.format_text(), highlight=False, soft_wrap=True)


def _of_vlm(
    ask: Callable[[], VLM], describe: Callable[[], FeatureExtractor] | None, finish: Callable[..., Detector]
) -> Detector:
    """Build a VLM, the source of features that is wanted, and the detector that asks both."""
    return finish(ask(), features=None if describe is None else describe())
