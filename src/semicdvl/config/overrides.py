"""Change one key of a plain recipe: `--set train.steps=500`."""

from __future__ import annotations

import tomllib
from typing import Any

from semicdvl.config.sections import Recipe
from semicdvl.config.validation import list_known_keys
from semicdvl.errors import ConfigError
from semicdvl.reading.json_files import check_values, shorten
from semicdvl.registry import suggest_nearest

LENGTH_KEYS = {"steps": "epochs", "epochs": "steps"}
"""Two ways to give the length of a training; the one given later (over a base, with --set) replaces the other."""


def apply_override(content: dict[str, Any], override: str) -> list[str]:
    """Put one `key=value` into the plain recipe; return where: its section and key."""
    key, equals, text = override.partition("=")
    if not equals or not key.strip():
        raise ConfigError(f"--set {override}: must be key=value, such as train.steps=500.")
    *sections, last = _resolve_key(key.strip(), content)
    target = content
    for section in sections:
        target = target.setdefault(section, {})
        if not isinstance(target, dict):
            raise ConfigError(f"--set {override}: '{section}' is not a section of the recipe.")
    target[last] = _parse_value(text)
    try:
        check_values(content, finite=False)
    except ValueError as error:
        raise ConfigError(f"--set {shorten(override)}: {error}. Give a plain value.") from None
    if last in LENGTH_KEYS and sections == ["train"]:
        target.pop(LENGTH_KEYS[last], None)
    return [*sections, last]


def _resolve_key(key: str, content: dict[str, Any]) -> list[str]:
    """Return the dotted key's parts; a bare key gets the section that knows it."""
    if "." in key or key in Recipe.model_fields:
        return key.split(".")
    homes = [name for name in ("data", "pseudo", "train") if key in list_known_keys((name,))]
    homes += [name for name in ("model", "method") if isinstance(content.get(name), dict) and key in content[name]]
    if len(homes) == 1:
        return [homes[0], key]
    known = [f"{name}.{field}" for name in ("data", "train") for field in list_known_keys((name,))]
    hint = f" It is a key of {' and '.join(homes)}; write the section too." if homes else suggest_nearest(key, known)
    raise ConfigError(f"--set {key}: unknown key.{hint or ' Write it with its section, such as method.tau=0.9.'}")


def _parse_value(text: str) -> Any:
    """Read a value as TOML; what is not TOML is a string."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError):
        return text
