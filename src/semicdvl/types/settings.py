"""Settings that several commands share: how a pair is read; and a check of numbers that all of them use."""

from __future__ import annotations

import math
from dataclasses import dataclass

from semicdvl.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class ReadingSettings:
    """How two images of one place are read as a pair; who reads the images of a result again uses the same settings.

    Attributes:
        bands: 1-based numbers of the bands, three or more, red, green and blue first; None: the bands named or tagged
            so, or the first three.
        after_bands: the same for the after image, where its bands have another order.
        grid: whose pixels the result has: "before", "after", "finest" (of the image with the smaller pixels), "utm"
            (square pixels over the before image, in its zone of UTM), or a raster file.
        alpha: which band says where there is data: "auto" (the one tagged as alpha, unless it holds many values),
            "none", or the number of a band.
        stretch: how data that are not 8-bit become grey values: "auto" (one robust stretch for both dates where their
            values are comparable), "each" (one per date), or "LOW,HIGH" in data values.
        collar: which borders without a no-data tag count as no data: "auto" (of one colour, with a straight edge, and
            solid black ones), "black", "white" or "none".
        normalise: "match" normalises the after image radiometrically to the before image, once for the whole pair;
            "none" does not.
        align: co-register the after image by the measured shift, where it is known.

    Examples:
        >>> import semicdvl as cd
        >>> cd.ReadingSettings(bands=(4, 3, 2), align=True).grid
        'before'
    """

    bands: tuple[int, ...] | None = None
    after_bands: tuple[int, ...] | None = None
    grid: str = "before"
    alpha: str = "auto"
    stretch: str = "auto"
    collar: str = "auto"
    normalise: str = "none"
    align: bool = False


def check_finite(settings: object, *names: str) -> None:
    """Refuse a setting that is infinite or not a number; None is no number and passes.

    Raises:
        ConfigError: a setting is; the first of them is named.
    """
    for name in names:
        value = getattr(settings, name)
        if value is not None and not math.isfinite(value):
            raise ConfigError(f"{name} is {value}. Give a finite number.")
