"""Networks, methods, and what passes between them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from semicdvl.types.batches import LabelledBatch, UnlabelledBatch

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn


@dataclass(frozen=True)
class Outputs:
    """What a network says about a batch of pairs; maps have the input's size, absent heads are None.

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
        auxiliary_BKHW: change logits that only training looks at, each a BKHW of its own size (a label is resized to it
            by nearest neighbour): the stages of deep supervision, coarse to fine, or auxiliary decoders, which are at
            the input's size and see perturbed features in training mode.
        distance_BHW: distance of the two dates' features, at the input's size, where the network decides by it.
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


HEADS = ("change", "vlm_change", "segmentation", "features", "perturbed", "auxiliary", "distance")
"""Names by which a method asks for outputs: `segmentation` is t1 and t2 together, `features` likewise."""

HEADS_WITHOUT_WEIGHTS = frozenset({"features", "perturbed", "distance"})
"""The heads that show what other parts of the network computed and have no weights of their own."""


@dataclass(frozen=True)
class TrainingProgress:
    """Where training stands, handed to `Method.step`.

    Attributes:
        step: index of this step, from 0.
        total: steps in all.
        diagnostics: numbers worth logging that are no loss (confident fraction, its precision); the method writes them.
    """

    step: int
    total: int
    diagnostics: dict[str, float] = field(default_factory=dict)

    @property
    def frac(self) -> float:
        """Share of training that is done, in [0, 1)."""
        return self.step / max(self.total, 1)


class Network(Protocol):
    """A change-detection network: `nn.Module` whose forward takes two dates and the heads that are wanted."""

    heads: frozenset[str]
    """Which of `HEADS` the network has."""

    symmetric: bool
    """Whether the change logits in eval mode stay as they are when the dates are swapped."""

    def __call__(self, t1_BCHW: Tensor, t2_BCHW: Tensor, *, heads: frozenset[str] | None = None) -> Outputs:
        """Return the outputs of the named heads (None: all that the network has)."""
        ...


class Method(Protocol):
    """How a batch becomes a loss. A frozen dataclass of hyper-parameters with one `step`.

    Three more attributes are looked at where a method has them: `strong_views` (2: the batch brings the second strong
    view), `needs_average` (True: the teacher must be a moving average, `train.ema` above 0) and `learns_without_labels`
    (True: the labelled part of a batch may hold no pair).
    """

    @property
    def uses_unlabelled(self) -> bool:
        """Whether `step` wants unlabelled pairs."""
        ...

    @property
    def uses_vlm(self) -> bool:
        """Whether batches must bring the VLM's labels."""
        ...

    @property
    def heads(self) -> frozenset[str]:
        """Heads that the method needs of the network."""
        ...

    def step(
        self,
        model: nn.Module,
        teacher: nn.Module,
        labelled: LabelledBatch,
        unlabelled: UnlabelledBatch | None,
        progress: TrainingProgress,
    ) -> dict[str, torch.Tensor]:
        """Return named, already weighted loss terms; their sum is the loss and the dict is the log.

        `model` is trained; `teacher` gives pseudo labels (the same module, or its moving average).
        """
        ...


@runtime_checkable
class AdversarialMethod(Protocol):
    """A method that plays the network against networks of its own, which judge what it says.

    The trainer makes these once, gives them an optimiser of their own (Adam), keeps them in the state of the run and
    hands them to `step` as `critics=`. `step` returns the terms of both sides; each term's gradient reaches one side
    only, so that one backward pass over their sum trains both and the optimisers step together.
    """

    @property
    def critic_lr(self) -> float:
        """Learning rate of the critics; it decays as the network's does."""
        ...

    def build_discriminators(self) -> nn.Module | None:
        """Return new critics; None where the settings need none."""
        ...
