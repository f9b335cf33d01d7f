"""Find when two images were acquired: by the tags of their files, or by what their names say."""

from __future__ import annotations

import datetime
import re

from semicdvl.raster.io.image_reader import ImageReader

FIRST_YEAR = 1930
"""No earlier number is taken for a year."""
_DAY = re.compile(r"(?<!\d)((?:19|20)\d\d)[-_.]?(0[1-9]|1[0-2])[-_.]?(0[1-9]|[12]\d|3[01])(?!\d)")
_YEAR = re.compile(r"(?<!\d)((?:19|20)\d\d)(?!\d)")


def find_acquisition_dates(before: ImageReader, after: ImageReader) -> tuple[str | None, str | None]:
    """Return when each image was acquired, such as 2019-06-30 or 2019; None where it is not known.

    The tags count if both files have them, then the names of the files, and where these are equal those of their
    folders. A name with several years says nothing.
    """
    tagged = _read_tag(before), _read_tag(after)
    if all(tagged):
        return tagged
    names = before.path.name, after.path.name
    if names[0] == names[1]:
        names = before.path.parent.name, after.path.parent.name
    named = find_date(names[0]), find_date(names[1])
    return named if all(named) else (None, None)


def find_date(name: str) -> str | None:
    """Return the day or the year in a name; None where it holds none, or several."""
    days = {"-".join(found) for found in _DAY.findall(name)}
    years = {day[:4] for day in days} or set(_YEAR.findall(name))
    usual = {year for year in years if FIRST_YEAR <= int(year) <= datetime.date.today().year}
    if len(usual) != 1 or usual != years:
        return None
    return days.pop() if len(days) == 1 else usual.pop()


def _read_tag(image: ImageReader) -> str | None:
    """Return the day of GDAL's metadata on imagery."""
    found = re.match(r"(\d{4}-\d\d-\d\d)", str(image.file_dataset.tags(ns="IMAGERY").get("ACQUISITIONDATETIME", "")))
    return found[1] if found else None
