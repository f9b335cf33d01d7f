"""Run all cases and print how they ended: `python -m tests.robustness.report [--seed N] [--only TARGET ...]`."""

from __future__ import annotations

import argparse
import tempfile
from collections import Counter
from pathlib import Path

from rich.console import Console
from tests.robustness.targets import TARGETS, build_scene
from tests.robustness.test_malformed_files import find_faults, run_target

CONSOLE = Console(highlight=False, markup=False, soft_wrap=True)
STATES = ("refused", "accepted", "traceback", "hang", "memory", "output", "outside", "message")


def show(text: str) -> None:
    CONSOLE.print(text)


def main() -> None:
    """Print a table, and each fault below it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--share", type=int, default=1, help="run every such case")
    names = [target.name for target in TARGETS]
    parser.add_argument("--only", nargs="*", default=[], choices=names, metavar="TARGET", help=", ".join(names))
    options = parser.parse_args()
    total, faults = Counter[str](), []
    show("| format | " + " | ".join(STATES) + " |\n|---" + "|---" * len(STATES) + "|")
    with tempfile.TemporaryDirectory() as folder:
        sound = build_scene(Path(folder) / "sound")
        for target in TARGETS:
            if not options.only or target.name in options.only:
                with tempfile.TemporaryDirectory() as room:
                    ended = run_target(target, sound, Path(room), seed=options.seed, share=options.share)
                counts = {state: len(ended.get(state, [])) for state in STATES}
                total.update(counts)
                faults += find_faults(ended)
                show(f"| {target.name} | " + " | ".join(map(str, counts.values())) + " |")
                for fault in find_faults(ended):
                    show(f"  # {fault}")
    show(f"| all {sum(total.values())} | " + " | ".join(str(total[state]) for state in STATES) + " |")
    show(f"{len(faults)} faults")
    if faults:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
