"""The shared forward pass of the Siamese networks: one encoder for both dates, their comparison, one decoder, heads.

    t1 ─ encoder ─ maps ─┐
    t2 ─ encoder ─ maps ─┴─ compare ─ decode ─ features ─ classify ─ to the input's size ─ change
                               └─ again with half of the channels dropped ─ ... ─ perturbed

`perturbed` is UniMatch's feature perturbation (Yang et al., 2023): the decoder gets whole and dropped features as one
batch, as in the public code, and it has no weights of its own. `complementary` is UniMatch V2's dropout of the two
strong views, which replaces the compared maps. In eval mode nothing is dropped.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from semicdvl.models.common.blocks import (
    absolute_differences,
    append_channel_dropout,
    drop_complementary_channels,
    resize_map,
)
from semicdvl.models.common.heads import resolve_heads
from semicdvl.types import Outputs


class SiameseNetwork(nn.Module):
    """Encode both dates with one encoder, compare them, decode, and return the requested heads.

    A network states what is its own: `decode`, and where they differ from the defaults `compare`, `classify_features`
    and `predict_further_heads`.

    Attributes:
        encoder: the backbone, shared by both dates.
        heads: which of `types.HEADS` it has.
        symmetric: whether the change logits stay as they are when the dates are swapped.
        align_corners: how logits are resized to the input's size.
    """

    encoder: nn.Module
    classify: nn.Module
    heads: frozenset[str] = frozenset({"change"})
    symmetric: bool = True
    align_corners: bool = False

    def forward(self, t1_BCHW: Tensor, t2_BCHW: Tensor, *, heads: frozenset[str] | None = None) -> Outputs:
        """Return the requested outputs, logits at the size of the input.

        Args:
            t1_BCHW: date 1, RGB / 255 normalised with the ImageNet mean and deviation, of any size.
            t2_BCHW: date 2.
            heads: names of `types.HEADS`; `change` is always returned. None: all that the network has.

        Raises:
            ConfigError: a head that this network does not have.
        """
        heads = resolve_heads(heads, has=self.heads)
        count, size_px = t1_BCHW.shape[0], t1_BCHW.shape[-2:]
        # Date by date, as the public code does: one batch of both dates would share its batch-norm statistics.
        maps_t1, maps_t2 = self.encode(t1_BCHW), self.encode(t2_BCHW)
        compared = self.compare(maps_t1, maps_t2)
        if self.training and "complementary" in heads:
            compared = drop_complementary_channels(compared)
        if self.training and "perturbed" in heads:
            compared = append_channel_dropout(compared)
        features_BDHW = self.decode(compared, size_px=size_px)
        logits_BKHW = self.resize_logits(self.classify_features(features_BDHW), size_px=size_px)
        outputs: dict[str, Any] = {"change_BKHW": logits_BKHW[:count]}
        if "perturbed" in heads:
            outputs["perturbed_change_BKHW"] = logits_BKHW[-count:]  # in eval mode nothing is dropped: the same
        further = heads - {"change", "perturbed", "complementary"}
        if further:
            outputs |= self.predict_further_heads(
                further, maps_t1, maps_t2, features_BDHW=features_BDHW[:count], change_BKHW=logits_BKHW[:count]
            )
        return Outputs(**outputs)

    def encode(self, image_BCHW: Tensor) -> Sequence[Tensor]:
        """Return the encoder's maps of one date."""
        maps: Sequence[Tensor] = self.encoder(image_BCHW)
        return maps

    def compare(self, maps_t1: Sequence[Tensor], maps_t2: Sequence[Tensor]) -> list[Tensor]:
        """Return the maps that the decoder reads: by default the absolute differences of all stages."""
        return absolute_differences(maps_t1, maps_t2)

    def decode(self, maps: Sequence[Tensor], *, size_px: Sequence[int]) -> Tensor:
        """Return features (BDHW) from the compared maps; `size_px` is the input's size."""
        raise NotImplementedError

    def classify_features(self, features_BDHW: Tensor) -> Tensor:
        """Return change logits at the features' size."""
        logits_BKHW: Tensor = self.classify(features_BDHW)
        return logits_BKHW

    def resize_logits(self, logits_BKHW: Tensor, *, size_px: Sequence[int]) -> Tensor:
        """Resize logits in float32, so that a confidence of 0.95 is not rounded to bfloat16's 8 bits."""
        return resize_map(logits_BKHW.float(), size_px=size_px, align_corners=self.align_corners)

    def predict_further_heads(
        self,
        heads: frozenset[str],
        maps_t1: Sequence[Tensor],
        maps_t2: Sequence[Tensor],
        *,
        features_BDHW: Tensor,
        change_BKHW: Tensor,
    ) -> dict[str, Any]:
        """Return the fields of `Outputs` of the heads besides `change` and `perturbed`.

        Args:
            heads: the requested heads.
            maps_t1: the encoder's maps of date 1.
            maps_t2: the encoder's maps of date 2.
            features_BDHW: the decoder's features.
            change_BKHW: change logits at the input's size.
        """
        return {}
