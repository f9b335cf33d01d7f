"""What a check of two images holds, as a table for the console, as text and as a record."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from rich.table import Table

from semicdvl.raster.registration.radiometry import ImageRadiometry, PairRadiometry
from semicdvl.raster.registration.shift import Shift
from semicdvl.reports.numbers import format_area

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
    `border` the colour of a border that is no data, `acquired` the date that its tags or its name say, such as 2019 or
    2019-06-30, and `inner_no_data_frac` the share of the overlap that is tagged as no data though it has the value of
    white or black ground and does not reach the edge.
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
    acquired: str | None = None
    inner_no_data_frac: float = 0.0


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
        pixel_m: width and height on the ground of a pixel of the chosen grid; None without a CRS.

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
    pixel_m: tuple[float, float] | None = None

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
    row_px, col_px = (round(length_px, 2) + 0.0 for length_px in (shift.row_px, shift.col_px))  # no -0.00
    parts = f"{row_px:+.2f} down, {col_px:+.2f} right"
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
