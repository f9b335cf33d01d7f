"""The network of the embedded VLM: an image in, one unit vector per pixel in the space of words out.

An EfficientNet-Lite encoder, a top-down pyramid that sums five stages to half of the input's size, and a linear layer
into the word space. A word reaches the same space by a fixed projection of its sentence embedding, so the score of a
word is a dot product and any noun can be a prompt (LSeg, Li et al. 2022). Differs from LSeg: the encoder is a small
CNN, the words are embedded by a sentence encoder (all-MiniLM-L6-v2) instead of CLIP's text tower, and the embeddings
are centred on the mean noun and projected to fewer dimensions: raw sentence embeddings of nouns all point the same way.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from semicdvl.errors import ConfigError
from semicdvl.vlms.aerial.encoder import LiteEncoder

INPUT_MEAN = 127.0
INPUT_STD = 128.0
"""EfficientNet-Lite takes (x - 127) / 128, not the ImageNet mean and deviation of the rest of this package."""

FEATURE_STAGE, FEATURE_STRIDE_PX = 3, 16
"""The encoder's fourth map, by which dates are compared: the coarsest that still tells a house from its yard; at the
native 0.5 m a cell is 8 m wide."""
WORD_DIMENSIONS = 96
MAX_SCALE = 40.0


def normalise_image(image_BCHW: Tensor) -> Tensor:
    """Convert uint8 RGB to the float input that the network was trained on."""
    return (image_BCHW.float() - INPUT_MEAN) / INPUT_STD


def project_embeddings(embeddings_ND: Tensor, *, mean_D: Tensor, projection_DE: Tensor) -> Tensor:
    """Project sentence embeddings (of any scale) to unit vectors in the word space."""
    unit_ND = F.normalize(embeddings_ND.float(), dim=1)
    return F.normalize((unit_ND - mean_D) @ projection_DE, dim=1)


def _build_encoder(backbone: str) -> tuple[nn.Module, tuple[int, ...]]:
    """Return an encoder with random weights, and the channels of its five feature maps.

    Raises:
        ConfigError: timm has no such network.
    """
    if backbone == LiteEncoder.name:
        return LiteEncoder(), LiteEncoder.channels
    import timm

    if not timm.is_model(backbone):  # timm would also take addresses and folders
        problem = f"backbone '{backbone}' cannot be built: it is not a network of timm"
        raise ConfigError(f"{problem}. Give the name of one.")
    encoder: Any = timm.create_model(backbone, features_only=True, pretrained=False)
    return encoder, tuple(encoder.feature_info.channels())


class AerialNet(nn.Module):
    """Image -> unit vectors at half of its size.

    Args:
        backbone: name of a timm model with features at strides 2, 4, 8, 16, 32.
        width: channels of the pyramid; half of it at the finest level.
        word_dim: dimensions of the word space.
    """

    def __init__(self, *, backbone: str = LiteEncoder.name, width: int = 96, word_dim: int = WORD_DIMENSIONS) -> None:
        """Build with random weights; a caller loads trained ones."""
        super().__init__()
        self.backbone = backbone
        self.encoder, channels = _build_encoder(backbone)
        widths = [width // 2] + [width] * (len(channels) - 1)
        self.lateral = nn.ModuleList(nn.Conv2d(c, w, 1) for c, w in zip(channels, widths, strict=True))
        self.smooth = nn.ModuleList(
            nn.Sequential(nn.Conv2d(w, w, 3, padding=1, bias=False), nn.BatchNorm2d(w), nn.ReLU(inplace=True))
            for w in widths[:-1]
        )
        self.narrow = nn.Conv2d(width, width // 2, 1)
        self.head = nn.Conv2d(width // 2, word_dim, 1)
        self.log_scale = nn.Parameter(torch.tensor(2.7))

    @property
    def scale(self) -> Tensor:
        """Factor from cosine to logit, learned and bounded."""
        return self.log_scale.exp().clamp(max=MAX_SCALE)

    def forward(self, image_BCHW: Tensor) -> Tensor:
        """Return unit vectors BEHW of a normalised image; H, W are halves of the input's (rounded up)."""
        return self.decode(self.encoder(image_BCHW))

    def decode(self, stages: list[Tensor]) -> Tensor:
        """Return unit vectors BEHW of the encoder's five feature maps."""
        vectors_BEHW: Tensor = self.head(self.fuse_pyramid(stages))
        return F.normalize(vectors_BEHW.float(), dim=1)

    def take_image(self, image_BCHW: Tensor) -> Tensor:
        """Return what the encoder takes, of a uint8 image."""
        return normalise_image(image_BCHW).to(self.head.weight.dtype)

    def take_features(self, stages: list[Tensor]) -> Tensor:
        """Return the map of the encoder by which dates are compared, in float32."""
        return stages[FEATURE_STAGE].float()

    def fuse_pyramid(self, stages: list[Tensor]) -> Tensor:
        """Return the features BDHW that the vectors are made of, at the size of the finest map."""
        x_BDHW: Tensor = self.lateral[-1](stages[-1])
        for level in range(len(stages) - 2, -1, -1):
            if level == 0:
                x_BDHW = self.narrow(x_BDHW)
            up_BDHW = F.interpolate(x_BDHW, size=stages[level].shape[2:], mode="bilinear", align_corners=False)
            x_BDHW = self.smooth[level](self.lateral[level](stages[level]) + up_BDHW)
        return x_BDHW

    def compute_logits(self, features_BEHW: Tensor, words_NE: Tensor) -> Tensor:
        """Return scaled cosines BNHW of every pixel with every word."""
        return torch.einsum("behw,ne->bnhw", features_BEHW, words_NE) * self.scale
