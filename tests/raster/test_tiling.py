import itertools

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import ndimage

from semicdvl.errors import ConfigError
from semicdvl.raster.tiling import (
    TILE_ALIGNMENT_PX,
    Tiling,
    WeightedMean,
    blend_tile_row,
    hann_ramp,
    pad_tile,
    plan_even_tiles,
    plan_tiles,
)


def run(image_HW: np.ndarray, detector, *, tile_px: int, overlap_px: int) -> np.ndarray:
    """Cut, detect, blend."""
    cut = plan_tiles(*image_HW.shape, tile_px=tile_px, overlap_px=overlap_px)
    tiles = (
        detector(pad_tile(image_HW[t.row : t.row + t.height, t.col : t.col + t.width], tile_hw=cut.tile_hw))
        for t in cut
    )
    return blend(cut, tiles, map_count=2)


def blend(cut: Tiling, tiles, *, map_count: int) -> np.ndarray:
    """Blend all rows of tiles in memory; check on the way that every pixel is finished once."""
    result = np.full((map_count, cut.height, cut.width), np.nan, np.float32)
    source, unfinished = iter(tiles), None
    for index in range(len(cut.rows)):
        below = {}
        above = None if unfinished is None else lambda col, width, rows=unfinished: rows[col]
        for block in blend_tile_row(cut, index, itertools.islice(source, len(cut.cols)), read_above=above):
            rows, cols = block.row + block.finished_rows, block.col + block.maps_PHW.shape[2]
            part = result[:, block.row : rows, block.col : cols]
            assert part.size and np.isnan(part).all()
            part[:], below[block.col] = (
                block.maps_PHW[:, : block.finished_rows],
                block.maps_PHW[:, block.finished_rows :],
            )
        unfinished = below
    assert not np.isnan(result).any()
    return result


def per_pixel(tile_HW: np.ndarray) -> np.ndarray:
    value = tile_HW.astype(np.float32) / 255
    return np.stack([value**1.7, 1 / (1 + np.exp(-value * 3))]).astype(np.float32)


