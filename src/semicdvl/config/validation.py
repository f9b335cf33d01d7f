"""Plain values -> a section of a recipe; the error of an unknown key names the nearest known one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import UnionType
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from semicdvl.config.section import ConfigSection, ConfigSectionT
from semicdvl.config.sections import Recipe
from semicdvl.errors import ConfigError
from semicdvl.reading.json_files import shorten
from semicdvl.registry import suggest_nearest

MAX_LISTED_FAULTS = 20
"""Number of faults that an error lists; further ones are only counted."""
Location = tuple[int | str, ...]
"""Where a value stands: the keys from the top of the file to it."""


def parse_recipe(
    content: dict[str, Any], *, source: str, find_source: Callable[[Location], str | None] | None = None
) -> Recipe:
    """Check a recipe given as plain values; arguments and errors as `parse_section`."""
    return parse_section(Recipe, content, source=source, find_source=find_source)


def parse_section(
    kind: type[ConfigSectionT],
    content: dict[str, Any],
    *,
    source: str,
    find_source: Callable[[Location], str | None] | None = None,
) -> ConfigSectionT:
    """Check plain values against a section.

    Args:
        kind: what the values are of.
        content: the values.
        source: names them in errors.
        find_source: names the file or option that a key of several sources stands in; None: `source`.

    Raises:
        ConfigError: a key is unknown (the nearest known one is named), missing, or its value does not fit.
    """
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        faults: dict[str, list[str]] = {}
        items = _leave_out_alternatives(error.errors(), kind)
        for item in items[:MAX_LISTED_FAULTS]:  # the source of each is looked for in the files
            found = (find_source and find_source(item["loc"])) or source
            faults.setdefault(found, []).append(_describe_error(item, kind).rstrip("."))
        told = "; ".join(f"{place}: {'; '.join(texts)}" for place, texts in faults.items())
        more = f"; and {len(items) - MAX_LISTED_FAULTS:,} more" if len(items) > MAX_LISTED_FAULTS else ""
        raise ConfigError(f"{told}{more}.") from None


def _leave_out_alternatives(items: Sequence[Any], kind: type[BaseModel]) -> list[Any]:
    """Return one error per value: for a key of several types pydantic tells why none of them fits."""
    first: dict[Location, Any] = {}
    for item in items:
        place = _find_key(item["loc"], kind)
        first.setdefault(place, item | {"loc": place})
    return list(first.values())


def _find_key(location: Location, kind: type[BaseModel]) -> Location:
    """Return the part of a location that stands in the file: pydantic adds the type that it tried."""
    section: type[BaseModel] | None = kind
    for depth, part in enumerate(location):
        field = section.model_fields.get(str(part)) if section is not None else None
        if field is None:
            return location
        section = _find_section(field.annotation)
        if section is None and len(_list_alternatives(field.annotation)) > 1:
            return location[: depth + 1]
    return location


def _list_alternatives(annotation: Any) -> list[Any]:
    """Return the types that a value may have, beside None."""
    is_union = get_origin(annotation) in (Union, UnionType)
    return [one for one in get_args(annotation) if one is not type(None)] if is_union else [annotation]


def _find_section(annotation: Any) -> type[BaseModel] | None:
    """Return the section that a key holds, or None."""
    return next((one for one in _list_alternatives(annotation) if _is_config_section(one)), None)


def _describe_error(item: Any, kind: type[BaseModel]) -> str:
    """Return in words what pydantic found wrong."""
    where = ".".join(str(part) for part in item["loc"])
    if item["type"] == "extra_forbidden":
        known = list_known_keys(item["loc"][:-1], kind)
        hint = _find_its_section(item["loc"], kind) or suggest_nearest(str(item["loc"][-1]), known)
        return f"unknown key '{where}'.{hint} Known: {', '.join(known)}."
    if item["type"] == "missing":
        return f"the key '{where}' is missing; add it."
    value = shorten(repr(item["input"]))
    if item["type"] == "value_error":  # a check of ours, whose text is a sentence
        text = str(item["ctx"]["error"])
        return f"{shorten(where)} = {value}: {text}" if where else text
    if item["type"] in ("tuple_type", "list_type"):
        return f"{shorten(where)} = {value}: a list belongs here, in square brackets."
    if item["type"] in ("model_type", "dict_type"):
        return f"{shorten(where)} = {value}: a value stands where a section belongs. Write its keys below [{where}]."
    return f"{shorten(where)} = {value}: {item['msg']}."


def _find_its_section(location: Location, kind: type[BaseModel]) -> str:
    """Return where a key belongs that another section, or the top of the file, knows; else the empty string."""
    key = str(location[-1])
    if len(location) > 1 and key in kind.model_fields:
        is_section = _find_section(kind.model_fields[key].annotation) is not None
        return f" '{key}' is a section of its own: [{key}]." if is_section else f" '{key}' stands above all sections."
    homes = []
    for name, field in kind.model_fields.items():
        section = _find_section(field.annotation)
        if section is not None and key in section.model_fields and name != str(location[0]):
            homes.append(f"[{name}]")
    return f" '{key}' is a key of {' and '.join(homes)}: write it there." if homes else ""


def list_known_keys(location: tuple[int | str, ...], kind: type[BaseModel] | None = None) -> list[str]:
    """Return the keys that a section of the recipe, or of `kind`, knows."""
    section: type[BaseModel] = kind or Recipe
    for part in location:
        section = _find_section(section.model_fields[str(part)].annotation) or ConfigSection
    return list(section.model_fields)


def _is_config_section(kind: Any) -> bool:
    """Tell whether a type is a part of the recipe."""
    return isinstance(kind, type) and issubclass(kind, BaseModel)
