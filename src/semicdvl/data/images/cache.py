"""Keep images and labels in memory for a training."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from semicdvl.data.images.files import PILLOW_SUFFIXES, UInt8Array, WindowPx, cut_window
from semicdvl.data.images.reading import read_bands, read_opaque, read_rgb
from semicdvl.data.labels.files import read_classes, read_mask
from semicdvl.raster.stored_values import Stretch
from semicdvl.types import ClassLegend, InputBands


class ImageCache:
    """Decoded files in memory: kept until the budget is full; after that only the last few are.

    Training reads every file once per epoch, so evicting the oldest would keep nothing useful: what is in the cache
    stays there. The few recent files serve crops of one tile that are read one after the other.

    Attributes:
        max_bytes: the budget.
        cached_bytes: what is kept.
        label_values: as in `read_mask`.
        stretch: as in `read_rgb`.
        bands: that are read in place of RGB; None: RGB.
    """

    RECENT = 6

    def __init__(
        self,
        max_bytes: int,
        *,
        label_values: Mapping[int, int] | None = None,
        stretch: Stretch | None = None,
        bands: InputBands | None = None,
    ) -> None:
        """Create an empty cache of at most `max_bytes`; the others are its attributes."""
        self.max_bytes, self.cached_bytes = max_bytes, 0
        self.label_values, self.stretch, self.bands = label_values, stretch, bands
        self._kept: dict[Hashable, NDArray[Any]] = {}
        self._recent: OrderedDict[Hashable, NDArray[Any]] = OrderedDict()

    def read_image(self, path: Path, window_px: WindowPx | None = None) -> NDArray[Any]:
        """Return what the network sees of an image: RGB, or `bands`; the array is shared, don't write into it."""
        if self.bands is None:
            return self.read_rgb(path, window_px)
        return self.get_or_read(("bands", path, window_px), lambda: self._read_bands(path, window_px))

    def _read_bands(self, path: Path, window_px: WindowPx | None) -> NDArray[Any]:
        """Read the bands; where the image shows nothing they have their mean."""
        assert self.bands is not None
        values_HWC = read_bands(path, self.bands.numbers, window_px=window_px)
        return self.bands.fill_hidden(values_HWC, read_opaque(path, window_px=window_px))

    def read_rgb(self, path: Path, window_px: WindowPx | None = None) -> UInt8Array:
        """Return what the function `read_rgb` returns; the array is shared, don't write into it."""
        if path.suffix.lower() in PILLOW_SUFFIXES:  # no windows in these formats: decoded, and kept, as a whole
            whole_HWC = self.get_or_read(("rgb", path), lambda: read_rgb(path, stretch=self.stretch))
            return cut_window(path, whole_HWC, window_px)
        return self.get_or_read(
            ("rgb", path, window_px), lambda: read_rgb(path, window_px=window_px, stretch=self.stretch)
        )

    def read_mask(self, path: Path, window_px: WindowPx | None = None) -> UInt8Array:
        """Return what the function `read_mask` returns; the array is shared, don't write into it."""
        values = self.label_values
        if path.suffix.lower() in PILLOW_SUFFIXES:
            return cut_window(
                path, self.get_or_read(("mask", path), lambda: read_mask(path, label_values=values)), window_px
            )
        return self.get_or_read(
            ("mask", path, window_px), lambda: read_mask(path, window_px=window_px, label_values=values)
        )

    def read_classes(self, path: Path, legend: ClassLegend, window_px: WindowPx | None = None) -> UInt8Array:
        """Return what the function `read_classes` returns; the array is shared, don't write into it."""
        if path.suffix.lower() in PILLOW_SUFFIXES:
            whole_HW = self.get_or_read(("classes", path, legend), lambda: read_classes(path, legend))
            return cut_window(path, whole_HW, window_px)
        return self.get_or_read(
            ("classes", path, legend, window_px), lambda: read_classes(path, legend, window_px=window_px)
        )

    def get_or_read(self, key: Hashable, read: Callable[[], NDArray[Any]]) -> NDArray[Any]:
        """Return the array of a key, or read and keep it: permanently while the budget lasts, else among the recent."""
        array = self._kept.get(key)
        if array is None:
            array = self._recent.get(key)
        if array is not None:
            return array
        array = read()
        if self.cached_bytes + array.nbytes <= self.max_bytes:
            self._kept[key] = array
            self.cached_bytes += array.nbytes
            return array
        self._recent[key] = array
        while len(self._recent) > self.RECENT:
            self._recent.popitem(last=False)
        return array
