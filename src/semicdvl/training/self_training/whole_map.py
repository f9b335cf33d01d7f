"""The map of a whole pair, from which its patches take their labels of change at the residual level.

A patch shows less than the pair: the residual rule compares events with all unchanged ground, and a hall that fills a
patch has none around it. So at this level the pair is mapped once, as `semicdvl detect` maps it without labels.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.windows import Window
from rich.console import Console

from semicdvl.ceg.config import CEGSettings
from semicdvl.ceg.prompts import Prompts
from semicdvl.detection.detectors.vlm_ceg import build_default_detector
from semicdvl.detection.pipeline import write_detection
from semicdvl.raster.io.inputs import ImageInput
from semicdvl.training.self_training.config import AdaptConfig
from semicdvl.types import VLM

CHANGE_FILE = "change.tif"


def map_whole_pair(
    before: ImageInput,
    after: ImageInput,
    folder: Path,
    *,
    vlm: VLM,
    prompts: Prompts,
    ceg: CEGSettings,
    config: AdaptConfig,
    console: Console,
) -> Path:
    """Write the map without labels to a folder, unless it is there, and return the file of the change map.

    Args:
        before: date 1.
        after: date 2.
        folder: of this map; other words or settings have another one.
        vlm: the vision-language model.
        prompts: what it looks for.
        ceg: settings of the residual level.
        config: how the pair is read.
        console: where progress is shown.

    Raises:
        SemicdvlError: see `write_detection`.
    """
    path = folder / CHANGE_FILE
    if not path.is_file():
        detector = build_default_detector(vlm, prompts=prompts, settings=ceg)
        detection = replace(config.detection, min_area_m2=0.0)
        write_detection(before, after, folder, detector=detector, config=detection, progress=console)
    return path


def read_patch_change(path: Path, name: str, shape_hw: tuple[int, int]) -> NDArray[np.uint8]:
    """Return the part of the map that a patch shows: 1 changed, 0 unchanged, 255 without data.

    Args:
        path: the change map.
        name: of the patch, which tells its first row and column.
        shape_hw: height and width of the patch.
    """
    row, col = (int(part[1:]) for part in name.split("_"))
    with rasterio.open(path) as source:
        change_HW: NDArray[np.uint8] = source.read(1, window=Window(col, row, shape_hw[1], shape_hw[0]))
    return change_HW
