"""Groups of options: declared once, expanded where a command takes them, and handed over as one object."""

import inspect
from dataclasses import dataclass
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from semicdvl.cli.options.groups import expand_option_groups


@dataclass(frozen=True)
class Size:
    """A group."""

    height: Annotated[int, typer.Option(min=1, help="Rows")]
    width: Annotated[int, typer.Option(help="Columns")] = 7


@dataclass(frozen=True)
class WideSize(Size):
    """The same with another default."""

    width: Annotated[int, typer.Option(help="Many columns")] = 99


def _run(size_type: type[Size], *arguments: str) -> tuple[int, str]:
    """Run a command that takes a group and return its exit code and what it printed."""
    app = typer.Typer(pretty_exceptions_enable=False)

    def show(context: typer.Context, name: Annotated[str, typer.Argument()], size: size_type) -> None:  # type: ignore[valid-type]
        """Show a size."""
        sources = [context.get_parameter_source(option).name for option in ("height", "width")]
        typer.echo(f"{name} {size} {' '.join(sources)}")

    app.command()(expand_option_groups(show))
    result = CliRunner().invoke(app, arguments)
    return result.exit_code, result.output


def test_a_group_arrives_as_one_object() -> None:
    code, text = _run(Size, "roof", "--height", "3")
    assert code == 0
    assert text.split("\n")[0] == "roof Size(height=3, width=7) COMMANDLINE DEFAULT"


def test_a_subclass_declares_an_option_anew() -> None:
    assert "WideSize(height=3, width=99)" in _run(WideSize, "roof", "--height", "3")[1]
    assert "Many columns" in _run(WideSize, "--help")[1]


@pytest.mark.parametrize("arguments", [("roof",), ("roof", "--height", "0"), ("roof", "--size", "3")])
def test_bounds_and_required_options_hold(arguments: tuple[str, ...]) -> None:
    assert _run(Size, *arguments)[0] == 2


def test_the_fields_stand_where_the_group_stood() -> None:
    def command(first: int, size: Size, last: int = 0) -> None:
        """Do nothing."""

    expanded = inspect.signature(expand_option_groups(command))
    assert [*expanded.parameters] == ["first", "height", "width", "last"]
    assert expand_option_groups(command).__doc__ == "Do nothing."
