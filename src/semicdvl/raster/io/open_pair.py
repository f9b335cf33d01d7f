"""Open two images of one place as a pair: choose the grid, and put both onto the part of it that they cover."""

from __future__ import annotations

from contextlib import ExitStack, closing
from dataclasses import replace

import numpy as np

from semicdvl.errors import ConfigError, InputError
from semicdvl.raster.grid import Grid, build_utm_grid, find_pixel_offset, intersect_grids
from semicdvl.raster.io.collar import check_collar_choice
from semicdvl.raster.io.image_reader import ImageReader
from semicdvl.raster.io.inputs import ImageInput, network_access, resolve_input
from semicdvl.raster.io.open_dataset import open_dataset, read_grid
from semicdvl.raster.io.open_image import open_image_reader
from semicdvl.raster.io.pair_notes import describe_crs, describe_extent, describe_processing
from semicdvl.raster.io.pair_reader import RasterPair
from semicdvl.raster.io.pair_stretch import StoredDate, choose_stretches, parse_stretch
from semicdvl.raster.io.views.alpha_band import check_alpha_choice
from semicdvl.raster.io.views.upright_view import open_upright_view
from semicdvl.raster.radiometric_normalisation import RadiometricMatch, fit_radiometric_match
from semicdvl.raster.stored_values import OverviewSample
from semicdvl.raster.warp import Alignment
from semicdvl.types import ReadingSettings

GRID_CHOICES = ("before", "after", "finest", "utm")
"""Whose grid the result has; the path of a raster file is possible, too."""
NORMALISATIONS = ("none", "match")
AS_BY_DEFAULT = ReadingSettings()


def open_pair(
    before: ImageInput,
    after: ImageInput,
    reading: ReadingSettings = AS_BY_DEFAULT,
    *,
    alignment: Alignment | None = None,
    allow_outside: bool = False,
) -> RasterPair:
    """Open two images of one place on one grid.

    Where CRS, resolution or origin of an image differ from the reference grid, it is resampled (cubic) over the part
    that both images cover; where it is offset by whole pixels only, it is read unchanged. 8-bit data are read
    unchanged; any other type gets one linear stretch per band (`pair_stretch`), measured once over the whole overlap,
    so that all tiles are stretched alike. No-data is what a tag, an alpha band, a mask or NaN declares, and
    solid black borders without a tag (`raster.io.nodata_border`).

    Args:
        before: a GeoTIFF or anything else that GDAL reads, an address, a folder, or several files that make a mosaic
            (`raster.io.inputs.resolve_input`); plain PNG and JPEG have no CRS.
        after: the same for the second date.
        reading: bands, grid, grey values and radiometry. `align` has no effect here:
            `raster.registration.co_registration` measures the shift of an open pair first.
        alignment: how the after image is displaced against the before image; it is read co-registered.
        allow_outside: whether a VRT may have sources outside of its folder (`raster.file_access`).

    Raises:
        InputError: a file is missing, unreachable, no image, damaged, has fewer than 3 bands, has no CRS although the
            other has one, or has no data where the other lies; or the two do not overlap (plain images: differ in
            size).
        ConfigError: an unknown normalisation, or different numbers of bands.
    """
    _check_settings(reading)
    after_bands = reading.bands if reading.after_bands is None else reading.after_bands
    with ExitStack() as opened:
        named = (resolve_input(image, allow_outside=allow_outside) for image in (before, after))
        first, second = (
            opened.enter_context(
                closing(open_image_reader(image, bands=bands, alpha=reading.alpha, collar=reading.collar))
            )
            for image, bands in zip(named, (reading.bands, after_bands), strict=True)
        )
        reference_grid = _choose_reference_grid(first, second, reading.grid, allow_outside=allow_outside)
        pair = _make_pair(first, second, reference_grid, reading=reading, alignment=alignment)
        opened.pop_all()  # from here on the pair closes the files
    return pair


