"""Pairs of image files, their split into subsets, and constants of the whole package."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from semicdvl.types.classes import ClassFiles

IGNORE = 255
"""Value of a pixel that is left out of losses and scores."""

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
"""Networks of this package take RGB / 255 normalised with these; encoders with other statistics convert further."""


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
