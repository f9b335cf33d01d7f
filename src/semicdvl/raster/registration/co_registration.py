"""Co-register an open pair by its measured shift, and keep the result only where it helped."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass

from semicdvl.errors import InputError
from semicdvl.raster.io.inputs import ImageInput
from semicdvl.raster.io.open_pair import align_pair, open_pair
from semicdvl.raster.io.pair_reader import RasterPair
from semicdvl.raster.registration.estimate import measure_shift
from semicdvl.raster.registration.shift import MAX_CORRECTABLE_SHIFT_PX, Shift
from semicdvl.types import ReadingSettings

EXCESS_REMEDY = "Georeference one of the images again, or check that its CRS is right"
NO_IMPROVEMENT = "Moving the after image did not reduce the misregistration, so it was left where it is"


@dataclass(frozen=True)
class RegisteredPair:
    """An open pair, which must be closed, and what became of its co-registration.

    Attributes:
        pair: the pair; its after image is read co-registered where that reduced the misregistration.
        remaining: the shift that is left after co-registration; None where the after image was not moved.
        note: why it was not moved although that was asked for; None where it was moved, or not asked for.
    """

    pair: RasterPair
    remaining: Shift | None = None
    note: str | None = None


def open_registered_pair(
    before: ImageInput, after: ImageInput, reading: ReadingSettings, *, allow_outside: bool = False
) -> RegisteredPair:
    """Open a pair and, if the settings say so, measure its shift and co-register it.

    Args:
        before: date 1, see `raster.io.open_pair.open_pair`.
        after: date 2.
        reading: how the pair is read.
        allow_outside: whether a VRT may have sources outside of its folder.

    Raises:
        InputError: as `open_pair`, or the images are misregistered by more than can be corrected.
    """
    pair = open_pair(before, after, reading, allow_outside=allow_outside)
    if not reading.align:
        return RegisteredPair(pair)
    with ExitStack() as opened:
        opened.callback(pair.close)
        shift = measure_shift(pair)
        if shift.is_excessive:
            raise InputError(pair.after.path, describe_excess(shift), EXCESS_REMEDY)
        registered = co_register(pair, shift)
        opened.pop_all()
    return registered


def co_register(pair: RasterPair, shift: Shift) -> RegisteredPair:
    """Move the after image of a pair by its shift, unless what is then left is no smaller.

    Args:
        pair: the open pair; its files are those of the returned pair.
        shift: as `measure_shift` measured it on this pair.

    Raises:
        InputError: the pixels of a file cannot be read, or the images do not overlap once one is moved.
    """
    alignment = shift.to_alignment(pair)
    if alignment is None:
        return RegisteredPair(pair, note=_explain_no_alignment(shift))
    aligned = align_pair(pair, alignment)
    try:
        remaining = measure_shift(aligned)
    except BaseException:
        aligned.close_views()
        raise
    if _is_improved(remaining, shift):
        pair.close_views()
        return RegisteredPair(aligned, remaining)
    aligned.close_views()
    return RegisteredPair(pair, note=NO_IMPROVEMENT)


def describe_excess(shift: Shift) -> str:
    """Say that a shift is too large to be corrected; `EXCESS_REMEDY` says what to do."""
    return (
        f"{shift.format_misregistration()}{shift.format_doubt()}. That is more than the "
        f"{MAX_CORRECTABLE_SHIFT_PX:g} px that can be corrected here"
    )


def _explain_no_alignment(shift: Shift) -> str:
    """Say why a shift gives no alignment."""
    if not shift.is_known:
        return "The shift between the dates could not be measured, so the after image was not moved"
    if shift.length_px > MAX_CORRECTABLE_SHIFT_PX:
        return f"{describe_excess(shift)}, so the after image was not moved"
    return f"The measured shift of {shift.length_px:.2f} px is too small to be corrected, so no image was moved"


def _is_improved(remaining: Shift, shift: Shift) -> bool:
    """Tell whether co-registration helped: what is left is known and shorter, or varies less."""
    if not remaining.is_known:
        return False
    return remaining.length_px < shift.length_px if not shift.varies else remaining.spread_px <= shift.spread_px
