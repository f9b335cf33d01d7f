"""The graph network of `gmcd` (in the spirit of GMCD): two edge convolutions over nearest nodes, trained on one pair.

An edge convolution (Wang et al., "Dynamic graph CNN", 2019) takes, for each node, the greatest of what a small network
makes of the node and each neighbour's difference from it; neighbours are the nearest by the input features of the
layer, so they are recomputed in every layer. Positions that were not in training are connected to training nodes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

UNCERTAIN = 2
"""Label of a node that is part of the graph but of no loss."""
WIDTH = 32
MARGIN = 1.0
METRIC_WEIGHT = 0.5
LEARNING_RATE = 5e-3
MAX_CHANGED_WEIGHT = 10.0
"""Greatest weight of a changed node relative to an unchanged one."""
PLACES_AT_ONCE = 2**13


class GraphNetwork(nn.Module):
    """Features of both dates at a node, propagated over its neighbours, to the log odds of change."""

    def __init__(self, channels: int, *, neighbours: int) -> None:
        """Build the network for features with this number of channels."""
        super().__init__()
        self.neighbours = neighbours
        self.project = nn.Linear(channels, WIDTH)
        self.first = nn.Sequential(nn.Linear(6 * WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH))
        self.second = nn.Sequential(nn.Linear(2 * WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH))
        self.head = nn.Linear(2 * WIDTH, 1)

    def embed_nodes(self, t1_ND: Tensor, t2_ND: Tensor) -> tuple[Tensor, Tensor]:
        """Return the node features, and the distance of the dates in the learned space."""
        z1_NE, z2_NE = self.project(t1_ND), self.project(t2_ND)
        away_NE = (z1_NE - z2_NE).abs()
        return torch.cat([away_NE, z1_NE, z2_NE], dim=1), away_NE.square().sum(dim=1).clamp_min(1e-12).sqrt()

    def convolve_edges(self, layer: nn.Module, nodes_NE: Tensor, bank_ME: Tensor) -> Tensor:
        """Return an edge convolution of nodes over their nearest neighbours in the bank."""
        with torch.no_grad():
            nearest_NK = torch.cdist(nodes_NE, bank_ME).topk(self.neighbours, dim=1, largest=False).indices
        away_NKE = bank_ME[nearest_NK] - nodes_NE[:, None]
        edges_NKE = torch.cat([nodes_NE[:, None].expand_as(away_NKE), away_NKE], dim=2)
        spread_NE: Tensor = layer(edges_NKE).amax(dim=1)
        return spread_NE

    def classify_nodes(self, first_NE: Tensor, second_NE: Tensor) -> Tensor:
        """Return the log odds of change from the outputs of both layers."""
        logit_N: Tensor = self.head(torch.cat([first_NE, second_NE], dim=1))[:, 0]
        return logit_N


@dataclass(frozen=True)
class TrainedGraph:
    """A trained network and the nodes that other positions are connected to.

    Attributes:
        network: in evaluation mode.
        bank_ME: node features of the training nodes.
        first_ME: output of the first layer for them.
    """

    network: GraphNetwork
    bank_ME: Tensor
    first_ME: Tensor

    def predict_probability(self, t1_ND: NDArray[np.float32], t2_ND: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the probability of change at each position."""
        parts = []
        with torch.inference_mode():
            for at in range(0, len(t1_ND), PLACES_AT_ONCE):
                dates = (torch.from_numpy(np.ascontiguousarray(x[at : at + PLACES_AT_ONCE])) for x in (t1_ND, t2_ND))
                nodes_NE, _ = self.network.embed_nodes(*dates)
                first_NE = self.network.convolve_edges(self.network.first, nodes_NE, self.bank_ME)
                second_NE = self.network.convolve_edges(self.network.second, first_NE, self.first_ME)
                parts.append(self.network.classify_nodes(first_NE, second_NE).sigmoid())
        changed_N: NDArray[np.float32] = torch.cat(parts).numpy()
        return changed_N


def train_graph(
    t1_ND: NDArray[np.float32],
    t2_ND: NDArray[np.float32],
    label_N: NDArray[np.int64],
    *,
    neighbours: int,
    steps: int,
    seed: int,
) -> TrainedGraph:
    """Train on nodes labelled 0, 1 and UNCERTAIN.

    The loss is the cross-entropy of the certain nodes plus half a contrastive one on the learned distance of the dates
    (0 where unchanged, at least 1 where changed).
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = GraphNetwork(t1_ND.shape[1], neighbours=neighbours)
    dates = [torch.from_numpy(np.ascontiguousarray(x)) for x in (t1_ND, t2_ND)]
    certain_N = torch.from_numpy(label_N != UNCERTAIN)
    target_C = torch.from_numpy((label_N == 1).astype(np.float32))[certain_N]
    weight = ((1 - target_C).sum() / target_C.sum()).clamp(1.0, MAX_CHANGED_WEIGHT)
    optimiser = torch.optim.Adam(network.parameters(), lr=LEARNING_RATE)
    for _ in range(steps):
        nodes_NE, distance_N = network.embed_nodes(*dates)
        first_NE = network.convolve_edges(network.first, nodes_NE, nodes_NE)
        logit_N = network.classify_nodes(first_NE, network.convolve_edges(network.second, first_NE, first_NE))
        classification = F.binary_cross_entropy_with_logits(logit_N[certain_N], target_C, pos_weight=weight)
        away_C = distance_N[certain_N]
        metric = torch.where(target_C > 0, (MARGIN - away_C).clamp_min(0), away_C).square().mean()
        optimiser.zero_grad()
        (classification + METRIC_WEIGHT * metric).backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    network.eval()
    with torch.no_grad():
        nodes_NE, _ = network.embed_nodes(*dates)
        first_NE = network.convolve_edges(network.first, nodes_NE, nodes_NE)
    return TrainedGraph(network, nodes_NE, first_NE)
