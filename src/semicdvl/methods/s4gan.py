"""s4GAN for change detection: a critic judges whole change maps; those it takes for true are learnt from.

    L = CE_x + 0.1 |E[f(truth)] - E[f(prediction)]| + 1.0 CE of the maps of u that the critic believes, to their argmax

f are the critic's features, the mean is over the batch; the critic sees the map together with both dates.
Source: Mittal et al., Semi-supervised Semantic Segmentation with High- and Low-level Consistency (2019); its constants.
Of its two branches this is the GAN; the other one, an image classifier, says nothing where there are two classes.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from semicdvl.losses import masked_mean
from semicdvl.methods.discriminators import (
    discriminate_detached,
    discriminate_frozen,
    discriminator_accuracy,
    discriminator_cross_entropy,
    forward_both,
    mask_pixels,
    one_hot_label,
    require_discriminators,
)
from semicdvl.methods.terms import SupervisedTerm
from semicdvl.methods.weak_to_strong import require_unlabelled
from semicdvl.types import IGNORE, LabelledBatch, TrainingProgress, UnlabelledBatch


class MapDiscriminator(nn.Module):
    """One logit and one feature vector for a map with its images: four strided convolutions and a mean over the map.

    The source pools 20 x 20 px, which fits one crop size; here the mean is over whatever there is.
    """

    def __init__(self, channels_in: int = 8, *, channels: int = 64, dropout: float = 0.5) -> None:
        """Make the layers."""
        super().__init__()
        widths = (channels_in, channels, 2 * channels, 4 * channels, 8 * channels)
        layers: list[nn.Module] = []
        for count_in, count_out in itertools.pairwise(widths):
            layers += [nn.Conv2d(count_in, count_out, 4, stride=2, padding=1), nn.LeakyReLU(0.2), nn.Dropout2d(dropout)]
        self.body = nn.Sequential(*layers[:-1])  # no dropout before the features
        self.classify = nn.Linear(widths[-1], 1)

    def forward(self, map_BKHW: Tensor, images_BDHW: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits B ("true") and features BD."""
        features_BD = self.body(torch.cat([map_BKHW, images_BDHW], dim=1)).mean(dim=(2, 3))
        return self.classify(features_BD)[:, 0], features_BD


