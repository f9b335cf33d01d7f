"""A suite's TOML file -> one frozen, checked object."""

from __future__ import annotations

import re
from collections import Counter
from itertools import combinations
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import Field, field_validator

from semicdvl.benchmarking.config.data_entries import DATA_KINDS, CityEntry, FolderEntry, RealEntry
from semicdvl.benchmarking.config.rows import DetectorEntry, Fraction, MethodEntry, ModelEntry
from semicdvl.ceg.prompts import PROMPT_SETS
from semicdvl.config import (
    ConfigSection,
    check_output_name,
    find_shipped,
    locate_recipe,
    parse_section,
    read_toml,
)
from semicdvl.errors import ConfigError
from semicdvl.reading.json_files import shorten
from semicdvl.reading.limits import MAX_SEED
from semicdvl.reading.regular_files import resolve_links
from semicdvl.registry import suggest_nearest
from semicdvl.unsupervised import UNSUPERVISED
from semicdvl.vlms import VLMS


class Suite(ConfigSection):
    """All that determines a benchmark: methods, models and detectors x label fractions x seeds x data sets.

    Examples:
        >>> import semicdvl as cd
        >>> suite = cd.load_suite(suite_toml)
        >>> suite.labelled
        (0.05, 0.1, 1.0)
    """

    SECTIONS: ClassVar[dict[str, type[ConfigSection]]] = {
        "methods": MethodEntry,
        "models": ModelEntry,
        "detectors": DetectorEntry,
    }

    name: str = "suite"
    labelled: tuple[Fraction, ...] = Field(
        (), description="label fractions; needed where there are methods; 0: no labels, for methods that a VLM teaches"
    )
    seeds: tuple[Annotated[int, Field(ge=0, le=MAX_SEED)], ...] = Field((0, 1, 2), min_length=1)
    data: tuple[CityEntry | RealEntry | FolderEntry, ...] = Field(min_length=1)
    methods: tuple[MethodEntry, ...] = ()
    models: tuple[ModelEntry, ...] = ()
    detectors: tuple[DetectorEntry, ...] = Field((), description="rows that are not trained, on the same test pairs")
    set: dict[str, Any] = Field(default_factory=dict, description="changes of every recipe, by section")
    test_best: bool = Field(
        False, description="also score the test pairs at each validation, to compare with papers that select on them"
    )
    compare: tuple[tuple[str, str], ...] | None = Field(
        None,
        description="pairs of methods (or detectors) whose difference is shown, better one first; None: all methods, "
        "later minus earlier",
    )

    @field_validator("name")
    @classmethod
    def _require_folder_name(cls, given: str) -> str:
        """Refuse a name that leads out of `runs`."""
        return check_output_name(given)

    @field_validator("seeds", "labelled")
    @classmethod
    def _require_distinct_values(cls, given: tuple[float, ...]) -> tuple[float, ...]:
        """Refuse a seed or fraction that occurs twice: one run would count as two."""
        if twice := [value for value, count in Counter(given).items() if count > 1]:
            raise ValueError(f"{twice[0]} occurs twice. Give each value once")
        return given

    def list_fractions(self, method: MethodEntry) -> tuple[float, ...]:
        """Return the label fractions of a method: its own, else the suite's."""
        return method.labelled or self.labelled

    def list_comparisons(self) -> tuple[tuple[str, str], ...]:
        """Return the pairs of methods whose difference is shown."""
        if self.compare is not None:
            return self.compare
        names = [method.name for method in self.methods]
        return tuple((later, earlier) for earlier, later in combinations(names, 2))

    def replace_data_root(self, root: Path | None) -> Suite:
        """Return the suite with another folder of real pairs; None leaves it as it is."""
        if root is None:
            return self
        moved = tuple(
            entry.model_copy(update={"root": root}) if isinstance(entry, RealEntry) else entry for entry in self.data
        )
        return self.model_copy(update={"data": moved})


