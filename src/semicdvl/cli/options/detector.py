"""Options of what detects the change: a trained network, an unsupervised method, or a VLM with change events."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import semicdvl as cd
from semicdvl.ceg.config import RESIDUAL_OPTIONS
from semicdvl.cli.app import ADVANCED, OUTPUT, TARGET
from semicdvl.cli.options.ceg import CEGOptions, FeatureOptions
from semicdvl.cli.options.groups import list_given_options
from semicdvl.cli.options.vlm import PromptOptions, VLMOptions

if TYPE_CHECKING:
    from semicdvl import Detector

VLM_OPTIONS = (
    *("find", "background", "prompts", "vlm", "vlm_from", "dtype", "vlm_set", "level", "gamma", "delta"),
    *("instance_score", "shift_px", "replaced_iou", "replaced_class", "min_cosine", "features", "calibrate"),
    *("class_score", "cache", *RESIDUAL_OPTIONS),
)
"""Options of a VLM and of change event generation."""
TRAINED_NETWORK_OPTIONS = ("precision", "compiled", "trust", "decide", "combine")
"""Options of a trained network."""


class Deciding(StrEnum):
    """Which heads of a trained network decide what has changed."""

    change = "change"
    both = "both"


class Combination(StrEnum):
    """Which map a trained network gives of a pair."""

    network = "network"
    both = "both"
    outlines = "outlines"
    objects = "objects"


class Precision(StrEnum):
    """Number types that a trained network computes with."""

    fp32 = "fp32"
    bf16 = "bf16"


@dataclass(frozen=True)
class DetectorOptions:
    """What detects the change."""

    model: Annotated[
        Path | None,
        typer.Option(
            help="A trained run, or a file of `semicdvl export`; without it no labels are needed: VLM and CEG",
            rich_help_panel=TARGET,
        ),
    ] = None
    method: Annotated[
        str | None,
        typer.Option(
            help="An unsupervised method, see `semicdvl list classic`; or package.module:builder",
            rich_help_panel=TARGET,
        ),
    ] = None
    method_set: Annotated[
        list[str] | None,
        typer.Option(
            "--method-set",
            help="An option of the method, key=value: threshold=3, backbone=vgg16",
            rich_help_panel=ADVANCED,
        ),
    ] = None
    calibrate: Annotated[
        bool,
        typer.Option(
            help="Without labels: give objects a calibrated probability of change; keep those from 0.5 on",
            rich_help_panel=TARGET,
        ),
    ] = False
    class_score: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            help="Without labels: the class of an object before or after is 'unsure' below this mean score; 0 always "
            "names one; by default what the VLM was measured to need",
            rich_help_panel=TARGET,
        ),
    ] = None
    cache: Annotated[
        Path | None,
        typer.Option(
            "--cache",
            help="Without labels: a folder that keeps the VLM's answers, so that the same images with other words, "
            "thresholds or rules take seconds; at most 20 GiB, and it may be deleted at any time",
            rich_help_panel=OUTPUT,
        ),
    ] = None
    combine: Annotated[
        Combination,
        typer.Option(
            help="Which map a trained network gives: its own, or the map without labels (with the options of the VLM) "
            "with its outlines, its further objects, or both: for a run of `adapt` on its own pair",
            rich_help_panel=TARGET,
        ),
    ] = Combination.network
    precision: Annotated[
        Precision,
        typer.Option(
            help="Number type that a trained network computes with; bf16 is faster where the CPU has AMX",
            rich_help_panel=ADVANCED,
        ),
    ] = Precision.fp32
    decide: Annotated[
        Deciding,
        typer.Option(
            help="Which heads of a trained network decide what has changed: the change head, or both: where it says so "
            "and the classes of the dates differ",
            rich_help_panel=TARGET,
        ),
    ] = Deciding.change
    compiled: Annotated[
        bool,
        typer.Option(
            "--compile", help="Compile a trained network: slow to start, needs a C++ compiler", rich_help_panel=ADVANCED
        ),
    ] = False

    def make_builder(
        self,
        prompts: PromptOptions,
        vlm: VLMOptions,
        ceg: CEGOptions,
        features: FeatureOptions,
        *,
        trust: Sequence[str],
    ) -> Callable[[], Detector]:
        """Return what builds the detector that the options name, in this process or in a worker."""
        if self.method is not None:
            from semicdvl.detection.detectors.unsupervised import parse_method_options

            return partial(cd.create_detector, self.method, **parse_method_options(self.method_set))
        network = partial(
            cd.load_detector,
            self.model or "",
            device=vlm.device or "auto",
            precision=self.precision.value,
            compiled=self.compiled,
            trust=trust,
            decide=self.decide.value,
        )
        if self.model is not None and self.combine == Combination.network:
            return network
        base = partial(
            cd.create_vlm_detector,
            vlm.make_builder(),
            prompts=prompts.resolve(vlm.vlm),
            ceg=ceg.settings | features.settings,
            features=features.features,
            calibrate=self.calibrate,
            class_score=self.class_score,
            cache=self.cache,
        )
        return base if self.model is None else partial(build_combined, base, network, self.combine.value)

    def refuse_unused(self, context: typer.Context) -> None:
        """Refuse options that were given and that the chosen detector does not use, and two detectors at once.

        Raises:
            ConfigError: there is such an option; the text names it.
        """
        model, method = self.model, self.method
        if model is not None and method is not None:
            raise cd.ConfigError(f"--model {model} and --method {method} exclude each other. Give one of them.")
        if self.method_set and method is None:
            raise cd.ConfigError(f"--method-set {self.method_set[0]} needs --method, see `semicdvl list classic`.")
        given = list_given_options(context)
        of_networks, of_vlms = (
            next((given[name] for name in names if name in given), None)
            for names in (TRAINED_NETWORK_OPTIONS, VLM_OPTIONS)
        )
        if of_networks is not None and model is None:
            raise cd.ConfigError(f"{of_networks} is for trained networks. Give --model, or leave out {of_networks}.")
        if method is None and (model is None or self.combine != Combination.network):
            return
        used = f"--model {model}" if model is not None else f"--method {method}"
        if of_vlms is not None:
            raise cd.ConfigError(
                f"{of_vlms} is for detection with a vision-language model, which {used} does not use. "
                "Leave out one of the two."
            )
        if method is not None and "device" in given:
            raise cd.ConfigError(
                f"--device has no effect on {used}. Give --method-set device=cuda for methods with a network."
            )


def build_combined(base: Callable[[], Detector], network: Callable[[], Detector], combination: str) -> Detector:
    """Build two detectors and combine them."""
    return cd.combine_detectors(base(), network(), combination=combination)
