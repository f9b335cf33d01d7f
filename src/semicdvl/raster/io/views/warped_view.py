"""View a raster as GDAL resamples it onto another grid while it is read."""

from __future__ import annotations

from typing import Any

from affine import Affine
from rasterio.crs import CRS
from rasterio.enums import Resampling
from rasterio.vrt import WarpedVRT

from semicdvl.raster.grid import Grid, avoid_antimeridian
from semicdvl.raster.io.views.alpha_band import needs_alpha
from semicdvl.raster.io.views.sentinel_values import choose_warp_options

PLACEHOLDER_CRS, PLACEHOLDER_TRANSFORM = CRS.from_epsg(3857), Affine.scale(1, -1)
"""Given to plain images, which have neither: GDAL needs both to resample by a fraction of a pixel."""


def open_warped_view(dataset: Any, file_grid: Grid, grid: Grid, *, resampling: Resampling) -> WarpedVRT:
    """Open a view of a dataset that is resampled onto another grid.

    Args:
        dataset: the open dataset.
        file_grid: its own grid.
        grid: that of the view.
        resampling: how pixels are interpolated.
    """
    plain, source = grid.crs is None, avoid_antimeridian(file_grid)
    return WarpedVRT(
        dataset,
        src_crs=PLACEHOLDER_CRS if plain else source.crs,
        src_transform=PLACEHOLDER_TRANSFORM @ file_grid.transform if plain else source.transform,
        crs=PLACEHOLDER_CRS if plain else grid.crs,
        transform=PLACEHOLDER_TRANSFORM @ grid.transform if plain else grid.transform,
        width=grid.width,
        height=grid.height,
        resampling=resampling,
        add_alpha=needs_alpha(dataset),
        **choose_warp_options(dataset),
    )
