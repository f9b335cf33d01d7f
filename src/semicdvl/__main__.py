"""Entry point of the command line: run a command and turn errors that a user can mend into one line, exit code 2."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import warnings
from collections.abc import Iterator

from rich.console import Console

from semicdvl.errors import SemicdvlError
from semicdvl.outputs.messages import describe_stream_error
from semicdvl.process_memory import describe_memory_error, keep_freed_memory
from semicdvl.reading.regular_files import describe_place_error

INTERRUPTED = 130
STOP_SIGNALS = (signal.SIGTERM, signal.SIGHUP)
"""Signals that end the program like Ctrl-C: what was being written is removed, what is finished stays."""
STOPPED = {INTERRUPTED, *(128 + number for number in STOP_SIGNALS)}


@contextlib.contextmanager
def _stop_in_order() -> Iterator[None]:
    """Let signals that ask for the end raise `SystemExit`, so that everything is left in order.

    A signal that is ignored, as SIGHUP under `nohup`, stays ignored.
    """

    def stop(number: int, _: object) -> None:
        sys.exit(128 + number)

    before = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    taken = {number: old for number, old in before.items() if old is signal.SIG_DFL}
    for number in taken:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number, old in taken.items():
            signal.signal(number, old)


@contextlib.contextmanager
def _flush_at_end() -> Iterator[None]:
    """Write the last text while an error can still be told, and leave none that Python would try again at its end."""
    try:
        try:
            yield
        finally:
            if sys.stdout is not None:
                sys.stdout.flush()
    except OSError as error:
        if describe_stream_error(error) is not None:
            with contextlib.suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise


def main() -> None:
    """Run the command line.

    Exit codes: 0 done; 2 something the user can mend (one line on standard error, no traceback); 130 interrupted, 143
    and 129 ended by SIGTERM and SIGHUP.
    """
    # Threads that spin while they wait take the cores from those that work: with one other busy process on two cores
    # an image took 10 s in place of 0.8. OpenMP reads this when torch is loaded, which is later; a user's own is kept.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    keep_freed_memory()
    from semicdvl.cli import app

    warnings.filterwarnings("ignore", category=DeprecationWarning)
    console = Console(stderr=True, soft_wrap=True)
    try:
        with _stop_in_order(), _flush_at_end():
            app(standalone_mode=True)
    except SemicdvlError as error:
        console.print(f"error: {error}", style="red", markup=False, highlight=False)
        sys.exit(2)
    except SystemExit as stop:  # typer turns Ctrl-C into this
        if stop.code in STOPPED:
            console.print("Interrupted. No half-written file is left. Run the same command again to resume or restart.")
        raise
    except Exception as error:
        remedy = describe_memory_error(error) or describe_stream_error(error) or describe_place_error(error)
        if remedy is None:
            raise
        console.print(f"error: {remedy}", style="red", markup=False, highlight=False)
        sys.exit(2)


if __name__ == "__main__":
    main()
