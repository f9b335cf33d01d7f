"""Recipes: one TOML file -> one frozen, checked object. An unknown key is refused, and the nearest known one named."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from semicdvl.errors import ConfigError, InputError
from semicdvl.tables import nearest


class Section(BaseModel):
    """A part of a recipe; frozen, and without keys that it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class DataConfig(Section):
    """Which pairs are used for what."""

    dataset: str = Field("folder", description="reader, see `semicdvl list datasets`")
    root: Path = Field(description="folder of the data set")
    labelled: Annotated[float, Field(gt=0, le=1)] | Path = Field(
        1.0,
        description="fraction of the training pairs that keep their label, or a folder with labeled.txt, unlabeled.txt",
    )
    val_frac: float = Field(0.15, ge=0, lt=1, description="for data sets without own lists: share of validation pairs")
    test_frac: float = Field(0.25, ge=0, lt=1, description="for data sets without own lists: share of test pairs")
    split_seed: int = Field(0, ge=0, description="seed of the split; splits of one seed are nested (5 % inside 10 %)")
    split: Path | None = Field(None, description="a split written earlier; overrules all of the above")
    unlabelled: Path | None = Field(
        None, description="another data set of the same kind whose pairs join without labels"
    )
    crop_px: int = Field(256, ge=32, le=2048, description="side of a training crop")
    rot90: bool = Field(False, description="also turn crops by quarter turns; sensible for views from above")
    vflip: float = Field(0.0, ge=0, le=1, description="probability of a flip top to bottom")
    label_values: dict[int, int] | None = Field(
        None, description="meaning of other label values than 0, 1 and 255, such as {0 = 0, 128 = 255, 255 = 1}"
    )
    options: dict[str, Any] = Field(default_factory=dict, description="options of the reader, see its docstring")


class PseudoConfig(Section):
    """Where the VLM's labels come from."""

    store: Path = Field(description="folder that `semicdvl pseudo` wrote")


class Part(BaseModel):
    """A model or a method: its name, and fields of its own, which its builder checks."""

    model_config = ConfigDict(frozen=True, extra="allow")
    name: str

    @property
    def options(self) -> dict[str, Any]:
        """The fields beside the name."""
        return dict(self.model_extra or {})


class TrainConfig(Section):
    """Optimisation and validation; the defaults are the paper's where they don't depend on the machine."""

    steps: int = Field(2000, ge=1, description="optimiser steps")
    labelled_batch: int = Field(8, ge=1, description="labelled pairs per step")
    unlabelled_batch: int = Field(8, ge=1, description="unlabelled pairs per step, for methods that use them")
    optimizer: Literal["sgd", "adamw"] = "sgd"
    lr: float = Field(0.02, gt=0, description="learning rate of the encoder")
    head_lr_multiplier: float = Field(10.0, gt=0, description="learning rate of everything else, as a multiple of lr")
    momentum: float = Field(0.9, ge=0, lt=1)
    weight_decay: float = Field(1e-4, ge=0)
    power: float = Field(0.9, ge=0, description="of the polynomial decay, per step")
    warmup_steps: int = Field(0, ge=0, description="linear warm-up; the paper has none")
    clip_norm: float | None = Field(None, gt=0, description="clip the gradient's norm; the paper does not")
    precision: Literal["fp32", "bf16"] = "fp32"
    ema: float = Field(0.0, ge=0, lt=1, description="decay of a moving-average teacher; 0: the student teaches itself")
    eval_every: int = Field(200, ge=1, description="steps between validations (and saved states)")
    select: Literal["val", "test"] = Field("val", description="`test` is for parity with the paper and is marked so")
    device: str = Field("auto", description="auto, cpu, cuda, ...")
    workers: int = Field(0, ge=0, description="loader processes")


class Recipe(Section):
    """All that determines a training run."""

    name: str = "run"
    seed: int = Field(0, ge=0)
    data: DataConfig
    pseudo: PseudoConfig | None = None
    model: Part = Part(name="siam_light")
    method: Part
    train: TrainConfig = TrainConfig()


def load_recipe(path: Path, *, overrides: tuple[str, ...] = ()) -> Recipe:
    """Read a recipe.

    Args:
        path: a TOML file.
        overrides: `key=value` with a dotted key (`train.steps=500`); a bare key is looked for in every section.

    Raises:
        InputError: the file is missing or not TOML.
        ConfigError: a key is unknown or a value does not fit.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(
            path, f"cannot be read ({error.strerror})", "Give a recipe, such as one of recipes/"
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(path, f"is not valid TOML ({error})", "Mend the line") from error
    for override in overrides:
        _override(content, override)
    return parse_recipe(content, source=str(path))


def parse_recipe(content: dict[str, Any], *, source: str) -> Recipe:
    """Check a recipe given as plain values; `source` names it in errors."""
    try:
        return Recipe.model_validate(content)
    except ValidationError as error:
        raise ConfigError(f"{source}: {'; '.join(_explain(item) for item in error.errors())}") from None


def _explain(item: Any) -> str:
    """Say in words what pydantic found wrong."""
    where = ".".join(str(part) for part in item["loc"])
    if item["type"] == "extra_forbidden":
        known = _keys_at(item["loc"][:-1])
        return f"unknown key '{where}'.{nearest(str(item['loc'][-1]), known)} Known: {', '.join(known)}."
    if item["type"] == "missing":
        return f"the key '{where}' is missing; add it."
    return f"{where} = {item['input']!r}: {item['msg']}."


def _keys_at(location: tuple[int | str, ...]) -> list[str]:
    """Return the keys that a section of the recipe knows."""
    section: Any = Recipe
    for part in location:
        annotation = section.model_fields[str(part)].annotation
        section = next((kind for kind in getattr(annotation, "__args__", (annotation,)) if _is_section(kind)), Section)
    return list(section.model_fields)


def _is_section(kind: Any) -> bool:
    """Tell whether a type is a part of the recipe."""
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def _override(content: dict[str, Any], override: str) -> None:
    """Put one `key=value` into the plain recipe."""
    key, equals, text = override.partition("=")
    if not equals or not key.strip():
        raise ConfigError(f"--set {override}: wanted key=value, such as train.steps=500.")
    *sections, last = _full_key(key.strip(), content)
    target = content
    for section in sections:
        target = target.setdefault(section, {})
        if not isinstance(target, dict):
            raise ConfigError(f"--set {override}: '{section}' is not a section of the recipe.")
    target[last] = _value(text)


def _full_key(key: str, content: dict[str, Any]) -> list[str]:
    """Return the dotted key's parts; a bare key gets the section that knows it."""
    if "." in key or key in Recipe.model_fields:
        return key.split(".")
    homes = [name for name in ("data", "pseudo", "train") if key in _keys_at((name,))]
    homes += [name for name in ("model", "method") if key in content.get(name, {})]
    if len(homes) == 1:
        return [homes[0], key]
    known = [f"{name}.{field}" for name in ("data", "train") for field in _keys_at((name,))]
    hint = f" It stands in {' and '.join(homes)}; write the section too." if homes else nearest(key, known)
    raise ConfigError(f"--set {key}: unknown key.{hint or ' Write it with its section, such as method.tau=0.9.'}")


def _value(text: str) -> Any:
    """Read a value as TOML; what is not TOML is a string."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
