"""What a check of two images holds and what follows from it; as a table for the console, as text and as a record."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from rich.table import Table

from semicdvl.raster.registration.radiometry import ImageRadiometry, PairRadiometry
from semicdvl.raster.registration.shift import MAX_CORRECTABLE_SHIFT_PX, Shift
from semicdvl.reports.numbers import format_area

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

CHECK_FORMAT = "semicdvl-check"
FINE, WARNINGS, UNUSABLE = 0, 1, 2
VERDICTS = ("fine", "usable, with warnings", "not usable")
LEVELS = ("note", "warning", "error")
NOTED_KINDS = ("border", "datum", "reading")
"""Kinds of findings that the notes of a pair say, too."""


@dataclass(frozen=True)
class Finding:
    """What follows from a measurement.

    Attributes:
        kind: what was measured, such as "shift".
        level: 0 to know, 1 a warning, 2 a reason not to use the pair.
        text: what was found and what it means.
        remedy: what to do about it.
    """

    kind: str
    level: int
    text: str
    remedy: str = ""

    def __str__(self) -> str:
        """Return text and remedy as sentences."""
        return " ".join(f"{part.rstrip('.')}." for part in (self.text, self.remedy) if part)


@dataclass(frozen=True)
class ImageFacts:
    """What one image file says of itself.

    `gsd_m` is None without a CRS, `no_data` says how missing data are marked, `notes` how the file was understood,
    `border` the colour of a border that is no data.
    """

    path: str
    height_px: int
    width_px: int
    crs: str | None
    gsd_m: float | None
    bands: int
    used_bands: tuple[int, ...]
    dtype: str
    no_data: str
    resampled: bool
    stretch: str | None = None
    notes: tuple[str, ...] = ()
    border: str = "black"


@dataclass(frozen=True)
class PairCheck:
    """Everything that was measured on a pair.

    Attributes:
        before, after: the files.
        height_px, width_px: size of the overlap in pixels of the chosen grid.
        overlap_m2: its area; None without a CRS.
        overlap_before_frac, overlap_after_frac: its share of each image.
        radiometry: brightness, and shares with data.
        shift: the measured shift between the dates.
        notes: what reading the images as a pair does to them.
        findings: what follows, the most severe first.
        unrelated_datums: what says that no transformation between the datums of the images is known; None: one is.

    Examples:
        >>> import semicdvl as cd
        >>> checked = cd.check_pair(before_tif, after_tif)
        >>> checked.before.gsd_m, checked.height_px
        (0.5, 64)
    """

    before: ImageFacts
    after: ImageFacts
    height_px: int
    width_px: int
    overlap_m2: float | None
    overlap_before_frac: float
    overlap_after_frac: float
    radiometry: PairRadiometry
    shift: Shift
    notes: tuple[str, ...]
    findings: tuple[Finding, ...]
    unrelated_datums: str | None = None

    def with_findings(self, findings: Sequence[Finding]) -> PairCheck:
        """Return the same check with these findings, the most severe first."""
        return replace(self, findings=tuple(sorted(findings, key=lambda finding: -finding.level)))

    @property
    def verdict(self) -> int:
        """0 fine, 1 usable with warnings, 2 not usable: the exit code of the command."""
        return max((finding.level for finding in self.findings), default=FINE)

    @property
    def meaning(self) -> str:
        """The verdict in words."""
        return VERDICTS[self.verdict]

    @property
    def warnings(self) -> tuple[str, ...]:
        """Findings that a reader of a result should know and that the pair's own notes do not say already."""
        return tuple(
            str(finding) for finding in self.findings if finding.level > FINE and finding.kind not in NOTED_KINDS
        )

    def format_rows(self) -> list[tuple[str, str, str]]:
        """Return label, before, after: the facts of each image."""
        images, seen = (self.before, self.after), (self.radiometry.before, self.radiometry.after)
        shares = (self.overlap_before_frac, self.overlap_after_frac)
        missing = [f"{1 - s.data_frac:.1%} ({image.no_data})" for image, s in zip(images, seen, strict=True)]
        named = [
            ("size", [f"{image.width_px:,} x {image.height_px:,} px" for image in images]),
            ("CRS", [image.crs or "none" for image in images]),
            ("pixel size", ["unknown" if image.gsd_m is None else f"{image.gsd_m:.3g} m" for image in images]),
            ("bands", [f"{image.bands} {image.dtype}, used {_join_bands(image)}" for image in images]),
            ("share in the overlap", [f"{share:.1%}" for share in shares]),
            ("no data in the overlap", missing),
            ("untagged border", [f"{s.black_border_frac:.1%}" for s in seen]),
            ("range 0.5-99.5 %", [_format_band_values(s, "low", "high") for s in seen]),
            ("saturated", [f"{max((b.saturated_frac for b in s.bands), default=0):.1%}" for s in seen]),
            ("mean, std", [_format_band_values(s, "mean", "std") for s in seen]),
        ]
        if any(image.stretch for image in images):
            named.append(("stretched to 8 bits from", [image.stretch or "as stored" for image in images]))
        return [(label, before, after) for label, (before, after) in named]

    def format_lines(self) -> list[tuple[str, str]]:
        """Return label and value of what concerns both dates."""
        area = "" if self.overlap_m2 is None else f", {format_area(self.overlap_m2, metric=True)}"
        common = self.radiometry.common_frac
        differences = "; ".join(
            f"{band.mean_difference:+.0f}, x{band.gain:.2f}, r {band.correlation:.2f}" for band in self.radiometry.bands
        )
        legend = "(R; G; B: difference of the means in grey values, gain, correlation)"
        return [
            ("overlap", f"{self.width_px:,} x {self.height_px:,} px{area}; {common:.1%} of it with data at both dates"),
            ("radiometric difference", f"{differences} {legend}" if differences else "unknown"),
            ("shift", format_shift(self.shift)),
        ]


