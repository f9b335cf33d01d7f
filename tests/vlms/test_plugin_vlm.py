"""A VLM from outside the package: one module with its card, and one registry line or its name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from semicdvl.catalog import describe_details, describe_parts
from semicdvl.errors import ConfigError
from semicdvl.types import VLM
from semicdvl.vlms import VLMS, create_vlm, list_vlms
from semicdvl.vlms.model_cards import ModelCard, read_model_card

MODULE = '''"""Brightness: a VLM that needs no weights."""

from dataclasses import dataclass

import numpy as np

from semicdvl.types import Segments
from semicdvl.vlms.model_cards import ModelCard

CARD = ModelCard(licence="CC0-1.0", size="0", gamma=0.25, measured_on="nothing")


@dataclass(frozen=True)
class Brightness:
    power: float
    gamma: float = CARD.gamma

    @property
    def identity(self):
        return f"brightness-{self.power}"

    def segment(self, image_HWC, prompts, *, gsd_m=None):
        score_HW = (image_HWC.mean(axis=2, dtype=np.float32) / 255) ** self.power
        return Segments(np.stack([score_HW] * len(prompts)), tuple(prompts))


def build_brightness(*, power: float = 1.0):
    return Brightness(power)


def build_nothing():
    return object()
'''
IMAGE = np.full((5, 7, 3), 51, np.uint8)


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the name of a module that holds a VLM."""
    (tmp_path / "plugin_vlm.py").write_text(MODULE, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    return "plugin_vlm"


def test_a_vlm_is_built_by_the_name_of_its_module(plugin: str) -> None:
    vlm = create_vlm(f"{plugin}:build_brightness", power="2")  # as the command line gives it
    assert isinstance(vlm, VLM) and vlm.identity == "brightness-2.0" and vlm.gamma == 0.25
    scores_CHW = vlm.segment(IMAGE, ["building", "road"]).scores_CHW
    np.testing.assert_allclose(scores_CHW, np.full((2, 5, 7), 0.04), atol=1e-6)
    assert read_model_card(f"{plugin}:build_brightness").licence == "CC0-1.0"
    with pytest.raises(ConfigError, match=r"has no option 'powr'\. Did you mean 'power'"):
        create_vlm(f"{plugin}:build_brightness", powr=2.0)
    with pytest.raises(ConfigError, match="must have `identity`, `gamma` and `segment`"):
        create_vlm(f"{plugin}:build_nothing")


def test_one_registry_line_lists_it(plugin: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(VLMS, "brightness", f"{plugin}:build_brightness")
    assert "brightness" in list_vlms()
    assert dict(describe_parts("vlms"))["brightness"] == "Brightness: a VLM that needs no weights."
    assert describe_details("vlms", "brightness", params=False) == ("CC0-1.0", "0", "nothing")
    assert create_vlm("brightness").segment(IMAGE, ["tree"]).scores_CHW.max() == pytest.approx(0.2)


def test_a_module_without_a_card_has_the_defaults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without = MODULE.replace("CARD = ", "OTHER = ").replace("CARD.gamma", "0.5")
    (tmp_path / "plugin_vlm_without_card.py").write_text(without, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    card = read_model_card("plugin_vlm_without_card:build_brightness")
    assert card == ModelCard(description="Brightness: a VLM that needs no weights.")


@pytest.mark.parametrize("name", VLMS)
def test_every_vlm_declares_its_card(name: str) -> None:
    card = read_model_card(name)
    assert card.description and card.licence != ModelCard().licence and 0 < card.gamma < 1
