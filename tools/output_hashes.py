"""Hash what every command writes, to show that a change of the code changed no result.

    python tools/output_hashes.py --out base.json                 run all cases and write their hashes
    python tools/output_hashes.py --compare base.json             run them and print what differs; exit code 1 if any
    python tools/output_hashes.py --cases city,detect --compare base.json
    python tools/output_hashes.py --list

The cases are small but real: a synthetic city that `benchmark` renders is detected in one and in many tiles, killed and
resumed, labelled by a VLM, trained on, evaluated, exported. Everything goes through `python -m semicdvl`, whose options
and files are a public contract, so the same script runs on older and newer code: the package is the one that Python
finds (set PYTHONPATH to the `src` folder of a checkout).

Compare float results on one machine only: another processor or another version of torch, NumPy or GDAL rounds
differently. All commands run with one thread.

What is hashed:
    rasters                 decoded pixels, geotransform, CRS, no-data value, colour table
    vector files            sorted features, attributes and WKB, of every layer
    PNG, JPEG               decoded pixels
    safetensors, npz        tensors and arrays
    JSON, TOML, CSV         parsed content without times, durations, memory, versions and absolute paths
    ONNX                    weights, operators, names of inputs, outputs and metadata
    pseudo-label stores     keys and decoded content

What is left out, and why:
    HTML, Markdown, SVG, plots    words and times, which may change
    `key` of run.json, adapt.json holds the absolute paths of the images
    warnings, descriptions        kept apart under `words`: a difference there is printed and does not count
    keys below a store of the VLM `precomputed`   its identity holds the times of its answer files
"""

from __future__ import annotations

import argparse
import atexit
import csv
import hashlib
import importlib
import io
import json
import os
import re
import runpy
import shutil
import signal
import sys
import tempfile
import time
import tomllib
import traceback
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import geopandas as gpd
import numpy as np
import pyogrio
import rasterio
import shapely
from PIL import Image
from rasterio import features
from rasterio.warp import Resampling, reproject
from safetensors.numpy import load_file

Hashes = dict[str, str]

VOLATILE = {
    "written",
    "versions",
    "seconds",
    "total_seconds",
    "peak_memory_mib",
    "peak_mib",
    "peak_gpu_mib",
    "pairs_per_s",
    "key",
    "from_an_interrupted_run",
    "peak memory",
}
"""Fields that depend on the time, the machine or the place of the files."""
WORDS = {"warning", "warnings", "detector", "notes", "title", "error", "text", "remedy", "meaning", "no_data"}
"""Fields that hold sentences."""
SKIPPED = {".html", ".md", ".svg", ".log", ".lock", ".pdf"}
"""Suffixes of files that hold words and times."""


# ------------------------------------------------------------------------------------------------ hashes
def digest(*parts: bytes | str) -> str:
    """Return a short SHA-256 of parts, each with its length."""
    found = hashlib.sha256()
    for part in parts:
        raw = part.encode() if isinstance(part, str) else part
        found.update(f"{len(raw)}:".encode() + raw)
    return found.hexdigest()[:20]


def of_array(array: np.ndarray) -> str:
    """Return the hash of an array's type, shape and values."""
    return digest(str(array.dtype), str(array.shape), np.ascontiguousarray(array).tobytes())


def of_raster(path: Path) -> str:
    """Return the hash of a raster's pixels and of where they lie."""
    with warnings.catch_warnings(action="ignore"), rasterio.open(path) as source:
        crs = "" if source.crs is None else source.crs.to_wkt()
        colours = [source.colormap(1)] if source.count == 1 and source.colorinterp[0].name == "palette" else []
        place = [list(source.transform)[:6], str(source.nodata), [each.name for each in source.colorinterp], colours]
        return digest(of_array(source.read()), crs, json.dumps(place))


def of_vector(path: Path) -> str:
    """Return the hash of all layers' features, in an order of their own."""
    parts = []
    for layer, _ in sorted(pyogrio.list_layers(path).tolist()) if path.suffix != ".parquet" else [("", "")]:
        frame = gpd.read_parquet(path) if path.suffix == ".parquet" else pyogrio.read_dataframe(path, layer=layer)
        frame = frame.drop(columns=[name for name in ("update_time",) if name in frame.columns])
        rows = []
        for row in frame.itertuples(index=False):
            rows.append([each.wkb_hex if isinstance(each, shapely.Geometry) else repr(each) for each in row])
        crs = str(getattr(frame, "crs", None))
        parts.append(json.dumps([layer, crs, [str(name) for name in frame.columns], sorted(rows)]))
    return digest(*parts)


def of_picture(path: Path) -> str:
    """Return the hash of a picture's pixels."""
    with Image.open(path) as picture:
        return digest(picture.mode, of_array(np.asarray(picture)))


def of_tensors(path: Path) -> str:
    """Return the hash of the tensors of a safetensors file."""
    return digest(*(part for name, value in sorted(load_file(path).items()) for part in (name, of_array(value))))


def of_arrays(path: Path) -> str:
    """Return the hash of the arrays of an npz file."""
    with np.load(path, allow_pickle=False) as content:
        return digest(*(part for name in sorted(content) for part in (name, of_array(content[name]))))


def of_onnx(path: Path) -> str:
    """Return the hash of a network's weights and operators; names of its parts inside are the exporter's."""
    import onnx
    from onnx import numpy_helper

    model = onnx.load(path)
    weights = sorted(of_array(numpy_helper.to_array(each)) for each in model.graph.initializer)
    names = [each.name for each in (*model.graph.input, *model.graph.output)]
    metadata = sorted(each.key for each in model.metadata_props)
    return digest(json.dumps([weights, sorted(node.op_type for node in model.graph.node), names, metadata]))


