"""Build the review page from `web/` into the package, and record what it was built from.

    make web                            needs Node 20 or newer and npm
    python tools/build_page.py --check  compares the record with the sources; needs no Node

The record (`src/semicdvl/review/page/build.json`) holds the hash of every source file and the exact versions of the
packages. Packages are installed without a lock file: the versions in `web/package.json` are exact.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
WEB, PAGE = ROOT / "web", ROOT / "src" / "semicdvl" / "review" / "page"
RECORD = PAGE / "build.json"
SOURCES = ("index.html", "package.json", "tsconfig.json", "vite.config.ts", "src/*", "public/*")


def hash_sources() -> dict[str, str]:
    """Return the SHA-256 of each source file; line ends count as one byte."""
    paths = sorted(path for pattern in SOURCES for path in WEB.glob(pattern) if path.is_file())
    return {path.relative_to(WEB).as_posix(): hash_text(path) for path in paths}


def hash_text(path: Path) -> str:
    """Return the SHA-256 of a text file, the same whether git has changed its line ends or not."""
    return hashlib.sha256(path.read_bytes().replace(b"\r\n", b"\n")).hexdigest()


def hash_page() -> dict[str, str]:
    """Return the SHA-256 of each built file."""
    return {path.name: hash_text(path) for path in sorted(PAGE.iterdir()) if path != RECORD}


def list_installed() -> dict[str, str]:
    """Return the exact version of every installed package."""
    packages: dict[str, str] = {}
    for path in sorted(WEB.glob("node_modules/*/package.json")) + sorted(WEB.glob("node_modules/@*/*/package.json")):
        content = json.loads(path.read_text(encoding="utf-8"))
        packages[content["name"]] = content["version"]
    return dict(sorted(packages.items()))


def make_record(packages: dict[str, str]) -> dict[str, Any]:
    """Return what the page was built from, and what came out."""
    return {"sources": hash_sources(), "packages": packages, "page": hash_page()}


def build() -> None:
    """Install the packages, build the page and write the record."""
    subprocess.run(["npm", "install", "--no-audit", "--no-fund", "--no-package-lock"], cwd=WEB, check=True)
    subprocess.run(["npm", "run", "--silent", "build"], cwd=WEB, check=True)
    RECORD.write_text(json.dumps(make_record(list_installed()), indent=1) + "\n", encoding="utf-8")


def find_differences() -> list[str]:
    """Return the files that differ from the record."""
    record = json.loads(RECORD.read_text(encoding="utf-8"))
    found = []
    for part, now in (("sources", hash_sources()), ("page", hash_page())):
        names = sorted(set(now) | set(record[part]))
        found += [f"{part}/{name}" for name in names if now.get(name) != record[part].get(name)]
    return found


def main() -> int:
    """Build, or check the record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="compare the record with the sources and build nothing")
    if not parser.parse_args().check:
        build()
        return 0
    differing = find_differences()
    if differing:
        print(f"The built page does not fit its sources ({', '.join(differing)}). Run `make web`.")
    return 1 if differing else 0


if __name__ == "__main__":
    sys.exit(main())
