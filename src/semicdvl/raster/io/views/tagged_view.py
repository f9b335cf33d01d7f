"""View a raster with the tags that its pixels call for: colours for a palette, no data, transparency."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from semicdvl.raster.io.views.alpha_band import choose_alpha_band
from semicdvl.raster.io.views.palette import expand_palette
from semicdvl.raster.io.views.sentinel_values import tag_sentinel_values


@dataclass(frozen=True)
class TaggedView:
    """A dataset whose bands are tagged as they are to be read.

    Attributes:
        dataset: the dataset, or a view of it with other tags.
        gdal_name: the name under which GDAL opens it.
        notes: what a reader of the result should know.
        never_measured: values that hide a pixel in whichever band they are, see `sentinel_values`.
    """

    dataset: Any
    gdal_name: str
    notes: tuple[str, ...]
    never_measured: tuple[float, ...]


def open_tagged_view(dataset: Any, gdal_name: str, views: ExitStack, *, alpha: str = "auto") -> TaggedView:
    """Return a dataset with the tags that its pixels call for; it is unchanged where its own are right.

    Args:
        dataset: the open dataset.
        gdal_name: the name under which it was opened.
        views: closes what a view needs.
        alpha: which band says where there is data: see `alpha_band.choose_alpha_band`.

    Raises:
        InputError: the alpha band does not exist.
    """
    coloured = expand_palette(dataset, views)
    sentinels = tag_sentinel_values(coloured, views)
    name = gdal_name if sentinels.dataset is dataset else sentinels.dataset.name
    choice = choose_alpha_band(sentinels.dataset, name, views, alpha=alpha)
    notes = tuple(note for note in (sentinels.note, choice.note) if note)
    return TaggedView(choice.dataset, choice.gdal_name, notes, sentinels.values)
