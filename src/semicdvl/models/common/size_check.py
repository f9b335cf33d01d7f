"""Refuse a network that no machine could hold, before memory is taken for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from semicdvl.errors import ConfigError, InputError, MissingExtraError
from semicdvl.reading.json_files import shorten
from semicdvl.reading.limits import MAX_NETWORK_OPTION, MAX_NETWORK_PARAMETERS

COMMON_OPTION = 1024
"""A network with no greater number among its options is built at once; else its parameters are counted first."""


def refuse_giant(name: str, options: Mapping[str, Any], build: Callable[[], Any]) -> None:
    """Refuse options of a network that no machine could hold.

    Args:
        name: of the network.
        options: what it is built with.
        build: builds it; called without memory for its numbers, where an option is unusually large.

    Raises:
        ConfigError: a number is beyond `limits.MAX_NETWORK_OPTION`, or the network has too many parameters.
    """
    key, greatest = max(_list_numbers(options), key=lambda one: one[1], default=("", 0))
    if greatest > MAX_NETWORK_OPTION:
        raise ConfigError(
            f"model '{name}': {key} = {shorten(greatest)}, and {MAX_NETWORK_OPTION:,} is possible. "
            "Give a smaller number."
        )
    if greatest <= COMMON_OPTION:
        return
    import torch  # this file is read with the names of the networks alone, where torch is not needed

    try:
        with torch.device("meta"):
            count = sum(parameter.numel() for parameter in build().parameters())
    except (ConfigError, InputError, MissingExtraError):
        raise
    except Exception:  # a network that cannot be built without memory is built, and says what is wrong itself
        return
    if count > MAX_NETWORK_PARAMETERS:
        raise ConfigError(
            f"model '{name}': with {key} = {greatest} it would have {count:,} parameters, and "
            f"{MAX_NETWORK_PARAMETERS:,} are possible. Give a smaller number."
        )


def _list_numbers(options: Any, key: str = "") -> Iterator[tuple[str, int]]:
    """Yield the whole numbers in options, however deep, each with the name of its option."""
    if isinstance(options, int) and not isinstance(options, bool):
        yield key, abs(options)
    elif isinstance(options, Mapping):
        for name, value in options.items():
            yield from _list_numbers(value, key or str(name))
    elif isinstance(options, list | tuple):
        for value in options:
            yield from _list_numbers(value, key)
