"""A training method from outside the package: one module, and one registry line or its name."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.support.method_batches import AllHeads, random_batches

from semicdvl.catalog import describe_parts
from semicdvl.errors import ConfigError
from semicdvl.methods import METHODS, create_method, list_methods
from semicdvl.types import Method, TrainingProgress

MODULE = '''"""Total variation: a supervised method that prefers smooth maps."""

from dataclasses import dataclass

from semicdvl.methods.common.terms import SupervisedTerm


@dataclass(frozen=True)
class TotalVariation(SupervisedTerm):
    smooth_weight: float = 0.1

    def step(self, model, teacher, labelled, unlabelled, progress):
        logits = model(labelled.t1_BCHW, labelled.t2_BCHW, heads=self.heads).change_BKHW
        smooth = (logits[..., 1:] - logits[..., :-1]).abs().mean()
        return {
            "supervised": self.supervised_term(logits, labelled.label_BHW),
            "smooth": self.smooth_weight * smooth,
        }


class NoMethod:
    pass
'''


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the name of a module that holds a method."""
    (tmp_path / "plugin_method.py").write_text(MODULE, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    return "plugin_method"


def test_a_method_is_built_by_the_name_of_its_module(plugin: str) -> None:
    method = create_method(f"{plugin}:TotalVariation", smooth_weight="0.5", dice_weight=1)
    assert isinstance(method, Method) and method.smooth_weight == 0.5 and method.dice_weight == 1.0
    assert method.heads == {"change"} and method.strong_views == 1 and not method.uses_unlabelled
    labelled, _ = random_batches(size_px=(9, 13))
    net = AllHeads()
    terms = method.step(net, net, labelled, None, TrainingProgress(0, 1))
    plain = create_method(f"{plugin}:TotalVariation", dice_weight=1).step(
        net, net, labelled, None, TrainingProgress(0, 1)
    )
    assert terms["smooth"].item() == pytest.approx(5 * plain["smooth"].item())
    assert terms["supervised"].item() == pytest.approx(plain["supervised"].item())
    with pytest.raises(ConfigError, match="smooth_weight must be a finite number of 0 or more, got -1"):
        create_method(f"{plugin}:TotalVariation", smooth_weight=-1)
    with pytest.raises(ConfigError, match=r"has no option 'smoth_weight'\. Did you mean 'smooth_weight'"):
        create_method(f"{plugin}:TotalVariation", smoth_weight=1)
    with pytest.raises(ConfigError, match=r"Derive its class from semicdvl\.types\.Method"):
        create_method(f"{plugin}:NoMethod")


def test_one_registry_line_lists_it(plugin: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(METHODS, "total_variation", f"{plugin}:TotalVariation")
    assert "total_variation" in list_methods()
    assert dict(describe_parts("methods"))["total_variation"].startswith("Total variation: a supervised method")
    assert create_method("total_variation").smooth_weight == 0.1
