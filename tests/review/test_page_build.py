"""The page in the package is the one that `web/` builds; compared by hashes, without Node."""

from __future__ import annotations

import importlib.util
import json
import re

import pytest
from tests.support.paths import ROOT

PAGE = ROOT / "src" / "semicdvl" / "review" / "page"


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location("build_page", ROOT / "tools" / "build_page.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_built_page_fits_its_sources(tool) -> None:
    assert tool.find_differences() == [], "run `make web`"


def test_a_changed_source_is_noticed(tool, tmp_path, monkeypatch) -> None:
    record = json.loads((PAGE / "build.json").read_text())
    record["sources"]["src/main.ts"] = "0" * 64
    record["sources"]["src/gone.ts"] = "0" * 64
    (tmp_path / "build.json").write_text(json.dumps(record))
    monkeypatch.setattr(tool, "RECORD", tmp_path / "build.json")
    monkeypatch.setattr(tool, "hash_page", lambda: record["page"])
    assert tool.find_differences() == ["sources/src/gone.ts", "sources/src/main.ts"]


def test_the_packages_have_exact_versions() -> None:
    packages = json.loads((ROOT / "web" / "package.json").read_text())
    built = json.loads((PAGE / "build.json").read_text())["packages"]
    for name, version in (packages["dependencies"] | packages["devDependencies"]).items():
        assert re.fullmatch(r"\d+\.\d+\.\d+", version) and built[name] == version
    assert not (ROOT / "web" / "package-lock.json").exists()


def test_the_page_is_small_and_fetches_nothing_from_elsewhere() -> None:
    names = {path.name for path in PAGE.iterdir()}
    assert names == {"index.html", "page.js", "page.css", "icon.svg", "build.json"}
    assert sum(path.stat().st_size for path in PAGE.iterdir()) < 700_000
    html = (PAGE / "index.html").read_text()
    assert "http" not in html and not re.search(r"<script(?![^>]*src=)", html) and "style=" not in html
    assert "sourceMappingURL" not in (PAGE / "page.js").read_text()
    assert not re.search(r"url\(\s*['\"]?https?:", (PAGE / "page.css").read_text())


def test_the_wheel_holds_the_page() -> None:
    project = (ROOT / "pyproject.toml").read_text()
    assert 'packages = ["src/semicdvl"]' in project  # all files below, of any suffix
