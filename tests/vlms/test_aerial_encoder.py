"""The encoder of the embedded VLM is timm's EfficientNet-Lite2, without importing timm."""

from __future__ import annotations

import subprocess
import sys

import pytest
import timm
import torch
from torch import nn

from semicdvl.vlms.aerial.encoder import LiteEncoder
from semicdvl.vlms.aerial.inference_net import _fold_batch_norms


@pytest.fixture(scope="module")
def pair() -> tuple[nn.Module, LiteEncoder]:
    """Return timm's encoder with random statistics, and ours with its weights."""
    torch.manual_seed(0)
    theirs: nn.Module = timm.create_model(LiteEncoder.name, features_only=True, pretrained=False)
    for module in theirs.modules():
        if isinstance(module, nn.BatchNorm2d):
            for statistic in (module.running_mean, module.running_var, module.weight.data, module.bias.data):
                assert statistic is not None
                statistic.copy_(torch.rand_like(statistic) + 0.5)
    own = LiteEncoder()
    own.load_state_dict(theirs.state_dict())
    return theirs, own


@pytest.mark.parametrize("size", [(64, 96), (65, 90)])
@pytest.mark.parametrize("training", [False, True])
def test_feature_maps_are_those_of_timm_to_the_bit(
    pair: tuple[nn.Module, LiteEncoder], size: tuple[int, int], training: bool
) -> None:
    theirs, own = (net.train(training) for net in pair)
    image = torch.randn(2, 3, *size)
    with torch.no_grad():
        expected, found = theirs(image), own(image)
    assert [maps.shape[1] for maps in found] == list(LiteEncoder.channels)
    assert all(torch.equal(one, other) for one, other in zip(expected, found, strict=True))


def test_batch_norms_are_folded(pair: tuple[nn.Module, LiteEncoder]) -> None:
    own = LiteEncoder().eval()
    own.load_state_dict(pair[0].state_dict())
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        expected = own(image)
        _fold_batch_norms(own)
        found = own(image)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in own.modules())
    for one, other in zip(expected, found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4 * float(one.abs().max()))


def test_the_embedded_vlm_needs_no_timm_torchvision_or_compiler() -> None:
    heavy = "[name for name in ('timm', 'torchvision', 'torch._dynamo') if name in sys.modules]"
    code = (
        "import sys; from semicdvl.vlms.aerial.build import build_aerial; build_aerial(); "
        f"sys.exit(str({heavy}) if {heavy} else 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
