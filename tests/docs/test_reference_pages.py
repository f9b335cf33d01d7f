"""The reference of recipes and suites names every section, made from the classes that check them."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from semicdvl.benchmarking.config import Suite

HOOK = Path(__file__).parents[2] / "docs" / "hooks" / "reference_pages.py"


def test_all_sections_of_recipes_and_suites_are_described() -> None:
    pytest.importorskip("mkdocs", reason="the packages of the documentation are not installed")
    spec = importlib.util.spec_from_file_location("reference_pages", HOOK)
    assert spec is not None and spec.loader is not None
    hook = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hook)
    page = hook.recipe_reference()
    for heading in ("## Recipe", "### `[train]`", "## Suite", "### `[detectors.ceg]`", "### `[data.ceg]`"):
        assert f"\n{heading}\n" in page
    assert all(f"| `{key}` |" in page for key in Suite.model_fields if key not in ("data", "methods", "models"))