def load_suite(path: str | Path) -> Suite:
    """Read a suite; its recipes are given relative to its file, or by the name of a shipped one.

    Args:
        path: a TOML file, or the name of a shipped suite, such as "suites/small" (`semicdvl list recipes`).

    Returns:
        Suite: frozen and checked; `benchmark` runs it.

    Raises:
        InputError: the file is missing or not TOML.
        ConfigError: a key is unknown or a value does not fit; names repeat, or a compared method is not in the suite.

    Examples:
        >>> import semicdvl as cd
        >>> suite = cd.load_suite(suite_toml)
        >>> suite.name, suite.seeds
        ('small', (0, 1, 2))
    """
    path = find_shipped(Path(path))
    content = read_toml(path)
    if isinstance(content.get("data"), dict) and "methods" not in content:
        raise ConfigError(f"{path}: is a recipe, not a suite. Run it with `semicdvl train {path}`.")
    content["data"] = tuple(
        _parse_data_entry(entry, f"{path}: data {at}")
        for at, entry in enumerate(_read_tables(content, "data", path), 1)
    )
    for key, kind in Suite.SECTIONS.items():
        entries = _read_tables(content, key, path)
        content[key] = tuple(
            parse_section(kind, entry, source=f"{path}: {key} {at}") for at, entry in enumerate(entries, 1)
        )
    suite = parse_section(Suite, content, source=str(path))
    _check_names(suite, path)
    _check_detectors(suite, path)
    methods = tuple(
        method.model_copy(update={"recipe": resolve_links(locate_recipe(method.recipe, named_in=path))})
        for method in suite.methods
    )
    return suite.model_copy(update={"methods": methods})


def _read_tables(content: dict[str, Any], key: str, path: Path) -> list[dict[str, Any]]:
    """Return a list of tables of the suite's file; empty without any."""
    entries = content.get(key, [])
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise ConfigError(f"{path}: {key} is not a list of tables; write each under [[{key}]].")
    return entries


def _parse_data_entry(entry: dict[str, Any], source: str) -> ConfigSection:
    """Check one data set by its kind."""
    kind = entry.get("kind")
    if not isinstance(kind, str) or kind not in DATA_KINDS:
        hint = f"{suggest_nearest(str(kind), DATA_KINDS)} Known: {', '.join(DATA_KINDS)}."
        raise ConfigError(f"{source}: kind = {shorten(repr(kind))} is not known.{hint}")
    return parse_section(DATA_KINDS[kind], entry, source=source)


def _check_names(suite: Suite, path: Path) -> None:
    """Refuse names that repeat, that cannot name a folder, or that `compare` gives and nothing has."""
    called = {key: [entry.name for entry in getattr(suite, key)] for key in ("data", "methods", "detectors", "models")}
    called["methods"] += called.pop("detectors")  # rows of one table
    for key, names in called.items():
        if twice := [name for name, count in Counter(names).items() if count > 1]:
            raise ConfigError(f"{path}: two {key} are called '{min(twice)}'. Give each its own name.")
        for name in names:
            if not re.fullmatch(r"[\w .+-]+", name):
                raise ConfigError(
                    f"{path}: {key} name '{name}' cannot name a folder; use letters, digits, - _ . + and space."
                )
    methods = {method.name: None for method in suite.methods}
    for method in suite.methods:
        if method.steps_of is not None and method.steps_of not in methods:
            hint = suggest_nearest(method.steps_of, methods)
            raise ConfigError(f"{path}: steps_of of '{method.name}' names no method '{method.steps_of}'.{hint}")
    for name in {name for pair in suite.compare or () for name in pair} - set(called["methods"]):
        raise ConfigError(f"{path}: compare names no method '{name}'.{suggest_nearest(name, called['methods'])}")


def _check_detectors(suite: Suite, path: Path) -> None:
    """Refuse a suite without rows, methods without label fractions, detectors without exactly one of method and vlm."""
    if not suite.methods and not suite.detectors:
        raise ConfigError(f"{path}: there is nothing to compare; add [[methods]] or [[detectors]].")
    if suite.methods and not suite.labelled:
        raise ConfigError(f"{path}: the key 'labelled' is missing; add it, such as labelled = [0.05, 0.1].")
    for entry in suite.detectors:
        if (entry.method is None) == (entry.vlm is None):
            raise ConfigError(
                f"{path}: detector '{entry.name}' needs exactly one of method (see `semicdvl list classic`) and vlm."
            )
        if entry.ceg is not None and entry.vlm is None:
            raise ConfigError(
                f"{path}: detector '{entry.name}': ceg is an option of a vlm, and {entry.method} uses none."
            )
        for kind, name, known in (("method", entry.method, UNSUPERVISED), ("VLM", entry.vlm, VLMS)):
            if name is not None and name not in known and ":" not in name:
                raise ConfigError(
                    f"{path}: detector '{entry.name}': unknown {kind} '{name}'.{suggest_nearest(name, known)} "
                    f"Known: {', '.join(sorted(known))}."
                )
        if entry.ceg is not None and entry.ceg.prompts not in PROMPT_SETS:
            known_sets = ", ".join(PROMPT_SETS)
            raise ConfigError(f"{path}: detector '{entry.name}': prompts '{entry.ceg.prompts}'; known: {known_sets}.")
