"""The command that trains on two rasters without a label: adapt."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

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
    Find,
    GridOf,
    Gsd,
    Level,
    Normalise,
    NormaliseBy,
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
)


@app.command()
def adapt(
    before: Before,
    after: After,
    output: Annotated[Path, typer.Option("--output", "-o", help="Run directory; one that was begun is gone on with")],
    detect: Annotated[
        Path | None, typer.Option(help="Also find change with the network, and write the result into this folder")
    ] = None,
    find: Find = None,
    background: Background = None,
    prompts: PromptSet = "buildings",
    vlm: VLMName = "aerial",
    vlm_from: VLMFrom = None,
    device: Device = None,
    dtype: Dtype = None,
    vlm_set: VLMSet = None,
    level: Annotated[Level, typer.Option(help="Kind of change label that is learnt")] = Level.mixed,
    gamma: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="An answer is learnt from this score on; else 0.4 of the VLM's own choice"),
    ] = None,
    delta: Delta = 0.0,
    shift_px: ShiftPx = 0,
    replaced_iou: ReplacedIoU = None,
    replaced_class: ReplacedClass = False,
    gsd: Gsd = None,
    bands: Bands = None,
    after_bands: AfterBands = None,
    grid: GridOf = "before",
    normalise: NormaliseBy = Normalise.none,
    align: Align = False,
    patches: Annotated[
        int, typer.Option(min=1, help="Most patches to train on; the VLM sees up to twice as many")
    ] = 400,
    patch_px: Annotated[int, typer.Option(min=32, help="Side of a patch in pixels")] = 256,
    steps: Annotated[int, typer.Option(min=1, help="Length of the training")] = 240,
    seed: Annotated[int, typer.Option(min=0, help="Of everything random in the training")] = 0,
    backbone: Annotated[
        str, typer.Option(help="Network: aerial is the embedded VLM's own; else efficientnet_lite0 or one of timm")
    ] = "aerial",
    pretrained: Annotated[str, typer.Option(help="What another starts from: imagenet, none, a file")] = "imagenet",
) -> None:
    """Train a small network on two rasters without a label: a VLM's answers, where they are reliable, teach it.

    It sees both dates at once, where the VLM sees each by itself, and learns from the whole pair at once. Interrupted,
    the same command goes on. What it found is then shown by `semicdvl detect BEFORE AFTER -o OUT --model RUN`, or at
    once by --detect OUT.
    """
    from semicdvl.detection.config import DetectionConfig
    from semicdvl.training.self_training import AdaptConfig
    from semicdvl.training.self_training import adapt as adapt_to
    from semicdvl.training.self_training.labels import default_gamma_of
    from semicdvl.training.self_training.run import check_adapt_output, detect_with_adapted

    check_adapt_output(detect, output)
    words, asked = prompts_from(find, background, prompts), build_vlm(vlm, vlm_from, device, dtype, vlm_set)
    beyond = {"shift_px": shift_px, "replaced_iou": replaced_iou, "replaced_class": replaced_class}
    both = {name: default_gamma_of(asked) if gamma is None else gamma for name in ("gamma", "gamma_segmentation")}
    ceg = ceg_settings(asked, level=level.value, delta=delta, **both, **beyond)
    config = AdaptConfig(
        patches=patches,
        patch_px=patch_px,
        crop_px=min(patch_px, AdaptConfig.crop_px),
        steps=steps,
        seed=seed,
        backbone=backbone,
        pretrained=pretrained,
        device=device or "auto",
        detection=DetectionConfig(
            gsd_m=gsd,
            bands=numbers_in(bands, "--bands"),
            after_bands=numbers_in(after_bands, "--after-bands"),
            grid=grid,
            normalise=normalise.value,
            align=align,
        ),
    )
    adapted = adapt_to(before, after, output, vlm=asked, prompts=words, ceg=ceg, config=config)
    out.print(adapted.summary, highlight=False, soft_wrap=True, markup=False)
    if detect is not None:
        result = detect_with_adapted(adapted, before, after, detect)
        out.print(result.format_text(), highlight=False, soft_wrap=True)
