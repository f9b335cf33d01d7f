"""What a caller gives for a part, its name or the part itself -> the part."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeGuard, cast

from semicdvl.errors import ConfigError
from semicdvl.vlms import create_vlm

if TYPE_CHECKING:
    from semicdvl.ceg.config import CEGSettings
    from semicdvl.ceg.features import FeatureExtractor
    from semicdvl.ceg.prompts import Prompts
    from semicdvl.types import VLM


def build_vlm(vlm: str | VLM | Callable[[], VLM]) -> VLM:
    """Return the VLM that an argument means: one by name, one as it is, or one that is built now."""
    if isinstance(vlm, str):
        return create_vlm(vlm)
    return vlm if is_vlm(vlm) else cast("Callable[[], VLM]", vlm)()


def is_vlm(part: object) -> TypeGuard[VLM]:
    """Tell whether something is a VLM, and not what builds one; its identity is not computed."""
    return hasattr(part, "segment")


def build_features(features: str | FeatureExtractor | None) -> FeatureExtractor | None:
    """Return the feature extractor that an argument means."""
    if not isinstance(features, str):
        return features
    from semicdvl.ceg.features import build_feature_extractor

    return build_feature_extractor(features)


def get_prompts(prompts: str | Prompts) -> Prompts:
    """Return the prompts that an argument means.

    Raises:
        ConfigError: the name is unknown.
    """
    from semicdvl.ceg.prompts import resolve_prompts

    return resolve_prompts(prompt_set=prompts) if isinstance(prompts, str) else prompts


def complete_ceg_settings(
    settings: CEGSettings | Mapping[str, Any] | None, *, gamma: float, **defaults: Any
) -> CEGSettings:
    """Return settings of change event generation, what was not given filled in from `gamma` and `defaults`.

    Raises:
        ConfigError: a setting is unknown or out of its range.
    """
    from semicdvl.ceg.config import CEGSettings

    if isinstance(settings, CEGSettings):
        return settings
    given = {"gamma": gamma, "gamma_segmentation": gamma, **defaults, **(settings or {})}
    try:
        return CEGSettings(**given)
    except TypeError as error:
        raise ConfigError(
            f"unknown setting of change event generation ({error}). See semicdvl.CEGSettings for the known ones."
        ) from None
