"""The loss terms of the embedded model: allowed sets of concepts, Dubai's coarse classes, overlap, bags of pixels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from aerial_data import KIND_NAMES
from aerial_words import (
    COARSE,
    CONCEPT_NAMES,
    CONCEPTS,
    FIRST_COARSE,
    FIRST_SCENE,
    SCENES,
    UNLABELLED,
    allowed_matrix,
    coarse_of_label,
    draw_words,
)  # fmt: skip
from semicdvl.vlms.aerial.net import AerialNet, project_embeddings

WEIGHTS = {"set": 1.0, "coarse": 0.5, "overlap": 0.8, "bag": 0.7}
WORD_NOISE = 0.03
"""Deviation of the noise on each axis of a drawn word: neighbours of a trained word get about the same meaning."""
KIND_WEIGHTS = {"own": 1.5}
RIM_WEIGHTS = {"dubai": 0.5, "settlement": 2.0, "city": 2.0, "own": 1.5, "scene": 0.7, "built": 0.7}
"""Weight of pixels within two metres of an outline: Dubai's outlines are coarse, and those of an earlier model are no
truth; drawn ones are exact."""
BUILDING = CONCEPT_NAMES.index("building")


@dataclass(frozen=True)
class WordSpace:
    """The noun table and its projection: what turns a word into a vector during training."""

    words: list[str]
    table_ND: Tensor
    mean_D: Tensor
    projection_DE: Tensor

    def vectors(self, words: list[str]) -> Tensor:
        """Return unit vectors NE of words of the table."""
        rows_ND = self.table_ND[[self.words.index(word) for word in words]]
        return project_embeddings(rows_ND, mean_D=self.mean_D, projection_DE=self.projection_DE)

    def concepts(self) -> Tensor:
        """Return one unit vector per concept: the mean of its words."""
        return F.normalize(torch.stack([self.vectors(list(words)).mean(0) for words in CONCEPTS.values()]), dim=1)


class Losses:
    """Call with the network, its features and the label ids; gives weighted terms."""

    def __init__(self, space: WordSpace) -> None:
        """Prepare the tables that translate label ids."""
        self.space = space
        self.fine = list(CONCEPTS.values())
        self.coarse = [words for _, words in COARSE.values()]
        allowed = allowed_matrix()
        self.forbidden = torch.where(allowed, 0.0, float("-inf"))
        self.coarse_of_label = torch.from_numpy(coarse_of_label())
        alone = allowed.sum(1) == 1
        self.building = torch.where(allowed[:, BUILDING], torch.where(alone, 1, -1), 0)
        self.kind_weights = torch.tensor([KIND_WEIGHTS.get(kind, 1.0) for kind in KIND_NAMES])
        self.rim_weights = torch.tensor([RIM_WEIGHTS.get(kind, 1.0) for kind in KIND_NAMES])

    def __call__(self, net: AerialNet, features_BEHW: Tensor, label_BHW2: Tensor, kind_B: Tensor,
                 rng: np.random.Generator) -> dict[str, Tensor]:  # fmt: skip
        """Return the weighted terms.

        Args:
            net: the network, for its scale.
            features_BEHW: its vectors, at half of the labels' size.
            label_BHW2: label ids and scene ids; one pixel of each 2 x 2, another in every step, is compared.
            kind_B: index of each crop's kind in KIND_NAMES.
            rng: draws words and pixels.
        """
        row, col = rng.integers(2, size=2)
        label_BHW, scene_BHW = label_BHW2[:, row::2, col::2].unbind(-1)
        logits_BKHW = net.compute_logits(features_BEHW, self._write_scalars(self.fine, rng))
        known_BHW = label_BHW != UNLABELLED
        weight_N = self._weigh_pixels(label_BHW, kind_B)[known_BHW]
        log_p_NK = logits_BKHW.permute(0, 2, 3, 1)[known_BHW].log_softmax(1)
        label_N = label_BHW[known_BHW]
        loss_N = -torch.logsumexp(log_p_NK + self.forbidden[label_N], 1)
        terms = {
            "set": (loss_N * weight_N).sum() / weight_N.sum(),
            "coarse": self._coarse_term(net, features_BEHW, label_BHW, rng),
            "overlap": self._overlap_term(log_p_NK, label_N, weight_N),
            "bag": bag_term(logits_BKHW.log_softmax(1), scene_BHW),
        }
        return {name: WEIGHTS[name] * value for name, value in terms.items()}

    def _weigh_pixels(self, label_BHW: Tensor, kind_B: Tensor) -> Tensor:
        """Return the weight of each pixel: its kind's, times that of its kind's rims along outlines of buildings."""
        truth_BHW = torch.where(label_BHW == UNLABELLED, -1, self.building[label_BHW.clamp_max(len(self.building) - 1)])
        near = [F.max_pool2d((truth_BHW == side).float()[:, None], 5, stride=1, padding=2)[:, 0] for side in (0, 1)]
        rim_BHW = near[0] * near[1]
        kind_B11, rim_B11 = self.kind_weights[kind_B][:, None, None], self.rim_weights[kind_B][:, None, None]
        return kind_B11 * (1 + (rim_B11 - 1) * rim_BHW)

    def _write_scalars(self, synonyms: list[tuple[str, ...]], rng: np.random.Generator) -> Tensor:
        vectors_KE = self.space.vectors(draw_words(synonyms, rng))
        noise_KE = torch.from_numpy(rng.normal(0, WORD_NOISE, vectors_KE.shape).astype(np.float32))
        return F.normalize(vectors_KE + noise_KE, dim=1)

    def _coarse_term(self, net: AerialNet, features_BEHW: Tensor, label_BHW: Tensor,
                     rng: np.random.Generator) -> Tensor:  # fmt: skip
        known_BHW = label_BHW != UNLABELLED
        target_N = self.coarse_of_label[label_BHW[known_BHW]]
        chosen_NE = features_BEHW.permute(0, 2, 3, 1)[known_BHW][target_N >= 0]
        if not len(chosen_NE):
            return features_BEHW.sum() * 0
        logits_NK = chosen_NE @ self._write_scalars(self.coarse, rng).T * net.scale
        return F.cross_entropy(logits_NK, target_N[target_N >= 0])

    def _overlap_term(self, log_p_NK: Tensor, label_N: Tensor, weight_N: Tensor) -> Tensor:
        """Return 1 - soft Dice of "building" over the batch's pixels where the answer is certain."""
        truth_N = self.building[label_N]
        sure_N = truth_N >= 0
        p_N, weight_N = log_p_NK[:, BUILDING].exp()[sure_N], weight_N[sure_N]
        truth_N = truth_N[sure_N].float()
        both = (2 * (weight_N * p_N * truth_N).sum() + 1) / ((weight_N * (p_N + truth_N)).sum() + 1)
        return 1 - both


def bag_term(log_p_BKHW: Tensor, scene_BHW: Tensor) -> Tensor:
    """Return the multiple-instance term: the most likely pixels of a scene must show what the scene certainly shows.

    For a scene that covers n pixels of a crop and shows a concept on a share s of them at least, minus the log of the
    mean probability of its s * n most likely pixels; scenes of which a crop holds less than a tenth are left out.
    """
    terms = []
    p_BKHW = log_p_BKHW.exp()
    for index in range(len(scene_BHW)):
        for scene, count in zip(*torch.unique(scene_BHW[index], return_counts=True), strict=True):
            if not FIRST_SCENE <= scene < FIRST_COARSE or count < scene_BHW[index].numel() // 10:
                continue
            inside_HW = scene_BHW[index] == scene
            for name, share in list(SCENES.values())[int(scene) - FIRST_SCENE][1].items():
                p_N = p_BKHW[index, CONCEPT_NAMES.index(name)][inside_HW]
                best = p_N.topk(max(1, int(share * len(p_N)))).values
                terms.append(-(best.mean() + 1e-5).log())
    return torch.stack(terms).mean() if terms else log_p_BKHW.sum() * 0
