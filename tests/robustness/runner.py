"""Run one reader or command on a damaged file, and say what went wrong beside a clear error.

Watched are the exception, the time, the memory, the files of the scene, and what is written, started or called outside.
"""

from __future__ import annotations

import contextlib
import io
import os
import resource
import shlex
import signal
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from semicdvl.__main__ import main
from semicdvl.errors import SemicdvlError

MAX_SECONDS = 120
"""Of processor time; a case takes tenths of a second."""
MAX_GROWTH_MIB = 1_200
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
TEMPORARY = tempfile.gettempdir()
"""Found here: while it is found, it is locked, so that the hook must not ask."""
OUTSIDE_EVENTS = ("socket.connect", "socket.getaddrinfo", "os.system", "subprocess.Popen", "os.exec", "os.posix_spawn")


class Hang(BaseException):
    """A case took too long; no `except Exception` catches it."""


@dataclass
class Watch:
    """What happens while a case runs.

    Attributes:
        inside: folder that may be written to; None: nothing is watched.
        found: what happened outside.
    """

    inside: Path | None = None
    found: list[str] = field(default_factory=list)

    def hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Note what leaves the folder."""
        if self.inside is None:
            return
        if event in OUTSIDE_EVENTS and "ldconfig" not in str(arguments[0]):  # how ctypes finds a library
            self.found.append(f"{event} {str(arguments)[:100]}")
        elif event == "open" and isinstance(arguments[0], str | bytes) and arguments[2] & WRITING:
            path = os.path.abspath(os.fsdecode(arguments[0]))  # noqa: PTH100  (a hook must not open anything itself)
            allowed = (str(self.inside), os.devnull, TEMPORARY)
            if not path.startswith(allowed) and "__pycache__" not in path and "matplotlib" not in path:
                self.found.append(f"writes {path}")


WATCH = Watch()
sys.addaudithook(WATCH.hook)


@dataclass(frozen=True)
class Outcome:
    """How a case ended.

    Attributes:
        state: "accepted", "refused", or the fault: "traceback", "hang", "memory", "output", "outside", "message".
        text: the error, or what is wrong.
    """

    state: str
    text: str = ""

    @property
    def is_fault(self) -> bool:
        """Whether a user would complain."""
        return self.state not in ("accepted", "refused")


def run_case(scene: Path, act: Callable[[Path], Any] | str) -> Outcome:
    """Run a reader, or a command line, on a scene."""
    before, memory_mib = take_snapshot(scene), _measure_memory_mib()
    WATCH.found.clear()
    try:
        with _time_limit(), warnings.catch_warnings(), _into(scene):
            warnings.simplefilter("ignore")
            WATCH.inside = scene
            outcome = _run_command(act) if isinstance(act, str) else _run_reader(scene, act)
    except Hang:
        return Outcome("hang", f"more than {MAX_SECONDS} s")
    finally:
        WATCH.inside = None
    if outcome.is_fault:
        return outcome
    if WATCH.found:
        return Outcome("outside", "; ".join(WATCH.found[:3]))
    if _measure_memory_mib() - memory_mib > MAX_GROWTH_MIB:
        return Outcome("memory", f"{_measure_memory_mib() - memory_mib} MiB more")
    left = sorted(path for path, mark in take_snapshot(scene).items() if before.get(path) != mark)
    if outcome.state == "refused" and left:
        return Outcome("output", f"{left[:4]} after: {outcome.text[:160]}")
    return outcome


def _run_reader(scene: Path, read: Callable[[Path], Any]) -> Outcome:
    try:
        read(scene)
    except SemicdvlError as error:
        return _check_message(str(error))
    except Exception:
        return Outcome("traceback", _shorten(traceback.format_exc()))
    return Outcome("accepted")


def _run_command(line: str) -> Outcome:
    """Run a command line in this process."""
    errors = io.StringIO()
    with (
        pytest.MonkeyPatch.context() as patch,
        contextlib.redirect_stderr(errors),
        contextlib.redirect_stdout(io.StringIO()),
    ):
        patch.setattr(sys, "argv", ["semicdvl", *shlex.split(line)])
        patch.setenv("COLUMNS", "200")
        try:
            main()
            code: Any = 0
        except SystemExit as stop:
            code = stop.code or 0
        except Exception:
            return Outcome("traceback", _shorten(traceback.format_exc()))
    text = errors.getvalue()
    if "Traceback (most recent call last)" in text or code not in (0, 1, 2):
        return Outcome("traceback", _shorten(text))
    return (
        Outcome("accepted") if code in (0, 1) else _check_message(text.strip().splitlines()[-1] if text.strip() else "")
    )


def _check_message(text: str) -> Outcome:
    """An error is a sentence: not empty, not a dump, without control characters."""
    is_sentence = 15 < len(text) < 3_000 and not any(ord(letter) < 32 and letter != "\n" for letter in text)
    return Outcome("refused", text) if is_sentence else Outcome("message", f"{len(text)} characters: {text[:200]!r}")


def take_snapshot(scene: Path) -> dict[str, tuple[int, int]]:
    """Return what distinguishes every file and folder of a scene: size and time of change; of a folder its place."""
    found, folders = {}, [scene]
    while folders:
        for entry in os.scandir(folders.pop()):
            if entry.is_dir(follow_symlinks=False):
                folders.append(Path(entry.path))
                found[entry.path] = (0, 0)
            else:
                facts = entry.stat(follow_symlinks=False)
                found[entry.path] = (facts.st_size, facts.st_mtime_ns)
    return found


@contextlib.contextmanager
def _time_limit() -> Iterator[None]:
    def stop(*_: object) -> None:
        raise Hang

    earlier = signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, MAX_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, earlier)


@contextlib.contextmanager
def _into(folder: Path) -> Iterator[None]:
    earlier = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(earlier)


def _measure_memory_mib() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def _shorten(text: str) -> str:
    lines = [line for line in text.strip().splitlines() if "semicdvl/" in line or not line.startswith("  ")]
    return "\n".join(lines[-7:])[-900:]
