"""The only place where a string becomes code.

Each room (`models`, `methods`, `vlms`, `data`, `classic`) has one dict `name -> "module:builder"` in its `__init__`.
`lookup` turns a name of such a dict, or a user's own `package.module:builder`, into the callable.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from semicdvl.errors import ConfigError


def suggest_nearest(name: str, known: Iterable[str]) -> str:
    """Return ` Did you mean 'x'?` for the known name closest to `name`, or the empty string."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f" Did you mean '{close[0]}'?" if close else ""


def resolve_builder(kind: str, name: str, table: Mapping[str, str]) -> Callable[..., Any]:
    """Return the builder called `name`.

    Args:
        kind: what is looked up, for the error text ("model", "VLM", ...).
        name: a key of `table`, or `package.module:builder` for code outside this package.
        table: the room's dict of `name -> "module:builder"`.

    Raises:
        ConfigError: the name is unknown (the nearest known one is suggested) or the module cannot be imported.
    """
    target = table.get(name, name if ":" in name else None)
    if target is None:
        raise ConfigError(f"unknown {kind} '{name}'.{suggest_nearest(name, table)} Known: {', '.join(sorted(table))}.")
    module_name, _, attribute = target.partition(":")
    try:
        builder = getattr(importlib.import_module(module_name), attribute)
    except (ImportError, AttributeError) as error:
        if name in table:
            raise
        raise ConfigError(
            f"{kind} '{name}' cannot be imported ({error}); write it as package.module:builder."
        ) from None
    if not callable(builder):
        raise ConfigError(f"{kind} '{name}' is not callable; write it as package.module:builder.")
    result: Callable[..., Any] = builder
    return result
