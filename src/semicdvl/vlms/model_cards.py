"""Model cards: what a user wants to know before choosing a VLM. Each VLM declares its own, in its own module.

    CARD = ModelCard(description="buildings and roads", licence="Apache-2.0", size="0.1 B, 0.4 GB", gamma=0.4)

The values are literals, so that a list of all VLMs imports none of them. A module without a card has the defaults, and
the first line of its docstring as description.
"""

from __future__ import annotations

import ast
import importlib.util
import sys
from dataclasses import dataclass, replace
from pathlib import Path

from semicdvl.errors import ConfigError
from semicdvl.registry import suggest_nearest
from semicdvl.types import MeasuredRange
from semicdvl.vlms import VLMS


@dataclass(frozen=True)
class ModelCard:
    """Describe a VLM; sizes are those of its default weights.

    Licences and sizes of weights that are downloaded were not checked against the publishers' pages: the licence that
    comes with the files is the one that holds.

    Attributes:
        description: what it is good at, in one line.
        licence: of the weights.
        size: parameters, and file size.
        needs: what must be installed or downloaded.
        gamma: score from which its predictions are reliable: the default of `--gamma`.
        measured_on: data on which its quality was measured here.
        measured_words: prompts of that measurement; none: it was not measured.
        missed_words: prompts that were measured and of which it finds next to nothing.
        measured_gsd_m: smallest and largest metres per pixel of that data; None: not measured.
        class_score: mean score from which the class of a changed object is more than a guess; None: `gamma`.
        class_reliability: how often the classes that are named then are right, and where that was measured.
    """

    description: str = ""
    licence: str = "not stated"
    size: str = "not stated"
    needs: str = "nothing"
    gamma: float = 0.5
    measured_on: str = "not measured here"
    measured_words: tuple[str, ...] = ()
    missed_words: tuple[str, ...] = ()
    measured_gsd_m: tuple[float, float] | None = None
    class_score: float | None = None
    class_reliability: str = "not measured"

    @property
    def measured(self) -> MeasuredRange:
        """Prompts and pixel sizes on which its quality was measured."""
        return MeasuredRange(self.measured_words, self.missed_words, self.measured_gsd_m)


def read_model_card(name: str) -> ModelCard:
    """Return the card of a VLM.

    >>> read_model_card("aerial").licence
    'Apache-2.0'

    Args:
        name: a name of `vlms.list_vlms()`, or `package.module:builder`.

    Raises:
        ConfigError: the name is unknown.
    """
    target = VLMS.get(name, name if ":" in name else None)
    if target is None:
        raise ConfigError(f"unknown VLM '{name}'.{suggest_nearest(name, VLMS)} Known: {', '.join(sorted(VLMS))}.")
    module_name = target.partition(":")[0]
    loaded = sys.modules.get(module_name)
    if loaded is not None:
        card, text = getattr(loaded, "CARD", ModelCard()), loaded.__doc__
    else:
        card, text = _read_card_of_file(module_name)
    return card if card.description else replace(card, description=(text or "no description").partition("\n")[0])


def _read_card_of_file(module_name: str) -> tuple[ModelCard, str | None]:
    """Return the card and the docstring of a module without importing it: that would load torch, or fail without it."""
    try:
        spec = importlib.util.find_spec(module_name)
    except ImportError:
        spec = None
    if spec is None or spec.origin is None:
        return ModelCard(description="cannot be imported", needs=f"the module {module_name}"), None
    tree = ast.parse(Path(spec.origin).read_text(encoding="utf-8"))
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call) and ast.unparse(node.targets[0]) == "CARD":
            values = {str(word.arg): ast.literal_eval(word.value) for word in node.value.keywords}
            return ModelCard(**values), ast.get_docstring(tree)
    return ModelCard(), ast.get_docstring(tree)
