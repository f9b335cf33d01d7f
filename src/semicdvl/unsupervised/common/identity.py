"""What tells one detector from another whose maps would differ: its name and every option, for resumed runs."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from typing import Any

PLAIN = (str, int, float, bool, tuple)


class IdentityFromOptions:
    """A detector (a dataclass) that tells its options; what it has learned of a pair is no part of that."""

    @property
    def identity(self) -> str:
        """Name and options, those of networks included: equal identity means equal maps of equal images."""
        return _list_options(self)


def _list_options(part: Any) -> str:
    """Return the options of a dataclass, and of what it was handed."""
    words = []
    for item in fields(part):
        value = getattr(part, item.name)
        if isinstance(value, PLAIN):
            words.append(f"{item.name}={value!r}")
        elif is_dataclass(value) and (hasattr(value, "identity") or item.name == "rule"):
            words.append(f"{item.name}=({_list_options(value)})")
        elif hasattr(value, "identity"):
            words.append(f"{item.name}={value.identity}")
    return ", ".join(words)
