"""Recipes are checked at the door, and errors name the nearest known key."""

from pathlib import Path

import pytest

from semicdvl.config import DataConfig, load_recipe, parse_label_values
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
        ("data.labelled=1.5", "no fraction.*0.05 for 5 %"),
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


# ------------------------------------------------------------------------------------------------ label values
@pytest.mark.parametrize(
    "given",
    ["0-127=unchanged,128-254=changed,255=unknown", {"0-127": "unchanged", "128-254": "changed", "255": "unknown"}],
)
def test_label_values_of_a_recipe_may_be_words_and_ranges(given):
    values = DataConfig(root="data", label_values=given).label_values
    assert values is not None and len(values) == 256
    assert (values[0], values[127], values[128], values[254], values[255]) == (0, 0, 1, 1, 255)
    assert DataConfig(root="data", label_values={"0": 0, "7": 1}).label_values == {0: 0, 7: 1}


def test_many_unknown_keys_are_told_in_one_short_line(tmp_path):
    (tmp_path / "many.toml").write_text("".join(f"key{at} = 1\n" for at in range(20_000)))
    with pytest.raises(ConfigError, match=r"unknown key 'key0'.*unknown key 'key17'.*; and 19,982 more\.$") as refused:
        load_recipe(tmp_path / "many.toml")
    assert "\n" not in str(refused.value) and "key20" not in str(refused.value)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("5-3=changed", "no range"),
        ("0-99999999=changed", "no range"),
        pytest.param("9" * 5_000 + "=changed", "no range", id="5000 digits"),
        pytest.param("0-" + "9" * 5_000 + "=changed", "no range", id="a range to 5000 digits"),
        ("0-9=changed,5=unchanged", "two meanings"),
        ("1=perhaps", "does not say"),
        ("x=changed", "does not say"),
    ],
)
def test_label_values_that_cannot_be_meant_are_refused(text, told):
    with pytest.raises(ConfigError, match=told):
        parse_label_values(text)
    with pytest.raises(ValueError, match=told):
        DataConfig(root="data", label_values=text)
