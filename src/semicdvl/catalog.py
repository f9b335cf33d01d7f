"""The catalog of `semicdvl list`: every registered part, described by what its own module declares."""

from __future__ import annotations

import ast
import importlib.util
import sys
from pathlib import Path

from semicdvl.data import DATASETS
from semicdvl.methods import METHODS
from semicdvl.models import MODELS
from semicdvl.unsupervised import UNSUPERVISED
from semicdvl.vlms import VLMS
from semicdvl.vlms.model_cards import read_model_card

REGISTRIES: dict[str, dict[str, str]] = {
    "methods": METHODS,
    "models": MODELS,
    "vlms": VLMS,
    "datasets": DATASETS,
    "classic": UNSUPERVISED,
}


def describe_parts(kind: str) -> list[tuple[str, str]]:
    """Return (name, description of one line) of every part of a kind."""
    if kind == "prompts":
        from semicdvl.ceg.prompts import PROMPT_SETS

        return [(name, f"{', '.join(p.find)} | {', '.join(p.background)}") for name, p in PROMPT_SETS.items()]
    if kind == "vlms":
        return [(name, read_model_card(name).description) for name in VLMS]
    return [(name, _read_first_docstring_line(target)) for name, target in REGISTRIES[kind].items()]


def list_detail_headings(kind: str, *, params: bool) -> tuple[str, ...]:
    """Return the headings of the further columns of a kind."""
    if kind == "vlms":
        return ("licence of the weights", "size", "needs")
    return ("parameters in training", "at inference") if params else ()


def describe_details(kind: str, name: str, *, params: bool) -> tuple[str, ...]:
    """Return the cells of a part below those headings."""
    if kind == "vlms":
        card = read_model_card(name)
        return card.licence, card.size, card.needs
    return count_parameters(name) if params and kind == "models" else ()


def count_parameters(name: str) -> tuple[str, str]:
    """Return a network's parameter counts by default, in training and at inference, frozen parameters included."""
    from semicdvl.models.common.heads import drop_train_heads
    from semicdvl.training.compatibility import build_meta_network

    network = build_meta_network({"name": name})  # a foundation model need not fit into memory to be counted
    training = sum(parameter.numel() for parameter in network.parameters())
    drop_train_heads(network)
    return f"{training:,}", f"{sum(parameter.numel() for parameter in network.parameters()):,}"


def _read_first_docstring_line(target: str) -> str:
    """Return the first line of a module's docstring without importing it: some need optional packages."""
    module_name = target.partition(":")[0]
    if module_name in sys.modules:  # of a script or notebook, which registers a part of its own, there may be no file
        return (sys.modules[module_name].__doc__ or "").strip().partition("\n")[0]
    spec = importlib.util.find_spec(module_name)
    if spec is None or spec.origin is None:
        return ""
    text = ast.get_docstring(ast.parse(Path(spec.origin).read_text(encoding="utf-8"))) or ""
    return text.partition("\n")[0]
