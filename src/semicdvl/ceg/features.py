"""Feature maps of an image, for the feature similarity of objects (`min_cosine`)."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from semicdvl.ceg.config import CEGSettings
from semicdvl.errors import ConfigError, DataError
from semicdvl.raster.tiling import fit_features_to_image
from semicdvl.types import VLM, Segments

if TYPE_CHECKING:
    from torch import nn

AERIAL_ENCODER = "aerial"
"""The embedded VLM's own encoder, which ships with the package: what the residual level compares by."""
STRIDE_PX = 32
"""Images are padded to multiples of this, the coarsest stride of common encoders."""


class FeatureExtractor(Protocol):
    """What turns an image into a feature map; it can come from outside of the package."""

    @property
    def identity(self) -> str:
        """Name and hash of the weights: equal identity means equal features. Part of the key of the labels."""
        ...

    def extract_features(self, image_HWC: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return features DHW of a uint8 RGB image; H and W may be coarser than the image's."""
        ...


@runtime_checkable
class ScaledFeatureExtractor(FeatureExtractor, Protocol):
    """A feature extractor that resamples images to the resolution that it knows."""

    def at_gsd(self, gsd_m: float | None) -> FeatureExtractor:
        """Return the extractor for images of a ground sampling distance in metres per pixel; None: unknown."""
        ...


@dataclass(frozen=True)
class PairFeatures:
    """Feature maps of both dates, DHW, of any H and W: they cover the image (nearest cell)."""

    t1_DHW: NDArray[np.floating]
    t2_DHW: NDArray[np.floating]

    def __post_init__(self) -> None:
        """Refuse feature maps that cannot be compared.

        Raises:
            DataError: they are not DHW arrays of one shape, or not finite.
        """
        t1_DHW, t2_DHW = self.t1_DHW, self.t2_DHW
        if t1_DHW.ndim != 3 or t1_DHW.shape != t2_DHW.shape:
            raise DataError(
                f"features have the shapes {t1_DHW.shape} and {t2_DHW.shape}; both must be (D, H, W) alike."
            )
        if not (np.isfinite(t1_DHW).all() and np.isfinite(t2_DHW).all()):
            raise DataError("features hold NaN or infinity. Check the network and its precision.")


def refuse_unused_features(settings: CEGSettings, features: FeatureExtractor | None) -> None:
    """Refuse a feature extractor that nothing compares by, and `min_cosine` without one.

    The residual level takes features where there are some.

    Raises:
        ConfigError: one of the two.
    """
    needed, usable = settings.min_cosine is not None, settings.compares_features
    if (needed and features is None) or (features is not None and not usable):
        raise ConfigError(
            "min_cosine and features belong together: give both, such as --min-cosine 0.5 --features"
            " efficientnet_lite0."
        )


def scale_extractor(features: FeatureExtractor, gsd_m: float | None) -> FeatureExtractor:
    """Return the extractor for images of a ground sampling distance, where it makes a difference to it."""
    return features.at_gsd(gsd_m) if isinstance(features, ScaledFeatureExtractor) else features


@runtime_checkable
class FeatureSharingVLM(VLM, Protocol):
    """A VLM whose own pass over an image also gives the features of a feature extractor."""

    @property
    def features_identity(self) -> str:
        """The `identity` of that feature extractor."""
        ...

    def segment_with_features(
        self, image_HWC: NDArray[np.uint8], prompts: Sequence[str], *, gsd_m: float | None = None
    ) -> tuple[Segments, NDArray[np.float32] | None]:
        """Return what `segment` returns, and the features DHW; None where they have to be extracted."""
        ...


def segment_with_features(
    image_HWC: NDArray[np.uint8],
    prompts: Sequence[str],
    *,
    vlm: VLM,
    features: FeatureExtractor | None,
    gsd_m: float | None = None,
) -> tuple[Segments, NDArray[np.float32] | None]:
    """Return a VLM's answer for an image and the image's features, in one pass where the VLM's own are those asked for.

    Args:
        image_HWC: uint8 RGB image.
        prompts: the words to search for.
        vlm: the vision-language model.
        features: the feature extractor; None: no features.
        gsd_m: ground sampling distance in metres per pixel, if known.
    """
    features_DHW = None
    if features is not None and isinstance(vlm, FeatureSharingVLM) and vlm.features_identity == features.identity:
        answer, features_DHW = vlm.segment_with_features(image_HWC, prompts, gsd_m=gsd_m)
    else:
        answer = vlm.segment(image_HWC, prompts, gsd_m=gsd_m)
    if features is not None and features_DHW is None:
        features_DHW = scale_extractor(features, gsd_m).extract_features(image_HWC)
    return answer, features_DHW


@dataclass(frozen=True)
class BackboneFeatureExtractor:
    """The third of an encoder's four feature maps (usually stride 16): fine enough for houses, deep enough for meaning.

    Attributes:
        identity: name of the encoder and hash of its weights.
        net: the encoder, in evaluation mode.
    """

    identity: str
    net: nn.Module

    def extract_features(self, image_HWC: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return features DHW of the image alone: the padding is cropped again."""
        import torch

        from semicdvl.models.common.images import normalise_image

        height, width = image_HWC.shape[:2]
        padded_HWC = np.pad(image_HWC, ((0, -height % STRIDE_PX), (0, -width % STRIDE_PX), (0, 0)), mode="edge")
        with torch.inference_mode():
            maps = self.net(normalise_image(padded_HWC))
        features_DHW: NDArray[np.float32] = maps[2][0].float().numpy()
        stride_px = padded_HWC.shape[0] // features_DHW.shape[1]
        return fit_features_to_image(features_DHW, stride_px=stride_px, shape_hw=(height, width))


def build_feature_extractor(name: str) -> FeatureExtractor:
    """Return a pretrained encoder as a feature extractor.

    Args:
        name: `aerial` (the embedded VLM's own encoder, which knows aerial images and scales them by their ground
            sampling distance), `efficientnet_lite0` (weights from a package, see the extra `offline`), or any network
            of timm with its published weights.

    Raises:
        ConfigError: no such network, or none with published weights.
        MissingExtraError: the package with the weights is missing.
    """
    if name == AERIAL_ENCODER:
        from semicdvl.vlms.aerial.build import build_aerial_features

        return build_aerial_features()
    return build_backbone_extractor(name)


def build_backbone_extractor(name: str, *, weights: Path | str | None = None) -> BackboneFeatureExtractor:
    """Return a network of timm as a feature extractor; `weights` is a file of them, None its published ones.

    Raises:
        ConfigError: no such network, or none with published weights.
        InputError: the file cannot be read, or holds the weights of another network.
        MissingExtraError: the package with the weights is missing.
    """
    from semicdvl.models.encoders.timm import build_backbone

    net = build_backbone(name, weights="imagenet" if weights is None else weights).eval()
    digest = hashlib.sha256()
    for key, tensor in sorted(net.state_dict().items()):
        digest.update(key.encode() + tensor.cpu().contiguous().numpy().tobytes())
    return BackboneFeatureExtractor(f"{name}-{digest.hexdigest()[:12]}", net)
