"""Objects of a change map: the streaming extraction of `raster.vector` against GDAL's sieve and polygonize.

    python benchmarks/polygonize.py                      4096 x 4096
    python benchmarks/polygonize.py --size 16384 --min-area 50

The map is made of blobs and speckle, the scores are noise; both are read from GeoTIFFs. Every row is measured in a
process of its own, which ends with one valid polygon per object of at least `--min-area` pixels:

streaming      `ObjectCollector`, strip by strip: polygons, areas, scores, and the map without the small objects
gdal           `rasterio.features.sieve` and `shapes` (GDALSieveFilter, GDALPolygonize) on the whole map, 8-connected,
               and `make_valid` (8-connected outlines touch themselves at corners); no scores
gdal, no sieve the same without the sieve; small polygons are left out by their area, and stay in the map

Given are seconds, the peak memory of the process beyond that of its imports, the number of objects, the share of
polygons that equal those of the streaming extraction, and the pixels in which the maps differ.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import geopandas as gpd
import numpy as np
import rasterio
import shapely
from affine import Affine
from numpy.typing import NDArray
from rasterio.features import shapes, sieve
from rasterio.windows import Window
from scipy import ndimage
from shapely.geometry import shape

from semicdvl.raster.grid import Grid
from semicdvl.raster.vector.streaming_objects import ObjectCollector
from semicdvl.types import ChangeMap

STRIP_ROWS = 256
CACHE_BYTES = 64 * 2**20
"""What GDAL may cache of the rasters."""
METHODS = ("streaming", "gdal", "gdal, no sieve")


def measure_memory_mib() -> float:
    """Return the peak memory of this process in MiB (`getrusage` would count that of the parent, too)."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


