"""A suite's TOML file -> one frozen, checked object."""

from __future__ import annotations

import re
from itertools import combinations
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from semicdvl.ceg.prompts import PROMPT_SETS
from semicdvl.config import ConfigSection, parse_section, read_toml
from semicdvl.errors import ConfigError
from semicdvl.registry import suggest_nearest
from semicdvl.unsupervised import UNSUPERVISED
from semicdvl.vlms import VLMS

Fraction = Annotated[float, Field(gt=0, le=1)]


# ------------------------------------------------------------------------------------------------ data sets
class CEGConfig(ConfigSection):
    """How the VLM's answers become labels; see `pseudo_labels.generate.CEGSettings`."""

    level: Literal["mixed", "instance", "pixel"] = "mixed"
    gamma: float | None = Field(None, ge=0, le=1, description="None: the VLM's own choice")
    gamma_segmentation: float | None = Field(None, ge=0, le=1, description="None: as gamma")
    delta: float = Field(0.0, ge=0, le=1)


class DataEntry(ConfigSection):
    """What every data set of a suite has."""

    name: str = Field(description="for the table; letters, digits, - and _")
    ceg: CEGConfig = CEGConfig()
    draw_seed: int | None = Field(
        None,
        ge=0,
        description="seed of one draw of the labelled pairs (and sides) that all runs share, as published lists are; "
        "None: each seed draws its own",
    )


class CityEntry(DataEntry):
    """Patches of made-up cities, and a made-up VLM whose errors are chosen here. Each city is on one side only."""

    kind: Literal["city"] = "city"
    name: str = "city"
    city_px: int = Field(1024, ge=64, description="side of a city in pixels")
    patch_px: int = Field(128, ge=32, description="side of a patch in pixels")
    train_cities: int = Field(4, ge=1)
    val_cities: int = Field(1, ge=1)
    test_cities: int = Field(2, ge=1)
    first_seed: int = Field(100, ge=0, description="seed of the first city; the others follow")
    city: dict[str, float] = Field(default_factory=dict, description="fields of CitySpec, such as {haze = 0.3}")
    vlm: dict[str, float] = Field(default_factory=dict, description="fields of Flaws, such as {miss_frac = 0.3}")


class RealEntry(DataEntry):
    """Real building-change pairs, crops of FOTBCD and LEVIR-CD; left out, saying so, where the folder is not there."""

    kind: Literal["real"] = "real"
    name: str = "real"
    root: Path = Field(Path("../shared/data"), description="holds fotbcd/, fotbcd_instances/, levir/, levir_crops/")
    crop_px: int = Field(256, ge=64)
    vlm: str = "aerial"


class FolderEntry(DataEntry):
    """A data set of the user's own, with its pseudo-label store."""

    kind: Literal["folder"] = "folder"
    dataset: str = Field("folder", description="reader, see `semicdvl list datasets`")
    root: Path
    store: Path | None = Field(None, description="what `semicdvl pseudo` wrote; None: methods with a VLM are left out")
    lists: Path | None = Field(
        None, description="published lists: 5%/labeled.txt, ...; None: drawn by fraction and seed"
    )
    unlabelled: Path | None = Field(None, description="another data set, whose training pairs join without labels")
    val_frac: float = Field(0.15, ge=0, lt=1)
    test_frac: float = Field(0.25, ge=0, lt=1)
    options: dict[str, Any] = Field(default_factory=dict, description="options of the reader")


DATA_KINDS: dict[str, type[CityEntry] | type[RealEntry] | type[FolderEntry]] = {
    "city": CityEntry,
    "real": RealEntry,
    "folder": FolderEntry,
}


# ------------------------------------------------------------------------------------------------ what is compared
class MethodEntry(ConfigSection):
    """A line of the plot: a recipe with changes."""

    name: str = Field(description="for the table, such as SemiCD-VL")
    recipe: Path = Field(description="path relative to the suite's file")
    set: dict[str, Any] = Field(default_factory=dict, description="changes of the recipe, by section")
    labelled: tuple[Fraction, ...] | None = Field(None, description="fractions of this method alone")
    steps_of: str | None = Field(None, description="another method of the suite: as many steps as that one makes")
    store: Path | None = Field(None, description="its own pseudo-label store, in place of the data's")


class ModelEntry(ConfigSection):
    """A network that every method is run with."""

    name: str
    set: dict[str, Any] = Field(default_factory=dict, description="the recipe's model section, or part of it")


class ZeroLabelConfig(ConfigSection):
    """Change event generation of a detector: the options of `semicdvl detect` without labels, with its defaults."""

    level: Literal["mixed", "instance", "pixel"] = "instance"
    gamma: float | None = Field(None, ge=0, le=1, description="None: the VLM's own choice")
    delta: float = Field(0.0, ge=0, le=1)
    shift_px: int = Field(0, ge=0)
    replaced_iou: float | None = Field(None, ge=0, le=1)
    replaced_class: bool = False
    min_cosine: float | None = Field(None, ge=-1, le=1, description="with `features`")
    features: str | None = Field(None, description="backbone whose features are compared, with `min_cosine`")
    calibrate: bool = False
    prompts: str = Field("buildings", description="see `semicdvl list prompts`")


