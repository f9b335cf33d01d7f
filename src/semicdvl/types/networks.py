"""The protocol of a change-detection network, and its outputs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Outputs:
    """What a network predicts for a batch of pairs; maps have the input's size, absent heads are None.

    Attributes:
        change_BKHW: change logits of the consistency-regularised head, K = 2.
        vlm_change_BKHW: change logits of the head that learns from the VLM.
        t1_BKHW: class logits of date 1 (0 background, 1 foreground).
        t2_BKHW: class logits of date 2.
        features_t1_BDHW: features of date 1 for the contrastive term, at the decoder's stride.
        features_t2_BDHW: features of date 2.
        perturbed_change_BKHW: change logits from difference features of which half the channels, drawn anew each time,
            are dropped (UniMatch's feature perturbation). The decoder takes the whole and the dropped features as one
            batch, as published: they share its batch norm. Nothing is dropped in eval mode.
        auxiliary_BKHW: change logits that only training reads, each a BKHW of its own size (a label is resized to it
            by nearest neighbour): the stages of deep supervision, coarse to fine, or auxiliary decoders, which are at
            the input's size and see perturbed features in training mode.
        distance_BHW: distance of the two dates' features, at the input's size, where the network decides by it.

    Examples:
        >>> import semicdvl as cd
        >>> network = cd.create_model("fc_ef", width=4)
        >>> import torch
        >>> outputs = network(torch.zeros(2, 3, 32, 48), torch.zeros(2, 3, 32, 48))
        >>> outputs.change_BKHW.shape, outputs.vlm_change_BKHW
        (torch.Size([2, 2, 32, 48]), None)
    """

    change_BKHW: Tensor
    vlm_change_BKHW: Tensor | None = None
    t1_BKHW: Tensor | None = None
    t2_BKHW: Tensor | None = None
    features_t1_BDHW: Tensor | None = None
    features_t2_BDHW: Tensor | None = None
    perturbed_change_BKHW: Tensor | None = None
    auxiliary_BKHW: tuple[Tensor, ...] | None = None
    distance_BHW: Tensor | None = None

    def select_pairs(self, rows: slice) -> Outputs:
        """Return the outputs of some pairs of the batch."""
        cut: dict[str, Any] = {
            name: tuple(one[rows] for one in value) if isinstance(value, tuple) else value[rows]
            for name, value in vars(self).items()
            if value is not None
        }
        return replace(self, **cut)


HEADS = ("change", "vlm_change", "segmentation", "features", "perturbed", "complementary", "auxiliary", "distance")
"""Names by which a method requests outputs: `segmentation` is t1 and t2 together, `features` likewise.

`complementary` is no output but a way to compute `change` (and what else reads the difference features) in training
mode: the batch is two views of the same pairs, one after the other, and the halves of the difference features' channels
that the one keeps are those that the other drops (UniMatch V2). It is computed only where a method asks for it by name.
"""

HEADS_WITHOUT_WEIGHTS = frozenset({"features", "perturbed", "complementary", "distance"})
"""The heads that return what other parts of the network computed and have no weights of their own."""


class Network(Protocol):
    """A change-detection network: an `nn.Module` whose forward takes two dates and the requested heads.

    Further members are optional: `encoder`, the part that starts from pretrained weights and has a learning rate of its
    own; `drop_train_heads()`, which removes the parts that only training needs and returns the network;
    `set_ground_sampling(gsd_m)`, for a network that measures in metres; and `untraceable`, a text that says why it can
    be neither compiled nor exported. `models.common.contract` reads them and knows what holds without.
    """

    heads: frozenset[str]
    """Which of `HEADS` the network has."""

    symmetric: bool
    """Whether the change logits in eval mode stay as they are when the dates are swapped."""

    def __call__(self, t1_BCHW: Tensor, t2_BCHW: Tensor, *, heads: frozenset[str] | None = None) -> Outputs:
        """Return the outputs of the named heads (None: all that the network has)."""
        ...
