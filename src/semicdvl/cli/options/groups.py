"""Options that several commands share are declared once, as a frozen dataclass, and expanded where a command asks."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import MISSING, Field, fields, is_dataclass
from functools import wraps
from inspect import Parameter
from typing import Any, get_type_hints

Command = Callable[..., None]
INPUT, TARGET, OUTPUT, ADVANCED = "Input", "What to look for", "Output", "Advanced"
"""Panels of `--help`."""


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
