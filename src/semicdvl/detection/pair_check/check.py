"""Do these two images fit? What is measured before a detection, what follows from it, and what to do about it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rasterio.enums import MaskFlags
from rich.table import Table

from semicdvl.atomic_files import write_json
from semicdvl.detection.pair_check import report
from semicdvl.detection.pair_check.findings import Finding, ImageFacts, PairCheck, derive_findings
from semicdvl.errors import InputError
from semicdvl.raster.grid import Grid
from semicdvl.raster.io.image_reader import ImageReader
from semicdvl.raster.io.inputs import ImageInput
from semicdvl.raster.io.pair_reader import RasterPair, open_pair
from semicdvl.raster.registration.estimate import measure_shift
from semicdvl.raster.registration.radiometry import compare_radiometry
from semicdvl.raster.registration.shift import MAX_SHIFT_PX, Shift
from semicdvl.raster.warp import Alignment

CHECK_FORMAT = "semicdvl-check"


def check_pair(
    before: ImageInput,
    after: ImageInput,
    out: Path,
    *,
    bands: Sequence[int] | None = None,
    after_bands: Sequence[int] | None = None,
    grid: str | Path = "before",
) -> PairCheck:
    """Measure how two images fit and write `check.json` and `check.html` into a folder; its other files stay.

    Args:
        before: date 1, see `raster.io.inputs.resolve_input`.
        after: date 2.
        out: the folder; made if it is missing.
        bands: see `raster.io.pair_reader.open_pair`.
        after_bands: the same.
        grid: the same.

    Raises:
        InputError: an image cannot be opened or read, or the two have no ground in common.
        OutputError: the folder cannot be written.
    """
    with open_pair(before, after, bands=bands, after_bands=after_bands, grid=grid) as pair:
        checked = measure_pair(pair)
        out = Path(out).absolute()
        report.write_check_report(out / "check.html", pair.select_rgb(), checked)
        write_json(out / "check.json", build_check_record(checked))
    return checked


def measure_pair(pair: RasterPair) -> PairCheck:
    """Measure an opened pair.

    Raises:
        InputError: a file is damaged.
    """
    radiometry = compare_radiometry(pair)
    shift = measure_shift(pair) if radiometry.common_frac > 0 else Shift()
    dates = [_read_image_facts(date) for date in (pair.before, pair.after)]
    overlap_px = pair.grid.height * pair.grid.width
    gsd_m = pair.gsd_m
    overlap_m2 = None if gsd_m is None else overlap_px * gsd_m**2
    shares = [
        _compute_overlap_share(date, pair, facts) for date, facts in zip((pair.before, pair.after), dates, strict=True)
    ]
    facts = PairCheck(
        before=dates[0],
        after=dates[1],
        height_px=pair.grid.height,
        width_px=pair.grid.width,
        overlap_m2=overlap_m2,
        overlap_before_frac=shares[0],
        overlap_after_frac=shares[1],
        radiometry=radiometry,
        shift=shift,
        notes=pair.notes,
        findings=(),
    )
    return facts.with_findings(derive_findings(facts))


def _compute_overlap_share(date: ImageReader, pair: RasterPair, facts: ImageFacts) -> float:
    """Return which share of an image lies in the overlap: of its pixels, or of its ground where it is resampled."""
    overlap_px, image_px = pair.grid.height * pair.grid.width, facts.height_px * facts.width_px
    if not date.warped or pair.gsd_m is None or facts.gsd_m is None:
        return overlap_px / image_px
    return min(1.0, overlap_px * pair.gsd_m**2 / (image_px * facts.gsd_m**2))


def open_checked_pair(
    before: ImageInput,
    after: ImageInput,
    *,
    bands: Sequence[int] | None = None,
    after_bands: Sequence[int] | None = None,
    grid: str | Path = "before",
    normalise: str = "none",
    align: bool = False,
) -> tuple[RasterPair, PairCheck, Shift | None]:
    """Open a pair for a detection and measure it; with `align` the after image is moved onto the before image.

    The other arguments are those of `raster.io.pair_reader.open_pair`.

    Returns:
        The pair, what was measured on the files as they are, and the shift that is left after alignment (None without).

    Raises:
        InputError: an image cannot be used, or the images lie more than `MOST_PX` apart.
    """
    pair = open_pair(before, after, bands=bands, after_bands=after_bands, grid=grid, normalise=normalise)
    try:
        checked = measure_pair(pair)
        if checked.shift.is_known and checked.shift.length_px > MAX_SHIFT_PX and checked.shift.agree_frac >= 0.5:
            far = next(finding for finding in checked.findings if finding.kind == "shift")
            raise InputError(pair.after.path, far.text.rstrip("."), far.remedy.rstrip("."))
        alignment = checked.shift.to_alignment(pair) if align else None
        if alignment is None:
            return pair, checked, None
        aligned = pair.align(alignment)
        left = measure_shift(aligned)
    except BaseException:
        pair.close()
        raise
    if _is_improved(left, checked.shift):
        pair.close_views()
        return aligned, checked, left
    aligned.close_views()
    return pair, checked.with_findings((*checked.findings, Finding("align", 1, *_ALIGNMENT_FAILED))), None


_ALIGNMENT_FAILED = (
    "Moving the after image did not bring the dates closer, so it was left where it is",
    "Look at the arrows of `semicdvl check`; a rubber-sheet of control points may be needed",
)


def _is_improved(left: Shift, was: Shift) -> bool:
    """Tell whether an alignment helped: what is left is known and shorter, or varies less."""
    if not left.is_known:
        return False
    return left.length_px < was.length_px if not was.varies else left.spread_px <= was.spread_px


def collect_remaining_warnings(checked: PairCheck, move: Alignment | None, left: Shift | None) -> tuple[str, ...]:
    """Return the check's warnings as they stand for a detection: an alignment that was made answers for the shift."""
    if move is None or left is None:
        return checked.warnings
    others = checked.with_findings([finding for finding in checked.findings if finding.kind != "shift"]).warnings
    return (f"After alignment {left.length_px:.2f} px of {checked.shift.length_px:.2f} px are left.", *others)


