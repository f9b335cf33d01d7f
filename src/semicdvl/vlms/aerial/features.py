"""Features of the embedded VLM's own encoder, by which the dates of a pair are compared without any word."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from semicdvl.vlms.aerial.model import NATIVE_GSD_M, RESAMPLING_RANGE, build_aerial, resample_tile
from semicdvl.vlms.aerial.net import normalise_image

STAGE, STAGE_STRIDE_PX, PAD_PX = 3, 16, 32
"""The encoder's fourth map is the coarsest that still tells a house from its yard: a cell is 8 m wide."""
MAX_ENLARGEMENT = 2.0
"""Images coarser than 1 m per pixel are enlarged by this at most: memory grows with its square."""


@dataclass(frozen=True)
class AerialFeatureExtractor:
    """The fourth of the five feature maps of the embedded VLM's encoder.

    Attributes:
        identity: name and hash of the weights.
        encoder: the encoder, in evaluation mode.
        gsd_m: metres per pixel of the images; None: the native 0.5 m is assumed.
    """

    identity: str
    encoder: nn.Module
    gsd_m: float | None = None

    def at_gsd(self, gsd_m: float | None) -> AerialFeatureExtractor:
        """Return the extractor for images of a ground sampling distance."""
        return replace(self, gsd_m=gsd_m)

    @torch.inference_mode()
    def extract_features(self, image_HWC: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return features DHW of a uint8 RGB image of any size, resampled to the native resolution."""
        factor = 1.0 if self.gsd_m is None else self.gsd_m / NATIVE_GSD_M
        scaled_HWC = resample_tile(image_HWC, float(np.clip(factor, RESAMPLING_RANGE[0], MAX_ENLARGEMENT)))
        height, width = scaled_HWC.shape[:2]
        padded_HWC = np.pad(scaled_HWC, ((0, -height % PAD_PX), (0, -width % PAD_PX), (0, 0)), mode="symmetric")
        image_BCHW = normalise_image(torch.from_numpy(padded_HWC).permute(2, 0, 1)[None])
        features_DHW: NDArray[np.float32] = self.encoder(image_BCHW)[STAGE][0].float().numpy()
        rows, cols = (-(-size // STAGE_STRIDE_PX) for size in (height, width))
        return np.ascontiguousarray(features_DHW[:, :rows, :cols])


def build_aerial_features() -> AerialFeatureExtractor:
    """Return the encoder of the shipped weights as a feature extractor."""
    vlm = build_aerial(views=1)
    return AerialFeatureExtractor(f"{vlm.identity}-encoder", vlm.net.encoder)