def align_pair(pair: RasterPair, alignment: Alignment) -> RasterPair:
    """Return the files of an open pair as another one, whose after image is co-registered.

    Both pairs read through the same open files: `close` one of them and `close_views` of the other.

    Raises:
        InputError: the images do not overlap any more.
    """
    before, after = pair.before.on_file_grid(), pair.after.on_file_grid()
    return _make_pair(before, after, pair.reference_grid, reading=pair.reading, alignment=alignment)


def _check_settings(reading: ReadingSettings) -> None:
    """Refuse settings that no image can be read with.

    Raises:
        ConfigError: an unknown choice, or different numbers of bands.
    """
    if reading.normalise not in NORMALISATIONS:
        known = ", ".join(NORMALISATIONS)
        raise ConfigError(f"The normalisation {reading.normalise!r} is unknown. Choose one of {known}.")
    count = 3 if reading.bands is None else len(reading.bands)
    if reading.after_bands is not None and len(reading.after_bands) != count:
        raise ConfigError(
            f"{count} bands of the before image cannot be compared with {len(reading.after_bands)} bands of the after "
            "image. Give the same number of bands for both."
        )
    check_alpha_choice(reading.alpha)
    check_collar_choice(reading.collar)
    parse_stretch(reading.stretch)


def _choose_reference_grid(before: ImageReader, after: ImageReader, grid: str, *, allow_outside: bool) -> Grid:
    """Return the whole grid whose pixels the result has."""
    if grid == "after":
        return after.grid
    if grid == "finest":
        before_m, after_m = before.grid.gsd_m, after.grid.gsd_m
        return after.grid if before_m and after_m and after_m < before_m else before.grid
    if grid == "before":
        return before.grid
    if grid == "utm":
        return _build_utm_grid(before)
    resolved = resolve_input(grid)
    name = resolved.display_name
    if len(resolved.gdal_names) != 1:
        remedy = f"Give one of {', '.join(GRID_CHOICES)}, or the path of one raster file"
        raise InputError(name, "The grid must come from a single raster", remedy)
    with network_access(resolved), ExitStack() as views:
        opened = open_dataset(resolved.gdal_names[0], display_name=name, allow_outside=allow_outside)
        dataset = views.enter_context(opened)
        if dataset.crs is None and dataset.gcps[1] is None and dataset.rpcs is None:
            problem = "The raster has no CRS, so its grid cannot be used for other images"
            raise InputError(name, problem, "Give a GeoTIFF with a CRS")
        return read_grid(open_upright_view(dataset, views, display_name=name).dataset)


def _build_utm_grid(before: ImageReader) -> Grid:
    """Return square pixels over the before image, in its zone of UTM."""
    if not before.grid.has_position_on_earth:
        problem = "The image has no position on the earth, so it cannot be put on a grid of UTM"
        raise InputError(before.path, problem, "Assign its CRS (`gdal_edit.py -a_srs EPSG:...`), or leave --grid out")
    return build_utm_grid(before.grid)


def _make_pair(
    before: ImageReader,
    after: ImageReader,
    reference_grid: Grid,
    *,
    reading: ReadingSettings,
    alignment: Alignment | None,
) -> RasterPair:
    """Put two open images, each on its own grid, onto the part of the reference grid that both cover."""
    _check_plain_images(before, after)
    before, after = _share_geotransform(before, after), _share_geotransform(after, before)
    before, after = (reader.move_to_longitudes_of(reference_grid) for reader in (before, after))
    common, after_grid = _find_common_grids(before, after, reference_grid, alignment)
    before, after = before.on_grid(common), after.on_grid(after_grid)
    row, col = find_pixel_offset(reference_grid, common) or (0, 0)
    if alignment is not None and alignment.field is not None:
        after = replace(after, displacement=alignment.field.relative_to(row, col))
    before, after = _stretch_both(before.prepare(), after.prepare(), reading.stretch)
    match: RadiometricMatch | None = None
    if reading.normalise == "match":
        match = fit_radiometric_match(_read_grey_sample(before), _read_grey_sample(after))
    notes = describe_processing(
        before, after, alignment=alignment, match=match, normalised=reading.normalise == "match"
    )
    if match is not None:
        after = replace(after, stretch=match.compose(after.stretch, len(after.bands)))
    return RasterPair(before, after, common, notes, reference_grid, reading, alignment, row, col, match)


