"""A synthetic city pair: two images and what is true of them.

What the truth says:

- *Change* is building change alone: a building that appeared, disappeared, or was replaced by one of another shape. Of
  a replaced building the union of the old and the new footprint is changed, as annotators outline a rebuilt plot.
  Season, sun, haze, cars, trees, ploughing, new tarmac, new roof coverings, pools and awnings are no change.
- Buildings are their *footprints*: the roof as a true orthophoto shows it, straight from above, at its place on the
  grid of date 1. So labels are like those made from cadastral or orthophoto footprints. In the images, roofs lean off
  their footprints by height times view angle (`CitySpec.parallax`), and date 2 is shifted as a whole
  (`CitySpec.shift_px`): as with real pairs, image and label then disagree by a pixel or a few.
- The class maps of *both* dates are on the ideal grid of date 1, without shift and without parallax. Where a crown
  hangs over a roof the class is building; shadows belong to what they fall on.

The truth rasters are rasterised from the footprint polygons (a pixel is inside when its centre is): they agree exactly.
"""

from __future__ import annotations

from dataclasses import dataclass

import geopandas as gpd
import numpy as np
from numpy.typing import NDArray
from rasterio.transform import Affine

from semicdvl.synthetic.config import CitySpec


@dataclass(frozen=True)
class SyntheticCity:
    """A synthetic city on two dates, and its truth.

    Attributes:
        spec: its settings.
        t1_HWC: RGB image of date 1, uint8; with `CitySpec.nir` near infrared is its fourth band.
        t2_HWC: the same of date 2.
        change_HW: uint8, 1 where a building appeared, disappeared or was replaced.
        classes_t1_HW: uint8, index into `LAND_COVER_CLASSES`, date 1.
        classes_t2_HW: the same of date 2, on the grid of date 1.
        buildings_t1: footprints of date 1, clipped to the image; columns `id` (the site's, equal on both dates),
            `kind` (unchanged, appeared, disappeared, replaced), `height_m`, `roof`, `material`, `area_m2`.
        buildings_t2: footprints of date 2.
        transform: pixel (col, row) -> map (x, y).
        crs: coordinate system, as `EPSG:<code>`.

    Examples:
        >>> import semicdvl as cd
        >>> city = cd.generate_city(cd.CitySpec(size_px=(128, 192)))
        >>> city.change_HW.shape, list(city.buildings_t1.columns)[:2]
        ((128, 192), ['id', 'kind'])
    """

    spec: CitySpec
    t1_HWC: NDArray[np.uint8]
    t2_HWC: NDArray[np.uint8]
    change_HW: NDArray[np.uint8]
    classes_t1_HW: NDArray[np.uint8]
    classes_t2_HW: NDArray[np.uint8]
    buildings_t1: gpd.GeoDataFrame
    buildings_t2: gpd.GeoDataFrame
    transform: Affine
    crs: str
