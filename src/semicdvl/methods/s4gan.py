"""s4GAN for change detection: a discriminator classifies whole change maps; maps that pass as true are self-trained on.

    L = CE_x + 0.1 |E[f(truth)] - E[f(prediction)]| + 1.0 CE of the maps of u that pass as true, to their argmax

f are the discriminator's features, the mean is over the batch; the discriminator sees the map together with both dates.
Source: Mittal et al., Semi-supervised Semantic Segmentation with High- and Low-level Consistency (2019); its constants.
Of its two branches this is the GAN; the other one, an image classifier, has no meaning for two classes.

Differs from the source: change is rare, so a map without any passes as true, is self-trained on, and the network soon
predicts "unchanged" everywhere (one published row, WHU-CD at 5 %, is such a collapse). So a map must contain some
change to be self-trained on, unless `strict`. The source divides the true maps' images by the range of another batch,
which gives the two kinds away; here all images are normalised alike. Padding is masked on both sides.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from semicdvl.losses import masked_mean
from semicdvl.methods.common.discriminators import (
    average_discriminator_loss,
    build_strided_convolutions,
    discriminate_detached,
    discriminate_frozen,
    discriminator_accuracy,
    mask_pixels,
    one_hot_label,
    require_discriminators,
)
from semicdvl.methods.common.terms import SupervisedTerm
from semicdvl.methods.common.weak_to_strong import forward_labelled_and_weak, require_unlabelled
from semicdvl.types import IGNORE, AdversarialMethod, LabelledBatch, TrainingProgress, UnlabelledBatch


class MapDiscriminator(nn.Module):
    """Return one logit and one feature vector for a map with its images: strided convolutions and a mean over the map.

    The source pools 20 x 20 px, which fits one crop size; here the mean is over the whole map.
    """

    def __init__(self, channels_in: int = 8, *, channels: int = 64, dropout: float = 0.5) -> None:
        """Make the layers."""
        super().__init__()
        layers = build_strided_convolutions(channels_in, channels, dropout=dropout)
        self.body = nn.Sequential(*layers[:-1])  # no dropout before the features
        self.classify = nn.Linear(8 * channels, 1)

    def forward(self, map_BKHW: Tensor, images_BDHW: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits B ("true") and features BD."""
        features_BD = self.body(torch.cat([map_BKHW, images_BDHW], dim=1)).mean(dim=(2, 3))
        return self.classify(features_BD)[:, 0], features_BD


@dataclass(frozen=True)
class S4GAN(SupervisedTerm, AdversarialMethod):
    """Train on labels, on feature matching against a discriminator, and on the maps that it classifies as true."""

    feature_weight: float = 0.1  # of the feature matching term
    self_weight: float = 1.0  # of the self-training term
    confidence_true: float = 0.6  # discriminator's probability from which a map is self-trained on
    changed_min_frac: float = 0.01  # least share of changed pixels of a map that is self-trained on
    strict: bool = False  # as published: without that least share
    critic_lr: float = 1e-4  # learning rate of the discriminator: Adam, betas .9 and .99
    critic_channels: int = 64  # width of the discriminator's first layer

    @property
    def uses_unlabelled(self) -> bool:
        """Whether `step` needs unlabelled pairs: yes."""
        return True

    def build_discriminators(self) -> nn.Module:
        """Return the discriminator."""
        return MapDiscriminator(channels=self.critic_channels)

    def step(
        self,
        model: nn.Module,
        teacher: nn.Module,
        labelled: LabelledBatch,
        unlabelled: UnlabelledBatch | None,
        progress: TrainingProgress,
        discriminators: nn.Module | None = None,
    ) -> dict[str, Tensor]:
        """Return {"supervised", "feature_matching", "self_training", "critic"}.

        Raises:
            DataError: there is no unlabelled batch.
        """
        unlabelled = require_unlabelled(unlabelled, method="s4gan")
        discriminator = require_discriminators(discriminators, method="s4gan")
        out_x, out_u = forward_labelled_and_weak(model, labelled, unlabelled, heads=self.heads)
        true = _discriminator_inputs(one_hot_label(labelled.label_BHW), labelled.label_BHW != IGNORE, labelled)
        map_u_BKHW = out_u.change_BKHW.float().softmax(dim=1)
        predicted = _discriminator_inputs(map_u_BKHW, unlabelled.valid_BHW, unlabelled)

        true_B, features_x_BD = discriminate_detached(discriminator, *true)
        predicted_B, _ = discriminate_detached(discriminator, *predicted)
        frozen_B, features_u_BD = discriminate_frozen(discriminator, *predicted)
        gap_D = _mean_over_batch(features_x_BD.detach()) - _mean_over_batch(features_u_BD)
        selected_B = self.select_self_training(frozen_B.sigmoid(), predicted[0], unlabelled.valid_BHW)
        loss_self = _self_training_loss(out_u.change_BKHW, selected_B, unlabelled.valid_BHW)
        progress.diagnostics["critic_right_frac"] = discriminator_accuracy(true_B, predicted_B)
        progress.diagnostics["self_training_frac"] = float(selected_B.float().mean())
        return {
            "supervised": self.supervised_term(out_x.change_BKHW, labelled.label_BHW),
            "feature_matching": self.feature_weight * gap_D.abs().mean(),
            "self_training": self.self_weight * loss_self,
            "critic": average_discriminator_loss(true_B, predicted_B),
        }

    def select_self_training(self, probability_B: Tensor, map_BKHW: Tensor, valid_BHW: Tensor) -> Tensor:
        """Select the maps to self-train on: those that pass as true, with enough change (unless `strict`).

        Args:
            probability_B: the discriminator's probability that the map is true.
            map_BKHW: class probabilities.
            valid_BHW: bool, False on padding.
        """
        selected_B = probability_B > self.confidence_true
        if self.strict:
            return selected_B
        changed_BHW = (map_BKHW.argmax(dim=1) == 1) & valid_BHW
        pixels_B = valid_BHW.sum(dim=(1, 2)).clamp(min=1)
        return selected_B & (changed_BHW.sum(dim=(1, 2)) >= self.changed_min_frac * pixels_B)


def _discriminator_inputs(
    map_BKHW: Tensor, counted_BHW: Tensor, pairs: LabelledBatch | UnlabelledBatch
) -> tuple[Tensor, Tensor]:
    """Return the map and both dates of some pairs, with 0 where pixels do not count."""
    if isinstance(pairs, LabelledBatch):
        images_BDHW = torch.cat([pairs.t1_BCHW, pairs.t2_BCHW], dim=1)
    else:
        images_BDHW = torch.cat([pairs.weak_t1_BCHW, pairs.weak_t2_BCHW], dim=1)
    return mask_pixels(map_BKHW, counted_BHW), mask_pixels(images_BDHW, counted_BHW)


def _mean_over_batch(features_BD: Tensor) -> Tensor:
    """Return the mean features; 0 of no pair."""
    return features_BD.float().sum(dim=0) / max(len(features_BD), 1)


def _self_training_loss(logits_BKHW: Tensor, selected_B: Tensor, valid_BHW: Tensor) -> Tensor:
    """Return the cross entropy of the selected maps to their own argmax, over their valid pixels; 0 of no map."""
    value_BHW = nn.functional.cross_entropy(logits_BKHW.float(), logits_BKHW.argmax(dim=1), reduction="none")
    return masked_mean(value_BHW, valid_BHW & selected_B[:, None, None])
