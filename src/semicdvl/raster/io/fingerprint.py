"""Identify the images of a pair by their files: path, size and hash, masks and parts of a mosaic included."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import rasterio

from semicdvl.atomic_files import hash_file
from semicdvl.raster.io.georeference_warnings import ignore_not_georeferenced
from semicdvl.raster.io.inputs import ResolvedInput, network_timeouts
from semicdvl.raster.io.open_dataset import list_files
from semicdvl.raster.io.pair_reader import RasterPair


def fingerprint_pair(pair: RasterPair) -> dict[str, dict[str, Any]]:
    """Return the fingerprints of both images of an open pair, by "before" and "after".

    All files are read once to hash them, so compute it once a run and hand it on. No image is opened for it.
    """
    return {
        name: _fingerprint_files(reader.input, reader.files)
        for name, reader in (("before", pair.before), ("after", pair.after))
    }


def fingerprint_input(resolved: ResolvedInput) -> dict[str, Any]:
    """Return path, size and hash of an image that is not open, and of the files that belong to it.

    A remote image has a path only, so two versions at one address cannot be told apart.

    Raises:
        rasterio.errors.RasterioError: the image cannot be opened.
    """
    paths: list[Path] = []
    with network_timeouts(resolved), ignore_not_georeferenced():
        for name in resolved.gdal_names:
            with rasterio.open(name) as dataset:
                paths += list_files(dataset, name)
    return _fingerprint_files(resolved, tuple(dict.fromkeys(paths)))


def _fingerprint_files(resolved: ResolvedInput, paths: Sequence[Path]) -> dict[str, Any]:
    if len(resolved.gdal_names) > 1 or not paths:
        return {"path": resolved.display_name, "files": [_fingerprint_file(path) for path in paths]}
    sidecars = [_fingerprint_file(path) for path in paths[1:]]
    return _fingerprint_file(paths[0]) | ({"files": sidecars} if sidecars else {})


def _fingerprint_file(path: Path) -> dict[str, Any]:
    return {"path": str(path.absolute()), "bytes": path.stat().st_size, "sha256": hash_file(path)}
