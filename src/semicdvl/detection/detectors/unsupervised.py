"""Build an unsupervised detector by its name and options, and the networks that it uses."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Mapping
from typing import Any

from semicdvl.detection.detectors.network_loaders import NETWORK_LOADERS, NETWORK_OPTIONS, NetworkOptions
from semicdvl.errors import ConfigError
from semicdvl.registry import parse_assignments, resolve_builder, suggest_nearest
from semicdvl.types import Detector
from semicdvl.unsupervised import UNSUPERVISED
from semicdvl.unsupervised.common.networks import read_default_networks


def build_unsupervised_detector(name: str, options: Mapping[str, Any] | None = None) -> Detector:
    """Return the detector of an unsupervised method.

    Args:
        name: a key of `UNSUPERVISED`, or `package.module:builder`.
        options: options of the method and of the networks that it uses (see `network_loaders.NETWORK_OPTIONS`).

    Raises:
        ConfigError: no such method or option, a value out of range, or a builder that returns no `Detector`.
        InputError: weights that are missing or damaged; the text says how to get them.
        MissingExtraError: a package is missing that the method needs.
    """
    builder = resolve_builder("method", name, UNSUPERVISED)
    parameters = inspect.signature(builder).parameters
    needed = [argument for argument in NETWORK_LOADERS if argument in parameters]
    own = [argument for argument in parameters if argument not in NETWORK_LOADERS]
    given = dict(options or {})
    open_ended = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values())
    known = {*own, *(option for argument in needed for option in NETWORK_OPTIONS[argument])}
    if not open_ended and (unknown := sorted(set(given) - known)):
        raise ConfigError(
            f"{name} has no option '{unknown[0]}'.{suggest_nearest(unknown[0], known)} "
            f"Known: {', '.join(sorted(known))}."
        )
    types = _resolve_types(builder)
    checked = {key: _check_option(name, key, value, types) if key in own else value for key, value in given.items()}
    network_options = {key: value for key, value in checked.items() if key not in own}
    requested = NetworkOptions(name, network_options, read_default_networks(builder))
    networks = {argument: NETWORK_LOADERS[argument](requested) for argument in needed}
    detector = builder(**networks, **{key: value for key, value in checked.items() if key in own})
    if not isinstance(detector, Detector):
        raise ConfigError(
            f"{name} returned a {type(detector).__name__}, not a detector; derive its class from types.Detector."
        )
    return detector


def _resolve_types(builder: Callable[..., Any]) -> dict[str, Any]:
    """Return the types of a builder's arguments; none where they can't be resolved (a builder from outside)."""
    try:
        return typing.get_type_hints(builder)
    except (NameError, TypeError):
        return {}


def _check_option(method: str, key: str, value: Any, types: Mapping[str, Any]) -> Any:
    """Return an option's value if it is of its type."""
    from pydantic import TypeAdapter, ValidationError

    if key not in types:
        return value
    try:
        return TypeAdapter(types[key]).validate_python(value, strict=not isinstance(value, int | list))
    except ValidationError as error:
        raise ConfigError(f"{method}: {key} = {value!r}: {error.errors()[0]['msg'].lower()}.") from None


def parse_method_options(texts: list[str] | None) -> dict[str, Any]:
    """Parse `key=value` options; values are TOML, or text where they are not TOML.

    Raises:
        ConfigError: an option is not `key=value`, or is given twice.
    """
    return parse_assignments(texts or (), option="--method-set")
