"""Measure speed and memory of `detect` on large rasters: the engine alone, and with a network.

    python benchmarks/raster.py                        8192 x 8192 without a network, 2048 x 2048 with the small one
    python benchmarks/raster.py --size 16384 --only null

Synthetic images of houses on noisy ground (or, with `--scene noise`, of single pixels that differ, which are as many
objects), as tiled GeoTIFFs. Every row is measured in a process of its own:

null        a detector without computation and without detections: what remains is the engine, from reading to report
difference  a detector of little cost with detections: maps that are not constant, and many objects
cva         an unsupervised method, which looks at the whole pair first
network     `siam_light` on EfficientNet-Lite0 with random weights; the same network is first run on tiles that lie in
            memory. "of bare" compares pixels of tiles: what reading, blending and writing take away. Neighbouring tiles
            overlap, so the map grows by fewer pixels than the network sees: the price of having no seams, given too.
aerial      the embedded vision-language model with change events, which finds instances

MPix/s are pixels of the map per second of wall time over the whole command; "tiles" the same of the stage that reads,
detects and blends; "core s" is the processor time of the whole command, which other work on the machine changes less.
Peak memory is that of the whole process, with all its libraries.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray
from rich.console import Console

import semicdvl as cd
from semicdvl.detection.config import DetectionConfig
from semicdvl.detection.detectors.network import NetworkDetector
from semicdvl.detection.pipeline import write_detection
from semicdvl.detection.run_record import measure_peak_memory_mib
from semicdvl.process_memory import keep_freed_memory, return_freed_memory
from semicdvl.raster.tiling import plan_tiles
from semicdvl.types import IGNORE, ChangeMap, Detector, PairTiles, ScoreStrips, TilePrediction

ROWS = 512
KINDS = ("null", "difference", "cva", "network", "aerial")
"""Rows of the table."""
NOISE_FRAC = 0.015
"""Share of pixels that differ in the scene `noise`: about 13,000 objects a megapixel."""


@dataclass(frozen=True)
class Cheap(Detector):
    """Changed where the red band differs much; or, with `nothing`, no computation and no change."""

    nothing: bool
    map_count: int = 1

    @property
    def name(self) -> str:
        """For the report."""
        return "null" if self.nothing else "difference"

    def predict_scores(
        self, t1_HWC: NDArray[np.uint8], t2_HWC: NDArray[np.uint8], *, gsd_m: float | None = None
    ) -> NDArray[np.float32]:
        """Return one map."""
        if self.nothing:
            return np.zeros((1, *t1_HWC.shape[:2]), np.float32)
        return np.abs(t1_HWC[None, ..., 0].astype(np.float32) - t2_HWC[None, ..., 0]) / np.float32(255)

    def decide(self, strips: ScoreStrips) -> Iterator[ChangeMap]:
        """Compare with a threshold."""
        for strip in strips:
            score_HW = strip.scores_PHW[0]
            change_HW = np.where(strip.valid_HW, score_HW > 0.25, np.uint8(IGNORE)).astype(np.uint8)
            yield ChangeMap(change_HW, np.where(strip.valid_HW, score_HW, np.float32(np.nan)))


class Timed(Detector):
    """A detector, and how long it was at work on tiles."""

    def __init__(self, inner: Detector) -> None:
        """Wrap a detector."""
        self.inner, self.inside_s = inner, 0.0
        self.name, self.map_count = inner.name, inner.map_count

    def prepare(self, tiles: PairTiles) -> Detector:
        """Show the pair to the detector."""
        self.inner = self.inner.prepare(tiles)
        self.map_count = self.inner.map_count
        return self

    def predict_scores(
        self, t1_HWC: NDArray[np.uint8], t2_HWC: NDArray[np.uint8], *, gsd_m: float | None = None
    ) -> NDArray[np.float32]:
        """Do what the detector does."""
        began = time.perf_counter()
        scores_PHW = self.inner.predict_scores(t1_HWC, t2_HWC, gsd_m=gsd_m)
        self.inside_s += time.perf_counter() - began
        return scores_PHW

    def predict_tile(
        self,
        t1_HWC: NDArray[np.uint8],
        t2_HWC: NDArray[np.uint8],
        *,
        valid_HW: NDArray[np.bool_],
        gsd_m: float | None = None,
    ) -> TilePrediction:
        """Do what the detector does, instances and all."""
        began = time.perf_counter()
        found = self.inner.predict_tile(t1_HWC, t2_HWC, valid_HW=valid_HW, gsd_m=gsd_m)
        self.inside_s += time.perf_counter() - began
        return found

    def decide(self, strips: ScoreStrips) -> Iterator[ChangeMap]:
        """Do what the detector does."""
        return self.inner.decide(strips)


def build_detector(kind: str) -> Detector:
    """Return the detector of a row of the table."""
    if kind == "network":
        return network_detector()
    if kind == "cva":
        return cd.create_detector("cva")
    return cd.create_vlm_detector("aerial") if kind == "aerial" else Cheap(kind == "null")


def network_detector() -> NetworkDetector:
    """Return a small network with random weights, prepared as `semicdvl detect --model` prepares one."""
    import torch

    from semicdvl.detection.detectors.inference import prepare_for_inference
    from semicdvl.models.siam_light import build_siam_light

    torch.manual_seed(0)
    network = build_siam_light(backbone="efficientnet_lite0", train_heads=False).eval()
    return NetworkDetector(prepare_for_inference(network), name="small network")


# ------------------------------------------------------------------------------------------------ images
def write_pair(folder: Path, height: int, width: int, *, compress: str, scene: str = "city") -> tuple[Path, Path]:
    """Write two images: of a city, where a fifth of the houses differ, or of noise, where single pixels do."""
    draw_rows = {"city": _draw_rows, "noise": _draw_noise}[scene]
    paths = folder / "before.tif", folder / "after.tif"
    for date, path in enumerate(paths):
        profile = {
            "driver": "GTiff", "dtype": "uint8", "count": 3, "height": height, "width": width, "tiled": True,
            "blockxsize": 512, "blockysize": 512, "compress": compress, "photometric": "RGB", "bigtiff": "IF_SAFER",
            "crs": "EPSG:32615", "transform": Affine(0.3, 0, 366_676, 0, -0.3, 4_104_256),
        }  # fmt: skip
        with rasterio.open(path, "w", **profile) as target:
            for row in range(0, height, ROWS):
                rows_HWC = draw_rows(row, min(ROWS, height - row), width, date=date)
                target.write(rows_HWC.transpose(2, 0, 1), window=((row, row + len(rows_HWC)), (0, width)))
    return paths


def _draw_rows(row: int, height: int, width: int, *, date: int) -> NDArray[np.uint8]:
    """Draw some rows: soft ground, a house of about 20 x 30 px every 64 px, noise."""
    shared, own = np.random.default_rng([7, row]), np.random.default_rng([date, row])
    ground_HWC = shared.integers(60, 110, (height // 64 + 1, width // 64 + 1, 3), np.uint8)
    image_HWC = np.repeat(np.repeat(ground_HWC, 64, axis=0), 64, axis=1)[:height, :width].copy()
    for top in range(8, height - 32, 64):
        for left in range(8, width - 40, 64):
            stays, colour = shared.random() < 0.8, shared.integers(150, 240, 3)
            if stays or own.random() < 0.5:
                image_HWC[top : top + 20, left : left + 30] = colour
    return image_HWC + own.integers(0, 8, image_HWC.shape, np.uint8)


def _draw_noise(row: int, height: int, width: int, *, date: int) -> NDArray[np.uint8]:
    """Draw some rows of dark noise, in which 1.5 % of the pixels are bright at the second date."""
    own = np.random.default_rng([date, row])
    image_HWC = own.integers(60, 68, (height, width, 3), np.uint8)
    if date:
        image_HWC[own.random((height, width), np.float32) < NOISE_FRAC] += 120
    return image_HWC


# ------------------------------------------------------------------------------------------------ one process
def run_row(kind: str, folder: Path, tile_px: int, overlap_px: int) -> dict[str, Any]:
    """Run one row of the table in this process."""
    keep_freed_memory()  # as the command line does
    detector = build_detector(kind)
    bare = bare_rate(detector, tile_px) if kind == "network" else None
    return_freed_memory()  # of the bare network, which is no part of the command
    settings = DetectionConfig(tile_px=tile_px, overlap_px=overlap_px)
    before, after = folder / "before.tif", folder / "after.tif"
    detector = Timed(detector)
    began, core_s = time.perf_counter(), time.process_time()
    result = write_detection(
        before, after, folder / f"out-{kind}", detector=detector, config=settings, progress=Console(quiet=True)
    )
    total_s = time.perf_counter() - began
    with rasterio.open(before) as source:
        shape_hw = source.shape
    cut = plan_tiles(*shape_hw, tile_px=tile_px, overlap_px=overlap_px)
    return {
        "mpix": shape_hw[0] * shape_hw[1] / 1e6,
        "tile_mpix": len(cut) * cut.tile_hw[0] * cut.tile_hw[1] / 1e6,
        "total_s": total_s,
        "core_s": time.process_time() - core_s,
        "inside_s": detector.inside_s,
        "laps_s": result.seconds,
        "objects": result.summary.objects,
        "peak_mib": measure_peak_memory_mib(),
        "bare_mpix_s": bare,
    }


def bare_rate(detector: Detector, tile_px: int, *, least_s: float = 10) -> float:
    """Return how many MPix of tiles per second the detector does on tiles that lie in memory."""
    tiles = [np.random.default_rng(at).integers(0, 256, (tile_px, tile_px, 3), np.uint8) for at in range(2)]
    detector.predict_scores(*tiles)
    began, count = time.perf_counter(), 0
    while time.perf_counter() - began < least_s:
        detector.predict_scores(*tiles)
        count += 1
    return count * tile_px**2 / 1e6 / (time.perf_counter() - began)


def in_process(kind: str, folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Run a row in a process of its own."""
    tiles = [str(options.tile), str(options.overlap)]
    command = [sys.executable, __file__, "--job", kind, str(folder), *tiles]
    found: dict[str, Any] = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    return found


