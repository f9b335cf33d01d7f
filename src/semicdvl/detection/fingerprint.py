"""The ingredients of a detection, gathered once: what identifies a result, and what a run can be resumed from."""

from __future__ import annotations

import json
import platform
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, fields, is_dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import rasterio

from semicdvl.atomic_files import hash_file, hash_values
from semicdvl.detection.config import POSTPROCESSING_SETTINGS, DetectionConfig
from semicdvl.detection.output_folder import DETECTION_FORMAT
from semicdvl.raster.file_access import open_raster
from semicdvl.raster.io.georeference_warnings import ignore_not_georeferenced
from semicdvl.raster.io.inputs import ResolvedInput, is_local_name, network_access, resolve_input
from semicdvl.raster.io.open_dataset import list_files
from semicdvl.raster.io.open_pair import GRID_CHOICES
from semicdvl.raster.io.pair_reader import RasterPair
from semicdvl.raster.tiling import TILE_PLACEMENT
from semicdvl.types import Detector
from semicdvl.version import __version__

PERMISSIONS = ("overwrite", "allow_outside")
"""Settings that permit something and have no influence on a result."""
SETTINGS_SINCE_0_2 = {"alpha": "auto", "stretch": "auto", "collar": "auto"}
"""Settings of reading that version 0.1 did not have, with the values that leave most images as it read them."""


@dataclass(frozen=True)
class RunFingerprint:
    """Everything that a result depends on, as plain values.

    Attributes:
        inputs: "before" and "after": path, size and hash of the files of each image.
        grid: the same of the raster file that gives the grid; None where an image does.
        config: the settings of the run.
        detector: what identifies the detector, as it was built, before it has seen the pair.
        description: what the detector says of itself.
        versions: of what computes.
    """

    inputs: dict[str, dict[str, Any]]
    grid: dict[str, Any] | None
    config: DetectionConfig
    detector: dict[str, Any]
    description: dict[str, str]
    versions: dict[str, str]

    @cached_property
    def key(self) -> str:
        """Hash of all ingredients: equal keys mean equal results.

        An image at an address has no hash: only its name tells it from others.
        """
        parts = {
            "inputs": [self.inputs["before"], self.inputs["after"]],
            "settings": {name: value for name, value in asdict(self.config).items() if name not in PERMISSIONS},
            "grid": self.grid,
            "detector": [self.detector, self.description],
            "versions": self.versions,
        }
        return hash_values(DETECTION_FORMAT, json.loads(json.dumps(parts, default=str)))

    def list_resume_parts(self, pair: RasterPair, alignment: dict[str, Any]) -> dict[str, Any]:
        """Return what the score maps of the tiles depend on: a run is resumed only where all of it is the same."""
        grid, settings = pair.grid, asdict(self.config)
        if not any(reader.stretch or reader.notes or reader.collars for reader in (pair.before, pair.after)):
            # Without effect on such images, and unknown to runs that version 0.1 began.
            settings = dict(item for item in settings.items() if item not in SETTINGS_SINCE_0_2.items())
        crs, unused = None if grid.crs is None else grid.crs.to_wkt(), (*POSTPROCESSING_SETTINGS, *PERMISSIONS)
        return {
            "inputs": self.inputs,
            "grid": [crs, list(grid.transform)[:6], grid.height, grid.width],
            "settings": {name: value for name, value in settings.items() if name not in unused},
            "tiles": TILE_PLACEMENT,
            "alignment": {name: alignment[name] for name in ("moved_px", "offsets_px")},
            "detector": self.detector,
            "versions": self.versions,
        }


def fingerprint_run(
    pair: RasterPair | tuple[ResolvedInput, ResolvedInput], *, detector: Detector, config: DetectionConfig
) -> RunFingerprint:
    """Gather the ingredients of a run. An open pair is not opened again.

    Args:
        pair: the open pair, or the names of both images, so that a finished result is known before anything is read.
        detector: as it was built, before it has seen the pair.
        config: the settings of the run.

    Raises:
        rasterio.errors.RasterioError: an image cannot be opened.
        InputError: a file cannot be read.
    """
    if isinstance(pair, RasterPair):
        inputs = fingerprint_pair(pair)
    else:
        inputs = {date: fingerprint_input(name) for date, name in zip(("before", "after"), pair, strict=True)}
    return RunFingerprint(
        inputs=inputs,
        grid=None if config.grid in GRID_CHOICES else fingerprint_input(_resolve_grid(config)),
        config=config,
        detector=identify_detector(detector),
        description=describe_detector(detector),
        versions=list_versions() | {"torch": version("torch")},  # the same whether torch has been imported yet or not
    )


