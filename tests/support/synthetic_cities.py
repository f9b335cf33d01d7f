"""Generate small synthetic cities for tests, each once."""

from functools import cache

import geopandas as gpd
import numpy as np
import rasterio.features

from semicdvl.synthetic.city import SyntheticCity
from semicdvl.synthetic.config import NUISANCES, CitySpec
from semicdvl.synthetic.generate import generate_city

NO_NUISANCES = dict.fromkeys(NUISANCES, 0.0)


@cache
def city(seed: int = 3, size_px: tuple[int, int] = (300, 400)) -> SyntheticCity:
    return generate_city(CitySpec(size_px=size_px, seed=seed))


@cache
def city_without_nuisances(seed: int = 3, size_px: tuple[int, int] = (300, 400)) -> SyntheticCity:
    return generate_city(CitySpec(size_px=size_px, seed=seed, **NO_NUISANCES))


def rasterize_footprints(frame: gpd.GeoDataFrame, like: SyntheticCity) -> np.ndarray:
    if frame.empty:
        return np.zeros(like.change_HW.shape, np.uint8)
    return rasterio.features.rasterize(
        frame.geometry, out_shape=like.change_HW.shape, transform=like.transform, dtype="uint8"
    )
