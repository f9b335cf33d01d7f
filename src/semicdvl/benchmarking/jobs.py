"""Suite -> jobs: one recipe per data set, method, network, label fraction and seed."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache, partial
from itertools import product
from pathlib import Path
from typing import Any

from torch import nn

from semicdvl.atomic_files import write_json
from semicdvl.benchmarking.config import FolderEntry, MethodEntry, ModelEntry, Suite
from semicdvl.benchmarking.data import PreparedData
from semicdvl.benchmarking.detector_jobs import NO_NETWORK, DetectorJob, plan_detector_jobs
from semicdvl.benchmarking.job_files import JobFiles, build_file_name
from semicdvl.config import (
    Location,
    Recipe,
    find_file_of_key,
    holds_key,
    merge_recipes,
    parse_recipe,
    read_with_base,
)
from semicdvl.errors import ConfigError
from semicdvl.training.compatibility import build_meta_network, check_compatibility
from semicdvl.training.length import compute_training_length
from semicdvl.training.parts import build_method, make_split

RECIPE_MODEL = "recipe's"
"""Name of the network where the suite names none: the one of each method's recipe."""
KEYS_SINCE_0_2: dict[str, dict[str, Any]] = {
    "": {"classes": None},
    "data": {"bands": None, "group": None, "hflip": 0.5, "rotate_deg": 0.0},
    "pseudo": {"source": "store", "change": None, "segmentation": None, "shuffled": False},
    "train": {"ema_ramp": False, "cross_validate": False},
}
"""Keys of recipes, by section, that version 0.1 did not have, with the values that train as it did."""


@dataclass(frozen=True)
class TrainingJob(JobFiles):
    """One training run.

    Attributes:
        data, method, model, labelled, seed: its place in the suite.
        recipe: all that determines it.
        steps: its length.
        out: folder of the suite.
    """

    data: str
    method: str
    model: str
    labelled: float
    seed: int
    recipe: Recipe
    steps: int
    out: Path

    @property
    def name(self) -> str:
        """Name of its files; the end changes with the recipe, so that a changed suite does not reuse old runs."""
        words = [self.data, self.method, *([self.model] if self.model != RECIPE_MODEL else []), f"{self.labelled:g}"]
        words += [f"s{self.seed}"]
        return build_file_name(words, _describe_recipe(self.recipe), out=self.out)

    @property
    def cost(self) -> float:
        """Relative cost: pairs that pass the network (an unlabelled pair passes three times)."""
        train, unlabelled = self.recipe.train, build_method(self.recipe).uses_unlabelled
        passes = 1 if train.fits_at_once else self.steps * train.accumulate
        return passes * (train.labelled_batch + (3 * train.unlabelled_batch if unlabelled else 0))

    @property
    def place(self) -> dict[str, Any]:
        """Its place in the suite, as outcomes have it."""
        return {name: getattr(self, name) for name in ("data", "method", "model", "labelled", "seed", "steps")}

    def write(self) -> Path:
        """Write the file that `benchmarking.worker` starts from, and return it."""
        path = self.out / "jobs" / f"{self.name}.json"
        content = {"job": self.place, "recipe": self.recipe.model_dump(mode="json")}
        write_json(path, content | {"run": str(self.run), "result": str(self.result)})
        return path


BenchmarkJob = TrainingJob | DetectorJob


@dataclass(frozen=True)
class JobPlan:
    """The runs of a suite.

    Attributes:
        jobs: in the order of data sets; detectors first, then fractions, seeds and methods.
        left_out: why methods or combinations of method and network are missing, a sentence each.
    """

    jobs: tuple[BenchmarkJob, ...]
    left_out: tuple[str, ...] = field(default=())


