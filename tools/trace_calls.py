"""Count what a command passes: files and functions of semicdvl, and how often each raster is opened.

    python tools/trace_calls.py detect before.tif after.tif -o out

Everything after the script's name is a `semicdvl` command. The counts go to standard error when it ends.
"""

from __future__ import annotations

import collections
import sys
import threading
from inspect import CO_OPTIMIZED
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import rasterio

import semicdvl

PACKAGE = str(Path(semicdvl.__file__).parent) + "/"


def main() -> None:
    """Run the command under a profiler and print the counts."""
    passed: set[CodeType] = set()
    opened: collections.Counter[str] = collections.Counter()

    def note(frame: FrameType, event: str, _: Any) -> None:
        if event == "call" and frame.f_code.co_flags & CO_OPTIMIZED and frame.f_code.co_filename.startswith(PACKAGE):
            passed.add(frame.f_code)

    open_raster = rasterio.open

    def open_counted(path: Any, *args: Any, **options: Any) -> Any:
        opened[str(path)] += 1
        return open_raster(path, *args, **options)

    rasterio.open = open_counted
    from semicdvl.cli import app

    threading.setprofile(note)
    sys.setprofile(note)
    try:
        app(sys.argv[1:], standalone_mode=False)
    except SystemExit:
        pass
    finally:
        sys.setprofile(None)
        functions = [code for code in passed if not code.co_name.startswith("<")]
        files = {code.co_filename for code in functions}
        print(f"{len(files)} files, {len(functions)} functions", file=sys.stderr)
        for name, count in opened.items():
            print(f"opened {count} x {name}", file=sys.stderr)


if __name__ == "__main__":
    main()
