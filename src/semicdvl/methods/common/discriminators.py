"""What adversarial methods share: a discriminator, and loss terms whose gradient reaches one side only.

A discriminator tells maps of labelled pairs ("labelled", 1) from maps of unlabelled ones (0); the network is trained so
that its maps of unlabelled pairs are classified as labelled. Published code switches the discriminator's gradient off
and on between two backward passes, and steps both optimisers after them. Here the network's term uses the
discriminator's weights as constants and the discriminator's term uses the maps as constants, so that one backward pass
over the sum of all terms gives each side the same gradient as there.

In recipes, logs and checkpoints the discriminator is called `critic`: these names are stored and stay.
"""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from semicdvl.types import IGNORE


def build_strided_convolutions(channels_in: int, channels: int, *, dropout: float | None = None) -> list[nn.Module]:
    """Return four strided 4x4 convolutions with LeakyReLU (and channel dropout), from `channels` to 8 times as many.

    This is the body of DCGAN's discriminator, which ADVENT and s4GAN both take.
    """
    widths = (channels_in, channels, 2 * channels, 4 * channels, 8 * channels)
    layers: list[nn.Module] = []
    for count_in, count_out in itertools.pairwise(widths):
        layers += [nn.Conv2d(count_in, count_out, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
        if dropout is not None:
            layers.append(nn.Dropout2d(dropout))
    return layers


class PatchDiscriminator(nn.Sequential):
    """Classify each patch of a map: five strided convolutions, one logit per patch at 1/32 of the map's size.

    2.76 M weights for two classes; needs maps of 32 px or more. Source: Vu et al., ADVENT (2019), after DCGAN.
    """

    def __init__(self, channels_in: int = 2, *, channels: int = 64) -> None:
        """Make the layers; `channels` is the width of the first one."""
        layers = build_strided_convolutions(channels_in, channels)
        super().__init__(*layers, nn.Conv2d(8 * channels, 1, 4, stride=2, padding=1))


# ------------------------------------------------------------------------------------------------ one side at a time
def discriminate_frozen(discriminator: nn.Module, *inputs: Tensor) -> tuple[Tensor, ...]:
    """Apply a discriminator whose weights are constants: gradient flows to the inputs alone."""
    weights = {name: value.detach() for name, value in discriminator.named_parameters()}
    return _as_tuple(functional_call(discriminator, weights, inputs))


def discriminate_detached(discriminator: nn.Module, *inputs: Tensor) -> tuple[Tensor, ...]:
    """Apply a discriminator to constants: gradient flows to its weights alone."""
    return _as_tuple(discriminator(*(value.detach() for value in inputs)))


def _as_tuple(output: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Return a discriminator's output as a tuple."""
    return output if isinstance(output, tuple) else (output,)


# ------------------------------------------------------------------------------------------------ loss terms
def discriminator_cross_entropy(logits: Tensor, *, as_labelled: bool) -> Tensor:
    """Return the mean cross entropy of logits to "labelled" or to "unlabelled"; 0 of no logit."""
    target = torch.full_like(logits, float(as_labelled), dtype=torch.float32)
    total = F.binary_cross_entropy_with_logits(logits.float(), target, reduction="sum")
    return total / max(logits.numel(), 1)


def adversarial_loss(discriminator: nn.Module, unlabelled_BDHW: Tensor) -> Tensor:
    """Return the network's term: the cross entropy of maps of unlabelled pairs to "labelled"."""
    return discriminator_cross_entropy(discriminate_frozen(discriminator, unlabelled_BDHW)[0], as_labelled=True)


def discriminator_loss(
    discriminator: nn.Module, labelled_BDHW: Tensor, unlabelled_BDHW: Tensor
) -> tuple[Tensor, float]:
    """Return the discriminator's term, half for each kind of maps, and its accuracy."""
    labelled, unlabelled = (discriminate_detached(discriminator, maps)[0] for maps in (labelled_BDHW, unlabelled_BDHW))
    return average_discriminator_loss(labelled, unlabelled), discriminator_accuracy(labelled, unlabelled)


def average_discriminator_loss(labelled_logits: Tensor, unlabelled_logits: Tensor) -> Tensor:
    """Return the mean of the cross entropies of both kinds of maps to what they are."""
    labelled = discriminator_cross_entropy(labelled_logits, as_labelled=True)
    return (labelled + discriminator_cross_entropy(unlabelled_logits, as_labelled=False)) / 2


def discriminator_accuracy(labelled_logits: Tensor, unlabelled_logits: Tensor) -> float:
    """Return the share of correct classifications, averaged over both kinds: near 1, the discriminator wins."""
    correct = [(labelled_logits > 0).flatten(), (unlabelled_logits <= 0).flatten()]
    return float(torch.stack([share.float().mean() for share in correct if share.numel()]).mean())


# ------------------------------------------------------------------------------------------------ maps
def self_information(logits_BKHW: Tensor) -> Tensor:
    """Return -p log2 p of each class, over log2 K: ADVENT's weighted self-information, whose sum is the entropy."""
    probability_BKHW = logits_BKHW.float().softmax(dim=1)
    scale = torch.log2(torch.tensor(float(logits_BKHW.shape[1])))
    return -probability_BKHW * torch.log2(probability_BKHW + 1e-30) / scale.to(logits_BKHW.device)


def mask_pixels(maps_BDHW: Tensor, counted_BHW: Tensor) -> Tensor:
    """Set pixels that do not count to 0, so that padding tells a discriminator nothing but its position."""
    return maps_BDHW * counted_BHW[:, None]


def one_hot_label(label_BHW: Tensor, *, smoothing: float = 0.0) -> Tensor:
    """Return labels as probabilities of two classes, the wrong one `smoothing`; 0 in both at IGNORE."""
    changed_BHW = (label_BHW == 1).float() * (1 - 2 * smoothing) + smoothing
    return mask_pixels(torch.stack([1 - changed_BHW, changed_BHW], dim=1), label_BHW != IGNORE)


def require_discriminators(discriminators: nn.Module | None, *, method: str) -> nn.Module:
    """Return the discriminators, which the training loop passes to every adversarial method."""
    assert discriminators is not None, f"call `step` of '{method}' with discriminators=method.build_discriminators()"
    return discriminators
