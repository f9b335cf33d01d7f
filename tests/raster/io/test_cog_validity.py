"""The rasters of a result are valid cloud-optimised GeoTIFF, as rio-cogeo judges it."""

import warnings
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.errors import NotGeoreferencedWarning
from rich.console import Console
from tests.support.synthetic_rasters import UTM, at, city, tif

from semicdvl.ceg.prompts import Prompts
from semicdvl.detection.config import DetectionConfig
from semicdvl.detection.detectors.vlm_ceg import build_vlm_detector
from semicdvl.detection.pipeline import write_detection
from semicdvl.raster.grid import Grid
from semicdvl.raster.io.cog import COG_BLOCK_PX, BandDescription, create_cog
from semicdvl.vlms.models.fake import FakeVLM

cogeo = pytest.importorskip("rio_cogeo", reason="rio-cogeo is not installed")
RASTERS = ("change.tif", "score.tif", "t1.tif", "t2.tif")
SIZES = [
    (1, 1),
    (7, 40),
    (COG_BLOCK_PX, COG_BLOCK_PX),
    (COG_BLOCK_PX + 1, 90),
    (90, 2 * COG_BLOCK_PX + 1),
    (1300, 1100),
]


def validate_cog(path: Path) -> tuple[bool, list[str], list[str]]:
    """Return whether a file is valid, errors and warnings; a warning of GDAL would be one more."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        return cogeo.cog_validate(str(path), strict=True)


@pytest.mark.parametrize(("height", "width", "overviews"), [(40, 57, []), (1100, 1300, [2, 4])])
def test_rasters_of_a_detection_are_valid(tmp_path, height, width, overviews):
    before_CHW = np.full((3, height, width), 90, np.uint8)
    after_CHW = before_CHW.copy()
    after_CHW[:, 9:30, 8:31] = 250
    after_CHW[:, :4] = 0  # no data
    before, after = (
        tif(tmp_path / f"{name}.tif", image_CHW, at(366_000, 4_104_000), nodata=0)
        for name, image_CHW in (("a", before_CHW), ("b", after_CHW))
    )
    detector = build_vlm_detector(FakeVLM(), prompts=Prompts(("building",), ("grass", "water")))
    settings = DetectionConfig(tile_px=512, overlap_px=32)
    write_detection(before, after, tmp_path / "out", detector=detector, config=settings, progress=Console(quiet=True))
    for name in RASTERS:
        assert validate_cog(tmp_path / "out" / name) == (True, [], []), name
        with rasterio.open(tmp_path / "out" / name) as source:
            assert source.shape == (height, width) and source.crs == UTM and source.overviews(1) == overviews
            assert source.transform.almost_equals(at(366_000, 4_104_000))
            assert (source.dataset_mask()[:4] == 0).all() and (source.dataset_mask()[4:] == 255).all()


@pytest.mark.parametrize("crs", [UTM, rasterio.CRS.from_epsg(4326), None])
@pytest.mark.parametrize(("height", "width"), SIZES)
def test_every_size_and_crs_is_valid_and_has_its_overviews(tmp_path, height, width, crs):
    size = 0.5 if crs == UTM else 6e-6
    transform = Affine.identity() if crs is None else Affine(size, 0, 10, 0, -size, 20)
    grid = Grid(crs, transform, height, width)
    values = np.random.default_rng(0).random((height, width)).astype(np.float32)
    values[0, 0] = np.nan
    with create_cog(tmp_path / "score.tif", grid=grid, band=BandDescription("float32", float("nan"))) as cog:
        cog.write_rows(0, values)
    colours = [(1, 2, 3), (4, 5, 6)]
    with create_cog(
        tmp_path / "t1.tif", grid=grid, band=BandDescription("uint8", 255, {"CLASS_0": "a"}, colours)
    ) as cog:
        cog.write_rows(0, (values > 0.5).astype(np.uint8))
    for name in ("score.tif", "t1.tif"):
        assert validate_cog(tmp_path / name) == (True, [], []), name
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(tmp_path / "score.tif") as source:
            least = max(height, width) // 2 ** len(source.overviews(1))
    assert least <= COG_BLOCK_PX, "the smallest overview is one block"


def test_validator_finds_what_is_wrong(tmp_path):
    """The check itself can fail: plain GeoTIFFs are none."""
    image_CHW = city(1100, 1300)
    plain = tif(tmp_path / "plain.tif", image_CHW, at(0, 0))
    valid, errors, _ = validate_cog(plain)
    assert not valid and errors
    no_overviews = tif(tmp_path / "tiled.tif", image_CHW, at(0, 0), tiled=True, blockxsize=512, blockysize=512)
    assert not validate_cog(no_overviews)[0] and validate_cog(no_overviews)[2]
