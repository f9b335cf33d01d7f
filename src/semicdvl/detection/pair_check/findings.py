"""What a check of two images holds, and what follows from its numbers: findings in words, each with a remedy."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from semicdvl.detection.results import format_area
from semicdvl.raster.registration.radiometry import ImageRadiometry, PairRadiometry
from semicdvl.raster.registration.shift import MAX_SHIFT_PX, Shift

FINE, WARNINGS, UNUSABLE = 0, 1, 2
VERDICTS = ("fine", "usable, with warnings", "not usable")

SHIFT_WARNING_PX = 1.0
"""A longer shift makes outlines of change around everything that stands still."""
MIN_OVERLAP_FRAC, MIN_DATA_FRAC = 0.3, 0.3
MAX_GSD_RATIO = 1.6
MAX_SATURATED_FRAC = 0.05
MIN_STD_DN = 6.0
MAX_BLACK_BORDER_FRAC = 0.0005
MAX_MEAN_DIFFERENCE_DN = 30.0
MAX_CONTRAST_RATIO = 1.8
MIN_PAIR_CORRELATION = 0.25


@dataclass(frozen=True)
class Finding:
    """What follows from a measurement: its kind, its level (0 to know, 1 a warning, 2 a reason to stop), words."""

    kind: str
    level: int
    text: str
    remedy: str = ""

    def __str__(self) -> str:
        """Return text and remedy as sentences."""
        return " ".join(f"{part.rstrip('.')}." for part in (self.text, self.remedy) if part)


@dataclass(frozen=True)
class ImageFacts:
    """What one file says of itself; `gsd_m` is None without a CRS, `no_data` how it tells where it has no data."""

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


@dataclass(frozen=True)
class PairCheck:
    """Everything that was measured on a pair.

    Attributes:
        before, after: the files.
        height_px, width_px: size of the overlap in pixels of the before image.
        overlap_m2: its area; None without a CRS.
        overlap_before_frac, overlap_after_frac: its share of each image.
        radiometry: brightness, and shares with data.
        shift: how far the dates lie beside each other.
        notes: what reading them as a pair does to them.
        findings: what follows.
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

    def with_findings(self, findings: Sequence[Finding]) -> PairCheck:
        """Return the same with findings, the gravest first."""
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
        """Findings that a reader of a result should know and that the pair's own notes don't say already."""
        return tuple(str(finding) for finding in self.findings if finding.level > FINE and finding.kind != "border")

    def format_rows(self) -> list[tuple[str, str, str]]:
        """Return label, before, after: the facts as one reads them."""
        dates, seen = (self.before, self.after), (self.radiometry.before, self.radiometry.after)
        shares = (self.overlap_before_frac, self.overlap_after_frac)
        named = [
            ("size", [f"{d.width_px:,} x {d.height_px:,} px" for d in dates]),
            ("CRS", [d.crs or "none" for d in dates]),
            ("pixel", ["unknown" if d.gsd_m is None else f"{d.gsd_m:.3g} m" for d in dates]),
            ("bands", [f"{d.bands} {d.dtype}, used {','.join(map(str, d.used_bands))}" for d in dates]),
            ("in the overlap", [f"{share:.1%}" for share in shares]),
            ("no data there", [f"{1 - s.data_frac:.1%} ({d.no_data})" for d, s in zip(dates, seen, strict=True)]),
            ("black, untagged", [f"{s.black_border_frac:.1%}" for s in seen]),
            ("range 0.5-99.5 %", [_format_band_values(s, "low", "high") for s in seen]),
            ("saturated", [f"{max((b.saturated_frac for b in s.bands), default=0):.1%}" for s in seen]),
            ("mean, std", [_format_band_values(s, "mean", "std") for s in seen]),
        ]
        return [(label, *values) for label, values in named]  # type: ignore[misc]

    def format_lines(self) -> list[tuple[str, str]]:
        """Return label and value of what concerns both dates."""
        area = "" if self.overlap_m2 is None else f", {format_area(self.overlap_m2, metric=True)}"
        common = self.radiometry.common_frac
        light = "; ".join(
            f"{band.mean_difference:+.0f}, x{band.gain:.2f}, r {band.correlation:.2f}" for band in self.radiometry.bands
        )
        return [
            ("overlap", f"{self.width_px:,} x {self.height_px:,} px{area}; {common:.1%} of it with data at both dates"),
            ("difference in light", f"{light} (R; G; B: grey values, contrast, correlation)" if light else "unknown"),
            ("shift", format_shift(self.shift)),
        ]


def _format_band_values(seen: ImageRadiometry, first: str, second: str) -> str:
    join = "-" if first == "low" else "±"
    return " ".join(f"{getattr(band, first):.3g}{join}{getattr(band, second):.3g}" for band in seen.bands) or "unknown"


def format_shift(shift: Shift) -> str:
    """Return a measured shift in words."""
    if not shift.is_known:
        return "not known: the dates have too little in common"
    metres = "" if shift.length_m is None else f" = {shift.length_m:.2f} m"
    spread = f"{shift.spread_px:.2f} px" + ("" if shift.spread_m is None else f" = {shift.spread_m:.2f} m")
    varies = ", varies from place to place" if shift.varies else ""
    parts = f"{shift.row_px:+.2f} down, {shift.col_px:+.2f} right"
    return (
        f"{shift.length_px:.2f} px{metres} ({parts}), spread {spread}{varies}; "
        f"confidence {shift.confidence:.2f} ({shift.agree_frac:.0%} of {len(shift.local)} windows agree)"
    )


# ------------------------------------------------------------------------------------------------ findings
def derive_findings(checked: PairCheck) -> list[Finding]:
    """Return what follows from the numbers."""
    return [*_check_grids(checked), *_check_data(checked), *_check_radiometry(checked), *_check_shift(checked)]


