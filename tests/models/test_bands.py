"""Every network reads more bands than three: its weights on RGB are repeated and scaled, and nothing else changes."""

from __future__ import annotations

import pytest
import torch
from tests.support.tiny_models import TINY
from torch import nn

from semicdvl.checkpoint import build_untrained_network
from semicdvl.errors import ConfigError
from semicdvl.models import MODELS, create_model
from semicdvl.types import Outputs

CHANGE = frozenset({"change"})


def build(name: str, *, bands: int, **settings: object) -> nn.Module:
    torch.manual_seed(0)
    return create_model(name, bands=bands, **{**TINY[name], **settings}).eval()


@pytest.mark.parametrize(
    ("name", "settings"),
    [*((name, {}) for name in MODELS), ("siam_light", {"backbone": "efficientnet_lite0", "pretrained": "none"})],
)
def test_rgb_shown_twice_is_the_same_to_a_network_of_six_bands(name, settings):
    dates = torch.randn(2, 1, 3, 64, 96, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        plain = build(name, bands=3, **settings)(*dates, heads=CHANGE).change_BKHW
        widened = build(name, bands=6, **settings)(*dates.repeat(1, 1, 2, 1, 1), heads=CHANGE).change_BKHW
    torch.testing.assert_close(widened, plain, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", MODELS)
def test_the_last_of_thirteen_bands_counts(name):
    network = build(name, bands=13).train()  # the features of an untrained network may all be 0 in eval mode
    t1_BCHW, t2_BCHW = torch.randn(2, 2, 13, 64, 64, generator=torch.Generator().manual_seed(1))
    other_BCHW = t2_BCHW.clone()
    other_BCHW[:, 12, :32] += 2
    logits = []
    for date_BCHW in (t2_BCHW, other_BCHW):
        torch.manual_seed(2)
        logits.append(network(t1_BCHW, date_BCHW, heads=CHANGE).change_BKHW)
    assert logits[0].shape == (2, 2, 64, 64) and not torch.equal(*logits)


def test_stored_network_is_built_with_its_bands():
    part = {"name": "siam_light", "bands": 5, **TINY["siam_light"]}
    assert count_inputs(build_untrained_network(part)) == 5
    with torch.device("meta"):
        assert count_inputs(build_untrained_network(part)) == 5


def count_inputs(network: nn.Module) -> int:
    """Return the input channels of the first convolution."""
    first = next(module for module in network.modules() if isinstance(module, nn.Conv2d))
    return first.weight.shape[1]


class BrightnessNetwork(nn.Module):
    """A network of the user's that knows red, green and blue by name."""

    heads, symmetric = CHANGE, True

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3))

    def forward(self, t1_BCHW, t2_BCHW, *, heads=None) -> Outputs:
        grey_BHW = torch.einsum("bchw,c->bhw", t1_BCHW - t2_BCHW, self.weight)
        return Outputs(change_BKHW=torch.stack([-grey_BHW, grey_BHW], dim=1))


def build_brightness_network() -> BrightnessNetwork:
    return BrightnessNetwork()


def build_own_width(*, bands: int = 3) -> nn.Module:
    return nn.Conv2d(bands, 2, 1)


def test_network_that_knows_rgb_alone_is_refused():
    with pytest.raises(ConfigError, match=r"reads red, green and blue alone, and data\.bands names 4 bands\. Leave"):
        create_model("tests.models.test_bands:build_brightness_network", bands=4)


def test_builder_with_an_option_of_that_name_is_handed_it():
    assert create_model("tests.models.test_bands:build_own_width", bands=7).in_channels == 7


@pytest.mark.parametrize("bands", [2, 513, "four"])
def test_impossible_number_is_refused(bands):
    with pytest.raises(ConfigError, match=f"bands = {bands} is out of range. Give 3 to 512"):
        create_model("fc_ef", width=4, bands=bands)
