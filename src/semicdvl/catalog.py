"""The catalog of `semicdvl list`: every registered part, described by what its own module declares."""

from __future__ import annotations

import ast
import importlib.util
import inspect
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin

from semicdvl.data import DATASETS
from semicdvl.methods import METHODS
from semicdvl.models import MODELS
from semicdvl.unsupervised import UNSUPERVISED
from semicdvl.vlms import VLMS

if TYPE_CHECKING:
    from pydantic import BaseModel

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
        from semicdvl.vlms.model_cards import read_model_card

        return [(name, read_model_card(name).description) for name in VLMS]
    if kind == "recipes":
        from semicdvl.config import list_shipped_recipes

        return [(name, _read_first_comment(path)) for name, path in list_shipped_recipes().items()]
    if kind == "recipe-keys":
        return [(one.dotted, one.meaning) for one in list_recipe_keys()]
    return [(name, _read_first_docstring_line(target)) for name, target in REGISTRIES[kind].items()]


def list_detail_headings(kind: str, *, params: bool) -> tuple[str, ...]:
    """Return the headings of the further columns of a kind."""
    if kind == "vlms":
        return ("licence of the weights", "size", "needs")
    if kind == "recipe-keys":
        return ("default",)
    return ("parameters in training", "at inference") if params else ()


def describe_details(kind: str, name: str, *, params: bool) -> tuple[str, ...]:
    """Return the cells of a part below those headings."""
    if kind == "vlms":
        from semicdvl.vlms.model_cards import read_model_card

        card = read_model_card(name)
        return card.licence, card.size, card.needs
    if kind == "recipe-keys":
        return (next(one.default for one in list_recipe_keys() if one.dotted == name),)
    return count_parameters(name) if params and kind == "models" else ()


# ------------------------------------------------------------------------------------------------ recipes
@dataclass(frozen=True)
class RecipeKey:
    """One key of a recipe, as the class that checks recipes declares it.

    Attributes:
        section: the table that it stands in, such as "train"; empty: at the top.
        key: its name.
        default: as it is written in TOML; "required" where there is none, empty where the key is left out by default.
        meaning: in words, with the values that it can take.
    """

    section: str
    key: str
    default: str
    meaning: str

    @property
    def dotted(self) -> str:
        """The key with its section, as `--set` takes it."""
        return f"{self.section}.{self.key}" if self.section else self.key


def list_recipe_keys() -> list[RecipeKey]:
    """Return all keys of a recipe; those of a model or method are the options of the one that is named."""
    from semicdvl.config import ClassesConfig, DataConfig, PartConfig, PseudoConfig, Recipe, TrainConfig

    sections: dict[str, type[BaseModel]] = {
        "data": DataConfig,
        "pseudo": PseudoConfig,
        "classes": ClassesConfig,
        "model": PartConfig,
        "method": PartConfig,
        "train": TrainConfig,
    }
    found = [one for one in describe_section("", Recipe) if one.key not in sections]
    for name, section in sections.items():
        found += describe_section(name, section)
    return found


def describe_section(name: str, section: type[BaseModel]) -> list[RecipeKey]:
    """Return the keys of a class that checks a part of a TOML file."""
    return [
        RecipeKey(name, key, format_default(field), explain_key(field)) for key, field in section.model_fields.items()
    ]


def explain_key(field: Any) -> str:
    """Return the meaning of a key and the words that it can take."""
    from pydantic import BaseModel

    kinds = [kind for kind in (field.annotation, *get_args(field.annotation)) if kind is not None]
    sections = [
        (inspect.getdoc(kind) or "").partition("\n")[0]
        for kind in kinds
        if inspect.isclass(kind) and issubclass(kind, BaseModel)
    ]
    words = next((get_args(kind) for kind in kinds if get_origin(kind) is Literal), ())
    meaning = field.description or " ".join(sections)
    choices = ", ".join(map(str, words))
    return ": ".join(part for part in (meaning, f"one of {choices}" if choices else "") if part)


def format_default(field: Any) -> str:
    """Return the default of a key as TOML; empty where it has none, or where it is a section of its own."""
    from pydantic import BaseModel
    from pydantic_core import PydanticUndefined

    value = field.get_default(call_default_factory=True)
    if value is PydanticUndefined:
        return "required"
    return "" if value is None or value in ((), {}) or isinstance(value, BaseModel) else format_toml(value)


def format_toml(value: Any) -> str:
    """Return a plain value as it is written in TOML."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple | list):
        return f"[{', '.join(map(format_toml, value))}]"
    return str(value) if isinstance(value, int | float) else f'"{value}"'


def _read_first_comment(path: Path) -> str:
    """Return what a recipe says of itself: its first line."""
    first = path.read_text(encoding="utf-8").partition("\n")[0]
    return first.lstrip("# ") if first.startswith("#") else ""


def count_parameters(name: str) -> tuple[str, str]:
    """Return a network's parameter counts by default, in training and at inference, frozen parameters included."""
    from semicdvl.models.common.contract import drop_train_heads
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
