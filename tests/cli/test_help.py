"""What `--help` shows: every bracketed word, options in panels, and commands that exist."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from tests.support.command import command
from tests.support.paths import ROOT

from semicdvl.cli import app
from semicdvl.cli.app import ADVANCED, INPUT, OUTPUT, TARGET
from semicdvl.cli.listing import Kind

PANELS = {INPUT, TARGET, OUTPUT, ADVANCED}
SOURCE = ROOT / "src" / "semicdvl"


def _walk(one: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    yield path, one
    for name, child in getattr(one, "commands", {}).items():
        yield from _walk(child, (*path, name))


COMMANDS = dict(_walk(typer.main.get_command(app)))


def _squeeze(text: str) -> str:
    """Return text without blanks and frames, which depend on the width of the screen."""
    return re.sub(r"[\s│╭╮╰╯─]", "", text)


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_words_in_square_brackets_survive(path: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    one = COMMANDS[path]
    texts = [one.help or "", *(getattr(parameter, "help", None) or "" for parameter in one.params)]
    bracketed = {word for text in texts for word in re.findall(r"\S*\[[^\]]*\]", text)}
    code, printed, _ = command(capsys, *path, "--help")
    assert code == 0
    assert [word for word in bracketed if _squeeze(word) not in _squeeze(printed)] == []


def test_brackets_are_not_markup(capsys: pytest.CaptureFixture[str]) -> None:
    assert "semicdvl[onnx]" in command(capsys, "export", "--help")[1]


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_options_stand_in_panels(path: tuple[str, ...]) -> None:
    options = [one for one in COMMANDS[path].params if one.param_type_name == "option"]
    own = [one for one in options if one.name not in ("help", "version", "install_completion", "show_completion")]
    assert {one.name for one in own if one.rich_help_panel not in PANELS} == set()
    assert {one.name for one in own if not one.help} == set()
    order = [(INPUT, TARGET, OUTPUT, ADVANCED).index(one.rich_help_panel) for one in own]
    assert order == sorted(order), "panels stand in the same order at every command"


# ------------------------------------------------------------------------------------------------ texts name commands
def _list_named_commands() -> set[tuple[str, str]]:
    """Return (file, command) of every `semicdvl word` in a text of the package."""
    found = set()
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                for words in re.findall(r"`semicdvl ([a-z][a-z-]*(?: [a-z][a-z-]*)?)", node.value):
                    found.add((path.relative_to(SOURCE).as_posix(), words))
    return found


def test_commands_in_texts_exist() -> None:
    named = _list_named_commands()
    assert len(named) > 30
    tops = {path[0] for path in COMMANDS if path}
    assert {(where, words) for where, words in named if words.split()[0] not in tops} == set()
    listed = {words.split()[1] for _, words in named if words.startswith("list ")}
    assert listed <= {kind.value for kind in Kind} and "recipes" in listed


def test_options_of_commands_in_texts_exist() -> None:
    for path in SOURCE.rglob("*.py"):
        for line in re.findall(r"`semicdvl ([a-z-]+)([^`\n]*)`", path.read_text(encoding="utf-8")):
            if line[0] == "--help":
                continue
            known = {name for one in COMMANDS[(line[0],)].params for name in (*one.opts, *one.secondary_opts)}
            assert set(re.findall(r"(--[a-z][a-z-]+)", line[1])) <= known, f"{path.name}: semicdvl {line[0]}{line[1]}"


def test_check_writes_only_where_it_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    from tests.support.synthetic_rasters import at, city, tif

    pair = [tif(tmp_path / name, city(80, 90), at(0, 0)) for name in ("a.tif", "b.tif")]
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    code, printed, _ = command(capsys, "check", *pair)
    assert code in (0, 1) and list(Path().iterdir()) == [] and "a report is written with -o FOLDER" in printed
    command(capsys, "check", *pair, "-o", "here")
    assert sorted(path.name for path in Path("here").iterdir()) == ["check.html", "check.json"]
