"""A network with a special head from outside the package: one module, and one registry line or its name."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from semicdvl.catalog import count_parameters, describe_parts
from semicdvl.errors import ConfigError
from semicdvl.models import MODELS, create_model, list_models
from semicdvl.models.common.heads import models_with_heads, read_heads, resolve_heads

MODULE = '''"""Two convolutions: a network whose distance is a head."""

from torch import nn

from semicdvl.models.common.heads import declare_heads, resolve_heads
from semicdvl.types import Outputs


class TwoConvolutions(nn.Module):
    symmetric = True
    heads = frozenset({"change", "distance"})

    def __init__(self, width):
        super().__init__()
        self.first, self.classify = nn.Conv2d(3, width, 3, padding=1), nn.Conv2d(width, 2, 1)

    def forward(self, t1_BCHW, t2_BCHW, *, heads=None):
        heads = resolve_heads(heads, has=self.heads)
        difference = (self.first(t1_BCHW) - self.first(t2_BCHW)).abs()
        distance = difference.norm(dim=1) if "distance" in heads else None
        return Outputs(change_BKHW=self.classify(difference), distance_BHW=distance)


@declare_heads("distance")
def build_two_convolutions(*, width: int = 4):
    return TwoConvolutions(width)
'''


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the name of a builder in a module outside the package."""
    (tmp_path / "plugin_model.py").write_text(MODULE, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    return "plugin_model:build_two_convolutions"


def test_a_network_is_built_by_the_name_of_its_module(plugin: str) -> None:
    net = create_model(plugin, width="6")
    out = net(torch.zeros(1, 3, 9, 11), torch.ones(1, 3, 9, 11))
    assert out.change_BKHW.shape == (1, 2, 9, 11) and out.distance_BHW.shape == (1, 9, 11)
    assert net.classify.weight.shape == (2, 6, 1, 1) and read_heads(net) == {"change", "distance"}
    with pytest.raises(ConfigError, match=r"has no option 'widht'\. Did you mean 'width'"):
        create_model(plugin, widht=6)


def test_one_registry_line_lists_it_with_its_heads(plugin: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before = models_with_heads(frozenset({"distance"}))
    monkeypatch.setitem(MODELS, "two_convolutions", plugin)
    assert "two_convolutions" in list_models()
    assert dict(describe_parts("models"))["two_convolutions"].startswith("Two convolutions")
    assert count_parameters("two_convolutions") == ("122", "122")  # 3 * 4 * 9 + 4, and 4 * 2 + 2
    assert models_with_heads(frozenset({"distance"})) == (*before, "two_convolutions")
    with pytest.raises(ConfigError, match=r"by default: .*two_convolutions"):
        resolve_heads(frozenset({"change", "distance"}), has=frozenset({"change"}))


def test_a_network_that_declares_nothing_has_change_alone() -> None:
    assert read_heads(torch.nn.Conv2d(3, 2, 1)) == {"change"}
