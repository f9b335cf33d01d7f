"""A detection opens each input once and hashes it once, however many passes it makes over the pair."""

from collections import Counter
from pathlib import Path

import pytest
from rich.console import Console
from tests.support.synthetic_rasters import at, city, tif

from semicdvl.detection import fingerprint
from semicdvl.detection.config import DetectionConfig
from semicdvl.detection.detectors.unsupervised import build_unsupervised_detector
from semicdvl.detection.pipeline import write_detection
from semicdvl.raster import file_access


@pytest.mark.parametrize("method", ["cva", "irmad"])  # the second one sees the whole pair before the tiles
@pytest.mark.parametrize("align", [False, True])
def test_inputs_are_opened_and_hashed_once(tmp_path, monkeypatch, method, align):
    before, after = city(200, 220), city(200, 220)
    after[:, 50:90, 60:120] = 250
    files = tif(tmp_path / "a.tif", before, at(0, 90)), tif(tmp_path / "b.tif", after, at(0.2, 90))
    counts: Counter[str] = Counter()
    open_file, hash_file = file_access.DatasetReader, fingerprint.hash_file

    def count_open(name, *args, **options):
        counts[f"open {Path(str(name)).name}"] += 1
        return open_file(name, *args, **options)

    def count_hash(path: Path) -> str:
        counts[f"hash {path.name}"] += 1
        return hash_file(path)

    monkeypatch.setattr(file_access, "DatasetReader", count_open)
    monkeypatch.setattr(fingerprint, "hash_file", count_hash)
    config = DetectionConfig(tile_px=128, overlap_px=32, align=align)
    detector = build_unsupervised_detector(method)
    write_detection(*files, tmp_path / "out", detector=detector, config=config, progress=Console(quiet=True))
    inputs = {name: count for name, count in counts.items() if name.split()[-1] in ("a.tif", "b.tif")}
    assert inputs == {f"{what} {name}": 1 for what in ("open", "hash") for name in ("a.tif", "b.tif")}