# ------------------------------------------------------------------------------------------------ the table
def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=8192, help="side of the rasters in pixels, without a network")
    parser.add_argument("--network-size", type=int, default=2048, help="the same with the small network")
    parser.add_argument("--rows", type=int, help="height of the rasters, for a strip; by default they are squares")
    parser.add_argument("--only", choices=KINDS, help="one row of the table")
    parser.add_argument("--scene", choices=("city", "noise"), default="city", help="what the images show")
    parser.add_argument("--compress", default="none", help="of the images: none, lzw, deflate, ...")
    parser.add_argument("--tile", type=int, default=1024)
    parser.add_argument("--overlap", type=int, default=128)
    parser.add_argument(
        "--folder", type=Path, help="keep images and finished tiles here: the same call again goes on with them"
    )
    options = parser.parse_args()
    load = os.getloadavg()[0]
    print(
        f"{os.cpu_count()} cores, load {load:.1f} before the start; images {options.compress}, tiles {options.tile} px"
    )
    columns = "detector | px | MPix/s | tiles | core s | seconds by stage | objects | peak MiB"
    print(f"\n| {columns} |\n" + "|---" * 8 + "|", flush=True)
    for kind in KINDS:
        if options.only in (None, kind):
            side_px = options.network_size if kind in ("network", "aerial") else options.size
            with provide_pair(options, side_px) as folder:
                row = in_process(kind, folder, options)
                print_row(kind, row, str(side_px) if options.rows is None else f"{options.rows} x {side_px}")


