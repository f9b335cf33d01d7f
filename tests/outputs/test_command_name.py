"""Commands that a message tells the user to type are found by the user's shell."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from semicdvl.outputs.command_name import name_command


@pytest.fixture
def program(tmp_path, monkeypatch) -> Path:
    path = tmp_path / "venv" / "bin" / "semicdvl"
    path.parent.mkdir(parents=True)
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    monkeypatch.setattr(sys, "argv", [str(path), "demo"])
    monkeypatch.setenv("PATH", "/nowhere")
    return path


def test_a_program_that_the_shell_does_not_find_is_named_with_its_path(program, tmp_path, monkeypatch) -> None:
    assert name_command() == str(program)
    monkeypatch.chdir(tmp_path)
    assert name_command() == "venv/bin/semicdvl"


def test_a_program_on_the_path_is_named_alone(program, monkeypatch) -> None:
    monkeypatch.setenv("PATH", f"/nowhere:{program.parent}")
    assert name_command() == "semicdvl"


def test_another_program_of_that_name_is_not_meant(program, tmp_path, monkeypatch) -> None:
    other = tmp_path / "bin" / "semicdvl"
    other.parent.mkdir()
    other.write_text("#!/bin/sh\n")
    other.chmod(0o755)
    monkeypatch.setenv("PATH", str(other.parent))
    assert name_command() == str(program)


def test_a_path_with_blanks_is_quoted(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(sys, "argv", [str(tmp_path / "my tools" / "semicdvl")])
    assert name_command() == f"'{tmp_path}/my tools/semicdvl'"


def test_a_module_is_named_with_its_interpreter(monkeypatch) -> None:
    monkeypatch.setattr(sys, "argv", ["/somewhere/semicdvl/__main__.py", "demo"])
    monkeypatch.setattr(sys, "executable", "/somewhere/bin/python3.11")
    assert name_command() == "/somewhere/bin/python3.11 -m semicdvl"


@pytest.mark.parametrize("argv", [[], [""], ["/usr/bin/pytest"], ["/notebooks/ipykernel_launcher.py"]])
def test_inside_another_program_it_has_its_usual_name(argv, monkeypatch) -> None:
    monkeypatch.setattr(sys, "argv", argv)
    assert name_command() == "semicdvl"
