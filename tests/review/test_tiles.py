"""Tiles show the pixels of the files, both dates with one stretch, on the grid of the map."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image
from tests.support.review_scene import HEIGHT, SIDE, SQUARES, WIDTH, make_images, open_client, write_result
from tests.support.synthetic_rasters import UTM, at

from semicdvl.raster.grid import Grid
from semicdvl.raster.io.cog import BandDescription, create_cog
from semicdvl.review.images import Handle, open_result_raster
from semicdvl.review.tiles import _render_map, count_levels, find_window


def read(client, layer: str, level: int, row: int, col: int) -> np.ndarray:
    answer = client.get(f"/api/pairs/out/tiles/{layer}/{level}/{row}/{col}")
    assert answer.status_code == 200, answer.text
    return np.array(Image.open(io.BytesIO(answer.content)))


def test_a_full_tile_shows_the_pixels_of_the_file(client) -> None:
    tile_HWC = read(client, "before", 0, 0, 0).astype(int)
    expected = make_images()[0][:, :256, :256].transpose(1, 2, 0)
    assert np.abs(tile_HWC[..., :3] - expected).mean() < 4  # JPEG


def test_a_tile_at_the_edge_is_transparent_beyond_it(client) -> None:
    tile_HWC = read(client, "after", 0, 1, 1)
    height, width = HEIGHT - 256, WIDTH - 256
    assert tile_HWC.shape == (256, 256, 4)
    assert (tile_HWC[:height, :width, 3] == 255).all() and not tile_HWC[height:, :, 3].any()
    assert not tile_HWC[:, width:, 3].any()
    assert (tile_HWC[:height, :width, :3] == make_images()[1][:, 256:, 256:].transpose(1, 2, 0)).all()


def test_the_last_level_shows_everything_in_one_tile(client) -> None:
    assert client.get("/api/pairs/out").json()["levels"] == 2
    tile_HWC = read(client, "after", 1, 0, 0)
    assert (tile_HWC[..., 3] > 0).sum() == -(-HEIGHT // 2) * -(-WIDTH // 2)
    row, col = SQUARES[5]
    inside = tile_HWC[row // 2 + 1 : (row + SIDE) // 2 - 1, col // 2 + 1 : (col + SIDE) // 2 - 1, :3]
    assert (inside == 240).all()


def test_the_change_map_is_drawn_where_it_changed(client) -> None:
    tile_HWC = read(client, "change", 0, 0, 0)
    drawn = tile_HWC[..., 3] > 0
    expected = np.zeros((256, 256), bool)
    for row, col in SQUARES:
        expected[row : row + SIDE, col : col + SIDE] = True
    assert (drawn == expected).all()
    small = read(client, "change", 1, 0, 0)[..., 3]
    assert small[SQUARES[0][0] // 2, SQUARES[0][1] // 2] > 200


def test_a_small_object_fades_in_larger_pixels_and_does_not_vanish(tmp_path) -> None:
    """The overviews of change.tif hold what most of their pixels are, and GDAL rounds a mean of bytes."""
    change_HW = np.zeros((1100, 900), np.uint8)
    change_HW[:64], change_HW[100:106, 200:206], change_HW[700:708, 320:328], change_HW[1098, 899] = 255, 1, 1, 1
    grid = Grid(UTM, at(500_000, 4_000_000), *change_HW.shape)
    with create_cog(tmp_path / "change.tif", grid=grid, band=BandDescription("uint8", 255)) as written:
        written.write_rows(0, change_HW)
    handle = Handle(None, None, {"change": open_result_raster(tmp_path / "change.tif")})
    for level in range(count_levels(grid)):
        side = 256 * 2**level
        tiles = [
            _render_map(handle, "change", find_window(grid, level, row, col))
            for row in range(-(-1100 // side)) for col in range(-(-900 // side))
        ]  # fmt: skip
        drawn = sum(np.array(Image.open(io.BytesIO(tile.content)))[..., 3] > 0 for tile in tiles)
        blocks = {(row >> level, col >> level) for row, col in np.argwhere(change_HW == 1)}
        assert drawn.sum() == len(blocks)
    assert level == 3
    alpha_HW = np.array(Image.open(io.BytesIO(tiles[0].content)))[..., 3]
    assert alpha_HW[700 // 8 + 1, 320 // 8] > alpha_HW[100 // 8, 200 // 8] > alpha_HW[1098 // 8, 899 // 8] > 0


def test_the_score_is_seen_most_where_it_is_high(client) -> None:
    score = read(client, "score", 0, 0, 0)[..., 3]
    row, col = SQUARES[0]
    assert score[row + 5, col + 5] > score[5, 5]


@pytest.mark.parametrize("place", ["9/0/0", "0/9/0", "0/0/9", "2/0/0", "0/16777215/16777215"])
def test_there_is_no_tile_outside(client, place) -> None:
    assert client.get(f"/api/pairs/out/tiles/before/{place}").status_code == 404


@pytest.mark.parametrize(
    "path", ["tiles/nir/0/0/0", "tiles/before/0/-1/0", "tiles/before/0/x/0", "tiles/before/99/0/0"]
)
def test_a_tile_that_cannot_be_is_refused(client, path) -> None:
    assert client.get(f"/api/pairs/out/{path}").status_code == 422


def test_an_unknown_pair_is_not_found(client) -> None:
    assert client.get("/api/pairs/other/tiles/before/0/0/0").status_code == 404
    assert client.get("/api/pairs/other").json() == {"detail": "There is no such pair."}


def test_both_dates_of_16_bits_have_one_stretch(tmp_path) -> None:
    with open_client(write_result(tmp_path, dtype="uint16")) as client:
        before, after = (read(client, date, 0, 1, 1) for date in ("before", "after"))
    unchanged = np.ones(before.shape[:2], bool)
    for row, col in SQUARES:
        if row + SIDE > 256 and col + SIDE > 256:
            unchanged[max(0, row - 256) : row + SIDE - 256, max(0, col - 256) : col + SIDE - 256] = False
    assert (before[unchanged] == after[unchanged]).all()
    assert before[..., :3][before[..., 3] > 0].std() > 20  # and not a dark picture


def test_a_pair_of_png_is_shown_in_pixels(tmp_path) -> None:
    with open_client(write_result(tmp_path, kind="png")) as client:
        info = client.get("/api/pairs/out").json()
        assert info["crs"] is None and info["area_unit"] == "px" and info["transform"] == [1, 0, 0, 0, 1, 0]
        tile_HWC = read(client, "after", 0, 1, 1)
        changes = client.get("/api/pairs/out/changes").json()["changes"]
    assert (tile_HWC[: HEIGHT - 256, : WIDTH - 256, :3] == make_images()[1][:, 256:, 256:].transpose(1, 2, 0)).all()
    assert {tuple(min(one["geometry"]["coordinates"][0][0])) for one in changes} == {(col, row) for row, col in SQUARES}


def test_many_requests_at_once_are_answered_alike(client) -> None:
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda at: client.get(f"/api/pairs/out/tiles/after/0/0/{at % 2}").content, range(24)))
    assert len(set(answers)) == 2
    assert set(answers[::2]) == {answers[0]}


def test_a_thumbnail_shows_the_whole(client) -> None:
    answer = client.get("/api/pairs/out/thumbnails/after")
    assert answer.headers["content-type"] == "image/jpeg"
    assert Image.open(io.BytesIO(answer.content)).size == (192, round(192 * HEIGHT / WIDTH))
