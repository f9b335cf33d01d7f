"""What there is to name: the tables of the rooms, each entry with the first line of its docstring."""

from __future__ import annotations

import ast
import importlib.util
from pathlib import Path

from semicdvl.ceg.prompts import PROMPT_SETS
from semicdvl.checkpoint import build_bare_network
from semicdvl.data import DATASETS
from semicdvl.methods import METHODS
from semicdvl.models import MODELS
from semicdvl.unsupervised import CLASSIC
from semicdvl.vlms import VLMS
from semicdvl.vlms.model_cards import FACTS

TABLES: dict[str, dict[str, str]] = {
    "methods": METHODS,
    "models": MODELS,
    "vlms": VLMS,
    "datasets": DATASETS,
    "classic": CLASSIC,
}


def described(kind: str) -> list[tuple[str, str]]:
    """Return (name, one line of what it is) of everything of a kind."""
    if kind == "prompts":
        return [(name, f"{', '.join(p.find)} | {', '.join(p.background)}") for name, p in PROMPT_SETS.items()]
    if kind == "vlms":
        return [(name, FACTS[name].good_at) for name in VLMS]
    return [(name, _first_line(target)) for name, target in TABLES[kind].items()]


def headings(kind: str, *, params: bool) -> tuple[str, ...]:
    """Return what else is listed of a kind."""
    if kind == "vlms":
        return ("licence of the weights", "size", "needs")
    return ("parameters in training", "at inference") if params else ()


def details(kind: str, name: str, *, params: bool) -> tuple[str, ...]:
    """Return what stands below those headings."""
    if kind == "vlms":
        return FACTS[name].licence, FACTS[name].size, FACTS[name].needs
    return counted(name) if params and kind == "models" else ()


def counted(name: str) -> tuple[str, str]:
    """Return a network's parameter counts, in training and at inference, as it is by default; frozen ones count too."""
    import torch

    with torch.device("meta"):  # shapes alone: a foundation model need not fit into memory to be counted
        network = build_bare_network({"name": name})
    training = sum(parameter.numel() for parameter in network.parameters())
    drop = getattr(network, "drop_train_heads", None)
    if drop is not None:
        drop()
    return f"{training:,}", f"{sum(parameter.numel() for parameter in network.parameters()):,}"


def _first_line(target: str) -> str:
    """Return the first line of a module's docstring without importing it: some need optional packages."""
    spec = importlib.util.find_spec(target.partition(":")[0])
    if spec is None or spec.origin is None:
        return ""
    text = ast.get_docstring(ast.parse(Path(spec.origin).read_text(encoding="utf-8"))) or ""
    return text.partition("\n")[0]
