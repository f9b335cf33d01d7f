"""Names become code in one place: short names, `module:builder`, names on disk of builders that moved."""

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
    with pytest.raises(ConfigError, match=r"has no option 'valeu'\. Did you mean 'value'"):
        build_part(kind, plugin, REGISTRIES[kind], {"valeu": 1})
    with pytest.raises(ConfigError, match="value = 'three'"):
        build_part(kind, plugin, REGISTRIES[kind], {"value": "three"})
    with pytest.raises(ConfigError, match="is not callable"):
        resolve_builder(kind, plugin.replace("double", "LIMIT"), REGISTRIES[kind])


def test_names_in_files_on_disk_lead_to_where_the_builder_is_now() -> None:
    assert "semicdvl.adapt.network:build" in MOVED_BUILDERS, "stands in run.json of every adapted run"
    stored = Origin(Path("run.json"))
    for old, new in MOVED_BUILDERS.items():
        assert resolve_builder("model", old, MODELS, origin=stored) is resolve_builder("model", new, MODELS)
