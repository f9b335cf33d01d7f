"""Recipes: one TOML file -> one frozen, validated object; the error of an unknown key names the nearest known one."""

from __future__ import annotations

import math
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from semicdvl.errors import ConfigError, InputError
from semicdvl.reading.json_files import check_values, shorten
from semicdvl.reading.limits import MAX_RECIPE_BYTES, MAX_SEED
from semicdvl.reading.regular_files import read_bytes, require_file_or_folder, resolve_links
from semicdvl.registry import suggest_nearest
from semicdvl.types import ClassLegend

LABEL_MEANINGS = {"unchanged": 0, "changed": 1, "unknown": 255}
"""What a value of a label file may mean; 255 is `types.IGNORE`."""
MAX_LABEL_VALUE = 65_535
LENGTH_KEYS = {"steps": "epochs", "epochs": "steps"}
"""Two ways to give the length of a training; the one given later (over a base, with --set) replaces the other."""


def check_finite(settings: object, *names: str) -> None:
    """Refuse a setting that is infinite or not a number; None is no number and passes.

    Raises:
        ConfigError: a setting is; the first of them is named.
    """
    for name in names:
        value = getattr(settings, name)
        if value is not None and not math.isfinite(value):
            raise ConfigError(f"{name} is {value}. Give a finite number.")


def parse_label_values(text: str) -> dict[int, int]:
    """Return the meaning of each value from a text such as `255=changed,0=unchanged` or `0-127=unchanged,...`.

    The meaning is 0 for unchanged, 1 for changed and 255 for unknown.

    Raises:
        ConfigError: the text is of another form, or gives a value two meanings.
    """
    meanings: dict[int, int] = {}
    for part in text.split(","):
        numbers, _, meaning = (word.strip() for word in part.partition("="))
        for value in _parse_range(numbers, part.strip()):
            code = LABEL_MEANINGS.get(meaning.lower())
            if code is None:
                raise _make_label_value_error(part.strip())
            if meanings.setdefault(value, code) != code:
                raise ConfigError(f"--label-values gives the value {value} two meanings. Give it one.")
    return meanings


def _parse_range(numbers: str, part: str) -> range:
    """Return the values of `255` or `0-127`."""
    first, dash, last = (word.strip() for word in numbers.partition("-"))
    if not first.isdecimal() or not (last.isdecimal() or not dash):
        raise _make_label_value_error(part)
    low, high = int(first), int(last or first)
    if low > high or high > MAX_LABEL_VALUE:
        raise ConfigError(f"'{part}' is no range of values: give the smaller one first, up to {MAX_LABEL_VALUE}.")
    return range(low, high + 1)


def _make_label_value_error(part: str) -> ConfigError:
    return ConfigError(
        f"'{part}' does not say what a value means. Give values of 0 and more with one of"
        f" {', '.join(LABEL_MEANINGS)}, such as --label-values 255=changed,0=unchanged or 0-127=unchanged."
    )


