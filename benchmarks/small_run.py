"""Measure a small training from the command to the finished run, stage by stage: processor seconds and wall seconds.

    python benchmarks/small_run.py                                  small-fixmatch and small-supervised, 60 steps
    python benchmarks/small_run.py --recipes small-semicdnet --steps 300

The data are patches of a synthetic city, in a temporary folder. Every recipe runs in a process of its own:

start-up     from the start of the process to the first batch: imports, checks of the data, building of the network
data         making batches
step         the network forward and backward, and the optimiser
validation   scores of the validation pairs, every `eval_every` steps
writing      checkpoints and weights
end          scores of the test pairs and the record of the run

Processor seconds are those of all threads of the process, so that other work on the machine changes them little. The
last column is the sum of the logged losses of all steps: two versions of the program train alike if it is the same.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

STAGES = ("start-up", "data", "step", "validation", "writing", "end")
RECIPES = Path(__file__).parents[1] / "recipes"


@dataclass
class Stages:
    """Seconds of each stage, wall and processor; what is measured inside another stage is taken from it.

    Attributes:
        began: when the process was started, seconds since 1970.
        wall_s: by stage.
        core_s: by stage.
    """

    began: float
    wall_s: dict[str, float] = field(default_factory=lambda: dict.fromkeys(STAGES, 0.0))
    core_s: dict[str, float] = field(default_factory=lambda: dict.fromkeys(STAGES, 0.0))
    _open: list[str] = field(default_factory=lambda: ["start-up"])
    _last: tuple[float, float] | None = None

    def _charge(self) -> None:
        """Charge the time since the last call to the innermost open stage."""
        now = time.time(), time.process_time()
        last = self._last or (self.began, 0.0)
        self.wall_s[self._open[-1]] += now[0] - last[0]
        self.core_s[self._open[-1]] += now[1] - last[1]
        self._last = now

    def switch(self, name: str) -> None:
        """End what is open and go on with another stage."""
        self._charge()
        self._open = [name]

    @contextlib.contextmanager
    def measure(self, name: str) -> Iterator[None]:
        """Charge the block to a stage."""
        self._charge()
        self._open.append(name)
        try:
            yield
        finally:
            self._charge()
            self._open.pop()

    def wrap(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return a function whose calls are charged to a stage."""

        def measured(*args: Any, **kwargs: Any) -> Any:
            with self.measure(name):
                return function(*args, **kwargs)

        return measured

    def iterate(self, items: Iterator[Any]) -> Iterator[Any]:
        """Give the items of an iterator; making them is charged to `data`, what comes between them to `step`."""
        self.switch("step")
        while True:
            try:
                with self.measure("data"):
                    item = next(items)
            except StopIteration:
                return
            yield item


def run_recipe(recipe: str, data: Path, steps: int, began: float) -> dict[str, Any]:
    """Train in this process and return the seconds of the stages."""
    stages = Stages(began)
    import semicdvl as cd
    from semicdvl.training import run as training_run
    from semicdvl.training.checkpoint import TrainingCheckpoint

    load, validator = training_run.load_train_batches, training_run.build_run_validator

    def build_validator(*args: Any, **kwargs: Any) -> Any:
        return stages.wrap("validation", validator(*args, **kwargs))

    def score_test_pairs(*args: Any, **kwargs: Any) -> Any:
        stages.switch("end")
        return scored(*args, **kwargs)

    scored = training_run.score_test_pairs
    out = data.parent / f"run-{recipe}"
    overrides = [f"data.root={data}", "data.labelled=0.25", f"train.steps={steps}", f"train.eval_every={steps // 4}"]
    with (
        patch.object(training_run, "load_train_batches", lambda *a, **k: stages.iterate(load(*a, **k))),
        patch.object(training_run, "build_run_validator", build_validator),
        patch.object(training_run, "score_test_pairs", score_test_pairs),
        patch.object(TrainingCheckpoint, "save", stages.wrap("writing", TrainingCheckpoint.save)),
        patch.object(TrainingCheckpoint, "keep_if_best", stages.wrap("writing", TrainingCheckpoint.keep_if_best)),
    ):
        cd.train(RECIPES / f"{recipe}.toml", out, overrides=overrides, quiet=True)
    stages.switch("end")
    return {"wall_s": stages.wall_s, "core_s": stages.core_s, "losses": sum_losses(out)}


def sum_losses(run: Path) -> float:
    """Return the sum of the losses of all logged steps."""
    events = [json.loads(line) for line in (run / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    return float(sum(event.get("loss", 0.0) for event in events))


def write_patches(folder: Path) -> None:
    """Write 64 patches of 128 px of a synthetic city."""
    from semicdvl.synthetic.config import CitySpec
    from semicdvl.synthetic.generate import generate_city
    from semicdvl.synthetic.write import write_city_patches

    write_city_patches(generate_city(CitySpec(size_px=1024, seed=1)), folder, size_px=128)


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipes", nargs="+", default=["small-fixmatch", "small-supervised"])
    parser.add_argument("--steps", type=int, default=60)
    options = parser.parse_args()
    print(f"| recipe, {options.steps} steps | " + " | ".join(STAGES) + " | all | losses |")
    print("|---" * (len(STAGES) + 3) + "|", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        write_patches(Path(folder) / "data")
        for recipe in options.recipes:
            job = ["--job", recipe, str(Path(folder) / "data"), str(options.steps), str(time.time())]
            output = subprocess.run([sys.executable, __file__, *job], check=True, stdout=subprocess.PIPE).stdout
            print_row(recipe, json.loads(output.decode().splitlines()[-1]))


def print_row(recipe: str, found: dict[str, Any]) -> None:
    """Print one row: processor seconds, wall seconds in brackets."""
    pairs = [(found["core_s"][name], found["wall_s"][name]) for name in STAGES]
    pairs.append((sum(core for core, _ in pairs), sum(wall for _, wall in pairs)))
    cells = " | ".join(f"{core:.2f} ({wall:.2f})" for core, wall in pairs)
    print(f"| {recipe} | {cells} | {found['losses']:.6f} |", flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--job"]:
        name, root, count, started = sys.argv[2:]
        print(json.dumps(run_recipe(name, Path(root), int(count), float(started))))
    else:
        main()