def _resolve_grid(config: DetectionConfig) -> ResolvedInput:
    """Return the raster file that gives the grid."""
    return resolve_input(config.grid, allow_outside=config.allow_outside)


def identify_detector(detector: Detector) -> dict[str, Any]:
    """Return what distinguishes a detector from others whose maps would differ, as plain values.

    Results and interrupted runs store it, so its keys and strings do not change between versions. A detector without an
    identity is identified by its name, its description and its plain dataclass fields.
    """
    kind = detector.stored_kind or f"{type(detector).__module__}.{type(detector).__qualname__}"
    if detector.identity is not None:
        return {"kind": kind, "identity": detector.identity}
    names: list[str] = [each.name for each in fields(detector)] if is_dataclass(detector) else []
    values = {name: getattr(detector, name) for name in names}
    plain = {name: value for name, value in values.items() if isinstance(value, str | int | float | None)}
    stored = {"name": detector.name, "planes": detector.map_count, "told": detector.description(), "own": plain}
    return {"kind": kind, **stored}


def describe_detector(detector: Detector) -> dict[str, str]:
    """Return what a detector says of itself, as label and text."""
    return detector.description() or {"Detector": detector.name}


def list_versions() -> dict[str, str]:
    """Return the versions of the libraries that compute a result."""
    found = {
        "semicdvl": __version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "rasterio": rasterio.__version__,
        "gdal": rasterio.__gdal_version__,
    }
    if "torch" in sys.modules:
        found["torch"] = str(sys.modules["torch"].__version__)
    return found


def fingerprint_pair(pair: RasterPair) -> dict[str, dict[str, Any]]:
    """Return the fingerprints of both images of an open pair, by "before" and "after".

    All files are read once to hash them, so compute it once a run and hand it on. No image is opened for it.
    """
    with ThreadPoolExecutor(2) as threads:
        before, after = threads.map(
            lambda reader: _fingerprint_files(reader.input, reader.files), (pair.before, pair.after)
        )
    return {"before": before, "after": after}


def fingerprint_input(resolved: ResolvedInput) -> dict[str, Any]:
    """Return path, size and hash of an image that is not open, and of the files that belong to it.

    A remote image has a path only, so two versions at one address cannot be told apart.

    Raises:
        rasterio.errors.RasterioError: the image cannot be opened.
    """
    paths: list[Path] = []
    with network_access(resolved), ignore_not_georeferenced():
        for name in resolved.gdal_names:
            local, outside = is_local_name(name), resolved.allow_outside
            with open_raster(name, display_name=name, local=local, allow_outside=outside) as dataset:
                paths += list_files(dataset, name)
    return _fingerprint_files(resolved, tuple(dict.fromkeys(paths)))


def _fingerprint_files(resolved: ResolvedInput, paths: Sequence[Path]) -> dict[str, Any]:
    """Return the fingerprint of an image of these files: its own, with those beside it, or a list where it is not one.

    A mosaic is of several files, and one page of a file, or one file of an archive, is not all of it.
    """
    if len(resolved.gdal_names) > 1 or not is_local_name(resolved.gdal_names[0]) or not paths:
        return {"path": resolved.lasting_name, "files": [_fingerprint_file(path) for path in paths]}
    sidecars = [_fingerprint_file(path) for path in paths[1:]]
    return _fingerprint_file(paths[0]) | ({"files": sidecars} if sidecars else {})


def _fingerprint_file(path: Path) -> dict[str, Any]:
    """Return what run.json stores of a file: its path, size and hash."""
    return {"path": str(path.absolute()), "bytes": path.stat().st_size, "sha256": hash_file(path)}
