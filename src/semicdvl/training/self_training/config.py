"""How a network is adapted to a pair."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

from semicdvl.detection.config import DetectionConfig
from semicdvl.errors import ConfigError
from semicdvl.reading.limits import MAX_SEED
from semicdvl.types.settings import ReadingSettings, check_finite

MAX_COUNT = 10**9
"""Of patches, steps and pairs of a batch."""
MIN_PATCH_PX = 32
"""Smallest side of a patch; networks halve it five times."""
READING_SINCE_0_2 = {"alpha": "auto", "stretch": "auto", "collar": "auto"}
"""Settings of reading that version 0.1 did not have, with their defaults."""


@dataclass(frozen=True)
class AdaptConfig:
    """How `adapt` reads a pair and trains on it.

    Attributes:
        patches: most patches that are trained on; the VLM sees up to twice as many.
        patch_px: side of a patch as the VLM sees it. A smaller raster gives smaller ones.
        crop_px: side of a training crop of a patch.
        steps: optimiser steps.
        batch: patches per step.
        seed: of everything random.
        backbone: "aerial" is the embedded VLM's own network (`training.self_training.network`), whichever VLM gives
            the labels; else the network is `siam_light` on this backbone, see `models.encoders`.
        pretrained: what another backbone starts from: "imagenet", "none" or a file of weights.
        min_valid_frac: patches with less data (in both dates) are left out.
        device: where the network trains; "auto" takes a GPU where there is one.
        detection: how the pair is read (bands, grid, normalisation, alignment, pixel size), as `detect` reads it; it
            is also how its map is made.

    Examples:
        >>> import semicdvl as cd
        >>> config = cd.AdaptConfig(steps=100, detection=cd.DetectionConfig(align=True))
        >>> config.steps, config.detection.align
        (100, True)
    """

    patches: int = 400
    patch_px: int = 256
    crop_px: int = 128
    steps: int = 240
    batch: int = 4
    seed: int = 0
    backbone: str = "aerial"
    pretrained: str = "imagenet"
    min_valid_frac: float = 0.5
    device: str = "auto"
    detection: DetectionConfig = field(default_factory=DetectionConfig)

    def __post_init__(self) -> None:
        """Refuse what cannot be done.

        Raises:
            ConfigError: a number that is none or out of range, or more bands than a VLM sees.
        """
        check_finite(self, "min_valid_frac")
        if not 0 <= self.min_valid_frac <= 1:
            raise ConfigError(f"min_valid_frac is {self.min_valid_frac:g}; it must be from 0 to 1.")
        for name in ("patches", "steps", "batch", "patch_px", "crop_px", "seed"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int):
                raise ConfigError(f"{name} is {value!r}; it must be a whole number.")
        if not 0 <= self.seed <= MAX_SEED:
            raise ConfigError(f"seed is {self.seed}; it must be from 0 to {MAX_SEED}.")
        for name in ("patches", "steps", "batch"):
            if not 1 <= getattr(self, name) <= MAX_COUNT:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be from 1 to {MAX_COUNT:,}.")
        if not MIN_PATCH_PX <= self.crop_px <= self.patch_px:
            raise ConfigError(
                f"crops of {self.crop_px} px do not fit patches of {self.patch_px} px: a crop has at least "
                f"{MIN_PATCH_PX} px and is no larger than the patch."
            )
        for bands in (self.detection.bands or (), self.detection.after_bands or ()):
            if len(bands) > 3:
                given = ",".join(map(str, bands))
                raise ConfigError(
                    f"a VLM sees red, green and blue; {len(bands)} bands were given ({given}). Name three."
                )

    def list_reading_parts(self) -> dict[str, Any]:
        """Return how the pair is read, as the record of a run stores it, without the defaults of newer settings."""
        parts = {field.name: getattr(self.detection, field.name) for field in fields(ReadingSettings)}
        return dict(item for item in parts.items() if item not in READING_SINCE_0_2.items())
