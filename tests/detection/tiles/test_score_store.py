"""Maps of a whole raster in files: what is written tile by tile is read strip by strip."""

import json
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semicdvl.detection.tiles.score_store import ScoreStore
from semicdvl.raster.tiling import Tiling, blend_tile_row, plan_tiles


def filled(
    folder: Path, cut: Tiling, scores_PHW: np.ndarray, valid_HW: np.ndarray, *, strip_bytes: int = 1
) -> ScoreStore:
    """Write maps that every tile agrees on."""
    store = ScoreStore(folder, cut, map_count=len(scores_PHW), strip_bytes=strip_bytes)
    for index in range(store.count_finished_rows(), len(cut.rows)):
        write_row(store, index, scores_PHW, valid_HW)
    return store


def write_row(store: ScoreStore, index: int, scores_PHW: np.ndarray, valid_HW: np.ndarray) -> None:
    cut, tiles, valid = store.tiling, [], []
    for at, tile in enumerate(cut.tiles_in_row(index)):
        maps = np.zeros((store.map_count, *cut.tile_hw), np.float32)
        rows, cols = slice(tile.row, tile.row + tile.height), slice(tile.col, tile.col + tile.width)
        maps[:, : tile.height, : tile.width] = scores_PHW[:, rows, cols]
        tiles.append(maps)
        valid.append(valid_HW[rows, tile.col : tile.col + cut.finished_cols(at)])
    with store.open_row_above(index) as above:
        store.write_row(index, zip(blend_tile_row(cut, index, tiles, read_above=above), valid, strict=True))


def a_raster(seed: int, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    valid = rng.random((height, width)) < 0.9
    valid[:, : width // 3] = False
    return rng.random((3, height, width)).astype(np.float32), valid


@given(
    seed=st.integers(0, 99), height=st.integers(1, 200), width=st.integers(1, 220),
    strip_bytes=st.sampled_from([1, 30_000, 10**8]),
)  # fmt: skip
@settings(max_examples=25, deadline=None)
def test_strips_give_what_tiles_wrote(tmp_path_factory, seed, height, width, strip_bytes):
    planes, valid = a_raster(seed, height, width)
    cut = plan_tiles(height, width, tile_px=96, overlap_px=32)
    store = filled(tmp_path_factory.mktemp("store"), cut, planes, valid, strip_bytes=strip_bytes)
    for _ in range(2):  # as often as one likes
        row = 0
        for strip in store:
            assert strip.row == row and row % 2 == 0
            part = slice(row, row + len(strip.valid_HW))
            assert (strip.valid_HW == valid[part]).all()
            seen = valid[part]
            assert (strip.scores_PHW[:, seen] == planes[:, part][:, seen]).all()
            assert (
                strip.scores_PHW.nbytes <= max(strip_bytes, 2 * 4 * 3 * width) and np.isfinite(strip.scores_PHW).all()
            )
            row = part.stop
        assert row == height
    assert store.count_valid_px() == valid.sum()


def test_ground_without_data_takes_no_room(tmp_path):
    planes, valid = np.ones((2, 192, 4096), np.float32), np.zeros((192, 4096), bool)
    valid[:, :50] = True
    store = filled(tmp_path, plan_tiles(192, 4096, tile_px=192, overlap_px=32), planes, valid)
    stat = (tmp_path / "00000.planes").stat()
    assert stat.st_size == planes.nbytes and stat.st_blocks * 512 < planes.nbytes / 4
    assert all((strip.scores_PHW[:, :, :50] == 1).all() for strip in store)


def test_goes_on_from_the_rows_that_are_whole(tmp_path):
    planes, valid = a_raster(0, 300, 150)
    cut = plan_tiles(300, 150, tile_px=96, overlap_px=32)
    filled(tmp_path / "one", cut, planes, valid) if (tmp_path / "one").mkdir() is None else None
    whole = {path.name: path.read_bytes() for path in (tmp_path / "one").iterdir()}
    assert ScoreStore(tmp_path / "one", cut, map_count=3).count_finished_rows() == len(cut.rows) == 5
    for name, damage in (("00002.json", None), ("00001.planes", 7), ("00003.valid", 0)):
        path = tmp_path / "one" / name
        path.unlink() if damage is None else path.write_bytes(path.read_bytes()[:-damage] + b"x" if damage else b"")
        store = ScoreStore(tmp_path / "one", cut, map_count=3)
        assert store.count_finished_rows() == int(name[:5])
        filled(tmp_path / "one", cut, planes, valid)
        assert {path.name: path.read_bytes() for path in (tmp_path / "one").iterdir()} == whole


def test_full_disk_is_an_error_and_the_row_is_not_finished(tmp_path, monkeypatch):
    planes, valid = a_raster(0, 100, 90)
    store = ScoreStore(tmp_path, plan_tiles(100, 90, tile_px=64, overlap_px=32), map_count=3)
    monkeypatch.setattr(np, "packbits", lambda *_, **__: (_ for _ in ()).throw(OSError(28, "No space left")))
    with pytest.raises(OSError, match="No space"):
        write_row(store, 0, planes, valid)
    assert store.count_finished_rows() == 0


# ------------------------------------------------------------------------------------------------ of somebody else
def forge(store: ScoreStore, folder: Path, change: dict[str, bytes], **record: object) -> None:
    """Replace files of the first row of tiles, with checksums that are right."""
    for kind, content in change.items():
        (folder / f"00000.{kind}").write_bytes(content)
    told = json.loads((folder / "00000.json").read_text())
    told |= {f"{kind}_crc32": zlib.crc32(content) for kind, content in change.items()} | record
    (folder / "00000.json").write_text(json.dumps(told))


MASK = {"size": [2, 2], "counts": [0, 4]}


@pytest.mark.parametrize(
    ("change", "record"),
    [
        ({"planes": b""}, {}),
        ({"planes": bytes(8)}, {}),
        ({"valid": b"\xff"}, {}),
        ({"objects": b"{}"}, {}),
        ({"objects": b"[" * 5_000}, {}),
        ({"objects": b"[1, 2]"}, {}),
        ({"objects": b"[[[0, 0, 0, 7, 0, 0.5]], null]"}, {}),
        ({"objects": json.dumps([[[0, 0, 0, MASK | {"counts": [9]}, 0, 0.5]], None]).encode()}, {}),
        ({"objects": json.dumps([[[2, 0, 0, MASK, 0, 0.5]], None]).encode()}, {}),
        ({"features": bytes(8)}, {"features": [[0, 9, 9, 9], None]}),
        ({"features": bytes(8)}, {"features": [[0, 1, 1, 1]]}),
        ({"features": bytes(8)}, {"features": [[-8, 1, 1, 1], None]}),
    ],
)
def test_a_row_with_right_checksums_and_wrong_content_is_computed_again(
    change: dict[str, bytes], record: dict[str, object], tmp_path: Path
) -> None:
    cut = plan_tiles(96, 150, tile_px=96, overlap_px=32)
    assert (len(cut.rows), len(cut.cols)) == (1, 2)
    store = filled(tmp_path, cut, *a_raster(0, 96, 150))
    forge(store, tmp_path, {"objects": json.dumps([[[0, 0, 0, MASK, 0, 0.5]], None]).encode()})
    assert store.count_finished_rows() == 1
    forge(store, tmp_path, change, **record)
    assert store.count_finished_rows() == 0
