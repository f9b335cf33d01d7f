"""View a raster as the rest of the program expects it: north up, longitudes between -180 and 180 degrees."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

from affine import Affine
from rasterio.enums import MaskFlags, Resampling
from rasterio.vrt import WarpedVRT

FULL_CIRCLE_DEG = 360


def open_upright_view(dataset: Any, views: ExitStack) -> Any:
    """Return a dataset with rows from north to south and longitudes from -180 to 180; it is unchanged if it is so.

    The pixels keep their values: they are reordered, not interpolated.

    Args:
        dataset: an open dataset; one without a CRS is returned unchanged.
        views: closes the dataset where a view of it is returned.
    """
    if dataset.crs is None:
        return dataset
    located = Affine.translation(-_find_turns(dataset) * FULL_CIRCLE_DEG, 0) @ dataset.transform
    upright = located
    if located.e > 0:
        upright = located @ Affine(1, 0, 0, 0, -1, dataset.height)
    if upright == dataset.transform:
        return dataset
    flags = dataset.mask_flag_enums[0]
    view = WarpedVRT(
        dataset,
        src_transform=located,
        crs=dataset.crs,
        transform=upright,
        height=dataset.height,
        width=dataset.width,
        resampling=Resampling.nearest,
        add_alpha=MaskFlags.per_dataset in flags and MaskFlags.alpha not in flags,
    )
    views.callback(dataset.close)
    return view


def _find_turns(dataset: Any) -> int:
    """Return by how many full circles the centre of a raster in degrees lies beyond 180 degrees east."""
    if not dataset.crs.is_geographic:
        return 0
    centre_deg = (dataset.transform @ (dataset.width / 2, dataset.height / 2))[0]
    return round(centre_deg / FULL_CIRCLE_DEG) if abs(centre_deg) > FULL_CIRCLE_DEG / 2 else 0
