"""Small synthetic rasters on the disk."""

import warnings
from pathlib import Path

import numpy as np
import rasterio
from affine import Affine
from PIL import Image
from rasterio.enums import ColorInterp
from rasterio.errors import NotGeoreferencedWarning
from scipy import ndimage

UTM = rasterio.CRS.from_epsg(32615)
COLOURS = [ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.undefined]


def at(x: float, y: float, size_m: float = 0.5) -> Affine:
    return Affine(size_m, 0, x, 0, -size_m, y)


def city(height: int, width: int, *, seed: int = 0, bands: int = 3) -> np.ndarray:
    """Smooth random colours, nowhere black."""
    noise = np.random.default_rng(seed).normal(size=(bands, height, width))
    smooth = ndimage.gaussian_filter(noise, (0, 4, 4))
    return np.clip(130 + 60 * smooth / smooth.std(), 5, 250).astype(np.uint8)


def tif(path: Path, data_CHW: np.ndarray, transform: Affine | None = None, crs=UTM, *, alpha=None, **extra) -> Path:
    """Write a GeoTIFF; `alpha` (HW bool) becomes a last band that tells where there is data."""
    if alpha is not None:
        data_CHW = np.concatenate([data_CHW, np.where(alpha, 255, 0).astype(data_CHW.dtype)[None]])
    profile = {"driver": "GTiff", "dtype": data_CHW.dtype, "count": len(data_CHW)}
    profile |= {"height": data_CHW.shape[1], "width": data_CHW.shape[2], "crs": crs, "transform": transform} | extra
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(path, "w", **{key: value for key, value in profile.items() if value is not None}) as target:
            colours = COLOURS[: len(data_CHW)] + [ColorInterp.undefined] * (len(data_CHW) - 4)
            target.colorinterp = colours if alpha is None else [*colours[:-1], ColorInterp.alpha]
            target.write(data_CHW)
    return path


def png(path: Path, image_CHW: np.ndarray) -> Path:
    Image.fromarray(image_CHW.transpose(1, 2, 0)).save(path)
    return path


def same_pixels(image_HWC: np.ndarray, data_CHW: np.ndarray) -> bool:
    return bool((image_HWC == data_CHW.transpose(1, 2, 0)).all())


# ------------------------------------------------------------------------------------------------ a mosaic
MOSAIC_CHW = city(60, 90)
"""What the tiles of `write_tiles` show together; its corner lies at (100, 200)."""


def write_tiles(folder: Path, **extra) -> list[Path]:
    """Cut `MOSAIC_CHW` into four tiles."""
    folder.mkdir(exist_ok=True)
    cuts = [(row, col) for row in (0, 32) for col in (0, 40)]
    return [
        tif(folder / f"{row}-{col}.tif", MOSAIC_CHW[:, row : row + 32 + row, col : col + 40 + 2 * col],
            at(100 + col / 2, 200 - row / 2), **extra)
        for row, col in cuts
    ]  # fmt: skip