class DetectorEntry(ConfigSection):
    """A line of the plot that is not trained: a classic method, or a VLM with change event generation."""

    name: str = Field(description="for the table, such as IR-MAD")
    method: str | None = Field(None, description="see `semicdvl list classic`, or package.module:builder")
    vlm: str | None = Field(None, description="in place of `method`: see `semicdvl list vlms`")
    options: dict[str, Any] = Field(default_factory=dict, description="of the method or the VLM")
    ceg: ZeroLabelConfig | None = Field(None, description="with `vlm`")
    fit: Literal["side", "pair"] = Field(
        "side",
        description="what a method's statistics and threshold are those of: all test pairs together, as is right for "
        "patches, or each pair by itself, as `semicdvl detect` does; a VLM has none, and objects end with their pair",
    )
    gsd_m: float | None = Field(None, gt=0, description="metres per pixel; None: what the suite knows of the data set")


class Suite(ConfigSection):
    """All that determines a benchmark."""

    SECTIONS: ClassVar[dict[str, type[ConfigSection]]] = {
        "methods": MethodEntry,
        "models": ModelEntry,
        "detectors": DetectorEntry,
    }

    name: str = "suite"
    labelled: tuple[Fraction, ...] = Field((), description="label fractions; needed where there are methods")
    seeds: tuple[Annotated[int, Field(ge=0)], ...] = Field((0, 1, 2), min_length=1)
    data: tuple[CityEntry | RealEntry | FolderEntry, ...] = Field(min_length=1)
    methods: tuple[MethodEntry, ...] = ()
    models: tuple[ModelEntry, ...] = ()
    detectors: tuple[DetectorEntry, ...] = Field((), description="what is not trained, on the same test pairs")
    set: dict[str, Any] = Field(default_factory=dict, description="changes of every recipe, by section")
    test_best: bool = Field(
        False, description="also note test at each validation: what papers picked on test would say"
    )
    compare: tuple[tuple[str, str], ...] | None = Field(
        None,
        description="pairs of methods (or detectors) whose difference is shown, better one first; None: all methods, "
        "later minus earlier",
    )

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


def load_suite(path: Path) -> Suite:
    """Read a suite; recipes are found beside it.

    Raises:
        InputError: the file is missing or not TOML.
        ConfigError: a key is unknown or a value does not fit; names repeat, or a compared method is none of the suite.
    """
    content = read_toml(path)
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
        method.model_copy(update={"recipe": (path.parent / method.recipe).resolve()}) for method in suite.methods
    )
    return suite.model_copy(update={"methods": methods})


def _read_tables(content: dict[str, Any], key: str, path: Path) -> list[dict[str, Any]]:
    """Return a list of tables, empty where there is none."""
    entries = content.get(key, [])
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise ConfigError(f"{path}: {key} is no list of tables; write each under [[{key}]].")
    return entries


def _parse_data_entry(entry: dict[str, Any], source: str) -> ConfigSection:
    """Check one data set by its kind."""
    kind = entry.get("kind")
    if kind not in DATA_KINDS:
        known = ", ".join(DATA_KINDS)
        raise ConfigError(
            f"{source}: kind = {kind!r} is not known.{suggest_nearest(str(kind), DATA_KINDS)} Known: {known}."
        )
    return parse_section(DATA_KINDS[kind], entry, source=source)


def _check_names(suite: Suite, path: Path) -> None:
    """Refuse names that repeat, that make no folder, or that `compare` invents."""
    called = {key: [entry.name for entry in getattr(suite, key)] for key in ("data", "methods", "detectors", "models")}
    called["methods"] += called.pop("detectors")  # rows of one table
    for key, names in called.items():
        if twice := {name for name in names if names.count(name) > 1}:
            raise ConfigError(f"{path}: two {key} are called '{min(twice)}'. Give each a name of its own.")
        for name in names:
            if not re.fullmatch(r"[\w .+-]+", name):
                raise ConfigError(
                    f"{path}: {key} name '{name}' makes no folder; use letters, digits, - _ . + and space."
                )
    methods = [method.name for method in suite.methods]
    for method in suite.methods:
        if method.steps_of is not None and method.steps_of not in methods:
            hint = suggest_nearest(method.steps_of, methods)
            raise ConfigError(f"{path}: steps_of of '{method.name}' names no method '{method.steps_of}'.{hint}")
    for name in {name for pair in suite.list_comparisons() for name in pair} - set(called["methods"]):
        raise ConfigError(f"{path}: compare names no method '{name}'.{suggest_nearest(name, called['methods'])}")


def _check_detectors(suite: Suite, path: Path) -> None:
    """Refuse a suite without a row, methods without labels, and detectors that are neither or both of two things."""
    if not suite.methods and not suite.detectors:
        raise ConfigError(f"{path}: there is nothing to compare; write what is trained under [[methods]].")
    if suite.methods and not suite.labelled:
        raise ConfigError(f"{path}: the key 'labelled' is missing; add it, such as labelled = [0.05, 0.1].")
    for entry in suite.detectors:
        if (entry.method is None) == (entry.vlm is None):
            raise ConfigError(
                f"{path}: detector '{entry.name}' wants one of method (see `semicdvl list classic`) and vlm."
            )
        if entry.ceg is not None and entry.vlm is None:
            raise ConfigError(f"{path}: detector '{entry.name}': ceg belongs to a vlm, and {entry.method} asks none.")
        for kind, name, known in (("method", entry.method, UNSUPERVISED), ("VLM", entry.vlm, VLMS)):
            if name is not None and name not in known and ":" not in name:
                raise ConfigError(
                    f"{path}: detector '{entry.name}': unknown {kind} '{name}'.{suggest_nearest(name, known)} "
                    f"Known: {', '.join(sorted(known))}."
                )
        if entry.ceg is not None and entry.ceg.prompts not in PROMPT_SETS:
            known_sets = ", ".join(PROMPT_SETS)
            raise ConfigError(f"{path}: detector '{entry.name}': prompts '{entry.ceg.prompts}'; known: {known_sets}.")
