"""The order of the rooms: imports go down only, files form no circle, no folder is crowded.

Every import counts, also one inside a function and one for the type checker alone: whoever reads a file has to
understand what it names.
"""

from __future__ import annotations

import ast
from collections import Counter
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "src" / "semicdvl"
FLOORS = [
    {"__main__"},
    {"cli"},
    {"api"},
    {"demo", "benchmarking", "catalog", "review"},
    {"training", "evaluation", "official"},
    {"detection"},
    {"pseudo_labels"},
    {"ceg", "reports", "checkpoint", "public_codes", "ray_cluster"},
    {"data", "synthetic", "vlms", "models", "methods", "unsupervised"},
    {"losses"},
    {"config", "raster"},
    {"registry"},
    {"types", "metrics", "atomic_files", "text_files", "worker_processes", "process_memory"},
    {"outputs"},
    {"reading"},
    {"errors", "version"},
]
"""Rooms from top to bottom; those of one floor don't import each other."""
FLOOR_OF = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
MAX_FILES = 15
"""Beside the `__init__.py` of a folder."""
FILES = sorted(ROOT.rglob("*.py"))


def _name_module(path: Path) -> str:
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {_name_module(path): path for path in FILES}


@cache
def _list_imports(path: Path) -> frozenset[str]:
    """Return the modules that a file imports: this package's to the file, others by their full name."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module, f"{path.name}: imports are absolute"
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                names.add(full if full in MODULES else node.module)
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return frozenset(names)


def _find_circles(graph: dict[str, set[str]]) -> set[frozenset[str]]:
    """Return the groups of modules of which each reaches every other one."""
    reached = {module: _reach(graph, module) for module in graph}
    groups = {frozenset(other for other in reached[one] if one in reached[other]) | {one} for one in graph}
    return {group for group in groups if len(group) > 1 or any(one in graph[one] for one in group)}


def _reach(graph: dict[str, set[str]], start: str) -> set[str]:
    """Return what a module imports, and what that imports in turn."""
    found, queue = set[str](), [start]
    while queue:
        for other in graph[queue.pop()] - found:
            found.add(other)
            queue.append(other)
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_down_only(path: Path) -> None:
    room = path.relative_to(ROOT).parts[0].removesuffix(".py")
    if room == "__init__":
        return
    for name in _list_imports(path):
        top, _, rest = name.partition(".")
        if top == "semicdvl":
            other = rest.partition(".")[0]
            if not other:
                assert room == "cli", (
                    f"{path.name} imports the package itself, which offers everything; import the file"
                )
            elif other != room:
                assert FLOOR_OF[other] > FLOOR_OF[room], f"{path.name} imports {name}"
        assert not (room == "raster" and top == "torch"), "raster never imports torch"


def test_the_contributing_page_shows_the_same_order() -> None:
    text = (ROOT.parents[1] / "CONTRIBUTING.md").read_text(encoding="utf-8")
    block = text.partition("From top to bottom:\n\n```\n")[2].partition("\n```")[0]
    assert [set(line.split()) for line in block.splitlines()] == FLOORS[1:]


def test_files_form_no_circle() -> None:
    graph = {module: {name for name in _list_imports(path) if name in MODULES} for module, path in MODULES.items()}
    assert _find_circles(graph) == set()


def test_a_circle_is_found() -> None:
    graph = {"a": {"b"}, "b": {"c"}, "c": {"a", "d"}, "d": set(), "e": {"e"}}
    assert _find_circles(graph) == {frozenset("abc"), frozenset("e")}


def test_no_folder_is_crowded() -> None:
    counts = Counter(path.parent.relative_to(ROOT) for path in FILES if path.name != "__init__.py")
    assert {folder for folder, count in counts.items() if count > MAX_FILES} == set()
