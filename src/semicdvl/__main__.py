"""Entry point of the command line: run a command and turn errors that a user can mend into one line, exit code 2."""

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
    # Threads that spin while they wait take the cores from those that work: with one other busy process on two cores
    # an image took 10 s in place of 0.8. OpenMP reads this when torch is loaded, which is later; a user's own is kept.
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
            console.print("Interrupted. No half-written file is left. Run the same command again to resume or restart.")
        raise


if __name__ == "__main__":
    main()
