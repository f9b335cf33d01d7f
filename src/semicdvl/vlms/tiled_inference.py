"""Large images for any VLM: overlapping tiles, scores blended without a seam, cut objects made whole again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from semicdvl.raster.tiling import WeightedMean, plan_even_tiles
from semicdvl.types import VLM, Segments
from semicdvl.vlms.instance_stitching import InstanceFragment, TileWindow, make_fragment, stitch_instances

SegmentTiles = Callable[[Sequence[NDArray[np.uint8]]], Sequence[Segments]]
"""Answers several images of one size at once."""

MAX_ASPECT_RATIO = 2
"""No tile is longer than this many times the image's short side: most VLMs squeeze what they see into a square."""


def segment_in_tiles(
    image_HWC: NDArray[np.uint8],
    prompts: Sequence[str],
    segment_tiles: SegmentTiles,
    *,
    tile_px: int,
    overlap_px: int,
    batch: int = 1,
) -> Segments:
    """Ask about an image tile by tile and put the answers together.

    Args:
        image_HWC: uint8 RGB of any size.
        prompts: the words; every answer must have one map for each.
        segment_tiles: answers tiles, each with maps of its tile's size; either all answers have instances or none.
        tile_px: longest side of a tile; an image within it is asked as it is.
        overlap_px: least overlap of neighbouring tiles. An object must be seen whole, or agree in the overlap, to
            become one again; about the size of what is looked for is a good choice.
        batch: tiles asked at once.

    Returns:
        Scores as the mean of all tiles that show a pixel, weighted by ramps that fall towards tile borders. Instances
        once each, as RLE of the image's size (see `pieces`).

    Raises:
        ConfigError: tile and overlap don't fit each other.
    """
    height, width = image_HWC.shape[:2]
    shape_hw = (height, width)
    side_px = min(tile_px, max(MAX_ASPECT_RATIO * min(shape_hw), overlap_px + 1))
    tiling = plan_even_tiles(height, width, tile_px=side_px, overlap_px=overlap_px)
    places = [tile.window for tile in tiling]
    if len(places) == 1:
        return segment_tiles([image_HWC])[0]
    mean = WeightedMean(tiling, map_count=len(prompts), ramp_px=max(overlap_px, 1))
    pieces: list[InstanceFragment] | None = []
    answers = _segment_batches(image_HWC, places, segment_tiles, batch)
    for number, (tile, answer) in enumerate(zip(tiling, answers, strict=True)):
        mean.add(tile, answer.scores_CHW)
        pieces = _add_fragments(pieces, answer, tile=number, window=tile.window, shape_hw=shape_hw)
    scores_CHW = mean.finish()
    instances = None if pieces is None else stitch_instances(pieces, windows=places, shape_hw=shape_hw)
    return Segments(np.clip(scores_CHW, 0.0, 1.0, out=scores_CHW), tuple(prompts), instances)


def _segment_batches(
    image_HWC: NDArray[np.uint8], places: Sequence[TileWindow], ask: SegmentTiles, batch: int
) -> Iterator[Segments]:
    """Yield the answer of every tile; all tiles of an image have one size, so any number can go together."""
    for at in range(0, len(places), batch):
        yield from ask([np.ascontiguousarray(image_HWC[place]) for place in places[at : at + batch]])


def _add_fragments(
    pieces: list[InstanceFragment] | None, answer: Segments, *, tile: int, window: TileWindow, shape_hw: tuple[int, int]
) -> list[InstanceFragment] | None:
    """Add a tile's finds; None once a tile answered without instances."""
    if pieces is None or answer.instances is None:
        return None
    found = (make_fragment(one, tile=tile, window=window, shape_hw=shape_hw) for one in answer.instances)
    return pieces + [piece for piece in found if piece is not None]


@dataclass(frozen=True)
class TiledVLM:
    """Any VLM, asked tile by tile where an image is large: for a VLM of your own that has no tiles itself.

    Attributes:
        vlm: the VLM that answers each tile.
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
        """The VLM's own."""
        return self.vlm.gamma

    def segment(self, image_HWC: NDArray[np.uint8], prompts: Sequence[str], *, gsd_m: float | None = None) -> Segments:
        """Return the answer for an image of any size."""
        return segment_in_tiles(
            image_HWC,
            prompts,
            lambda tiles: [self.vlm.segment(tile, prompts, gsd_m=gsd_m) for tile in tiles],
            tile_px=self.tile_px,
            overlap_px=self.overlap_px,
        )
