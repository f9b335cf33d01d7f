"""Names become code in one place: short names, `module:builder`, names on disk of builders that moved."""

import sys
from pathlib import Path

import pytest

from semicdvl.data import DATASETS
from semicdvl.errors import ConfigError
from semicdvl.methods import METHODS
from semicdvl.models import MODELS
from semicdvl.registry import MOVED_BUILDERS, USER, Origin, build_part, list_options, resolve_builder
from semicdvl.unsupervised import UNSUPERVISED
from semicdvl.vlms import VLMS

REGISTRIES = {"model": MODELS, "method": METHODS, "VLM": VLMS, "data set": DATASETS, "detector": UNSUPERVISED}


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module of the user's own, importable for the length of a test."""
    text = "LIMIT = 3\n\n\ndef double(*, value: int = 1) -> int:\n    return 2 * value\n"
    (tmp_path / "a_users_module.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    return "a_users_module:double"


@pytest.mark.parametrize("origin", [USER, Origin(Path("run.json"))])
@pytest.mark.parametrize("kind", REGISTRIES)
def test_every_registered_name_resolves(kind: str, origin: Origin) -> None:
    for name in REGISTRIES[kind]:
        assert callable(resolve_builder(kind, name, REGISTRIES[kind], origin=origin))


@pytest.mark.parametrize("kind", REGISTRIES)
def test_every_registry_takes_a_module_and_a_builder(kind: str, plugin: str) -> None:
    assert build_part(kind, plugin, REGISTRIES[kind], {"value": "21"}) == 42
    assert list_options(kind, plugin, REGISTRIES[kind]) == ("value",)


@pytest.mark.parametrize("kind", REGISTRIES)
def test_a_wrong_name_is_answered_with_what_to_write(kind: str, plugin: str) -> None:
    known = next(iter(REGISTRIES[kind]))
    with pytest.raises(ConfigError, match=rf"unknown {kind} '{known}x'\. Did you mean '{known}'"):
        resolve_builder(kind, f"{known}x", REGISTRIES[kind])
    with pytest.raises(ConfigError, match=r"cannot be imported .*; write it as package\.module:builder"):
        resolve_builder(kind, "no_such_module:build", REGISTRIES[kind])
    with pytest.raises(ConfigError, match=rf"unknown {kind} '\.users:build'"):
        resolve_builder(kind, ".users:build", REGISTRIES[kind])
    with pytest.raises(ConfigError, match=r"does not tell its options .*Name a function of Python that calls it"):
        build_part(kind, "math:hypot", REGISTRIES[kind], {"x": 1})
    with pytest.raises(ConfigError, match=r"has no option 'valeu'\. Did you mean 'value'"):
        build_part(kind, plugin, REGISTRIES[kind], {"valeu": 1})
    with pytest.raises(ConfigError, match="value = 'three'"):
        build_part(kind, plugin, REGISTRIES[kind], {"value": "three"})
    with pytest.raises(ConfigError, match="is not callable"):
        resolve_builder(kind, plugin.replace("double", "LIMIT"), REGISTRIES[kind])


@pytest.fixture
def folder_of_a_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder holds `mine_alone.py`, and is not on Python's path."""
    (tmp_path / "mine_alone.py").write_text("def build(*, value: int = 1) -> int:\n    return 2 * value\n")
    (tmp_path / "json.py").write_text("raise AssertionError('a module of the folder hides one of Python')\n")
    monkeypatch.setattr(sys, "path", [one for one in sys.path if one not in ("", str(tmp_path))])
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "mine_alone", raising=False)
    return tmp_path


@pytest.mark.parametrize("kind", REGISTRIES)
def test_a_module_of_the_current_folder_is_found_for_the_user(kind: str, folder_of_a_module: Path) -> None:
    before = list(sys.path)
    assert build_part(kind, "mine_alone:build", REGISTRIES[kind], {"value": 21}) == 42
    assert sys.path == before
    assert resolve_builder(kind, "json:loads", REGISTRIES[kind])("2") == 2, "what is installed comes first"


def test_a_module_of_the_current_folder_is_not_found_for_a_stored_file(folder_of_a_module: Path) -> None:
    stored = Origin(folder_of_a_module / "run.json", trust=("mine_alone",))
    with pytest.raises(ConfigError, match=r"No module named 'mine_alone'.*add the module's folder to .* PYTHONPATH"):
        resolve_builder("model", "mine_alone:build", MODELS, origin=stored)
    assert "mine_alone" not in sys.modules


def test_a_missing_module_is_told_from_what_a_module_misses(folder_of_a_module: Path) -> None:
    (folder_of_a_module / "needs_more.py").write_text("import no_such_library\n")
    with pytest.raises(ConfigError, match=r"the module needs 'no_such_library'\. Install it"):
        resolve_builder("VLM", "needs_more:build", VLMS)
    with pytest.raises(ConfigError, match=r"Start in its folder, or add the module's folder to .* PYTHONPATH"):
        resolve_builder("VLM", "no_such_module:build", VLMS)
    with pytest.raises(ConfigError, match=r"write it as package\.module:builder"):
        resolve_builder("VLM", ":build", VLMS)
    assert str(folder_of_a_module) not in sys.path


def test_names_in_files_on_disk_lead_to_where_the_builder_is_now() -> None:
    assert "semicdvl.adapt.network:build" in MOVED_BUILDERS, "stands in run.json of every adapted run"
    stored = Origin(Path("run.json"))
    for old, new in MOVED_BUILDERS.items():
        assert resolve_builder("model", old, MODELS, origin=stored) is resolve_builder("model", new, MODELS)
