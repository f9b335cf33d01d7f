"""Validation of a method's options when it is created, so that a wrong one is an error at once and not a bad run."""

from __future__ import annotations

import math
from dataclasses import fields
from typing import Any, Literal, get_args, get_origin, get_type_hints

from semicdvl.errors import ConfigError
from semicdvl.registry import suggest_nearest


def check_method_options(method: Any) -> None:
    """Check every field of a method's dataclass against its type, and numbers against the range of their kind.

    Numbers are finite and not negative; those named `*_frac` and `confidence_*` are at most 1.

    Raises:
        ConfigError: a value is of the wrong type or out of range; the error names the option and what it takes.
    """
    hints = get_type_hints(type(method))
    for field in fields(method):
        value, hint = getattr(method, field.name), hints[field.name]
        if get_origin(hint) is Literal:
            _check_choice(field.name, value, get_args(hint))
        elif hint is bool:
            if not isinstance(value, bool):
                raise ConfigError(f"method option {field.name} must be true or false, got {value!r}.")
        elif get_origin(hint) is tuple:
            if not isinstance(value, tuple):
                raise ConfigError(f"method option {field.name} must be a list of numbers, got {value!r}.")
            for number in value:
                _check_number(field.name, number)
        elif value is not None or type(None) not in get_args(hint):
            _check_number(field.name, value)
            if hint is int and (not isinstance(value, int) or value < 1):
                raise ConfigError(f"method option {field.name} must be a whole number of 1 or more, got {value!r}.")


def _check_choice(name: str, value: Any, known: tuple[str, ...]) -> None:
    """Refuse a word that is none of the known ones."""
    if value not in known:
        raise ConfigError(
            f"method option {name} has no choice {value!r}.{suggest_nearest(str(value), known)} "
            f"Known: {', '.join(known)}."
        )


def _check_number(name: str, value: Any) -> None:
    """Refuse what is no number, and a number out of range."""
    most = 1.0 if name.endswith("_frac") or name.startswith("confidence_") else math.inf
    expected = f"a number from 0 to {most:g}" if math.isfinite(most) else "a finite number of 0 or more"
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    if not is_number or not 0 <= value <= most:
        raise ConfigError(f"method option {name} must be {expected}, got {value!r}.")