def check_suite(suite: Suite) -> None:
    """Refuse what cannot work with any data, before anything is rendered, labelled by a VLM or trained.

    Raises:
        InputError: a recipe is missing or not TOML.
        ConfigError: a recipe, a method or a network is unknown or has other options; a network lacks what its method
            needs (what `plan_jobs` leaves out is not refused); or the test pairs would choose the step.
    """
    networks = suite.models or (ModelEntry(name=RECIPE_MODEL),)
    for method, model in product(suite.methods, networks):
        content = _apply_changes(suite, method, model)
        anywhere = {"root": ".", "labelled": min(suite.list_fractions(method)), "split": None, "unlabelled": None}
        _add_to_section(content, "data", anywhere)
        if "pseudo" in content:
            _add_to_section(content, "pseudo", {"store": "."})
        try:
            recipe = parse_recipe(
                content,
                source=str(method.recipe),
                find_source=partial(_find_source, suite=suite, method=method, model=model),
            )
            _refuse_choice_on_test(recipe)
            _find_incompatibility(recipe, is_refused=not suite.models and _has_labels(suite, method, recipe))
        except ConfigError as error:
            network = f" with network '{model.name}'" if suite.models else ""
            raise ConfigError(f"suite '{suite.name}', method '{method.name}'{network}: {error}") from None


def _add_to_section(content: dict[str, Any], name: str, values: dict[str, Any]) -> None:
    """Add values to a section of a plain recipe; what is no section is left to the check of the recipe."""
    if isinstance(own := content.get(name, {}), dict):
        content[name] = own | values


def _refuse_choice_on_test(recipe: Recipe) -> None:
    """Refuse a recipe whose step the test pairs choose: its scores would stand in the column of validation."""
    if recipe.train.select == "test":
        raise ConfigError(
            "train.select = 'test' chooses the step on the test pairs, and a suite compares steps chosen on validation."
            " Take it out, and set test_best = true at the top of the suite: a column of its own then has such scores."
        )


def plan_jobs(suite: Suite, prepared: Mapping[str, PreparedData], out: Path) -> JobPlan:
    """Return the jobs of a suite, and what is left out.

    Left out are methods that learn from a VLM, on data without a store, and methods that need heads a network lacks,
    where the suite combines all methods with all networks.

    Raises:
        ConfigError, InputError: a recipe cannot be used.
        DataError: a fraction leaves no labelled pair.
    """
    jobs, reasons = list[BenchmarkJob](), dict[str, None]()
    nameless = NO_NETWORK if suite.models else RECIPE_MODEL
    for entry in suite.data:
        if entry.name in prepared:
            jobs += plan_detector_jobs(suite, entry, prepared[entry.name], out, network=nameless)
            for found in _plan_training_jobs(suite, entry, prepared[entry.name], out):
                if isinstance(found, TrainingJob):
                    jobs.append(found)
                else:
                    reasons[found] = None
    return JobPlan(tuple(jobs), tuple(reasons))


def _plan_training_jobs(suite: Suite, entry: Any, place: PreparedData, out: Path) -> Iterator[TrainingJob | str]:
    """Yield the jobs on one data set, or why there is none; all methods of a seed in turn: early results compare."""
    every = sorted({fraction for method in suite.methods for fraction in suite.list_fractions(method)})
    networks = suite.models or (ModelEntry(name=RECIPE_MODEL),)
    for fraction, seed, method, model in product(every, suite.seeds, suite.methods, networks):
        if fraction not in suite.list_fractions(method):
            continue
        making = _JobContext(suite, method, model, place, entry, fraction, seed)
        recipe = making.build_recipe()
        if recipe is None:
            yield f"{method.name} on '{entry.name}': it learns from a VLM and this data has no store."
        elif why := _find_incompatibility(recipe, is_refused=not suite.models):
            yield f"{method.name} with network {model.name}: {why}"
        else:
            yield TrainingJob(entry.name, method.name, model.name, fraction, seed, recipe, _count_steps(recipe), out)


def _count_steps(recipe: Recipe) -> int:
    """Return the number of steps of a run."""
    if recipe.train.steps is not None:
        return recipe.train.steps
    uses_unlabelled = build_method(recipe).uses_unlabelled
    return compute_training_length(recipe.train, make_split(recipe.data), uses_unlabelled=uses_unlabelled).steps


def _find_incompatibility(recipe: Recipe, *, is_refused: bool) -> str:
    """Return why a method and a network are incompatible; the empty string if they are not.

    Raises:
        ConfigError: they are, and `is_refused`; or one of them is unknown.
    """
    method, network = build_method(recipe), _build_meta_network(recipe.model.model_dump_json())
    try:
        check_compatibility(recipe, method, network)
    except ConfigError as error:
        if is_refused:
            raise
        return str(error)
    return ""


