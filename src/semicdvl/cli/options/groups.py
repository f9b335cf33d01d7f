"""Options that several commands share are declared once, as a frozen dataclass, and expanded where a command asks."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import MISSING, Field, fields, is_dataclass
from enum import Enum
from functools import wraps
from inspect import Parameter
from typing import Any, get_type_hints

import typer

from semicdvl.errors import ConfigError

Command = Callable[..., None]


def expand_option_groups(command: Command) -> Command:
    """Let typer see the fields of the dataclasses that a command takes, in their place, as options of its own.

    A field is declared as typer declares a parameter, `name: Annotated[type, typer.Option(...)] = default`. When the
    command runs, the values are put together again, so that it is handed one object per group. A group that differs
    in one option is a subclass that declares this option anew.

    Args:
        command: a function whose parameters are typer's or dataclasses of such fields.
    """
    signature = inspect.signature(command, eval_str=True)
    groups: dict[str, Any] = {
        name: one.annotation for name, one in signature.parameters.items() if is_dataclass(one.annotation)
    }
    expanded: list[Parameter] = []
    for name, parameter in signature.parameters.items():
        own = [parameter.replace(kind=Parameter.KEYWORD_ONLY)]
        expanded += _list_group_parameters(groups[name]) if name in groups else own

    @wraps(command)
    def run(**values: Any) -> None:
        for name, group in groups.items():
            values[name] = group(**{field.name: values.pop(field.name) for field in fields(group)})
        command(**values)

    run.__signature__ = signature.replace(parameters=expanded)  # type: ignore[attr-defined]
    return run


def list_values(group: Any) -> dict[str, Any]:
    """Return the values of a group by field, choices as plain text, for settings whose fields have the same names."""
    values = {field.name: getattr(group, field.name) for field in fields(group)}
    return {name: value.value if isinstance(value, Enum) else value for name, value in values.items()}


def list_given_options(context: typer.Context) -> dict[str, str]:
    """Return the parameters that the user gave, each with its spelling on the command line."""
    given = {}
    for option in context.command.params:
        source = context.get_parameter_source(str(option.name))
        if source is not None and source.name in ("COMMANDLINE", "ENVIRONMENT"):
            given[str(option.name)] = " / ".join(option.opts)
    return given


def _list_group_parameters(group: Any) -> list[Parameter]:
    """Return the fields of a group as keyword parameters."""
    annotations = get_type_hints(group, include_extras=True)
    return [
        Parameter(field.name, Parameter.KEYWORD_ONLY, default=_get_default(field), annotation=annotations[field.name])
        for field in fields(group)
    ]


def _get_default(field: Field[Any]) -> Any:
    """Return a field's default as a signature writes it."""
    return Parameter.empty if field.default is MISSING else field.default


# ------------------------------------------------------------------------------------------------ texts -> values
def split_words(text: str | None) -> tuple[str, ...]:
    """Return the words of a list with commas."""
    return tuple(word.strip() for word in (text or "").split(",") if word.strip())


def parse_numbers(text: str | None, option: str) -> tuple[int, ...] | None:
    """Return the whole numbers of a list with commas; None where nothing was given.

    Raises:
        ConfigError: a word is no whole number.
    """
    if text is None:
        return None
    try:
        return tuple(int(word) for word in split_words(text))
    except ValueError as error:
        raise ConfigError(
            f"{option} is {text!r}; it must be whole numbers with commas in between, like 4,3,2."
        ) from error
