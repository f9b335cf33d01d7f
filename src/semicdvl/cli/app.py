"""The application that the commands are registered with, and the console that they print to."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from typer.core import TyperGroup

from semicdvl.reading.folder_kinds import is_folder
from semicdvl.reading.limits import MAX_SEED
from semicdvl.reading.regular_files import find_file_fault, shorten_path
from semicdvl.version import __version__

DETECTION, LABELS, TRAINING, EVALUATION = "Detect change", "Make labels", "Train", "Evaluate and compare"
"""Panels of `semicdvl --help`."""
INPUT, TARGET, OUTPUT, ADVANCED = "Input", "What to look for", "Output", "Advanced"
"""Panels of `semicdvl COMMAND --help`."""
PANELS = (None, INPUT, TARGET, OUTPUT, ADVANCED)
"""The same in their order; arguments, which have none, come first."""


class CheckedGroup(TyperGroup):
    """Commands with possible numbers and paths, whose options are listed panel by panel.

    Numbers are finite and of a size that every library takes.
    """

    def __init__(self, **settings: Any) -> None:
        """Let every parameter without a callback of its own check its value, and put options in the panels' order."""
        super().__init__(**settings)
        pending: list[Any] = list(self.commands.values())
        while pending:
            command = pending.pop()
            pending += getattr(command, "commands", {}).values()
            for parameter in command.params:
                parameter.callback = parameter.callback or _check_value
            command.params.sort(key=lambda one: PANELS.index(getattr(one, "rich_help_panel", None)))


def _check_value(context: Any, parameter: Any, value: Any) -> Any:
    """Return a value of the command line.

    Raises:
        BadParameter: it is infinite, not a number, has more digits than anything here counts, or names a path that no
            system has, or that is neither a file nor a folder.
    """
    if isinstance(value, Path):
        fault = find_file_fault(value)
        if fault is None and not str(value).isprintable():
            fault = "has control characters in its name"
        if fault is not None:
            raise typer.BadParameter(f"{shorten_path(value)} {fault}.", ctx=context, param=parameter)
    if isinstance(value, float) and not math.isfinite(value):
        raise typer.BadParameter(f"{value} is not a finite number.", ctx=context, param=parameter)
    if isinstance(value, int) and abs(value) > MAX_SEED:
        raise typer.BadParameter(f"the number is too large: give at most {MAX_SEED}.", ctx=context, param=parameter)
    return value


app = typer.Typer(
    cls=CheckedGroup,
    help="Detect what changed between two images of one place, with 0 to 100 % of labels.",
    epilog="No data at hand? `semicdvl demo` runs everything on a synthetic city, offline.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",  # square brackets in help are text, words in backticks are code
    context_settings={"help_option_names": ["-h", "--help"]},
)
out = Console(quiet=os.environ.get("RANK", "0") != "0", markup=False, highlight=False)
"""Where commands print: of several processes only the first one does. Square brackets are text, not markup."""


def _print_version(requested: bool) -> None:
    """Print the version and stop."""
    if requested:
        out.print(f"semicdvl {__version__}")
        raise typer.Exit


@app.callback()
def _add_common_options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit")
    ] = False,
) -> None:
    """Add the options that stand before a command."""


def remark_on_run(run: Path) -> None:
    """Say where a run, whose network was used, has not finished its training; an ONNX file tells nothing of it."""
    if not is_folder(run):
        return
    from semicdvl.training.run_record import describe_unfinished

    if (remark := describe_unfinished(run)) is not None:
        out.print(remark, style="yellow", soft_wrap=True)
