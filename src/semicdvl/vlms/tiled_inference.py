"""Tiled inference for any VLM: overlapping tiles, blended scores, instances stitched across tile borders."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from semicdvl.raster.tiling import WeightedMean, plan_even_tiles
from semicdvl.types import VLM, Segments
from semicdvl.vlms.instance_stitching import InstanceFragment, TileWindow, make_fragment, stitch_instances

SegmentTiles = Callable[[Sequence[NDArray[np.uint8]]], Sequence[Segments]]
"""Segments several images of one size at once."""

MAX_ASPECT_RATIO = 2
"""No tile is longer than this many times the image's short side, where that is at least twice the overlap, without
which there would be a tile for every few pixels: most VLMs resize their input to a square."""


def segment_in_tiles(
    image_HWC: NDArray[np.uint8],
    prompts: Sequence[str],
    segment_tiles: SegmentTiles,
    *,
    tile_px: int,
    overlap_px: int,
    batch: int = 1,
) -> Segments:
    """Segment an image tile by tile and merge the results.

    Args:
        image_HWC: uint8 RGB of any size.
        prompts: the words; every result must have one map for each.
        segment_tiles: segments tiles, with maps of their size; either all results have instances or none.
        tile_px: longest side of a tile; a smaller image is segmented as a whole.
        overlap_px: least overlap of neighbouring tiles. An object must be whole in a tile, or agree in the overlap, to
            become one instance; about the size of the objects is a good choice.
        batch: tiles segmented at once.

    Returns:
        Scores as the mean of all tiles that show a pixel, weighted by ramps that fall towards tile borders. Instances
        once each, as RLE of the image's size (see `instance_stitching`).

    Raises:
        ConfigError: the overlap is not below the side of a tile.
    """
    height, width = image_HWC.shape[:2]
    shape_hw = (height, width)
    side_px = min(tile_px, max(MAX_ASPECT_RATIO * min(shape_hw), 2 * overlap_px))
    tiling = plan_even_tiles(height, width, tile_px=side_px, overlap_px=overlap_px)
    windows = [tile.window for tile in tiling]
    if len(windows) == 1:
        return segment_tiles([image_HWC])[0]
    mean = WeightedMean(tiling, map_count=len(prompts), ramp_px=max(overlap_px, 1))
    fragments: list[InstanceFragment] | None = []
    results = _segment_batches(image_HWC, windows, segment_tiles, batch)
    for number, (tile, segments) in enumerate(zip(tiling, results, strict=True)):
        mean.add(tile, segments.scores_CHW)
        fragments = _add_fragments(fragments, segments, tile=number, window=tile.window, shape_hw=shape_hw)
    scores_CHW = mean.finish()
    instances = None if fragments is None else stitch_instances(fragments, windows=windows, shape_hw=shape_hw)
    return Segments(np.clip(scores_CHW, 0.0, 1.0, out=scores_CHW), tuple(prompts), instances)


def _segment_batches(
    image_HWC: NDArray[np.uint8], windows: Sequence[TileWindow], segment_tiles: SegmentTiles, batch: int
) -> Iterator[Segments]:
    """Yield the result of every tile; all tiles of an image have one size, so any number can be segmented together."""
    for at in range(0, len(windows), batch):
        yield from segment_tiles([np.ascontiguousarray(image_HWC[window]) for window in windows[at : at + batch]])


def _add_fragments(
    fragments: list[InstanceFragment] | None,
    segments: Segments,
    *,
    tile: int,
    window: TileWindow,
    shape_hw: tuple[int, int],
) -> list[InstanceFragment] | None:
    """Add a tile's instances; None once a tile has none to give."""
    if fragments is None or segments.instances is None:
        return None
    found = (make_fragment(one, tile=tile, window=window, shape_hw=shape_hw) for one in segments.instances)
    return fragments + [fragment for fragment in found if fragment is not None]


@dataclass(frozen=True)
class TiledVLM:
    """Run any VLM tile by tile on large images: for a VLM of your own that has no tiled inference itself.

    Attributes:
        vlm: the VLM that segments each tile.
        tile_px: longest side of a tile.
        overlap_px: least overlap of neighbouring tiles.
    """

    vlm: VLM
    tile_px: int = 1024
    overlap_px: int = 128

    @property
    def identity(self) -> str:
        """Identity of the VLM and of the tiling."""
        return f"{self.vlm.identity}-tiles{self.tile_px}+{self.overlap_px}"

    @property
    def gamma(self) -> float:
        """Score from which predictions are reliable: the VLM's own."""
        return self.vlm.gamma

    def segment(self, image_HWC: NDArray[np.uint8], prompts: Sequence[str], *, gsd_m: float | None = None) -> Segments:
        """Segment an image of any size."""
        return segment_in_tiles(
            image_HWC,
            prompts,
            lambda tiles: [self.vlm.segment(tile, prompts, gsd_m=gsd_m) for tile in tiles],
            tile_px=self.tile_px,
            overlap_px=self.overlap_px,
        )
