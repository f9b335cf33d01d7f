"""The house's import order: imports go down only, and siblings don't import each other."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "src" / "semicdvl"
FLOORS = [
    {"__main__"},
    {"cli"},
    {"api"},
    {"demo", "benchmarking", "catalog"},
    {"training", "evaluation", "official"},
    {"detection"},
    {"pseudo_labels"},
    {"ceg", "reports", "checkpoint"},
    {"data", "synthetic", "vlms", "models", "methods", "unsupervised"},
    {"losses"},
    {"config", "raster"},
    {"registry"},
    {"types", "metrics", "atomic_files"},
    {"errors", "version"},
]
HEIGHT = {room: -floor for floor, rooms in enumerate(FLOORS) for room in rooms}
MODULES = sorted(ROOT.rglob("*.py"))


def _room(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def _imported(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module == "semicdvl":
            names |= {f"semicdvl.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return names


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_down_only(path: Path) -> None:
    room = _room(path)
    if room == "__init__":
        return
    for name in _imported(path):
        if name.startswith("semicdvl."):
            other = name.split(".")[1]
            if other != "__version__" and other != room:
                assert HEIGHT[other] < HEIGHT[room], f"{path.name} imports {name}"
        assert not (room == "raster" and name.split(".")[0] == "torch"), "raster never imports torch"
