"""The rows of a suite: methods and the networks that they are run with, and detectors that are not trained."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from semicdvl.ceg.config import CEGLevel, CEGSettings, choose_detection_level
from semicdvl.config import ConfigSection
from semicdvl.types import VLM

Fraction = Annotated[float, Field(ge=0, le=1)]


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
