"""Run detectors that are not trained, unsupervised methods and VLM + CEG, on the test pairs of the trained methods.

With `fit = "side"` all test pairs of a data set are treated as the tiles of one mosaic, since a patch of 128 px is too
small for means, clusters and a threshold of its own. The detector computes its statistics and one threshold over the
mosaic, without labels; so it has seen the test images, which a trained network has not. With `fit = "pair"`, and always
for a VLM, each pair is processed as a raster of its own, as `semicdvl detect` does.
"""

from __future__ import annotations

import resource
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console

from semicdvl.benchmarking.config import DetectorEntry
from semicdvl.benchmarking.pair_mosaic import MosaicStrips, PairMosaic
from semicdvl.config import parse_section
from semicdvl.data.images.cache import ImageCache
from semicdvl.data.pair_checks import measure_pairs_stretch
from semicdvl.data.pairs import read_pair
from semicdvl.data.split_file import read_split
from semicdvl.detection.detectors.unsupervised import build_unsupervised_detector
from semicdvl.detection.detectors.vlm_ceg import build_default_detector
from semicdvl.errors import DataError
from semicdvl.metrics.change import ConfusionCounts
from semicdvl.registry import build_part
from semicdvl.types import IGNORE, Detector, PairFiles

DETECTORS_NOTE = (
    "\nDetectors are not trained and have 0 % labels. Those fitted to all test pairs together have seen the "
    "test images, without labels, and use one threshold for them. A detector that does not depend on the seed ran "
    "once, and differences use that run for every seed."
)
CACHE_BYTES = 512 * 2**20
"""Decoded images that are kept: some detectors read the test pairs fifty times."""
TILE_PX, OVERLAP_PX = 1024, 128
"""The defaults of `detect`."""


def run_detector_job(content: Mapping[str, Any]) -> dict[str, Any]:
    """Run the detector of a job file on the test pairs; return scores and cost.

    Raises:
        SemicdvlError: the detector cannot be built, or cannot process these pairs.
    """
    began = time.monotonic()
    entry = parse_section(DetectorEntry, content["detector"], source="the job's detector")
    pairs, values = read_split(Path(content["split"])).test, content["label_values"]
    values = values and {int(key): value for key, value in values.items()}
    cache = ImageCache(CACHE_BYTES, label_values=values, stretch=measure_pairs_stretch(pairs))
    detector = build_detector(entry)
    counts = ConfusionCounts()
    with tempfile.TemporaryDirectory() as scratch:
        for change_HW, label_HW in _detect_pairs(
            detector, entry, pairs, cache, gsd_m=content["gsd_m"], folder=Path(scratch)
        ):
            counted_HW = np.where(change_HW == IGNORE, 0, change_HW)  # as for a network, which always decides
            counts += ConfusionCounts.from_maps(counted_HW, label_HW)
    seconds, scores = time.monotonic() - began, counts.list_scores()
    return {
        "status": "finished",
        "error": "",
        "run": "",
        "best_step": None,
        "test": {name: float(np.nan_to_num(scores[name])) for name in ("iou", "f1", "precision", "recall")},
        "test_last": None,
        "test_best": None,
        "pairs": {"labelled": 0, "unlabelled": 0, "val": 0, "test": len(pairs)},
        "seconds": seconds,
        "total_seconds": seconds,
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "peak_gpu_mib": None,
    }


def build_detector(entry: DetectorEntry) -> Detector:
    """Build the detector of an entry.

    Raises:
        ConfigError, InputError, MissingExtraError: an option is wrong, or weights or packages are missing.
    """
    if entry.method is not None:
        return build_unsupervised_detector(entry.method, entry.options)
    from semicdvl.ceg.features import build_feature_extractor
    from semicdvl.ceg.prompts import PROMPT_SETS
    from semicdvl.detection.detectors.calibrated import add_calibration
    from semicdvl.vlms import VLMS

    vlm = build_part("VLM", str(entry.vlm), VLMS, entry.options)
    ceg = entry.zero_label
    assert ceg is not None, "an entry has a method or a vlm"
    features = None if ceg.features is None else build_feature_extractor(ceg.features)
    detector = build_default_detector(
        vlm, prompts=PROMPT_SETS[ceg.prompts], settings=ceg.make_settings(vlm), features=features
    )
    return add_calibration(detector) if ceg.calibrate else detector


MapAndLabel = tuple[NDArray[np.uint8], NDArray[np.uint8]]


def _detect_pairs(
    detector: Detector,
    entry: DetectorEntry,
    pairs: Sequence[PairFiles],
    cache: ImageCache,
    *,
    gsd_m: float | None,
    folder: Path,
) -> Iterator[MapAndLabel]:
    """Yield the change map and the label of every pair."""
    if any(not pair.has_label for pair in pairs):
        raise DataError(f"{entry.name}: some test pairs have no label to compare with.")
    if entry.method is None or entry.fit == "pair":
        for at, pair in enumerate(pairs):
            try:
                yield _detect_pair(detector, pair, cache, gsd_m=gsd_m, folder=folder / str(at))
            except DataError as error:
                raise DataError(f"pair '{pair.name}': {error}") from error
        return
    mosaic = PairMosaic(pairs, cache, gsd_m=gsd_m)
    ready = detector.prepare(mosaic)
    for pair, change in zip(pairs, ready.decide(MosaicStrips(mosaic, ready, folder)), strict=True):
        label_HW = read_pair(pair, cache=cache).label_HW
        assert label_HW is not None, "checked above"
        yield change.change_HW[:, : label_HW.shape[1]], label_HW


def _detect_pair(
    detector: Detector, pair: PairFiles, cache: ImageCache, *, gsd_m: float | None, folder: Path
) -> MapAndLabel:
    """Return change map and label of a pair, by the steps of `semicdvl detect`."""
    from semicdvl.detection.tiles.score_store import ScoreStore
    from semicdvl.detection.tiles.tile_runner import PairTileReader, run_tiles
    from semicdvl.raster.io.open_pair import open_pair
    from semicdvl.raster.tiling import plan_tiles

    arrays = read_pair(pair, cache=cache)
    assert arrays.label_HW is not None, "checked before"
    folder.mkdir()
    dates = folder / "before.png", folder / "after.png"  # a pair may be a window of its files
    for path, image_HWC in zip(dates, (arrays.t1_HWC, arrays.t2_HWC), strict=True):
        Image.fromarray(image_HWC).save(path, compress_level=1)
    with open_pair(*dates) as opened:
        ready = detector.prepare(PairTileReader(opened, tile_px=TILE_PX, gsd_m=gsd_m))
        cut = plan_tiles(*opened.shape_hw, tile_px=TILE_PX, overlap_px=OVERLAP_PX)
        store = ScoreStore(folder, cut, map_count=ready.map_count)
        run_tiles(store, opened, ready, gsd_m=gsd_m, console=Console(quiet=True))
        change_HW = np.concatenate([part.change_HW for part in ready.decide(store)])
    return change_HW, arrays.label_HW
