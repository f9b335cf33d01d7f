"""Detect change with a trained network."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from semicdvl.detection.detectors.date_classes import DateClasses, DecidingHeads, read_date_classes
from semicdvl.detection.detectors.onnx.detector import build_onnx_detector
from semicdvl.detection.detectors.trained import HeadAgreement, TrainedDetector, check_deciding_heads
from semicdvl.errors import ConfigError
from semicdvl.models.common.contract import set_ground_sampling
from semicdvl.models.common.heads import read_heads
from semicdvl.raster.io.pair_stretch import format_stretch
from semicdvl.types import Detector, InputBands

if TYPE_CHECKING:
    from torch import nn

    from semicdvl.detection.detectors.inference import Precision


@dataclass(frozen=True)
class NetworkDetector(TrainedDetector):
    """Detect change with a trained network that torch runs.

    Attributes:
        network: a `semicdvl.types.Network` in eval mode, as `inference.prepare_for_inference` returns it.
        name: for reports, such as the run's folder.
        threshold: smallest probability of a changed pixel; 0.5 is the argmax of the two classes.
        details: further lines of the report, label -> text.
        stretch: limits of the grey values that it was trained with, where the images had more than 8 bits.
        input_bands: the bands that it was trained with, whose values are standardised; None: RGB.
        classes: of the dates; None: background and foreground, where there is a segmentation head.
        deciding: which heads decide what has changed.
        agreement: how far the heads agreed on the last raster.
    """

    stored_kind = "semicdvl.predict.detector.NetworkDetector"

    network: nn.Module
    name: str = "network"
    threshold: float = 0.5
    details: dict[str, str] = field(default_factory=dict)
    stretch: str | None = None
    classes: DateClasses | None = None
    input_bands: InputBands | None = None
    deciding: DecidingHeads = "change"
    agreement: HeadAgreement = field(default_factory=HeadAgreement, compare=False, repr=False)

    @property
    def date_classes(self) -> DateClasses | None:
        """The classes of each date, which are kept beside the change; None without a segmentation head."""
        return (self.classes or DateClasses()) if "segmentation" in read_heads(self.network) else None

    @property
    def identity(self) -> str:
        """Hash of weights, buffers and details; the name of the run does not matter."""
        import torch

        digest = hashlib.sha256(repr(sorted(self.details.items())).encode())
        if self.input_bands is not None:
            digest.update(repr(self.input_bands).encode())
        for key, value in self.network.state_dict().items():
            raw = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
            digest.update(f"{key} {tuple(value.shape)} {value.dtype}".encode() + raw.tobytes())
        return digest.hexdigest() + (" both" if self.deciding == "both" else "")

    def description(self) -> dict[str, str]:
        """Return name, size and threshold."""
        from semicdvl.detection.detectors.inference import InferenceNetwork

        network = self.network.network if isinstance(self.network, InferenceNetwork) else self.network
        count = sum(parameter.numel() for parameter in self.network.parameters())
        return (
            {
                "Detector": f"trained network, {type(network).__name__}, {count / 1e6:.1f} M parameters",
                "Run": self.name,
            }
            | self.describe_decision()
            | self.details
        )

    def predict_scores(
        self, t1_HWC: NDArray[Any], t2_HWC: NDArray[Any], *, gsd_m: float | None = None
    ) -> NDArray[np.float32]:
        """Return P(changed), and the maps of the classes of each date where they are known, as PHW.

        A network works at the resolution of the images; one that measures in metres is told `gsd_m` where it is known.
        """
        import torch

        from semicdvl.models.common.images import normalise_image

        if gsd_m is not None:
            set_ground_sampling(self.network, gsd_m)
        device, classes = next(self.network.parameters()).device, self.date_classes
        with torch.inference_mode():
            dates_BCHW = [
                normalise_image(image_HWC, device=device, bands=self.input_bands) for image_HWC in (t1_HWC, t2_HWC)
            ]
            heads = frozenset({"change"} if classes is None else {"change", "segmentation"})
            found = self.network(*dates_BCHW, heads=heads)
            logits = [found.change_BKHW, *([] if classes is None else (found.t1_BKHW, found.t2_BKHW))]
            change_KHW, *dates_KHW = [logits_BKHW.float().softmax(dim=1)[0].cpu().numpy() for logits_BKHW in logits]
        return self.stack_score_maps(change_KHW[1], dates_KHW)


def build_network_detector(
    run: Path,
    *,
    device: str = "auto",
    threshold: float = 0.5,
    precision: Precision = "fp32",
    compiled: bool = False,
    trust: Sequence[str] = (),
    deciding: DecidingHeads = "change",
) -> Detector:
    """Return the detector of a trained run.

    Args:
        run: a folder that `semicdvl train` wrote, or a file that `semicdvl export` wrote, which holds its threshold.
        device: "auto" uses a GPU where there is one.
        threshold: smallest probability of a changed pixel.
        precision: "fp32" is exact to rounding, "bf16" is not; see `detection.detectors.inference`.
        compiled: compile the network at its first tile.
        trust: modules whose networks the run may name, see `registry.Origin`.
        deciding: "change": the change head decides; "both": the classes of the dates must differ, too.

    Raises:
        CheckpointError: `run` is not such a folder or file.
        ConfigError: an ONNX file together with `precision` or `compiled`, or classes that decide where there are none.
        MissingExtraError: there is no C++ compiler, or onnxruntime is not installed.
    """
    if run.suffix == ".onnx":
        if precision != "fp32" or compiled:
            raise ConfigError(
                f"{run}: an ONNX file cannot be changed. Leave out --precision and --compile, or give the run."
            )
        return build_onnx_detector(run, device=device, deciding=deciding)
    import torch

    from semicdvl.checkpoint import load_network, read_run, read_run_bands, read_run_stretch
    from semicdvl.detection.detectors.inference import CHANGE_HEAD_ONLY, SEGMENTATION, prepare_for_inference

    chosen = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    record = read_run(run)
    recipe, trained = record.get("recipe", {}), record.get("heads", [])
    details = {key.capitalize(): str(recipe[key]["name"]) for key in ("method", "model") if recipe.get(key)}
    loaded = load_network(run, device=chosen, train_heads=True, trust=trust)
    known = isinstance(trained, list) and "segmentation" in trained and "segmentation" in read_heads(loaded)
    heads = SEGMENTATION if known else CHANGE_HEAD_ONLY
    classes = read_date_classes(recipe) if known else None
    check_deciding_heads(deciding, None if compiled else classes, run)
    bands, trained_with = read_run_bands(record), read_run_stretch(record)
    network = prepare_for_inference(
        loaded, precision=precision, compiled=compiled, heads=heads, bands=3 if bands is None else bands.count
    )
    limits = None if trained_with is None else format_stretch(trained_with)
    details |= {"Inference": network.description} | ({} if limits is None else {"Stretch of the training": limits})
    return NetworkDetector(network, str(run), threshold, details, limits, classes, bands, deciding)