def build_alignment_record(checked: PairCheck, move: Alignment | None, left: Shift | None) -> dict[str, Any]:
    """Return what run.json says of how the dates lie on each other: measured, moved by, left."""
    return {
        "shift_known": checked.shift.is_known,
        "measured_px": [checked.shift.row_px, checked.shift.col_px] if checked.shift.is_known else None,
        "spread_px": checked.shift.spread_px if checked.shift.is_known else None,
        "confidence": round(checked.shift.confidence, 3),
        "moved_px": None if move is None else [move.row_px, move.col_px],
        "offsets_px": None if move is None or move.field is None else move.field.offsets_2HW.round(3).tolist(),
        "left_px": None if left is None else [left.row_px, left.col_px],
    }


def build_check_record(checked: PairCheck) -> dict[str, Any]:
    """Return what check.json holds."""
    shift = asdict(checked.shift) | {
        "known": checked.shift.is_known,
        "confidence": round(checked.shift.confidence, 3),
        "length_px": checked.shift.length_px,
        "length_m": checked.shift.length_m,
        "spread_m": checked.shift.spread_m,
        "varies": checked.shift.varies,
    }
    return {
        "format": CHECK_FORMAT,
        "verdict": checked.verdict,
        "meaning": checked.meaning,
        **asdict(checked),
        "shift": shift,
    }


def format_check_table(checked: PairCheck) -> Table:
    """Return what was measured as a table for the console."""
    shown = Table("", "before", "after", box=None, header_style="bold")
    for label, *values in checked.format_rows():
        shown.add_row(label, *values)
    return shown


def format_check_summary(checked: PairCheck, out: Path) -> str:
    """Return what concerns both dates, the findings and the verdict in lines."""
    lines = [f"{label}: {value}" for label, value in checked.format_lines()]
    words = ("note", "warning", "stop")
    lines += [f"{words[finding.level]}: {finding}" for finding in checked.findings]
    return "\n".join([*lines, f"verdict: {checked.meaning}", f"pictures: {out / 'check.html'}"])


# ------------------------------------------------------------------------------------------------ facts of a file
def _read_image_facts(date: ImageReader) -> ImageFacts:
    """Return what a date's file says of itself."""
    source = date.dataset.src_dataset if date.warped else date.dataset
    grid = Grid(source.crs, source.transform, source.height, source.width)
    return ImageFacts(
        path=str(date.path),
        height_px=source.height,
        width_px=source.width,
        crs=None if grid.crs is None else _format_crs(grid),
        gsd_m=grid.gsd_m,
        bands=source.count,
        used_bands=date.bands,
        dtype=str(source.dtypes[date.bands[0] - 1]),
        no_data=_describe_no_data(source, date.bands[0]),
        resampled=date.warped,
    )


def _format_crs(grid: Grid) -> str:
    code = grid.crs.to_epsg() if grid.crs else None
    return f"EPSG:{code}" if code else "a CRS of its own"


def _describe_no_data(source: Any, band: int) -> str:
    """Say how a file tells where it has no data."""
    flags = source.mask_flag_enums[band - 1]
    if MaskFlags.alpha in flags:
        return "alpha band"
    if MaskFlags.nodata in flags:
        return f"value {source.nodatavals[band - 1]:g}"
    return "mask" if MaskFlags.per_dataset in flags else "no tag"
