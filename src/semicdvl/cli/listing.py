"""The command that lists what can be named: list."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer
from rich.table import Table

from semicdvl.cli.app import EVALUATION, OUTPUT, app, out


class Kind(StrEnum):
    """What can be listed."""

    methods = "methods"
    models = "models"
    vlms = "vlms"
    datasets = "datasets"
    classic = "classic"
    prompts = "prompts"
    recipes = "recipes"
    recipe_keys = "recipe-keys"


@app.command(name="list", rich_help_panel=EVALUATION)
def list_command(
    kind: Annotated[Kind, typer.Argument(help="What to list")],
    params: Annotated[
        bool, typer.Option(help="Also count the parameters of each network", rich_help_panel=OUTPUT)
    ] = False,
) -> None:
    """List what can be named in recipes and on the command line."""
    from semicdvl.catalog import describe_details, describe_parts, list_detail_headings

    headings = list_detail_headings(kind.value, params=params)
    table = Table("name", "description", *headings, box=None, header_style="bold")
    for name, text in describe_parts(kind.value):
        table.add_row(name, text, *describe_details(kind.value, name, params=params))
    out.print(table)
