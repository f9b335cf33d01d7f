"""Compare compressions of the score map: processor time and size of the cloud-optimised GeoTIFF, overviews included.

    python benchmarks/cog.py                     8192 x 8192 px: smooth scores with objects, in steps of 1/1024

Time is that of the process, all its threads together, for GDAL's copy of a plain GeoTIFF to the final file.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
import rasterio
import rasterio.shutil
from affine import Affine
from numpy.typing import NDArray

from semicdvl.detection.raster_writer import SCORE_FILE_STEPS
from semicdvl.raster.io.cog import COG_BLOCK_PX

CHOICES = (
    ("DEFLATE", 6, "YES"), ("DEFLATE", 1, "YES"), ("ZSTD", 1, "YES"), ("ZSTD", 3, "YES"), ("ZSTD", 9, "YES"),
    ("ZSTD", 1, "NO"), ("LZW", None, "YES"),
)  # fmt: skip
"""Compression, level and predictor."""


def draw_scores(side_px: int) -> NDArray[np.float32]:
    """Draw a score map: noise below 0.05, blurred objects of about 20 px up to 1."""
    random = np.random.default_rng(0)
    seeds_HW = (random.random((side_px // 64, side_px // 64)) > 0.9).astype(np.float32)
    objects_HW = cv2.GaussianBlur(cv2.resize(seeds_HW, (side_px, side_px), interpolation=cv2.INTER_AREA), (0, 0), 3)
    noise_HW = random.random((side_px, side_px), np.float32) * np.float32(0.05)
    return np.round((noise_HW + 0.95 * objects_HW) * SCORE_FILE_STEPS).astype(np.float32) / SCORE_FILE_STEPS


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=8192, help="side of the map in pixels")
    side_px = parser.parse_args().size
    profile = {
        "driver": "GTiff", "dtype": "float32", "count": 1, "height": side_px, "width": side_px, "nodata": float("nan"),
        "tiled": True, "blockxsize": COG_BLOCK_PX, "blockysize": COG_BLOCK_PX, "crs": "EPSG:32615",
        "transform": Affine(0.3, 0, 366_676, 0, -0.3, 4_104_256),
    }  # fmt: skip
    print("| compression | level | predictor | CPU s | MB |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder, rasterio.Env(GDAL_CACHEMAX=64 * 2**20):
        plain, copy = Path(folder) / "plain.tif", Path(folder) / "copy.tif"
        with rasterio.open(plain, "w", **profile) as target:
            target.write(draw_scores(side_px), 1)
        for compress, level, predictor in CHOICES:
            options = {"compress": compress, "predictor": predictor} | ({} if level is None else {"level": level})
            began = time.process_time()
            rasterio.shutil.copy(
                plain, copy, driver="COG", blocksize=COG_BLOCK_PX, overview_resampling="AVERAGE", **options
            )
            took_s, size = time.process_time() - began, copy.stat().st_size
            print(f"| {compress} | {level or '-'} | {predictor} | {took_s:.1f} | {size / 1e6:.1f} |", flush=True)
            copy.unlink()


if __name__ == "__main__":
    main()
