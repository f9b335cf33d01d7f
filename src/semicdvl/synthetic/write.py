"""Write a synthetic city: as georeferenced rasters and polygons, or as the patches of a change-detection data set."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import pandas as pd
import rasterio
from affine import Affine
from numpy.typing import NDArray
from PIL import Image

from semicdvl.atomic_files import write_atomically
from semicdvl.errors import DataError
from semicdvl.raster.vector.formats.geopackage import GEOPACKAGE_VERSION
from semicdvl.synthetic.city import SyntheticCity
from semicdvl.synthetic.materials import LAND_COVER_CLASSES
from semicdvl.types import IGNORE, ClassFiles, ClassLegend, PairFiles

CLASS_COLOURS = (
    (214, 80, 62),
    (120, 120, 124),
    (186, 182, 172),
    (150, 190, 104),
    (52, 112, 60),
    (74, 128, 186),
    (178, 142, 98),
    (222, 198, 92),
    (240, 238, 240),
)
"""Colours of `LAND_COVER_CLASSES` in the colour table of the class rasters."""


_UNKNOWN_COLOUR = (255, 255, 255)


@dataclass(frozen=True)
class PatchClass:
    """A class of the patches' class maps.

    Attributes:
        name: of the class.
        colour: in the class maps.
        covers: names of `LAND_COVER_CLASSES`.
    """

    name: str
    colour: tuple[int, int, int]
    covers: tuple[str, ...]


PATCH_CLASSES = (
    PatchClass("building", (214, 80, 62), ("building",)),
    PatchClass("road", (120, 120, 124), ("road", "pavement", "car")),
    PatchClass("vegetation", (52, 112, 60), ("grass", "tree", "field")),
    PatchClass("bare", (178, 142, 98), ("soil",)),
    PatchClass("water", (74, 128, 186), ("water",)),
)
"""The usual five classes; every land cover is in one."""


@dataclass(frozen=True)
class CityFiles:
    """The files that `write_city` wrote; the rasters share grid and CRS.

    Attributes:
        before: RGB image of date 1.
        after: RGB image of date 2.
        change: mask of 0 and 1.
        classes_before: index into `LAND_COVER_CLASSES`, with a colour table.
        classes_after: the same of date 2.
        buildings: GeoPackage with the layers `before`, `after` and `change`.
    """

    before: Path
    after: Path
    change: Path
    classes_before: Path
    classes_after: Path
    buildings: Path


def write_city(city: SyntheticCity, folder: Path) -> CityFiles:
    """Write a city as tiled, compressed GeoTIFFs and a GeoPackage; each file appears complete or not at all.

    Raises:
        OutputError: the folder cannot be written.
    """
    names = ("before.tif", "after.tif", "change.tif", "classes_before.tif", "classes_after.tif", "buildings.gpkg")
    files = CityFiles(*(folder / name for name in names))
    _write_raster(files.before, city.t1_HWC, city)
    _write_raster(files.after, city.t2_HWC, city)
    _write_raster(files.change, city.change_HW[..., None], city)
    for path, classes_HW in ((files.classes_before, city.classes_t1_HW), (files.classes_after, city.classes_t2_HW)):
        _write_raster(path, classes_HW[..., None], city, colours=dict(enumerate(CLASS_COLOURS)))
    changed = [b[b["kind"] != "unchanged"] for b in (city.buildings_t1, city.buildings_t2)]
    # One polygon per changed site: the union of its old and new footprint.
    union = pd.concat(changed).dissolve("id", as_index=False)[["id", "kind", "geometry"]]
    union["area_m2"] = union.geometry.area
    with write_atomically(files.buildings) as temporary:
        temporary.unlink()  # the GeoPackage driver only writes a file that does not exist yet
        for layer, frame in (("before", city.buildings_t1), ("after", city.buildings_t2), ("change", union)):
            frame.to_file(
                temporary,
                layer=layer,
                driver="GPKG",
                geometry_type="Unknown",
                engine="pyogrio",
                VERSION=GEOPACKAGE_VERSION,
            )
    return files


def write_city_patches(
    city: SyntheticCity,
    folder: Path,
    *,
    size_px: int = 256,
    classes: Sequence[PatchClass] | None = None,
    classes_known: Literal["everywhere", "changed"] = "everywhere",
) -> tuple[PairFiles, ...]:
    """Cut a city into PNG patches in the layout `A/ B/ label/` (label 0 or 255); return the pairs in reading order.

    Images with near infrared are GeoTIFFs of four bands.

    With `classes`, such as `PATCH_CLASSES`, the classes of both dates are written, too: `label_A/ label_B/` with a
    palette, and `classes.toml`. Land cover that no class covers is not known there; with `classes_known="changed"`
    neither is the class of unchanged ground, as in SECOND.

    Names are `city<seed>_r<row>_c<col>` with the pixel position of the patch's upper left corner, so that cities of
    several seeds can share a folder. The right and lower edge, where no whole patch fits, is left out.

    Raises:
        DataError: the patches are larger than the city.
        OutputError: the folder cannot be written.
    """
    height, width = city.change_HW.shape
    if not 0 < size_px <= min(height, width):
        raise DataError(
            f"Patches of {size_px} px do not fit into a city of {height} x {width} px. Give a smaller size_px."
        )
    legend = None if classes is None else _write_legend(folder / "classes.toml", classes)
    pairs = []
    for row in range(0, height - size_px + 1, size_px):
        for col in range(0, width - size_px + 1, size_px):
            name = f"city{city.spec.seed:05d}_r{row:05d}_c{col:05d}"
            part = (slice(row, row + size_px), slice(col, col + size_px))
            suffix = "png" if city.t1_HWC.shape[2] == 3 else "tif"
            paths = [
                folder / "A" / f"{name}.{suffix}",
                folder / "B" / f"{name}.{suffix}",
                folder / "label" / f"{name}.png",
            ]
            for path, image in zip(paths, (city.t1_HWC, city.t2_HWC, city.change_HW * np.uint8(255)), strict=True):
                if path.suffix == ".png":
                    _write_png(path, image[part])
                else:
                    _write_raster(
                        path, image[part], replace(city, transform=city.transform @ Affine.translation(col, row))
                    )
            files = None
            if classes is not None and legend is not None:
                files = ClassFiles(legend, folder / "label_A" / f"{name}.png", folder / "label_B" / f"{name}.png")
                known_HW = city.change_HW[part] == 1 if classes_known == "changed" else np.True_
                for path, cover_HW in zip(files.files, (city.classes_t1_HW, city.classes_t2_HW), strict=True):
                    _write_class_map(path, cover_HW[part], classes, known_HW=known_HW)
            pairs.append(PairFiles(name, before=paths[0], after=paths[1], label=paths[2], classes=files))
    return tuple(pairs)


def _write_legend(path: Path, classes: Sequence[PatchClass]) -> ClassLegend:
    """Write `classes.toml` and return what it says."""
    legend = ClassLegend(
        tuple(each.name for each in classes), tuple(each.colour for each in classes), (_UNKNOWN_COLOUR,)
    )
    colours = [list(each.colour) for each in classes]
    text = f"names = {json.dumps(legend.names)}\ncolours = {colours}\nunknown = [{list(_UNKNOWN_COLOUR)}]\n"
    with write_atomically(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return legend


def _write_class_map(
    path: Path, cover_HW: NDArray[np.uint8], classes: Sequence[PatchClass], *, known_HW: NDArray[np.bool_] | np.bool_
) -> None:
    """Write the classes of one date as a PNG with a palette; `cover_HW` holds indices into `LAND_COVER_CLASSES`."""
    class_of = np.full(len(LAND_COVER_CLASSES), IGNORE, np.uint8)
    for index, each in enumerate(classes):
        class_of[[LAND_COVER_CLASSES.index(cover) for cover in each.covers]] = index
    picture = Image.fromarray(np.where(known_HW, class_of[cover_HW], np.uint8(IGNORE)))
    colours = {index: each.colour for index, each in enumerate(classes)}
    picture.putpalette([band for index in range(256) for band in colours.get(index, _UNKNOWN_COLOUR)])
    with write_atomically(path) as temporary:
        picture.save(temporary, format="PNG")


def _write_png(path: Path, image: NDArray[np.uint8]) -> None:
    """Write an RGB (HWC) or grey (HW) image as PNG."""
    ok, data = cv2.imencode(".png", image[..., ::-1] if image.ndim == 3 else image)
    assert ok, "a uint8 array can always be encoded"
    with write_atomically(path) as temporary:
        temporary.write_bytes(data.tobytes())


def _write_raster(
    path: Path,
    image_HWC: NDArray[np.uint8],
    city: SyntheticCity,
    *,
    colours: dict[int, tuple[int, int, int]] | None = None,
) -> None:
    """Write a uint8 GeoTIFF of one, three or four bands on the grid of the city; `colours` by class of class maps."""
    height, width, count = image_HWC.shape
    tiling = {"tiled": True, "blockxsize": 256, "blockysize": 256} if min(height, width) >= 256 else {}
    with (
        write_atomically(path) as temporary,
        rasterio.open(
            temporary,
            "w",
            driver="GTiff",
            width=width,
            height=height,
            count=count,
            dtype="uint8",
            crs=city.crs,
            transform=city.transform,
            compress="deflate",
            predictor=2 if colours is None else 1,
            photometric="RGB" if count > 1 else "MINISBLACK",
            **({"alpha": "no"} if count > 3 else {}),
            **tiling,
        ) as raster,
    ):
        for band in range(count):
            raster.write(image_HWC[..., band], band + 1)
        if colours is not None:
            raster.write_colormap(1, colours)
            raster.update_tags(classes=",".join(LAND_COVER_CLASSES))