def plain(content: Any, work: Path, *, words: list[Any] | None = None) -> Any:
    """Return parsed content without what is volatile; sentences go into `words`."""
    if isinstance(content, dict):
        kept = {}
        for name, value in content.items():
            if name in VOLATILE:
                continue
            if name in WORDS and words is not None and not _is_identity(value):
                words.append([name, plain(value, work)])
            else:
                kept[name] = plain(value, work, words=words)
        return kept
    if isinstance(content, list | tuple):
        return [plain(value, work, words=words) for value in content]
    return content.replace(str(work), "WORK") if isinstance(content, str) else content


def _is_identity(value: Any) -> bool:
    """Tell whether a field `detector` is an identity, which must not change, and no description."""
    return isinstance(value, dict) and "kind" in value


def of_parsed(content: Any, work: Path) -> dict[str, str]:
    """Return the hash of parsed content, and that of its words if it has any."""
    words: list[Any] = []
    facts = plain(content, work, words=words)
    found = {"": digest(json.dumps(facts, sort_keys=True))}
    return found | ({" words": digest(json.dumps(words, sort_keys=True))} if words else {})


def of_table(path: Path, work: Path) -> str:
    """Return the hash of a CSV file without volatile columns."""
    rows = list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8"))))
    kept = [{name: value for name, value in row.items() if name not in VOLATILE | WORDS} for row in rows]
    return digest(json.dumps(plain(kept, work), sort_keys=True))


READERS: dict[str, Callable[[Path], str]] = {
    ".tif": of_raster,
    ".gpkg": of_vector,
    ".geojson": of_vector,
    ".fgb": of_vector,
    ".parquet": of_vector,
    ".png": of_picture,
    ".jpg": of_picture,
    ".safetensors": of_tensors,
    ".npz": of_arrays,
    ".onnx": of_onnx,
}


def of_file(path: Path, work: Path) -> dict[str, str]:
    """Return the hashes of one file, by an ending of its name."""
    if path.suffix in READERS:
        return {"": READERS[path.suffix](path)}
    if path.suffix == ".json":
        return of_parsed(json.loads(path.read_text(encoding="utf-8")), work)
    if path.suffix == ".jsonl":
        return of_parsed([json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line], work)
    if path.suffix == ".toml":
        return of_parsed(tomllib.loads(path.read_text(encoding="utf-8")), work)
    if path.suffix == ".csv":
        return {"": of_table(path, work)}
    return {"": digest(path.read_bytes().replace(str(work).encode(), b"WORK"))}


def of_folder(folder: Path, work: Path) -> Hashes:
    """Return the hashes of all files below a folder; stores are taken as a whole."""
    found: Hashes = {}
    stores = [path.parent for path in folder.rglob("manifest.json") if (path.parent / "labels").is_dir()]
    for path in sorted(folder.rglob("*")):
        if any(store in path.parents for store in stores) or not path.is_file():
            continue
        if path.suffix in SKIPPED or path.name in ("lock", "plot.png"):
            continue
        found |= {f"{path.relative_to(folder)}{end}": value for end, value in of_file(path, work).items()}
    for store in stores:
        prefix = "" if store == folder else f"{store.relative_to(folder)}/"
        found |= {f"{prefix}{name}": value for name, value in of_store(store, work).items()}
    return found


def of_store(store: Path, work: Path) -> Hashes:
    """Return the hashes of a pseudo-label store: manifest, answers, labels by pair, and keys where they are fixed."""
    manifest = json.loads((store / "manifest.json").read_text(encoding="utf-8"))
    changing = not manifest["vlm"].startswith(("aerial", "blobs"))
    keys = sorted(
        str(path.relative_to(store))
        for kind in ("answers", "labels", "features")
        for path in (store / kind).rglob("*.*")
    )
    labels = []
    for path in sorted((store / "labels").rglob("*.json")):
        record = json.loads(path.read_text(encoding="utf-8"))
        if changing:
            record |= {"answers": [], "spec": record["spec"] | {"vlm": ""}}
        labels.append([plain(record, work), of_picture(path.with_suffix(".png"))])
    arrays = {
        kind: sorted(of_arrays(path) for path in (store / kind).rglob("*.npz")) for kind in ("answers", "features")
    }
    if changing:
        manifest["vlm"] = manifest["vlm"].rpartition("-")[0]
    return {
        "manifest.json": digest(json.dumps(manifest, sort_keys=True)),
        **{kind: digest(json.dumps(values)) for kind, values in arrays.items()},
        "labels": digest(json.dumps(sorted(labels, key=json.dumps), sort_keys=True)),
    } | ({} if changing else {"keys": digest(json.dumps(keys))})


# ------------------------------------------------------------------------------------------------ commands
class CaseError(Exception):
    """A command did not end as it should."""


