"""Options of where the work is computed, and of which code it may load."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated

import typer

from semicdvl.cli.app import ADVANCED


class Executor(StrEnum):
    """Where the work is computed."""

    local = "local"
    ray = "ray"


@dataclass(frozen=True)
class TrustOptions:
    """Which code a stored run may name."""

    trust: Annotated[
        list[str] | None,
        typer.Option(
            "--trust",
            help="Module whose network the run may name, such as mymodule; runs may else name those of semicdvl alone",
            rich_help_panel=ADVANCED,
        ),
    ] = None