class ConfigSection(BaseModel):
    """A part of a recipe; frozen, of finite numbers, and without keys that it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


ConfigSectionT = TypeVar("ConfigSectionT", bound=ConfigSection)


class DataConfig(ConfigSection):
    """Which pairs are used for what."""

    dataset: str = Field("folder", description="reader, see `semicdvl list datasets`")
    root: Path = Field(description="folder of the data set")
    labelled: Annotated[float, Field(ge=0, le=1)] | Path = Field(
        1.0,
        description="fraction of the training pairs that keep their label, or a folder with labeled.txt, unlabeled.txt;"
        " 0: none, for a method that learns from a VLM's labels alone",
    )
    val_frac: float = Field(0.15, ge=0, lt=1, description="for data sets without own lists: share of validation pairs")
    test_frac: float = Field(0.25, ge=0, lt=1, description="for data sets without own lists: share of test pairs")
    split_seed: int = Field(
        0, ge=0, le=MAX_SEED, description="seed of the split; splits of one seed are nested (5 % inside 10 %)"
    )
    split: Path | None = Field(None, description="a split written earlier; overrules all of the above")
    unlabelled: Path | None = Field(
        None, description="another data set of the same kind whose pairs join without labels"
    )
    crop_px: int = Field(256, ge=32, le=2048, description="side of a training crop")
    scale: tuple[float, float] = Field((0.8, 1.2), description="range of a training pair's new long side over the old")
    rot90: bool = Field(False, description="also turn crops by quarter turns; sensible for views from above")
    hflip: float = Field(0.5, ge=0, le=1, description="probability of a flip left to right")
    vflip: float = Field(0.0, ge=0, le=1, description="probability of a flip top to bottom")
    paired_looks: bool = Field(
        False,
        description="strong views: one draw of colour and blur for both dates; false: each date its own",
    )
    label_values: dict[int, int] | None = Field(
        None,
        description="meaning of other label values than 0, 1 and 255, such as {0 = 0, 128 = 255, 255 = 1}, or in words"
        " and ranges: '0-127=unchanged,128-255=changed' or {0-127 = 'unchanged', 128-255 = 'changed'}",
    )
    group: str | None = Field(
        None,
        description="what names the picture of a pair, so that its crops stay on one side of the split: a regular"
        " expression such as '^(.+)_[0-9]+$', or a column of manifest.csv in root",
    )
    options: dict[str, Any] = Field(default_factory=dict, description="options of the reader, see its docstring")

    @field_validator("label_values", mode="before")
    @classmethod
    def _read_label_values(cls, given: Any) -> Any:
        """Read words and ranges; numbers are checked as numbers."""
        try:
            if isinstance(given, str):
                return parse_label_values(given)
            if isinstance(given, dict) and any(isinstance(meaning, str) for meaning in given.values()):
                return parse_label_values(",".join(f"{value}={meaning}" for value, meaning in given.items()))
        except ConfigError as error:
            raise ValueError(str(error)) from error
        return given


class PseudoConfig(ConfigSection):
    """Where the VLM's labels come from."""

    source: Literal["store", "semicdvl_png"] = Field(
        "store", description="`store`; `semicdvl_png`: the labels that SemiCD-VL's authors publish, a store is not read"
    )
    store: Path | None = Field(None, description="folder that `semicdvl pseudo` wrote")
    change: Path | None = Field(None, description="semicdvl_png: folder of the published change labels")
    segmentation: Path | None = Field(
        None, description="semicdvl_png: folder with the published single-date labels in `A` and `B`"
    )

    shuffled: bool = Field(
        False,
        description="give each training pair the labels of another one: a control, in which a VLM that helps must not",
    )

    @model_validator(mode="after")
    def _require_its_folders(self) -> PseudoConfig:
        """Require the folders of the source."""
        needed = ("store",) if self.source == "store" else ("change", "segmentation")
        missing = [name for name in needed if getattr(self, name) is None]
        if missing:
            raise ValueError(f"source '{self.source}' needs {' and '.join(missing)}")
        return self


class ClassesConfig(ConfigSection):
    """The classes of the ground at each date, which the segmentation heads tell apart."""

    names: tuple[str, ...] = Field(description="in the order of the index, as in the data set's classes.toml")
    prompts: dict[str, tuple[str, ...]] | None = Field(
        None,
        description="what a VLM is asked for each class, such as {building = ['house', 'building']}; a class that it"
        " cannot be asked for is left out. `semicdvl pseudo --classes RECIPE` makes labels of these classes",
    )
    changing: tuple[str, ...] | None = Field(
        None,
        description="classes whose coming and going is change, such as ['building']; by default all but `background`"
        " and `other`",
    )

    @model_validator(mode="after")
    def _require_distinct_names(self) -> ClassesConfig:
        """Refuse names that don't tell the classes apart, and prompts or changes of what is no class."""
        try:
            ClassLegend(self.names)
        except ConfigError as error:
            raise ValueError(str(error)) from None
        for key in ("prompts", "changing"):
            for name in getattr(self, key) or ():
                if name not in self.names:
                    hint = suggest_nearest(name, self.names)
                    raise ValueError(f"{key} names '{name}', which is no class.{hint} Known: {', '.join(self.names)}")
        return self


class PartConfig(BaseModel):
    """A model or a method: its name, and its own options, which its builder checks."""

    model_config = ConfigDict(frozen=True, extra="allow")
    name: str = Field(description="which one; every further key is an option of it")

    @property
    def options(self) -> dict[str, Any]:
        """The fields beside the name."""
        return dict(self.model_extra or {})


