"""The command that starts a project: init."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from semicdvl.api.project import START_RECIPE, create_project
from semicdvl.cli.app import INPUT, TRAINING, app, out


@app.command(name="init", rich_help_panel=TRAINING)
def init_command(
    folder: Annotated[Path, typer.Argument(help="Folder of the project; made if it does not exist")],
    recipe: Annotated[
        str,
        typer.Option(help="Shipped recipe to start from, see `semicdvl list recipes`", rich_help_panel=INPUT),
    ] = START_RECIPE,
) -> None:
    """Start a project: write a commented recipe and the folders for images and labels, and say what comes next."""
    out.print(create_project(folder, recipe=recipe).format_text(), soft_wrap=True)