def convolution(tile_HW: np.ndarray) -> np.ndarray:
    """Sees 12 px around each pixel, like a network; and, as strided networks do, 8 x 8 blocks of a fixed phase."""
    value = tile_HW.astype(np.float32) / 255
    smooth = ndimage.uniform_filter(value, 25, mode="constant")
    height, width = tile_HW.shape
    blocks = value.reshape(height // 8, 8, width // 8, 8).mean(axis=(1, 3)).repeat(8, 0).repeat(8, 1)
    return np.stack([smooth, blocks]).astype(np.float32)


@given(
    height=st.integers(1, 300), width=st.integers(1, 300), tile=st.sampled_from([32, 64, 96, 128]),
    share=st.sampled_from([0, 0.1, 0.3, 0.5]), seed=st.integers(0, 99),
)  # fmt: skip
@example(height=97, width=129, tile=96, share=0.5, seed=0)
@example(height=1, width=1, tile=32, share=0.5, seed=0)
@settings(max_examples=60, deadline=None)
def test_per_pixel_detector_gives_the_same_bytes_whatever_the_tile(height, width, tile, share, seed):
    image = np.random.default_rng(seed).integers(0, 256, (height, width), dtype=np.uint8)
    tiled = run(image, per_pixel, tile_px=tile, overlap_px=int(tile * share))
    assert tiled.tobytes() == per_pixel(image).tobytes()


@pytest.mark.parametrize("shape", [(300, 410), (256, 257), (130, 500)])
def test_convolutional_detector_agrees_with_one_tile(shape):
    image = np.random.default_rng(1).integers(0, 256, shape, dtype=np.uint8)
    one = run(image, convolution, tile_px=512, overlap_px=64)
    tiled = run(image, convolution, tile_px=128, overlap_px=64)
    inside = np.s_[:, 32:-32, 32:-32]
    assert np.abs(tiled - one)[inside].max() < 0.01
    assert np.abs(tiled - one)[1].max() < 1e-6, "blocks keep their phase"


def test_seams_without_overlap_are_visible():
    """The test above must be able to fail: without overlap the tiles' edges show."""
    image = np.random.default_rng(1).integers(0, 256, (300, 410), dtype=np.uint8)
    one = run(image, convolution, tile_px=512, overlap_px=0)
    tiled = run(image, convolution, tile_px=128, overlap_px=0)
    assert np.abs(tiled - one)[:, 32:-32, 32:-32].max() > 0.1


def test_blend_moves_from_one_tile_to_the_next():
    cut = plan_tiles(64, 160, tile_px=96, overlap_px=32)
    assert cut.cols == (0, 64) and cut.rows == (0,)
    tiles = (np.full((1, *cut.tile_hw), value, np.float32) for value in (0.0, 1.0))
    row = blend(cut, tiles, map_count=1)[0, 7]
    assert (row[:64] == 0).all() and (row[96:] == 1).all()
    assert row[64:96] == pytest.approx(hann_ramp(32)) and (np.diff(row[64:96]) > 0).all()


@given(length=st.integers(1, 5000), tile=st.integers(1, 40), overlap=st.integers(0, 20))
@settings(max_examples=100, deadline=None)
def test_tiles_cover_everything_aligned(length, tile, overlap):
    tile_px, overlap_px = tile * TILE_ALIGNMENT_PX, min(overlap, tile // 2) * TILE_ALIGNMENT_PX
    cut = plan_tiles(length, 7, tile_px=tile_px, overlap_px=overlap_px)
    ends = [row + cut.tile_hw[0] for row in cut.rows]
    assert cut.rows[0] == 0 and length <= ends[-1] < length + TILE_ALIGNMENT_PX
    assert all(row % TILE_ALIGNMENT_PX == 0 for row in cut.rows)
    assert all(end - row >= cut.overlap_px for end, row in zip(ends, cut.rows[1:], strict=False))
    assert len(cut) == len(list(cut)) == len(cut.rows)


@pytest.mark.parametrize(
    ("length", "starts", "size"),
    [(2048, (0, 960), 1088), (1024, (0,), 1024), (1152, (0,), 1152), (1153, (0, 512), 672), (10, (0,), 32)],
)
def test_tiles_are_even_and_as_few_as_their_size_allows(length, starts, size):
    cut = plan_tiles(length, length, tile_px=1024, overlap_px=128)
    assert (cut.rows, cut.cols, cut.tile_hw) == (starts, starts, (size, size))


def test_pad_reflects():
    image = np.arange(6, dtype=np.uint8).reshape(2, 3)
    assert pad_tile(image, tile_hw=(3, 5)).tolist() == [[0, 1, 2, 1, 0], [3, 4, 5, 4, 3], [0, 1, 2, 1, 0]]
    assert pad_tile(image[..., None], tile_hw=(2, 3)).shape == (2, 3, 1)


@pytest.mark.parametrize(("tile_px", "overlap_px"), [(0, 0), (64, 33), (64, -1)])
def test_impossible_tiles_are_refused(tile_px, overlap_px):
    with pytest.raises(ConfigError, match="overlap"):
        plan_tiles(100, 100, tile_px=tile_px, overlap_px=overlap_px)


# ------------------------------------------------------------------------------------------------ evenly spread tiles
@given(
    height=st.integers(1, 500), width=st.integers(1, 400), tile_px=st.integers(48, 200), overlap_px=st.integers(1, 40)
)
@settings(max_examples=100, deadline=None)
def test_even_tiles_cover_the_image_with_the_overlap_and_no_more(height, width, tile_px, overlap_px):
    tiling = plan_even_tiles(height, width, tile_px=tile_px, overlap_px=overlap_px)
    covered = np.zeros((height, width), int)
    for tile in tiling:
        assert (tile.height, tile.width) == tiling.tile_hw and max(tiling.tile_hw) <= max(tile_px, 0)
        covered[tile.window] += 1
    assert covered.min() == 1
    ends = [col + tiling.tile_hw[1] for col in tiling.cols]
    assert all(end - col >= overlap_px - 1 for end, col in zip(ends, tiling.cols[1:], strict=False))
    assert len(tiling.cols) * tiling.tile_hw[1] < width + len(tiling.cols) * (overlap_px + 1)


def test_even_tiles_of_known_sizes():
    tiling = plan_even_tiles(100, 250, tile_px=120, overlap_px=20)
    assert tiling.tile_hw == (100, 97) and tiling.rows == (0,) and tiling.cols == (0, 76, 153)


def test_weighted_mean_of_equal_maps_is_that_map_and_of_two_falls_linearly():
    tiling = plan_even_tiles(5, 20, tile_px=12, overlap_px=4)
    assert tiling.cols == (0, 8) and tiling.tile_hw == (5, 12)
    ramp = np.arange(5, 20, 3, dtype=np.float32)[:, None] + np.arange(20, dtype=np.float32)
    same, two = (WeightedMean(tiling, map_count=1, ramp_px=4) for _ in range(2))
    for value, tile in enumerate(tiling):
        same.add(tile, ramp[None][(slice(None), *tile.window)])
        two.add(tile, np.full((1, tile.height, tile.width), value, np.float32))
    assert same.finish()[0] == pytest.approx(ramp)
    row = two.finish()[0, 2]
    assert (row[:8] == 0).all() and (row[12:] == 1).all()
    assert row[8:12] == pytest.approx([0.125, 0.375, 0.625, 0.875])


@pytest.mark.parametrize(("tile_px", "overlap_px"), [(64, 64), (64, -1)])
def test_impossible_even_tiles_are_refused(tile_px, overlap_px):
    with pytest.raises(ConfigError, match="smaller than the tile"):
        plan_even_tiles(100, 100, tile_px=tile_px, overlap_px=overlap_px)
