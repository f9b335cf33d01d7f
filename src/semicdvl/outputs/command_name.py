"""How a user starts this program here, for commands that a message tells the user to type."""

from __future__ import annotations

import shlex
import shutil
import sys
from pathlib import Path

NAME = "semicdvl"


def name_command() -> str:
    """Return `semicdvl` where the shell finds this program under that name, or what finds it from the present folder.

    A program in a virtual environment that is not activated is named with its path (`.venv/bin/semicdvl`), and one that
    was started as a module with its interpreter (`python -m semicdvl`). Inside another program (a notebook, a test) it
    is `semicdvl`.
    """
    started = Path(sys.argv[0]) if sys.argv and sys.argv[0] else Path(NAME)
    if started.name == "__main__.py" and started.parent.name == NAME:
        return f"{_name_program(Path(sys.executable))} -m {NAME}"
    if started.stem != NAME:
        return NAME
    return _name_program(started)


def _name_program(path: Path) -> str:
    """Return the name of a program, where the shell finds this one under it, or its path."""
    found = shutil.which(path.name)
    if found is not None and Path(found).parent.resolve() == path.absolute().parent.resolve():
        return shlex.quote(path.name)
    absolute, here = path.absolute(), Path.cwd()
    return shlex.quote(str(absolute.relative_to(here) if absolute.is_relative_to(here) else absolute))
