"""What follows from what was measured on a pair: notes, warnings, and reasons not to use it."""

from __future__ import annotations

from collections.abc import Iterator

from semicdvl.detection.pair_check.results import FINE, UNUSABLE, WARNINGS, Finding, PairCheck
from semicdvl.raster.registration.co_registration import EXCESS_REMEDY, describe_excess
from semicdvl.raster.registration.shift import MAX_CORRECTABLE_SHIFT_PX
from semicdvl.types.reliability import describe_pixel_sides, has_square_pixels

SHIFT_WARNING_PX = 1.0
"""A larger shift gives outlines of false change around everything that did not change."""
MIN_OVERLAP_FRAC, MIN_DATA_FRAC = 0.3, 0.3
MAX_GSD_RATIO = 1.6
MAX_SATURATED_FRAC = 0.05
MIN_STD_DN = 6.0
MAX_BLACK_BORDER_FRAC = 0.0005
MAX_MEAN_DIFFERENCE_DN = 30.0
MAX_CONTRAST_RATIO = 1.8
MIN_PAIR_CORRELATION = 0.25
MAX_INNER_NO_DATA_FRAC = 0.0005
MIN_COMPARED_PX = 4096
"""Images of fewer common pixels may be equal by chance, such as small flat ones."""
CHECKERBOARD_REMEDY = (
    "See for yourself: streets and roofs continue from field to field in the checkerboard that `semicdvl check BEFORE "
    "AFTER -o FOLDER` draws, if the images fit"
)


def derive_findings(check: PairCheck) -> list[Finding]:
    """Return what follows from the numbers."""
    return [
        *_check_dates(check),
        *_check_grids(check),
        *_check_data(check),
        *_check_radiometry(check),
        *_check_shift(check),
    ]


def _check_dates(check: PairCheck) -> Iterator[Finding]:
    """Yield what the dates of acquisition say, and whether both images are one."""
    common_px = check.radiometry.common_frac * check.height_px * check.width_px
    if check.radiometry.equal_frac == 1 and common_px >= MIN_COMPARED_PX:
        text = "Every pixel has the same value at both dates: this is one image twice"
        yield Finding("same", WARNINGS, text, "Check the two names")
    before, after = check.before.acquired, check.after.acquired
    if before is None or after is None:
        return
    length = min(len(before), len(after))  # a year is compared with the year of a day
    if before[:length] > after[:length]:
        text = (
            f"By their tags or names, the before image is of {before} and the after image of {after}, which is earlier:"
            " what appeared would be said to have disappeared, and the other way round"
        )
        yield Finding("order", WARNINGS, text, "Give the earlier image first")


def _check_grids(check: PairCheck) -> Iterator[Finding]:
    """Yield what CRS, size and shape of the pixels, datums and overlap say."""
    before, after = check.before, check.after
    if before.crs is None:
        yield Finding("crs", FINE, "The images have no CRS: results will have none either, and areas are in pixels")
    elif after.resampled:
        yield Finding("grid", FINE, "The grids differ: the after image is resampled to the pixels of the before image")
    if before.gsd_m and after.gsd_m and max(before.gsd_m, after.gsd_m) / min(before.gsd_m, after.gsd_m) > MAX_GSD_RATIO:
        finer = before if before.gsd_m < after.gsd_m else after
        sizes = f"{before.gsd_m:.3g} m before, {after.gsd_m:.3g} m after"
        text = f"The pixel sizes differ ({sizes}): one date shows more detail"
        remedy = f"Average {_name_with_folder(finer.path)} to the coarser pixels (`gdalwarp -tr`)"
        yield Finding("resolution", WARNINGS, text, remedy)
    if check.pixel_m is not None and not has_square_pixels(check.pixel_m):
        sides = describe_pixel_sides(check.pixel_m)
        text = f"{sides}: objects look squeezed, and a vision-language model recognises fewer of them"
        yield Finding("shape", WARNINGS, text, "Re-run with --grid utm to compare square pixels")
    if check.unrelated_datums is not None:
        yield Finding("datum", WARNINGS, check.unrelated_datums)
    for facts in (before, after):
        for note in facts.notes:
            yield Finding("reading", WARNINGS, f"{_name_with_folder(facts.path)}: {note}")
    share = max(check.overlap_before_frac, check.overlap_after_frac)
    if share < MIN_OVERLAP_FRAC:
        text = f"The images overlap on only {share:.1%} of the smaller one"
        yield Finding("overlap", WARNINGS, text, "Check that these are the right tiles; only the overlap gets a result")


