"""The images of a pair, read as the detection read them: bands, grid, alignment, one stretch for both dates.

GDAL's handles must not be read by two threads at once, so a pair has several: the first is opened with everything that
must be measured on the whole image, the others share what it measured.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import rasterio
from pydantic import TypeAdapter, ValidationError
from rasterio.errors import RasterioError

from semicdvl.errors import ConfigError, InputError
from semicdvl.raster.grid import Grid, find_pixel_offset
from semicdvl.raster.io.georeference_warnings import ignore_not_georeferenced
from semicdvl.raster.io.image_reader import ImageReader
from semicdvl.raster.io.inputs import is_local_name, resolve_input
from semicdvl.raster.io.open_image import open_image_reader
from semicdvl.raster.io.open_pair import GRID_CHOICES, open_pair
from semicdvl.raster.io.pair_reader import RasterPair
from semicdvl.raster.registration.co_registration import open_registered_pair
from semicdvl.raster.warp import Alignment
from semicdvl.reading.regular_files import is_file, require_plain_companions
from semicdvl.review.folder import RunFacts, ServedPair
from semicdvl.review.settings import ServeConfig
from semicdvl.types import ReadingSettings

HANDLES = 8
"""Open handles per image: as many tiles can be read at once; with fewer, some requests of a browser wait long."""
GDAL_CACHE_BYTES = 128 * 2**20
MAX_BLOCK_BYTES = 2**30
"""A file whose smallest readable piece is larger is not served: one tile would need that much memory."""


@dataclass(frozen=True)
class Handle:
    """One thread's way to read a pair.

    Attributes:
        before: date 1, on the grid of the result.
        after: date 2, likewise.
        rasters: the open rasters of the result by name: change, score.
    """

    before: ImageReader
    after: ImageReader
    rasters: dict[str, Any]

    def close(self) -> None:
        """Close all files."""
        for each in (self.before, self.after, *self.rasters.values()):
            with suppress(RasterioError):
                each.close()


class PairImages:
    """The open images of one served pair; any thread may ask it."""

    def __init__(self, pair: ServedPair, config: ServeConfig) -> None:
        """Open both images and the rasters of the result.

        Raises:
            InputError: a file is missing, damaged, lies on a network that was not named on the command line, or has
                another grid than the result.
            ConfigError: the settings in run.json are impossible.
        """
        assert pair.facts is not None, "a pair that failed is never opened"
        self.folder = pair.folder
        self.reading = read_reading_settings(pair.facts)
        with rasterio.Env(GDAL_CACHEMAX=GDAL_CACHE_BYTES):
            self.grid = read_result_grid(pair.folder)
            opened = _open_as_detected(pair, self.reading, config)
        self.first = opened.select_rgb()
        self.notes = opened.notes + _note_missing_overviews(self.first)
        try:
            self._check_grid()
            handle = Handle(self.first.before, self.first.after, open_result_rasters(pair.folder))
        except BaseException:
            self.first.close()
            raise
        self._idle: queue.LifoQueue[Handle] = queue.LifoQueue()
        self._idle.put(handle)
        self._count, self._lock, self._closed = 1, threading.Lock(), False

    def _check_grid(self) -> None:
        """Refuse images that are not those of the result."""
        grid = self.first.grid
        same = find_pixel_offset(self.grid, grid) == (0, 0) and self.first.shape_hw == (
            self.grid.height,
            self.grid.width,
        )
        if not same:
            raise InputError(
                self.folder,
                "has another grid than the images that are there now",
                "Give the images that the result was made of (--before, --after), or run `semicdvl detect` again",
            )

    @contextmanager
    def borrow(self) -> Iterator[Handle]:
        """Give a handle to this thread; a new one is opened while there are fewer than `HANDLES`."""
        handle = self._take()
        try:
            with rasterio.Env(GDAL_CACHEMAX=GDAL_CACHE_BYTES):
                yield handle
        finally:
            if self._closed:
                handle.close()
            else:
                self._idle.put(handle)

    def _take(self) -> Handle:
        with suppress(queue.Empty):
            return self._idle.get_nowait()
        with self._lock:
            opens = self._count < HANDLES
            self._count += opens
        if not opens:
            return self._idle.get()
        try:
            return self._open_another()
        except BaseException:
            with self._lock:
                self._count -= 1
            raise

    def _open_another(self) -> Handle:
        """Open the files again; what was measured on the whole images is shared."""
        with rasterio.Env(GDAL_CACHEMAX=GDAL_CACHE_BYTES):
            before = _reopen(self.first.before, alpha=self.reading.alpha)
            after = _reopen(self.first.after, alpha=self.reading.alpha)
            return Handle(before, after, open_result_rasters(self.folder))

    def close(self) -> None:
        """Close all handles that nobody is reading."""
        self._closed = True
        with suppress(queue.Empty):
            while True:
                self._idle.get_nowait().close()


def _reopen(reader: ImageReader, *, alpha: str) -> ImageReader:
    """Return a reader like another one, with a file handle of its own."""
    fresh = open_image_reader(reader.input, bands=reader.bands, alpha=alpha)
    placed = replace(fresh, grid=reader.file_grid, file_grid=reader.file_grid).on_grid(reader.grid)
    measured = {name: getattr(reader, name) for name in ("stretch", "border", "collar", "collars", "displacement")}
    return replace(placed, **measured)


def read_reading_settings(facts: RunFacts) -> ReadingSettings:
    """Return how the images of a result are read.

    Raises:
        ConfigError: run.json holds settings that are none.
    """
    try:
        return TypeAdapter(ReadingSettings).validate_python(facts.settings)
    except ValidationError as error:
        name, value = error.errors()[0]["loc"][0], error.errors()[0]["input"]
        raise ConfigError(f"run.json: {name} = {value!r} is no setting by which images are read.") from error


def _open_as_detected(pair: ServedPair, reading: ReadingSettings, config: ServeConfig) -> RasterPair:
    """Open the images; where a constant shift was measured and removed, it is not measured again."""
    assert pair.facts is not None
    before = _locate(pair, "before", config.before)
    after = _locate(pair, "after", config.after)
    if reading.grid not in GRID_CHOICES:
        _check_local(reading.grid, pair.folder / "run.json")
    alignment = pair.facts.alignment
    if reading.align and alignment.offsets_px:
        return open_registered_pair(before, after, reading).pair
    moved = None if alignment.moved_px is None else Alignment(*alignment.moved_px)
    return open_pair(before, after, reading, alignment=moved)


def _locate(pair: ServedPair, date: str, given: str | None) -> str:
    """Return where the image of a date is.

    Raises:
        InputError: it is gone, has changed, or run.json names something that only the command line may name.
    """
    assert pair.facts is not None
    if given is not None:
        return given
    image = getattr(pair.facts.inputs, date)
    name = str(image.path)
    _check_local(name, pair.folder / "run.json")
    path = Path(name)
    if image.bytes is not None and not is_file(path):
        remedy = f"Give its new path: `semicdvl serve {pair.folder} --{date} FILE`"
        raise InputError(name, f"does not exist any more, but {pair.name} was made of it", remedy)
    if image.bytes is not None and path.stat().st_size != image.bytes:
        raise InputError(name, f"is not the image that {pair.name} was made of", "Run `semicdvl detect` again")
    return name


def _check_local(name: str, record: Path) -> None:
    """Refuse to follow a record to anything but files of this machine: it may come from somebody else."""
    if not all(is_local_name(part) for part in resolve_input(name).gdal_names):
        raise InputError(
            record,
            f"names {name[:200]}, which is no plain file of this machine",
            "If you trust it, name it yourself with --before and --after",
        )


# ------------------------------------------------------------------------------------------------ rasters of the result
def read_result_grid(folder: Path) -> Grid:
    """Return the grid of the change map.

    Raises:
        InputError: it is missing or damaged.
    """
    with open_result_raster(folder / "change.tif") as raster:
        return Grid(raster.crs, raster.transform, raster.height, raster.width)


def open_result_raster(path: Path) -> Any:
    """Open a raster of the result.

    Raises:
        InputError: it is missing, damaged, or its pieces are too large to be read for a tile.
    """
    require_plain_companions(path)
    try:
        with ignore_not_georeferenced():  # plain images have no georeference
            raster = rasterio.open(path, driver="GTiff")
    except RasterioError as error:
        raise InputError(path, f"cannot be read ({error})", "Run `semicdvl detect` again") from error
    if (problem := _find_block_problem(raster)) is not None:
        raster.close()
        raise InputError(path, problem, "Write it anew, e.g. `gdal_translate -of COG IN OUT`")
    return raster


def open_result_rasters(folder: Path) -> dict[str, Any]:
    """Open the change map and, where there is one, the score map of a result."""
    names = [name for name in ("change", "score") if name == "change" or (folder / f"{name}.tif").is_file()]
    return {name: open_result_raster(folder / f"{name}.tif") for name in names}


def _find_block_problem(raster: Any) -> str | None:
    """Return why a raster cannot be read piece by piece; None if it can."""
    tall, wide = raster.block_shapes[0]
    block_bytes = tall * wide * raster.count * 8
    if block_bytes > MAX_BLOCK_BYTES:
        return f"has blocks of {wide} x {tall} px, so a small part of it cannot be read alone"
    return None


def _note_missing_overviews(pair: RasterPair) -> tuple[str, ...]:
    """Return a note for each large image that is slow to look at as a whole."""
    notes = []
    for reader in (pair.before, pair.after):
        dataset = reader.file_dataset
        if max(dataset.height, dataset.width) > 8192 and not dataset.overviews(1):
            name = reader.path.name
            notes.append(f"{name} has no overviews, so the whole is slow to show. `gdaladdo {name}` adds them.")
    return tuple(notes)
