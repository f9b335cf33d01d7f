"""The sections of a recipe, and the recipe: frozen, validated objects with a default and a meaning for each key."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from semicdvl.config.label_values import parse_label_values
from semicdvl.errors import ConfigError
from semicdvl.reading.limits import MAX_SEED
from semicdvl.registry import suggest_nearest
from semicdvl.types import ClassLegend
from semicdvl.types.bands import MAX_BANDS, check_band_numbers


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
    rotate_deg: float = Field(0.0, ge=0, le=180, description="rotate crops anticlockwise by up to so many degrees")
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
    bands: tuple[int, ...] | None = Field(
        None,
        description="bands that the network reads: their number, such as 4, or 1-based numbers, such as [3, 2, 1, 4],"
        " red, green and blue first; values of any type are kept and standardised by their mean and deviation."
        " By default red, green and blue, as 8-bit grey values",
    )
    group: str | None = Field(
        None,
        description="what names the picture of a pair, so that its crops stay on one side of the split: a regular"
        " expression such as '^(.+)_[0-9]+$', or a column of manifest.csv in root",
    )
    options: dict[str, Any] = Field(default_factory=dict, description="options of the reader, see its docstring")

    @field_validator("labelled", mode="before")
    @classmethod
    def _refuse_percent(cls, given: Any) -> Any:
        """Refuse numbers that are no fraction, most often percent."""
        if isinstance(given, int | float) and not 0 <= given <= 1:
            raise ValueError(
                "is no fraction. Give a number from 0 to 1, such as 0.05 for 5 %, or a folder with labeled.txt and "
                "unlabeled.txt"
            )
        return given

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

    @field_validator("bands", mode="before")
    @classmethod
    def _read_bands(cls, given: Any) -> Any:
        """Read a number of bands as the first ones, and refuse bands that a network cannot read."""
        numbers = tuple(range(1, given + 1)) if isinstance(given, int) and given <= MAX_BANDS else given
        if isinstance(numbers, list | tuple) and all(isinstance(number, int) for number in numbers):
            try:
                check_band_numbers(tuple(numbers))
            except ConfigError as error:
                raise ValueError(str(error)) from None
        return numbers


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
    cross_validate: bool = Field(
        False,
        description="with lbfgs: correct only what leaving labelled pairs out in turn speaks for, held by 1 or 4 times"
        " weight_decay",
    )
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

    @model_validator(mode="after")
    def _require_fit_at_once(self) -> TrainConfig:
        """Refuse cross-validation of a training by steps, which would take as many trainings."""
        if self.cross_validate and not self.fits_at_once:
            raise ValueError(f"cross_validate needs optimizer 'lbfgs', not '{self.optimizer}'")
        return self

    @property
    def fits_at_once(self) -> bool:
        """Whether the network is fitted to all pairs at once, in place of training by batches."""
        return self.optimizer == "lbfgs"

    @property
    def keeps_last_step(self) -> bool:
        """Whether the weights of a run are always those of its last step."""
        return self.select == "last" or self.fits_at_once


def check_output_name(name: str) -> str:
    """Return the name of a recipe or suite.

    Raises:
        ValueError: it does not name a folder inside `runs`.
    """
    parts = Path(name.strip()).parts
    if not parts or ".." in parts or Path(name.strip()).is_absolute():
        raise ValueError("cannot name the folder runs/NAME. Give a name such as 'levir-05'")
    return name


class Recipe(ConfigSection):
    """All that determines a training run: the sections of a recipe file, and defaults for what it leaves out.

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

    @field_validator("name")
    @classmethod
    def _require_folder_name(cls, given: str) -> str:
        """Refuse a name that leads out of `runs`."""
        return check_output_name(given)

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

    @model_validator(mode="before")
    @classmethod
    def _size_input(cls, given: Any) -> Any:
        """Give the network as many bands as are read."""
        data = given.get("data") if isinstance(given, dict) else None
        bands = data.get("bands") if isinstance(data, dict) else getattr(data, "bands", None)
        model = given.get("model", {"name": "siam_light"}) if isinstance(given, dict) else None
        if not isinstance(bands, int | list | tuple) or not isinstance(model, dict):
            return given
        count = bands if isinstance(bands, int) else len(bands)
        return {**given, "model": {"bands": count, **model}}

    @model_validator(mode="after")
    def _require_one_number_of_bands(self) -> Recipe:
        """Refuse a network for other bands than those that are read."""
        bands = self.model.options.get("bands")
        wanted = None if self.data.bands is None else len(self.data.bands)
        if (bands or 3) != (wanted or 3):
            raise ValueError(f"model.bands = {bands}, but data.bands names {wanted or 'none'}; leave model.bands out")
        return self
