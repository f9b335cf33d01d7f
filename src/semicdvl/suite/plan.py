"""Suite -> jobs: one recipe per data set, method, network, label fraction and seed."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any, Literal

from semicdvl.config import Recipe, parse_recipe, put_over, read_with_base
from semicdvl.files import key_of, write_json
from semicdvl.suite.config import FolderEntry, MethodEntry, ModelEntry, Suite
from semicdvl.suite.data import Prepared
from semicdvl.train.run import build_method, length_of, make_split

OWN_MODEL = "recipe's"
"""Name of the network where the suite names none: the one of each method's recipe."""


@dataclass(frozen=True)
class Job:
    """One run to make.

    Attributes:
        data, method, model, labelled, seed: its place in the suite.
        select: side that its best step is chosen on; `test` is for parity with papers alone.
        recipe: all that determines it.
        steps: how long it is.
        out: folder of the suite.
    """

    data: str
    method: str
    model: str
    labelled: float
    seed: int
    select: Literal["val", "test"]
    recipe: Recipe
    steps: int
    out: Path

    @property
    def name(self) -> str:
        """Name of its files; the end changes with the recipe, so that a changed suite doesn't take old runs for new."""
        words = [self.data, self.method, *([self.model] if self.model != OWN_MODEL else []), f"{self.labelled:g}"]
        words += [f"s{self.seed}", *(["test-selected"] if self.select == "test" else [])]
        plain = self.recipe.model_dump(mode="json") | {"name": ""}
        moved = str(plain).replace(str(self.out), "OUT")
        return f"{re.sub(r'[^a-z0-9.-]+', '-', '-'.join(words).lower())}-{key_of(moved)[:8]}"

    @property
    def run(self) -> Path:
        """Run directory."""
        return self.out / "runs" / self.name

    @property
    def result(self) -> Path:
        """Where its outcome is written, whole, when it has ended."""
        return self.out / "jobs" / f"{self.name}.result.json"

    @property
    def cost(self) -> float:
        """What it costs, relative to others: pairs that pass the network (three passes of an unlabelled pair)."""
        train, unlabelled = self.recipe.train, build_method(self.recipe).uses_unlabelled
        return (
            self.steps * train.accumulate * (train.labelled_batch + (3 * train.unlabelled_batch if unlabelled else 0))
        )

    def write(self) -> Path:
        """Write the file that `suite.work` starts from, and return it."""
        path = self.out / "jobs" / f"{self.name}.json"
        place = {key: value for key, value in asdict(self).items() if key not in ("recipe", "steps", "out")}
        content = {"job": place, "recipe": self.recipe.model_dump(mode="json")}
        write_json(path, content | {"run": str(self.run), "result": str(self.result)})
        return path


def plan(suite: Suite, prepared: Mapping[str, Prepared], out: Path) -> list[Job]:
    """Return the jobs of a suite, in the order of its data sets, fractions, seeds and methods.

    Methods that learn from a VLM are left out on data without a store.

    Raises:
        ConfigError, InputError: a recipe cannot be used.
    """
    return [job for entry in suite.data if entry.name in prepared for job in _jobs(suite, entry, prepared, out)]


def _jobs(suite: Suite, entry: Any, prepared: Mapping[str, Prepared], out: Path) -> Iterator[Job]:
    """Yield the jobs on one data set; seeds outside methods, so that an early look compares like with like."""
    place = prepared[entry.name]
    options = {"dataset": entry.dataset, "options": entry.options} if isinstance(entry, FolderEntry) else {}
    every = sorted({fraction for m in suite.methods for fraction in (m.labelled or suite.labelled)})
    selections: tuple[Literal["val", "test"], ...] = ("val", "test") if suite.test_best else ("val",)
    networks = suite.models or (ModelEntry(name=OWN_MODEL),)
    for fraction, seed, method, model, select in product(every, suite.seeds, suite.methods, networks, selections):
        if fraction not in (method.labelled or suite.labelled):
            continue
        recipe = _recipe(suite, method, model, place, fraction=fraction, seed=seed, data=options)
        if recipe is not None:
            recipe = recipe.model_copy(update={"train": recipe.train.model_copy(update={"select": select})})
            yield Job(entry.name, method.name, model.name, fraction, seed, select, recipe, _steps(recipe), out)


def _steps(recipe: Recipe) -> int:
    """Return how long a run is."""
    if recipe.train.steps is not None:
        return recipe.train.steps
    uses_unlabelled = build_method(recipe).uses_unlabelled
    return length_of(recipe.train, make_split(recipe.data), uses_unlabelled=uses_unlabelled).steps


def _recipe(
    suite: Suite,
    method: MethodEntry,
    model: ModelEntry,
    place: Prepared,
    *,
    fraction: float,
    seed: int,
    data: dict[str, Any],
) -> Recipe | None:
    """Return the recipe of a run: the method's, with the suite's, the method's and the network's changes, on this data.

    None: the method needs a VLM's labels and this data has none.
    """
    content = read_with_base(method.recipe)
    content.pop("pseudo", None)
    for changes in (suite.set, method.set, {"model": model.set} if model.set else {}):
        content = put_over(content, changes)
    split = str(place.split_file(fraction, seed))
    own = {"dataset": "folder", "options": {}, "root": str(place.root), "split": split, "labelled": fraction}
    content["data"] = content.get("data", {}) | own | data
    content |= {"seed": seed, "name": f"{method.name}, {fraction:.0%} labels, seed {seed}"}
    recipe = parse_recipe(content, source=f"{method.recipe} with the suite's changes")
    if not build_method(recipe).uses_vlm:
        return recipe
    if place.store is None:
        return None
    content["pseudo"] = {"store": str(place.store)}
    return parse_recipe(content, source=f"{method.recipe} with the suite's changes")
