"""List what semicdvl is installed with: a table of licences, and a bill of materials (SBOM, CycloneDX 1.5).

    python tools/licences.py --table docs/reference/licences.md --sbom sbom.cdx.json

Both are made from the metadata of the packages that are installed, from semicdvl's requirements downwards. Versions
stand in the SBOM only, so that the table changes when a package or its licence does.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = "semicdvl"
EXTRAS = ("offline", "text", "vlm", "ray", "onnx", "parquet", "review")
"""Extras of semicdvl that are listed, where they are installed; those for developers and documentation are not."""
CLASSIFIERS = {
    "OSI Approved :: Apache Software License": "Apache-2.0",
    "OSI Approved :: BSD License": "BSD",
    "OSI Approved :: MIT License": "MIT",
    "OSI Approved :: ISC License (ISCL)": "ISC",
    "OSI Approved :: Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "OSI Approved :: Python Software Foundation License": "PSF-2.0",
}
HEAD = """# Licences

semicdvl is under the Apache License 2.0, and so are the weights that it ships; `NOTICE` says what these are made from.
The packages that it installs are under the licences below. The table is made by `python tools/licences.py --table
docs/reference/licences.md --sbom sbom.cdx.json`, which also writes a bill of materials in the CycloneDX format with the
versions of an installation.

| package | licence | needed by |
|---|---|---|
"""


@dataclass(frozen=True)
class Package:
    """An installed package.

    Attributes:
        name: its name.
        version: its version.
        licence: as its metadata say it.
        needed_by: extras of semicdvl that need it; "" is every installation.
        requires: names of the packages that it needs.
    """

    name: str
    version: str
    licence: str
    needed_by: frozenset[str]
    requires: tuple[str, ...]


def list_packages() -> list[Package]:
    """Return the packages of an installation, by name."""
    needed: dict[str, set[str]] = {}
    for extra in ("", *EXTRAS):
        for name in _walk(ROOT, extra):
            needed.setdefault(name, set()).add(extra)
    return [_describe(name, frozenset(extras)) for name, extras in sorted(needed.items()) if name != ROOT]


def _walk(root: str, extra: str) -> Iterator[str]:
    """Yield the installed packages that a package needs with an extra, itself included."""
    found, queue = set[str](), [(root, extra)]
    while queue:
        name, wanted = queue.pop()
        for requirement in _list_requirements(name, wanted):
            key = canonicalize_name(requirement.name)
            if key not in found and _is_installed(key):
                found.add(key)
                queue += [(key, ""), *((key, one) for one in requirement.extras)]
    yield from found


def _list_requirements(name: str, extra: str) -> list[Requirement]:
    """Return what a package requires here; with an extra, what that adds."""
    every = [Requirement(text) for text in metadata.requires(name) or ()]
    plain = [one for one in every if one.marker is None or one.marker.evaluate({"extra": ""})]
    if not extra:
        return plain
    return [one for one in every if one not in plain and one.marker and one.marker.evaluate({"extra": extra})]


def _is_installed(name: str) -> bool:
    try:
        metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return False
    return True


def _describe(name: str, needed_by: frozenset[str]) -> Package:
    about = metadata.metadata(name)
    requires = tuple(
        sorted({canonicalize_name(one.name) for one in _list_requirements(name, "") if _is_installed(one.name)})
    )
    return Package(about["Name"], metadata.version(name), read_licence(about), needed_by, requires)


def read_licence(about: Any) -> str:
    """Return a licence in a few words: the expression of the metadata, else the classifiers, else the first line."""
    if about.get("License-Expression"):
        return str(about["License-Expression"])
    named = [
        text.removeprefix("License :: ") for text in about.get_all("Classifier") or () if text.startswith("License")
    ]
    if named:
        return ", ".join(CLASSIFIERS.get(text, text.rpartition(":: ")[2]) for text in named)
    lines = [line.strip() for line in str(about.get("License") or "").splitlines() if line.strip()]
    return re.sub(r"\s+", " ", lines[0])[:60] if lines else "not stated"


def write_table(path: Path, packages: Sequence[Package]) -> None:
    """Write the table as a page of the documentation."""
    rows = []
    for one in packages:
        needed = (
            "every installation" if "" in one.needed_by else ", ".join(f"`[{name}]`" for name in sorted(one.needed_by))
        )
        rows.append(f"| {one.name} | {one.licence.replace('|', '/')} | {needed} |\n")
    path.write_text(HEAD + "".join(rows), encoding="utf-8")


def write_sbom(path: Path, packages: Sequence[Package]) -> None:
    """Write the bill of materials."""

    def reference(name: str, version: str) -> str:
        return f"pkg:pypi/{canonicalize_name(name)}@{version}"

    by_name = {canonicalize_name(one.name): one for one in packages}
    own = metadata.version(ROOT)
    direct = [one for one in _walk_direct() if one in by_name]
    content = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {
            "component": {
                "type": "library",
                "bom-ref": reference(ROOT, own),
                "name": ROOT,
                "version": own,
                "licenses": [{"license": {"name": "Apache-2.0"}}],
            }
        },
        "components": [
            {
                "type": "library",
                "bom-ref": reference(one.name, one.version),
                "purl": reference(one.name, one.version),
                "name": one.name,
                "version": one.version,
                "licenses": [{"license": {"name": one.licence}}],
            }
            for one in packages
        ],
        "dependencies": [
            {
                "ref": reference(ROOT, own),
                "dependsOn": [reference(by_name[one].name, by_name[one].version) for one in direct],
            },
            *(
                {
                    "ref": reference(one.name, one.version),
                    "dependsOn": [reference(by_name[n].name, by_name[n].version) for n in one.requires if n in by_name],
                }
                for one in packages
            ),
        ],
    }
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _walk_direct() -> list[str]:
    """Return the names of the packages that semicdvl requires itself."""
    return sorted({canonicalize_name(one.name) for one in _list_requirements(ROOT, "")})


def main() -> None:
    """Write what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", type=Path, help="page of the licences to write")
    parser.add_argument("--sbom", type=Path, help="bill of materials to write")
    options = parser.parse_args()
    packages = list_packages()
    if options.table:
        write_table(options.table, packages)
    if options.sbom:
        write_sbom(options.sbom, packages)


if __name__ == "__main__":
    main()
