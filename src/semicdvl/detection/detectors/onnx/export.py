"""Export the network of a trained run as one ONNX file, which needs no torch.

The file holds the change head, and with `heads` the segmentation heads of both dates, with batch norms folded, for any
batch and image size. Its metadata, JSON under the
key `semicdvl`, say how images are normalised, which limits values of more than 8 bits were stretched between for the
training (`stretch`), from which probability on a pixel is changed, which image sizes are possible and how the network
was trained. `build_onnx_detector` reads them.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from semicdvl.atomic_files import write_atomically
from semicdvl.checkpoint import load_network, read_run, read_run_bands, read_run_stretch, record_stretch
from semicdvl.detection.detectors.date_classes import DateClasses, read_date_classes
from semicdvl.detection.detectors.inference import (
    CHANGE_HEAD_ONLY,
    FOLDING_TOLERANCE,
    SEGMENTATION,
    HeadLogits,
    fold_batch_norms,
    keep_heads,
    refuse_untraceable,
)
from semicdvl.detection.detectors.onnx.detector import CLASS_OUTPUT_NAMES, INPUT_NAMES, OUTPUT_NAME
from semicdvl.detection.detectors.onnx.metadata import METADATA_KEY, METADATA_VERSION
from semicdvl.detection.detectors.onnx.session import open_session
from semicdvl.errors import ConfigError, MissingExtraError
from semicdvl.outputs.locks import lock_argument
from semicdvl.raster.io.georeference_warnings import ignore_warnings
from semicdvl.types import IMAGENET_MEAN, IMAGENET_STD, InputBands
from semicdvl.version import __version__

ONNX_OPSET = 18
"""Version of the ONNX operators; onnxruntime supports it from 1.14 on."""
Shape = tuple[int, int, int]
"""Batch, height and width."""
TRACED_SHAPE: Shape = (2, 64, 96)
MULTIPLE_SHAPES: tuple[Shape, ...] = ((1, 96, 64), (3, 160, 128))
ODD_SHAPES: tuple[Shape, ...] = ((1, 101, 77), (2, 70, 131))
"""Shapes to compare with torch: sides that are multiples of 32, and others, which not every network supports."""
INPUT_MULTIPLE_PX = 32


@dataclass(frozen=True)
class OnnxExport:
    """The written file.

    Attributes:
        path: the file.
        size_mb: its size.
        opset: version of the ONNX operators.
        largest_difference: of a logit from torch over all tested shapes, relative to the largest logit (or to 1).
        multiple_px: sides must be multiples of it; the detector pads to it.

    Examples:
        >>> import semicdvl as cd
        >>> exported = cd.export("runs/few", "few.onnx")            # doctest: +SKIP
        >>> exported.path, exported.size_mb                         # doctest: +SKIP
    """

    path: Path
    size_mb: float
    opset: int
    largest_difference: float
    multiple_px: int


def export_onnx(
    run: Path, path: Path, *, threshold: float = 0.5, heads: bool = False, trust: Sequence[str] = ()
) -> OnnxExport:
    """Write the network of a run as an ONNX file.

    Args:
        run: a folder that `semicdvl train` wrote.
        path: the file to write.
        threshold: smallest probability of a changed pixel.
        heads: also write the segmentation heads, which give the classes of both dates.
        trust: modules whose networks the run may name, see `registry.Origin`.

    Raises:
        CheckpointError: `run` is not such a folder.
        ConfigError: its method did not train segmentation heads.
        Others: as `export_network`.
    """
    _check_request(path)
    record = read_run(run)
    recipe = record.get("recipe", {})
    if heads and "segmentation" not in record.get("heads", []):
        raise ConfigError(f"{run}: has no trained segmentation heads. Leave out --heads, or train with [classes].")
    parts = {name: recipe[name] for name in ("method", "model") if name in recipe}
    network = load_network(run, train_heads=heads, trust=trust)
    classes = read_date_classes(recipe) if heads else None
    origin = {"run": run.name, "recipe": parts} | record_stretch(read_run_stretch(record))
    bands = read_run_bands(record)
    return export_network(network, path, threshold=threshold, classes=classes, bands=bands, origin=origin)


@lock_argument("path")
def export_network(
    network: nn.Module,
    path: Path,
    *,
    threshold: float = 0.5,
    classes: DateClasses | None = None,
    bands: InputBands | None = None,
    origin: Mapping[str, Any] | None = None,
) -> OnnxExport:
    """Write a network as an ONNX file, after comparing it with torch.

    Args:
        network: with the call of `semicdvl.types.Network`.
        path: the file to write.
        threshold: smallest probability of a changed pixel.
        classes: of the segmentation heads, which are then written, too; None: the change head alone.
        bands: that it was trained with; None: RGB.
        origin: further metadata of the network.

    Raises:
        ConfigError: `path` does not end in .onnx, or the network cannot be written as ONNX.
        MissingExtraError: onnx or onnxruntime is not installed.
        OutputError: the file cannot be written.
    """
    _check_request(path)
    refuse_untraceable(network, remedy="Use the run itself: detect --model RUN")
    heads = CHANGE_HEAD_ONLY if classes is None else SEGMENTATION
    count = 3 if bands is None else bands.count
    logits = HeadLogits(fold_batch_norms(keep_heads(network, heads), heads=heads, bands=count)[0], heads).eval()
    with write_atomically(path) as temporary:
        _trace(logits, temporary, bands=count)
        multiple_px, difference = _compare_with_torch(logits, temporary, bands=count)
        about = _build_metadata(threshold, multiple_px, classes) | _describe_input(bands)
        _write_metadata(temporary, about | dict(origin or {}))
        size_mb = temporary.stat().st_size / 1e6
    return OnnxExport(path, size_mb, ONNX_OPSET, difference, multiple_px)


def _check_request(path: Path) -> None:
    """Refuse other file types, and to start without the packages.

    Raises:
        ConfigError: the file does not end in .onnx.
        MissingExtraError: a package is missing.
    """
    if path.suffix != ".onnx":
        raise ConfigError(f"{path}: the name of an ONNX file must end in .onnx. Give -o {path.with_suffix('.onnx')}.")
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
    except ImportError as error:
        raise MissingExtraError(f"Writing ONNX needs the package '{error.name}'. Install semicdvl[onnx].") from error


def _trace(logits: HeadLogits, path: Path, *, bands: int) -> None:
    """Export a network by tracing it with one pair.

    With the older exporter of torch: it takes a second where the newer one takes a minute, and supports all sizes.

    Raises:
        ConfigError: the network uses an operation that ONNX does not have.
    """
    dates = tuple(_draw_dates(TRACED_SHAPE, bands=bands, seed=0))
    axes = {0: "batch", 2: "height", 3: "width"}
    outputs = [OUTPUT_NAME, *(CLASS_OUTPUT_NAMES if logits.heads == SEGMENTATION else ())]
    try:
        with ignore_warnings(Warning), _silence_stdout(), torch.no_grad():
            torch.onnx.export(
                logits,
                dates,
                path,
                input_names=list(INPUT_NAMES),
                output_names=outputs,
                opset_version=ONNX_OPSET,
                dynamic_axes={name: axes for name in (*INPUT_NAMES, *outputs)},
                dynamo=False,
            )
    except (RuntimeError, ValueError, TypeError) as error:  # UnsupportedOperatorError is a RuntimeError
        reason = str(error).strip().splitlines()[0].split(" Please feel free")[0]
        raise ConfigError(f"The network cannot be exported to ONNX ({reason}). Use the run itself.") from error


@contextlib.contextmanager
def _silence_stdout() -> Iterator[None]:
    """Keep the exporter, which prints past Python, from printing its whole graph where it fails."""
    sys.stdout.flush()
    kept = os.dup(1)
    try:
        with Path(os.devnull).open("wb") as nowhere:
            os.dup2(nowhere.fileno(), 1)
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)


def _draw_dates(shape: Shape, *, bands: int, seed: int) -> list[Tensor]:
    """Return random images of two dates."""
    generator = torch.Generator().manual_seed(seed)
    batch, height, width = shape
    return [torch.randn(batch, bands, height, width, generator=generator) for _ in INPUT_NAMES]


def _compare_with_torch(logits: HeadLogits, path: Path, *, bands: int) -> tuple[int, float]:
    """Return the multiple that sides must have and the largest difference from torch.

    Raises:
        ConfigError: the results of the file differ from those of the network.
    """
    session = open_session(path, device="cpu")
    plain = max(_measure_difference(logits, session, shape, bands=bands) for shape in MULTIPLE_SHAPES)
    if not plain <= FOLDING_TOLERANCE:
        raise ConfigError(
            f"The ONNX file would differ from the network by {plain:.2g} of the largest logit, more than "
            f"{FOLDING_TOLERANCE:g}: the network computes something that cannot be traced for all sizes. Use the run "
            "itself with `detect --model RUN`."
        )
    odd = max(_measure_difference(logits, session, shape, bands=bands) for shape in ODD_SHAPES)
    return (1, max(plain, odd)) if odd <= FOLDING_TOLERANCE else (INPUT_MULTIPLE_PX, plain)


def _measure_difference(logits: HeadLogits, session: Any, shape: Shape, *, bands: int) -> float:
    """Return the largest difference of a logit relative to the largest one (or to 1); infinite where the file fails."""
    from onnxruntime.capi.onnxruntime_pybind11_state import Fail, InvalidArgument, RuntimeException

    dates = _draw_dates(shape, bands=bands, seed=1)
    with torch.no_grad():
        wanted: list[NDArray[np.float32]] = [each_BKHW.numpy() for each_BKHW in logits(*dates)]
    try:
        found = session.run(None, {name: date.numpy() for name, date in zip(INPUT_NAMES, dates, strict=True)})
    except (Fail, InvalidArgument, RuntimeException):
        return float("inf")
    if [each_BKHW.shape for each_BKHW in found] != [each_BKHW.shape for each_BKHW in wanted]:
        return float("inf")
    pairs = zip(found, wanted, strict=True)
    return max(float(np.abs(one - other).max() / max(1.0, np.abs(other).max())) for one, other in pairs)


def _build_metadata(threshold: float, multiple_px: int, classes: DateClasses | None) -> dict[str, Any]:
    """Return the metadata of the file."""
    of_dates = {}
    if classes is not None:
        stored = {"names": classes.names, "foreground": classes.foreground, "named": classes.are_named}
        of_dates = {"date_classes": stored}
    return of_dates | {
        "version": METADATA_VERSION,
        "semicdvl": __version__,
        "opset": ONNX_OPSET,
        "output": "logits BKHW of the classes, at the size of the input",
        "classes": ["unchanged", "changed"],
        "threshold": threshold,
        "multiple_px": multiple_px,
    }


def _describe_input(bands: InputBands | None) -> dict[str, Any]:
    """Return what the metadata say of the images."""
    if bands is None:
        text = "two dates of one place, float32 BCHW: RGB / 255, minus mean, divided by std"
        return {"input": text, "mean": IMAGENET_MEAN, "std": IMAGENET_STD}
    text = "two dates of one place, float32 BCHW: physical values of the bands, minus mean, divided by std"
    return {"input": text, "bands": bands.raster_numbers, "mean": bands.mean, "std": bands.std}


def _write_metadata(path: Path, about: dict[str, Any]) -> None:
    """Add the metadata to the file and validate it."""
    import onnx

    model = onnx.load(path)
    onnx.helper.set_model_props(model, {METADATA_KEY: json.dumps(about)})
    model.producer_name, model.producer_version = "semicdvl", __version__
    onnx.checker.check_model(model)
    onnx.save(model, path)
