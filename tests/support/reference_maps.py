"""Detection results made by hand, and truth to compare them with."""

from __future__ import annotations

from pathlib import Path

import geopandas as gpd
import numpy as np
import rasterio
from affine import Affine
from rich.console import Console
from shapely.geometry import box

from semicdvl.detection.config import DetectionConfig
from semicdvl.detection.pipeline import write_detection
from semicdvl.types import IGNORE, ChangeMap, Detector

UTM, CORNER, GSD = "EPSG:32633", (400_000.0, 5_600_000.0), 0.5
HEIGHT, WIDTH = 90, 130
FOUND = [(5, 10, 20, 10), (40, 10, 10, 10), (60, 80, 10, 20)]  # row, col, height, width in px
REAL = [(5, 10, 20, 14), (40, 18, 10, 10), (10, 100, 6, 5)]  # IoU 5/7, IoU 2/18, missed; the third found is invented


class Red(Detector):
    """Changed where date 2 is red."""

    name, map_count = "red", 1

    def predict_scores(self, t1_HWC, t2_HWC, *, gsd_m=None):
        return (t2_HWC[None, ..., 0] == 255).astype(np.float32)

    def decide(self, strips):
        for strip in strips:
            red_HW, valid_HW = strip.scores_PHW[0], strip.valid_HW
            change_HW = np.where(valid_HW, red_HW > 0.5, IGNORE).astype(np.uint8)
            yield ChangeMap(change_HW, np.where(valid_HW, red_HW, np.nan).astype(np.float32))


def burned(boxes: list[tuple[int, int, int, int]]) -> np.ndarray:
    mask_HW = np.zeros((HEIGHT, WIDTH), np.uint8)
    for row, col, height, width in boxes:
        mask_HW[row : row + height, col : col + width] = 1
    return mask_HW


def on_map(row: float, col: float, height: float, width: float):
    x, y = CORNER[0] + col * GSD, CORNER[1] - row * GSD
    return box(x, y - height * GSD, x + width * GSD, y)


def raster(path: Path, image: np.ndarray, *, crs: str | None = UTM, **options: object) -> Path:
    bands = image[None] if image.ndim == 2 else np.moveaxis(image, 2, 0)
    transform = Affine(GSD, 0, CORNER[0], 0, -GSD, CORNER[1])
    profile = {"driver": "GTiff", "dtype": "uint8", "count": len(bands), "height": HEIGHT, "width": WIDTH, **options}
    with rasterio.open(path, "w", crs=crs, transform=transform, **profile) as target:
        target.write(bands)
    return path


def vectors(path: Path, boxes: list[tuple[int, int, int, int]]) -> Path:
    gpd.GeoDataFrame(geometry=[on_map(*each) for each in boxes], crs=UTM).to_file(path)
    return path


def detected(root: Path, found: list[tuple[int, int, int, int]]) -> Path:
    t1_HWC = np.full((HEIGHT, WIDTH, 3), 90, np.uint8)
    t2_HWC = t1_HWC.copy()
    t2_HWC[burned(found) == 1, 0] = 255
    t2_HWC[-10:] = 7  # no data
    before = raster(root / "before.tif", t1_HWC, photometric="RGB")
    after = raster(root / "after.tif", t2_HWC, photometric="RGB", nodata=7)
    tiles = DetectionConfig(tile_px=64, overlap_px=0)
    return write_detection(
        before, after, root / "out", detector=Red(), config=tiles, progress=Console(quiet=True)
    ).folder
