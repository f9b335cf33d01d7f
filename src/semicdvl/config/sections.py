"""A recipe, and its sections on network, method and training: frozen, with a default and a meaning for each key."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from semicdvl.config.data_sections import ClassesConfig, DataConfig, PseudoConfig
from semicdvl.config.section import ConfigSection
from semicdvl.reading.limits import MAX_NAME_BYTES, MAX_SEED


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
    if max(len(part.encode()) for part in parts) > MAX_NAME_BYTES:
        raise ValueError(f"is longer than the name of a folder, {MAX_NAME_BYTES} bytes. Give a name such as 'levir-05'")
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
