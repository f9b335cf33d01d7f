"""Every shipped recipe is valid, names parts that exist, and its method and network fit together."""

from functools import cache
from pathlib import Path

import pytest
import torch
from torch import nn

from semicdvl.checkpoint import build_network
from semicdvl.config import load_recipe
from semicdvl.data import DATASETS
from semicdvl.methods.semicd_vl import SemiCDVL
from semicdvl.suite.config import load_suite
from semicdvl.tables import lookup
from semicdvl.train.run import build_method, fits_together, length_of
from semicdvl.types import PairFiles, Split

ROOT = Path(__file__).parents[1] / "recipes"
RECIPES = sorted(path for path in ROOT.rglob("*.toml") if path.relative_to(ROOT).parts[0] not in ("base", "suites"))
SUITES = sorted((ROOT / "suites").glob("*.toml"))


def title(path: Path) -> str:
    """A recipe's name: its path, with dashes."""
    return "-".join(path.relative_to(ROOT).with_suffix("").parts)


@cache
def network(options: tuple[tuple[str, object], ...]) -> nn.Module:
    with torch.device("meta"):
        return build_network(dict(options) | {"pretrained": "none"})


@pytest.mark.parametrize("path", RECIPES, ids=title)
def test_a_recipe_builds(path: Path) -> None:
    recipe = load_recipe(path)
    assert recipe.name == title(path)
    lookup("data set", recipe.data.dataset, DATASETS)
    method = build_method(recipe)
    assert method.uses_vlm == (recipe.pseudo is not None)
    fits_together(recipe, method, network(tuple(sorted(recipe.model.model_dump().items()))))


def test_every_published_row_has_its_recipe() -> None:
    names = {title(path) for path in RECIPES}
    assert {"small-supervised", "small-fixmatch", "small-semicd_vl"} <= names
    methods = ("supervised", "fixmatch", "semicd_vl")
    assert {f"{data}-{n:02d}-{m}" for data in ("levir", "whu") for n in (5, 10, 20, 40) for m in methods} <= names
    assert {f"table4-{n:02d}-{m}" for n in (5, 10) for m in methods[1:]} <= names
    assert sum(name.startswith("table7-") for name in names) == 7


def pairs(count: int, name: str) -> tuple[PairFiles, ...]:
    return tuple(PairFiles(f"{name}{at}", Path("a"), Path("b")) for at in range(count))


@pytest.mark.parametrize(
    ("name", "steps"),
    [
        ("levir-05-semicd_vl", 67_600),
        ("whu-05-fixmatch", 56_480),
        ("levir-40-semicd_vl", 42_720),
        ("levir-05-supervised", 1_760),
    ],
)
def test_lengths_are_80_epochs_of_the_published_lists(name: str, steps: int) -> None:
    recipe = load_recipe(ROOT / f"{name}.toml")
    images = 7120 if name.startswith("levir") else 5947
    labelled = images * int(name.split("-")[1]) // 100  # rounded down, as in the lists
    division = Split(pairs(labelled, "x"), pairs(images - labelled, "u"), (), ())
    length = length_of(recipe.train, division, uses_unlabelled=build_method(recipe).uses_unlabelled)
    assert length.steps == steps
    assert length.eval_every == length.epoch


def test_ablations_change_one_thing_after_another() -> None:
    methods = [build_method(load_recipe(path)) for path in sorted((ROOT / "table7").glob("*.toml"))]
    assert not methods[0].uses_vlm
    assert methods[-1] == SemiCDVL()
    switches = [
        (method.dual_head, method.decoupled, method.lambda_c > 0)
        for method in methods[1:]
        if isinstance(method, SemiCDVL)
    ]
    off, on = False, True
    assert switches == [(off, off, off), (off, off, off), (on, off, off), (on, off, on), (on, on, off), (on, on, on)]
    stores = [load_recipe(ROOT / "table7" / f"{stem}.toml").pseudo for stem in ("2-vlm-pixel", "3-vlm-mixed")]
    assert stores[0] != stores[1], "pixel-level and mixed labels are two stores"


@pytest.mark.parametrize("path", SUITES, ids=lambda path: path.stem)
def test_a_suite_names_recipes_that_are_there(path: Path) -> None:
    suite = load_suite(path)
    assert suite.name == path.stem
    for method in suite.methods:
        assert load_recipe(method.recipe).method.name
