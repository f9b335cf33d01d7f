"""Numbers as a reader expects them: areas with a fitting unit, counts with the right plural."""

from __future__ import annotations


def format_area(area: float, *, metric: bool) -> str:
    """Return an area with its unit: pixels, square metres below a hectare, hectares from there on."""
    if not metric:
        return f"{area:,.0f} px"
    return f"{area:,.0f} m²" if area < 10_000 else f"{area / 10_000:,.2f} ha"


def format_count(count: int, noun: str, plural: str | None = None) -> str:
    """Return a count with its noun: "1 changed object", "1,204 changed objects"."""
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"