def _join_bands(image: ImageFacts) -> str:
    return ",".join(map(str, image.used_bands))


def _format_band_values(seen: ImageRadiometry, first: str, second: str) -> str:
    join = "-" if first == "low" else "±"
    return " ".join(f"{getattr(band, first):.3g}{join}{getattr(band, second):.3g}" for band in seen.bands) or "unknown"


def format_shift(shift: Shift) -> str:
    """Return a measured shift in words."""
    if not shift.is_known:
        return "not known: the dates have too little in common"
    if not shift.is_certain:
        agree = f"{shift.agree_frac:.0%} of {len(shift.local)} windows agree"
        return f"cannot be told: {agree} on about {shift.length_px:.1f} px, which is within the error"
    metres = "" if shift.length_m is None else f" = {shift.length_m:.2f} m"
    spread = f"{shift.spread_px:.2f} px" + ("" if shift.spread_m is None else f" = {shift.spread_m:.2f} m")
    varies = ", varies over the area" if shift.varies else ""
    parts = f"{shift.row_px:+.2f} down, {shift.col_px:+.2f} right"
    return (
        f"{shift.length_px:.2f} px{metres} ({parts}), spread {spread}{varies}; "
        f"confidence {shift.confidence:.2f} ({shift.agree_frac:.0%} of {len(shift.local)} windows agree)"
    )


def format_check_table(check: PairCheck) -> Table:
    """Return what was measured as a table for the console."""
    table = Table("", "before", "after", box=None, header_style="bold")
    for label, *values in check.format_rows():
        table.add_row(label, *values)
    return table


def format_check_summary(check: PairCheck, out: Path | None = None) -> str:
    """Return what concerns both dates, the findings and the verdict in lines."""
    lines = [f"{label}: {value}" for label, value in check.format_lines()]
    lines += [f"{LEVELS[finding.level]}: {finding}" for finding in check.findings]
    written = "a report is written with -o FOLDER" if out is None else f"report: {out / 'check.html'}"
    return "\n".join([*lines, f"verdict: {check.meaning}", written])


def build_check_record(check: PairCheck) -> dict[str, Any]:
    """Return what check.json holds."""
    shift = asdict(check.shift) | {
        "known": check.shift.is_known,
        "certain": check.shift.is_certain,
        "confidence": round(check.shift.confidence, 3),
        "length_px": check.shift.length_px,
        "length_m": check.shift.length_m,
        "spread_m": check.shift.spread_m,
        "varies": check.shift.varies,
    }
    return {
        "format": CHECK_FORMAT,
        "verdict": check.verdict,
        "meaning": check.meaning,
        **asdict(check),
        "shift": shift,
    }


def derive_findings(check: PairCheck) -> list[Finding]:
    """Return what follows from the numbers."""
    return [*_check_grids(check), *_check_data(check), *_check_radiometry(check), *_check_shift(check)]


