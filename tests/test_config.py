"""Recipes are checked at the door, and errors name the nearest known key."""

from pathlib import Path

import pytest

from semicdvl.config import load_recipe
from semicdvl.errors import ConfigError, InputError

RECIPE = """
name = "small"
[data]
root = "data"
labelled = 0.05
[method]
name = "semicd_vl"
tau = 0.9
[train]
steps = 10
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "recipe.toml"
    path.write_text(RECIPE)
    return path


def test_a_recipe_is_read_with_defaults_and_overrides(recipe: Path) -> None:
    read = load_recipe(recipe, overrides=("steps=20", "method.tau=0.8", "data.root=/elsewhere", "tau=0.7"))
    assert (read.train.steps, read.train.lr, read.data.root) == (20, 0.02, Path("/elsewhere"))
    assert read.method.options == {"tau": 0.7}
    assert read.model.name == "siam_light"


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("train.stesp=1", r"'train\.stesp'.*Did you mean 'steps'"),
        ("stesp=1", r"Did you mean 'train\.steps'"),
        ("dat.root=1", r"Did you mean 'data'"),
        ("train.steps=0", "greater than or equal to 1"),
        ("train.steps=many", "valid integer"),
        ("data.labelled=1.5", "less than or equal to 1"),
        ("nothing", "must be key=value"),
    ],
)
def test_what_does_not_fit_is_refused_with_the_remedy(recipe: Path, override: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        load_recipe(recipe, overrides=(override,))


def test_a_missing_key_is_named(tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_text("[data]\nroot='x'\n")
    with pytest.raises(ConfigError, match="'method' is missing"):
        load_recipe(tmp_path / "r.toml")


def test_no_file_and_no_toml_are_input_errors(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.toml"):
        load_recipe(tmp_path / "none.toml")
    (tmp_path / "bad.toml").write_text("a = = b")
    with pytest.raises(InputError, match="not valid TOML"):
        load_recipe(tmp_path / "bad.toml")
