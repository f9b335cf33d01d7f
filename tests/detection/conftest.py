"""The pair of images that the tests of the pipeline share, as GeoTIFFs and as PNGs."""

from pathlib import Path

import pytest
import rasterio
from affine import Affine
from PIL import Image
from tests.support.brightness_detector import UTM, pair_of_images


@pytest.fixture
def tifs(tmp_path) -> tuple[Path, Path]:
    paths = tmp_path / "before.tif", tmp_path / "after.tif"
    for path, image in zip(paths, pair_of_images(), strict=True):
        if path.name == "before.tif":
            image[:, :40] = 0
        with rasterio.open(path, "w", driver="GTiff", dtype="uint8", count=3, height=150, width=230, crs=UTM,
                           transform=Affine(0.5, 0, 366676, 0, -0.5, 4104256)) as target:  # fmt: skip
            target.write(image.transpose(2, 0, 1))
    return paths


@pytest.fixture
def pngs(tmp_path) -> tuple[Path, Path]:
    paths = tmp_path / "A.png", tmp_path / "B.png"
    for path, image in zip(paths, pair_of_images(), strict=True):
        Image.fromarray(image).save(path)
    return paths
