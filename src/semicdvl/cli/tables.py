"""Tables that commands print."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rich.table import Table

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


def build_metrics_table(title: str, columns: Mapping[str, Mapping[str, float]]) -> Table:
    """Return scores as a table, one column per set of pairs."""
    table = Table("", *columns, title=title, title_justify="left", box=None, header_style="bold")
    for name in dict.fromkeys(name for scores in columns.values() for name in scores):
        table.add_row(name, *(_format_score(scores[name]) if name in scores else "" for scores in columns.values()))
    return table


def build_transition_table(title: str, names: Sequence[str], found_KK: ArrayLike, true_KK: ArrayLike) -> Table:
    """Return pixels by class at date 1 (row) and at date 2 (column), as `found / true`."""
    import numpy as np

    table = Table("", *names, title=title, title_justify="left", box=None, header_style="bold")
    for name, found_K, true_K in zip(names, np.asarray(found_KK), np.asarray(true_KK), strict=True):
        table.add_row(name, *(f"{found:,} / {true:,}" for found, true in zip(found_K, true_K, strict=True)))
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
