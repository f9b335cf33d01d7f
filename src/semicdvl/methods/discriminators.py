"""What adversarial methods share: critics, and terms whose gradient reaches one side only.

A critic tells maps of labelled pairs ("labelled", 1) from maps of unlabelled ones (0); the network learns to be taken
for labelled. Published code switches the critic's gradient off and on between two backward passes, and steps both
optimisers after them. Here the network's term sees the critic's weights as constants and the critic's term sees the
maps as constants, so that one backward pass over the sum of all terms leaves each side the same gradient as there.
"""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from semicdvl.types import IGNORE, LabelledBatch, Outputs, UnlabelledBatch


class PatchDiscriminator(nn.Sequential):
    """ADVENT's critic: five strided convolutions, 1/32 of the size; one logit per patch. 2.76 M weights for 2 classes.

    Source: Vu et al., ADVENT (2019), after DCGAN. Needs maps of 32 px or more.
    """

    def __init__(self, channels_in: int = 2, *, channels: int = 64) -> None:
        """Make the layers."""
        widths = (channels_in, channels, 2 * channels, 4 * channels, 8 * channels)
        layers: list[nn.Module] = []
        for count_in, count_out in itertools.pairwise(widths):
            layers += [nn.Conv2d(count_in, count_out, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
        super().__init__(*layers, nn.Conv2d(widths[-1], 1, 4, stride=2, padding=1))


# ------------------------------------------------------------------------------------------------ one side at a time
def discriminate_frozen(critic: nn.Module, *inputs: Tensor) -> tuple[Tensor, ...]:
    """Return what a critic says, as a tuple; gradient flows to the inputs, none to the critic."""
    weights = {name: value.detach() for name, value in critic.named_parameters()}
    return _as_tuple(functional_call(critic, weights, inputs))


def discriminate_detached(critic: nn.Module, *inputs: Tensor) -> tuple[Tensor, ...]:
    """Return what a critic says, as a tuple; gradient flows to the critic, none to the inputs."""
    return _as_tuple(critic(*(value.detach() for value in inputs)))


def _as_tuple(said: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Return what a critic said as a tuple."""
    return said if isinstance(said, tuple) else (said,)


# ------------------------------------------------------------------------------------------------ terms
def discriminator_cross_entropy(logits: Tensor, *, as_labelled: bool) -> Tensor:
    """Return the mean cross entropy of a critic's logits to "labelled" or to "unlabelled"; 0 of none."""
    target = torch.full_like(logits, float(as_labelled), dtype=torch.float32)
    total = F.binary_cross_entropy_with_logits(logits.float(), target, reduction="sum")
    return total / max(logits.numel(), 1)


def adversarial_loss(critic: nn.Module, unlabelled_BDHW: Tensor) -> Tensor:
    """Return the network's term: how little a critic takes unlabelled maps for labelled."""
    return discriminator_cross_entropy(discriminate_frozen(critic, unlabelled_BDHW)[0], as_labelled=True)


def discriminator_loss(critic: nn.Module, labelled_BDHW: Tensor, unlabelled_BDHW: Tensor) -> tuple[Tensor, float]:
    """Return the critic's term, half for either kind, and the share of its judgements that are right."""
    of_labelled, of_unlabelled = (discriminate_detached(critic, maps)[0] for maps in (labelled_BDHW, unlabelled_BDHW))
    loss = (
        discriminator_cross_entropy(of_labelled, as_labelled=True)
        + discriminator_cross_entropy(of_unlabelled, as_labelled=False)
    ) / 2
    return loss, discriminator_accuracy(of_labelled, of_unlabelled)


def discriminator_accuracy(of_labelled: Tensor, of_unlabelled: Tensor) -> float:
    """Return the share of a critic's judgements that are right, either kind weighing the same: near 1, it wins."""
    shares = [(of_labelled > 0).flatten(), (of_unlabelled <= 0).flatten()]
    return float(torch.stack([share.float().mean() for share in shares if share.numel()]).mean())


# ------------------------------------------------------------------------------------------------ maps
def self_information(logits_BKHW: Tensor) -> Tensor:
    """Return -p log2 p of each class, over log2 K: ADVENT's weighted self-information, whose sum is the entropy."""
    probability_BKHW = logits_BKHW.float().softmax(dim=1)
    scale = torch.log2(torch.tensor(float(logits_BKHW.shape[1])))
    return -probability_BKHW * torch.log2(probability_BKHW + 1e-30) / scale.to(logits_BKHW.device)


def mask_pixels(maps_BDHW: Tensor, counted_BHW: Tensor) -> Tensor:
    """Return maps with 0 where pixels don't count, so that padding tells a critic nothing but where it is."""
    return maps_BDHW * counted_BHW[:, None]


def one_hot_label(label_BHW: Tensor, *, smoothing: float = 0.0) -> Tensor:
    """Return labels as probabilities of two classes, the wrong one `smoothing`; 0 in both at IGNORE."""
    changed_BHW = (label_BHW == 1).float() * (1 - 2 * smoothing) + smoothing
    return mask_pixels(torch.stack([1 - changed_BHW, changed_BHW], dim=1), label_BHW != IGNORE)


# ------------------------------------------------------------------------------------------------ the common pass
def forward_both(
    model: nn.Module, labelled: LabelledBatch, unlabelled: UnlabelledBatch, *, heads: frozenset[str]
) -> tuple[Outputs, Outputs]:
    """Return the outputs of labelled and of weak unlabelled pairs, from one pass: they share batch norm.

    Published code makes two passes, of which each normalises its own kind: at test time neither statistics fit.
    """
    count = len(labelled.label_BHW)
    out: Outputs = model(
        torch.cat([labelled.t1_BCHW, unlabelled.weak_t1_BCHW]),
        torch.cat([labelled.t2_BCHW, unlabelled.weak_t2_BCHW]),
        heads=heads,
    )
    return out.select_pairs(slice(count)), out.select_pairs(slice(count, None))


def require_discriminators(critics: nn.Module | None, *, method: str) -> nn.Module:
    """Return the critics, which the trainer hands to every adversarial method."""
    assert critics is not None, f"method '{method}' is stepped with critics=method.critics()"
    return critics