@contextmanager
def provide_pair(options: argparse.Namespace, side_px: int) -> Iterator[Path]:
    """Give the folder of a pair, which is made where it is missing, and removed at the end unless it is to be kept."""
    with tempfile.TemporaryDirectory() as passing:
        parent = options.folder or Path(passing)
        rows = options.rows or side_px
        shape = f"{side_px}" if rows == side_px else f"{rows}x{side_px}"
        folder = parent / f"{options.scene}-{shape}-{options.compress}"
        if not folder.exists():
            unfinished = parent / f"unfinished-{folder.name}"
            unfinished.mkdir(parents=True, exist_ok=True)
            write_pair(unfinished, rows, side_px, compress=options.compress, scene=options.scene)
            unfinished.rename(folder)
        yield folder


def print_row(kind: str, found: dict[str, Any], size_px: str) -> None:
    """Print one row."""
    laps = ", ".join(f"{name} {value:.1f}" for name, value in found["laps_s"].items())
    detect_s = found["laps_s"]["detect"]
    print(
        f"| {kind} | {size_px} | {found['mpix'] / found['total_s']:.1f} | {found['mpix'] / detect_s:.1f} "
        f"| {found['core_s']:.1f} | {laps} | {found['objects']} | {found['peak_mib']} |"
    )
    if found["bare_mpix_s"] is not None:
        rate = found["tile_mpix"] / detect_s
        print(
            f"\nbare network {found['bare_mpix_s']:.3f} MPix/s; in the engine {rate:.3f} MPix/s of tiles: "
            f"{rate / found['bare_mpix_s']:.0%} of bare ({found['mpix'] / detect_s / found['bare_mpix_s']:.0%} counted "
            f"by pixels of the map). The network was at work {found['inside_s'] / detect_s:.0%} of the stage."
        )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--job"]:
        kind, folder, tile_px, overlap_px = sys.argv[2:]
        print(json.dumps(run_row(kind, Path(folder), int(tile_px), int(overlap_px))))
    else:
        main()
