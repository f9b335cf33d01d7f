"""Export the network of a trained run as one ONNX file, which needs no torch.

The file holds the change head with its batch norms folded, for any batch and image size. Its metadata, JSON under the
key `semicdvl`, say how images are normalised, from which probability on a pixel is changed, which image sizes are
possible and how the network was trained. `build_onnx_detector` reads them.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from semicdvl.atomic_files import write_atomically
from semicdvl.checkpoint import load_network, read_run
from semicdvl.detection.detectors.inference import FOLDING_TOLERANCE, ChangeLogits, fold_batch_norms, keep_change_head
from semicdvl.detection.detectors.onnx import INPUT_NAMES, METADATA_KEY, METADATA_VERSION, OUTPUT_NAME, open_session
from semicdvl.errors import ConfigError, MissingExtraError
from semicdvl.outputs.locks import lock_argument
from semicdvl.types import IMAGENET_MEAN, IMAGENET_STD
from semicdvl.version import __version__

ONNX_OPSET = 18
"""Version of the ONNX operators; onnxruntime supports it from 1.14 on."""
TRACED_SHAPE = (2, 3, 64, 96)
MULTIPLE_SHAPES = ((1, 3, 96, 64), (3, 3, 160, 128))
ODD_SHAPES = ((1, 3, 101, 77), (2, 3, 70, 131))
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


def export_onnx(run: Path, path: Path, *, threshold: float = 0.5, trust: Sequence[str] = ()) -> OnnxExport:
    """Write the network of a run as an ONNX file.

    Args:
        run: a folder that `semicdvl train` wrote.
        path: the file to write.
        threshold: smallest probability of a changed pixel.
        trust: modules whose networks the run may name, see `registry.Origin`.

    Raises:
        CheckpointError: `run` is not such a folder.
        Others: as `export_network`.
    """
    _check_request(path)
    recipe = read_run(run).get("recipe", {})
    parts = {name: recipe[name] for name in ("method", "model") if name in recipe}
    network = load_network(run, trust=trust)
    return export_network(network, path, threshold=threshold, origin={"run": run.name, "recipe": parts})


@lock_argument("path")
def export_network(
    network: nn.Module, path: Path, *, threshold: float = 0.5, origin: Mapping[str, Any] | None = None
) -> OnnxExport:
    """Write a network as an ONNX file, after comparing it with torch.

    Args:
        network: with the call of `semicdvl.types.Network`.
        path: the file to write.
        threshold: smallest probability of a changed pixel.
        origin: further metadata of the network.

    Raises:
        ConfigError: `path` does not end in .onnx, or the network cannot be written as ONNX.
        MissingExtraError: onnx or onnxruntime is not installed.
        OutputError: the file cannot be written.
    """
    _check_request(path)
    logits = ChangeLogits(fold_batch_norms(keep_change_head(network))[0]).eval()
    with write_atomically(path) as temporary:
        _trace(logits, temporary)
        multiple_px, difference = _compare_with_torch(logits, temporary)
        _write_metadata(temporary, _build_metadata(threshold, multiple_px) | dict(origin or {}))
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


def _trace(logits: nn.Module, path: Path) -> None:
    """Export a network by tracing it with one pair.

    With the older exporter of torch: it takes a second where the newer one takes a minute, and supports all sizes.

    Raises:
        ConfigError: the network uses an operation that ONNX does not have.
    """
    generator = torch.Generator().manual_seed(0)
    dates = tuple(torch.randn(TRACED_SHAPE, generator=generator) for _ in INPUT_NAMES)
    axes = {0: "batch", 2: "height", 3: "width"}
    try:
        with warnings.catch_warnings(action="ignore"), _silence_stdout(), torch.no_grad():
            torch.onnx.export(
                logits,
                dates,
                path,
                input_names=list(INPUT_NAMES),
                output_names=[OUTPUT_NAME],
                opset_version=ONNX_OPSET,
                dynamic_axes={name: axes for name in (*INPUT_NAMES, OUTPUT_NAME)},
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


def _compare_with_torch(logits: nn.Module, path: Path) -> tuple[int, float]:
    """Return the multiple that sides must have and the largest difference from torch.

    Raises:
        ConfigError: the results of the file differ from those of the network.
    """
    session = open_session(path, device="cpu")
    plain = max(_measure_difference(logits, session, shape) for shape in MULTIPLE_SHAPES)
    if not plain <= FOLDING_TOLERANCE:
        raise ConfigError(
            f"The ONNX file would differ from the network by {plain:.2g} of the largest logit, more than "
            f"{FOLDING_TOLERANCE:g}: the network computes something that cannot be traced for all sizes. Use the run "
            "itself with `detect --model RUN`."
        )
    odd = max(_measure_difference(logits, session, shape) for shape in ODD_SHAPES)
    return (1, max(plain, odd)) if odd <= FOLDING_TOLERANCE else (INPUT_MULTIPLE_PX, plain)


def _measure_difference(logits: nn.Module, session: Any, shape: tuple[int, ...]) -> float:
    """Return the largest difference of a logit relative to the largest one (or to 1); infinite where the file fails."""
    from onnxruntime.capi.onnxruntime_pybind11_state import Fail, InvalidArgument, RuntimeException

    generator = torch.Generator().manual_seed(1)
    dates = [torch.randn(shape, generator=generator) for _ in INPUT_NAMES]
    with torch.no_grad():
        wanted_BKHW: NDArray[np.float32] = logits(*dates).numpy()
    try:
        (found_BKHW,) = session.run(None, {name: date.numpy() for name, date in zip(INPUT_NAMES, dates, strict=True)})
    except (Fail, InvalidArgument, RuntimeException):
        return float("inf")
    if found_BKHW.shape != wanted_BKHW.shape:
        return float("inf")
    return float(np.abs(found_BKHW - wanted_BKHW).max() / max(1.0, np.abs(wanted_BKHW).max()))


def _build_metadata(threshold: float, multiple_px: int) -> dict[str, Any]:
    """Return the metadata of the file."""
    return {
        "version": METADATA_VERSION,
        "semicdvl": __version__,
        "opset": ONNX_OPSET,
        "input": "two dates of one place, float32 BCHW: RGB / 255, minus mean, divided by std",
        "mean": IMAGENET_MEAN,
        "std": IMAGENET_STD,
        "output": "logits BKHW of the classes, at the size of the input",
        "classes": ["unchanged", "changed"],
        "threshold": threshold,
        "multiple_px": multiple_px,
    }


def _write_metadata(path: Path, about: dict[str, Any]) -> None:
    """Add the metadata to the file and validate it."""
    import onnx

    model = onnx.load(path)
    onnx.helper.set_model_props(model, {METADATA_KEY: json.dumps(about)})
    model.producer_name, model.producer_version = "semicdvl", __version__
    onnx.checker.check_model(model)
    onnx.save(model, path)