def _check_grids(checked: PairCheck) -> Iterator[Finding]:
    before, after = checked.before, checked.after
    if before.crs is None:
        yield Finding("crs", FINE, "The images carry no CRS: results carry none either, and areas are in pixels")
    elif after.resampled:
        yield Finding("grid", FINE, "The grids differ: the after image is resampled onto the before image's pixels")
    if before.gsd_m and after.gsd_m and max(before.gsd_m, after.gsd_m) / min(before.gsd_m, after.gsd_m) > MAX_GSD_RATIO:
        finer = before if before.gsd_m < after.gsd_m else after
        text = f"Pixels are {before.gsd_m:.3g} m before and {after.gsd_m:.3g} m after: one date shows finer things"
        yield Finding(
            "resolution", WARNINGS, text, f"Average {_shorten_path(finer.path)} to the coarser pixels (`gdalwarp -tr`)"
        )
    share = max(checked.overlap_before_frac, checked.overlap_after_frac)
    if share < MIN_OVERLAP_FRAC:
        remedy = "Check that these are the right tiles; only the overlap gets a result"
        yield Finding("overlap", WARNINGS, f"The images share {share:.1%} of the smaller one", remedy)


def _check_data(checked: PairCheck) -> Iterator[Finding]:
    seen = checked.radiometry
    if seen.common_frac == 0:
        remedy = "Check both images' no-data values and that they show the same place"
        yield Finding("data", UNUSABLE, "No pixel has data at both dates", remedy)
        return
    if seen.common_frac < MIN_DATA_FRAC:
        text = f"Only {seen.common_frac:.1%} of the overlap has data at both dates"
        yield Finding(
            "data", WARNINGS, text, "Mosaic more tiles of the date that has less, or go on with what there is"
        )
    for facts, date in ((checked.before, seen.before), (checked.after, seen.after)):
        name = _shorten_path(facts.path)
        if date.black_border_frac > MAX_BLACK_BORDER_FRAC:
            share = f"{date.black_border_frac:.1%}"
            text = f"{name} has a black border without a no-data tag ({share}); it is taken as no data"
            yield Finding("border", WARNINGS, text, "`gdal_edit.py -a_nodata 0` says so to other programs, too")
        worst = max((band.saturated_frac for band in date.bands), default=0.0)
        if worst > MAX_SATURATED_FRAC:
            text = f"{worst:.1%} of {name} is saturated: bright roofs and ground look alike there"
            yield Finding(
                "saturated", WARNINGS, text, "Use the original delivery if this one was stretched for display"
            )
        if facts.dtype == "uint8" and date.bands and max(band.std for band in date.bands) < MIN_STD_DN:
            text = f"{name} has next to no contrast (standard deviation under {MIN_STD_DN:g} of 255)"
            yield Finding("contrast", WARNINGS, text, "Look at it: haze, cloud, or a wrong conversion to 8 bit")


def _check_radiometry(checked: PairCheck) -> Iterator[Finding]:
    bands = checked.radiometry.bands
    if not bands:
        return
    offset, correlation = max(abs(band.mean_difference) for band in bands), max(band.correlation for band in bands)
    contrast = max(max(band.gain, 1 / band.gain) for band in bands)
    if correlation < MIN_PAIR_CORRELATION:
        why = "another season or sensor, " + ("or much has changed" if checked.shift.is_known else "or another place")
        text = f"The dates look unlike each other (correlation {correlation:.2f}): {why}"
        remedy = "Look at the swipe; a VLM that judges each date by itself minds less than a difference of pixels"
        yield Finding("unlike", WARNINGS, text, remedy)
    elif offset > MAX_MEAN_DIFFERENCE_DN or contrast > MAX_CONTRAST_RATIO:
        text = f"The light differs: up to {offset:.0f} grey values in the mean, contrast up to {contrast:.1f} times"
        remedy = "A VLM that judges each date by itself minds little; match histograms before methods that subtract"
        yield Finding("light", WARNINGS, text, remedy)


def _check_shift(checked: PairCheck) -> Iterator[Finding]:
    shift = checked.shift
    if not shift.is_known:
        if checked.radiometry.common_frac > 0:
            text = "The shift between the dates could not be measured: too little texture, or too little in common"
            remedy = "Look at the checkerboard: streets and roofs should go on from field to field"
            yield Finding("shift", WARNINGS, text, remedy)
        return
    words = f"{shift.length_px:.1f} px" + ("" if shift.length_m is None else f" ({shift.length_m:.1f} m)")
    words += f", by the {shift.agree_frac:.0%} of the windows that agree" if shift.agree_frac < 0.5 else ""
    if shift.length_px > MAX_SHIFT_PX:
        text = f"The dates lie apart by {words}, more than the {MAX_SHIFT_PX:g} px that can be put right here"
        yield Finding("shift", UNUSABLE, text, "Georeference one image anew, or check that its CRS is the one it says")
    elif shift.varies:
        text = f"The dates lie apart by {words}, and it varies from place to place (spread {shift.spread_px:.1f} px)"
        yield Finding("shift", WARNINGS, text, "`semicdvl detect --align` puts it right, place by place")
    elif shift.length_px >= SHIFT_WARNING_PX:
        text = f"The dates lie apart by {words}: edges of things that stand still look changed"
        remedy = (
            "`semicdvl detect --align` puts it right; without it, --shift-px makes the comparison of objects lenient"
        )
        yield Finding("shift", WARNINGS, text, remedy)


def _shorten_path(path: str) -> str:
    """Return the last two parts of a path: the dates of a pair often have one file name."""
    return "/".join(path.split("/")[-2:])
