"""Features of the embedded VLM's own encoder, by which the dates of a pair are compared without any word."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from semicdvl.raster.tiling import fit_features_to_image
from semicdvl.vlms.aerial.inference_net import InferenceNet, make_input
from semicdvl.vlms.aerial.model import MAX_FEATURE_ENLARGEMENT, compute_resampling_factor, resample_tile
from semicdvl.vlms.aerial.net import FEATURE_STRIDE_PX


@dataclass(frozen=True)
class AerialFeatureExtractor:
    """The fourth of the five feature maps of the embedded VLM's encoder.

    Attributes:
        identity: name and hash of the weights, and the number type unless it is float32.
        net: the network, made fast at inference.
        gsd_m: metres per pixel of the images; None: the native 0.5 m is assumed.
    """

    identity: str
    net: InferenceNet
    gsd_m: float | None = None

    def at_gsd(self, gsd_m: float | None) -> AerialFeatureExtractor:
        """Return the extractor for images of a ground sampling distance."""
        return replace(self, gsd_m=gsd_m)

    @torch.inference_mode()
    def extract_features(self, image_HWC: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return features DHW of a uint8 RGB image of any size, resampled to the native resolution."""
        factor = compute_resampling_factor(self.gsd_m, most=MAX_FEATURE_ENLARGEMENT)
        scaled_HWC = resample_tile(image_HWC, factor)
        stages = self.net.encoder(make_input(scaled_HWC, like=self.net))
        features_DHW = self.net.take_features(stages)[0].cpu().numpy()
        shape_hw = scaled_HWC.shape[0], scaled_HWC.shape[1]
        return fit_features_to_image(features_DHW, stride_px=FEATURE_STRIDE_PX, shape_hw=shape_hw)
