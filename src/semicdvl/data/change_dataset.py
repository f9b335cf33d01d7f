"""What a reader returns: the pairs of a data set, its published subsets, and which pairs were cut from one tile."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from semicdvl.errors import DataError
from semicdvl.registry import suggest_nearest
from semicdvl.types import PairFiles

SUBSETS = ("train", "val", "test")
"""The subsets that data sets are published with."""
MAX_NAMES_FOR_HINT = 2000
"""Among more names than this none is suggested for a wrong one: comparing them all takes seconds."""


@dataclass(frozen=True)
class ChangeDataset:
    """The pairs of a data set.

    Attributes:
        name: of the data set, for reports.
        pairs: all pairs, in a fixed order.
        subsets: the published division: "train", "val", "test" (those that exist) -> names of pairs.
        source_tiles: name of a pair -> name of the tile that it was cut from, where the reader knows. Pairs of one tile
            share ground: a split by fraction keeps them together, and `splits.count_leaks` counts those it finds in
            both training and test.

    Raises:
        DataError: there is no pair, a name occurs twice, or a subset names a pair that does not exist.

    Examples:
        >>> import semicdvl as cd
        >>> dataset = cd.load_dataset(patches)
        >>> dataset.name, len(dataset.pairs)
        ('patches', 6)
    """

    name: str
    pairs: tuple[PairFiles, ...]
    subsets: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    source_tiles: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse an empty set, repeated names and subsets of pairs that do not exist."""
        if not self.pairs:
            raise DataError(f"{self.name}: no pair found. A/ and B/ must hold images with the same file names.")
        require_unique_names(f"data set {self.name}", [pair.name for pair in self.pairs])
        for subset, names in self.subsets.items():
            require_unique_names(f"{self.name}, subset {subset}", names)
            self.select_pairs(names, what=f"subset '{subset}'")

    @cached_property
    def pairs_by_name(self) -> dict[str, PairFiles]:
        """The pairs by name."""
        return {pair.name: pair for pair in self.pairs}

    def select_pairs(self, names: Iterable[str], *, what: str = "the list") -> tuple[PairFiles, ...]:
        """Return the pairs of these names, in their order.

        Args:
            names: of pairs.
            what: where the names come from, for the error message.

        Raises:
            DataError: some name is not in the data set.
        """
        listed = list(names)
        missing = [name for name in listed if name not in self.pairs_by_name]
        if missing:
            few = len(self.pairs_by_name) < MAX_NAMES_FOR_HINT
            hint = suggest_nearest(missing[0], self.pairs_by_name) if few else ""
            raise DataError(
                f"{self.name}: {what} names {len(missing)} of {len(listed)} pairs that have no files, e.g."
                f" '{missing[0]}'.{hint} Add the files, or remove the names from the list."
            )
        return tuple(self.pairs_by_name[name] for name in listed)

    def select_subset(self, name: str) -> tuple[PairFiles, ...]:
        """Return the pairs of a published subset.

        Raises:
            DataError: the data set has no such subset.
        """
        if name not in self.subsets:
            known = ", ".join(self.subsets) or "none"
            raise DataError(f"{self.name}: has no subset '{name}' (known: {known}). Make one with a split by fraction.")
        return self.select_pairs(self.subsets[name])


def require_unique_names(what: str, names: Iterable[str]) -> None:
    """Raise `DataError` if a name occurs twice; `what` says in the message where."""
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if repeated:
        number = f"{len(repeated)} names occur" if len(repeated) > 1 else "1 name occurs"
        raise DataError(f"{what}: {number} twice, e.g. '{repeated[0]}'. Each pair needs its own name.")
