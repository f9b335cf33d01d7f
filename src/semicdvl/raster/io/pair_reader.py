"""Two open images of one place, read window by window on a common grid; `open_pair` opens them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semicdvl.raster.grid import Grid
from semicdvl.raster.io.image_reader import ImageReader
from semicdvl.raster.io.pair_notes import describe_processing
from semicdvl.raster.radiometric_normalisation import RadiometricMatch
from semicdvl.raster.stored_values import BandScaling, Stretch
from semicdvl.raster.warp import Alignment
from semicdvl.types import ReadingSettings


@dataclass(frozen=True)
class PairWindow:
    """A window of both images.

    Attributes:
        t1_HWC: of the before image, RGB or the requested bands: uint8 and black where not valid, or, of a pair that is
            read exactly, float32 and NaN there.
        t2_HWC: the same of the after image.
        valid_HW: False where either image has no data. Both are black there, so that the end of one image never looks
            like a change.
    """

    t1_HWC: NDArray[Any]
    t2_HWC: NDArray[Any]
    valid_HW: NDArray[np.bool_]


@dataclass(frozen=True)
class RasterPair:
    """An open pair of images on one grid; close it, or use it in a `with`.

    It may be handed to another thread, but must not be read by two threads at once (GDAL's handles are not
    thread-safe).

    Attributes:
        before: the before image, on `grid`.
        after: the after image, on `grid`.
        grid: the part of the reference grid that both images cover.
        notes: what was done to the images, in sentences for whoever reads a result.
        reference_grid: the whole grid whose pixels `grid` has.
        reading: the settings by which the pair was opened.
        alignment: how the after image was co-registered; None: it is read as it is.
        row, col: position of the top left corner of `grid` on `reference_grid`.
        radiometric_match: how the after image was matched to the before image; None: it was not.
    """

    before: ImageReader
    after: ImageReader
    grid: Grid
    notes: tuple[str, ...]
    reference_grid: Grid
    reading: ReadingSettings
    alignment: Alignment | None = None
    row: int = 0
    col: int = 0
    radiometric_match: RadiometricMatch | None = None

    @property
    def shape_hw(self) -> tuple[int, int]:
        """Height and width of the overlap in pixels."""
        return self.grid.height, self.grid.width

    @property
    def gsd_m(self) -> float | None:
        """Ground sampling distance in metres; None for plain images."""
        return self.grid.gsd_m

    def read(self, row: int, col: int, height: int, width: int, *, max_px: int | None = None) -> PairWindow:
        """Read a window, which must lie inside the overlap.

        With `max_px` it is read decimated (averaged), so that no side of the result is longer.

        Raises:
            InputError: the pixels of a file cannot be read.
        """
        size = None
        if max_px is not None and max(height, width) > max_px:
            step = max(height, width) / max_px
            size = max(1, round(height / step)), max(1, round(width / step))
        before = self.before.read(row, col, height, width, shape_hw=size)
        return _combine_windows(before, self.after.read(row, col, height, width, shape_hw=size))

    def read_overview(self, *, max_px: int) -> PairWindow:
        """Read the whole overlap, decimated so that no side is longer than `max_px`."""
        return self.read(0, 0, *self.shape_hw, max_px=max_px)

    def select_rgb(self) -> RasterPair:
        """Return the same open pair with red, green and blue only, for pictures."""
        return replace(self, before=self.before.select_rgb(), after=self.after.select_rgb())

    def read_exactly(self) -> RasterPair:
        """Return the same open pair whose windows hold physical values as float32, NaN where not valid.

        Where the radiometry is matched, the values of the after image are those of the before image that it has then.
        """
        matched = self.after.get_scaling() if self.radiometric_match is None else _match_values(self.before, self.after)
        before, after = replace(self.before, exact=self.before.get_scaling()), replace(self.after, exact=matched)
        normalised = self.reading.normalise == "match"
        notes = describe_processing(
            before, after, alignment=self.alignment, match=self.radiometric_match, normalised=normalised
        )
        return replace(self, before=before, after=after, notes=notes)

    def close(self) -> None:
        """Close both files."""
        self.after.close()
        self.before.close()

    def close_views(self) -> None:
        """Close what only this pair uses; the files stay open for the other pair: see `open_pair.align_pair`."""
        self.after.close_view()
        self.before.close_view()

    def __enter__(self) -> RasterPair:
        """Return the pair itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close both files."""
        self.close()


def _match_values(before: ImageReader, after: ImageReader) -> BandScaling:
    """Return what makes physical values of the before image of stored values of the after image, whose match is known.

    The stretches of both lead to the same grey values.
    """
    assert after.stretch is not None, "a match is a stretch"
    tags, count = before.get_scaling(), len(before.bands)
    own = before.stretch or Stretch(np.zeros(count), np.full(count, 255.0))
    gain_C = (own.high_C - own.low_C) / (after.stretch.high_C - after.stretch.low_C)
    offset_C = own.low_C - gain_C * after.stretch.low_C
    return BandScaling(tags.scale_C * gain_C, tags.scale_C * offset_C + tags.offset_C)


def _combine_windows(
    before: tuple[NDArray[Any], NDArray[np.bool_]], after: tuple[NDArray[Any], NDArray[np.bool_]]
) -> PairWindow:
    """Combine the windows of both images and hide what either does not show: black, or NaN among exact values."""
    (t1_HWC, valid_t1_HW), (t2_HWC, valid_t2_HW) = before, after
    valid_HW = valid_t1_HW & valid_t2_HW
    if not valid_HW.all() and t1_HWC.dtype == np.float32:
        t1_HWC, t2_HWC = (np.where(valid_HW[..., None], one, np.float32(np.nan)) for one in (t1_HWC, t2_HWC))
    elif not valid_HW.all():
        t1_HWC, t2_HWC = t1_HWC * valid_HW[..., None], t2_HWC * valid_HW[..., None]
    return PairWindow(t1_HWC, t2_HWC, valid_HW)
