"""Generate a city on two dates with exact truth: for demonstrations, tests and pre-training."""

from __future__ import annotations

from typing import Any

import geopandas as gpd
import numpy as np
import rasterio.features
import shapely
from numpy.typing import NDArray
from rasterio.transform import Affine
from shapely.affinity import affine_transform

from semicdvl.synthetic.city import SyntheticCity
from semicdvl.synthetic.config import CitySpec
from semicdvl.synthetic.layout.changes import plan_scene
from semicdvl.synthetic.layout.scene import FIRST_DATE, SECOND_DATE, Scene
from semicdvl.synthetic.layout.streets import WORLD_PADDING_M
from semicdvl.synthetic.materials import LAND_COVER_CLASSES
from semicdvl.synthetic.rendering.camera import (
    RENDER_MARGIN_PX,
    draw_acquisitions,
    draw_texture_noise,
    render_acquisition,
)


def generate_city(spec: CitySpec | None = None) -> SyntheticCity:
    """Generate a city pair; time is linear in the number of pixels, and the same settings give the same bytes.

    Args:
        spec: settings; None for the defaults (1024 px, seed 0).

    Returns:
        SyntheticCity: images HWC uint8 of both dates, `change_HW`, the classes of each date, and the footprints.

    Examples:
        >>> import semicdvl as cd
        >>> city = cd.generate_city(cd.CitySpec(size_px=(128, 192), seed=1))
        >>> city.t1_HWC.shape, city.change_HW.dtype, city.crs
        ((128, 192, 3), dtype('uint8'), 'EPSG:32633')
    """
    spec = spec or CitySpec()
    scene = plan_scene(spec)
    acquisitions = draw_acquisitions(spec)
    texture = draw_texture_noise(
        spec, (spec.shape_px[0] + 2 * RENDER_MARGIN_PX, spec.shape_px[1] + 2 * RENDER_MARGIN_PX)
    )
    transform = _make_transform(spec)
    frames, images, classes = [], [], []
    for date, conditions in zip((FIRST_DATE, SECOND_DATE), acquisitions, strict=True):
        image, ground = render_acquisition(scene, spec, date, conditions, texture)
        frame = _list_footprints(scene, spec, date, transform)
        ground[_rasterize_footprints(frame, spec, transform) == 1] = LAND_COVER_CLASSES.index("building")
        frames.append(frame)
        images.append(image)
        classes.append(ground)
    change = [_rasterize_footprints(frame[frame["kind"] != "unchanged"], spec, transform) for frame in frames]
    return SyntheticCity(
        spec=spec,
        t1_HWC=images[0],
        t2_HWC=images[1],
        change_HW=change[0] | change[1],
        classes_t1_HW=classes[0],
        classes_t2_HW=classes[1],
        buildings_t1=frames[0],
        buildings_t2=frames[1],
        transform=transform,
        crs=f"EPSG:{spec.epsg}",
    )


def _make_transform(spec: CitySpec) -> Affine:
    """Return the position of the city on the map: a place inside the zone, another for each seed."""
    x, y = 350_000.0 + 1000 * (spec.seed % 300), 5_500_000.0 + 1000 * (spec.seed // 300 % 300)
    return Affine(spec.gsd_m, 0, x, 0, -spec.gsd_m, y)


def _list_footprints(scene: Scene, spec: CitySpec, date: int, transform: Affine) -> gpd.GeoDataFrame:
    """Return the buildings of a date that are in the image, in map coordinates."""
    height_m, width_m = (n * spec.gsd_m for n in spec.shape_px)
    # World metres, y down from the world's corner -> map metres, y up.
    to_map = [1, 0, 0, -1, transform.c - WORLD_PADDING_M, transform.f + WORLD_PADDING_M]
    view = shapely.box(transform.c, transform.f - height_m, transform.c + width_m, transform.f)
    rows: list[dict[str, Any]] = []
    for number, site in enumerate(scene.sites):
        building = site.building_on(date)
        if building is None:
            continue
        shape = affine_transform(building.to_polygon(), to_map)
        if not shape.intersects(view):
            continue
        parts = shapely.get_parts(shape if view.contains(shape) else shape.intersection(view))
        for part in parts:
            if part.area > 0:
                row = {
                    "id": number,
                    "kind": site.change_kind,
                    "height_m": round(building.height_m, 2),
                    "roof": building.roof,
                }
                rows.append({**row, "material": building.material, "area_m2": float(part.area), "geometry": part})
    columns = ["id", "kind", "height_m", "roof", "material", "area_m2", "geometry"]
    return gpd.GeoDataFrame(rows, columns=columns, geometry="geometry", crs=f"EPSG:{spec.epsg}")


def _rasterize_footprints(frame: gpd.GeoDataFrame, spec: CitySpec, transform: Affine) -> NDArray[np.uint8]:
    """Return a mask (HW uint8) of the pixels whose centre lies in a polygon."""
    if frame.empty:
        return np.zeros(spec.shape_px, np.uint8)
    mask: NDArray[np.uint8] = rasterio.features.rasterize(
        frame.geometry, out_shape=spec.shape_px, transform=transform, dtype=np.uint8
    )
    return mask
