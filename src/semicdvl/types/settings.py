"""A check that all objects of settings share."""

from __future__ import annotations

import math

from semicdvl.errors import ConfigError


def check_finite(settings: object, *names: str) -> None:
    """Refuse a setting that is infinite or not a number; None is no number and passes.

    Raises:
        ConfigError: a setting is; the first of them is named.
    """
    for name in names:
        value = getattr(settings, name)
        if value is not None and not math.isfinite(value):
            raise ConfigError(f"{name} is {value}. Give a finite number.")
