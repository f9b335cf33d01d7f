"""The program as a user runs it, in this process."""

from __future__ import annotations

import sys

import pytest

from semicdvl.__main__ import main


def command(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    """Run `semicdvl ARGUMENTS`; return its exit code, what it printed and what it complained."""
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as stop:
        patch.setattr(sys, "argv", ["semicdvl", *map(str, arguments)])
        patch.setenv("COLUMNS", "200")
        main()
    printed = capsys.readouterr()
    code = stop.value.code
    return code if isinstance(code, int) else 0, printed.out, printed.err
