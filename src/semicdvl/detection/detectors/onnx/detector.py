"""Detect change with a trained network in an ONNX file, run by ONNX Runtime without torch.

The file is self-contained: `semicdvl export` stores in its metadata how images are normalised, how values of more than
8 bits become grey values, and what is changed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semicdvl.atomic_files import hash_file
from semicdvl.detection.detectors.date_classes import DateClasses, DecidingHeads
from semicdvl.detection.detectors.onnx.metadata import METADATA_KEY, read_metadata
from semicdvl.detection.detectors.onnx.session import open_session, run_session
from semicdvl.detection.detectors.trained import HeadAgreement, TrainedDetector, check_deciding_heads
from semicdvl.errors import CheckpointError, ConfigError
from semicdvl.raster.io.pair_stretch import format_stretch
from semicdvl.raster.stored_values import Stretch
from semicdvl.reading.json_files import shorten
from semicdvl.reading.onnx_graphs import check_onnx_graph
from semicdvl.reading.regular_files import require_file_or_folder
from semicdvl.types import InputBands

INPUT_NAMES, OUTPUT_NAME = ("t1_BCHW", "t2_BCHW"), "change_BKHW"
CLASS_OUTPUT_NAMES = ("t1_BKHW", "t2_BKHW")
"""Further outputs of a file that was exported with the segmentation heads."""


@dataclass(frozen=True)
class OnnxDetector(TrainedDetector):
    """Detect change with a trained network in an ONNX file.

    Attributes:
        session: the ONNX Runtime session of the file.
        name: the file, for reports.
        metadata: the file's metadata.
        digest: SHA-256 of the file.
        deciding: which heads decide what has changed.
        agreement: how far the heads agreed on the last raster.
    """

    stored_kind = "semicdvl.predict.onnx_detector.OnnxDetector"

    session: Any
    name: str
    metadata: dict[str, Any]
    digest: str
    deciding: DecidingHeads = "change"
    agreement: HeadAgreement = field(default_factory=HeadAgreement, compare=False, repr=False)

    @property
    def input_bands(self) -> InputBands | None:
        """The bands that the network was trained with; None: RGB."""
        numbers = self.metadata.get("bands")
        mean, std = (tuple(self.metadata[name]) for name in ("mean", "std"))
        return None if numbers is None else InputBands(tuple(numbers), mean, std)

    @property
    def date_classes(self) -> DateClasses | None:
        """The classes of each date; None for a file with the change head alone."""
        stored = self.metadata.get("date_classes")
        return (
            None
            if stored is None
            else DateClasses(tuple(stored["names"]), tuple(stored["foreground"]), stored["named"])
        )

    @property
    def stretch(self) -> str | None:  # type: ignore[override]  # the base class has a plain attribute
        """Limits of the grey values that the network was trained with, where the images had more than 8 bits."""
        stored = self.metadata.get("stretch")
        return None if stored is None else format_stretch(Stretch(np.array(stored["low"]), np.array(stored["high"])))

    @property
    def identity(self) -> str:
        """Hash of the file and the execution providers."""
        both = " both" if self.deciding == "both" else ""
        return f"{self.digest} {' '.join(self.session.get_providers())}{both}"

    @property
    def threshold(self) -> float:
        """Smallest probability of a changed pixel."""
        return float(self.metadata["threshold"])

    def description(self) -> dict[str, str]:
        """Return name, origin and threshold."""
        recipe = self.metadata.get("recipe", {})
        parts = {kind.capitalize(): shorten(recipe[kind].get("name")) for kind in ("method", "model") if kind in recipe}
        return (
            {
                "Detector": f"trained network, ONNX Runtime ({', '.join(self.session.get_providers())})",
                "File": f"{self.name}, SHA-256 {self.digest[:12]}",
                "Run": shorten(self.metadata.get("run")),
            }
            | self.describe_decision()
            | ({"Stretch of the training": self.stretch} if self.stretch else {})
            | parts
        )

    def predict_scores(
        self, t1_HWC: NDArray[Any], t2_HWC: NDArray[Any], *, gsd_m: float | None = None
    ) -> NDArray[np.float32]:
        """Return P(changed), and the maps of the classes of each date where the file has them, as PHW.

        The network works at the resolution of the images, so `gsd_m` is not used.
        """
        height, width = t1_HWC.shape[:2]
        dates = {
            name: self._prepare_image(image_HWC) for name, image_HWC in zip(INPUT_NAMES, (t1_HWC, t2_HWC), strict=True)
        }
        wanted = [OUTPUT_NAME, *(CLASS_OUTPUT_NAMES if self.date_classes else ())]
        outputs = run_session(self.session, self.name, wanted, dates)
        size = dates[INPUT_NAMES[0]].shape[2:]
        if not all(_are_logits(each, size) for each in outputs) or outputs[0].shape[1] != 2:
            raise CheckpointError(f"{self.name}: its network gives no logits of a change. Export it again.")
        (unchanged_HW, changed_HW), *dates_KHW = (each[0, :, :height, :width] for each in outputs)
        with np.errstate(over="ignore"):  # exp of a large number is infinite, and 1 / infinity = 0 is right
            share_HW = 1 / (1 + np.exp(unchanged_HW - changed_HW))
        return self.stack_score_maps(share_HW, [_softmax(each) for each in dates_KHW])

    def _prepare_image(self, image_HWC: NDArray[Any]) -> NDArray[np.float32]:
        """Return an image as the network expects it: normalised BCHW, mirrored at its end to a possible size."""
        if image_HWC.shape[2] != len(self.metadata["mean"]):
            raise ConfigError(
                f"{self.name}: needs {len(self.metadata['mean'])} bands, but the images have {image_HWC.shape[2]}. "
                "Choose bands with --bands."
            )
        if self.input_bands is not None:
            image = self.input_bands.standardise(image_HWC)
        else:
            mean_C, std_C = (np.array(self.metadata[name], np.float32) for name in ("mean", "std"))
            image = (image_HWC.astype(np.float32) / np.float32(255) - mean_C) / std_C
        add_px = [-side % self.metadata["multiple_px"] for side in image.shape[:2]]
        if any(add_px):
            image = np.pad(image, ((0, add_px[0]), (0, add_px[1]), (0, 0)), mode="symmetric")
        return np.ascontiguousarray(image.transpose(2, 0, 1)[None])


def _are_logits(values: Any, size: tuple[int, ...]) -> bool:
    """Tell whether an output of a network is one map per class of finite fractions, of the size of the image."""
    is_map = isinstance(values, np.ndarray) and values.dtype.kind == "f" and values.ndim == 4
    return bool(is_map and values.shape[0] == 1 and values.shape[2:] == size and np.isfinite(values).all())


def _softmax(logits_KHW: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the probabilities of the classes."""
    raised_KHW = np.exp(logits_KHW - logits_KHW.max(axis=0))
    probability_KHW: NDArray[np.float32] = raised_KHW / raised_KHW.sum(axis=0)
    return probability_KHW


