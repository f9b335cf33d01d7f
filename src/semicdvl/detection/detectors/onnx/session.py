"""A session of ONNX Runtime, which gets only so much memory."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semicdvl.errors import CheckpointError, ConfigError, MissingExtraError
from semicdvl.process_memory import limit_memory
from semicdvl.reading.limits import MAX_NETWORK_BYTES_PER_PX, MIN_NETWORK_BYTES

BYTES_TO_OPEN = 4
"""So often the bytes of a file are in memory while ONNX Runtime rewrites its graph, at most."""
NO_MEMORY = ("bad_alloc", "Failed to allocate memory")
"""What ONNX Runtime says where it gets no memory."""
ONNX_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


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
    providers = [ONNX_PROVIDERS[name] for name in chosen]
    try:
        with _limit_memory(providers, MIN_NETWORK_BYTES + BYTES_TO_OPEN * path.stat().st_size):
            return onnxruntime.InferenceSession(str(path), options, providers=providers)
    except Exception as error:  # onnxruntime has a dozen of its own, and those of the machine
        raise CheckpointError(f"{path}: cannot be read as ONNX ({_name_reason(error)}). Export it again.") from error


def _limit_memory(providers: Sequence[str], most_bytes: int) -> AbstractContextManager[None]:
    """Let ONNX Runtime take so much memory; as much as it likes on a GPU, whose addresses would count."""
    only_cpu = list(providers) == [ONNX_PROVIDERS["cpu"]]
    return limit_memory(most_bytes) if only_cpu else nullcontext()


def _name_reason(error: Exception) -> str:
    """Return the first line of an error of ONNX Runtime."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def run_session(
    session: Any, name: str, outputs: Sequence[str], dates: Mapping[str, NDArray[np.float32]]
) -> list[NDArray[Any]]:
    """Return some outputs of a network for two images.

    Raises:
        CheckpointError: the network fails, or needs more memory than a network needs or than there is.
    """
    height, width = next(iter(dates.values())).shape[2:]
    most_bytes = MIN_NETWORK_BYTES + MAX_NETWORK_BYTES_PER_PX * height * width
    try:
        with _limit_memory(session.get_providers(), most_bytes):
            found: list[NDArray[Any]] = session.run(outputs, dates)
            return found
    except Exception as error:  # whatever onnxruntime raises on a network that fits no image
        raise CheckpointError(_describe_failure(name, error, (height, width))) from error


def _describe_failure(name: str, error: Exception, size: tuple[int, ...]) -> str:
    """Return what to say of a network that failed on a tile."""
    if any(sign in str(error) for sign in NO_MEMORY):
        return (
            f"{name}: its network needs more memory for a tile of {size[0]} x {size[1]} px than there is, or than "
            "networks need. Give a smaller --tile, or the run itself."
        )
    return f"{name}: its network fails ({_name_reason(error)}). Export it again."
