"""The device and the number type that a VLM computes with."""

from __future__ import annotations

import torch

from semicdvl.errors import ConfigError

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def pick_device(device: str) -> torch.device:
    """Return a torch device; "auto" is the GPU if there is one.

    Raises:
        ConfigError: there is no such device.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).strip().partition("\n")[0][:120] or type(error).__name__
        raise ConfigError(f"there is no device '{device}' here ({reason}). Use auto, cpu, cuda or cuda:0.") from None
    return chosen


def pick_dtype(dtype: str, device: torch.device) -> torch.dtype:
    """Return the precision that a network computes in; "auto" is bfloat16 on a GPU and float32 elsewhere.

    Raises:
        ConfigError: an unknown name.
    """
    if dtype == "auto":
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    if dtype not in DTYPES:
        raise ConfigError(f"unknown dtype '{dtype}'. Known: auto, {', '.join(DTYPES)}.")
    return DTYPES[dtype]
