"""Feature maps of an encoder, for images of any size and over the cells of a whole pair.

The encoder is built in `detection/detectors/network_loaders.py` and passed to the detectors.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from semicdvl.types import PairTiles
from semicdvl.unsupervised.common.statistics import locate_tiles

Map = NDArray[np.float32]

MULTIPLE_PX = 32
"""Images are padded to multiples of this, the coarsest stride of common encoders."""


class FeatureNetwork(Protocol):
    """A pretrained encoder: an image in, feature maps out."""

    @property
    def identity(self) -> str:
        """Name and hash of the weights."""
        ...

    @property
    def channels(self) -> Sequence[int]:
        """Number of channels of the feature maps."""
        ...

    def extract_maps(self, image_HWC: NDArray[np.uint8]) -> list[Map]:
        """Return maps DHW, fine to coarse, of a uint8 RGB image with sides of multiples of 32; each spans the image."""
        ...


def extract_feature_maps(features: FeatureNetwork, image_HWC: NDArray[np.uint8], *, layers: Sequence[int]) -> list[Map]:
    """Return some feature maps of the first three bands of an image of any size, padded by repeating the edge.

    The maps cover the padded image; see `resize_to_image` and `cells`.
    """
    height, width = image_HWC.shape[:2]
    padding = ((0, -height % MULTIPLE_PX), (0, -width % MULTIPLE_PX), (0, 0))
    maps = features.extract_maps(np.ascontiguousarray(np.pad(image_HWC[..., :3], padding, mode="edge")))
    return [maps[layer] for layer in layers]


def normalise_features(features_DHW: Map) -> Map:
    """Return features normalised to length 1 at every position."""
    length_HW = np.sqrt(np.square(features_DHW).sum(axis=0))
    unit_DHW: Map = features_DHW / np.maximum(length_HW, np.float32(1e-12))
    return unit_DHW


def resize_to_image(coarse_HW: Map, shape_hw: tuple[int, int]) -> Map:
    """Return a map of a padded image, resampled to the size of the image without padding (bilinear)."""
    padded_hw = _padded_shape(shape_hw)
    full_HW = cv2.resize(coarse_HW, padded_hw[::-1], interpolation=cv2.INTER_LINEAR)
    return np.asarray(full_HW[: shape_hw[0], : shape_hw[1]], np.float32)


def _padded_shape(shape_hw: tuple[int, int]) -> tuple[int, int]:
    return shape_hw[0] + -shape_hw[0] % MULTIPLE_PX, shape_hw[1] + -shape_hw[1] % MULTIPLE_PX


# ------------------------------------------------------------------------------------------------ cells of the raster
@dataclass(frozen=True)
class FeatureCells:
    """The cells of one feature map that are valid throughout.

    Attributes:
        t1_ND, t2_ND: features of both dates.
        row_N, col_N: pixel of the raster at their centre.
    """

    t1_ND: Map
    t2_ND: Map
    row_N: NDArray[np.int64]
    col_N: NDArray[np.int64]


def iterate_feature_cells(
    tiles: PairTiles, features: FeatureNetwork, *, layers: Sequence[int]
) -> Iterator[list[FeatureCells]]:
    """Yield, tile by tile, the cells of each layer that are valid throughout."""
    for at in locate_tiles(tiles):
        valid_HW = at.tile.valid_HW
        if not valid_HW.any():
            continue
        dates = [extract_feature_maps(features, image, layers=layers) for image in (at.tile.t1_HWC, at.tile.t2_HWC)]
        found = []
        for t1_DHW, t2_DHW in zip(*dates, strict=True):
            whole_HW, row_H, col_W = _find_valid_cells(valid_HW, (t1_DHW.shape[1], t1_DHW.shape[2]))
            row_HW, col_HW = np.broadcast_arrays(row_H[:, None] + at.row, col_W + at.col)
            parts = (t1_DHW[:, whole_HW].T, t2_DHW[:, whole_HW].T, row_HW[whole_HW], col_HW[whole_HW])
            found.append(FeatureCells(*parts))
        yield found


def _find_valid_cells(
    valid_HW: NDArray[np.bool_], grid_hw: tuple[int, int]
) -> tuple[NDArray[np.bool_], NDArray[np.int64], NDArray[np.int64]]:
    """Return which cells of a grid over the padded tile are valid, and the rows and columns of their centres."""
    padded_hw = _padded_shape((valid_HW.shape[0], valid_HW.shape[1]))
    ground_HW = np.zeros(padded_hw, np.float32)
    ground_HW[: valid_HW.shape[0], : valid_HW.shape[1]] = valid_HW
    share_HW = cv2.resize(ground_HW, grid_hw[::-1], interpolation=cv2.INTER_AREA)
    row_H, col_W = (
        ((np.arange(count) + 0.5) * size / count).astype(np.int64)
        for count, size in zip(grid_hw, padded_hw, strict=True)
    )
    return share_HW > 1 - 1e-4, row_H, col_W
