"""The application that the commands of this folder hang themselves on, and where they print."""

from __future__ import annotations

import os
from typing import Annotated

import typer
from rich.console import Console

from semicdvl.version import __version__

app = typer.Typer(
    help="Find what changed between two images of one place, with 0 to 100 % of labels.",
    epilog="No data at hand? `semicdvl demo` runs everything on a made-up city, offline.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
out = Console(quiet=os.environ.get("RANK", "0") != "0")  # of several processes the first one speaks


def _version(wanted: bool) -> None:
    """Print the version and stop."""
    if wanted:
        out.print(f"semicdvl {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version")
    ] = False,
) -> None:
    """Options of every command."""
