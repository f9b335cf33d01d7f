"""A detector of single pixels, images it finds change in, and the settings of its tests."""

import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio
from rasterio.errors import NotGeoreferencedWarning
from rich.console import Console

from semicdvl.detection.config import DetectionConfig
from semicdvl.types import IGNORE, ChangeMap, Detector

UTM = rasterio.CRS.from_epsg(32615)
QUIET = Console(quiet=True)
TILES = DetectionConfig(tile_px=96, overlap_px=32)


@dataclass(frozen=True)
class Brighter(Detector):
    """Looks at single pixels: changed where date 2 is brighter; classes dark and bright."""

    name: str = "brighter"
    map_count: int = 2
    error: BaseException | None = None

    def predict_scores(self, t1_HWC, t2_HWC, *, gsd_m=None):
        if self.error is not None:
            raise self.error
        return np.stack([image_HWC.mean(axis=2, dtype=np.float32) / 255 for image_HWC in (t1_HWC, t2_HWC)])

    def decide(self, strips):
        for strip in strips:
            scores_PHW, valid_HW = strip.scores_PHW, strip.valid_HW
            bright_PHW = scores_PHW > 0.6
            classes = [np.where(valid_HW, plane_HW, IGNORE).astype(np.uint8) for plane_HW in bright_PHW]
            change_HW = np.where(valid_HW, bright_PHW[0] ^ bright_PHW[1], IGNORE).astype(np.uint8)
            score_HW = np.where(valid_HW, np.abs(scores_PHW[1] - scores_PHW[0]), np.nan).astype(np.float32)
            yield ChangeMap(change_HW, score_HW, ("dark", "bright"), (1,), *classes)


def pair_of_images(height: int = 150, width: int = 230) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    t1 = rng.integers(60, 120, (height, width, 3), dtype=np.uint8)
    t2 = rng.integers(60, 120, (height, width, 3), dtype=np.uint8)
    t2[60:100, 80:150] = 230  # across tile borders
    t1[10:20, 200:220] = 220
    t2[140:142, 185:188] = 240  # 6 px
    return t1, t2


def read(path: Path) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(path) as source:
            return source.read(1)
