"""Plain values -> a section of a recipe; the error of an unknown key names the nearest known one."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ValidationError

from semicdvl.config.sections import ConfigSection, ConfigSectionT, Recipe
from semicdvl.errors import ConfigError
from semicdvl.reading.json_files import shorten
from semicdvl.registry import suggest_nearest


def parse_recipe(content: dict[str, Any], *, source: str) -> Recipe:
    """Check a recipe given as plain values; `source` names it in errors."""
    return parse_section(Recipe, content, source=source)


def parse_section(kind: type[ConfigSectionT], content: dict[str, Any], *, source: str) -> ConfigSectionT:
    """Check plain values against a section; `source` names it in errors.

    Raises:
        ConfigError: a key is unknown (the nearest known one is named), missing, or its value does not fit.
    """
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        raise ConfigError(f"{source}: {'; '.join(_describe_error(item, kind) for item in error.errors())}") from None


def _describe_error(item: Any, kind: type[BaseModel] | None = None) -> str:
    """Return in words what pydantic found wrong."""
    where = ".".join(str(part) for part in item["loc"])
    if item["type"] == "extra_forbidden":
        known = list_known_keys(item["loc"][:-1], kind)
        return f"unknown key '{where}'.{suggest_nearest(str(item['loc'][-1]), known)} Known: {', '.join(known)}."
    if item["type"] == "missing":
        return f"the key '{where}' is missing; add it."
    return f"{shorten(where)} = {shorten(repr(item['input']))}: {item['msg']}."


def list_known_keys(location: tuple[int | str, ...], kind: type[BaseModel] | None = None) -> list[str]:
    """Return the keys that a section of the recipe, or of `kind`, knows."""
    section: Any = kind or Recipe
    for part in location:
        annotation = section.model_fields[str(part)].annotation
        section = next(
            (kind for kind in getattr(annotation, "__args__", (annotation,)) if _is_config_section(kind)), ConfigSection
        )
    return list(section.model_fields)


def _is_config_section(kind: Any) -> bool:
    """Tell whether a type is a part of the recipe."""
    return isinstance(kind, type) and issubclass(kind, BaseModel)
