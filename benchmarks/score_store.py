"""Compare the store of score maps with zarr: time and peak memory to write a raster by tiles and read it by strips.

    python benchmarks/score_store.py [--size-px 4096] [--maps 6]

Every row of the table is a process of its own. Needs zarr 3, which this package does not use otherwise.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from semicdvl.detection.run_record import measure_peak_memory_mib
from semicdvl.detection.tiles.score_store import STRIP_BYTES, ScoreStore
from semicdvl.raster.tiling import BlendedTile, Tiling, blend_tile_row, plan_tiles

TILE_PX, OVERLAP_PX = 1024, 128
KINDS = ("own", "zarr", "zarr, zstd")
CHUNK_ROWS = 128
"""Rows of a chunk of zarr: strips of about `STRIP_BYTES` read whole chunks then."""


def make_tiles(tiling: Tiling, index: int, maps: int) -> Iterator[NDArray[np.float32]]:
    """Yield score maps of one row of tiles."""
    rng = np.random.default_rng(index)
    for _ in tiling.cols:
        yield rng.random((maps, *tiling.tile_hw), np.float32)


def run_own(folder: Path, tiling: Tiling, maps: int) -> tuple[float, float]:
    """Write and read with `ScoreStore`; return both durations in seconds."""
    store, start = ScoreStore(folder, tiling, map_count=maps), time.perf_counter()
    for index in range(len(tiling.rows)):
        with store.open_row_above(index) as above:
            blocks = blend_tile_row(tiling, index, make_tiles(tiling, index, maps), read_above=above)
            store.write_row(index, ((block, np.ones(block.maps_PHW.shape[1:], bool)) for block in blocks))
    written = time.perf_counter()
    for strip in store:
        assert strip.scores_PHW.shape[0] == maps
    return written - start, time.perf_counter() - written


def run_zarr(folder: Path, tiling: Tiling, maps: int, *, compressed: bool) -> tuple[float, float]:
    """Write and read with zarr arrays of the scores and the mask; return both durations in seconds."""
    import zarr

    chunk_cols, codec = TILE_PX - OVERLAP_PX, "auto" if compressed else None
    shape_hw = tiling.height, tiling.width
    scores = zarr.create_array(
        folder / "s", shape=(maps, *shape_hw), chunks=(maps, CHUNK_ROWS, chunk_cols), dtype="f4", compressors=codec
    )
    valid = zarr.create_array(
        folder / "v", shape=shape_hw, chunks=(CHUNK_ROWS, chunk_cols), dtype="bool", compressors=codec
    )
    start = time.perf_counter()
    for index, row in enumerate(tiling.rows):

        def read_above(col: int, width: int, row: int = row) -> NDArray[np.float32]:
            return np.asarray(scores[:, row : row + OVERLAP_PX, col : col + width], np.float32)

        above = read_above if index else None
        for block in blend_tile_row(tiling, index, make_tiles(tiling, index, maps), read_above=above):
            write_block(scores, valid, block)
    written = time.perf_counter()
    rows = max(1, STRIP_BYTES // (4 * maps * tiling.width))
    for first in range(0, tiling.height, rows):
        assert scores[:, first : first + rows].shape[0] == maps and valid[first : first + rows].ndim == 2
    return written - start, time.perf_counter() - written


def write_block(scores: object, valid: object, block: BlendedTile) -> None:
    """Write a blended tile into arrays of zarr."""
    height, width = block.maps_PHW.shape[1:]
    rows, cols = slice(block.row, block.row + height), slice(block.col, block.col + width)
    scores[:, rows, cols] = block.maps_PHW  # type: ignore[index]
    valid[rows, cols] = True  # type: ignore[index]


def measure(kind: str, size_px: int, maps: int) -> dict[str, float]:
    """Run one row of the table in this process."""
    tiling = plan_tiles(size_px, size_px, tile_px=TILE_PX, overlap_px=OVERLAP_PX)
    with tempfile.TemporaryDirectory() as folder:
        run = run_own if kind == "own" else run_zarr
        options = {} if kind == "own" else {"compressed": kind.endswith("zstd")}
        write_s, read_s = run(Path(folder), tiling, maps, **options)  # type: ignore[operator]
    return {"write_s": write_s, "read_s": read_s, "peak_mib": measure_peak_memory_mib()}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size-px", type=int, default=4096)
    parser.add_argument("--maps", type=int, default=6)
    parser.add_argument("--kind", choices=KINDS)
    given = parser.parse_args()
    if given.kind is not None:
        print(json.dumps(measure(given.kind, given.size_px, given.maps)))
        return
    print("| store | write s | read s | peak MiB |\n|---|---|---|---|")
    for kind in KINDS:
        command = [sys.executable, __file__, "--kind", kind, "--size-px", given.size_px, "--maps", given.maps]
        found = json.loads(subprocess.run([*map(str, command)], check=True, capture_output=True, text=True).stdout)
        print(f"| {kind} | {found['write_s']:.1f} | {found['read_s']:.1f} | {found['peak_mib']} |")


if __name__ == "__main__":
    main()