@dataclass(frozen=True)
class S4GAN(SupervisedTerm):
    """Settings of the method.

    Change is rare: a map without any looks true to the critic, is learnt from, and the network soon says "unchanged"
    everywhere. One published row (WHU-CD, 5 %) is such a collapse. So a map must have some change to be learnt from,
    unless `strict`. The source divides the true maps' images by the range of another batch, which tells the critic
    what is what; here all images are normalised alike. Padding is blanked on both sides.
    """

    feature_weight: float = 0.1  # of the feature matching term
    self_weight: float = 1.0  # of the self-training term
    confidence_true: float = 0.6  # critic's probability from which a map is learnt from
    changed_min_frac: float = 0.01  # least share of changed pixels of a map that is learnt from
    strict: bool = False  # as published: without that gate
    critic_lr: float = 1e-4  # of Adam, betas .9 and .99
    critic_channels: int = 64  # width of the critic's first layer

    uses_unlabelled: ClassVar[bool] = True
    uses_vlm: ClassVar[bool] = False
    heads: ClassVar[frozenset[str]] = frozenset({"change"})

    def build_discriminators(self) -> nn.Module:
        """Return the critic."""
        return MapDiscriminator(channels=self.critic_channels)

    def step(
        self,
        model: nn.Module,
        teacher: nn.Module,
        labelled: LabelledBatch,
        unlabelled: UnlabelledBatch | None,
        progress: TrainingProgress,
        critics: nn.Module | None = None,
    ) -> dict[str, Tensor]:
        """Return {"supervised", "feature_matching", "self_training", "critic"}.

        Raises:
            DataError: there is no unlabelled batch.
        """
        unlabelled = require_unlabelled(unlabelled, method="s4gan")
        critic = require_discriminators(critics, method="s4gan")
        out_x, out_u = forward_both(model, labelled, unlabelled, heads=self.heads)
        truth_BKHW, images_x_BDHW = _discriminator_input(
            one_hot_label(labelled.label_BHW), labelled.label_BHW != IGNORE, labelled
        )
        map_u_BKHW, images_u_BDHW = _discriminator_input(
            out_u.change_BKHW.float().softmax(dim=1), unlabelled.valid_BHW, unlabelled
        )

        true_B, features_x_BD = discriminate_detached(critic, truth_BKHW, images_x_BDHW)
        false_B, _ = discriminate_detached(critic, map_u_BKHW, images_u_BDHW)
        believed_B, features_u_BD = discriminate_frozen(critic, map_u_BKHW, images_u_BDHW)
        gap_D = _mean_over_batch(features_x_BD.detach()) - _mean_over_batch(features_u_BD)
        taken_B = self.select_self_training(believed_B.sigmoid(), map_u_BKHW, unlabelled.valid_BHW)
        progress.diagnostics["critic_right_frac"] = discriminator_accuracy(true_B, false_B)
        progress.diagnostics["self_training_frac"] = float(taken_B.float().mean())
        return {
            "supervised": self.supervised_term(out_x.change_BKHW, labelled.label_BHW),
            "feature_matching": self.feature_weight * gap_D.abs().mean(),
            "self_training": self.self_weight * _self_training_loss(out_u.change_BKHW, taken_B, unlabelled.valid_BHW),
            "critic": (
                discriminator_cross_entropy(true_B, as_labelled=True)
                + discriminator_cross_entropy(false_B, as_labelled=False)
            )
            / 2,
        }

    def select_self_training(self, believed_B: Tensor, map_BKHW: Tensor, valid_BHW: Tensor) -> Tensor:
        """Return which maps are learnt from: those the critic believes, with enough change (unless `strict`).

        Args:
            believed_B: critic's probability that the map is true.
            map_BKHW: class probabilities.
            valid_BHW: bool, False on padding.
        """
        taken_B = believed_B > self.confidence_true
        if self.strict:
            return taken_B
        changed_BHW = (map_BKHW.argmax(dim=1) == 1) & valid_BHW
        pixels_B = valid_BHW.sum(dim=(1, 2)).clamp(min=1)
        return taken_B & (changed_BHW.sum(dim=(1, 2)) >= self.changed_min_frac * pixels_B)


def _discriminator_input(
    map_BKHW: Tensor, counted_BHW: Tensor, pairs: LabelledBatch | UnlabelledBatch
) -> tuple[Tensor, Tensor]:
    """Return what the critic sees of some pairs: the map and both dates, blank where pixels don't count."""
    if isinstance(pairs, LabelledBatch):
        images_BDHW = torch.cat([pairs.t1_BCHW, pairs.t2_BCHW], dim=1)
    else:
        images_BDHW = torch.cat([pairs.weak_t1_BCHW, pairs.weak_t2_BCHW], dim=1)
    return mask_pixels(map_BKHW, counted_BHW), mask_pixels(images_BDHW, counted_BHW)


def _mean_over_batch(features_BD: Tensor) -> Tensor:
    """Return the mean features; 0 of no pair."""
    return features_BD.float().sum(dim=0) / max(len(features_BD), 1)


def _self_training_loss(logits_BKHW: Tensor, taken_B: Tensor, valid_BHW: Tensor) -> Tensor:
    """Return the cross entropy of some pairs' maps to their own argmax, over their valid pixels; 0 of no pair."""
    value_BHW = nn.functional.cross_entropy(logits_BKHW.float(), logits_BKHW.argmax(dim=1), reduction="none")
    return masked_mean(value_BHW, valid_BHW & taken_B[:, None, None])
