"""Measure whether two images fit each other, before a detection or on its own."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import rasterio
from rasterio.enums import MaskFlags

from semicdvl.atomic_files import write_json
from semicdvl.detection.config import GDAL_CACHE_BYTES, DetectionConfig
from semicdvl.detection.pair_check.acquisition import find_acquisition_dates
from semicdvl.detection.pair_check.findings import derive_findings
from semicdvl.detection.pair_check.report import write_check_report
from semicdvl.detection.pair_check.results import (
    WARNINGS,
    Finding,
    ImageFacts,
    PairCheck,
    build_check_record,
)
from semicdvl.errors import InputError
from semicdvl.raster.io.image_reader import ImageReader
from semicdvl.raster.io.inputs import ImageInput
from semicdvl.raster.io.open_dataset import read_grid
from semicdvl.raster.io.open_pair import open_pair
from semicdvl.raster.io.pair_notes import describe_crs, describe_unrelated_datums
from semicdvl.raster.io.pair_reader import RasterPair
from semicdvl.raster.registration.co_registration import EXCESS_REMEDY, NO_IMPROVEMENT, co_register, describe_excess
from semicdvl.raster.registration.estimate import measure_shift
from semicdvl.raster.registration.radiometry import compare_radiometry
from semicdvl.raster.registration.shift import Shift
from semicdvl.types import Detector, Reliability, SourceFacts
from semicdvl.types.reliability import describe_pixel_sides

UNRELIABLE_FINDINGS = ("datum", "resolution", "same")
"""Kinds of findings with which the result of any detector is not reliable."""
ALIGNMENT_FAILED = Finding(
    "align",
    WARNINGS,
    NO_IMPROVEMENT,
    "Look at the arrows of `semicdvl check`; the images may need a rubber-sheet correction with control points",
)


def check_image_pair(
    before: ImageInput, after: ImageInput, out: Path | None = None, *, config: DetectionConfig | None = None
) -> PairCheck:
    """Measure how well two images fit each other.

    Args:
        before: date 1, see `raster.io.inputs.resolve_input`.
        after: date 2.
        out: folder for `check.json` and `check.html`, made if it is missing; its other files stay. None: nothing is
            written.
        config: how the pair is read; None: as by default.

    Raises:
        InputError: an image cannot be opened or read, or the two do not overlap.
        OutputError: the folder cannot be written.
    """
    config = config or DetectionConfig()
    with (
        rasterio.Env(GDAL_CACHEMAX=GDAL_CACHE_BYTES),
        open_pair(before, after, config, allow_outside=config.allow_outside) as pair,
    ):
        check = measure_pair(pair)
        if out is not None:
            folder = Path(out).absolute()
            write_check_report(folder / "check.html", pair.select_rgb(), check)
            write_json(folder / "check.json", build_check_record(check))
    return check


def measure_pair(pair: RasterPair) -> PairCheck:
    """Measure an opened pair.

    Raises:
        InputError: a file is damaged.
    """
    radiometry = compare_radiometry(pair)
    shift = measure_shift(pair) if radiometry.common_frac > 0 else Shift()
    dates = find_acquisition_dates(pair.before, pair.after)
    images = [_read_image_facts(image, date) for image, date in zip((pair.before, pair.after), dates, strict=True)]
    readers = zip((pair.before, pair.after), images, strict=True)
    shares = [_compute_overlap_share(image, pair, facts) for image, facts in readers]
    height, width = pair.shape_hw
    check = PairCheck(
        before=images[0],
        after=images[1],
        height_px=height,
        width_px=width,
        overlap_m2=None if pair.gsd_m is None else height * width * pair.gsd_m**2,
        overlap_before_frac=shares[0],
        overlap_after_frac=shares[1],
        radiometry=radiometry,
        shift=shift,
        notes=pair.notes,
        findings=(),
        unrelated_datums=describe_unrelated_datums(pair.before, pair.after),
        pixel_m=pair.grid.pixel_m,
    )
    return check.with_findings(derive_findings(check))


def _compute_overlap_share(image: ImageReader, pair: RasterPair, facts: ImageFacts) -> float:
    """Return which share of an image lies in the overlap: of its pixels, or of its area where it is resampled."""
    overlap_px, image_px = pair.grid.height * pair.grid.width, facts.height_px * facts.width_px
    if not image.warped or pair.gsd_m is None or facts.gsd_m is None:
        return overlap_px / image_px
    return min(1.0, overlap_px * pair.gsd_m**2 / (image_px * facts.gsd_m**2))


# ------------------------------------------------------------------------------------------------ for a detection
@dataclass(frozen=True)
class CheckedPair:
    """A pair that is open for a detection, and what was measured on it.

    Attributes:
        pair: the opened pair, co-registered if the settings say so and it helped.
        check: what was measured on the files as they are.
        remaining: the shift that is left after co-registration; None without.
    """

    pair: RasterPair
    check: PairCheck
    remaining: Shift | None = None

    def collect_warnings(self, *, told: Sequence[str] = ()) -> tuple[str, ...]:
        """Return the warnings of the check that still hold: co-registration takes care of the shift.

        Args:
            told: reasons why the result is not reliable, which a reader is told already: nothing is said twice.
        """
        check = self.check.with_findings([each for each in self.check.findings if not self._is_told(each, told)])
        if self.remaining is None:
            return check.warnings
        others = [finding for finding in check.findings if finding.kind != "shift"]
        left, before = self.remaining.length_px, self.check.shift.length_px
        done = f"The images were co-registered: a shift of {left:.2f} px of {before:.2f} px is left."
        return (done, *check.with_findings(others).warnings)

    def _is_told(self, finding: Finding, reasons: Sequence[str]) -> bool:
        """Tell whether a reason says what a finding says; that of a detector on the shape of pixels has its own end."""
        if finding.kind == "shape" and self.check.pixel_m is not None:
            return any(reason.startswith(describe_pixel_sides(self.check.pixel_m)) for reason in reasons)
        return str(finding) in reasons

    def build_alignment_record(self) -> dict[str, Any]:
        """Return what run.json says of the registration of the dates: measured, moved by, left."""
        shift, alignment, left = self.check.shift, self.pair.alignment, self.remaining
        displacement = None if alignment is None else alignment.field
        return {
            "shift_known": shift.is_known,
            "shift_certain": shift.is_certain,
            "measured_px": [shift.row_px, shift.col_px] if shift.is_known else None,
            "spread_px": shift.spread_px if shift.is_known else None,
            "confidence": round(shift.confidence, 3),
            "moved_px": None if alignment is None else [alignment.row_px, alignment.col_px],
            "offsets_px": None if displacement is None else displacement.offsets_2HW.round(3).tolist(),
            "left_px": None if left is None else [left.row_px, left.col_px],
        }


def open_checked_pair(before: ImageInput, after: ImageInput, *, config: DetectionConfig) -> CheckedPair:
    """Open a pair for a detection and measure it, and co-register the after image if the settings say so.

    Args:
        before: date 1.
        after: date 2.
        config: how the pair is read.

    Returns:
        The opened pair, which must be closed, and what was measured.

    Raises:
        InputError: an image cannot be used, or the images are misregistered by more than `MAX_CORRECTABLE_SHIFT_PX`.
    """
    with ExitStack() as opened:
        pair = open_pair(before, after, config, allow_outside=config.allow_outside)
        opened.callback(pair.close)
        check = measure_pair(pair)
        if check.shift.is_excessive:
            raise InputError(pair.after.path, describe_excess(check.shift), EXCESS_REMEDY)
        checked = _co_register(pair, check) if config.align else CheckedPair(pair, check)
        opened.pop_all()
    return checked


def _co_register(pair: RasterPair, check: PairCheck) -> CheckedPair:
    """Co-register a measured pair; where that did not help, a finding says so."""
    registered = co_register(pair, check.shift)
    if registered.note == NO_IMPROVEMENT:
        check = check.with_findings((*check.findings, ALIGNMENT_FAILED))
    return CheckedPair(registered.pair, check, registered.remaining)


def judge_reliability(checked: CheckedPair, detector: Detector, config: DetectionConfig) -> Reliability:
    """Judge whether the images and words of a detection lie within what its detector was measured on.

    Images that do not fit each other make the result of any detector unreliable.
    """
    before, after = readers = (checked.pair.before, checked.pair.after)
    known_m = (checked.pair.grid.gsd_m, before.file_grid.gsd_m, after.file_grid.gsd_m)
    sizes_m = [size_m for size_m in known_m if size_m is not None]
    source = SourceFacts(
        gsd_m=config.gsd_m or (max(sizes_m) if sizes_m else None),
        dtypes=tuple(str(reader.file_dataset.dtypes[reader.bands[0] - 1]) for reader in readers),
        bands=(before.bands, after.bands),
        pixel_m=checked.pair.grid.pixel_m,
        size_px=checked.pair.shape_hw,
        grey=(checked.check.radiometry.before.is_grey, checked.check.radiometry.after.is_grey),
        colours_told=before.colours_told and after.colours_told,
    )
    doubts = tuple(str(finding) for finding in checked.check.findings if finding.kind in UNRELIABLE_FINDINGS)
    judged = detector.judge_source(source)
    if doubts:
        judged = Reliability(False, (*doubts, *judged.reasons))
    return judged.force() if config.force else judged


# ------------------------------------------------------------------------------------------------ facts of a file
def _read_image_facts(image: ImageReader, acquired: str | None) -> ImageFacts:
    """Return what an image's file says of itself."""
    dataset = image.file_dataset
    grid = read_grid(dataset)
    return ImageFacts(
        path=str(image.path),
        height_px=dataset.height,
        width_px=dataset.width,
        crs=None if grid.crs is None else describe_crs(grid),
        gsd_m=grid.gsd_m,
        bands=dataset.count,
        used_bands=image.bands,
        dtype=str(dataset.dtypes[image.bands[0] - 1]),
        no_data=_describe_no_data(dataset, image.bands[0]),
        resampled=image.warped,
        stretch=None if image.stretch is None else image.stretch_limits,
        notes=image.notes,
        border=image.border_name,
        acquired=acquired,
        inner_no_data_frac=_measure_inner_no_data(image),
    )


def _measure_inner_no_data(image: ImageReader) -> float:
    """Return the share of the overlap that a tag on white or black of 8 bits hides away from the edge."""
    dataset, sample = image.file_dataset, image.read_sample()
    if image.data_dtype != np.uint8 or dataset.nodata not in (0, 255) or sample.valid_HW.all():
        return 0.0
    _, labels_HW = cv2.connectedComponents((~sample.valid_HW).astype(np.uint8), connectivity=8)
    edge = np.unique(np.concatenate([labels_HW[0], labels_HW[-1], labels_HW[:, 0], labels_HW[:, -1]]))
    return float((~sample.valid_HW & ~np.isin(labels_HW, edge)).mean())


def _describe_no_data(dataset: Any, band: int) -> str:
    """Return how a file marks missing data."""
    flags = dataset.mask_flag_enums[band - 1]
    if MaskFlags.alpha in flags:
        return "alpha band"
    if MaskFlags.nodata in flags:
        return f"value {dataset.nodatavals[band - 1]:g}"
    return "mask" if MaskFlags.per_dataset in flags else "no tag"
