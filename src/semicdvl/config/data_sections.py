"""The sections of a recipe on data: the pairs, the VLM's labels, and the classes of the ground."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from semicdvl.config.label_values import parse_label_values
from semicdvl.config.section import ConfigSection
from semicdvl.errors import ConfigError
from semicdvl.reading.limits import MAX_SEED
from semicdvl.registry import suggest_nearest
from semicdvl.types import ClassLegend
from semicdvl.types.bands import MAX_BANDS, check_band_numbers


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
