"""Small synthetic data that the examples and the tests of the public functions share."""

from dataclasses import dataclass
from pathlib import Path

import cv2
import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from numpy.typing import NDArray

from semicdvl.atomic_files import write_json
from semicdvl.checkpoint import RUN_FORMAT, save_weights
from semicdvl.models.fc_siam import build_fc_siam_diff

HEIGHT_PX, WIDTH_PX = 64, 96
BUILDING = slice(20, 50), slice(30, 70)
GRASS, TREE, ROOF = (110, 170, 80), (40, 90, 40), (190, 80, 60)
GSD_M, LEFT_M, TOP_M = 0.5, 500_000.0, 5_400_000.0
TRANSFORM = Affine(GSD_M, 0, LEFT_M, 0, -GSD_M, TOP_M)
CRS = "EPSG:32632"


@dataclass(frozen=True)
class ExampleData:
    """A place on which one building appeared, in every form that the public functions take."""

    root: Path
    before: NDArray[np.uint8]
    after: NDArray[np.uint8]

    @property
    def before_tif(self) -> Path:
        """GeoTIFF of date 1."""
        return self.root / "before.tif"

    @property
    def after_tif(self) -> Path:
        """GeoTIFF of date 2."""
        return self.root / "after.tif"

    @property
    def changes_gpkg(self) -> Path:
        """The building that appeared."""
        return self.root / "truth.gpkg"

    @property
    def patches(self) -> Path:
        """A data set of six labelled pairs."""
        return self.root / "patches"

    @property
    def run(self) -> Path:
        """A run directory with an untrained network."""
        return self.root / "run"

    @property
    def table(self) -> Path:
        """A table of one pair."""
        return self.root / "pairs.csv"


def make_images() -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return grass with trees, and the same with a building on the grass; both with a little sensor noise."""
    noise_2HWC = np.random.default_rng(0).integers(-2, 3, (2, HEIGHT_PX, WIDTH_PX, 3))
    before_HWC, after_HWC = np.array(GRASS) + noise_2HWC
    for image_HWC in (before_HWC, after_HWC):
        image_HWC[:16] += np.array(TREE) - GRASS
    after_HWC[BUILDING] += np.array(ROOF) - GRASS
    return before_HWC.astype(np.uint8), after_HWC.astype(np.uint8)


def write_geotiff(path: Path, image_HWC: NDArray[np.uint8]) -> Path:
    """Write an image with a CRS and return its path."""
    height, width, count = image_HWC.shape
    profile = {"driver": "GTiff", "height": height, "width": width, "count": count, "dtype": image_HWC.dtype}
    with rasterio.open(path, "w", crs=CRS, transform=TRANSFORM, **profile) as target:
        target.write(np.moveaxis(image_HWC, -1, 0))
    return path


def _write_patches(root: Path, before: NDArray[np.uint8], after: NDArray[np.uint8]) -> None:
    label = np.zeros(before.shape[:2], np.uint8)
    label[BUILDING] = 255
    for folder, image in (("A", before[..., ::-1]), ("B", after[..., ::-1]), ("label", label)):
        (root / folder).mkdir(parents=True)
        for number in range(6):
            cv2.imwrite(str(root / folder / f"{number}.png"), np.roll(image, 3 * number, axis=1))


def _write_run(run: Path) -> None:
    run.mkdir()
    save_weights(run / "model.safetensors", build_fc_siam_diff(width=4).state_dict())
    part = {"name": "fc_siam_diff", "width": 4}
    write_json(run / "run.json", {"format": RUN_FORMAT, "recipe": {"model": part, "method": {"name": "supervised"}}})


@pytest.fixture(scope="session")
def example_data(tmp_path_factory: pytest.TempPathFactory) -> ExampleData:
    """Write everything once."""
    root = tmp_path_factory.mktemp("example")
    data = ExampleData(root, *make_images())
    write_geotiff(data.before_tif, data.before)
    write_geotiff(data.after_tif, data.after)
    rows, cols = BUILDING
    left_m, right_m = (LEFT_M + GSD_M * col for col in (cols.start, cols.stop))
    top_m, bottom_m = (TOP_M - GSD_M * row for row in (rows.start, rows.stop))
    outline = shapely.box(left_m, bottom_m, right_m, top_m)
    gpd.GeoDataFrame(geometry=[outline], crs=CRS).to_file(data.changes_gpkg)
    data.table.write_text("name,before,after\nnorth,before.tif,after.tif\n")
    _write_patches(data.patches, data.before, data.after)
    _write_run(data.run)
    return data
