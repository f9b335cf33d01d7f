"""Detect change with a trained network in an ONNX file, run by ONNX Runtime without torch.

The file is self-contained: `semicdvl export` stores in its metadata how images are normalised, how values of more than
8 bits become grey values, and what is changed.
"""

from __future__ import annotations

import itertools
import mmap
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from semicdvl.atomic_files import hash_file
from semicdvl.detection.detectors.date_classes import DateClasses, DecidingHeads
from semicdvl.detection.detectors.trained import HeadAgreement, TrainedDetector, check_deciding_heads
from semicdvl.errors import CheckpointError, ConfigError, MissingExtraError
from semicdvl.raster.io.pair_stretch import format_stretch
from semicdvl.raster.stored_values import Stretch
from semicdvl.reading.json_files import describe_fault, parse_json, shorten
from semicdvl.reading.regular_files import require_file_or_folder
from semicdvl.types import InputBands
from semicdvl.types.bands import MAX_BANDS, MIN_BANDS
from semicdvl.types.pairs import MAX_CLASSES

METADATA_KEY = "semicdvl"
"""Key of the metadata."""
METADATA_VERSION = 1
INPUT_NAMES, OUTPUT_NAME = ("t1_BCHW", "t2_BCHW"), "change_BKHW"
CLASS_OUTPUT_NAMES = ("t1_BKHW", "t2_BKHW")
"""Further outputs of a file that was exported with the segmentation heads."""
LOOP_FIELD = re.compile(rb"\x22(?:\x04|\x84\x80*\x00)(Loop|Scan)")
"""In protobuf: the fourth field of a node, its operation, of four characters, however their number is written."""
ONNX_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


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
        parts = {kind.capitalize(): str(part.get("name")) for kind, part in self.metadata.get("recipe", {}).items()}
        return (
            {
                "Detector": f"trained network, ONNX Runtime ({', '.join(self.session.get_providers())})",
                "File": f"{self.name}, SHA-256 {self.digest[:12]}",
                "Run": str(self.metadata.get("run")),
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
        try:
            outputs = self.session.run(wanted, dates)
        except Exception as error:  # whatever onnxruntime raises on a network that fits no image
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise CheckpointError(f"{self.name}: its network fails ({reason}). Export it again.") from error
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
    _refuse_loops(path)
    session = open_session(path, device=device)
    text = session.get_modelmeta().custom_metadata_map.get(METADATA_KEY)
    if text is None:
        raise CheckpointError(f"{path}: is an ONNX file of another program. Give one that `semicdvl export` wrote.")
    about = _read_metadata(path, text)
    if not _fits(session, with_classes=about.get("date_classes") is not None):
        raise CheckpointError(f"{path}: does not map two images to the logits of a change. Export it again.")
    detector = OnnxDetector(session, str(path), about, hash_file(path), deciding)
    check_deciding_heads(deciding, detector.date_classes, path)
    return detector


def _refuse_loops(path: Path) -> None:
    """Refuse a file with a loop in its graph: it may never end, not even while it is opened, and cannot be interrupted.

    The field of a node that names its operation is looked for in the bytes; the package `onnx` need not be installed.

    Raises:
        CheckpointError: there is one.
    """
    if not path.stat().st_size:
        return
    with path.open("rb") as handle, mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ) as content:
        loops = [bytes(found[1]).decode() for found in itertools.islice(LOOP_FIELD.finditer(content), 1)]
    if loops:
        raise CheckpointError(
            f"{path}: its network holds a loop ({loops[0]}), which may never end and which `semicdvl export` "
            "does not write. Give a file that it wrote."
        )


class _StoredClasses(BaseModel):
    """The classes of the dates in a file; the names are stored."""

    names: list[str] = Field(min_length=2, max_length=MAX_CLASSES)
    foreground: list[Annotated[int, Field(ge=0, lt=MAX_CLASSES)]] = Field(default_factory=list)
    named: bool = True


class _StoredStretch(BaseModel):
    """The limits of the grey values per band; the names are stored, as in run.json."""

    low: list[float] = Field(min_length=3, max_length=3)
    high: list[float] = Field(min_length=3, max_length=3)

    @model_validator(mode="after")
    def _check_order(self) -> Self:
        if any(low >= high for low, high in zip(self.low, self.high, strict=True)):
            raise ValueError("the low limits must be below the high ones")
        return self


class _Metadata(BaseModel):
    """The metadata of a file; the names are stored."""

    model_config = ConfigDict(extra="allow", allow_inf_nan=False)

    version: int
    mean: list[float] = Field(min_length=MIN_BANDS, max_length=MAX_BANDS)
    std: list[Annotated[float, Field(gt=0)]] = Field(min_length=MIN_BANDS, max_length=MAX_BANDS)
    bands: list[Annotated[int, Field(ge=1)]] | None = None
    threshold: float = Field(ge=0, le=1)
    multiple_px: int = Field(ge=1, le=1024)
    recipe: dict[str, dict[str, Any]] = Field(default_factory=dict)
    run: str | None = None
    date_classes: _StoredClasses | None = None
    stretch: _StoredStretch | None = None

    @model_validator(mode="after")
    def _require_bands(self) -> _Metadata:
        """Refuse statistics of other bands than those that are read."""
        numbers = tuple(self.bands or (1, 2, 3))
        try:
            InputBands(numbers, tuple(self.mean), tuple(self.std))
        except ConfigError as error:
            raise ValueError(str(error)) from None
        return self


def _read_metadata(path: Path, text: str) -> dict[str, Any]:
    """Check what `export` stored in a file and return it.

    Raises:
        CheckpointError: it is of another version, or damaged.
    """
    try:
        about = parse_json(text)
        if isinstance(about, dict) and about.get("version") != METADATA_VERSION:
            raise CheckpointError(
                f"{path}: is an ONNX file of version {shorten(about.get('version'))}, but this program reads version "
                f"{METADATA_VERSION}. Export it again."
            )
        return _Metadata.model_validate(about).model_dump()
    except ValueError as error:
        reason = describe_fault(error) if isinstance(error, ValidationError) else str(error)
        raise CheckpointError(f"{path}: its metadata are damaged ({reason}). Export it again.") from None


def _fits(session: Any, *, with_classes: bool) -> bool:
    """Tell whether a session takes two dates of three bands and gives logits a pixel, as far as its shapes say."""
    takes = {one.name: one.shape for one in session.get_inputs()}
    gives = {one.name: one.shape for one in session.get_outputs()}
    wanted = {OUTPUT_NAME, *(CLASS_OUTPUT_NAMES if with_classes else ())}
    if set(takes) != set(INPUT_NAMES) or set(gives) != wanted:
        return False
    return all(len(shape) == 4 for shape in (*takes.values(), *gives.values()))


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
    except Exception as error:  # onnxruntime has a dozen of its own, and those of the machine
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise CheckpointError(f"{path}: cannot be read as ONNX ({reason}). Export it again.") from error
