"""What the sections of recipes and suites are derived from."""

from __future__ import annotations

from typing import TypeVar

from pydantic import BaseModel, ConfigDict


class ConfigSection(BaseModel):
    """A part of a recipe; frozen, of finite numbers, and without keys that it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


ConfigSectionT = TypeVar("ConfigSectionT", bound=ConfigSection)
