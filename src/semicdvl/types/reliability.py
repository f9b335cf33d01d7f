"""What a detector was measured on, and whether a result lies within it."""

from __future__ import annotations

from dataclasses import dataclass

MAX_PIXEL_RATIO = 1.25
"""Pixels whose sides differ by more than this factor squeeze all objects. At 1.6 the map of a synthetic city fell from
an IoU of 0.71 to 0.57 or 0.69, depending on the direction; at 1.3 by 0.02, at 1.15 not at all."""
MIN_IMAGE_PX = 100
"""Smaller images show no surroundings: cut into squares of 320, 128, 64 and 32 px that are looked at by themselves, a
synthetic city has an IoU of 0.71, 0.67, 0.57 and 0.19."""
GSD_TOLERANCE_FRAC = 0.05
"""By so much a pixel may be smaller or larger than those of the measured images and still count as of their size."""


@dataclass(frozen=True)
class MeasuredRange:
    """What a vision-language model was measured on; the default is "not measured".

    Attributes:
        words: prompts on which its quality was measured; none: it was not measured.
        missed_words: prompts that were measured and of which it finds next to nothing.
        gsd_m: smallest and largest ground sampling distance of the images, in metres per pixel; None: not measured.
    """

    words: tuple[str, ...] = ()
    missed_words: tuple[str, ...] = ()
    gsd_m: tuple[float, float] | None = None

    def covers_gsd(self, gsd_m: float) -> bool:
        """Tell whether images of this pixel size were measured, to `GSD_TOLERANCE_FRAC`."""
        if self.gsd_m is None:
            return False
        low_m, high_m = self.gsd_m
        return low_m * (1 - GSD_TOLERANCE_FRAC) <= gsd_m <= high_m * (1 + GSD_TOLERANCE_FRAC)


@dataclass(frozen=True)
class SourceFacts:
    """What is known of the images of a pair before anything is detected.

    Attributes:
        gsd_m: ground sampling distance in metres per pixel; None if not known.
        dtypes: data types of the files of both dates.
        bands: 1-based numbers of the bands that are read, of both dates.
        pixel_m: width and height of a pixel on the ground in metres; None if not known.
        size_px: height and width of the common ground in pixels; None if not known.
        grey: whether the bands of a date are equal, as in black and white photographs.
        colours_told: whether it is known which bands are red, green and blue.
    """

    gsd_m: float | None
    dtypes: tuple[str, ...] = ("uint8", "uint8")
    bands: tuple[tuple[int, ...], ...] = ((1, 2, 3), (1, 2, 3))
    pixel_m: tuple[float, float] | None = None
    size_px: tuple[int, int] | None = None
    grey: tuple[bool, ...] = (False, False)
    colours_told: bool = True


def has_square_pixels(pixel_m: tuple[float, float] | None) -> bool:
    """Tell whether pixels of this width and height are squares on the ground, to `MAX_PIXEL_RATIO`; None counts so."""
    return pixel_m is None or max(pixel_m) <= MAX_PIXEL_RATIO * min(pixel_m)


def describe_pixel_sides(pixel_m: tuple[float, float]) -> str:
    """Return width and height of a pixel as the beginning of a sentence."""
    width_m, height_m = pixel_m
    return f"A pixel is {width_m:.2g} m wide and {height_m:.2g} m high"


@dataclass(frozen=True)
class Reliability:
    """Whether a result lies within what its detector was measured on.

    Attributes:
        reliable: True: everything lies within the measured range; False: something lies beyond it, or the images do not
            fit each other; None: it cannot be told, because nothing was measured or a fact is missing.
        reasons: why it is not True, in sentences; where the user said that it is all the same, why it was not.
    """

    reliable: bool | None
    reasons: tuple[str, ...] = ()

    def force(self) -> Reliability:
        """Return the judgement of a user who says that the result is reliable; the reasons against it stay."""
        return Reliability(True, self.reasons)

    def __str__(self) -> str:
        """Return the judgement and its reasons in sentences."""
        if self.reliable and self.reasons:
            return " ".join(["The user called this result reliable (--force), although:", *self.reasons])
        if self.reliable:
            return "The images and words lie within what the detector was measured on."
        told = "This result is not reliable." if self.reliable is False else "How reliable this is cannot be told."
        return " ".join([told, *self.reasons])
