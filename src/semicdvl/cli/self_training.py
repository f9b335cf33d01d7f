"""The command that trains on two rasters without a label: adapt."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

import semicdvl as cd
from semicdvl.ceg.config import choose_learning_level
from semicdvl.cli.app import ADVANCED, OUTPUT, TARGET, TRAINING, app, out
from semicdvl.cli.options import (
    CEGOptions,
    Combination,
    Level,
    PairArguments,
    PromptOptions,
    ReadingOptions,
    VLMOptions,
    expand_option_groups,
    list_values,
)


@dataclass(frozen=True)
class AdaptCEGOptions(CEGOptions):
    """Change event generation for the labels that a pair is learned from."""

    learned = True

    level: Annotated[
        Level | None,
        typer.Option(
            help="Level of the change label that is learned: by default residual, which is the map of `detect`, or "
            "mixed where --gamma or an option of whole objects is given",
            rich_help_panel=TARGET,
        ),
    ] = None
    gamma: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            help="Level mixed and pixel: confidence threshold, answers are learned from this score on; by default 0.4 "
            "of the VLM's own",
            rich_help_panel=TARGET,
        ),
    ] = None

    @property
    def segmentation_settings(self) -> dict[str, float]:
        """The threshold of the single-date labels, which is that of the change label."""
        return {} if self.gamma is None else {"gamma_segmentation": self.gamma}

    @property
    def map_settings(self) -> dict[str, Any] | None:
        """The settings of the map that is learned, for `detect`; None: the labels are no such map."""
        learned = self.settings.get("level") or choose_learning_level(self.settings)
        return self.settings if learned == "residual" else None


@dataclass(frozen=True)
class TrainingOptions:
    """Patches, network and length of the training."""

    patches: Annotated[
        int,
        typer.Option(
            min=1, help="Largest number of training patches; the VLM sees up to twice as many", rich_help_panel=ADVANCED
        ),
    ] = 400
    patch_px: Annotated[int, typer.Option(min=32, help="Side of a patch in pixels", rich_help_panel=ADVANCED)] = 256
    steps: Annotated[int, typer.Option(min=1, help="Number of training steps", rich_help_panel=ADVANCED)] = 240
    seed: Annotated[int, typer.Option(min=0, help="Seed of the training", rich_help_panel=ADVANCED)] = 0
    backbone: Annotated[
        str,
        typer.Option(
            help="Encoder: aerial is the embedded VLM's own; else efficientnet_lite0 or one of timm",
            rich_help_panel=ADVANCED,
        ),
    ] = "aerial"
    pretrained: Annotated[
        str,
        typer.Option(help="Weights that another encoder starts from: imagenet, none, a file", rich_help_panel=ADVANCED),
    ] = "imagenet"

    def to_config(self, detection: cd.DetectionConfig, device: str | None) -> cd.AdaptConfig:
        """Return the settings of the adaptation; `detection` says how the pair is read."""
        return cd.AdaptConfig(
            **list_values(self),
            crop_px=min(self.patch_px, cd.AdaptConfig.crop_px),
            device=device or "auto",
            detection=detection,
        )


@app.command(name="adapt", rich_help_panel=TRAINING)
@expand_option_groups
def adapt_command(
    pair: PairArguments,
    output: Annotated[
        Path,
        typer.Option("--output", "-o", help="Run directory; an interrupted run is resumed", rich_help_panel=OUTPUT),
    ],
    prompts: PromptOptions,
    vlm: VLMOptions,
    ceg: AdaptCEGOptions,
    reading: ReadingOptions,
    training: TrainingOptions,
    detect: Annotated[
        Path | None,
        typer.Option(
            help="Also map the change of this pair, and write the result to this folder", rich_help_panel=OUTPUT
        ),
    ] = None,
    combine: Annotated[
        Combination,
        typer.Option(
            help="With --detect: the map of `detect` with the network's outlines, its further objects, or both; or the "
            "network's own map",
            rich_help_panel=OUTPUT,
        ),
    ] = Combination.both,
) -> None:
    """Train a small network on two rasters without a label: a VLM's reliable answers are its labels.

    The network sees both dates together, where the VLM sees each by itself, and learns from the whole pair at once.
    An interrupted run resumes with the same command. --detect OUT maps the pair: the map of `semicdvl detect`, from
    which the network has learned, with wider outlines and further objects that the network is sure of. The network's
    own map (--combine network, or `semicdvl detect --model RUN` on any pair) is not as good.
    """
    from semicdvl.training.self_training.run import check_adapt_output, detect_with_adapted

    check_adapt_output(detect, output)
    asked = prompts.resolve(vlm.vlm)
    adapted = cd.adapt(
        pair.before,
        pair.after,
        output,
        vlm=vlm.make_builder(),
        prompts=asked,
        ceg=ceg.settings | ceg.segmentation_settings,
        config=training.to_config(cd.DetectionConfig(**reading.config_fields), vlm.device),
    )
    out.print(adapted.summary, soft_wrap=True)
    if detect is not None:
        base = None
        if combine != Combination.network:
            base = cd.create_vlm_detector(vlm.make_builder(), prompts=asked, ceg=ceg.map_settings)
        saved = detect_with_adapted(adapted, pair.before, pair.after, detect, base=base, combination=combine.value)
        out.print(saved.format_text(), soft_wrap=True)
