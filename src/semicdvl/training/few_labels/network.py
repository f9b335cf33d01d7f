"""A network that starts as the detector without labels and learns a correction from a few of them.

    t1, t2 ─ embedded VLM, residual rule (frozen) ─┬─ logit without labels ─────────────────────────┬─ + ─ change
                                                   └─ what it was decided from ─ correction ─ reach ─┘

The correction is a logistic regression on seven inputs (`maps`): eight weights, which start at 0, so that the untrained
network's map is that of `semicdvl detect` without labels. With 4 to 16 labelled crops a network of millions of weights
forgets what the VLM knows; this one can only be moved as far as labels carry.

How far they carry over ground is the reach, from 0 to 1: images whose colours are unlike those of the labelled pairs
(`LOOKS_RANGE`) keep the map without labels. What labels of one place say about the thresholds of another is wrong as
often as right. Training pairs without a label that look like the labelled ones count as labelled here: a few pairs show
less of a place than all do. (A training by steps notes the looks of all pairs that pass through the network.)

A recipe names it "vlm_prior". It decides pixel by pixel, so `fit` finds its weights at once. The VLM has no gradient,
so what it says about an image is kept, and each pair is asked about once. Weights on disk are those of the correction,
with the hash of the VLM's. Ours alone.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from semicdvl.ceg.prompts import PROMPT_SETS, Prompts
from semicdvl.errors import CheckpointError, ConfigError
from semicdvl.models.common.heads import resolve_heads
from semicdvl.reading.limits import MAX_GSD_M, MIN_GSD_M
from semicdvl.training.few_labels.maps import CENTRE_AND_SCALE
from semicdvl.training.few_labels.prior import HASH_BYTES, VLMPrior, share_prior
from semicdvl.types import IMAGENET_MEAN, IMAGENET_STD, Outputs

LOOKS_RANGE = (1.5, 2.0)
"""The looks of a pair are mean and deviation of each colour at each date. Up to the first root mean square distance
from the mean looks of the labelled pairs, in deviations, a correction has its full weight, from the second on 0."""
LEAST_LOOKS_DEVIATION = 4.0 / 255
"""Few pairs that look alike by chance must not make all others look strange."""
WORDS = PROMPT_SETS["buildings"]


class VLMPriorNet(nn.Module):
    """The network of this module's docstring; `build_vlm_prior` makes it.

    Attributes:
        prior: the frozen part.
        gsd_m: metres per pixel of the images; None: unknown.
        correction: the trained part.
        prior_hash_N: the hash of the frozen part that the correction was trained for, as numbers; zeros before.
        looks_3L: number of pairs that show where labels reach, their mean looks, and the sum of squares around it.
        labelled_looks_3L: the same of the labelled pairs alone, while the network is fitted.
    """

    symmetric = True
    heads = frozenset({"change"})
    untraceable = "it asks the embedded VLM and runs the residual rule, which are no layers of a network"
    prior_hash_N: Tensor
    looks_3L: Tensor
    labelled_looks_3L: Tensor

    def __init__(self, prior: VLMPrior, *, gsd_m: float | None) -> None:
        """Put a correction on a detector."""
        super().__init__()
        self.prior, self.gsd_m = prior, gsd_m
        self.correction = nn.Conv2d(len(CENTRE_AND_SCALE), 1, 1)
        for parameter in self.correction.parameters():
            nn.init.zeros_(parameter)
        self.register_buffer("prior_hash_N", torch.zeros(HASH_BYTES))
        self.register_buffer("looks_3L", torch.zeros(3, 12, dtype=torch.float64))
        self.register_buffer("labelled_looks_3L", torch.zeros(3, 12, dtype=torch.float64), persistent=False)

    def set_ground_sampling(self, gsd_m: float) -> None:
        """Say how many metres a pixel of the images has from now on."""
        self.gsd_m = gsd_m

    def forward(self, t1_BCHW: Tensor, t2_BCHW: Tensor, *, heads: frozenset[str] | None = None) -> Outputs:
        """Return the change logits, at the size of the input.

        Args:
            t1_BCHW: date 1, RGB / 255 normalised with the ImageNet mean and deviation, of any size.
            t2_BCHW: date 2.
            heads: `change`, or None.

        Raises:
            ConfigError: another head.
            CheckpointError: the correction was trained for another VLM, other prompts or another rule.
        """
        resolve_heads(heads, has=self.heads)
        self._check_prior()
        dates = [_restore_images(date_BCHW) for date_BCHW in (t1_BCHW, t2_BCHW)]
        with torch.no_grad():
            found = [self.prior.ask(t1_HWC, t2_HWC, gsd_m=self.gsd_m) for t1_HWC, t2_HWC in zip(*dates, strict=True)]
            reach_B = self._measure_reach(dates)
        inputs_BDHW = torch.from_numpy(np.stack([maps.inputs_DHW for maps in found]))
        prior_BHW = torch.from_numpy(np.stack([maps.logit_HW for maps in found]))
        return self.decide_pixels(inputs_BDHW, prior_BHW, reach_B=reach_B)

    def describe_pixels(
        self, t1_HWC: NDArray[np.uint8], t2_HWC: NDArray[np.uint8], pixels_P: NDArray[np.int64], *, labelled: bool
    ) -> tuple[Tensor, Tensor]:
        """Return inputs DP and the logit P without labels of some pixels of a training pair.

        Args:
            t1_HWC: uint8 RGB image of date 1.
            t2_HWC: the same of date 2.
            pixels_P: flat indices of the pixels.
            labelled: whether the pair has a true label: then its looks are noted. Those of another pair are if they
                are near those of the labelled ones, which come first.
        """
        self._check_prior()
        maps = self.prior.ask(t1_HWC, t2_HWC, gsd_m=self.gsd_m)
        looks_L = _describe_looks(t1_HWC, t2_HWC)
        if labelled:
            _add_looks(self.labelled_looks_3L, looks_L)
        if labelled or _measure_unlikeness(self.labelled_looks_3L, looks_L) < LOOKS_RANGE[0]:
            _add_looks(self.looks_3L, looks_L)
        inputs_DP = maps.inputs_DHW.reshape(len(maps.inputs_DHW), -1)[:, pixels_P].astype(np.float32)
        return torch.from_numpy(inputs_DP), torch.from_numpy(maps.logit_HW.ravel()[pixels_P].astype(np.float32))

    def decide_pixels(self, inputs_BDHW: Tensor, prior_BHW: Tensor, *, reach_B: Tensor | None = None) -> Outputs:
        """Return the change logits of pixels.

        Args:
            inputs_BDHW: what the correction depends on.
            prior_BHW: logits without labels.
            reach_B: weight of the correction for each pair; None: 1.
        """
        weight = self.correction.weight
        logit_BHW = self.correction(inputs_BDHW.to(weight))[:, 0].float()
        if reach_B is not None:
            logit_BHW = reach_B.to(weight.device)[:, None, None] * logit_BHW
        logit_BHW = prior_BHW.to(weight.device).float() + logit_BHW
        return Outputs(torch.stack([-logit_BHW, logit_BHW], dim=1) / 2)

    def _measure_reach(self, dates: list[list[NDArray[np.uint8]]]) -> Tensor:
        """Return the weight of the correction for each pair; in training it is 1, and the looks are noted."""
        looks = [_describe_looks(*pair) for pair in zip(*dates, strict=True)]
        if self.training:
            for looks_L in looks:
                _add_looks(self.looks_3L, looks_L)
            return torch.ones(len(looks))
        distance_B = torch.tensor([_measure_unlikeness(self.looks_3L, looks_L) for looks_L in looks])
        near, far = LOOKS_RANGE
        return ((far - distance_B) / (far - near)).clamp(0, 1).float()

    def _check_prior(self) -> None:
        """Note what the correction is for, or refuse what it is not for."""
        own_N = torch.tensor(list(self.prior.identity_hash)).to(self.prior_hash_N)
        if not self.prior_hash_N.any():
            self.prior_hash_N.copy_(own_N)
        elif not torch.equal(self.prior_hash_N, own_N):
            raise CheckpointError(
                "The network corrects the map of another version of the embedded VLM, or of other prompts. Train again."
            )


def build_vlm_prior(
    *,
    find: tuple[str, ...] | list[str] = WORDS.find,
    background: tuple[str, ...] | list[str] = WORDS.background,
    views: int = 3,
    gsd_m: float | None = None,
) -> VLMPriorNet:
    """Build the network.

    Args:
        find: words for what is looked for.
        background: words for everything else.
        views: test-time views of the VLM, see `vlms.aerial.build.build_aerial`.
        gsd_m: metres per pixel of the training images; None: unknown. `detect` takes that of its own images.

    Raises:
        ConfigError: a number is out of range, or a word is none.
    """
    if gsd_m is not None and not MIN_GSD_M <= gsd_m <= MAX_GSD_M:
        raise ConfigError(f"gsd_m = {gsd_m}: give metres per pixel, from {MIN_GSD_M:g} to {MAX_GSD_M:,}.")
    if views not in (1, 2, 3, 4):
        raise ConfigError(f"views must be one of 1, 2, 3, 4, got {views}.")
    return VLMPriorNet(share_prior(Prompts(tuple(find), tuple(background)), views), gsd_m=gsd_m)


def _restore_images(image_BCHW: Tensor) -> list[NDArray[np.uint8]]:
    """Return normalised images as they were before: uint8 HWC."""
    mean_C11, std_C11 = (torch.tensor(values)[:, None, None] for values in (IMAGENET_MEAN, IMAGENET_STD))
    bytes_BCHW = ((image_BCHW.cpu().float() * std_C11 + mean_C11) * 255).round().clamp(0, 255).to(torch.uint8)
    return [np.ascontiguousarray(one_HWC) for one_HWC in bytes_BCHW.permute(0, 2, 3, 1).numpy()]


def _describe_looks(t1_HWC: NDArray[np.uint8], t2_HWC: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return the looks of a pair, in [0, 1]: of each colour the means of the dates together, then the deviations."""
    means, deviations = zip(*(cv2.meanStdDev(image_HWC) for image_HWC in (t1_HWC, t2_HWC)), strict=True)
    return np.concatenate([*means, *deviations]).ravel() / 255


def _add_looks(known_3L: Tensor, looks_L: NDArray[np.float64]) -> None:
    """Take the looks of a pair into the number, mean and sum of squares of those before (Welford, 1962)."""
    new_L, (count_L, mean_L, squares_L) = torch.from_numpy(looks_L).to(known_3L), known_3L.clone()
    moved_L = mean_L + (new_L - mean_L) / (count_L + 1)
    known_3L.copy_(torch.stack([count_L + 1, moved_L, squares_L + (new_L - mean_L) * (new_L - moved_L)]))


def _measure_unlikeness(known_3L: Tensor, looks_L: NDArray[np.float64]) -> float:
    """Return the root mean square distance of looks from the mean of those known, in deviations; infinite without."""
    count, mean_L, squares_L = known_3L[0, 0], known_3L[1], known_3L[2]
    if not count:
        return math.inf
    deviation_L = (squares_L / count).sqrt().clamp(min=LEAST_LOOKS_DEVIATION)
    return float(((torch.from_numpy(looks_L).to(known_3L) - mean_L) / deviation_L).square().mean().sqrt())