@dataclass
class Bench:
    """The folder in which the cases run, and what they left there.

    Attributes:
        work: the folder.
        found: hashes by case.
        seconds: duration by case.
    """

    work: Path
    found: dict[str, Hashes] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    def need(self, name: str) -> None:
        """Run a case unless it has run; the hashes of one that fails are missing.

        Raises:
            CaseError: it failed, now or before.
        """
        if name in self.found:
            if not self.found[name]:
                raise CaseError(f"{name} failed before")
            return
        self.found[name] = {}
        start = time.monotonic()
        try:
            self.found[name] = dict(CASES[name](self))
        except Exception as error:
            raise CaseError(f"{name}: {error!r}" if not isinstance(error, CaseError) else f"{name}: {error}") from error
        self.seconds[name] = time.monotonic() - start
        print(f"{name}: {len(self.found[name])} hashes, {self.seconds[name]:.1f} s", file=sys.stderr, flush=True)

    def start(self, *arguments: object) -> int:
        """Start the program in a process of its own and return its number; what it prints goes to `printed.txt`.

        The process is forked from this one, which has imported the large libraries: they take longer than the work.
        """
        words = [str(each) for each in arguments]
        sys.stdout.flush()
        sys.stderr.flush()
        number = os.fork()
        if number == 0:
            _become_the_program(words, self.work)
        return number

    def run(self, *arguments: object, code: int = 0) -> str:
        """Run the program to its end and return what it printed.

        Raises:
            CaseError: it ended with another exit code.
        """
        ended = os.waitstatus_to_exitcode(os.waitpid(self.start(*arguments), 0)[1])
        printed = (self.work / "printed.txt").read_text(encoding="utf-8")
        command = " ".join(["semicdvl", *map(str, arguments)])
        with (self.work / "log.txt").open("a", encoding="utf-8") as log:
            log.write(f"$ {command}\n{printed}")
        if ended != code:
            raise CaseError(f"{command}\nended with {ended}, wanted {code}\n{printed}")
        return printed

    def kill_once(self, is_time: Callable[[], bool], *arguments: object) -> None:
        """Start the program and kill it as soon as `is_time` says so.

        Raises:
            CaseError: it ended before.
        """
        number = self.start(*arguments)
        while not is_time():
            if os.waitpid(number, os.WNOHANG)[0]:
                printed = (self.work / "printed.txt").read_text(encoding="utf-8")
                raise CaseError(f"{arguments}: ended before it could be killed\n{printed}")
            time.sleep(0.0005)
        os.kill(number, signal.SIGKILL)
        os.waitpid(number, 0)

    def hashes(self, *names: str) -> Hashes:
        """Return the hashes of folders below `work`, each file under the folder's name."""
        found: Hashes = {}
        for name in names:
            found |= {f"{name}/{inner}": value for inner, value in of_folder(self.work / name, self.work).items()}
        return found


ENVIRONMENT = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"} | {
    "COLUMNS": "200",
    "NO_COLOR": "1",
    "TERM": "dumb",
    "OGR_CURRENT_DATE": "2020-01-01T00:00:00Z",
}
"""One thread, no colours, a wide terminal, and GeoPackages without today's date."""
LIBRARIES = (
    "torch torchvision timm accelerate safetensors.torch scipy.ndimage skimage.measure cv2 matplotlib.pyplot pandas"
)


def start_fresh() -> None:
    """Start this script again with `ENVIRONMENT`, which libraries read when they are loaded, then load them."""
    if any(os.environ.get(name) != value for name, value in ENVIRONMENT.items()):
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | ENVIRONMENT)
    with warnings.catch_warnings(action="ignore"):
        for name in LIBRARIES.split():
            importlib.import_module(name)
    if "semicdvl" in sys.modules:
        raise SystemExit("The package was imported by this script: its commands would not start as a user starts them.")


