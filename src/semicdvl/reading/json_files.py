"""Read JSON: what is not plain JSON of a sane size is refused, and content is checked against a model of its form."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from semicdvl.errors import InputError
from semicdvl.reading.limits import (
    MAX_JSON_BYTES,
    MAX_NESTING,
    MAX_SHOWN_CHARACTERS,
    MAX_WHOLE_NUMBER,
)
from semicdvl.reading.regular_files import read_bytes

if TYPE_CHECKING:
    from pydantic import BaseModel, ValidationError

ModelT = TypeVar("ModelT", bound="BaseModel")
_NO_TEXT = re.compile("[\0\ud800-\udfff]")
"""Zero bytes and halves of characters, which no file name and no terminal takes."""


def read_json(path: Path, *, remedy: str) -> Any:
    """Read a JSON file.

    Args:
        path: the file.
        remedy: what the error message advises to do.

    Raises:
        InputError: the file is missing, no regular file, too large or not plain JSON, see `parse_json`.
    """
    content = read_bytes(path, remedy=remedy, max_bytes=MAX_JSON_BYTES)
    try:
        return parse_json(content.decode("utf-8"))
    except ValueError as error:
        raise InputError(path, f"is not valid JSON ({error})", remedy) from error


def read_model(path: Path, model: type[ModelT], *, remedy: str) -> ModelT:
    """Read a JSON file of a known form.

    Raises:
        InputError: it is not plain JSON, or not of this form; the place is named.
    """
    from pydantic import ValidationError

    content = read_json(path, remedy=remedy)
    try:
        return model.model_validate(content)
    except ValidationError as error:
        raise InputError(path, describe_fault(error), remedy) from None


def describe_fault(error: ValidationError) -> str:
    """Return the place and the nature of the first fault that a model found."""
    found = error.errors()[0]
    place = ".".join(map(str, found["loc"])) or "content"
    return f"{shorten(place)}: {found['msg']}"


def parse_json(text: str | bytes) -> Any:
    """Parse plain JSON.

    Raises:
        ValueError: the text is no JSON, names a key twice, holds NaN or infinity, or is nested or has numbers beyond
            `limits`.
    """
    try:
        content = json.loads(text, object_pairs_hook=_build_object, parse_constant=_refuse_constant)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    check_values(content)
    return content


def _build_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object whose keys are all different: of two, readers take either."""
    content = dict(pairs)
    if len(content) < len(pairs):
        twice = next(name for name, count in Counter(name for name, _ in pairs).items() if count > 1)
        raise ValueError(f"the key '{shorten(twice)}' occurs twice")
    return content


def _refuse_constant(text: str) -> Any:
    raise ValueError(f"{text} is not a number of JSON")


def check_values(content: Any, *, finite: bool = True) -> None:
    """Check plain values, however deep.

    Args:
        content: of a JSON or TOML file.
        finite: whether numbers that are infinite or none are refused, too.

    Raises:
        ValueError: they are nested too deeply, hold a number beyond 64 bits, or text that is none.
    """
    level: list[Any] = [content]
    for _ in range(MAX_NESTING):
        deeper: list[Any] = []
        for value in level:
            if isinstance(value, dict):
                _check_plain(value.keys(), finite=finite)
                deeper += _check_plain(value.values(), finite=finite)
            else:
                deeper += _check_plain(value if isinstance(value, list) else [value], finite=finite)
        if not deeper:
            return
        level = deeper
    raise ValueError(f"it is nested more than {MAX_NESTING} levels deep")


def _check_plain(values: Iterable[Any], *, finite: bool) -> list[Any]:
    """Check the numbers and texts among some values, and return the lists and objects among them."""
    deeper = []
    for value in values:
        if isinstance(value, dict | list):
            deeper.append(value)
        elif isinstance(value, str):
            if _NO_TEXT.search(value):
                raise ValueError("a text holds a zero byte, or half a character")
        elif isinstance(value, int):
            if abs(value) > MAX_WHOLE_NUMBER:
                raise ValueError("a number has more digits than 64 bits hold")
        elif finite and isinstance(value, float) and not math.isfinite(value):
            raise ValueError("a number is infinite or none")
    return deeper


def shorten(value: object) -> str:
    """Return a value for a message: on one line, and not longer than a line."""
    try:
        whole = str(value)
    except ValueError:  # a number of thousands of digits
        whole = "a number of thousands of digits"
    text = "".join(letter if letter.isprintable() else "?" for letter in whole[: 2 * MAX_SHOWN_CHARACTERS])
    return text if len(text) <= MAX_SHOWN_CHARACTERS else f"{text[:MAX_SHOWN_CHARACTERS]}..."
