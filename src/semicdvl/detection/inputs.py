"""Images that lie in memory, read in the same way as files: GDAL gets a copy in its own memory file system."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.enums import ColorInterp
from rasterio.io import MemoryFile

from semicdvl.errors import ConfigError, InputError
from semicdvl.raster.io.georeference_warnings import ignore_not_georeferenced
from semicdvl.raster.io.inputs import ImageInput
from semicdvl.raster.stored_values import find_named_colours

DTYPES = ("uint8", "uint16", "int16", "uint32", "int32", "float32", "float64")


@dataclass(frozen=True)
class ArrayImage:
    """An image in memory.

    Attributes:
        data_HWC: height, width, bands; three bands or more, red, green and blue first unless their names say otherwise.
        crs: coordinate reference system; None for a plain image.
        transform: from pixels to the map; needed with a CRS.
        nodata: value that means no data; None: there is none. NaN always means no data.
        valid_HW: False where there is no data; None: decided by `nodata` alone.
        name: what reports and messages call it.
        band_names: names of the bands, of which "Red", "Green" and "Blue" (or Sentinel-2's "B04", "B03" and "B02") are
            found; empty: they have none.

    Examples:
        >>> import semicdvl as cd
        >>> image = cd.ArrayImage(before, name="before")
        >>> image.data_HWC.shape
        (64, 96, 3)
    """

    data_HWC: NDArray[Any]
    crs: CRS | str | None = None
    transform: Affine | None = None
    nodata: float | None = None
    valid_HW: NDArray[np.bool_] | None = None
    name: str = "image"
    band_names: tuple[str | None, ...] = ()

    def __post_init__(self) -> None:
        """Refuse what is no image.

        Raises:
            ConfigError: a shape or type that cannot be read, or a CRS without a transform.
        """
        if self.data_HWC.ndim != 3 or self.data_HWC.shape[2] < 3 or str(self.data_HWC.dtype) not in DTYPES:
            raise ConfigError(
                f"{self.name}: is an array of shape {self.data_HWC.shape} and type {self.data_HWC.dtype}, but an image "
                f"has height, width and three or more bands, in that order, of one of {', '.join(DTYPES)}."
            )
        if self.crs is not None and self.transform is None:
            raise ConfigError(f"{self.name}: has a CRS but no transform. Give both, or neither.")


@contextmanager
def open_in_memory(*images: ImageInput | ArrayImage) -> Iterator[list[ImageInput]]:
    """Give names under which all images can be opened; copies of arrays are freed at the end of the `with`.

    Args:
        images: files, folders, addresses (given back as they are), or arrays.

    Raises:
        InputError: one cannot be used; an array is called by its own name.
    """
    with ExitStack() as held:
        named = [held.enter_context(_copy_to_gdal(one)) if isinstance(one, ArrayImage) else one for one in images]
        own = {str(name): one.name for name, one in zip(named, images, strict=True) if isinstance(one, ArrayImage)}
        try:
            yield named
        except InputError as error:
            if error.path not in own:
                raise
            raise InputError(own[error.path], error.problem, error.remedy) from error


@contextmanager
def _copy_to_gdal(image: ArrayImage) -> Iterator[str]:
    """Write an array into GDAL's memory file system and give its name there."""
    data_CHW = np.ascontiguousarray(image.data_HWC.transpose(2, 0, 1))
    count, height, width = data_CHW.shape
    profile: dict[str, Any] = {"driver": "GTiff", "dtype": data_CHW.dtype, "height": height, "width": width}
    profile |= {"crs": image.crs, "transform": image.transform, "nodata": image.nodata, "photometric": "RGB"}
    profile = {key: value for key, value in profile.items() if value is not None}
    masked = image.valid_HW is not None
    with MemoryFile(dirname=uuid.uuid4().hex, filename=f"{image.name}.tif") as memory:
        with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), ignore_not_georeferenced():
            with memory.open(**profile, count=count) as target:
                if find_named_colours(image.band_names) is None:
                    target.colorinterp = _name_bands(count)
                else:
                    target.colorinterp = [ColorInterp.undefined] * count
                    target.descriptions = image.band_names
                target.write(data_CHW)
                if masked:
                    target.write_mask(np.asarray(image.valid_HW))
        yield memory.name


def _name_bands(count: int) -> Sequence[ColorInterp]:
    colours = [ColorInterp.red, ColorInterp.green, ColorInterp.blue]
    return [*colours, *[ColorInterp.undefined] * (count - 3)]