class TrainConfig(ConfigSection):
    """Optimisation and validation; the defaults are the paper's where they don't depend on the machine."""

    steps: int | None = Field(None, ge=1, description="optimiser steps; 2000 if neither steps nor epochs are given")
    epochs: int | None = Field(
        None, ge=1, description="length in passes over the unlabelled pairs (over the labelled ones, by labels alone)"
    )
    labelled_batch: int = Field(8, ge=1, description="labelled pairs per batch, in each process")
    unlabelled_batch: int = Field(8, ge=1, description="unlabelled pairs per batch and process, where used")
    accumulate: int = Field(1, ge=1, description="batches whose gradients make up one optimiser step")
    optimizer: Literal["sgd", "adamw", "adam", "lbfgs"] = Field(
        "sgd",
        description="SGD is the paper's; runs of hundreds of steps want AdamW; lbfgs fits at once a network that"
        " decides pixel by pixel, such as vlm_prior",
    )
    lr: float = Field(0.02, gt=0, description="learning rate of the encoder")
    head_lr_multiplier: float = Field(10.0, gt=0, description="learning rate of everything else, as a multiple of lr")
    momentum: float = Field(0.9, ge=0, lt=1, description="of SGD; of Adam and AdamW the first beta")
    weight_decay: float = Field(1e-4, ge=0, description="pulls weights towards 0")
    power: float = Field(0.9, ge=0, description="of the polynomial decay, per step; 1 is linear, 0 none")
    hold_frac: float = Field(0.0, ge=0, lt=1, description="share of training at the full rate before it decays")
    halve_frac: float = Field(0.0, ge=0, le=1, description="halve the rate after each such share of training; 0: never")
    warmup_steps: int = Field(0, ge=0, description="linear warm-up; the paper has none")
    clip_norm: float | None = Field(None, gt=0, description="clip the gradient's norm; the paper does not")
    precision: Literal["fp32", "bf16"] = Field(
        "fp32", description="number type; bf16 is faster on GPUs and on CPUs with AMX"
    )
    ema: float = Field(0.0, ge=0, lt=1, description="decay of a moving-average teacher; 0: the student teaches itself")
    ema_ramp: bool = Field(
        False, description="let the average follow the network closely at first: decay 1 - 1 / (step + 1), up to ema"
    )
    eval_every: int | None = Field(
        None, ge=1, description="steps between validations (and saved states); else 200, or an epoch with train.epochs"
    )
    select: Literal["val", "test", "last"] = Field(
        "val",
        description="pairs that choose the step that is kept; `test` is for parity with the paper and is marked so; "
        "`last`: no pairs do, the last step is kept",
    )
    score_test: bool = Field(False, description="also score the test pairs at each validation; it chooses nothing")
    device: str = Field("auto", description="auto, cpu, cuda, ...")
    workers: int = Field(0, ge=0, description="loader processes")
    tensorboard: bool = Field(False, description="also write RUN/tensorboard; needs semicdvl[track]")
    sheet_every: int = Field(0, ge=0, description="steps between image sheets in RUN/sheets; 0: none")

    @model_validator(mode="before")
    @classmethod
    def _require_one_length(cls, given: Any) -> Any:
        """Take exactly one of steps and epochs."""
        if not isinstance(given, dict):
            return given
        lengths = [key for key in ("steps", "epochs") if given.get(key) is not None]
        if len(lengths) == 2:
            raise ValueError("give either steps or epochs, not both")
        return given if lengths else {**given, "steps": 2000}


class Recipe(ConfigSection):
    """All that determines a training run.

    Examples:
        >>> import semicdvl as cd
        >>> recipe = cd.load_recipe(recipe_toml)
        >>> recipe.method.name, recipe.train.optimizer
        ('supervised', 'sgd')
    """

    name: str = Field("run", description="names the run directory, `runs/NAME`")
    seed: int = Field(
        0, ge=0, le=MAX_SEED, description="of the initial weights, of the order of the pairs and of their augmentation"
    )
    data: DataConfig
    pseudo: PseudoConfig | None = None
    classes: ClassesConfig | None = Field(
        None, description="classes of each date; the network's segmentation heads then have one output for each"
    )
    model: PartConfig = PartConfig(name="siam_light")
    method: PartConfig
    train: TrainConfig = TrainConfig()

    @model_validator(mode="before")
    @classmethod
    def _size_segmentation_heads(cls, given: Any) -> Any:
        """Give the network's segmentation heads as many classes as are named."""
        section = given.get("classes") if isinstance(given, dict) else None
        names = section.get("names") if isinstance(section, dict) else None
        model = given.get("model", {"name": "siam_light"}) if isinstance(given, dict) else None
        if not isinstance(names, list | tuple) or not isinstance(model, dict):
            return given
        stated = model.get("segmentation_classes", len(names))
        if stated != len(names):
            raise ValueError(f"model.segmentation_classes = {stated}, but {len(names)} classes are named; leave it out")
        return {**given, "model": {**model, "segmentation_classes": len(names)}}