# ------------------------------------------------------------------------------------------------ the map
def write_map(folder: Path, size_px: int) -> None:
    """Write change.tif and score.tif, strip by strip; blobs continue from strip to strip."""
    profile = {"driver": "GTiff", "count": 1, "height": size_px, "width": size_px, "tiled": True, "compress": "DEFLATE"}
    profile |= {"crs": "EPSG:32615", "transform": Affine(0.5, 0, 366_676, 0, -0.5, 4_104_256)}
    rng = np.random.default_rng(0)
    with (
        rasterio.open(folder / "change.tif", "w", dtype="uint8", **profile) as change,
        rasterio.open(folder / "score.tif", "w", dtype="float32", **profile) as score,
    ):
        coarse_HW = ndimage.gaussian_filter(rng.normal(size=(size_px // 8 + 64, size_px // 8 + 64)), 2)
        threshold = float(np.quantile(coarse_HW, 0.93))
        for row in range(0, size_px, STRIP_ROWS):
            rows = min(STRIP_ROWS, size_px - row)
            positions = np.mgrid[row : row + rows, 0:size_px] / 8
            blobs_HW = ndimage.map_coordinates(coarse_HW, positions, order=1) > threshold
            speckle_HW = rng.random((rows, size_px)) < 0.01
            window = Window(0, row, size_px, rows)
            change.write((blobs_HW ^ speckle_HW).astype(np.uint8), 1, window=window)
            score.write(rng.random((rows, size_px), np.float32), 1, window=window)


# ------------------------------------------------------------------------------------------------ methods
def extract_streaming(folder: Path, min_area_px: int) -> list[shapely.Geometry]:
    """Extract the objects strip by strip and write the map without the small ones."""
    with rasterio.open(folder / "change.tif") as change, rasterio.open(folder / "score.tif") as score:
        collector = ObjectCollector(Grid(change.crs, change.transform, *change.shape), min_area_px=min_area_px)
        with rasterio.open(folder / "streaming.tif", "w+", **change.profile) as cleaned:
            for row in range(0, change.height, STRIP_ROWS):
                window = Window(0, row, change.width, min(STRIP_ROWS, change.height - row))
                strip = ChangeMap(change.read(1, window=window), score.read(1, window=window))
                small = collector.add_strip(strip)
                cleaned.write(strip.change_HW, 1, window=window)
                for mask in small:
                    part = Window(mask.col, mask.row, mask.shape_hw[1], mask.shape_hw[0])
                    cleaned.write(np.where(mask.mask_HW, 0, cleaned.read(1, window=part)), 1, window=part)
    return list(collector.build_layer().frame.geometry)


def extract_gdal(folder: Path, min_area_px: int, *, sieved: bool) -> list[shapely.Geometry]:
    """Extract the objects from the whole map with GDAL."""
    with rasterio.open(folder / "change.tif") as change:
        change_HW = change.read(1)
        transform, profile = change.transform, change.profile
    if sieved and min_area_px > 1:
        change_HW = sieve(change_HW, size=min_area_px, connectivity=8)
    with rasterio.open(folder / "gdal.tif", "w", **profile) as cleaned:
        cleaned.write(change_HW, 1)
    outlines = [shape(outline) for outline, _ in shapes(change_HW, change_HW == 1, 8, transform)]
    pixel = abs(transform.a * transform.e)
    valid = (shapely.make_valid(outline) for outline in outlines)
    return [outline for outline in valid if outline.area >= min_area_px * pixel]


def run_method(method: str, folder: Path, min_area_px: int) -> None:
    """Run one method and print its numbers as JSON; its polygons and its map go to files."""
    before_mib, start = measure_memory_mib(), time.perf_counter()
    with rasterio.Env(GDAL_CACHEMAX=CACHE_BYTES):
        if method == "streaming":
            polygons = extract_streaming(folder, min_area_px)
        else:
            polygons = extract_gdal(folder, min_area_px, sieved=method == "gdal")
    numbers = {"seconds": time.perf_counter() - start, "memory_mib": measure_memory_mib() - before_mib}
    gpd.GeoDataFrame(geometry=polygons).to_parquet(folder / f"{method}.parquet")
    print(json.dumps({**numbers, "objects": len(polygons)}))


# ------------------------------------------------------------------------------------------------ comparison
def count_equal(polygons: gpd.GeoSeries, wanted: gpd.GeoSeries) -> int:
    """Count the polygons that cover exactly the same area as one of the expected ones."""
    first, second = wanted.sindex.query(polygons.representative_point(), predicate="intersects")
    pairs = shapely.equals(polygons.to_numpy()[first], wanted.to_numpy()[second])
    return int(pairs.sum())


def read_map(path: Path) -> NDArray[np.uint8]:
    """Read a map whole."""
    with rasterio.open(path) as dataset:
        return np.asarray(dataset.read(1))


def main() -> None:
    """Measure the methods and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=4096, help="height and width of the map in pixels")
    parser.add_argument("--min-area", type=int, default=20, help="smallest object in pixels")
    parser.add_argument("--run", choices=METHODS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run:
        run_method(options.run, options.folder, options.min_area)
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_map(folder, options.size)
        print(f"{options.size} x {options.size} px, objects of at least {options.min_area} px\n")
        print(f"{'':16}{'seconds':>9}{'MiB':>8}{'objects':>9}{'equal':>8}{'map differs in px':>20}")
        for method in METHODS:
            command = [sys.executable, __file__, "--run", method, "--folder", name, "--min-area", str(options.min_area)]
            numbers = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            polygons, wanted = (gpd.read_parquet(folder / f"{one}.parquet").geometry for one in (method, "streaming"))
            equal = count_equal(polygons, wanted) / max(len(wanted), 1)
            result = folder / ("streaming.tif" if method == "streaming" else "gdal.tif")
            differs_px = int((read_map(result) != read_map(folder / "streaming.tif")).sum())
            print(
                f"{method:16}{numbers['seconds']:9.1f}{numbers['memory_mib']:8.0f}{numbers['objects']:9,}{equal:8.1%}"
                f"{differs_px:20,}"
            )


if __name__ == "__main__":
    main()