def _become_the_program(words: list[str], work: Path) -> NoReturn:
    """Do in this process what `python -m semicdvl WORDS` does, then end it."""
    code = 1
    try:
        os.chdir(work)
        printed = os.open("printed.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        os.dup2(printed, 1)
        os.dup2(printed, 2)
        sys.argv, sys.path = ["semicdvl", *words], [str(work), *sys.path]
        runpy.run_module("semicdvl", run_name="__main__", alter_sys=True)
        code = 0
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def numbers_in(text: str) -> str:
    """Return the hash of all decimal numbers in a text."""
    return digest(json.dumps(re.findall(r"\d+\.\d{3,}", text)))


# ------------------------------------------------------------------------------------------------ data
SIDE_PX, PATCH_PX, GSD_M = 256, 64, 0.5
SMALL_TRAIN = """
[train]
steps = {steps}
eval_every = {every}
labelled_batch = 2
unlabelled_batch = 2
optimizer = "adamw"
lr = 0.0005
"""
SMALL_MODEL = """
[model]
name = "siam_light"
backbone = "test_resnet"
pretrained = "none"
decoder_channels = 8
"""
METHODS = (
    "supervised",
    "fixmatch",
    "semicd_vl",
    "unimatch",
    "semicdnet",
    "advent",
    "s4gan",
    "semivl",
    "mean_teacher",
)
SUITE_HEAD = """
name = "{name}"
labelled = [0.5]
seeds = [0]

[[data]]
kind = "city"
city_px = 256
patch_px = 64
train_cities = 1
test_cities = 1
first_seed = 7
draw_seed = 0

[data.city]
change_frac = 0.15

[data.vlm]
miss_frac = 0.2
"""


def recipe(
    bench: Bench, name: str, *, root: Path, method: str, steps: int = 3, every: int = 2, more: str = "", ema: float = 0
) -> Path:
    """Write a small recipe on the city's patches and return its file."""
    path = bench.work / f"{name}.toml"
    train = SMALL_TRAIN.format(steps=steps, every=every) + (f"ema = {ema}\n" if ema else "")
    data = (
        f'name = "{name}"\nseed = 3\n[data]\nroot = "{root.as_posix()}"\nlabelled = 0.5\ncrop_px = 64\nrot90 = true\n'
    )
    path.write_text(f'{data}{SMALL_MODEL}\n[method]\nname = "{method}"\n{more}\n{train}', encoding="utf-8")
    return path


def pairs_of(bench: Bench) -> Path:
    """Return the folder of the city's patches: A/ B/ label/ and lists."""
    bench.need("city")
    return next((bench.work / "city" / "data").glob("city-*")) / "pairs"


def few_pairs(bench: Bench) -> Path:
    """Return a data set of twelve of the city's patches, for what asks a VLM about every one."""
    root = bench.work / "few"
    if not root.exists():
        for side, count in (("train", 8), ("val", 2), ("test", 2)):
            names = (pairs_of(bench) / f"{side}.txt").read_text(encoding="utf-8").split()[:count]
            for kind in ("A", "B", "label"):
                (root / kind).mkdir(parents=True, exist_ok=True)
                for name in names:
                    shutil.copy(pairs_of(bench) / kind / f"{name}.png", root / kind)
            (root / f"{side}.txt").write_text("".join(f"{name}\n" for name in names), encoding="utf-8")
    return root


def city(bench: Bench) -> Hashes:
    """Benchmark of two detectors: renders the cities, runs the simulated VLM, makes a store."""
    rows = '[[detectors]]\nname = "No labels"\nvlm = "aerial"\n[[detectors]]\nname = "CVA"\nmethod = "cva"\n'
    (bench.work / "city.toml").write_text(SUITE_HEAD.format(name="city") + rows, encoding="utf-8")
    bench.run("benchmark", "city.toml", "-o", "city", "--jobs", 0)
    return bench.hashes("city")


def read(path: Path) -> np.ndarray:
    """Return a picture as HWC or HW."""
    with Image.open(path) as picture:
        return np.asarray(picture)


def mosaic(bench: Bench, kind: str) -> np.ndarray:
    """Return the test city put together again from its patches."""
    names = (pairs_of(bench) / "test.txt").read_text(encoding="utf-8").split()
    whole = np.zeros((SIDE_PX, SIDE_PX, 3) if kind != "label" else (SIDE_PX, SIDE_PX), np.uint8)
    for name in names:
        path = next((pairs_of(bench) / kind).glob(f"{name}.*"))
        row, col = (int(part) for part in re.findall(r"_r(\d+)_c(\d+)", name)[0])
        whole[row : row + PATCH_PX, col : col + PATCH_PX] = read(path)
    return whole


def write_tif(path: Path, image_HWC: np.ndarray, transform: Any, **more: Any) -> None:
    """Write an image as a GeoTIFF in UTM."""
    bands_CHW = image_HWC[None] if image_HWC.ndim == 2 else image_HWC.transpose(2, 0, 1)
    profile = {"driver": "GTiff", "dtype": bands_CHW.dtype, "count": len(bands_CHW), "crs": "EPSG:32633"}
    profile |= {"height": bands_CHW.shape[1], "width": bands_CHW.shape[2], "transform": transform, **more}
    with rasterio.open(path, "w", **profile) as target:
        target.write(bands_CHW)


def rasters(bench: Bench) -> Hashes:
    """The test city as rasters; what the other cases read. Written by this script, not by the program."""
    place = rasterio.transform.from_origin(500_000, 5_400_000, GSD_M, GSD_M)
    t1_HWC, t2_HWC, label_HW = (mosaic(bench, kind) for kind in ("A", "B", "label"))
    write_tif(bench.work / "before.tif", t1_HWC, place)
    write_tif(bench.work / "after.tif", t2_HWC, place)
    far = rasterio.transform.from_origin(700_000, 5_400_000, GSD_M, GSD_M)
    write_tif(bench.work / "far.tif", t2_HWC, far)
    coarse = rasterio.transform.from_origin(500_006, 5_399_992, 0.6, 0.6)
    moved_CHW = np.zeros((3, 200, 190), np.uint8)
    source = {"src_transform": place, "src_crs": "EPSG:32633", "dst_transform": coarse, "dst_crs": "EPSG:32633"}
    reproject(t2_HWC.transpose(2, 0, 1), moved_CHW, resampling=Resampling.bilinear, **source)
    write_tif(bench.work / "moved.tif", np.roll(moved_CHW, (2, -1), (1, 2)).transpose(1, 2, 0), coarse, nodata=0)
    for name, image_HWC in (("before4.tif", t1_HWC), ("after4.tif", t2_HWC)):
        fourth_HW1 = (image_HWC[..., :1] // 2 + image_HWC[..., 1:2] // 3).astype(np.uint8)
        write_tif(bench.work / name, np.concatenate([image_HWC, fourth_HW1], axis=2).astype(np.uint16) * 16, place)
    for name, image_HWC in (("before.png", t1_HWC), ("after.png", t2_HWC)):
        Image.fromarray(image_HWC[:200, :220]).save(bench.work / name)
    changed_HW = (label_HW > 0).astype(np.uint8)
    write_tif(bench.work / "truth.tif", changed_HW, place)
    shapes = features.shapes(changed_HW, mask=changed_HW == 1, transform=place)
    frame = gpd.GeoDataFrame(geometry=[shapely.geometry.shape(each) for each, _ in shapes], crs="EPSG:32633")
    frame.to_file(bench.work / "truth.gpkg")
    half = shapely.box(500_000, 5_400_000 - SIDE_PX * GSD_M, 500_000 + SIDE_PX * GSD_M / 2, 5_400_000)
    gpd.GeoDataFrame(geometry=[half], crs="EPSG:32633").to_file(bench.work / "area.gpkg")
    names = ("before.tif", "after.tif", "moved.tif", "before4.tif", "after4.tif", "truth.tif", "truth.gpkg")
    return {name: of_file(bench.work / name, bench.work)[""] for name in names}


# ------------------------------------------------------------------------------------------------ detection
DETECTIONS: dict[str, tuple[object, ...]] = {
    "detect": ("before.tif", "after.tif", "--polygons", "geojson,fgb,parquet"),
    "detect_tiles": ("before.tif", "after.tif", "--tile", 96, "--overlap", 32),
    "detect_looks": (
        *("before.tif", "after.tif", "--tile", 160, "--overlap", 32),
        *("--min-cosine", 0.6, "--features", "efficientnet_lite0"),
    ),
    "detect_calibrated": ("before.tif", "after.tif", "--calibrate"),
    "detect_aligned": ("before.tif", "moved.tif", "--align", "--normalise", "match", "--grid", "finest"),
    "detect_after_grid": ("before.tif", "moved.tif", "--grid", "after", "--tile", 128, "--overlap", 16),
    "detect_shaped": (
        *("before.tif", "after.tif", "--tile", 160, "--overlap", 32),
        *("--simplify-m", 1, "--regularise", "--min-area-m2", 20),
    ),
    "detect_mixed": (
        *("before.tif", "after.tif", "--level", "mixed", "--gamma", 0.4, "--delta", 0.1),
        *("--shift-px", 2, "--replaced-iou", 0.3, "--replaced-class", "--tile", 160, "--overlap", 32),
    ),
    "detect_pixel": (
        "before.tif",
        "after.tif",
        "--level",
        "pixel",
        "--find",
        "house,building",
        "--background",
        "road,grass,tree",
    ),
    "detect_png": ("before.png", "after.png", "--gsd", 0.5, "--min-area-m2", 5),
    "cva": ("before.tif", "after.tif", "--method", "cva", "--tile", 128, "--overlap", 0),
    "log_ratio": ("before.tif", "after.tif", "--method", "log_ratio"),
    "irmad": ("before4.tif", "after4.tif", "--method", "irmad", "--bands", "1,2,3,4", "--tile", 128, "--overlap", 0),
    "pca_km": ("before.tif", "after.tif", "--method", "pca_km", "--tile", 160, "--overlap", 32),
    "dsfa": ("before.tif", "after.tif", "--method", "dsfa"),
    "cnn_cd": ("before.tif", "after.tif", "--method", "cnn_cd"),
    "dcva": ("before.tif", "after.tif", "--method", "dcva"),
    "gmcd": ("before.tif", "after.tif", "--method", "gmcd"),
}
"""Case -> arguments of `detect`."""


def detection(name: str) -> Callable[[Bench], Hashes]:
    """Return the case of a detection."""

    def case(bench: Bench) -> Hashes:
        bench.need("rasters")
        bench.run("detect", *DETECTIONS[name], "-o", name)
        return bench.hashes(name)

    return case


def detect_resumed(bench: Bench) -> Hashes:
    """A detection that is killed after its first row of tiles and started again: the bytes of `detect_tiles`."""
    bench.need("detect_tiles")
    arguments = ("detect", *DETECTIONS["detect_tiles"], "-o", "detect_resumed")
    partial = bench.work / ".detect_resumed.partial"
    bench.kill_once(lambda: (partial / "tiles" / "00000.json").exists(), *arguments)
    manifest = json.loads((partial / "manifest.json").read_text(encoding="utf-8"))
    key = hashlib.sha256(
        json.dumps([manifest["format"], manifest["parts"]], sort_keys=True, separators=(",", ":")).encode()
    )
    found = {"manifest.json": digest(json.dumps(plain(manifest, bench.work), sort_keys=True))}
    found["key is that of the content"] = str(key.hexdigest() == manifest["key"])
    bench.run(*arguments)
    record = json.loads((bench.work / "detect_resumed" / "run.json").read_text(encoding="utf-8"))
    found["resumed"] = str(record["tiles"]["from_an_interrupted_run"] > 0)
    result = bench.hashes("detect_resumed")
    same = {name.partition("/")[2]: value for name, value in result.items()}
    straight = {name.partition("/")[2]: value for name, value in bench.found["detect_tiles"].items()}
    found["equal to detect_tiles"] = str(same == straight)
    return found | result


def detect_ray(bench: Bench) -> Hashes:
    """A detection by two workers of Ray: the bytes of `detect_tiles`."""
    bench.need("detect_tiles")
    bench.run("detect", *DETECTIONS["detect_tiles"], "-o", "detect_ray", "--engine", "ray", "--workers", 2)
    return bench.hashes("detect_ray")


def pairs(bench: Bench) -> Hashes:
    """A table of pairs, twice: what is done is not done twice."""
    bench.need("rasters")
    table = "before,after,name\nbefore.tif,after.tif,whole\nbefore.tif,moved.tif,moved\nbefore.tif,far.tif,broken\n"
    (bench.work / "pairs.csv").write_text(table, encoding="utf-8")
    arguments = ("detect", "--pairs", "pairs.csv", "-o", "pairs", "--method", "cva")
    bench.run(*arguments, code=2)
    bench.run(*arguments, code=2)
    outcomes = json.loads((bench.work / "pairs" / "pairs.json").read_text(encoding="utf-8"))
    states = re.findall(r'"state": "(\w+)"', json.dumps(outcomes))
    return bench.hashes("pairs") | {"states": ",".join(states)}


def check(bench: Bench) -> Hashes:
    """The check of a good pair and of one on another grid, misregistered."""
    bench.need("rasters")
    bench.run("check", "before.tif", "after.tif", "-o", "check/same", code=1)
    bench.run("check", "before.tif", "moved.tif", "-o", "check/moved", code=1)
    return bench.hashes("check")


INSTANCES = '''"""A VLM that gives instances: connected components of bright ground."""
from dataclasses import dataclass

import numpy as np
from scipy import ndimage


@dataclass(frozen=True)
class Instance:
    mask: np.ndarray
    prompt: int
    score: float


@dataclass(frozen=True)
class Answer:
    scores_CHW: np.ndarray
    prompts: tuple
    instances: tuple


@dataclass(frozen=True)
class Blobs:
    identity: str = "blobs-1"
    gamma: float = 0.5

    def segment(self, image_HWC, prompts, *, gsd_m=None):
        grey_HW = ndimage.uniform_filter(image_HWC.astype(np.float32).mean(axis=2) / 255, 3)
        first_HW = np.clip(1.6 * grey_HW - 0.2, 0, 1)
        rest_CHW = [np.clip((1 - first_HW) * 0.9**place, 0, 1) for place in range(1, len(prompts))]
        marks_HW, count = ndimage.label(first_HW > 0.55, np.ones((3, 3)))
        found = []
        for number in range(1, count + 1):
            mask_HW = marks_HW == number
            if mask_HW.sum() >= 12:
                found.append(Instance(mask_HW, number % 2, float(first_HW[mask_HW].mean())))
        scores_CHW = np.stack([first_HW, *rest_CHW]).astype(np.float32)
        return Answer(scores_CHW, tuple(prompts), tuple(found))


def build(*, weights=None, device="cpu"):
    return Blobs()
'''


def detect_instances(bench: Bench) -> Hashes:
    """Detections and a store by a VLM that gives instances, from a module of the user's own."""
    bench.need("rasters")
    (bench.work / "blobs.py").write_text(INSTANCES, encoding="utf-8")
    vlm, tiles = ("--vlm", "blobs:build"), ("--tile", 96, "--overlap", 32)
    bench.run("detect", "before.tif", "after.tif", *vlm, *tiles, "-o", "instances/plain")
    looks = ("--min-cosine", 0.6, "--features", "efficientnet_lite0")
    beyond = ("--shift-px", 1, "--replaced-iou", 0.3, "--replaced-class", "--delta", 0.05)
    bench.run("detect", "before.tif", "after.tif", *vlm, *tiles, *looks, *beyond, "-o", "instances/beyond")
    bench.run(
        "detect",
        "before.tif",
        "after.tif",
        *vlm,
        *tiles,
        "--calibrate",
        "-o",
        "instances/calibrated",
    )
    bench.run("pseudo", few_pairs(bench), *vlm, *looks, *beyond, "-o", "instances/store")
    return bench.hashes("instances")


# ------------------------------------------------------------------------------------------------ labels
def pseudo(bench: Bench) -> Hashes:
    """A store of the embedded VLM's answers, with its report; then other labels from the same answers."""
    data = few_pairs(bench)
    bench.run("pseudo", data, "-o", "store", "--report")
    found = bench.hashes("store")
    shutil.copytree(bench.work / "store", bench.work / "store2")
    options = ("--level", "instance", "--delta", 0.05, "--min-cosine", 0.6, "--features", "efficientnet_lite0")
    bench.run("pseudo", data, "-o", "store2", *options, "--workers", 2)
    return found | bench.hashes("store2")


def suggest(bench: Bench) -> Hashes:
    """Which patches to label next, by colours and by features."""
    found: Hashes = {}
    bench.need("detect")
    for name, options in (("suggest", ()), ("suggest_features", ("--features", "efficientnet_lite0"))):
        shutil.copytree(bench.work / "detect", bench.work / name)
        bench.run("suggest", name, "-n", 4, "--patch-px", 64, *options)
        found[f"{name}.gpkg"] = of_vector(bench.work / name / "suggest.gpkg")
    return found


def prepare(bench: Bench) -> Hashes:
    """Training patches from two rasters and polygons."""
    bench.need("rasters")
    files = ("--before", "before.tif", "--after", "after.tif", "--labels", "truth.gpkg")
    more = ("--size-px", 32, "--block-m", 32, "--buffer-px", 4)
    bench.run("prepare", *files, *more, "-o", "prepared/all")
    area = ("--labelled-area", "area.gpkg", "--min-known-frac", 0.5, "--test-frac", 0)
    bench.run("prepare", *files, *more, *area, "-o", "prepared/area")
    return bench.hashes("prepared")


# ------------------------------------------------------------------------------------------------ training
def train(bench: Bench) -> Hashes:
    """Training on labels alone, killed after its first state and resumed, against the same one in one go."""
    path = recipe(
        bench,
        "supervised",
        root=pairs_of(bench),
        method="supervised",
        steps=4,
        every=1,
        more="change_weight = 5.0\ndice_weight = 1.0",
    )
    bench.run("train", path, "-o", "runs/supervised")
    found = bench.hashes("runs/supervised")
    arguments = ("train", path, "-o", "runs/resumed")
    bench.kill_once(lambda: any((bench.work / "runs/resumed/state").glob("[0-9]*")), *arguments)
    bench.run(*arguments)
    resumed = of_tensors(bench.work / "runs/resumed/model.safetensors")
    return found | {"resumed/model.safetensors": resumed}


def train_guided(bench: Bench) -> Hashes:
    """Training guided by the VLM's labels, with a moving average, picture sheets and scores of the test pairs."""
    bench.need("pseudo")
    more = 'change_weight = 5.0\ndice_weight = 1.0\nlambda_vl = 6.0\nvlm_over = "valid"\n\n[pseudo]\nstore = "store"\n'
    path = recipe(bench, "semicd_vl", root=few_pairs(bench), method="semicd_vl", steps=4, more=more, ema=0.9)
    sets = ("sheet_every=2", "train.score_test=true")
    bench.run("train", path, "-o", "runs/semicd_vl", *(part for each in sets for part in ("--set", each)))
    return bench.hashes("runs/semicd_vl")


def methods(bench: Bench) -> Hashes:
    """Every semi-supervised method for two steps, as a benchmark; started again it finds everything done."""
    bench.need("city")
    text = SUITE_HEAD.format(name="methods") + "\n[set.data]\ncrop_px = 64\n"
    text += "[set.model]\nbackbone = 'test_resnet'\npretrained = 'none'\ndecoder_channels = 8\n"
    text += "[set.train]\nsteps = 2\neval_every = 1\nlabelled_batch = 2\nunlabelled_batch = 2\n"
    text += "lr = 0.0005\noptimizer = 'adamw'\n"
    for method in METHODS:
        extra = "\npseudo_start_frac = 0.0" if method in ("semicd_vl", "semivl") else ""
        extra += "\n[train]\nema = 0.9" if method == "mean_teacher" else ""
        content = f'name = "{method}"\n[data]\nroot = "."\n{SMALL_MODEL}\n[method]\nname = "{method}"{extra}\n'
        (bench.work / f"method-{method}.toml").write_text(content, encoding="utf-8")
        text += f'[[methods]]\nname = "{method}"\nrecipe = "method-{method}.toml"\n'
    content = (
        f'name = "semicd"\n[data]\nroot = "."\n{SMALL_MODEL.replace("siam_light", "cct")}\n[method]\nname = "semicd"\n'
    )
    (bench.work / "method-semicd.toml").write_text(content, encoding="utf-8")
    text += '[[methods]]\nname = "semicd"\nrecipe = "method-semicd.toml"\n'
    return _benchmark(bench, "methods", text)


NETWORKS = {
    "deeplab": "backbone = 'test_resnet'\npretrained = 'none'\ndecoder_channels = 8",
    "psp": "backbone = 'test_resnet'\npretrained = 'none'\ndecoder_channels = 8",
    "cct": "backbone = 'test_resnet'\npretrained = 'none'\ndecoder_channels = 8",
    "fc_ef": "width = 4",
    "fc_siam_diff": "width = 4",
    "fc_siam_conc": "width = 4",
    "stanet": "backbone = 'test_resnet'\npretrained = 'none'\ndecoder_channels = 8",
    "snunet": "width = 8",
    "bit": "backbone = 'test_resnet'\npretrained = 'none'\ndecoder_depth = 2",
    "changeformer": "widths = [8, 16, 24, 32]\ndecoder_channels = 8",
    "ban": "foundation = 'test_vit'\nfoundation_px = 64\nbackbone = 'test_resnet'\npretrained = 'none'",
    "siam_unet": "backbone = 'test_resnet'\npretrained = 'none'\ndecoder_channels = 32",
}
"""Network -> its smallest settings."""


def networks(bench: Bench) -> Hashes:
    """Every network for one step on labels alone, as a benchmark."""
    bench.need("city")
    text = SUITE_HEAD.format(name="networks") + "\n[set.data]\ncrop_px = 64\n"
    text += "[set.train]\nsteps = 1\neval_every = 1\nlabelled_batch = 2\nlr = 0.0005\noptimizer = 'adamw'\n"
    for name, options in NETWORKS.items():
        content = (
            f'name = "{name}"\n[data]\nroot = "."\n[model]\nname = "{name}"\n{options}\n[method]\nname = "supervised"\n'
        )
        (bench.work / f"network-{name}.toml").write_text(content, encoding="utf-8")
        text += f'[[methods]]\nname = "{name}"\nrecipe = "network-{name}.toml"\n'
    return _benchmark(bench, "networks", text)


def _benchmark(bench: Bench, name: str, text: str) -> Hashes:
    """Run a suite on the city that is there, twice, and return the hashes without the city's."""
    (bench.work / f"{name}.toml").write_text(text, encoding="utf-8")
    shutil.copytree(bench.work / "city" / "data", bench.work / name / "data")
    bench.run("benchmark", f"{name}.toml", "-o", name, "--jobs", 0)
    written = {path: path.stat().st_mtime_ns for path in (bench.work / name / "jobs").glob("*.result.json")}
    bench.run("benchmark", f"{name}.toml", "-o", name, "--jobs", 0)
    kept = all(path.stat().st_mtime_ns == time_ns for path, time_ns in written.items())
    found = {inner: value for inner, value in bench.hashes(name).items() if "/data/city" not in inner}
    return found | {"nothing was done twice": str(kept)}


def detect_model(bench: Bench) -> Hashes:
    """A trained network's map, and the same from its ONNX file."""
    bench.need("train")
    bench.need("rasters")
    bench.run(
        "detect",
        "before.tif",
        "after.tif",
        "--model",
        "runs/supervised",
        "-o",
        "by_model",
        "--tile",
        128,
        "--overlap",
        32,
    )
    bench.run("export", "runs/supervised", "-o", "model.onnx", "--threshold", 0.4)
    bench.run("detect", "before.tif", "after.tif", "--model", "model.onnx", "-o", "by_onnx")
    found = bench.hashes("by_model", "by_onnx")
    return found | {"model.onnx": of_onnx(bench.work / "model.onnx")}


def evaluate(bench: Bench) -> Hashes:
    """Scores of a run and of maps: against polygons, a mask, and a sample."""
    bench.need("train")
    bench.need("detect")
    found = {
        f"run on {side}": numbers_in(bench.run("evaluate", "runs/supervised", pairs_of(bench), "--split", side))
        for side in ("val", "test")
    }
    for name, options in (
        ("polygons", ("--truth", "truth.gpkg", "--area", "area.gpkg")),
        ("mask", ("--truth", "truth.tif", "--sample", 40)),
        ("sample", ("--sample", 30)),
    ):
        shutil.copytree(bench.work / "detect", bench.work / "evaluated" / name)
        bench.run("evaluate", f"evaluated/{name}", *options)
        for file in ("evaluation.json", "evaluation.gpkg", "sample.gpkg"):
            path = bench.work / "evaluated" / name / file
            if path.exists():
                found |= {f"{name}/{file}{end}": value for end, value in of_file(path, bench.work).items()}
    return found


def adapt(bench: Bench) -> Hashes:
    """Training on a pair without a label, and the network's map of it."""
    bench.need("rasters")
    options = ("--patches", 8, "--patch-px", 64, "--steps", 2, "--backbone", "test_resnet", "--pretrained", "none")
    bench.run(
        "adapt", "before.tif", "after.tif", "-o", "adapted", *options, "--detect", "adapted-out", "--normalise", "match"
    )
    return bench.hashes("adapted", "adapted-out")


def demo(bench: Bench) -> Hashes:
    """The demonstration as it is."""
    bench.run("demo", "-o", "demo")
    return bench.hashes("demo")


CASES: dict[str, Callable[[Bench], Hashes]] = {
    "city": city,
    "rasters": rasters,
    **{name: detection(name) for name in DETECTIONS},
    "detect_resumed": detect_resumed,
    "detect_instances": detect_instances,
    "pairs": pairs,
    "check": check,
    "pseudo": pseudo,
    "suggest": suggest,
    "prepare": prepare,
    "train": train,
    "train_guided": train_guided,
    "methods": methods,
    "networks": networks,
    "detect_model": detect_model,
    "evaluate": evaluate,
    "adapt": adapt,
    "detect_ray": detect_ray,
    "demo": demo,
}
SLOW = ("detect_ray", "demo")
"""Cases that run only when they are named, or with --slow."""


# ------------------------------------------------------------------------------------------------ comparison
def differences(before: dict[str, Hashes], after: dict[str, Hashes]) -> Iterator[tuple[bool, str]]:
    """Yield what differs in the cases that both have, and whether it counts."""
    for case in [name for name in after if name in before]:
        if not after[case]:
            yield True, f"{case}: failed"
        for name in sorted(before[case].keys() | after[case].keys()):
            was, now = before[case].get(name), after[case].get(name)
            if was != now and after[case]:
                what = "is missing now" if now is None else "is new" if was is None else "differs"
                yield not name.endswith(" words"), f"{case}: {name} {what}"


def chosen(text: str | None, *, slow: bool) -> list[str]:
    """Return the cases that are asked for.

    Raises:
        SystemExit: there is no such case.
    """
    names = text.split(",") if text else [name for name in CASES if slow or name not in SLOW]
    if unknown := [name for name in names if name not in CASES]:
        raise SystemExit(f"unknown cases: {', '.join(unknown)}. Known: {', '.join(CASES)}.")
    return names


def main() -> None:
    """Run the cases, write their hashes and compare them."""
    parser = argparse.ArgumentParser(description="Hash what every command writes.")
    parser.add_argument("--out", type=Path, help="file to write the hashes to")
    parser.add_argument("--compare", type=Path, help="file of hashes to compare with")
    parser.add_argument("--cases", help="names with commas in between; else all but the slow ones")
    parser.add_argument("--slow", action="store_true", help=f"also run {', '.join(SLOW)}")
    parser.add_argument("--work", type=Path, help="folder to keep everything in; else a temporary one")
    parser.add_argument("--list", action="store_true", help="list the cases")
    given = parser.parse_args()
    start_fresh()
    if given.list:
        print("\n".join(f"{name}{' (slow)' if name in SLOW else ''}" for name in CASES))
        return
    names = chosen(given.cases, slow=given.slow)
    work = (given.work or Path(tempfile.mkdtemp(prefix="semicdvl-hashes-"))).resolve()
    if work.exists() and any(work.iterdir()):
        raise SystemExit(f"{work}: is not empty. Give a new folder.")
    work.mkdir(parents=True, exist_ok=True)
    bench = Bench(work)
    try:
        for name in names:
            try:
                bench.need(name)
            except CaseError as error:
                print(f"FAILED {error}", file=sys.stderr, flush=True)
    finally:
        if given.work is None:
            shutil.rmtree(work, ignore_errors=True)
    if given.out:
        given.out.write_text(json.dumps(bench.found, indent=1) + "\n", encoding="utf-8")
    print(f"{len(bench.found)} cases in {sum(bench.seconds.values()):.0f} s")
    if given.compare:
        before = json.loads(given.compare.read_text(encoding="utf-8"))
        lines = list(differences(before, bench.found))
        print("\n".join(f"{'DIFFERS' if counts else 'words  '}  {line}" for counts, line in lines) or "nothing differs")
        sys.exit(any(counts for counts, _ in lines))


if __name__ == "__main__":
    main()
