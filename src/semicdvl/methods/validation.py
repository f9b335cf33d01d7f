"""Checks the settings of a method when it is made, so that a wrong one is an error with a remedy and not a bad run."""

from __future__ import annotations

import math
from dataclasses import fields
from typing import Any, Literal, get_args, get_origin, get_type_hints

from semicdvl.errors import ConfigError
from semicdvl.registry import suggest_nearest


def check_method_options(method: Any) -> None:
    """Check every field of a method's dataclass against its type, and numbers against the range that their name tells.

    Numbers are finite and not negative; those called `*_frac` and `confidence_*` are at most 1.

    Raises:
        ConfigError: naming the field, what came and what is wanted.
    """
    hints = get_type_hints(type(method))
    for field in fields(method):
        value, hint = getattr(method, field.name), hints[field.name]
        if get_origin(hint) is Literal:
            _check_word(field.name, value, get_args(hint))
        elif hint is bool:
            if not isinstance(value, bool):
                raise ConfigError(f"method option {field.name} = {value!r}: true or false is wanted.")
        elif get_origin(hint) is tuple:
            if not isinstance(value, tuple):
                raise ConfigError(f"method option {field.name} = {value!r}: a list of numbers is wanted.")
            for one in value:
                _check_number(field.name, one)
        elif value is not None or type(None) not in get_args(hint):
            _check_number(field.name, value)
            if hint is int and (not isinstance(value, int) or value < 1):
                raise ConfigError(f"method option {field.name} = {value!r}: a whole number from 1 is wanted.")


def _check_word(name: str, value: Any, known: tuple[str, ...]) -> None:
    """Refuse a word that is not one of the known ones."""
    if value not in known:
        raise ConfigError(
            f"method option {name} = {value!r} is not known.{suggest_nearest(str(value), known)} Known: {', '.join(known)}."
        )


def _check_number(name: str, value: Any) -> None:
    """Refuse what is no number, and a number out of range."""
    most = 1.0 if name.endswith("_frac") or name.startswith("confidence_") else math.inf
    wanted = f"a number from 0 to {most:g}" if math.isfinite(most) else "a finite number, 0 or more,"
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    if not is_number or not 0 <= value <= most:
        raise ConfigError(f"method option {name} = {value!r}: {wanted} is wanted.")
