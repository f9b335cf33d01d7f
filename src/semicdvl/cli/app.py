"""The application that the commands are registered with, and the console that they print to."""

from __future__ import annotations

import os
from typing import Annotated

import typer
from rich.console import Console

from semicdvl.version import __version__

DETECTION, LABELS, TRAINING, EVALUATION = "Detect change", "Make labels", "Train", "Evaluate and compare"
"""Panels of `semicdvl --help`."""

app = typer.Typer(
    help="Detect what changed between two images of one place, with 0 to 100 % of labels.",
    epilog="No data at hand? `semicdvl demo` runs everything on a synthetic city, offline.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
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
    """Options of every command."""