def load_recipe(path: str | Path, *, overrides: tuple[str, ...] = ()) -> Recipe:
    """Read a recipe.

    A recipe may extend another one: `base = "other.toml"`, a path relative to its own folder. Its keys replace those of
    the base, section by section; a `model` or `method` of another name replaces the base's whole section.

    Args:
        path: a TOML file, or the name of a shipped recipe, such as "small-supervised-aerial" (`list_recipes`).
        overrides: `key=value` with a dotted key (`train.steps=500`); a bare key is looked for in every section.

    Raises:
        InputError: the file, or its base, is missing or not TOML.
        ConfigError: a key is unknown or a value does not fit; or recipes extend each other in a circle.

    Examples:
        >>> import semicdvl as cd
        >>> recipe = cd.load_recipe(recipe_toml, overrides=("steps=100", "method.name=fixmatch"))
        >>> recipe.train.steps, recipe.method.name
        (100, 'fixmatch')
    """
    content = read_with_base(find_shipped(Path(path)))
    for override in overrides:
        _apply_override(content, override)
    return parse_recipe(content, source=str(path))


def locate_shipped_recipes() -> Path:
    """Return the folder of the shipped recipes: in the package where it is installed, else at the top of the clone."""
    package = Path(__file__).parent
    inside = package / "recipes"
    return inside if inside.is_dir() else package.parents[1] / "recipes"


def list_shipped_recipes() -> dict[str, Path]:
    """Return the shipped recipes and suites: name, which is the path without `.toml`, and file."""
    folder = locate_shipped_recipes()
    paths = sorted(path for path in folder.rglob("*.toml") if path.relative_to(folder).parts[0] != "base")
    return {path.relative_to(folder).with_suffix("").as_posix(): path for path in paths}


def find_shipped(path: Path) -> Path:
    """Return a path that exists as it is; otherwise the shipped recipe of that name, with or without `recipes/`."""
    require_file_or_folder(path, remedy="Give a TOML file, or a shipped recipe, see `semicdvl list recipes`")
    if path.exists():
        return path
    name = path.as_posix().removeprefix("recipes/").removesuffix(".toml")
    return list_shipped_recipes().get(name, path)


def read_toml(path: Path) -> dict[str, Any]:
    """Return the plain content of a TOML file.

    Raises:
        InputError: it is missing, no regular file, too large or not TOML.
    """
    advice = "Give a TOML file, or a shipped recipe, see `semicdvl list recipes`."
    remedy = f"{advice}{_suggest_shipped(path)}".rstrip(".")
    text = read_bytes(path, remedy=remedy, max_bytes=MAX_RECIPE_BYTES)
    try:
        content = tomllib.loads(text.decode("utf-8-sig").replace("\r\n", "\n"))
        check_values(content, finite=False)
        return content
    except RecursionError as error:
        raise InputError(path, "is nested too deeply to be a recipe", "Correct the file") from error
    except ValueError as error:  # also text that is not UTF-8, and whole numbers of thousands of digits
        raise InputError(path, f"is not valid TOML ({error})", "Correct the line") from error


def _suggest_shipped(path: Path) -> str:
    """Return which shipped recipe is meant, if one is called alike."""
    return suggest_nearest(path.as_posix().removeprefix("recipes/").removesuffix(".toml"), list_shipped_recipes())


def read_with_base(path: Path, *, dependents: tuple[Path, ...] = ()) -> dict[str, Any]:
    """Return the plain content of a recipe merged over its base; `dependents` are the recipes that extend it."""
    content = read_toml(path)
    base = content.pop("base", None)
    if base is None:
        return content
    if not isinstance(base, str):
        raise ConfigError(f"{path}: base = {base!r} is not a path. Give the path of another recipe.")
    chain = (*dependents, resolve_links(path))
    below = path.parent / base
    if resolve_links(below) in chain:
        raise ConfigError(
            f"{path}: base = '{base}' leads back to a recipe that extends this one. Remove one of the two."
        )
    return merge_recipes(read_with_base(below, dependents=chain), content)


