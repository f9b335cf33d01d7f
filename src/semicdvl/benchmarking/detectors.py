"""Detectors that are not trained, in a suite: classic methods and VLM + CEG, on the test pairs of the trained methods.

A *side* is all test pairs of a data set, laid below each other like the tiles of one raster: patches of 128 px have no
means, clusters or thresholds of their own. A detector is shown it whole, without labels, and finds one threshold for
it; so it has seen the test images, which a trained network has not. With `fit = "pair"`, and always for a VLM, each
pair is a raster of its own and goes the way that `semicdvl detect` takes.
"""

from __future__ import annotations

import resource
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console

from semicdvl.atomic_files import hash_values, write_json
from semicdvl.benchmarking.config import CityEntry, DetectorEntry, RealEntry, Suite, ZeroLabelConfig
from semicdvl.benchmarking.data import PreparedData
from semicdvl.benchmarking.job_files import JobFiles, build_file_name
from semicdvl.benchmarking.pair_mosaic import MosaicStrips, PairMosaic
from semicdvl.config import parse_section
from semicdvl.data.images import ImageCache
from semicdvl.data.pairs import read_pair
from semicdvl.data.readers import real_pairs
from semicdvl.data.split_file import read_split
from semicdvl.detection.detectors.unsupervised import build_unsupervised_detector
from semicdvl.detection.detectors.vlm_ceg import build_vlm_detector
from semicdvl.errors import DataError
from semicdvl.metrics.change import ConfusionCounts
from semicdvl.registry import build_part, list_options
from semicdvl.synthetic.config import CitySpec
from semicdvl.types import IGNORE, Detector, PairFiles
from semicdvl.unsupervised import UNSUPERVISED

NO_LABELS = 0.0
"""Share of labels of a run that is not trained."""
NO_NETWORK = "-"
"""Name of the network of such a run, where the suite names networks."""
DETECTORS_NOTE = (
    "\nLines with 0 % labels are detectors that are not trained. Those fitted to the side have seen all test images, "
    "without labels, and have one threshold for them; where nothing about a detector depends on the seed it ran once, "
    "and differences take that run for every seed."
)
CACHE_BYTES = 512 * 2**20
"""Decoded images that are kept: some detectors go through a side fifty times."""
TILE_PX, OVERLAP_PX = 1024, 128
"""The defaults of `detect`."""


# ------------------------------------------------------------------------------------------------ jobs
@dataclass(frozen=True)
class DetectorJob(JobFiles):
    """One detector on one test side; what the runner asks of it is what it asks of a `plan.TrainingJob`.

    Attributes:
        data, method, model, seed: its place in the suite; `method` is the detector's name.
        seeds: those that it stands for: all whose test pairs and options are the same.
        detector: what runs, with the seed among its options where it has one.
        split: the file whose test side is looked at.
        pairs: how many pairs that are.
        gsd_m: metres per pixel, None if the files say it or nobody does.
        label_values: as in `data.images.read_mask`.
        out: folder of the suite.
    """

    data: str
    method: str
    model: str
    seed: int
    seeds: tuple[int, ...]
    detector: DetectorEntry
    split: Path
    pairs: int
    gsd_m: float | None
    label_values: dict[int, int] | None
    out: Path
    labelled: float = NO_LABELS
    steps: int = 0

    @property
    def name(self) -> str:
        """Name of its files; the end changes with what determines it."""
        return build_file_name((self.data, self.method, f"s{self.seed}"), self._describe_inputs(), out=self.out)

    @property
    def cost(self) -> float:
        """What it costs, relative to others: every pair is seen about twice."""
        return 2.0 * self.pairs

    @property
    def place(self) -> dict[str, Any]:
        """Its place in the suite, as outcomes have it; a detector makes no steps."""
        place = {name: getattr(self, name) for name in ("data", "method", "model", "labelled", "seed")}
        return place | {"seeds": list(self.seeds), "steps": None}

    def _describe_inputs(self) -> dict[str, Any]:
        detector = self.detector.model_dump(mode="json")
        values = None if self.label_values is None else {str(key): value for key, value in self.label_values.items()}
        return {"detector": detector, "split": str(self.split), "gsd_m": self.gsd_m, "label_values": values}

    def write(self) -> Path:
        """Write the file that `benchmarking.worker` starts from, and return it."""
        path = self.out / "jobs" / f"{self.name}.json"
        write_json(
            path, {"job": self.place, **self._describe_inputs(), "run": str(self.run), "result": str(self.result)}
        )
        return path


def plan_detector_jobs(
    suite: Suite, entry: Any, place: PreparedData, out: Path, *, network: str
) -> Iterator[DetectorJob]:
    """Yield the detectors' jobs on one data set: one per seed, or one for all that would come to the same.

    Args:
        suite: what to compare.
        entry: the data set in the suite.
        place: the data set, ready.
        out: folder of the suite.
        network: what stands in place of a network's name.

    Raises:
        ConfigError: a detector cannot be imported.
        DataError: a split cannot be made.
    """
    fractions = [fraction for method in suite.methods for fraction in (method.labelled or suite.labelled)]
    fraction = min(fractions or suite.labelled or (1.0,))  # the test side is that of all fractions
    values = suite.set.get("data", {}).get("label_values")
    label_values = None if values is None else {int(key): int(value) for key, value in values.items()}
    for detector in suite.detectors:
        groups: dict[str, tuple[DetectorEntry, Path, int, list[int]]] = {}
        for seed in suite.seeds:
            split = place.write_split_file(fraction, seed if entry.draw_seed is None else entry.draw_seed)
            test, seeded = read_split(split).test, _add_seed(detector, seed)
            key = hash_values([pair.name for pair in test], seeded.model_dump(mode="json"))
            groups.setdefault(key, (seeded, split, len(test), []))[3].append(seed)
        gsd_m = detector.gsd_m if detector.gsd_m is not None else _find_gsd_m(entry)
        for seeded, split, pairs, seeds in groups.values():
            yield DetectorJob(
                data=entry.name,
                method=detector.name,
                model=network,
                seed=seeds[0],
                seeds=tuple(seeds),
                detector=seeded,
                split=split,
                pairs=pairs,
                gsd_m=gsd_m,
                label_values=label_values,
                out=out,
            )


