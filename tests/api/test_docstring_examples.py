"""The example of every public function and class runs and prints what it says, on small synthetic data."""

import doctest
import inspect
from pathlib import Path

import pytest
from tests.api.conftest import ExampleData
from tests.support.paths import ROOT

import semicdvl

FUNCTIONS = [name for name in semicdvl.__all__ if name[0].islower() and name != "load"]
CLASSES = [
    name
    for name in semicdvl.__all__
    if inspect.isclass(getattr(semicdvl, name)) and (name == "SemicdvlError" or not name.endswith("Error"))
]
EXAMPLES = [*FUNCTIONS, *CLASSES]
RECIPES = ROOT / "recipes"
OPTIONS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def _parse_example(name: str) -> doctest.DocTest:
    """Return the example of a public function or class."""
    function = getattr(semicdvl, name)
    return doctest.DocTestParser().get_doctest(inspect.getdoc(function) or "", {}, name, None, None)


@pytest.mark.parametrize("name", EXAMPLES)
def test_every_public_name_has_an_example(name: str) -> None:
    assert _parse_example(name).examples, f"{name} has no example"


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_example_prints_what_it_says(
    name: str, example_data: ExampleData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    _keep_registries(monkeypatch)
    example = _parse_example(name)
    names = ("before", "after", "before_tif", "after_tif", "changes_gpkg", "patches", "run", "table")
    example.globs = {key: getattr(example_data, key) for key in names}
    example.globs |= {"cd": semicdvl, name: getattr(semicdvl, name)}
    example.globs |= {"out": tmp_path / "out", "store": tmp_path / "store"}
    example.globs |= {"recipe_toml": RECIPES / "levir-05-supervised.toml", "suite_toml": RECIPES / "suites/small.toml"}
    report: list[str] = []
    result = doctest.DocTestRunner(optionflags=OPTIONS).run(example, out=report.append)
    assert result.failed == 0, "".join(report)


def _keep_registries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take out again what an example registers."""
    from semicdvl.catalog import REGISTRIES

    for table in REGISTRIES.values():
        for name in ("my_network", "my_method", "my_vlm", "my_detector", "my_dataset"):
            monkeypatch.setitem(table, name, "")
            monkeypatch.delitem(table, name)