def merge_recipes(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Return the plain recipe `base` with `changes` merged over it, see `load_recipe`."""
    merged = {key: value for key, value in base.items() if LENGTH_KEYS.get(key) not in changes}
    for key, value in changes.items():
        own = merged.get(key)
        if isinstance(own, dict) and isinstance(value, dict) and not _names_another_part(key, own, value):
            merged[key] = merge_recipes(own, value)
        else:
            merged[key] = value
    return merged


def _names_another_part(key: str, own: dict[str, Any], value: dict[str, Any]) -> bool:
    """Tell whether a model or method section names another one, whose options are not those of the base's."""
    return key in ("model", "method") and "name" in value and value["name"] != own.get("name")


def parse_recipe(content: dict[str, Any], *, source: str) -> Recipe:
    """Check a recipe given as plain values; `source` names it in errors."""
    return parse_section(Recipe, content, source=source)


def parse_section(kind: type[ConfigSectionT], content: dict[str, Any], *, source: str) -> ConfigSectionT:
    """Check plain values against a section; `source` names it in errors.

    Raises:
        ConfigError: a key is unknown (the nearest known one is named), missing, or its value does not fit.
    """
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        raise ConfigError(f"{source}: {'; '.join(_describe_error(item, kind) for item in error.errors())}") from None


def _describe_error(item: Any, kind: type[BaseModel] | None = None) -> str:
    """Return in words what pydantic found wrong."""
    where = ".".join(str(part) for part in item["loc"])
    if item["type"] == "extra_forbidden":
        known = _list_known_keys(item["loc"][:-1], kind)
        return f"unknown key '{where}'.{suggest_nearest(str(item['loc'][-1]), known)} Known: {', '.join(known)}."
    if item["type"] == "missing":
        return f"the key '{where}' is missing; add it."
    return f"{shorten(where)} = {shorten(repr(item['input']))}: {item['msg']}."


def _list_known_keys(location: tuple[int | str, ...], kind: type[BaseModel] | None = None) -> list[str]:
    """Return the keys that a section of the recipe, or of `kind`, knows."""
    section: Any = kind or Recipe
    for part in location:
        annotation = section.model_fields[str(part)].annotation
        section = next(
            (kind for kind in getattr(annotation, "__args__", (annotation,)) if _is_config_section(kind)), ConfigSection
        )
    return list(section.model_fields)


def _is_config_section(kind: Any) -> bool:
    """Tell whether a type is a part of the recipe."""
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def _apply_override(content: dict[str, Any], override: str) -> None:
    """Put one `key=value` into the plain recipe."""
    key, equals, text = override.partition("=")
    if not equals or not key.strip():
        raise ConfigError(f"--set {override}: must be key=value, such as train.steps=500.")
    *sections, last = _resolve_key(key.strip(), content)
    target = content
    for section in sections:
        target = target.setdefault(section, {})
        if not isinstance(target, dict):
            raise ConfigError(f"--set {override}: '{section}' is not a section of the recipe.")
    target[last] = _parse_value(text)
    if last in LENGTH_KEYS and sections == ["train"]:
        target.pop(LENGTH_KEYS[last], None)


def _resolve_key(key: str, content: dict[str, Any]) -> list[str]:
    """Return the dotted key's parts; a bare key gets the section that knows it."""
    if "." in key or key in Recipe.model_fields:
        return key.split(".")
    homes = [name for name in ("data", "pseudo", "train") if key in _list_known_keys((name,))]
    homes += [name for name in ("model", "method") if key in content.get(name, {})]
    if len(homes) == 1:
        return [homes[0], key]
    known = [f"{name}.{field}" for name in ("data", "train") for field in _list_known_keys((name,))]
    hint = f" It is a key of {' and '.join(homes)}; write the section too." if homes else suggest_nearest(key, known)
    raise ConfigError(f"--set {key}: unknown key.{hint or ' Write it with its section, such as method.tau=0.9.'}")


def _parse_value(text: str) -> Any:
    """Read a value as TOML; what is not TOML is a string."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError):
        return text
