"""Weak-to-strong consistency: pseudo-labels of the weak view, and CutMix of the strong one.

FixMatch and all methods built on it share this.

Source: Sohn et al., FixMatch (2020); Yun et al., CutMix (2019); for change detection the public code of UniMatch and
SemiCD-VL, which mixes both dates with one box.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from semicdvl import losses
from semicdvl.errors import DataError
from semicdvl.types import IGNORE, CutMixPartner, LabelledBatch, Outputs, UnlabelledBatch, VLMTargets


@contextmanager
def eval_mode(network: nn.Module) -> Iterator[None]:
    """Put a network into eval mode, and restore the mode of each of its modules afterwards (frozen stays frozen)."""
    was_training = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        yield
    finally:
        for module, training in was_training:
            module.training = training


@dataclass(frozen=True)
class PseudoLabelMaps:
    """Hold the most probable class of each pixel (int64, 0 or 1), and its probability."""

    label_BHW: Tensor
    confidence_BHW: Tensor

    @classmethod
    def from_logits(cls, logits_BKHW: Tensor) -> PseudoLabelMaps:
        """Return the most probable class of each pixel, detached from the graph."""
        confidence_BHW, label_BHW = logits_BKHW.detach().float().softmax(dim=1).max(dim=1)
        return cls(label_BHW, confidence_BHW)


def label_weak_view(teacher: nn.Module, unlabelled: UnlabelledBatch) -> PseudoLabelMaps:
    """Predict pseudo-labels of the weak views in eval mode: no gradient, batch-norm statistics untouched."""
    with torch.no_grad(), eval_mode(teacher):
        out = teacher(unlabelled.weak_t1_BCHW, unlabelled.weak_t2_BCHW, heads=frozenset({"change"}))
    return PseudoLabelMaps.from_logits(out.change_BKHW)


def forward_labelled_and_weak(
    model: nn.Module, labelled: LabelledBatch, unlabelled: UnlabelledBatch, *, heads: frozenset[str]
) -> tuple[Outputs, Outputs]:
    """Return the outputs of labelled pairs and of weak views, from one pass: they share batch norm.

    Adversarial methods differ in this from their published code, which makes two passes, of which each normalises its
    own kind: at test time neither statistics fit.
    """
    count = len(labelled.label_BHW)
    out: Outputs = model(
        torch.cat([labelled.t1_BCHW, unlabelled.weak_t1_BCHW]),
        torch.cat([labelled.t2_BCHW, unlabelled.weak_t2_BCHW]),
        heads=heads,
    )
    return out.select_pairs(slice(count)), out.select_pairs(slice(count, None))


@dataclass(frozen=True)
class StrongView:
    """Hold the strong view after CutMix, with all maps that were mixed by the same box."""

    t1_BCHW: Tensor
    t2_BCHW: Tensor
    pseudo: PseudoLabelMaps
    valid_BHW: Tensor
    vlm: VLMTargets | None


def cutmix(own: Tensor, pasted: Tensor, box_BHW: Tensor, *, partner: CutMixPartner) -> Tensor:
    """Return `own` with the pixels of the box taken from the partner's `pasted`.

    Args:
        own: BCHW or BHW.
        pasted: like `own`, in the batch's order; the partner's pixels come from here.
        box_BHW: bool, the pixels to paste.
        partner: the pair that each pair's pixels are pasted from.
    """
    if partner == "official_reversed":
        partners = pasted.flip(0)
    else:
        partners = pasted.roll(1, dims=0) if partner == "other" else pasted.flip(-1)
    return torch.where(box_BHW if own.ndim == 3 else box_BHW[:, None], partners, own)


def cutmix_strong_view(
    unlabelled: UnlabelledBatch, *, own: PseudoLabelMaps, pasted: PseudoLabelMaps, partner: CutMixPartner = "other"
) -> StrongView:
    """Apply CutMix to the strong view: images, pseudo-labels, padding and VLM labels alike.

    Args:
        unlabelled: the batch.
        own: pseudo-labels of the pixels outside the box.
        pasted: pseudo-labels of the pasted pixels.
        partner: the pair that each pair's pixels are pasted from.
    """

    def mix(value: Tensor, from_partner: Tensor) -> Tensor:
        return cutmix(value, from_partner, unlabelled.cutmix_box_BHW, partner=partner)

    vlm = unlabelled.vlm
    return StrongView(
        t1_BCHW=mix(unlabelled.strong_t1_BCHW, unlabelled.strong_t1_BCHW),
        t2_BCHW=mix(unlabelled.strong_t2_BCHW, unlabelled.strong_t2_BCHW),
        pseudo=PseudoLabelMaps(
            mix(own.label_BHW, pasted.label_BHW),
            mix(own.confidence_BHW, pasted.confidence_BHW),
        ),
        valid_BHW=mix(unlabelled.valid_BHW, unlabelled.valid_BHW),
        vlm=None
        if vlm is None
        else VLMTargets(mix(vlm.change_BHW, vlm.change_BHW), mix(vlm.t1_BHW, vlm.t1_BHW), mix(vlm.t2_BHW, vlm.t2_BHW)),
    )


def require_unlabelled(unlabelled: UnlabelledBatch | None, *, method: str) -> UnlabelledBatch:
    """Return the unlabelled batch.

    Raises:
        DataError: there is none.
    """
    if unlabelled is None:
        raise DataError(
            f"method '{method}' learns from unlabelled pairs, and the batch has none. Add unlabelled pairs, or use "
            "method 'supervised'."
        )
    return unlabelled


def compute_pseudo_label_diagnostics(
    pseudo: PseudoLabelMaps,
    unlabelled: UnlabelledBatch,
    *,
    confidence_min: float,
    confidence_min_changed: float | None = None,
) -> dict[str, float]:
    """Compute the numbers that show whether training on pseudo-labels goes well, all in [0, 1].

    `confident_frac` is the share of pixels that the consistency term uses, `pseudo_changed_frac` the share labelled as
    changed (0 for many steps: the network has collapsed to "unchanged"). Where the truth is known, also the share of
    confident pseudo-labels that are correct: of all (`confident_precision`) and of those labelled as changed
    (`confident_changed_precision`; change is rare, so the first is high even for a network that detects none).
    A number over no pixels is left out. All numbers need one transfer from the device.
    """
    valid_BHW = unlabelled.valid_BHW
    bounds = losses.ConfidenceBounds(confidence_min=confidence_min, confidence_min_changed=confidence_min_changed)
    confident_BHW = valid_BHW & losses.is_confident(pseudo.label_BHW, pseudo.confidence_BHW, **bounds)
    changed_BHW = pseudo.label_BHW == 1
    ratios = {
        "confident_frac": (confident_BHW, valid_BHW),
        "pseudo_changed_frac": (changed_BHW & valid_BHW, valid_BHW),
    }
    if unlabelled.truth_BHW is not None:
        known_BHW = confident_BHW & (unlabelled.truth_BHW != IGNORE)
        right_BHW = known_BHW & (pseudo.label_BHW == unlabelled.truth_BHW)
        ratios["confident_precision"] = (right_BHW, known_BHW)
        ratios["confident_changed_precision"] = (right_BHW & changed_BHW, known_BHW & changed_BHW)
    counts = torch.stack([torch.stack([part.sum(), whole.sum()]) for part, whole in ratios.values()]).tolist()
    return {name: part / whole for name, (part, whole) in zip(ratios, counts, strict=True) if whole}
