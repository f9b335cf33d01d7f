"""Detect change with a trained network in an ONNX file, run by ONNX Runtime without torch.

The file is self-contained: `semicdvl export` stores in its metadata how images are normalised and what is changed.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semicdvl.atomic_files import hash_file
from semicdvl.errors import CheckpointError, ConfigError, MissingExtraError
from semicdvl.types import IGNORE, ChangeMap, Detector, ScoreStrips

METADATA_KEY = "semicdvl"
"""Key of the metadata."""
METADATA_VERSION = 1
INPUT_NAMES, OUTPUT_NAME = ("t1_BCHW", "t2_BCHW"), "change_BKHW"
ONNX_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


@dataclass(frozen=True)
class OnnxDetector(Detector):
    """A network in an ONNX file: its score map is the probability of change; pixels from `threshold` on are changed.

    Attributes:
        session: the ONNX Runtime session of the file.
        name: the file, for reports.
        metadata: the file's metadata.
        digest: SHA-256 of the file.
    """

    map_count = 1
    max_bands = 3
    stored_kind = "semicdvl.predict.onnx_detector.OnnxDetector"

    session: Any
    name: str
    metadata: dict[str, Any]
    digest: str

    @property
    def identity(self) -> str:
        """Hash of the file and the execution providers."""
        return f"{self.digest} {' '.join(self.session.get_providers())}"

    @property
    def threshold(self) -> float:
        """Smallest probability of a changed pixel."""
        return float(self.metadata["threshold"])

    def description(self) -> dict[str, str]:
        """Return name, origin and threshold."""
        parts = {kind.capitalize(): str(part.get("name")) for kind, part in self.metadata.get("recipe", {}).items()}
        return {
            "Detector": f"trained network, ONNX Runtime ({', '.join(self.session.get_providers())})",
            "File": f"{self.name}, SHA-256 {self.digest[:12]}",
            "Run": str(self.metadata.get("run")),
            "Threshold": f"{self.threshold:g}",
        } | parts

    def predict_scores(
        self, t1_HWC: NDArray[np.uint8], t2_HWC: NDArray[np.uint8], *, gsd_m: float | None = None
    ) -> NDArray[np.float32]:
        """Return P(changed) as 1HW; the network works at the resolution of the images, so `gsd_m` is not used."""
        height, width = t1_HWC.shape[:2]
        dates = {
            name: self._prepare_image(image_HWC) for name, image_HWC in zip(INPUT_NAMES, (t1_HWC, t2_HWC), strict=True)
        }
        (logits_BKHW,) = self.session.run([OUTPUT_NAME], dates)
        unchanged_HW, changed_HW = logits_BKHW[0, :, :height, :width]
        with np.errstate(over="ignore"):  # exp of a large number is infinite, and 1 / infinity = 0 is right
            share_HW = 1 / (1 + np.exp(unchanged_HW - changed_HW))
        planes_PHW: NDArray[np.float32] = share_HW[None].astype(np.float32)
        return planes_PHW

    def _prepare_image(self, image_HWC: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return an image as the network expects it: normalised BCHW, mirrored at its end to a possible size."""
        if image_HWC.shape[2] != len(self.metadata["mean"]):
            raise ConfigError(
                f"{self.name}: needs {len(self.metadata['mean'])} bands, but the images have {image_HWC.shape[2]}. "
                "Choose bands with --bands."
            )
        mean_C, std_C = (np.array(self.metadata[name], np.float32) for name in ("mean", "std"))
        image = (image_HWC.astype(np.float32) / np.float32(255) - mean_C) / std_C
        add_px = [-side % self.metadata["multiple_px"] for side in image.shape[:2]]
        if any(add_px):
            image = np.pad(image, ((0, add_px[0]), (0, add_px[1]), (0, 0)), mode="symmetric")
        return np.ascontiguousarray(image.transpose(2, 0, 1)[None])

    def decide(self, strips: ScoreStrips) -> Iterator[ChangeMap]:
        """Yield where the probability reaches the threshold; the score is the probability."""
        for strip in strips:
            probability_HW, valid_HW = strip.scores_PHW[0], strip.valid_HW
            change_HW = np.where(valid_HW, probability_HW >= self.threshold, np.uint8(IGNORE)).astype(np.uint8)
            yield ChangeMap(change_HW, np.where(valid_HW, probability_HW, np.float32(np.nan)).astype(np.float32))


def build_onnx_detector(path: Path, *, device: str = "auto") -> OnnxDetector:
    """Return the detector of an ONNX file that `semicdvl export` wrote.

    Args:
        path: the file.
        device: "auto" uses a GPU where onnxruntime supports one; "cpu", "cuda".

    Raises:
        CheckpointError: the file does not exist or is not of this program.
        ConfigError: a device that onnxruntime does not support here.
        MissingExtraError: onnxruntime is not installed.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: does not exist. Make it with `semicdvl export RUN --to onnx`.")
    session = open_session(path, device=device)
    text = session.get_modelmeta().custom_metadata_map.get(METADATA_KEY)
    if text is None:
        raise CheckpointError(f"{path}: is an ONNX file of another program. Give one that `semicdvl export` wrote.")
    about = json.loads(text)
    if about.get("version") != METADATA_VERSION:
        raise CheckpointError(
            f"{path}: is an ONNX file of version {about.get('version')}, but this program reads version "
            f"{METADATA_VERSION}. Export it again."
        )
    return OnnxDetector(session, str(path), about, hash_file(path))


def open_session(path: Path, *, device: str) -> Any:
    """Open a file with ONNX Runtime, with OMP_NUM_THREADS threads if that is set.

    Raises:
        CheckpointError: it is not ONNX.
        ConfigError: a device that onnxruntime does not support here.
        MissingExtraError: onnxruntime is not installed.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingExtraError("ONNX files need onnxruntime. Install semicdvl[onnx].") from error
    from onnxruntime.capi import onnxruntime_pybind11_state as refusals

    has = onnxruntime.get_available_providers()
    usable = [name for name, provider in ONNX_PROVIDERS.items() if provider in has]
    if device != "auto" and device not in usable:
        raise ConfigError(f"onnxruntime has no device '{device}' here. Give one of {', '.join(usable)}.")
    chosen = list(reversed(usable)) if device == "auto" else [device]
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = int(os.environ.get("OMP_NUM_THREADS", "0") or 0)
    options.log_severity_level = 4  # silent: errors are raised
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=[ONNX_PROVIDERS[name] for name in chosen])
    except (refusals.InvalidProtobuf, refusals.InvalidGraph, refusals.Fail, refusals.NotImplemented) as error:
        reason = str(error).strip().splitlines()[0]
        raise CheckpointError(f"{path}: cannot be read as ONNX ({reason}). Export it again.") from error
