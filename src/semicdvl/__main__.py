"""Entry of the command line: runs a command and turns the user's errors into one line and exit code 2."""

from __future__ import annotations

import os
import sys
import warnings

from rich.console import Console

from semicdvl.errors import SemicdvlError

INTERRUPTED = 130


def main() -> None:
    """Run the command line.

    Exit codes: 0 done; 2 something the user can mend (one line on standard error, no traceback); 130 interrupted.
    """
    # Threads that wait by spinning take the cores from those they wait for: with one other busy process on two cores
    # an image took 10 s in place of 0.8. Read when torch loads its OpenMP, which is later; what a user set stands.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from semicdvl.cli import app

    warnings.filterwarnings("ignore", category=DeprecationWarning)
    console = Console(stderr=True, soft_wrap=True)
    try:
        app(standalone_mode=True)
    except SemicdvlError as error:
        console.print(f"error: {error}", style="red", markup=False, highlight=False)
        sys.exit(2)
    except SystemExit as stop:  # typer turns Ctrl-C into this
        if stop.code == INTERRUPTED:
            console.print("interrupted. Nothing half-written is left; the same command goes on or starts again.")
        raise


if __name__ == "__main__":
    main()
