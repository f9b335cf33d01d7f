"""The minimum of a method's loss over pixels of pairs, for a network that decides pixel by pixel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from semicdvl.training.few_labels.cross_validation import DECAY_FACTORS, choose_decay
from semicdvl.types import (
    IGNORE,
    LabelledBatch,
    Method,
    Outputs,
    TrainingProgress,
    UnlabelledBatch,
    VLMTargets,
)


@runtime_checkable
class PixelwiseNetwork(Protocol):
    """A network that decides pixel by pixel from inputs without a gradient, and so can be fitted at once.

    With weights of 0 it decides as before any training. Labelled pairs are described before others are.
    """

    def describe_pixels(
        self, t1_HWC: NDArray[np.uint8], t2_HWC: NDArray[np.uint8], pixels_P: NDArray[np.int64], *, labelled: bool
    ) -> tuple[Tensor, Tensor]:
        """Return inputs DP and the logit P before training of some pixels of a training pair, by their flat index."""
        ...

    def decide_pixels(self, inputs_BDHW: Tensor, prior_BHW: Tensor) -> Outputs:
        """Return the change logits of pixels."""
        ...


class _PixelView(nn.Module):
    """Calls a pixelwise network with what it knows about pixels, as a method calls a network with images."""

    def __init__(self, network: PixelwiseNetwork) -> None:
        super().__init__()
        self._network = (network,)

    def forward(self, t1_BCHW: Tensor, t2_BCHW: Tensor, *, heads: frozenset[str] | None = None) -> Outputs:
        return self._network[0].decide_pixels(t1_BCHW, t2_BCHW[:, 0])


@dataclass(frozen=True)
class PixelSample:
    """Pixels of several pairs: inputs BD1P, logits before training B11P, and classes B1P."""

    inputs_BDHW: Tensor
    prior_BCHW: Tensor
    label_BHW: Tensor

    def select(self, rows: NDArray[np.int64]) -> PixelSample:
        """Return some of the pairs, by their place."""
        at = torch.from_numpy(rows)
        return PixelSample(self.inputs_BDHW[at], self.prior_BCHW[at], self.label_BHW[at])


@dataclass(frozen=True)
class PixelFit:
    """A network that is being fitted, and what it is fitted to.

    Attributes:
        network: the network.
        method: gives the loss.
        iterations: at most.
        labelled: pixels of pairs with a true label, if there are any.
        unlabelled: pixels of pairs with a label of the VLM, if the method needs any.
    """

    network: PixelwiseNetwork
    method: Method
    iterations: int
    labelled: PixelSample | None
    unlabelled: PixelSample | None

    @property
    def weights(self) -> list[nn.Parameter]:
        """What is fitted."""
        assert isinstance(self.network, nn.Module)
        return [weight for weight in self.network.parameters() if weight.requires_grad]

    def set_to_zero(self) -> None:
        """Take the correction away."""
        with torch.no_grad():
            for weight in self.weights:
                weight.zero_()

    def minimise(self, decay: float, *, left_out: NDArray[np.int64] | None = None) -> dict[str, float]:
        """Move the weights to the minimum of the loss and of a penalty on their squares; return the loss terms.

        Args:
            decay: weight of the penalty.
            left_out: labelled pairs, by their place, that do not count.
        """
        labelled = self.labelled
        if labelled is not None and left_out is not None:
            labelled = labelled.select(np.setdiff1d(np.arange(len(labelled.label_BHW)), left_out))
        batches, view, weights = _to_batches(labelled, self.unlabelled), _PixelView(self.network), self.weights
        solver = torch.optim.LBFGS(weights, max_iter=self.iterations, line_search_fn="strong_wolfe")
        terms: dict[str, Tensor] = {}

        def evaluate() -> Tensor:
            solver.zero_grad()
            terms.update(self.method.step(view, view, *batches, TrainingProgress(0, 1)))
            penalty = decay / 2 * torch.stack([weight.square().sum() for weight in weights]).sum()
            loss = torch.stack([*terms.values(), penalty]).sum()
            loss.backward()  # type: ignore[no-untyped-call]
            return loss

        solver.step(evaluate)  # type: ignore[no-untyped-call]
        return {name: float(term.detach()) for name, term in terms.items()}

    def finish(self, decay: float | None) -> dict[str, float]:
        """Fit to all pairs, or keep no correction where there is no penalty; return the loss terms."""
        self.set_to_zero()
        if decay is not None:
            return self.minimise(decay)
        view = _PixelView(self.network)
        with torch.no_grad():
            terms = self.method.step(view, view, *_to_batches(self.labelled, self.unlabelled), TrainingProgress(0, 1))
        return {name: float(term) for name, term in terms.items()}

    def count_on(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the pixels of some labelled pairs that are changed and found, found alone, and missed."""
        assert self.labelled is not None
        chosen = self.labelled.select(rows)
        with torch.no_grad():
            logits_BKHW = self.network.decide_pixels(chosen.inputs_BDHW, chosen.prior_BCHW[:, 0]).change_BKHW
        found_BHW, changed_BHW = logits_BKHW.argmax(dim=1).cpu() == 1, chosen.label_BHW == 1
        both = ((found_BHW & changed_BHW), (found_BHW & ~changed_BHW), (~found_BHW & changed_BHW))
        return np.array([int(one_BHW.sum()) for one_BHW in both])

    def choose_decay(self, decay: float) -> float | None:
        """Return the penalty that the labelled pairs speak for, or None where they speak for no correction."""
        if self.labelled is None:
            return None
        pairs = len(self.labelled.label_BHW)
        self.set_to_zero()
        without = self.count_on(np.arange(pairs))

        def fit(penalty: float, left_out: NDArray[np.int64]) -> None:
            self.minimise(penalty, left_out=left_out)

        decays = [factor * decay for factor in DECAY_FACTORS]
        return choose_decay(decays, pairs=pairs, without=without, fit=fit, count_on=self.count_on)


def _to_batches(
    labelled: PixelSample | None, unlabelled: PixelSample | None
) -> tuple[LabelledBatch, UnlabelledBatch | None]:
    """Return the batches as which a method sees the pixels; without true labels the labelled one is empty."""
    like = labelled or unlabelled
    assert like is not None
    rows = slice(None) if labelled is not None else slice(0)
    first = LabelledBatch(like.inputs_BDHW[rows], like.prior_BCHW[rows], like.label_BHW[rows])
    if unlabelled is None:
        return first, None
    images, ignored_BHW = (unlabelled.inputs_BDHW, unlabelled.prior_BCHW), torch.full_like(unlabelled.label_BHW, IGNORE)
    valid_BHW = torch.ones_like(ignored_BHW, dtype=torch.bool)
    vlm = VLMTargets(unlabelled.label_BHW, ignored_BHW, ignored_BHW)
    return first, UnlabelledBatch(*images, *images, valid_BHW, ~valid_BHW, vlm)
