"""The table of licences and the bill of materials are made by one command."""

from __future__ import annotations

import json
import sys
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from tests.support.paths import ROOT

sys.path.insert(0, str(ROOT / "tools"))
import licences


def test_the_command_lists_every_requirement(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table, sbom = tmp_path / "licences.md", tmp_path / "sbom.json"
    monkeypatch.setattr(sys, "argv", ["licences", "--table", str(table), "--sbom", str(sbom)])
    licences.main()
    content = json.loads(sbom.read_text())
    named = {one["name"].lower().replace("_", "-"): one["version"] for one in content["components"]}
    assert (content["bomFormat"], content["specVersion"]) == ("CycloneDX", "1.5")
    for text in metadata.requires("semicdvl") or ():
        if "extra" not in text:
            name = Requirement(text).name
            assert named[name.lower()] == metadata.version(name) and f"| {name} |" in table.read_text().lower()
    references = {one["bom-ref"] for one in content["components"]}
    assert all(set(one["dependsOn"]) <= references for one in content["dependencies"])
    assert "AGPL" not in table.read_text() and "| rasterio | BSD" in table.read_text()
