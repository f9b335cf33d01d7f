"""Every form of an image that `detect` takes; what is no image is refused with what to do about it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from numpy.typing import NDArray
from rasterio.io import MemoryFile
from rasterio.vrt import WarpedVRT
from tests.api.conftest import CRS, TRANSFORM, ExampleData

import semicdvl as cd
from semicdvl.api.images import check_array, convert_image

GREY = np.full((8, 12, 3), 90, np.uint8)


def test_names_are_handed_on_as_they_are() -> None:
    for image in ("a.tif", "https://host/a.tif", Path("a.tif"), ["a.tif", Path("b.tif")], cd.ArrayImage(GREY)):
        assert convert_image(image, name="before") is image


def test_an_array_becomes_an_image_with_the_name_of_its_date() -> None:
    image = convert_image(GREY, name="after")
    assert isinstance(image, cd.ArrayImage)
    assert image.data_HWC is GREY and image.name == "after" and image.crs is None


def test_an_open_dataset_is_its_file(example_data: ExampleData) -> None:
    with rasterio.open(example_data.before_tif) as dataset:
        assert convert_image(dataset, name="before") == str(example_data.before_tif)


def test_a_dataset_in_memory_is_its_name(example_data: ExampleData) -> None:
    with MemoryFile(example_data.before_tif.read_bytes()) as memory, memory.open() as dataset:
        name = convert_image(dataset, name="before")
        with rasterio.open(name) as again:
            assert again.read().sum() == example_data.before.sum()


def test_a_warped_view_becomes_its_pixels(example_data: ExampleData) -> None:
    with rasterio.open(example_data.after_tif) as dataset, WarpedVRT(dataset, crs="EPSG:25832") as view:
        image = convert_image(view, name="after")
    assert isinstance(image, cd.ArrayImage)
    assert image.crs == rasterio.crs.CRS.from_epsg(25832)
    assert image.data_HWC.shape[2] == 3


def test_a_closed_dataset_is_refused(example_data: ExampleData) -> None:
    dataset = rasterio.open(example_data.before_tif)
    dataset.close()
    with pytest.raises(cd.InputError, match=r"before\.tif: is a dataset that was closed\. Open it again"):
        convert_image(dataset, name="before")


@pytest.mark.filterwarnings("ignore:Use `@` matmul:PendingDeprecationWarning")  # rioxarray 0.19 with affine 3
@pytest.mark.parametrize("axes", [("band", "y", "x"), ("y", "x", "band")])
def test_a_data_array_keeps_its_georeference(example_data: ExampleData, axes: tuple[str, ...]) -> None:
    rioxarray = pytest.importorskip("rioxarray")
    with rioxarray.open_rasterio(example_data.after_tif) as opened:
        image = convert_image(opened.transpose(*axes), name="after")
    assert isinstance(image, cd.ArrayImage)
    np.testing.assert_array_equal(image.data_HWC, example_data.after)
    assert image.crs == rasterio.crs.CRS.from_string(CRS) and image.transform == TRANSFORM


@pytest.mark.filterwarnings("ignore:Use `@` matmul:PendingDeprecationWarning")  # rioxarray 0.19 with affine 3
def test_a_data_array_needs_a_crs_and_three_axes(example_data: ExampleData) -> None:
    xarray = pytest.importorskip("xarray")
    pytest.importorskip("rioxarray")
    plain = xarray.DataArray(GREY, dims=("y", "x", "band"))
    with pytest.raises(cd.InputError, match=r"before: is a DataArray without a CRS\. Set it with \.rio\.write_crs"):
        convert_image(plain, name="before")
    series = xarray.DataArray(np.stack([GREY, GREY]), dims=("time", "y", "x", "band")).rio.write_crs(CRS)
    with pytest.raises(cd.InputError, match=r"with the axes time, y, x, band.*select one time step"):
        convert_image(series, name="before")


BAD_ARRAYS: dict[str, tuple[NDArray[Any], str]] = {
    "channels first": (np.zeros((3, 40, 50), np.uint8), r"before: .*\(3, 40, 50\).*transpose\(1, 2, 0\)"),
    "grey": (np.zeros((40, 50), np.uint8), r"one band.*numpy\.dstack"),
    "a batch": (np.zeros((1, 40, 50, 3), np.uint8), r"height x width x bands"),
    "two bands": (np.zeros((40, 50, 2), np.uint8), r"height x width x bands"),
    "no pixel": (np.zeros((0, 50, 3), np.uint8), r"no pixel"),
    "0..1": (np.full((40, 50, 3), 0.5, np.float32), r"float32; it must be uint8.*\(array \* 255\)\.round\(\)"),
    "float 0..255": (np.full((40, 50, 3), 90.0), r"float64.*array\.astype\('uint8'\)"),
    "NaN": (np.full((40, 50, 3), np.nan), r"NaN or infinity.*no-data value"),
    "16 bit": (np.full((40, 50, 3), 4000, np.uint16), r"4000\.\.4000.*scale both dates alike.*GeoTIFFs"),
    "negative": (np.full((40, 50, 3), -7, np.int16), r"-7\.\.-7"),
    "boolean": (np.zeros((40, 50, 3), bool), r"bool; it must be uint8.*0 to 255"),
}


@pytest.mark.parametrize(("array", "words"), BAD_ARRAYS.values(), ids=BAD_ARRAYS.keys())
def test_an_array_that_is_no_image_is_refused_with_a_remedy(array: NDArray[Any], words: str) -> None:
    with pytest.raises(cd.InputError, match=words):
        check_array(array, name="before")


@pytest.mark.parametrize("image", [None, 7, [GREY, GREY], {"a": 1}], ids=str)
def test_what_is_no_image_at_all_is_refused(image: Any) -> None:
    with pytest.raises(cd.InputError, match=r"before: is a .*, which is no image\. Give a path"):
        convert_image(image, name="before")


def test_an_image_without_a_crs_needs_no_transform_and_one_with_a_crs_does() -> None:
    assert cd.ArrayImage(GREY, crs=CRS, transform=Affine.identity()).crs == CRS
    with pytest.raises(cd.ConfigError, match="a CRS but no transform"):
        cd.ArrayImage(GREY, crs=CRS)