def _add_seed(entry: DetectorEntry, seed: int) -> DetectorEntry:
    """Return a detector with the run's seed, where its method has one and the suite does not say another."""
    if entry.method is None or "seed" in entry.options:
        return entry
    if "seed" not in list_options("method", entry.method, UNSUPERVISED):
        return entry
    return entry.model_copy(update={"options": entry.options | {"seed": seed}})


def _find_gsd_m(entry: Any) -> float | None:
    """Return metres per pixel of a data set, if the suite knows."""
    if isinstance(entry, CityEntry):
        return entry.city.get("gsd_m", CitySpec().gsd_m)
    return real_pairs.REAL_PAIRS_GSD_M if isinstance(entry, RealEntry) else None


# ------------------------------------------------------------------------------------------------ one job
def run_detector_job(content: Mapping[str, Any]) -> dict[str, Any]:
    """Run the detector of a job file on the test side; return scores and cost.

    Raises:
        SemicdvlError: the detector cannot be built, or cannot look at these pairs.
    """
    began = time.monotonic()
    entry = parse_section(DetectorEntry, content["detector"], source="the job's detector")
    pairs, values = read_split(Path(content["split"])).test, content["label_values"]
    cache = ImageCache(CACHE_BYTES, label_values=values and {int(key): value for key, value in values.items()})
    detector = build_detector(entry)
    counts = ConfusionCounts()
    with tempfile.TemporaryDirectory() as room:
        for change_HW, label_HW in _detect_pairs(
            detector, entry, pairs, cache, gsd_m=content["gsd_m"], folder=Path(room)
        ):
            counts += ConfusionCounts.from_maps(
                np.where(change_HW == IGNORE, 0, change_HW), label_HW
            )  # as networks are
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
    from semicdvl.ceg.config import CEGSettings
    from semicdvl.ceg.features import build_feature_extractor
    from semicdvl.ceg.prompts import PROMPT_SETS
    from semicdvl.detection.detectors.calibrated import add_calibration
    from semicdvl.vlms import VLMS

    vlm = build_part("VLM", str(entry.vlm), VLMS, entry.options)
    ceg = entry.ceg or ZeroLabelConfig()
    gamma = vlm.gamma if ceg.gamma is None else ceg.gamma
    own = ceg.model_dump(exclude={"gamma", "features", "calibrate", "prompts"})
    settings = CEGSettings(gamma=gamma, gamma_segmentation=gamma, **own)
    features = None if ceg.features is None else build_feature_extractor(ceg.features)
    detector = build_vlm_detector(vlm, prompts=PROMPT_SETS[ceg.prompts], settings=settings, features=features)
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
    if any(pair.label is None for pair in pairs):
        raise DataError(f"{entry.name}: some test pairs have no label to be compared with.")
    if entry.method is None or entry.fit == "pair":
        for at, pair in enumerate(pairs):
            try:
                yield _detect_pair(detector, pair, cache, gsd_m=gsd_m, folder=folder / str(at))
            except DataError as error:
                raise DataError(f"pair '{pair.name}': {error}") from error
        return
    side = PairMosaic(pairs, cache, gsd_m=gsd_m)
    ready = detector.prepare(side)
    for pair, change in zip(pairs, ready.decide(MosaicStrips(side, ready, folder)), strict=True):
        label_HW = read_pair(pair, cache=cache).label_HW
        assert label_HW is not None, "looked at above"
        yield change.change_HW[:, : label_HW.shape[1]], label_HW


def _detect_pair(
    detector: Detector, pair: PairFiles, cache: ImageCache, *, gsd_m: float | None, folder: Path
) -> MapAndLabel:
    """Return change map and label of a pair, by the steps of `semicdvl detect`."""
    from semicdvl.detection.tiles.score_store import ScoreStore
    from semicdvl.detection.tiles.tile_runner import fit_detector, run_tiles
    from semicdvl.raster.io.pair_reader import open_pair
    from semicdvl.raster.tiling import plan_tiles

    arrays = read_pair(pair, cache=cache)
    assert arrays.label_HW is not None, "looked at before"
    folder.mkdir()
    dates = folder / "before.png", folder / "after.png"  # a pair may be a window of its files
    for path, image_HWC in zip(dates, (arrays.t1_HWC, arrays.t2_HWC), strict=True):
        Image.fromarray(image_HWC).save(path, compress_level=1)
    with open_pair(*dates) as opened:
        ready = fit_detector(detector, opened, tile_px=TILE_PX, gsd_m=gsd_m)
        cut = plan_tiles(*opened.shape_hw, tile_px=TILE_PX, overlap_px=OVERLAP_PX)
        store = ScoreStore(folder, cut, map_count=ready.map_count)
        run_tiles(store, opened, ready, gsd_m=gsd_m, console=Console(quiet=True))
        change_HW = np.concatenate([part.change_HW for part in ready.decide(store)])
    return change_HW, arrays.label_HW
