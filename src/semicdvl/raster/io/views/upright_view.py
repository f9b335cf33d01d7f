"""View a raster as the rest of the program expects it: a grid with north up, longitudes between -180 and 180 degrees.

Images that are located by ground control points (GCPs), by rational polynomial coefficients (RPCs) or by a rotated
grid are warped by GDAL onto a grid with north up while they are read. In degrees, the grid is one of UTM.
"""

from __future__ import annotations

import math
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
from affine import Affine
from rasterio.crs import CRS
from rasterio.enums import MaskFlags, Resampling
from rasterio.errors import RasterioError
from rasterio.transform import GCPTransformer
from rasterio.vrt import WarpedVRT
from rasterio.warp import transform

from semicdvl.errors import InputError
from semicdvl.raster.grid import FULL_CIRCLE_DEG, WGS84, find_utm_crs
from semicdvl.raster.io.open_dataset import describe_root_cause
from semicdvl.raster.io.views.alpha_band import needs_alpha
from semicdvl.raster.io.views.sentinel_values import choose_warp_options

MIN_CONTROL_POINTS = 3


@dataclass(frozen=True)
class UprightView:
    """A dataset with north up.

    Attributes:
        dataset: the dataset, or a view of it.
        note: what was done to it, for a reader of the result; empty if it is read as it is.
    """

    dataset: Any
    note: str = ""


def open_upright_view(dataset: Any, views: ExitStack, *, display_name: str) -> UprightView:
    """Return a dataset with rows from north to south and longitudes from -180 to 180; it is unchanged if it is so.

    Upside-down rasters keep their values: the pixels are reordered. What is located by control points, rational
    polynomials or a rotated grid is resampled (cubic).

    Args:
        dataset: an open dataset; one without a CRS is returned unchanged.
        views: closes the dataset where a view of it is returned.
        display_name: name of the file in messages.

    Raises:
        InputError: it cannot be warped, or its grid is rotated and it has no CRS.
    """
    located = _describe_location(dataset, display_name)
    if located is not None:
        return UprightView(_open_rectified(dataset, views, display_name), f"The image is {located}.")
    return UprightView(_open_reordered(dataset, views))


def require_north_up(dataset: Any, display_name: str) -> None:
    """Refuse a file of a mosaic that would have to be warped first.

    Raises:
        InputError: it is located by control points or rational polynomials, or its grid is rotated.
    """
    if _describe_location(dataset, display_name) is not None:
        problem = "The image has no grid with north up, so it cannot be placed in a mosaic"
        raise InputError(display_name, problem, "Rectify it with `gdalwarp` first (for RPCs: `gdalwarp -rpc`)")


# ------------------------------------------------------------------------------------------------ located otherwise
def _describe_location(dataset: Any, display_name: str) -> str | None:
    """Say what locates a raster, and how that is used; None for a grid that is not rotated, or nothing."""
    grid = dataset.transform
    if grid.is_identity and dataset.gcps[0]:
        points, crs = dataset.gcps
        if len(points) < MIN_CONTROL_POINTS or crs is None:
            problem = f"The image has {len(points)} ground control points" + (" without a CRS" if crs is None else "")
            remedy = f"Give at least {MIN_CONTROL_POINTS} points and their CRS, e.g. `gdal_translate -a_srs -gcp`"
            raise InputError(display_name, problem, remedy)
        return (
            f"located by {len(points)} ground control points (CRS {crs.to_string()}), which its pixels fit to "
            f"{_measure_residual_px(dataset):.1f} px (root mean square): it was warped onto a grid with north up"
        )
    if grid.is_identity and dataset.rpcs is not None:
        height_m = dataset.rpcs.height_off
        return (
            f"located by rational polynomial coefficients: it was warped at their mean height of {height_m:g} m, so "
            "where the ground is higher or lower it is displaced. Orthorectify it with a terrain model to avoid that "
            "(`gdalwarp -rpc -to RPC_DEM=...`)"
        )
    if not (grid.b or grid.d):
        return None
    if dataset.crs is None:
        problem = "The grid of the image is rotated, and it has no CRS"
        raise InputError(display_name, problem, "Assign its CRS (`gdal_edit.py -a_srs EPSG:...`)")
    turned = math.degrees(math.atan2(grid.d, grid.a))
    degrees = f"{turned:.1f}" if abs(turned) >= 0.05 else f"{turned:.1g}"
    return f"rotated by {degrees} degrees against its CRS: it was warped onto a grid with north up"