def _check_data(check: PairCheck) -> Iterator[Finding]:
    """Yield what pixels without data, borders, saturation and contrast say."""
    radiometry = check.radiometry
    if radiometry.common_frac == 0:
        remedy = "Check the no-data values of both images and that they show the same place"
        yield Finding("data", UNUSABLE, "No pixel has data at both dates", remedy)
        return
    if radiometry.common_frac < MIN_DATA_FRAC:
        text = f"Only {radiometry.common_frac:.1%} of the overlap has data at both dates"
        remedy = "Mosaic more tiles of the date that has less data, or continue with what there is"
        yield Finding("data", WARNINGS, text, remedy)
    for facts, seen in ((check.before, radiometry.before), (check.after, radiometry.after)):
        name = _name_with_folder(facts.path)
        if seen.black_border_frac > MAX_BLACK_BORDER_FRAC:
            share = f"{seen.black_border_frac:.1%}"
            text = f"{name} has a {facts.border} border without a no-data tag ({share}), taken as no data"
            remedy = "If it is ground, give --collar none"
            if facts.border == "black" and facts.no_data == "no tag":
                remedy = f"`gdal_edit.py -a_nodata 0` marks it for other programs, too. {remedy}"
            yield Finding("border", WARNINGS, text, remedy)
        if facts.inner_no_data_frac > MAX_INNER_NO_DATA_FRAC:
            text = (
                f"{facts.inner_no_data_frac:.1%} of {name} is no data inside the image, by its tag ({facts.no_data}): "
                "white and black ground may have that value, too, and its change is not found"
            )
            yield Finding("inside", WARNINGS, text, "If it is ground, remove the tag: `gdal_edit.py -unsetnodata FILE`")
        if seen.is_grey:
            text = f"{name} is a black and white image: its red, green and blue are equal"
            remedy = "A vision-language model that was measured on colour images may see less in it"
            yield Finding("grey", FINE, text, remedy)
        worst = max((band.saturated_frac for band in seen.bands), default=0.0)
        if worst > MAX_SATURATED_FRAC:
            text = f"{worst:.1%} of {name} is saturated: bright roofs and bright ground look alike there"
            remedy = "Use the original delivery if this image was stretched for display"
            yield Finding("saturated", WARNINGS, text, remedy)
        if facts.dtype == "uint8" and seen.bands and max(band.std for band in seen.bands) < MIN_STD_DN:
            text = f"{name} has very little contrast (standard deviation under {MIN_STD_DN:g} of 255)"
            yield Finding("contrast", WARNINGS, text, "Look at it: haze, cloud, or a wrong conversion to 8 bit")


def _check_radiometry(check: PairCheck) -> Iterator[Finding]:
    """Yield how far the values of the dates differ."""
    bands = check.radiometry.bands
    if not bands:
        return
    offset, correlation = max(abs(band.mean_difference) for band in bands), max(band.correlation for band in bands)
    contrast = max(max(band.gain, 1 / band.gain) for band in bands)
    if correlation < MIN_PAIR_CORRELATION:
        why = "another season or sensor, " + ("or much has changed" if check.shift.is_known else "or another place")
        text = f"The dates hardly correlate (correlation {correlation:.2f}): {why}"
        remedy = (
            "Compare the images in the report; a VLM, which interprets each date by itself, is less sensitive to this "
            "than a difference of pixels"
        )
        yield Finding("unlike", WARNINGS, text, remedy)
    elif offset > MAX_MEAN_DIFFERENCE_DN or contrast > MAX_CONTRAST_RATIO:
        text = (
            f"The radiometry of the dates differs: means by up to {offset:.0f} grey values, contrast by a factor of up "
            f"to {contrast:.1f}"
        )
        remedy = (
            "A VLM, which interprets each date by itself, is not very sensitive to this; for methods that subtract the "
            "dates, use --normalise match"
        )
        yield Finding("light", WARNINGS, text, remedy)


def _check_shift(check: PairCheck) -> Iterator[Finding]:
    """Yield what the measured shift says, or that it could not be measured."""
    shift = check.shift
    if not shift.is_known:
        if check.radiometry.common_frac > 0:
            text = "The shift between the dates could not be measured: too little texture, or too little in common"
            yield Finding("shift", WARNINGS, text, CHECKERBOARD_REMEDY)
        return
    if not shift.is_certain:
        text = (
            f"Whether the dates are shifted against each other cannot be told: {shift.agree_frac:.0%} of the windows "
            f"agree on about {shift.format_length()}, which is within the error"
        )
        yield Finding("shift", FINE, text, CHECKERBOARD_REMEDY)
        return
    if shift.length_px > MAX_CORRECTABLE_SHIFT_PX:
        yield Finding("shift", UNUSABLE, describe_excess(shift), EXCESS_REMEDY)
    elif shift.varies:
        text = (
            f"{shift.format_misregistration()}, and the shift varies over the area (spread {shift.spread_px:.1f} px)"
            f"{shift.format_doubt()}"
        )
        yield Finding("shift", WARNINGS, text, "Run `semicdvl detect` with --align to co-register them locally")
    elif shift.length_px - shift.error_px >= SHIFT_WARNING_PX:
        text = (
            f"{shift.format_misregistration()}{shift.format_doubt()}. Edges of unchanged objects will look changed to "
            "methods that compare pixels"
        )
        remedy = (
            "Run `semicdvl detect` with --align to co-register them, or with --shift-px to tolerate the shift when "
            "instances are matched"
        )
        yield Finding("shift", WARNINGS, text, remedy)


def _name_with_folder(path: str) -> str:
    """Return the last two parts of a path: the dates of a pair often have one file name."""
    return "/".join(path.split("/")[-2:])
