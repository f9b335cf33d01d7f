"""The reference page of the Python API has every public name, once, under its own heading."""

from __future__ import annotations

import inspect
import re
from collections import Counter
from dataclasses import fields, is_dataclass

import pytest
from tests.support.paths import ROOT

import semicdvl

PAGE = (ROOT / "docs" / "reference" / "api.md").read_text(encoding="utf-8")
IN_TEXT = {"load": "`cd.load`", "__version__": "`cd.__version__`"}
"""Names that are explained in a sentence."""
DIRECTIVES = re.findall(r"^::: semicdvl\.([\w.]+)$", PAGE, flags=re.MULTILINE)


@pytest.mark.parametrize("name", semicdvl.__all__)
def test_a_public_name_is_documented(name: str) -> None:
    if name in IN_TEXT:
        assert IN_TEXT[name] in PAGE
    else:
        assert DIRECTIVES.count(name) == 1


def test_nothing_is_documented_twice_or_is_missing_from_the_package() -> None:
    assert [name for name, count in Counter(DIRECTIVES).items() if count > 1] == []
    rooms = [name for name in DIRECTIVES if name.startswith(("ceg.", "types."))]
    assert set(DIRECTIVES) - set(rooms) <= set(semicdvl.__all__)


def test_links_of_the_table_lead_to_headings_of_the_page() -> None:
    linked = re.findall(r"\]\[semicdvl\.([\w.]+)\]", PAGE)
    assert linked and set(linked) <= set(DIRECTIVES)


FUNCTIONS = [name for name in semicdvl.__all__ if inspect.isfunction(getattr(semicdvl, name))]
SETTINGS_AND_RESULTS = [name for name in semicdvl.__all__ if is_dataclass(getattr(semicdvl, name))]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_public_function_explains_every_argument_and_has_an_example(name: str) -> None:
    text = inspect.getdoc(getattr(semicdvl, name)) or ""
    arguments = inspect.signature(getattr(semicdvl, name)).parameters
    assert [one for one in arguments if not re.search(rf"^    {one}: ", text, flags=re.MULTILINE)] == []
    assert ">>> import semicdvl as cd" in text


@pytest.mark.parametrize("name", SETTINGS_AND_RESULTS)
def test_a_public_dataclass_explains_every_field_and_has_an_example(name: str) -> None:
    """Those that it shares with others are explained once, by the public class that it extends and names."""
    kind = getattr(semicdvl, name)
    text = inspect.getdoc(kind) or ""
    bases = [base for base in kind.__bases__ if base is getattr(semicdvl, base.__name__, None)]
    assert all(f"`{base.__name__}`" in text for base in bases)
    texts = [text, *(inspect.getdoc(base) or "" for base in bases)]
    found = [line for one in texts for line in re.findall(r"^    ([\w, ]+): ", one, flags=re.MULTILINE)]
    listed = {word for line in found for word in line.split(", ")}
    own = [field.name for field in fields(kind) if not field.name.startswith("_")]
    assert [one for one in own if one not in listed] == []
    assert ">>> import semicdvl as cd" in text
