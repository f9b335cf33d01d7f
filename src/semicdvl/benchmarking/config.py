"""A suite's TOML file -> one frozen, checked object."""

from __future__ import annotations

import re
from itertools import combinations
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator

from semicdvl.ceg.config import CEGLevel, CEGSettings, choose_detection_level
from semicdvl.ceg.prompts import PROMPT_SETS
from semicdvl.config import (
    ConfigSection,
    DataConfig,
    check_output_name,
    find_shipped,
    locate_recipe,
    parse_section,
    read_toml,
)
from semicdvl.errors import ConfigError
from semicdvl.reading.regular_files import resolve_links
from semicdvl.registry import suggest_nearest
from semicdvl.types import VLM
from semicdvl.unsupervised import UNSUPERVISED
from semicdvl.vlms import VLMS

Fraction = Annotated[float, Field(ge=0, le=1)]


# ------------------------------------------------------------------------------------------------ data sets
class CEGConfig(ConfigSection):
    """How the VLM's answers become the labels that are trained on; see `ceg.config.CEGSettings`."""

    level: CEGLevel = "mixed"
    gamma: float | None = Field(None, ge=0, le=1, description="None: the VLM's own choice")
    gamma_segmentation: float | None = Field(None, ge=0, le=1, description="None: as gamma")
    delta: float = Field(0.0, ge=0, le=1)

    def make_settings(self, vlm: VLM) -> CEGSettings:
        """Return the settings of change event generation with this VLM."""
        gamma = vlm.gamma if self.gamma is None else self.gamma
        segmentation = gamma if self.gamma_segmentation is None else self.gamma_segmentation
        return CEGSettings(level=self.level, gamma=gamma, gamma_segmentation=segmentation, delta=self.delta)


class DataEntry(ConfigSection):
    """What every data set of a suite has."""

    name: str = Field(description="for the table; letters, digits, - and _")
    ceg: CEGConfig = CEGConfig()
    draw_seed: int | None = Field(
        None,
        ge=0,
        description="seed of one draw of the labelled pairs (and of the subsets) for all runs, as published lists are; "
        "None: each seed draws its own",
    )


class CityEntry(DataEntry):
    """Patches of synthetic cities, and a simulated VLM with errors of chosen size. Each city is in one subset only."""

    kind: Literal["city"] = "city"
    name: str = "city"
    city_px: int = Field(1024, ge=64, description="side of a city in pixels")
    patch_px: int = Field(128, ge=32, description="side of a patch in pixels")
    train_cities: int = Field(4, ge=1)
    val_cities: int = Field(1, ge=1)
    test_cities: int = Field(2, ge=1)
    first_seed: int = Field(100, ge=0, description="seed of the first city; the others follow")
    city: dict[str, float] = Field(default_factory=dict, description="fields of CitySpec, such as {haze = 0.3}")
    vlm: dict[str, float] = Field(default_factory=dict, description="fields of AnswerErrors, such as {miss_frac = 0.3}")
    classes: bool = Field(
        False,
        description="the patches have the classes of both dates (building, road, vegetation, bare, water), and the "
        "VLM's labels are of these; it is not asked for bare ground",
    )
    classes_known: Literal["everywhere", "changed"] = Field(
        "everywhere",
        description="where the training patches have classes: everywhere, or on changed ground alone, as in SECOND",
    )


class RealEntry(DataEntry):
    """Real building-change pairs, crops of FOTBCD and LEVIR-CD; left out, with a note, where the folder is missing."""

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
        None, description="published lists: train.txt, 5%/labeled.txt, ...; None: drawn by fraction and seed"
    )
    unlabelled: Path | None = Field(None, description="another data set, whose training pairs join without labels")
    val_frac: float = Field(0.15, ge=0, lt=1)
    test_frac: float = Field(0.25, ge=0, lt=1)
    options: dict[str, Any] = Field(default_factory=dict, description="options of the reader")

    def make_data_config(self, fraction: float, seed: int) -> DataConfig:
        """Return the data section of a recipe for a fraction of labels and the seed of their draw."""
        return DataConfig(
            dataset=self.dataset,
            root=self.root,
            labelled=fraction if self.lists is None else self.lists / f"{100 * fraction:g}%",
            val_frac=self.val_frac,
            test_frac=self.test_frac,
            split_seed=seed,
            unlabelled=self.unlabelled,
            options=self.options,
        )


DATA_KINDS: dict[str, type[CityEntry] | type[RealEntry] | type[FolderEntry]] = {
    "city": CityEntry,
    "real": RealEntry,
    "folder": FolderEntry,
}


