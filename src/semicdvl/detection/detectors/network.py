"""Detect change with a trained network."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from semicdvl.detection.detectors.onnx import build_onnx_detector
from semicdvl.detection.detectors.vlm_ceg import VLMDetector, build_vlm_detector
from semicdvl.errors import ConfigError
from semicdvl.types import IGNORE, IMAGENET_MEAN, IMAGENET_STD, ChangeMap, Detector, ScoreStrips

if TYPE_CHECKING:
    from torch import nn

    from semicdvl.detection.detectors.inference import Precision

__all__ = [
    "NetworkDetector",
    "VLMDetector",
    "build_network_detector",
    "build_vlm_detector",
]


# ------------------------------------------------------------------------------------------------ trained
@dataclass(frozen=True)
class NetworkDetector(Detector):
    """A trained network: its score map is the probability of change, and pixels from `threshold` on are changed.

    Attributes:
        network: in eval mode, with the call of `semicdvl.types.Network`.
        name: for reports, such as the run's folder.
        threshold: smallest probability of a changed pixel; 0.5 is the argmax of the two classes.
        details: further lines of the report, label -> text.
    """

    map_count = 1
    max_bands = 3
    stored_kind = "semicdvl.predict.detector.NetworkDetector"

    network: nn.Module
    name: str = "network"
    threshold: float = 0.5
    details: dict[str, str] = field(default_factory=dict)

    @property
    def identity(self) -> str:
        """Hash of weights, buffers and details; the name of the run does not matter."""
        import torch

        digest = hashlib.sha256(repr(sorted(self.details.items())).encode())
        for key, value in self.network.state_dict().items():
            raw = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
            digest.update(f"{key} {tuple(value.shape)} {value.dtype}".encode() + raw.tobytes())
        return digest.hexdigest()

    def description(self) -> dict[str, str]:
        """Return name, size and threshold."""
        count = sum(parameter.numel() for parameter in self.network.parameters())
        return {
            "Detector": f"trained network, {_network_class_name(self.network)}, {count / 1e6:.1f} M parameters",
            "Run": self.name,
            "Threshold": f"{self.threshold:g}",
        } | self.details

    def predict_scores(
        self, t1_HWC: NDArray[np.uint8], t2_HWC: NDArray[np.uint8], *, gsd_m: float | None = None
    ) -> NDArray[np.float32]:
        """Return P(changed) as 1HW; the network works at the resolution of the images, so `gsd_m` is not used."""
        import torch

        device = next(self.network.parameters()).device
        with torch.inference_mode():
            dates_BCHW = [_normalise_image(image_HWC, device) for image_HWC in (t1_HWC, t2_HWC)]
            logits_BKHW = self.network(*dates_BCHW, heads=frozenset({"change"})).change_BKHW
            changed_BHW = logits_BKHW.float().softmax(dim=1)[:, 1]
        planes_PHW: NDArray[np.float32] = changed_BHW.cpu().numpy()
        return planes_PHW

    def decide(self, strips: ScoreStrips) -> Iterator[ChangeMap]:
        """Yield where the probability reaches the threshold; the score is the probability."""
        for strip in strips:
            probability_HW, valid_HW = strip.scores_PHW[0], strip.valid_HW
            change_HW = np.where(valid_HW, probability_HW >= self.threshold, np.uint8(IGNORE)).astype(np.uint8)
            yield ChangeMap(change_HW, np.where(valid_HW, probability_HW, np.float32(np.nan)).astype(np.float32))


def _network_class_name(network: nn.Module) -> str:
    """Return the name of a network's class, also of one that was prepared for inference."""
    return type(getattr(network, "network", network)).__name__


def _normalise_image(image_HWC: NDArray[np.uint8], device: Any) -> Any:
    """Return an image as networks expect it: float BCHW, RGB / 255, normalised with ImageNet mean and deviation."""
    import torch

    image_CHW = torch.from_numpy(np.ascontiguousarray(image_HWC)).to(device).permute(2, 0, 1).float() / 255
    mean_C11, std_C11 = (torch.tensor(values, device=device)[:, None, None] for values in (IMAGENET_MEAN, IMAGENET_STD))
    return ((image_CHW - mean_C11) / std_C11)[None].contiguous(memory_format=torch.channels_last)


def build_network_detector(
    run: Path,
    *,
    device: str = "auto",
    threshold: float = 0.5,
    precision: Precision = "fp32",
    compiled: bool = False,
    trust: Sequence[str] = (),
) -> Detector:
    """Return the detector of a trained run.

    Args:
        run: a folder that `semicdvl train` wrote, or a file that `semicdvl export` wrote, which holds its threshold.
        device: "auto" uses a GPU where there is one.
        threshold: smallest probability of a changed pixel.
        precision: "fp32" is exact to rounding, "bf16" is not; see `detection.detectors.inference`.
        compiled: compile the network at its first tile.
        trust: modules whose networks the run may name, see `registry.Origin`.

    Raises:
        CheckpointError: `run` is not such a folder or file.
        ConfigError: an ONNX file together with `precision` or `compiled`.
        MissingExtraError: there is no C++ compiler, or onnxruntime is not installed.
    """
    if run.suffix == ".onnx":
        if precision != "fp32" or compiled:
            raise ConfigError(
                f"{run}: an ONNX file cannot be changed. Leave out --precision and --compile, or give the run."
            )
        return build_onnx_detector(run, device=device)
    import torch

    from semicdvl.checkpoint import load_network, read_run
    from semicdvl.detection.detectors.inference import prepare_for_inference

    chosen = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    recipe = read_run(run).get("recipe", {})
    details = {key.capitalize(): str(recipe[key]["name"]) for key in ("method", "model") if key in recipe}
    loaded = load_network(run, device=chosen, trust=trust)
    network = prepare_for_inference(loaded, precision=precision, compiled=compiled)
    return NetworkDetector(network, str(run), threshold, details | {"Inference": network.description})
