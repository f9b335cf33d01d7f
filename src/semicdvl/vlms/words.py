"""Words that a user types for a vision-language model: separated, normalised, and compared by their singular."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

from semicdvl.errors import ConfigError

_SEPARATORS = re.compile(r"[,;|\n\r\t]+")
_QUOTES = "\"'`\u00b4\u2018\u2019\u201c\u201d\u201e\u00ab\u00bb"
_IRREGULAR = {"leaves": "leaf", "people": "person", "buses": "bus", "glasses": "glass"}
"""Plurals that the rules of `to_singular` would get wrong."""
_UNCHANGED = ("ss", "us", "is")
"""Endings of words in s that are no plurals."""


def normalise_word(word: str) -> str:
    """Normalise a prompt: lower case, one form of each character, single blanks, no quotes or full stop around it.

    Raises:
        ConfigError: nothing is left.
    """
    text = unicodedata.normalize("NFKC", str(word)).lower()
    cleaned = " ".join(text.replace("_", " ").split()).strip(f"{_QUOTES}. ").strip()
    if not cleaned:
        raise ConfigError("one of the prompts is empty. Give a word, for example 'building'.")
    return cleaned


def split_words(text: str) -> tuple[str, ...]:
    """Return the words of a list with commas, semicolons or bars in between, normalised; each word once.

    A word and its plural count as one word; the form that comes first is kept.
    """
    parts = [part for part in _SEPARATORS.split(text) if part.strip(f"{_QUOTES}. _")]
    return drop_repeated(normalise_word(part) for part in parts)


def drop_repeated(words: Iterable[str]) -> tuple[str, ...]:
    """Return the first of all words that have the same singular."""
    first: dict[str, str] = {}
    for word in words:
        first.setdefault(to_singular(word), word)
    return tuple(first.values())


def to_singular(word: str) -> str:
    """Return the singular of a word's last part by the usual rules of English; a singular stays as it is."""
    head, blank, last = word.rpartition(" ")
    if last in _IRREGULAR:
        last = _IRREGULAR[last]
    elif last.endswith("ies") and len(last) > 4:
        last = f"{last[:-3]}y"
    elif last.endswith(("ches", "shes", "xes", "sses")):
        last = last[:-2]
    elif last.endswith("s") and len(last) > 3 and not last.endswith(_UNCHANGED):
        last = last[:-1]
    return f"{head}{blank}{last}"