def _has_labels(suite: Suite, method: MethodEntry, recipe: Recipe) -> bool:
    """Tell whether some data set has the VLM's labels for a method that learns from them; others need none."""
    stores = [method.store, *(entry.store if isinstance(entry, FolderEntry) else True for entry in suite.data)]
    return any(stores) or not build_method(recipe).uses_vlm


def _apply_changes(suite: Suite, method: MethodEntry, model: ModelEntry) -> dict[str, Any]:
    """Return the plain recipe of a method with the suite's, its own and the network's changes."""
    content = read_with_base(method.recipe)
    content.pop("pseudo", None)  # which store is decided by the data
    for changes in (suite.set, method.set, {"model": model.set} if model.set else {}):
        content = merge_recipes(content, changes)
    return content


def _find_source(location: Location, *, suite: Suite, method: MethodEntry, model: ModelEntry) -> str | None:
    """Return where a key of a method's recipe stands: in the suite, or in a file."""
    changes = {
        "set of the network": {"model": model.set},
        "set of the method": method.set,
        "set of the suite": suite.set,
    }
    place = next((place for place, changed in changes.items() if holds_key(changed, location)), None)
    return place or find_file_of_key(location, method.recipe)


@cache
def _build_meta_network(part: str) -> nn.Module:
    """Return the network of a model section, given as JSON, without weights."""
    return build_meta_network(json.loads(part))


def _describe_recipe(recipe: Recipe) -> dict[str, Any]:
    """Return what determines a run, as plain values, without its name.

    A key of `KEYS_SINCE_0_2` is in it only where it has an influence: the names of older runs stay as they are.
    """
    plain = recipe.model_dump(mode="json") | {"name": ""}
    for name, defaults in KEYS_SINCE_0_2.items():
        section = plain[name] if name else plain
        for key in [key for key in defaults if section is not None and section[key] == defaults[key]]:
            del section[key]
    return plain


@dataclass(frozen=True)
class _JobContext:
    """A place in the suite whose recipe is to be built."""

    suite: Suite
    method: MethodEntry
    model: ModelEntry
    place: PreparedData
    entry: Any
    fraction: float
    seed: int

    def build_recipe(self) -> Recipe | None:
        """Return the method's recipe with the suite's, its own and the network's changes, on this data.

        None: the method needs a VLM's labels and there are none.
        """
        content = self._build_content(self.method)
        pseudo = content.pop("pseudo", {})
        if self.method.steps_of is not None:
            content["train"] = self._adopt_length(self.method.steps_of, content.get("train", {}))
        source = f"{self.method.recipe} with the suite's changes"
        recipe = parse_recipe(content, source=source)
        if not build_method(recipe).uses_vlm:
            return recipe
        store = self.method.store or self.place.store
        if store is None:
            return None
        return parse_recipe(content | {"pseudo": pseudo | {"store": str(store)}}, source=source)

    def _build_content(self, method: MethodEntry) -> dict[str, Any]:
        """Return the plain recipe of a method at this place."""
        content = _apply_changes(self.suite, method, self.model)
        draw = self.seed if self.entry.draw_seed is None else self.entry.draw_seed
        split = str(self.place.write_split_file(self.fraction, draw))
        own = {"dataset": "folder", "options": {}, "root": str(self.place.root), "labelled": self.fraction}
        own |= {"split": split, "unlabelled": None}  # the split file has the other data set's pairs already
        if isinstance(self.entry, FolderEntry):
            own |= {"dataset": self.entry.dataset, "options": self.entry.options}
        content["data"] = content.get("data", {}) | own
        if self.suite.test_best:
            content["train"] = content.get("train", {}) | {"score_test": True}
        return content | {"seed": self.seed, "name": f"{method.name}, {self.fraction:.0%} labels, seed {self.seed}"}

    def _adopt_length(self, name: str, own: dict[str, Any]) -> dict[str, Any]:
        """Return a train section with the steps and validations of another method at this place."""
        other = next(method for method in self.suite.methods if method.name == name)
        recipe = parse_recipe(self._build_content(other), source=str(other.recipe))
        uses_unlabelled = build_method(recipe).uses_unlabelled
        length = compute_training_length(recipe.train, make_split(recipe.data), uses_unlabelled=uses_unlabelled)
        rest = {key: value for key, value in own.items() if key != "epochs"}
        return rest | {"steps": length.steps, "eval_every": length.eval_every}