def _find_common_grids(
    before: ImageReader, after: ImageReader, reference_grid: Grid, alignment: Alignment | None
) -> tuple[Grid, Grid]:
    """Return the part of the reference grid that both images cover, and the grid on which the after image is read.

    Raises:
        InputError: there is no such part.
    """
    if before.grid.crs is None:
        reference_grid = before.grid
    covered = intersect_grids(reference_grid, before.grid)
    if covered is None and reference_grid != after.grid:
        problem = f"The image does not overlap the reference grid ({describe_extent(reference_grid)})"
        raise InputError(before.input.display_name, problem, "Give another --grid")
    if covered is not None:
        displaced = covered
        if alignment is not None:
            displaced = covered.window(alignment.row_px, alignment.col_px, covered.height, covered.width)
        after_grid = intersect_grids(displaced, after.grid)
        offset = None if after_grid is None else find_pixel_offset(displaced, after_grid)
        if after_grid is not None and offset is not None:
            return covered.window(*offset, after_grid.height, after_grid.width), after_grid
    raise InputError(
        after.input.display_name,
        f"The image does not overlap {before.path.name} "
        f"({describe_extent(after.grid)} against {describe_extent(before.grid)})",
        "Give two images of one place, and check that the CRS of both is right",
    )


def _check_plain_images(before: ImageReader, after: ImageReader) -> None:
    """Reject a pair of which one image has no CRS, and plain images of different sizes."""
    for reader, other in ((before, after), (after, before)):
        if reader.grid.crs is None and other.grid.crs is not None:
            problem = f"The image has no CRS, but {other.path.name} has {describe_crs(other.grid)}"
            remedy = "Assign its CRS (`gdal_edit.py -a_srs EPSG:...`), or give both images without one"
            raise InputError(reader.input.display_name, problem, remedy)
    if before.grid.crs != after.grid.crs:
        for reader, other in ((before, after), (after, before)):
            if not reader.grid.has_position_on_earth:
                problem = f"The image has a local CRS, which cannot be related to {describe_crs(other.grid)}"
                remedy = f"Georeference it in the CRS of {other.path.name}, or give both in the same local CRS"
                raise InputError(reader.input.display_name, problem, remedy)
    if before.grid.crs is None and (before.grid.height, before.grid.width) != (after.grid.height, after.grid.width):
        after_size, before_size = (f"{grid.width} x {grid.height} px" for grid in (after.grid, before.grid))
        problem = f"The image has {after_size}, but {before.path.name} has {before_size}"
        remedy = (
            "Images without a CRS must show the same ground pixel by pixel: crop or resample them, or give GeoTIFFs "
            "with a CRS"
        )
        raise InputError(after.input.display_name, problem, remedy)


def _stretch_both(before: ImageReader, after: ImageReader, stretch: str) -> tuple[ImageReader, ImageReader]:
    """Give both images their stretch to 8 bits; 8-bit data keep none, unless their tags say that they differ."""
    dates = [StoredDate(reader.read_sample(), reader.get_scaling()) for reader in (before, after)]
    first, second = (
        replace(reader, stretch=chosen.stretch, stretch_note=chosen.note)
        for reader, chosen in zip((before, after), choose_stretches(*dates, stretch=stretch), strict=True)
    )
    return first, second


def _share_geotransform(reader: ImageReader, other: ImageReader) -> ImageReader:
    """Return a plain image with the geotransform of the other one, if only that has one (from a world file, say)."""
    if reader.grid.crs is not None or not reader.grid.transform.is_identity or other.grid.transform.is_identity:
        return reader
    return replace(reader, grid=other.grid, file_grid=other.grid)


def _read_grey_sample(reader: ImageReader) -> OverviewSample:
    """Return the overview sample in grey values from 0 to 255 that are not rounded."""
    sample = reader.read_sample()
    data_CHW = sample.data_CHW.astype(np.float64)
    return replace(sample, data_CHW=data_CHW if reader.stretch is None else reader.stretch.scale(data_CHW))
