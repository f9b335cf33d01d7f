"""Pairs of image files and the classes of their labels, their split into subsets, and constants of the package."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from semicdvl.errors import ConfigError

IGNORE = 255
"""Value of a pixel that is left out of losses and scores."""

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
"""Networks of this package take RGB / 255 normalised with these; encoders with other statistics convert further."""

Rgb = tuple[int, int, int]
MAX_CLASSES = 255
"""The class maps are bytes, of which 255 is IGNORE."""


@dataclass(frozen=True)
class ClassLegend:
    """The classes that the ground can have at a date, in the order of their index.

    Attributes:
        names: of the classes 0 .. K-1.
        colours: RGB colour of each class in label files that are pictures; None: the files hold the indices.
        unknown_colours: colours that mean "not known" (in SECOND: white, for unchanged ground).

    Raises:
        ConfigError: fewer than two names, a name that is empty or occurs twice, another number of colours than of
            names, a colour that occurs twice or is none.

    Examples:
        >>> from semicdvl.types import ClassLegend
        >>> ClassLegend(("building", "water"), ((128, 0, 0), (0, 0, 255))).count
        2
    """

    names: tuple[str, ...]
    colours: tuple[Rgb, ...] | None = None
    unknown_colours: tuple[Rgb, ...] = ()

    def __post_init__(self) -> None:
        """Refuse names and colours that don't tell the classes apart."""
        if not 2 <= len(self.names) <= MAX_CLASSES:
            raise ConfigError(f"{len(self.names)} class names are given. Name 2 to {MAX_CLASSES} classes.")
        if not all(name.strip() for name in self.names):
            raise ConfigError("a class name is empty. Give each class a name.")
        if strange := [name for name in self.names if not name.isprintable()]:
            raise ConfigError(f"the class name {strange[0]!r} holds control characters. Name it in plain text.")
        if repeated := [name for name, count in Counter(self.names).items() if count > 1]:
            raise ConfigError(f"the class name '{repeated[0]}' occurs twice. Name each class once.")
        if self.colours is not None and len(self.colours) != len(self.names):
            raise ConfigError(
                f"{len(self.colours)} colours are given for {len(self.names)} classes. Give one colour for each class,"
                " and colours of no class as `unknown`."
            )
        colours = (*(self.colours or ()), *self.unknown_colours)
        for colour in colours:
            if len(colour) != 3 or not all(0 <= band <= 255 for band in colour):
                raise ConfigError(f"{list(colour)} is not a colour. Give red, green and blue from 0 to 255.")
        if repeated_colours := [colour for colour, count in Counter(colours).items() if count > 1]:
            raise ConfigError(f"the colour {list(repeated_colours[0])} occurs twice. Give each class its own colour.")

    @property
    def count(self) -> int:
        """Number K of classes."""
        return len(self.names)


@dataclass(frozen=True)
class ClassFiles:
    """The class maps of a pair.

    Attributes:
        legend: the classes.
        before: class map of date 1; None: not known for this pair.
        after: class map of date 2.
        give_change: the pair has changed where either map knows a class (the files hold classes on changed ground only,
            as in SECOND), so it needs no change mask.
    """

    legend: ClassLegend
    before: Path | None = None
    after: Path | None = None
    give_change: bool = False

    @property
    def files(self) -> tuple[Path, ...]:
        """The files that there are."""
        return tuple(path for path in (self.before, self.after) if path is not None)


@dataclass(frozen=True)
class PairFiles:
    """One pair of co-registered images of one place, with its label if it has one.

    Attributes:
        name: unique in its data set; the key of split lists and reports.
        before: image of date 1 (any format that GDAL reads).
        after: image of date 2, same size.
        label: change mask of 0 and 255 (or 0 and 1); None for an unlabelled pair.
        window_px: (row, col, height, width) of the part of the files that is used; None for all of it.
        classes: class maps of both dates; None for a pair of which change alone is known.

    Examples:
        >>> import semicdvl as cd
        >>> from pathlib import Path
        >>> pair = cd.PairFiles("north", before=Path("A/north.png"), after=Path("B/north.png"))
        >>> pair.label is None
        True
    """

    name: str
    before: Path
    after: Path
    label: Path | None = None
    window_px: tuple[int, int, int, int] | None = None
    classes: ClassFiles | None = None

    @property
    def has_label(self) -> bool:
        """Whether it is known where the pair has changed: by its mask, or by class maps that say so."""
        return self.label is not None or (
            self.classes is not None and self.classes.give_change and bool(self.classes.files)
        )


@dataclass(frozen=True)
class Split:
    """The subsets of a data set: training with labels, training without, validation, test."""

    labelled: tuple[PairFiles, ...]
    unlabelled: tuple[PairFiles, ...]
    val: tuple[PairFiles, ...]
    test: tuple[PairFiles, ...]
