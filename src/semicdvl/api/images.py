"""What a caller gives for an image of one date -> what the readers take: names of files, or pixels in memory."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from semicdvl.detection.inputs import ArrayImage
from semicdvl.errors import InputError, MissingExtraError

if TYPE_CHECKING:
    import xarray
    from rasterio.io import DatasetReader

ImageSource: TypeAlias = (
    "str | Path | Sequence[str | Path] | NDArray[np.uint8] | DatasetReader | xarray.DataArray | ArrayImage"
)
"""An image of one date: a file, a folder of tiles, an address, several files that make a mosaic, an open rasterio
dataset, an xarray.DataArray with a CRS (package rioxarray), a NumPy array HWC of uint8, or an `ArrayImage`, which is
such an array with a CRS and a transform."""


def convert_image(image: ImageSource, *, name: str) -> str | Path | Sequence[str | Path] | ArrayImage:
    """Return an image as the readers take it; files are not opened and pixels are not copied.

    Args:
        image: see `ImageSource`.
        name: what errors call an image that has no file: "before" or "after".

    Raises:
        InputError: something else was given, or an array that is no image of uint8; the text says what to do.
        MissingExtraError: a DataArray without the package rioxarray.
    """
    if isinstance(image, str | Path | ArrayImage):
        return image
    if isinstance(image, np.ndarray):
        check_array(image, name=name)
        return ArrayImage(image, name=name)
    if _is_dataset(image):
        return _convert_dataset(image, name=name)
    if _is_data_array(image):
        return _convert_data_array(image, name=name)
    if isinstance(image, Sequence) and all(isinstance(one, str | Path) for one in image):
        return image
    raise InputError(
        name,
        f"is a {type(image).__name__}, which is no image",
        "Give a path, an open rasterio dataset, an xarray.DataArray with a CRS, or a NumPy array HWC of uint8",
    )


def check_array(array: NDArray[Any], *, name: str) -> None:
    """Refuse an array that is no image HWC of uint8, and say how to make one of it.

    Raises:
        InputError: wrong number of axes or bands, channels first, another number type, or NaN.
    """
    if array.ndim != 3 or array.shape[2] < 3 or _has_bands_first(array):
        raise InputError(name, f"is an array of shape {array.shape}", _advise_on_shape(array))
    if 0 in array.shape:
        raise InputError(name, f"is an array of shape {array.shape}, which has no pixel", "Give an image with pixels")
    if array.dtype == np.uint8:
        return
    raise InputError(name, f"is an array of {array.dtype}; it must be uint8", _advise_on_type(array))


def _has_bands_first(array: NDArray[Any]) -> bool:
    """Tell whether an array looks like bands x height x width."""
    return array.ndim == 3 and array.shape[0] in (3, 4) and array.shape[2] not in (3, 4)


def _advise_on_shape(array: NDArray[Any]) -> str:
    """Say what to do about an array that is not height x width x bands."""
    if _has_bands_first(array):
        return "Its first axis looks like the bands: give array.transpose(1, 2, 0), height x width x bands"
    if array.ndim == 2:
        return "It has one band: give three, such as numpy.dstack([array] * 3)"
    return "Give one image as height x width x bands, with three bands (red, green, blue) or more"


def _advise_on_type(array: NDArray[Any]) -> str:
    """Say what to do about an array of another number type."""
    if array.dtype.kind not in "fiu":
        return "Give an image of numbers from 0 to 255"
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        return "It holds NaN or infinity: fill these pixels first, or write the image to a GeoTIFF with a no-data value"
    low, high = float(array.min()), float(array.max())
    if array.dtype.kind == "f" and low >= 0 and high <= 1:
        return "Its values lie in 0..1: give (array * 255).round().astype('uint8')"
    if low >= 0 and high <= 255:
        return "Its values lie in 0..255: give array.astype('uint8')"
    return (
        f"Its values lie in {low:g}..{high:g}: scale both dates alike to 0..255, or give GeoTIFFs, "
        "which are stretched from any number type"
    )


def _is_dataset(image: Any) -> bool:
    """Tell whether something is a dataset of rasterio, opened for reading."""
    from rasterio.io import DatasetReader
    from rasterio.vrt import WarpedVRT

    return isinstance(image, DatasetReader | WarpedVRT)


def _convert_dataset(dataset: Any, *, name: str) -> str | ArrayImage:
    """Return the name of an open dataset's file, or its pixels where it is a view without a file of its own.

    Raises:
        InputError: it is closed.
    """
    from rasterio.vrt import WarpedVRT

    if dataset.closed:
        raise InputError(dataset.name, "is a dataset that was closed", "Open it again, or give its path")
    if not isinstance(dataset, WarpedVRT):
        return str(dataset.name)
    pixels_HWC = np.moveaxis(dataset.read(), 0, -1)
    return ArrayImage(
        pixels_HWC,
        crs=dataset.crs,
        transform=dataset.transform,
        nodata=dataset.nodata,
        name=name,
        band_names=dataset.src_dataset.descriptions[: dataset.count],
    )


def _is_data_array(image: Any) -> bool:
    """Tell whether something is an xarray.DataArray, without importing xarray."""
    return type(image).__module__.partition(".")[0] == "xarray" and type(image).__name__ == "DataArray"


def _convert_data_array(image: Any, *, name: str) -> ArrayImage:
    """Return the pixels of a DataArray with its georeference.

    Raises:
        InputError: no CRS, or axes that are not bands, rows and columns.
        MissingExtraError: the package rioxarray is missing.
    """
    try:
        import rioxarray  # noqa: F401  (it gives DataArrays the attribute `rio`)
    except ImportError as error:
        raise MissingExtraError(f"{name} is an xarray.DataArray: install semicdvl[xarray] to read it.") from error
    if image.rio.crs is None:
        raise InputError(
            name, "is a DataArray without a CRS", "Set it with .rio.write_crs('EPSG:...'), or give image.to_numpy()"
        )
    bands = [axis for axis in image.dims if axis not in (image.rio.x_dim, image.rio.y_dim)]
    if len(bands) != 1:
        raise InputError(
            name,
            f"is a DataArray with the axes {', '.join(map(str, image.dims))}",
            "Give one image with the axes band, y and x; select one time step if there are several",
        )
    rows_first = image.transpose(image.rio.y_dim, image.rio.x_dim, bands[0])
    return ArrayImage(
        rows_first.to_numpy(),
        crs=image.rio.crs,
        transform=image.rio.transform(),
        nodata=image.rio.nodata,
        name=name,
        band_names=_find_band_names(image, str(bands[0])),
    )


def _find_band_names(image: Any, axis: str) -> tuple[str, ...]:
    """Return the names of a DataArray's bands: its `long_name`, as of rioxarray, or the labels of the axis."""
    named = image.attrs.get("long_name")
    if isinstance(named, tuple | list):
        return tuple(map(str, named))
    return tuple(map(str, image.coords[axis].to_numpy())) if axis in image.coords else ()
