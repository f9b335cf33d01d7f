"""The long commands that `kill_drills.py` disturbs, as command lines, on inputs of seconds.

They are run in the folder of the inputs; OUT is what they write.
"""

from __future__ import annotations

import contextlib
import shlex
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import rasterio
import shapely
from rasterio.transform import Affine
from tests.support.tiny_suite import TINY, write_suite

from semicdvl.__main__ import main
from semicdvl.synthetic.config import CitySpec
from semicdvl.synthetic.generate import generate_city
from semicdvl.synthetic.write import write_city_patches

HEIGHT, WIDTH = 330, 270
GRASS = (110, 170, 80)
VLM = "--vlm semicdvl.vlms.models.fake:build_fake --find building --background grass,water --level pixel --gamma 0.5"
TILES = "--tile 64 --overlap 16"
RECIPE = """
name = "tiny"
[data]
root = "patches"
labelled = 0.34
val_frac = 0.25
test_frac = 0.25
crop_px = 64
[model]
name = "siam_light"
backbone = "test_resnet"
pretrained = "none"
decoder_channels = 16
[method]
name = "supervised"
[train]
steps = 12
labelled_batch = 2
lr = 0.01
eval_every = 1
device = "cpu"
"""


@dataclass(frozen=True)
class Drill:
    """One command.

    Attributes:
        line: of the command, with OUT for what it writes.
        parts: pattern, beside OUT, of what it saves on the way; empty: it saves nothing before its end.
        spread_s: a signal comes up to so much later.
        earlier: what lies at OUT before, a folder of the inputs.
        reads: image that the command reads as long as it works.
        compared: names of the files that are equal after equal runs; empty: all.
        replaces: whether an earlier result at OUT is computed again and replaced, not kept or resumed.
    """

    line: str
    parts: str = ""
    spread_s: float = 0.5
    earlier: str = ""
    reads: str = ""
    compared: tuple[str, ...] = ()
    replaces: bool = False


ADAPT = "--patch-px 64 --patches 12 --steps 4 --backbone test_resnet --pretrained none --device cpu --gsd 1"
DRILLS = {
    "detect": Drill(
        f"detect before.tif after.tif -o OUT --method cva {TILES}",
        ".out.partial/tiles/*.json",
        reads="after.tif",
        replaces=True,
    ),
    "detect, VLM": Drill(
        f"detect before.tif after.tif -o OUT --device cpu {VLM} {TILES}",
        ".out.partial/tiles/*.json",
        reads="after.tif",
        replaces=True,
    ),
    "detect, network": Drill(
        f"detect before.tif after.tif -o OUT --model net --device cpu {TILES}",
        ".out.partial/tiles/*.json",
        reads="after.tif",
        replaces=True,
    ),
    "detect --pairs": Drill(f"detect --pairs pairs.csv -o OUT --method cva {TILES}", "out/p0/run.json", 1.0),
    "check": Drill("check before.tif after.tif -o OUT", replaces=True),
    "prepare": Drill(
        "prepare --before before.tif --after after.tif --labels changes.gpkg -o OUT --size-px 32 --val-frac 0 "
        "--test-frac 0",
        "out/A/*.png",
        reads="after.tif",
    ),
    "pseudo": Drill(f"pseudo patches -o OUT --device cpu {VLM}", "out/labels/*/*.json"),
    "train": Drill("train recipe.toml -o OUT", "out/state/0*", 1.5),
    "adapt": Drill(
        f"adapt town1.tif town2.tif -o OUT {VLM} {ADAPT}", "out/adapt/store/labels/*/*.json", 2.0, reads="town2.tif"
    ),
    "benchmark": Drill(
        "benchmark suite.toml -o OUT --jobs 0 --retry",
        "out/jobs/*.result.json",
        2.0,
        compared=("model.safetensors", "results.csv", "table.md", "report.html", "split.json"),  # keys hold times
    ),
    "evaluate": Drill("evaluate OUT --truth changes.gpkg --sample 20", spread_s=1.0, earlier="map", replaces=True),
    "suggest": Drill("suggest OUT -n 3 --patch-px 32", spread_s=1.0, earlier="map", replaces=True),
    "export": Drill("export net -o OUT.onnx", spread_s=1.0, replaces=True),
}


def run_line(line: str, out: Path) -> int:
    """Run a command line in this process; return its exit code."""
    sys.argv = ["semicdvl", *shlex.split(line.replace("OUT", str(out)))]
    try:
        main()
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


def make_inputs(home: Path) -> None:
    """Write a pair of images, polygons of its changes, labelled patches, recipes, a trained network and a map."""
    rng = np.random.default_rng(0)
    before_CHW = rng.integers(60, 200, (3, HEIGHT, WIDTH)).astype(np.uint8)
    after_CHW, boxes = before_CHW.copy(), []
    for row, col in rng.integers(10, 230, (24, 2)):
        after_CHW[:, row : row + 14, col : col + 17] = 250
        boxes.append(shapely.box(500_000 + col, 5_000_000 - row - 14, 500_000 + col + 17, 5_000_000 - row))
    profile: dict[str, Any] = {"driver": "GTiff", "count": 3, "height": HEIGHT, "width": WIDTH, "dtype": "uint8"}
    for name, image_CHW in (("before", before_CHW), ("after", after_CHW)):
        place = Affine(1, 0, 500_000, 0, -1, 5_000_000)
        with rasterio.open(home / f"{name}.tif", "w", crs="EPSG:32632", transform=place, **profile) as target:
            target.write(image_CHW)
    for name, houses in (("town1", 1), ("town2", 3)):
        town_CHW = np.clip(rng.normal(0, 3, (3, 128, 160)) + np.array(GRASS)[:, None, None], 1, 255)
        for row, col in ((8, 70), (40, 30), (90, 100))[:houses]:
            town_CHW[:, row : row + 20, col : col + 26] = 220
        profile |= {"height": 128, "width": 160}
        with rasterio.open(home / f"{name}.tif", "w", crs="EPSG:32632", transform=place, **profile) as target:
            target.write(town_CHW.astype(np.uint8))
    gpd.GeoDataFrame(geometry=boxes, crs="EPSG:32632").to_file(home / "changes.gpkg", engine="pyogrio")
    write_city_patches(generate_city(CitySpec(size_px=(256, 256), seed=3)), home / "patches", size_px=64)
    (home / "pairs.csv").write_text("before,after,name\n" + "".join(f"before.tif,after.tif,p{n}\n" for n in range(3)))
    (home / "recipe.toml").write_text(RECIPE)
    write_suite(home, TINY)
    with contextlib.chdir(home):
        assert run_line(DRILLS["detect"].line, home / "map") == 0
        (home / "short.toml").write_text(RECIPE.replace("steps = 12", "steps = 1"))
        assert run_line("train short.toml -o OUT", home / "net") == 0


def lay_out(drill: Drill, home: Path, out: Path) -> None:
    """Put what the command begins with at its output, unless something is there already."""
    if drill.earlier and not out.exists():
        shutil.copytree(home / drill.earlier, out)
