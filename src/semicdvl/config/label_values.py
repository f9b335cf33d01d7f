"""What the values of a label file mean, from a text such as `0-127=unchanged,128-255=changed`."""

from __future__ import annotations

from semicdvl.errors import ConfigError

LABEL_MEANINGS = {"unchanged": 0, "changed": 1, "unknown": 255}
"""What a value of a label file may mean; 255 is `types.IGNORE`."""
MAX_LABEL_VALUE = 65_535
MAX_DIGITS = 100
"""Of a value, leading zeros included: Python reads no whole number of thousands of digits."""


def parse_label_values(text: str) -> dict[int, int]:
    """Return the meaning of each value from a text such as `255=changed,0=unchanged` or `0-127=unchanged,...`.

    The meaning is 0 for unchanged, 1 for changed and 255 for unknown.

    Raises:
        ConfigError: the text is of another form, or gives a value two meanings.
    """
    meanings: dict[int, int] = {}
    for part in text.split(","):
        numbers, _, meaning = (word.strip() for word in part.partition("="))
        for value in _parse_range(numbers, part.strip()):
            code = LABEL_MEANINGS.get(meaning.lower())
            if code is None:
                raise _make_label_value_error(part.strip())
            if meanings.setdefault(value, code) != code:
                raise ConfigError(f"--label-values gives the value {value} two meanings. Give it one.")
    return meanings


def _parse_range(numbers: str, part: str) -> range:
    """Return the values of `255` or `0-127`."""
    first, dash, last = (word.strip() for word in numbers.partition("-"))
    if not first.isdecimal() or not (last.isdecimal() or not dash):
        raise _make_label_value_error(part)
    too_long = max(len(first), len(last)) > MAX_DIGITS
    low, high = (0, 0) if too_long else (int(first), int(last or first))
    if too_long or low > high or high > MAX_LABEL_VALUE:
        raise ConfigError(f"'{part}' is no range of values: give the smaller one first, up to {MAX_LABEL_VALUE}.")
    return range(low, high + 1)


def _make_label_value_error(part: str) -> ConfigError:
    return ConfigError(
        f"'{part}' does not say what a value means. Give values of 0 and more with one of"
        f" {', '.join(LABEL_MEANINGS)}, such as --label-values 255=changed,0=unchanged or 0-127=unchanged."
    )
