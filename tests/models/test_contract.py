"""The members that a network may have: read where it has them, and with one default where it does not."""

from __future__ import annotations

import torch
from torch import nn

from semicdvl.detection.detectors.inference import prepare_for_inference
from semicdvl.models.common import contract
from semicdvl.types import Outputs


class MetricNet(nn.Module):
    """A network that measures in metres, with a part for training alone."""

    heads = frozenset({"change"})
    untraceable = "it counts"

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.train_part = nn.Conv2d(3, 2, 1), nn.Conv2d(3, 5, 1)
        self.gsd_m = 0.0

    def set_ground_sampling(self, gsd_m: float) -> None:
        self.gsd_m = gsd_m

    def drop_train_heads(self) -> MetricNet:
        del self.train_part
        return self

    def forward(self, t1_BCHW: torch.Tensor, t2_BCHW: torch.Tensor, *, heads: frozenset[str] | None = None) -> Outputs:
        return Outputs(self.encoder(t2_BCHW) - self.encoder(t1_BCHW) * (1 + self.gsd_m))


def test_a_network_without_the_members_has_their_defaults() -> None:
    plain = nn.Conv2d(3, 2, 1)
    contract.set_ground_sampling(plain, 0.3)
    contract.drop_train_heads(plain)
    assert contract.get_encoder(plain) is None and contract.get_untraceable_reason(plain) is None
    assert sum(one.numel() for one in plain.parameters()) == 8


def test_the_members_are_read() -> None:
    net = MetricNet()
    contract.set_ground_sampling(net, 0.3)
    contract.drop_train_heads(net)
    assert net.gsd_m == 0.3 and contract.get_encoder(net) is net.encoder
    assert contract.get_untraceable_reason(net) == "it counts" and not hasattr(net, "train_part")


def test_a_network_prepared_for_inference_hands_the_ground_sampling_on() -> None:
    ready = prepare_for_inference(MetricNet())
    dates = torch.rand(2, 1, 3, 5, 7)
    before = ready(*dates).change_BKHW
    contract.set_ground_sampling(ready, 0.5)
    after = ready(*dates).change_BKHW
    wanted = -0.5 * ready.network.encoder(dates[0])
    torch.testing.assert_close(after - before, wanted)
