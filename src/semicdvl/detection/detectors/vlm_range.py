"""Judge whether the images and words of a detection lie within what its vision-language model was measured on."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence

from semicdvl.types import VLM, DescribedVLM, MeasuredRange, Reliability, SourceFacts
from semicdvl.types.reliability import MIN_IMAGE_PX, describe_pixel_sides, has_square_pixels
from semicdvl.vlms.words import to_singular


def judge_vlm_source(vlm: VLM, words: tuple[str, ...], source: SourceFacts) -> Reliability:
    """Judge whether images and words lie within what a VLM was measured on.

    Args:
        vlm: the vision-language model.
        words: what it looks for.
        source: what is known of the images.
    """
    if not isinstance(vlm, DescribedVLM) or not vlm.measured.words:
        return Reliability(None, (f"The quality of {vlm.identity} was not measured.",))
    name, measured = vlm.identity.partition("-")[0], vlm.measured
    doubts = (*_doubt_words(name, measured, words), *_doubt_images(name, measured, source))
    if doubts:
        return Reliability(False, doubts)
    if source.gsd_m is None:
        return Reliability(None, (f"The size of a pixel is not known; {_format_range(name, measured)}. Give --gsd.",))
    if not source.colours_told:
        return Reliability(None, ("Which bands are red, green and blue is not known. Give --bands.",))
    return Reliability(True)


def _doubt_words(name: str, measured: MeasuredRange, words: tuple[str, ...]) -> Iterator[str]:
    """Yield a sentence for each kind of word that the VLM was not measured on, or was measured not to find."""
    singular = {to_singular(word) for word in measured.words}
    missed = {to_singular(word) for word in measured.missed_words}
    blind = [word for word in words if to_singular(word) in missed]
    beyond = [word for word in words if to_singular(word) not in singular | missed]
    if blind:
        yield f"{name} was measured to find next to nothing of {_quote(blind)}: what is missing may be there."
    if beyond:
        yield (
            f"{name} was not measured on {_quote(beyond)}. It was on, for example, {', '.join(measured.words[:3])}; "
            f"nearest to yours: {', '.join(_find_nearest(beyond, measured.words))}."
        )


def _find_nearest(words: Sequence[str], known: Sequence[str]) -> list[str]:
    """Return the known word that is spelled most like each word."""
    nearest = [difflib.get_close_matches(word, known, n=1, cutoff=0.0) for word in words]
    return list(dict.fromkeys(match for matches in nearest for match in matches))


def _quote(words: Sequence[str]) -> str:
    return ", ".join(f"'{word}'" for word in words)


def _doubt_images(name: str, measured: MeasuredRange, source: SourceFacts) -> Iterator[str]:
    """Yield a sentence for each property of the images that lies beyond what the VLM was measured on."""
    if source.gsd_m is not None and measured.gsd_m is not None and not measured.covers_gsd(source.gsd_m):
        yield f"A pixel is {source.gsd_m:.3g} m wide; {_format_range(name, measured)}."
    if source.pixel_m is not None and not has_square_pixels(source.pixel_m):
        sides = describe_pixel_sides(source.pixel_m)
        yield f"{sides}; {name} was measured on square pixels. Re-run with --grid utm."
    if source.size_px is not None and min(source.size_px) < MIN_IMAGE_PX:
        height_px, width_px = source.size_px
        yield (
            f"The images have only {width_px} x {height_px} px in common; {name} needs surroundings, at least "
            f"{MIN_IMAGE_PX} px each way."
        )
    other_types = sorted(set(source.dtypes) - {"uint8"})
    if other_types:
        yield (
            f"The images have values of type {', '.join(other_types)}; {name} was measured on 8-bit pictures in red, "
            "green and blue."
        )
    if any(len(set(bands)) < len(bands) for bands in source.bands):
        yield f"A band is used more than once, as in grey images; {name} was measured on red, green and blue."
    elif any(source.grey):
        which = "Both images are" if all(source.grey) else f"The {'before' if source.grey[0] else 'after'} image is"
        yield f"{which} grey (the bands are equal); {name} was measured on red, green and blue."


def _format_range(name: str, measured: MeasuredRange) -> str:
    low_m, high_m = measured.gsd_m or (0.0, 0.0)
    return f"{name} was measured on {low_m:g} to {high_m:g} m"