def build_onnx_detector(path: Path, *, device: str = "auto", deciding: DecidingHeads = "change") -> OnnxDetector:
    """Return the detector of an ONNX file that `semicdvl export` wrote.

    Args:
        path: the file.
        device: "auto" uses a GPU where onnxruntime supports one; "cpu", "cuda".
        deciding: which heads decide; "both" needs a file that was exported with the segmentation heads.

    Raises:
        CheckpointError: the file does not exist or is not of this program.
        ConfigError: a device that onnxruntime does not support here.
        MissingExtraError: onnxruntime is not installed.
    """
    require_file_or_folder(path, remedy="Make it with `semicdvl export RUN --to onnx`")
    if not path.is_file():
        raise CheckpointError(f"{path}: does not exist. Make it with `semicdvl export RUN --to onnx`.")
    check_onnx_graph(path)
    session = open_session(path, device=device)
    text = session.get_modelmeta().custom_metadata_map.get(METADATA_KEY)
    if text is None:
        raise CheckpointError(f"{path}: is an ONNX file of another program. Give one that `semicdvl export` wrote.")
    about = read_metadata(path, text)
    if not _fits(session, with_classes=about.get("date_classes") is not None):
        raise CheckpointError(f"{path}: does not map two images to the logits of a change. Export it again.")
    detector = OnnxDetector(session, str(path), about, hash_file(path), deciding)
    check_deciding_heads(deciding, detector.date_classes, path)
    return detector


def _fits(session: Any, *, with_classes: bool) -> bool:
    """Tell whether a session takes two dates of three bands and gives logits a pixel, as far as its shapes say."""
    takes = {one.name: one.shape for one in session.get_inputs()}
    gives = {one.name: one.shape for one in session.get_outputs()}
    wanted = {OUTPUT_NAME, *(CLASS_OUTPUT_NAMES if with_classes else ())}
    if set(takes) != set(INPUT_NAMES) or set(gives) != wanted:
        return False
    return all(len(shape) == 4 for shape in (*takes.values(), *gives.values()))
