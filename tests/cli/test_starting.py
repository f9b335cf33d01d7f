"""A project from nothing: shipped recipes by name, a commented recipe, the keys of recipes with their meanings."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import Any

import pytest
from tests.support.command import command
from tests.support.paths import ROOT

from semicdvl.catalog import list_recipe_keys
from semicdvl.config import Recipe, find_shipped, list_shipped_recipes, load_recipe
from semicdvl.data.prepare.results import _choose_small_recipe
from semicdvl.models.encoders.timm import build_backbone

AERIAL = ("small-supervised-aerial", "small-fixmatch-aerial", "small-semicd_vl-aerial")


def test_init_writes_a_recipe_that_loads_and_the_folders(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, printed, _ = command(capsys, "init", tmp_path / "mine")
    assert code == 0 and "semicdvl train recipe.toml -o runs/first" in printed
    assert sorted(path.name for path in (tmp_path / "mine" / "data").iterdir()) == ["A", "B", "label"]
    recipe = load_recipe(tmp_path / "mine" / "recipe.toml")
    shipped = load_recipe("small-supervised-aerial")
    assert (recipe.name, recipe.data.root, recipe.data.labelled) == ("first", Path("data"), 1.0)
    assert (recipe.model, recipe.method, recipe.train) == (shipped.model, shipped.method, shipped.train)
    text = (tmp_path / "mine" / "recipe.toml").read_text()
    assert text.count("#") > 8 and "semicdvl list recipe-keys" in text


def test_init_keeps_what_is_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "data" / "A").mkdir(parents=True)
    (tmp_path / "data" / "A" / "one.png").write_text("mine")
    assert command(capsys, "init", tmp_path)[0] == 0
    (tmp_path / "recipe.toml").write_text("# changed\n")
    code, _, complaint = command(capsys, "init", tmp_path)
    assert code == 2 and "is there already" in complaint
    assert (tmp_path / "recipe.toml").read_text() == "# changed\n"
    assert (tmp_path / "data" / "A" / "one.png").read_text() == "mine"


@pytest.mark.parametrize("name", ["small-semicd_vl-aerial", "levir-05-fixmatch"])
def test_init_takes_any_shipped_recipe(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, printed, _ = command(capsys, "init", tmp_path, "--recipe", name)
    mine, shipped = load_recipe(tmp_path / "recipe.toml"), load_recipe(name)
    assert code == 0 and mine.method == shipped.method and mine.train == shipped.train
    assert ("semicdvl pseudo data" in printed) == (shipped.pseudo is not None)


@pytest.mark.parametrize(
    "given", ["small-supervised", "small-supervised.toml", "recipes/small-supervised.toml", "recipes/small-supervised"]
)
def test_a_shipped_recipe_is_found_by_its_name_from_anywhere(
    given: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert load_recipe(given).name == "small-supervised"
    Path("small-supervised.toml").write_text('name = "own"\n[data]\nroot = "."\n[method]\nname = "supervised"\n')
    own = "own" if given == "small-supervised.toml" else "small-supervised"
    assert load_recipe(given).name == own, "a file that exists comes first"


def test_a_missing_recipe_is_answered_with_the_nearest_name(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, _, complaint = command(capsys, "train", "recipes/small-superviced.toml")
    assert code == 2 and "semicdvl list recipes" in complaint and "Did you mean 'small-supervised'?" in complaint


def test_every_shipped_recipe_is_listed_with_what_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    _, printed, _ = command(capsys, "list", "recipes")
    on_disk = {path for path in (ROOT / "recipes").rglob("*.toml") if path.parent.name != "base"}
    assert set(list_shipped_recipes().values()) == on_disk
    for name in (*AERIAL, "suites/small", "table3/levir-bit"):
        assert re.search(rf"^ *{name} +\S", printed, flags=re.MULTILINE), name


def test_every_key_of_a_recipe_has_a_meaning_and_its_default(capsys: pytest.CaptureFixture[str]) -> None:
    keys = {one.dotted: one for one in list_recipe_keys()}
    assert [name for name, one in keys.items() if not one.meaning] == []
    sections = {"data", "pseudo", "train"}
    for section in sections:
        annotation: Any = Recipe.model_fields[section].annotation
        kind = next(one for one in (annotation, *getattr(annotation, "__args__", ())) if hasattr(one, "model_fields"))
        assert {f"{section}.{key}" for key in kind.model_fields} <= set(keys)
    assert (keys["train.lr"].default, keys["data.root"].default, keys["train.clip_norm"].default) == (
        "0.02", "required", "",
    )  # fmt: skip
    _, printed, _ = command(capsys, "list", "recipe-keys")
    row = next(line for line in printed.splitlines() if line.strip().startswith("train.lr "))
    assert "learning rate of the encoder" in row and row.rstrip().endswith("0.02")


@pytest.mark.parametrize("name", AERIAL)
def test_recipes_from_the_shipped_encoder_need_no_extra(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda one: None if "efficientnet" in one else found(one))
    backbone = build_backbone(load_recipe(name).model.options["backbone"])
    assert backbone.strides == (4, 8, 16, 16)
    assert float(backbone.state_dict()["net.conv_stem.weight"].abs().sum()) > 1


def test_commands_suggest_the_recipe_that_needs_no_extra_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_shipped(Path(_choose_small_recipe("semicd_vl"))).is_file()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert _choose_small_recipe("semicd_vl") == "recipes/small-semicd_vl-aerial.toml"
    assert find_shipped(Path(_choose_small_recipe("supervised"))).is_file()
