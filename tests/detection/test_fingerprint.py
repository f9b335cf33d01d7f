"""The files of a pair, identified by path, size and hash."""

import hashlib
from pathlib import Path

import rasterio
from tests.support.range_server import served
from tests.support.synthetic_rasters import MOSAIC_CHW, at, png, tif, write_tiles

from semicdvl.detection.fingerprint import fingerprint_input, fingerprint_pair
from semicdvl.raster.io.inputs import resolve_input
from semicdvl.raster.io.open_pair import open_pair


def entry(path: Path) -> dict[str, object]:
    content = path.read_bytes()
    return {"path": str(path), "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def test_a_file_and_a_mosaic(tmp_path):
    one, tiles = tif(tmp_path / "one.tif", MOSAIC_CHW, at(100, 200)), write_tiles(tmp_path / "tiles")
    with open_pair(one, tiles) as pair:
        prints = fingerprint_pair(pair)
    assert prints["before"] == entry(one)
    assert prints["after"] == {"path": ",".join(map(str, tiles)), "files": [entry(tile) for tile in tiles]}
    assert prints["after"] == fingerprint_input(resolve_input(tiles))


def test_masks_and_overviews_beside_a_file_belong_to_it(tmp_path):
    plain = png(tmp_path / "a.png", MOSAIC_CHW)
    sidecar = plain.with_name("a.png.aux.xml")
    sidecar.write_text("<PAMDataset><Metadata><MDI key='DATE'>2020</MDI></Metadata></PAMDataset>")
    with open_pair(plain, plain) as pair:
        assert fingerprint_pair(pair)["before"] == {**entry(plain), "files": [entry(sidecar)]}


def test_a_remote_image_has_its_name_only(tmp_path):
    one = tif(tmp_path / "one.tif", MOSAIC_CHW, at(100, 200))
    with served(tmp_path) as address, open_pair(one, f"{address}/one.tif?key=secret") as pair:
        assert fingerprint_pair(pair)["after"] == {"path": f"{address}/one.tif", "files": []}
        assert fingerprint_input(pair.after.input) == fingerprint_pair(pair)["after"]


def test_an_open_pair_is_not_opened_again(tmp_path, monkeypatch):
    files = [tif(tmp_path / name, MOSAIC_CHW, at(100, 200)) for name in ("a.tif", "b.tif")]
    with open_pair(*files) as pair:
        monkeypatch.setattr(rasterio, "open", None)
        prints = fingerprint_pair(pair)
    assert [prints[date]["path"] for date in ("before", "after")] == [str(file) for file in files]
