"""What the publication of a data set fixes, declared once in the file of its reader.

A reader's module may hold `PUBLICATION = Publication(...)`. The names of published patches circulate in folders of
their own and in split files, so they are recognised wherever they occur, not only by their reader.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from semicdvl.data import DATASETS
from semicdvl.registry import resolve_builder


@dataclass(frozen=True)
class Publication:
    """How a data set is known in the literature.

    Attributes:
        find_tile: name of a patch -> the tile, or part of a mosaic, that a split by fraction keeps together; None for a
            name that is not of this data set.
        list_ground_keys: name of a patch -> keys; two patches with a common key overlap or touch. Empty for a name that
            is not of this data set.
        lists: published list (`train`, `5%/labeled`) -> number of its names, and the first 16 hex digits of the SHA-256
            of the sorted names, one a line.
        recipe_prefix: the recipes are `recipes/<prefix>-05-supervised.toml` and so on.
        cut_note: a sentence for the user after the data set was cut into patches; empty: none.
    """

    find_tile: Callable[[str], str | None]
    list_ground_keys: Callable[[str], frozenset[str]]
    lists: Mapping[str, tuple[int, str]] = field(default_factory=dict)
    recipe_prefix: str = ""
    cut_note: str = ""


def find_publication(dataset: str) -> Publication | None:
    """Return what the module of a reader declares; None where it declares nothing.

    Args:
        dataset: name of a reader in `DATASETS`, or `package.module:function`.

    Raises:
        ConfigError: there is no such reader.
    """
    reader = resolve_builder("data set", dataset, DATASETS)
    declared = getattr(sys.modules[reader.__module__], "PUBLICATION", None)
    return declared if isinstance(declared, Publication) else None


def list_publications() -> tuple[Publication, ...]:
    """Return what the registered readers declare."""
    found = (find_publication(name) for name in DATASETS)
    return tuple(publication for publication in found if publication is not None)