def _check_grids(check: PairCheck) -> Iterator[Finding]:
    before, after = check.before, check.after
    if before.crs is None:
        yield Finding("crs", FINE, "The images have no CRS: results will have none either, and areas are in pixels")
    elif after.resampled:
        yield Finding("grid", FINE, "The grids differ: the after image is resampled to the pixels of the before image")
    if before.gsd_m and after.gsd_m and max(before.gsd_m, after.gsd_m) / min(before.gsd_m, after.gsd_m) > MAX_GSD_RATIO:
        finer = before if before.gsd_m < after.gsd_m else after
        sizes = f"{before.gsd_m:.3g} m before, {after.gsd_m:.3g} m after"
        text = f"The pixel sizes differ ({sizes}): one date shows more detail"
        remedy = f"Average {_shorten_path(finer.path)} to the coarser pixels (`gdalwarp -tr`)"
        yield Finding("resolution", WARNINGS, text, remedy)
    if check.unrelated_datums is not None:
        yield Finding("datum", WARNINGS, check.unrelated_datums)
    for facts in (before, after):
        for note in facts.notes:
            yield Finding("reading", WARNINGS, f"{_shorten_path(facts.path)}: {note}")
    share = max(check.overlap_before_frac, check.overlap_after_frac)
    if share < MIN_OVERLAP_FRAC:
        text = f"The images overlap on only {share:.1%} of the smaller one"
        yield Finding("overlap", WARNINGS, text, "Check that these are the right tiles; only the overlap gets a result")


def _check_data(check: PairCheck) -> Iterator[Finding]:
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
        name = _shorten_path(facts.path)
        if seen.black_border_frac > MAX_BLACK_BORDER_FRAC:
            share = f"{seen.black_border_frac:.1%}"
            text = f"{name} has a {facts.border} border without a no-data tag ({share}), taken as no data"
            remedy = "If it is ground, give --collar none"
            if facts.border == "black":
                remedy = f"`gdal_edit.py -a_nodata 0` marks it for other programs, too. {remedy}"
            yield Finding("border", WARNINGS, text, remedy)
        worst = max((band.saturated_frac for band in seen.bands), default=0.0)
        if worst > MAX_SATURATED_FRAC:
            text = f"{worst:.1%} of {name} is saturated: bright roofs and bright ground look alike there"
            remedy = "Use the original delivery if this image was stretched for display"
            yield Finding("saturated", WARNINGS, text, remedy)
        if facts.dtype == "uint8" and seen.bands and max(band.std for band in seen.bands) < MIN_STD_DN:
            text = f"{name} has very little contrast (standard deviation under {MIN_STD_DN:g} of 255)"
            yield Finding("contrast", WARNINGS, text, "Look at it: haze, cloud, or a wrong conversion to 8 bit")


def _check_radiometry(check: PairCheck) -> Iterator[Finding]:
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
    shift = check.shift
    if not shift.is_known:
        if check.radiometry.common_frac > 0:
            text = "The shift between the dates could not be measured: too little texture, or too little in common"
            remedy = "Check in the checkerboard of the report that streets and roofs continue from field to field"
            yield Finding("shift", WARNINGS, text, remedy)
        return
    length = f"{shift.length_px:.1f} px" + ("" if shift.length_m is None else f" ({shift.length_m:.1f} m)")
    if not shift.is_certain:
        text = (
            f"Whether the dates are shifted against each other cannot be told: {shift.agree_frac:.0%} of the windows "
            f"agree on about {length}, which is within the error"
        )
        remedy = "Check in the checkerboard of the report that streets and roofs continue from field to field"
        yield Finding("shift", FINE, text, remedy)
        return
    text = f"The images are misregistered by about {length}"
    agree = f"; {shift.agree_frac:.0%} of the windows agree" if shift.agree_frac < 0.5 else ""
    if shift.length_px > MAX_CORRECTABLE_SHIFT_PX:
        text += f"{agree}. That is more than the {MAX_CORRECTABLE_SHIFT_PX:g} px that can be corrected here"
        remedy = "Georeference one of the images again, or check that its CRS is right"
        yield Finding("shift", UNUSABLE, text, remedy)
    elif shift.varies:
        text += f", and the shift varies over the area (spread {shift.spread_px:.1f} px){agree}"
        yield Finding("shift", WARNINGS, text, "Run `semicdvl detect` with --align to co-register them locally")
    elif shift.length_px - shift.error_px >= SHIFT_WARNING_PX:
        text += f"{agree}. Edges of unchanged objects will look changed to methods that compare pixels"
        remedy = (
            "Run `semicdvl detect` with --align to co-register them, or with --shift-px to tolerate the shift when "
            "instances are matched"
        )
        yield Finding("shift", WARNINGS, text, remedy)


def _shorten_path(path: str) -> str:
    """Return the last two parts of a path: the dates of a pair often have one file name."""
    return "/".join(path.split("/")[-2:])