# ------------------------------------------------------------------------------------------------ what is compared
class MethodEntry(ConfigSection):
    """A row that is trained: a recipe with changes."""

    name: str = Field(description="for the table, such as SemiCD-VL")
    recipe: Path = Field(description="path relative to the suite's file, or the name of a shipped recipe")
    set: dict[str, Any] = Field(default_factory=dict, description="changes of the recipe, by section")
    labelled: tuple[Fraction, ...] | None = Field(None, description="fractions of this method alone")
    steps_of: str | None = Field(None, description="another method of the suite: as many steps as that one")
    store: Path | None = Field(None, description="its own pseudo-label store, in place of the data's")


class ModelEntry(ConfigSection):
    """A network that every method is run with."""

    name: str
    set: dict[str, Any] = Field(default_factory=dict, description="the recipe's model section, or part of it")


class ZeroLabelConfig(ConfigSection):
    """Change event generation of a detector: options and defaults of `semicdvl detect` without labels."""

    level: CEGLevel | None = Field(None, description="None: the one that the given settings belong to, as in `detect`")
    gamma: float | None = Field(None, ge=0, le=1, description="None: the VLM's own choice")
    delta: float = Field(0.0, ge=0, le=1)
    shift_px: int = Field(0, ge=0)
    replaced_iou: float | None = Field(None, ge=0, le=1)
    replaced_class: bool = False
    min_cosine: float | None = Field(None, ge=-1, le=1, description="with `features`")
    features: str | None = Field(None, description="backbone whose features are compared, with `min_cosine`")
    calibrate: bool = False
    prompts: str = Field("buildings", description="see `semicdvl list prompts`")

    def choose_level(self) -> CEGLevel:
        """Return the level, given or chosen."""
        given = [name for name, one in type(self).model_fields.items() if getattr(self, name) != one.default]
        return self.level or choose_detection_level(given, calibrate=self.calibrate)

    def make_settings(self, vlm: VLM) -> CEGSettings:
        """Return the settings of change event generation with this VLM."""
        gamma = vlm.gamma if self.gamma is None else self.gamma
        own = self.model_dump(exclude={"level", "gamma", "features", "calibrate", "prompts"})
        return CEGSettings(level=self.choose_level(), gamma=gamma, gamma_segmentation=gamma, **own)


class DetectorEntry(ConfigSection):
    """A row that is not trained: an unsupervised method, or a VLM with change event generation."""

    name: str = Field(description="for the table, such as IR-MAD")
    method: str | None = Field(None, description="see `semicdvl list classic`, or package.module:builder")
    vlm: str | None = Field(None, description="in place of `method`: see `semicdvl list vlms`")
    options: dict[str, Any] = Field(default_factory=dict, description="of the method or the VLM")
    ceg: ZeroLabelConfig | None = Field(None, description="with `vlm`")
    fit: Literal["side", "pair"] = Field(
        "side",
        description="over what a method computes its statistics and its threshold: `side`, all test pairs together, "
        "which suits patches, or each `pair` by itself, as `semicdvl detect` does; a VLM has none of these",
    )
    gsd_m: float | None = Field(None, gt=0, description="metres per pixel; None: as known of the data set")

    @property
    def zero_label(self) -> ZeroLabelConfig | None:
        """Change event generation of a VLM, the default where none is given; None for a method."""
        return None if self.vlm is None else self.ceg or ZeroLabelConfig()


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
    seeds: tuple[Annotated[int, Field(ge=0)], ...] = Field((0, 1, 2), min_length=1)
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
        if twice := [value for value in given if given.count(value) > 1]:
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
    if kind not in DATA_KINDS:
        known = ", ".join(DATA_KINDS)
        raise ConfigError(
            f"{source}: kind = {kind!r} is not known.{suggest_nearest(str(kind), DATA_KINDS)} Known: {known}."
        )
    return parse_section(DATA_KINDS[kind], entry, source=source)


def _check_names(suite: Suite, path: Path) -> None:
    """Refuse names that repeat, that cannot name a folder, or that `compare` gives and nothing has."""
    called = {key: [entry.name for entry in getattr(suite, key)] for key in ("data", "methods", "detectors", "models")}
    called["methods"] += called.pop("detectors")  # rows of one table
    for key, names in called.items():
        if twice := {name for name in names if names.count(name) > 1}:
            raise ConfigError(f"{path}: two {key} are called '{min(twice)}'. Give each its own name.")
        for name in names:
            if not re.fullmatch(r"[\w .+-]+", name):
                raise ConfigError(
                    f"{path}: {key} name '{name}' cannot name a folder; use letters, digits, - _ . + and space."
                )
    methods = [method.name for method in suite.methods]
    for method in suite.methods:
        if method.steps_of is not None and method.steps_of not in methods:
            hint = suggest_nearest(method.steps_of, methods)
            raise ConfigError(f"{path}: steps_of of '{method.name}' names no method '{method.steps_of}'.{hint}")
    for name in {name for pair in suite.list_comparisons() for name in pair} - set(called["methods"]):
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
