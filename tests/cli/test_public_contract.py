"""The commands, their options and their defaults are a public contract: scripts of other people stand on them."""

import enum
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from semicdvl.cli import app

CONTRACT: dict[str, dict[str, Any]] = json.loads(Path(__file__).with_name("command_options.json").read_text())
"""Command -> first name of a parameter -> what a script may rely on; written from the commands as first published."""


def _describe_type(annotation: Any) -> str:
    """Return a name of a parameter's type; of an enumeration its choices."""
    if isinstance(annotation, type) and issubclass(annotation, enum.Enum):
        return " | ".join(member.value for member in annotation)
    return str(getattr(annotation, "__name__", annotation))


def _describe_default(value: Any) -> Any:
    """Return a default as JSON holds it."""
    value = value.value if isinstance(value, enum.Enum) else value
    return str(value) if isinstance(value, Path) else value


def _describe_parameter(parameter: Any) -> dict[str, Any]:
    """Return what a script may rely on."""
    return {
        "names": [*parameter.opts, *parameter.secondary_opts],
        "type": _describe_type(parameter.type_descriptor.annotation),
        "required": parameter.required,
        "repeated": bool(getattr(parameter, "multiple", False)),
        "least": parameter.min,
        "most": parameter.max,
        "default": _describe_default(parameter.default),
    }


def _walk_commands(command: Any, name: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Give every command with its parameters, without what typer adds for the completion in shells."""
    own = [parameter for parameter in command.params if not parameter.name.endswith("_completion")]
    yield name, {parameter.opts[0]: _describe_parameter(parameter) for parameter in own}
    for child, subcommand in getattr(command, "commands", {}).items():
        yield from _walk_commands(subcommand, f"{name} {child}".strip())


COMMANDS = dict(_walk_commands(typer.main.get_command(app)))


def test_the_commands_are_those_of_the_contract() -> None:
    assert set(COMMANDS) == set(CONTRACT)


@pytest.mark.parametrize("command", CONTRACT)
def test_options_and_defaults_are_those_of_the_contract(command: str) -> None:
    assert COMMANDS[command] == CONTRACT[command]


@pytest.mark.parametrize("command", CONTRACT)
def test_arguments_come_in_the_order_of_the_contract(command: str) -> None:
    orders = [[name for name in parameters[command] if not name.startswith("-")] for parameters in (COMMANDS, CONTRACT)]
    assert orders[0] == orders[1]


@pytest.mark.parametrize("command", ["detect", "adapt", "pseudo", "check"])
def test_options_stand_in_groups(command: str) -> None:
    def find(name: str) -> Any:
        return typer.main.get_command(app).commands[name]  # type: ignore[attr-defined]

    panels = {parameter.rich_help_panel for parameter in find(command).params if parameter.rich_help_panel}
    assert {"Input"} <= panels <= {"Input", "What to look for", "Output", "Advanced"}
