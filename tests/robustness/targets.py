"""What is attacked: a file of each format, and everything that reads it, in Python and on the command line."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
from PIL import Image
from tests.robustness.hostile_images import build_vrt
from tests.robustness.hostile_reviews import read_review, write_review
from tests.robustness.hostile_vectors import KML
from tests.support.paths import ROOT

import semicdvl as cd
from semicdvl.errors import StoreError

OLD = ROOT / "tests" / "data" / "made_by_0.1"
WORDS = ("house", "road")


@dataclass(frozen=True)
class Target:
    """A file and its readers.

    Attributes:
        name: for reports.
        file: what is replaced, relative to the scene.
        kind: how it is damaged, see `mutations`.
        readers: functions of the scene that read the file.
        commands: command lines that read it, run in the scene.
        count: number of random damages beside the special ones.
    """

    name: str
    file: str
    kind: str
    readers: tuple[Callable[[Path], Any], ...]
    commands: tuple[str, ...] = ()
    count: int = 14


def build_scene(root: Path) -> Path:
    """Copy sound files of every format to a folder."""
    for name in ("run", "interrupted", "detected", "store", "pairs", "prepared"):
        shutil.copytree(OLD / name, root / name)
    for name in ("before.tif", "after.tif", "truth.geojson", "model.onnx", "suite.toml"):
        shutil.copy(OLD / name, root / name)
    shutil.copytree(OLD / "suite" / "jobs", root / "jobs")
    recipe = (OLD / "teacher.toml").read_text()
    (root / "teacher.toml").write_text(recipe)
    (root / "recipe.toml").write_text(recipe.replace("steps = 40", "steps = 1"))
    guided = (OLD / "guided.toml").read_text()
    (root / "guided.toml").write_text(guided.replace("steps = 12\neval_every = 6", "steps = 1\neval_every = 1"))
    for path in root.rglob("*.json"):
        if path.parent.name != "labels":
            path.write_text(path.read_text().replace("/old/place", str(root)))
    (root / "pairs.csv").write_text("before,after,name\nbefore.tif,after.tif,one\nafter.tif,before.tif,two\n")
    _add_answers(root)
    for suffix in ("png", "jpg", "tif"):
        for date in ("A", "B"):
            pixels_HWC = np.random.default_rng(ord(date)).integers(0, 255, (40, 48, 3), np.uint8)
            (root / f"small_{suffix}" / date).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels_HWC).save(root / f"small_{suffix}" / date / f"one.{suffix}")
    layer = gpd.read_file(root / "truth.geojson", engine="pyogrio")
    for suffix in ("gpkg", "shp", "fgb"):
        layer.to_file(root / f"truth.{suffix}", engine="pyogrio")
    layer.to_parquet(root / "truth.parquet")
    (root / "truth.kml").write_text(KML.format("", "9,45 9.1,45 9.1,45.1 9,45"))
    (root / "mosaic.vrt").write_text(build_vrt())
    write_review(root / "review" / "review.sqlite")
    (root / "link").symlink_to("link")
    _add_self_training(root)
    (root / "mask.png").write_bytes(
        (root / "pairs" / "label" / next((root / "pairs/label").iterdir()).name).read_bytes()
    )
    return root


def _add_self_training(root: Path) -> None:
    """Add what `adapt`, `detect --pairs`, the cutting of a run and a review leave."""
    (root / "adapted" / "adapt").mkdir(parents=True)
    record = {"format": "semicdvl-adapt", "key": "0" * 64, "question": "0" * 64}
    (root / "adapted" / "adapt" / "adapt.json").write_text(json.dumps(record))
    rows = [{"name": "one", "state": "done", "error": None}, {"name": "two", "state": "failed", "error": "no"}]
    (root / "many").mkdir()
    (root / "many" / "index.html").write_text("")
    (root / "many" / "pairs.json").write_text(json.dumps({"format": "semicdvl-pairs", "pairs": rows}))
    shutil.copytree(root / "detected", root / "many" / "one")


def _add_answers(root: Path) -> None:
    """Add precomputed predictions of one image."""
    folder = root / "answers"
    (folder / "A").mkdir(parents=True)
    (root / "seen" / "A").mkdir(parents=True)
    pixels_HWC = np.random.default_rng(0).integers(0, 255, (6, 8, 3), np.uint8)
    Image.fromarray(pixels_HWC).save(root / "seen" / "A" / "one.png")
    (folder / "answers.json").write_text(json.dumps({"prompts": list(WORDS), "images": "../seen"}))
    np.save(folder / "A" / "one.npy", np.full((2, 6, 8), 0.5, np.float32))
    mask = {"size": [6, 8], "counts": [4, 10, 34]}
    (folder / "A" / "one.json").write_text(
        json.dumps(
            {
                "annotations": [{"category_id": 7, "score": 0.9, "segmentation": mask}],
                "categories": [{"id": 7, "name": "house"}],
            }
        )
    )


# ------------------------------------------------------------------------------------------------ readers
def _segment(scene: Path) -> Any:
    vlm = cd.create_vlm("precomputed", weights=scene / "answers")
    with Image.open(scene / "seen" / "A" / "one.png") as picture:
        return vlm.segment(np.asarray(picture), WORDS)


def _read_store(scene: Path) -> Any:
    from semicdvl.pseudo_labels.store import PseudoLabelStore

    store = PseudoLabelStore.open(scene / "store")
    if faults := store.verify():
        raise StoreError(faults[0])
    for path in sorted((scene / "store" / "answers").glob("*/*.npz"))[:3]:
        store.read_answer(path.stem)
    return list(store.iterate_records())


def _resume(scene: Path) -> Any:
    import torch

    from semicdvl.training.checkpoint import TrainingCheckpoint

    record = cd.load_recipe(scene / "teacher.toml")
    model = cd.create_model(record.model.name, **record.model.options)
    optimizer = torch.optim.AdamW(model.parameters())
    return TrainingCheckpoint(scene / "interrupted", model, [optimizer], ema=0.9).resume(total_steps=40)


def _read_log(scene: Path) -> Any:
    from semicdvl.training.log import read_events

    return read_events(scene / "run" / "log.jsonl")


def _read_outcome(scene: Path) -> Any:
    from types import SimpleNamespace

    from semicdvl.benchmarking.processes import read_outcome

    found: Any = read_outcome(SimpleNamespace(result=scene / "jobs" / _JOB, place={}))  # type: ignore[arg-type]
    return found["status"]


def _read_row(scene: Path) -> Any:
    from semicdvl.data.prepare.patch_cutter import open_journal

    with open_journal(scene / "prepared") as journal:
        return journal.patches


def _read_polygons(scene: Path) -> Any:
    from semicdvl.data.prepare.polygon_layer import read_polygons
    from semicdvl.evaluation.map_vs_truth import read_detected_map

    return read_polygons(scene / "truth.geojson", grid=read_detected_map(scene / "detected").grid)


def _read_map(scene: Path) -> Any:
    from semicdvl.evaluation.map_vs_truth import read_detected_map

    return read_detected_map(scene / "detected")


def _read_split(scene: Path) -> Any:
    from semicdvl.data.split_file import read_split

    return read_split(scene / "run" / "split.json")


def _load_pairs(scene: Path, folder: str) -> Any:
    dataset = cd.load_dataset(scene / folder)
    from semicdvl.data.images.reading import read_rgb

    return [read_rgb(path) for pair in dataset.pairs for path in (pair.before, pair.after)]


def _read_mask(scene: Path) -> Any:
    from semicdvl.data.labels.files import read_mask

    return read_mask(scene / "mask.png")


def _read_table(scene: Path) -> Any:
    from semicdvl.detection.batch.pairs_table import read_pairs

    return read_pairs(scene / "pairs.csv")


def _open_rasters(scene: Path) -> Any:
    from semicdvl.raster.io.open_pair import open_pair

    with open_pair(scene / "before.tif", scene / "after.tif") as pair:
        return pair.read(0, 0, 64, 64)


def _open_vrt(scene: Path) -> Any:
    from semicdvl.raster.io.open_pair import open_pair

    with open_pair(scene / "before.tif", scene / "mosaic.vrt") as pair:
        return pair.read(0, 0, 64, 64)


def _read_layer(suffix: str) -> Callable[[Path], Any]:
    def read(scene: Path) -> Any:
        from semicdvl.data.prepare.polygon_layer import read_polygons
        from semicdvl.evaluation.map_vs_truth import read_detected_map

        return read_polygons(scene / f"truth.{suffix}", grid=read_detected_map(scene / "detected").grid)

    return read


def _serve(scene: Path) -> Any:
    from semicdvl.review.folder import find_pairs

    return find_pairs(scene / "many")


def _load_encoder(scene: Path) -> Any:
    return cd.create_model("siam_light", backbone="resnet18", pretrained=str(scene / "run" / "model.safetensors"))


_JOB = "pairs-sup-only-0.5-s0-87224611.result.json"
_ANSWER = sorted(path.relative_to(OLD) for path in (OLD / "store" / "answers").glob("*/*.npz"))[0].as_posix()
_LABEL = sorted(path.relative_to(OLD) for path in (OLD / "store" / "labels").glob("*/*.json"))[0].as_posix()
_PICTURE = _LABEL.replace(".json", ".png")
_STATE = "interrupted/state/00000020"
_LEARN = "train guided.toml -o guided"
_DETECT = "detect before.tif after.tif -o out --device cpu"

TARGETS: tuple[Target, ...] = (
    Target(
        "run.json",
        "run/run.json",
        "json",
        (lambda scene: cd.load_model(scene / "run"), lambda scene: cd.load_detector(scene / "run", device="cpu")),
        (f"{_DETECT} --model run", "evaluate run pairs --split test", "export run -o net.onnx"),
        60,
    ),
    Target(
        "weights",
        "run/model.safetensors",
        "safetensors",
        (lambda scene: cd.load_model(scene / "run"), _load_encoder),
        (f"{_DETECT} --model run",),
        40,
    ),
    Target("split", "run/split.json", "json", (_read_split,), (), 30),
    Target("log", "run/log.jsonl", "lines", (_read_log,), ()),
    Target("state", f"{_STATE}/state.json", "json", (_resume,), ("train teacher.toml -o interrupted",), 20),
    Target("optimiser", f"{_STATE}/optimizer.safetensors", "safetensors", (_resume,), (), 30),
    Target(
        "manifest",
        "store/manifest.json",
        "json",
        (_read_store,),
        ("pseudo pairs -o store --vlm fake --report", "pseudo pairs -o store --vlm fake --verify", _LEARN),
        30,
    ),
    Target("label record", _LABEL, "json", (_read_store,), ("pseudo pairs -o store --vlm fake --report", _LEARN), 25),
    Target("answer", _ANSWER, "npz", (_read_store,), ("pseudo pairs -o store --vlm fake --verify",), 20),
    Target("label picture", _PICTURE, "bytes", (_read_store,), (_LEARN,), 25),
    Target(
        "answers.json",
        "answers/answers.json",
        "json",
        (_segment,),
        (f"{_DETECT} --vlm precomputed --weights answers",),
        30,
    ),
    Target("score maps", "answers/A/one.npy", "npy", (_segment,), (), 15),
    Target("COCO", "answers/A/one.json", "json", (_segment,), (), 40),
    Target(
        "recipe",
        "recipe.toml",
        "toml",
        (lambda scene: cd.load_recipe(scene / "recipe.toml"),),
        ("train recipe.toml -o trained",),
        60,
    ),
    Target(
        "suite",
        "suite.toml",
        "toml",
        (lambda scene: cd.load_suite(scene / "suite.toml"),),
        ("benchmark suite.toml -o bench --jobs 0",),
        50,
    ),
    Target("outcome", f"jobs/{_JOB}", "json", (_read_outcome,), (), 30),
    Target(
        "detection record",
        "detected/run.json",
        "json",
        (_read_map,),
        ("suggest detected -n 2 --patch-px 32", "evaluate detected --truth truth.geojson"),
        40,
    ),
    Target(
        "change map", "detected/change.tif", "bytes", (_read_map,), ("evaluate detected --truth truth.geojson",), 15
    ),
    Target("objects", "detected/changes.gpkg", "bytes", (_read_map,), ("evaluate detected --truth truth.geojson",), 15),
    Target(
        "truth",
        "truth.geojson",
        "geojson",
        (_read_polygons,),
        (
            "evaluate detected --truth truth.geojson",
            "prepare --before before.tif --after after.tif --labels truth.geojson -o data --size-px 32",
        ),
        25,
    ),
    Target("journal", "prepared/patches.jsonl", "lines", (_read_row,), ()),
    Target(
        "preparation",
        "prepared/prepare.json",
        "json",
        (),
        ("prepare --before before.tif --after after.tif --labels truth.geojson -o prepared --size-px 32",),
        5,
    ),
    Target(
        "list",
        "pairs/train.txt",
        "lines",
        (lambda scene: cd.load_dataset(scene / "pairs"),),
        ("train recipe.toml -o trained",),
        15,
    ),
    Target("table", "pairs.csv", "lines", (_read_table,), ("detect --pairs pairs.csv -o many --method cva",), 15),
    Target(
        "ONNX",
        "model.onnx",
        "bytes",
        (lambda scene: cd.load_detector(scene / "model.onnx", device="cpu"),),
        (f"{_DETECT} --model model.onnx",),
        30,
    ),
    Target("PNG", "small_png/A/one.png", "bytes", (lambda scene: _load_pairs(scene, "small_png"),), (), 40),
    Target("JPEG", "small_jpg/A/one.jpg", "bytes", (lambda scene: _load_pairs(scene, "small_jpg"),), (), 40),
    Target("TIFF", "small_tif/A/one.tif", "bytes", (lambda scene: _load_pairs(scene, "small_tif"),), (), 40),
    Target("mask", "mask.png", "bytes", (_read_mask,), (), 30),
    Target(
        "raster",
        "before.tif",
        "bytes",
        (_open_rasters,),
        ("check before.tif after.tif -o checked", "detect before.tif after.tif -o out --method cva"),
        40,
    ),
    Target(
        "tags of TIFF",
        "before.tif",
        "tiff",
        (_open_rasters,),
        (
            "check before.tif after.tif",
            "detect before.tif after.tif -o out --method cva",
            "prepare --before before.tif --after after.tif --labels truth.geojson -o data --size-px 32",
        ),
    ),
    Target("tags of a small TIFF", "small_tif/A/one.tif", "tiff", (lambda scene: _load_pairs(scene, "small_tif"),)),
    Target(
        "tags of a map", "detected/change.tif", "tiff", (_read_map,), ("evaluate detected --truth truth.geojson",), 5
    ),
    Target("chunks of PNG", "small_png/A/one.png", "png", (lambda scene: _load_pairs(scene, "small_png"),)),
    Target("chunks of a mask", "mask.png", "png", (_read_mask,)),
    Target("segments of JPEG", "small_jpg/A/one.jpg", "jpeg", (lambda scene: _load_pairs(scene, "small_jpg"),)),
    Target(
        "VRT",
        "mosaic.vrt",
        "vrt",
        (_open_vrt,),
        ("check before.tif mosaic.vrt", "detect before.tif mosaic.vrt -o out --method cva"),
    ),
    Target(
        "tables of GeoPackage",
        "truth.gpkg",
        "gpkg",
        (_read_layer("gpkg"),),
        (
            "evaluate detected --truth truth.gpkg",
            "prepare --before before.tif --after after.tif --labels truth.gpkg -o data --size-px 32",
        ),
    ),
    Target("tables of objects", "detected/changes.gpkg", "gpkg", (_read_map,), ("suggest detected -n 2",)),
    Target("KML", "truth.kml", "kml", (_read_layer("kml"),), ("evaluate detected --truth truth.kml",)),
    Target("shapefile", "truth.shp", "shapefile", (_read_layer("shp"),), ("evaluate detected --truth truth.shp",)),
    Target("attributes", "truth.dbf", "bytes", (_read_layer("shp"),), ("evaluate detected --truth truth.shp",)),
    Target("projection", "truth.prj", "bytes", (_read_layer("shp"),), ("evaluate detected --truth truth.shp",)),
    Target("FlatGeobuf", "truth.fgb", "bytes", (_read_layer("fgb"),), ("evaluate detected --truth truth.fgb",)),
    Target(
        "GeoParquet", "truth.parquet", "bytes", (_read_layer("parquet"),), ("evaluate detected --truth truth.parquet",)
    ),
    Target("dialects", "pairs.csv", "table", (_read_table,), ("detect --pairs pairs.csv -o many --method cva",)),
    Target(
        "graph of ONNX",
        "model.onnx",
        "onnx",
        (lambda scene: cd.load_detector(scene / "model.onnx", device="cpu"),),
        (f"{_DETECT} --model model.onnx",),
    ),
    Target(
        "adaptation",
        "adapted/adapt/adapt.json",
        "json",
        (),
        (
            "adapt before.tif after.tif -o adapted --vlm semicdvl.vlms.models.fake:build_fake --find building "
            "--background grass --patch-px 64 --steps 1 --backbone test_resnet --pretrained none --device cpu",
        ),
        8,
    ),
    Target(
        "index of pairs",
        "many/pairs.json",
        "json",
        (_serve,),
        ("detect --pairs pairs.csv -o many --method cva",),
        12,
    ),
    Target(
        "review",
        "review/review.sqlite",
        "review",
        (lambda scene: read_review(scene / "review" / "review.sqlite"),),
        (),
        60,
    ),
)
