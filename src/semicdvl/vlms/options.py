"""Parse what the command line says of a VLM into the options of its builder."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from semicdvl.errors import ConfigError


def parse_vlm_options(
    *, weights: Path | None = None, device: str | None = None, dtype: str | None = None, assignments: Sequence[str] = ()
) -> dict[str, Any]:
    """Return the options that were given; the builder refuses those that it does not know.

    Args:
        weights: file, folder or hub name.
        device: torch device, or "auto".
        dtype: numbers to compute with, or "auto".
        assignments: `key=value`; a value is read as TOML (numbers, true, false, lists), and as text where it is none.

    Raises:
        ConfigError: an entry of `assignments` is no `key=value`, or repeats an option.
    """
    named = {"weights": weights, "device": device, "dtype": dtype}
    options: dict[str, Any] = {key: value for key, value in named.items() if value is not None}
    for text in assignments:
        key, equals, value = (part.strip() for part in text.partition("="))
        if not equals or not key or not value:
            raise ConfigError(f"--vlm-set {text}: must be key=value, such as threshold=0.4.")
        if key in options:
            raise ConfigError(f"--vlm-set {text}: '{key}' is given twice. Give it once.")
        options[key] = _parse_value(value)
    return options


def _parse_value(text: str) -> Any:
    """Read a value as TOML, or return the text itself."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError):
        return text