def _measure_residual_px(dataset: Any) -> float:
    """Return the root mean square distance of control points from where the polynomial through them puts them."""
    points = dataset.gcps[0]
    with GCPTransformer(points) as transformer:
        rows, cols = transformer.rowcol([p.x for p in points], [p.y for p in points], op=float)
    away = np.hypot(
        np.asarray(rows) - [p.row for p in points], np.asarray(cols) - [p.col for p in points]
    )  # fmt: skip
    return float(np.sqrt(np.mean(np.square(away))))


def _open_rectified(dataset: Any, views: ExitStack, display_name: str) -> Any:
    """Open a view of a dataset that GDAL warps onto a grid with north up."""
    rpcs = dataset.rpcs if dataset.transform.is_identity and not dataset.gcps[0] else None
    options = choose_warp_options(dataset) | ({} if rpcs is None else {"RPC_HEIGHT": f"{rpcs.height_off}"})
    try:
        view = WarpedVRT(
            dataset, crs=_choose_crs(dataset), resampling=Resampling.cubic, add_alpha=needs_alpha(dataset), **options
        )
    except (RasterioError, ValueError) as error:
        problem = f"GDAL cannot warp the image onto a grid with north up ({describe_root_cause(error)})"
        raise InputError(display_name, problem, "Rectify it with `gdalwarp` first") from error
    views.callback(dataset.close)
    return view


def _choose_crs(dataset: Any) -> CRS:
    """Return the CRS of a warped view: the image's own if it is projected, and otherwise its zone of UTM."""
    points, crs = dataset.gcps
    if not dataset.transform.is_identity:
        crs = dataset.crs
        centre = dataset.transform @ (dataset.width / 2, dataset.height / 2)
    elif points:
        centre = float(np.mean([p.x for p in points])), float(np.mean([p.y for p in points]))
    else:
        crs, centre = WGS84, (dataset.rpcs.long_off, dataset.rpcs.lat_off)
    if not crs.is_geographic:
        return crs
    (lon,), (lat,) = transform(crs, WGS84, [centre[0]], [centre[1]])[:2]
    return find_utm_crs(lon, lat)


# ------------------------------------------------------------------------------------------------ reordered
def _open_reordered(dataset: Any, views: ExitStack) -> Any:
    """Return a dataset, or a view of it that has its rows from north to south and longitudes from -180 to 180."""
    if dataset.crs is None:
        return dataset
    located = dataset.transform
    if dataset.crs.is_geographic:
        located = Affine.translation(-_find_turns(dataset) * FULL_CIRCLE_DEG, 0) @ located
    upright = located
    if located.e > 0:
        upright = located @ Affine(1, 0, 0, 0, -1, dataset.height)
    if located.a < 0:
        upright = upright @ Affine(-1, 0, dataset.width, 0, 1, 0)
    if upright == dataset.transform:
        return dataset
    view = WarpedVRT(
        dataset,
        src_transform=located,
        crs=dataset.crs,
        transform=upright,
        height=dataset.height,
        width=dataset.width,
        resampling=Resampling.nearest,
        add_alpha=MaskFlags.per_dataset in dataset.mask_flag_enums[0] and needs_alpha(dataset),
        **choose_warp_options(dataset),
    )
    views.callback(dataset.close)
    return view


def _find_turns(dataset: Any) -> int:
    """Return by how many full circles the centre of a raster in degrees lies beyond 180 degrees east."""
    centre_deg = (dataset.transform @ (dataset.width / 2, dataset.height / 2))[0]
    return round(centre_deg / FULL_CIRCLE_DEG) if abs(centre_deg) > FULL_CIRCLE_DEG / 2 else 0
