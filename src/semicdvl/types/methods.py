"""How a batch becomes a loss: the base classes of the training methods, and the progress that is handed to them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from semicdvl.types.batches import LabelledBatch, UnlabelledBatch

if TYPE_CHECKING:
    from torch import Tensor, nn

CutMixPartner = Literal["other", "official_self", "official_reversed"]
"""The pair that CutMix pastes from. `other`: the previous pair of the batch. `official_reversed`: the pair at the same
place from the end, as in UniMatch V2's public code (the middle one of an odd number takes from itself).
`official_self`: the same pair again, as in the public code of SemiCD-VL, unintentionally (both of its loaders are
shuffled alike). There it is another random crop of the pair, here the pair mirrored left to right: a second crop would
cost a second loader, and the authors saw no difference."""


@dataclass(frozen=True)
class TrainingProgress:
    """Tell a method where training stands.

    Attributes:
        step: index of this step, from 0.
        total: steps in all.
        diagnostics: logged numbers that are no loss (such as the confident share); the method writes them.
    """

    step: int
    total: int
    diagnostics: dict[str, float] = field(default_factory=dict)

    @property
    def frac(self) -> float:
        """Completed share of training, in [0, 1)."""
        return self.step / max(self.total, 1)


class Method(ABC):
    """Turn a batch into a loss: the base class of all training methods.

    A method is a frozen dataclass of hyper-parameters with one `step`; its fields are the keys of a recipe's `[method]`
    section. Everything that the training loop reads of a method is declared here with a default, so a new method states
    only what differs:

        @dataclass(frozen=True)
        class CrossEntropy(Method):
            change_weight: float = 1.0

            def step(self, model, teacher, labelled, unlabelled, progress):
                out = model(labelled.t1_BCHW, labelled.t2_BCHW, heads=self.heads)
                return {"supervised": losses.supervised_loss(out.change_BKHW, labelled.label_BHW)}

    Examples:
        >>> import semicdvl as cd
        >>> method = cd.create_method("semicd_vl")
        >>> isinstance(method, cd.Method), method.uses_vlm
        (True, True)
    """

    @property
    def uses_unlabelled(self) -> bool:
        """Whether `step` needs unlabelled pairs."""
        return False

    @property
    def uses_vlm(self) -> bool:
        """Whether batches must contain the VLM's labels."""
        return False

    @property
    def learns_without_labels(self) -> bool:
        """Whether the labelled part of a batch may be empty throughout a training."""
        return False

    @property
    def needs_average(self) -> bool:
        """Whether the teacher must be a moving average of the network (`train.ema` above 0)."""
        return False

    @property
    def strong_views(self) -> Literal[1, 2]:
        """Number of strong views per unlabelled pair: 1 or 2."""
        return 1

    @property
    def compares_views(self) -> bool:
        """Whether `step` needs strong views of unlabelled pairs; by default where it needs such pairs."""
        return self.uses_unlabelled

    @property
    def heads(self) -> frozenset[str]:
        """Heads that the method reads of the network."""
        return frozenset({"change"})

    @property
    def cutmix_partner(self) -> CutMixPartner:
        """The pair that CutMix pastes from."""
        return "other"

    @property
    def confidence_min(self) -> float:
        """Probability from which a pseudo-label counts; 0: the method has no such threshold."""
        return 0.0

    @property
    def confidence_min_changed(self) -> float | None:
        """The same threshold for pixels labelled as changed; None: `confidence_min` holds for them too."""
        return None

    @property
    def semantic_weight(self) -> float | None:
        """Weight of the term on true classes of each date; None: the method has no such term."""
        return None

    @property
    def learns_vlm_classes(self) -> bool:
        """Whether a VLM's labels of each date train the segmentation heads."""
        return False

    @abstractmethod
    def step(
        self,
        model: nn.Module,
        teacher: nn.Module,
        labelled: LabelledBatch,
        unlabelled: UnlabelledBatch | None,
        progress: TrainingProgress,
    ) -> dict[str, Tensor]:
        """Return named, already weighted loss terms; their sum is the loss and the dict is the log.

        Args:
            model: the network that is trained.
            teacher: the network that predicts pseudo-labels: the same module, or its moving average.
            labelled: labelled pairs.
            unlabelled: unlabelled pairs; None for a method that does not use them.
            progress: where training stands; the method writes its diagnostics there.
        """


class AdversarialMethod(Method):
    """Train a network against discriminators: the base class of the adversarial methods.

    The training loop builds the discriminators once, gives them an optimiser of their own (Adam), stores them with the
    state of the run and passes them to `step`. `step` returns the terms of both sides; each term's gradient reaches one
    side only, so that one backward pass over their sum trains both and the optimisers step together.
    """

    @property
    def critic_lr(self) -> float:
        """Learning rate of the discriminators; it decays as the network's does."""
        return 1e-4

    @abstractmethod
    def build_discriminators(self) -> nn.Module | None:
        """Return new discriminators; None where the settings need none."""

    @abstractmethod
    def step(
        self,
        model: nn.Module,
        teacher: nn.Module,
        labelled: LabelledBatch,
        unlabelled: UnlabelledBatch | None,
        progress: TrainingProgress,
        discriminators: nn.Module | None = None,
    ) -> dict[str, Tensor]:
        """Return the weighted loss terms of the network and of the discriminators."""
