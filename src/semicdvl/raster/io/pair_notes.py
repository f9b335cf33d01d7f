"""Describe in sentences what was done to the images of a pair when they were read."""

from __future__ import annotations

from semicdvl.raster.grid import Grid, lacks_datum_transformation
from semicdvl.raster.io.image_reader import ImageReader
from semicdvl.raster.radiometric_normalisation import RadiometricMatch
from semicdvl.raster.warp import Alignment

FULL_OVERLAP_FRAC = 0.995
"""An overlap of at least this share of the before image is not worth a note."""


def describe_processing(
    before: ImageReader,
    after: ImageReader,
    *,
    alignment: Alignment | None,
    match: RadiometricMatch | None,
    normalised: bool,
) -> tuple[str, ...]:
    """Return a note for everything that was done to the images.

    Args:
        before: the before image on the grid of the pair.
        after: the after image.
        alignment: how the after image was co-registered, None: not at all.
        match: how its radiometry was matched; None where that was not possible or not requested.
        normalised: whether it was requested.
    """
    notes = []
    if before.grid.crs is None:
        notes.append(_describe_missing_crs(before.grid))
    unrelated = describe_unrelated_datums(before, after)
    notes += [] if unrelated is None else [unrelated]
    if alignment is not None:
        notes.append(f"The after image was co-registered: it was misregistered by {alignment}.")
    notes += _describe_resampling(before, after, aligned=alignment is not None)
    before_frac = before.grid.height * before.grid.width / (before.file_grid.height * before.file_grid.width)
    if not before.warped and before_frac < FULL_OVERLAP_FRAC:
        notes.append(f"The images overlap on {before_frac:.0%} of {before.path.name}; the rest has no result.")
    notes += [*_describe_image(before), *_describe_image(after)]
    if normalised:
        notes.append(_describe_match(match))
    return tuple(notes)


def _describe_missing_crs(grid: Grid) -> str:
    """Say how images without a CRS are placed: by their geotransform, of a world file for example, if they have one."""
    if grid.transform.is_identity:
        return "The images have no CRS: they are assumed to be co-registered, and the results have no CRS either."
    return (
        "The images have no CRS: they are placed by their geotransforms (of world files, for example), which are "
        "assumed to be in one coordinate system, and the results have no CRS either."
    )


def describe_unrelated_datums(before: ImageReader, after: ImageReader) -> str | None:
    """Say that no transformation between the datums of both images is known; None where one is, or none is needed."""
    if not lacks_datum_transformation(before.file_grid.crs, after.file_grid.crs):
        return None
    names = [f"{reader.path.name} ({describe_crs(reader.file_grid)})" for reader in (before, after)]
    return (
        f"No transformation is known between the datums of {names[0]} and {names[1]}: positions may be off by "
        "up to some hundred metres. Assign the right CRS, or look at the shift that `semicdvl check` measures."
    )


def _describe_image(reader: ImageReader) -> list[str]:
    """Say how one image was stretched, and whether it has a border that is no data."""
    notes = [f"{reader.path.name}: {note}" for note in reader.notes]
    if reader.stretch is not None and reader.exact is None:
        dtype = reader.file_dataset.dtypes[0]
        notes.append(
            f"{reader.path.name} has values of type {dtype}: every band was stretched to 8 bits, once for the "
            f"whole overlap, from {reader.stretch_limits}{_describe_scaling(reader)}."
        )
        if reader.stretch_note:
            notes.append(f"{reader.path.name}: {reader.stretch_note}.")
    border_frac = reader.measure_border_frac()
    if border_frac > 0:
        notes.append(
            f"{reader.path.name} has a {reader.border_name} border without a no-data tag ({border_frac:.1%} of the "
            "overlap); it is treated as no-data (--collar none reads it as ground)."
        )
    return notes


def _describe_scaling(reader: ImageReader) -> str:
    return "" if reader.get_scaling().is_identity else " (with the scale and offset of its tags)"


def _describe_resampling(before: ImageReader, after: ImageReader, *, aligned: bool) -> list[str]:
    """Say which images were resampled; the note of an alignment covers the after image."""
    if before.warped and after.warped and not aligned:
        return ["Both images were resampled (cubic) onto the requested grid."]
    if before.warped:
        return ["The before image was resampled (cubic) onto the requested grid."]
    if after.warped and not aligned:
        return ["The grids of the two images differ: the after image was resampled (cubic) onto the before image."]
    return []


def _describe_match(match: RadiometricMatch | None) -> str:
    if match is None:
        return "The radiometry of the after image could not be matched to the before image: they correlate too little."
    return (
        "The radiometry of the after image was matched to the before image, with gain and offset per band (in grey "
        f"values of 255): {match}."
    )


def describe_crs(grid: Grid) -> str:
    """Return `EPSG:32615`, or that the CRS has no EPSG code."""
    code = grid.crs.to_epsg() if grid.crs else None
    return f"EPSG:{code}" if code else "a CRS without an EPSG code"


def describe_extent(grid: Grid) -> str:
    """Return CRS and bounds of a grid in words; northings have seven digits before the point."""
    left, bottom, right, top = (f"{value:.9g}" for value in grid.bounds)
    return f"{describe_crs(grid)} x {left}..{right}, y {bottom}..{top}"
