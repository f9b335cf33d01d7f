"""Every shipped recipe is valid, names parts that exist, and its method and network fit together."""

from pathlib import Path

import pytest

from semicdvl.checkpoint import build_network
from semicdvl.config import load_recipe
from semicdvl.data import DATASETS
from semicdvl.tables import lookup
from semicdvl.train.run import build_method, fits_together

RECIPES = sorted((Path(__file__).parents[1] / "recipes").glob("*.toml"))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_builds(path: Path) -> None:
    recipe = load_recipe(path)
    assert recipe.name == path.stem
    lookup("data set", recipe.data.dataset, DATASETS)
    method = build_method(recipe)
    assert method.uses_vlm == (recipe.pseudo is not None)
    fits_together(recipe, method, build_network(recipe.model.model_dump() | {"pretrained": "none"}))


def test_there_are_recipes() -> None:
    assert {"small-supervised", "small-fixmatch", "small-semicd_vl"} <= {path.stem for path in RECIPES}
