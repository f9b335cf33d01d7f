"""Tables that commands print."""

from __future__ import annotations

import math
from collections.abc import Mapping

from rich.table import Table


def build_metrics_table(title: str, columns: Mapping[str, Mapping[str, float]]) -> Table:
    """Return scores as a table, one column per set of pairs."""
    table = Table("", *columns, title=title, title_justify="left", box=None, header_style="bold")
    for name in dict.fromkeys(name for scores in columns.values() for name in scores):
        table.add_row(name, *(_format_score(scores[name]) if name in scores else "" for scores in columns.values()))
    return table


def _format_score(value: float) -> str:
    """Return a score with four decimals."""
    return "undefined" if math.isnan(value) else f"{value:.4f}"


def build_failure_table(errors: Mapping[str, str]) -> Table:
    """Return what failed and why, one line each."""
    table = Table("", "failed", title_justify="left", box=None, header_style="bold red")
    for name, error in errors.items():
        table.add_row(name, error)
    return table
