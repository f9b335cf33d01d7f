"""Model cards: what a user wants to know before choosing a VLM. Each VLM declares its own, in its own module.

    CARD = ModelCard(description="buildings and roads", licence="Apache-2.0", size="0.1 B, 0.4 GB", gamma=0.4)

A module without a card has the defaults, and the first line of its docstring as description.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass, replace

from semicdvl.errors import ConfigError
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
    """

    description: str = ""
    licence: str = "not stated"
    size: str = "not stated"
    needs: str = "nothing"
    gamma: float = 0.5
    measured_on: str = "not measured here"


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
        raise ConfigError(f"unknown VLM '{name}'. Known: {', '.join(sorted(VLMS))}.")
    try:
        module = importlib.import_module(target.partition(":")[0])
    except ImportError as error:
        return ModelCard(description="cannot be imported", needs=str(error))
    card: ModelCard = getattr(module, "CARD", ModelCard())
    if card.description:
        return card
    return replace(card, description=(module.__doc__ or "no description").strip().partition("\n")[0])
