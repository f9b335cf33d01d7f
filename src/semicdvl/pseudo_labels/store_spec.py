"""The specification of a pseudo-label store, and the models of what its manifest and its records hold."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from semicdvl.ceg.prompts import ClassPrompts, Prompts
from semicdvl.errors import ConfigError
from semicdvl.raster.io.pair_stretch import parse_stretch
from semicdvl.raster.stored_values import Stretch

_Share = Annotated[float, Field(ge=0, le=1)]


class _PromptLists(BaseModel):
    """The prompts of a manifest or a record."""

    find: tuple[str, ...]
    background: tuple[str, ...]


class _ClassLists(BaseModel):
    """The classes of a manifest or a record."""

    names: tuple[str, ...]
    words: tuple[tuple[str, ...], ...]
    changing: tuple[str, ...]


class StoredSpec(BaseModel):
    """The specification in a manifest or a record; the names are stored."""

    model_config = ConfigDict(allow_inf_nan=False)

    vlm: str
    prompts: _PromptLists
    ceg: dict[str, Any]
    gsd_m: Annotated[float, Field(gt=0)] | None = None
    classes: _ClassLists | None = None
    stretch: Annotated[str, Field(max_length=1000)] | None = None

    def to_spec(self) -> StoreSpec:
        """Return the specification.

        Raises:
            ConfigError: prompts, classes or the stretch are none, or the prompts are not those of the classes.
        """
        prompts = Prompts(self.prompts.find, self.prompts.background)
        classes = None if self.classes is None else ClassPrompts(**dict(self.classes))
        if classes is not None and classes.prompts != prompts:
            raise ConfigError("the prompts are not those of the classes.")
        spec = StoreSpec(self.vlm, prompts, self.ceg, self.gsd_m, classes, self.stretch)
        spec.get_stretch()  # refuses one that is none
        return spec


class StoredRecord(BaseModel):
    """The record of a pair's labels; the names are stored."""

    model_config = ConfigDict(extra="allow", allow_inf_nan=False)

    name: str
    before: str
    after: str
    window_px: tuple[int, int, int, int] | None
    answers: tuple[str, str]
    reliable_frac: _Share
    changed_frac: _Share
    spec: StoredSpec


@dataclass(frozen=True)
class StoreSpec:
    """How the labels of a store are made; its field names are stored in the manifest and in records.

    Attributes:
        vlm: identity of the VLM (name and hash of the weights).
        prompts: prompts of the VLM.
        ceg: settings of change event generation, as plain values.
        gsd_m: ground sampling distance in metres per pixel that the VLM was told, if any.
        classes: the classes of the single-date labels and their prompts, which are then `prompts`; None: the labels are
            1 for foreground and 0 for background.
        stretch: limits of the grey values of images with more than 8 bits, as `raster.io.pair_stretch` formats them;
            the same for all pairs and both dates. None: the images have 8 bits.
    """

    vlm: str
    prompts: Prompts
    ceg: dict[str, Any]
    gsd_m: float | None = None
    classes: ClassPrompts | None = None
    stretch: str | None = None

    @property
    def class_count(self) -> int:
        """Number of classes of the single-date labels."""
        return 2 if self.classes is None else len(self.classes.names)

    @property
    def concepts(self) -> tuple[Prompts, ...]:
        """What is compared between the dates: foreground and background, or each changing class and all others."""
        return (self.prompts,) if self.classes is None else self.classes.concepts

    @property
    def searched(self) -> Prompts:
        """All that is searched for, together, against the rest."""
        return self.prompts if self.classes is None else self.classes.searched

    def get_stretch(self) -> Stretch | None:
        """Return what makes grey values of images with more than 8 bits; None: the images have 8 bits.

        Raises:
            ConfigError: the limits are no limits of three bands.
        """
        return None if self.stretch is None else parse_stretch(self.stretch, bands=3)

    def to_plain_dict(self) -> dict[str, Any]:
        """Return the specification as it is stored: without classes and stretch where there are none."""
        optional = ("classes", "stretch")
        return {name: value for name, value in asdict(self).items() if name not in optional or value is not None}
