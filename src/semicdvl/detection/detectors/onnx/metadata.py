"""What `semicdvl export` stores in an ONNX file about its network, and reading it back."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from semicdvl.errors import CheckpointError, ConfigError
from semicdvl.reading.json_files import describe_fault, parse_json, shorten
from semicdvl.types import InputBands
from semicdvl.types.bands import MAX_BANDS, MIN_BANDS
from semicdvl.types.pairs import MAX_CLASSES, ClassLegend

METADATA_KEY = "semicdvl"
"""Key of the metadata."""
METADATA_VERSION = 1


class _StoredClasses(BaseModel):
    """The classes of the dates in a file; the names are stored."""

    names: list[str] = Field(min_length=2, max_length=MAX_CLASSES)
    foreground: list[Annotated[int, Field(ge=0, lt=MAX_CLASSES)]] = Field(default_factory=list)
    named: bool = True

    @model_validator(mode="after")
    def _require_names(self) -> Self:
        """Refuse names that don't tell the classes apart, and a foreground without one."""
        try:
            ClassLegend(tuple(self.names))
        except ConfigError as error:
            raise ValueError(str(error)) from None
        if max(self.foreground, default=0) >= len(self.names):
            raise ValueError("a class of the foreground has no name")
        return self


class _StoredStretch(BaseModel):
    """The limits of the grey values per band; the names are stored, as in run.json."""

    low: list[float] = Field(min_length=3, max_length=3)
    high: list[float] = Field(min_length=3, max_length=3)

    @model_validator(mode="after")
    def _check_order(self) -> Self:
        if not all(0 < high - low < float("inf") for low, high in zip(self.low, self.high, strict=True)):
            raise ValueError("the low limits must be below the high ones")
        return self


class _Metadata(BaseModel):
    """The metadata of a file; the names are stored."""

    model_config = ConfigDict(extra="allow", allow_inf_nan=False)

    version: int
    mean: list[float] = Field(min_length=MIN_BANDS, max_length=MAX_BANDS)
    std: list[Annotated[float, Field(gt=0)]] = Field(min_length=MIN_BANDS, max_length=MAX_BANDS)
    bands: list[Annotated[int, Field(ge=1)]] | None = None
    threshold: float = Field(ge=0, le=1)
    multiple_px: int = Field(ge=1, le=1024)
    recipe: dict[str, dict[str, Any]] = Field(default_factory=dict)
    run: str | None = None
    date_classes: _StoredClasses | None = None
    stretch: _StoredStretch | None = None

    @model_validator(mode="after")
    def _require_bands(self) -> _Metadata:
        """Refuse statistics of other bands than those that are read."""
        numbers = tuple(self.bands or (1, 2, 3))
        try:
            InputBands(numbers, tuple(self.mean), tuple(self.std))
        except ConfigError as error:
            raise ValueError(str(error)) from None
        if self.bands is not None and self.stretch is not None:
            raise ValueError("there are both statistics of bands and limits of grey values")
        return self


def read_metadata(path: Path, text: str) -> dict[str, Any]:
    """Check what `export` stored in a file and return it.

    Raises:
        CheckpointError: it is of another version, or damaged.
    """
    try:
        about = parse_json(text)
        if isinstance(about, dict) and about.get("version") != METADATA_VERSION:
            raise CheckpointError(
                f"{path}: is an ONNX file of version {shorten(about.get('version'))}, but this program reads version "
                f"{METADATA_VERSION}. Export it again."
            )
        return _Metadata.model_validate(about).model_dump()
    except ValueError as error:
        reason = describe_fault(error) if isinstance(error, ValidationError) else str(error)
        raise CheckpointError(f"{path}: its metadata are damaged ({reason}). Export it again.") from None
