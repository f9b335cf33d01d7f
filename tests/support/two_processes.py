"""Started by `torchrun`: trains a recipe, is interrupted on the way, and goes on."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

from semicdvl.config import load_recipe
from semicdvl.training import run as room

STOP_AT = 5


def main(recipe: Path, run: Path) -> None:
    checked = load_recipe(recipe)
    batches, per_step = room.load_train_batches, checked.train.accumulate

    def interrupted(*arguments: Any, **options: Any) -> Iterator[Any]:
        for number, batch in enumerate(batches(*arguments, **options)):
            if number == STOP_AT * per_step + 1:  # amid a step
                raise KeyboardInterrupt
            yield batch

    with patch.object(room, "load_train_batches", interrupted):
        try:
            room.train_recipe(checked, run, quiet=True)
        except KeyboardInterrupt:
            sys.stdout.write("interrupted\n")
    room.train_recipe(checked, run, quiet=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
