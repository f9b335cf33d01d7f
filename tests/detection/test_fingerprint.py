"""The files of a pair, identified by path, size and hash."""

import hashlib
import json
import zipfile
from pathlib import Path

import numpy as np
import rasterio
from PIL import Image
from tests.support.brightness_detector import QUIET, Brighter
from tests.support.range_server import served
from tests.support.synthetic_rasters import MOSAIC_CHW, at, png, tif, write_tiles

from semicdvl.detection.config import DetectionConfig
from semicdvl.detection.fingerprint import fingerprint_input, fingerprint_pair
from semicdvl.detection.pipeline import write_detection
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


def test_pages_of_a_file_are_different_images(tmp_path):
    """An interrupted run on one page must not go on with another; the file alone is its first page."""
    pages = [Image.fromarray(np.full((40, 50, 3), value, np.uint8)) for value in (10, 200)]
    pages[0].save(tmp_path / "two.tif", save_all=True, append_images=pages[1:])
    names = [f"GTIFF_DIR:{number}:{tmp_path / 'two.tif'}" for number in (1, 2)]
    with open_pair(*names) as pair:
        prints = fingerprint_pair(pair)
    assert list(prints.values()) == [{"path": name, "files": [entry(tmp_path / "two.tif")]} for name in names]
    assert list(prints.values()) == [fingerprint_input(resolve_input(name)) for name in names]


def test_an_image_in_an_archive_is_known_by_the_archive(tmp_path):
    one = tif(tmp_path / "one.tif", MOSAIC_CHW, at(100, 200))
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.write(one, "folder/one.tif")
    name = f"/vsizip/{tmp_path}/a.zip/folder/one.tif"
    assert fingerprint_input(resolve_input(name)) == {"path": name, "files": [entry(tmp_path / "a.zip")]}


def test_a_record_names_what_was_given_from_any_folder(tmp_path, monkeypatch):
    """The review page and `suggest` read the images of a result again, wherever they are started."""
    write_tiles(tmp_path / "tiles")
    whole = tif(tmp_path / "whole.tif", MOSAIC_CHW, at(100, 200))
    monkeypatch.chdir(tmp_path)
    config = DetectionConfig(grid="whole.tif", tile_px=64, overlap_px=32)
    write_detection("tiles", "whole.tif", tmp_path / "out", detector=Brighter(), config=config, progress=QUIET)
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert record["inputs"]["before"]["path"] == str(tmp_path / "tiles")
    assert record["inputs"]["after"]["path"] == record["settings"]["grid"] == str(whole)
    several = resolve_input(["tiles/*.tif", "https://host/a.tif"])
    assert several.lasting_name == f"{tmp_path}/tiles/*.tif,https://host/a.tif"


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
