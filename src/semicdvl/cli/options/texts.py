"""Options whose text holds several values."""

from __future__ import annotations

import semicdvl as cd


def split_words(text: str | None) -> tuple[str, ...]:
    """Return the words of a list with commas."""
    return tuple(word.strip() for word in (text or "").split(",") if word.strip())


def parse_numbers(text: str | None, option: str) -> tuple[int, ...] | None:
    """Return the whole numbers of a list with commas; None where nothing was given.

    Raises:
        ConfigError: a word is no whole number.
    """
    if text is None:
        return None
    try:
        return tuple(int(word) for word in split_words(text))
    except ValueError as error:
        raise cd.ConfigError(
            f"{option} is {text!r}; it must be whole numbers with commas in between, like 4,3,2."
        ) from error
