"""Detectors without labels side by side: every unsupervised method that runs offline, and the embedded VLM with CEG.

    python benchmarks/classic.py ../shared/data -o runs/classic            # --pairs N: most pairs of a data set

Data: synthetic cities, and real pairs (levir, fotbcd: building change; sztaki, dsifn, oscd: change of any kind) in
their folders. Every method runs with its defaults, one threshold per pair, through the tiles of `detect`, in a process
of its own; nothing was tuned on these pairs. Scores are those of the pooled counts of the changed class. Time is CPU
time of fitting, maps and decision per megapixel; memory is the maximum resident size of the process, with libraries.
After an interruption the same command continues with the missing methods. Methods that need weights from a model hub
run if they are named with their weights: `--methods any_change --set any_change.sam=DIR`.

`--sheet FILE.jpg` draws two crops of the cities with the result of each method.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from rich.console import Console

from semicdvl.data.labels.files import read_mask
from semicdvl.data.readers import folder
from semicdvl.metrics.change import ConfusionCounts
from semicdvl.reports.colours import OUTCOME_COLOURS
from semicdvl.synthetic.config import CitySpec
from semicdvl.synthetic.generate import generate_city
from semicdvl.types import Detector

OFFLINE = ("cva", "log_ratio", "irmad", "pca_km", "dsfa", "cnn_cd", "dcva", "gmcd")
"""Methods that need no weights, or those of the package in the extra `offline`."""
AERIAL = "aerial + CEG"
GSD_M = {"city": 0.5, "levir": 0.5, "fotbcd": 0.2, "sztaki": 1.5, "dsifn": 2.0, "oscd": 10.0}
GSD_M |= {"levir_crops": 0.5, "fotbcd_instances": 0.2}
"""Data set -> metres per pixel, for the VLM."""
BUILDINGS, ANYTHING = ("levir", "fotbcd"), ("sztaki", "dsifn", "oscd")
"""Real pairs whose labels show building change, and change of any kind."""
CITY_SEEDS = (4001, 4002)
SCORES = ("iou", "f1", "precision", "recall")


@dataclass(frozen=True)
class Case:
    """One labelled pair."""

    data: str
    name: str
    before: Path
    after: Path
    label: Path


# ------------------------------------------------------------------------------------------------ pairs
def list_cases(
    root: Path,
    out: Path,
    *,
    most: int,
    seeds: tuple[int, ...] = CITY_SEEDS,
    names: tuple[str, ...] = (*BUILDINGS, *ANYTHING),
) -> list[Case]:
    """Make the cities below `out`, if not done, and list all pairs."""
    for seed in seeds:
        if not (out / "city" / "label" / f"{seed}.png").exists():
            city = generate_city(CitySpec(seed=seed))
            for side, image in (("A", city.t1_HWC), ("B", city.t2_HWC), ("label", city.change_HW * 255)):
                (out / "city" / side).mkdir(parents=True, exist_ok=True)
                Image.fromarray(image).save(out / "city" / side / f"{seed}.png")
    found = []
    places = {"city": out / "city"} if seeds else {}
    for data, where in (places | {name: root / name for name in names}).items():
        if not (where / "A").is_dir():
            print(f"{data}: not at {where}, left out", flush=True)
            continue
        pairs = folder.read_folder(where).pairs
        asked = {str(seed) for seed in seeds}  # other cities may lie there from other calls
        for pair in [one for one in pairs if one.name in asked] if data == "city" else pairs[:most]:
            assert pair.label is not None, "these pairs all have labels"
            found.append(Case(data, pair.name, pair.before, pair.after, pair.label))
    return found


# ------------------------------------------------------------------------------------------------ one method
def detector_of(method: str, options: dict[str, Any]) -> Detector:
    """Return a detector by its name in the table."""
    if method != AERIAL:
        from semicdvl.detection.detectors.unsupervised import build_unsupervised_detector

        return build_unsupervised_detector(method, options)
    from semicdvl.ceg.config import CEGSettings
    from semicdvl.ceg.prompts import PROMPT_SETS
    from semicdvl.detection.detectors.vlm_ceg import build_vlm_detector
    from semicdvl.vlms.aerial.build import build_aerial

    vlm = build_aerial()
    return build_vlm_detector(
        vlm, prompts=PROMPT_SETS["buildings"], settings=CEGSettings(level="instance", gamma=vlm.gamma)
    )


def detect_pair(case: Case, detector: Detector) -> tuple[np.ndarray, np.ndarray]:
    """Return change and score of a whole pair, by the same steps as `semicdvl detect` without its files."""
    from semicdvl.detection.tiles.score_store import ScoreStore
    from semicdvl.detection.tiles.tile_runner import PairTileReader, run_tiles
    from semicdvl.raster.io.open_pair import open_pair
    from semicdvl.raster.tiling import plan_tiles

    gsd_m = GSD_M[case.data]
    with open_pair(case.before, case.after) as pair, tempfile.TemporaryDirectory() as room:
        ready = detector.prepare(PairTileReader(pair, tile_px=1024, gsd_m=gsd_m))
        cut = plan_tiles(*pair.shape_hw, tile_px=1024, overlap_px=128)
        store = ScoreStore(Path(room), cut, map_count=ready.map_count)
        run_tiles(store, pair, ready, gsd_m=gsd_m, console=Console(quiet=True))
        maps = list(ready.decide(store))
    return np.concatenate([part.change_HW for part in maps]), np.concatenate([part.score_HW for part in maps])


def run_one(method: str, every: list[Case], out: Path, options: dict[str, Any]) -> None:
    """Run one method on every pair and write its counts, time and memory; keep its maps of the cities.

    The VLM detects buildings and needs about 0.5 m per pixel: it does not run on the other pairs.
    """
    detector = detector_of(method, options)
    every = [case for case in every if method != AERIAL or case.data not in ANYTHING]
    lines = []
    for case in every:
        start = time.process_time()
        change_HW, score_HW = detect_pair(case, detector)
        seconds = time.process_time() - start
        counts = ConfusionCounts.from_maps(change_HW, read_mask(case.label))
        lines.append({"data": case.data, "name": case.name, "px": change_HW.size, "cpu_s": seconds, **vars(counts)})
        if case.data == "city":
            np.savez_compressed(out / f"{_file_stem(method)}-{case.name}.npz", change_HW=change_HW, score_HW=score_HW)
        print(f"{method:14s} {case.data} {case.name}: IoU {counts.iou:.3f}, {seconds:.1f} CPU s", flush=True)
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    (out / f"{_file_stem(method)}.json").write_text(json.dumps({"peak_mib": peak_mib, "pairs": lines}, indent=1))


def _file_stem(method: str) -> str:
    return method.replace(" + ", "-")


# ------------------------------------------------------------------------------------------------ tables
def render_tables(methods: list[str], out: Path) -> str:
    """Return one Markdown table for the cities, one for building change and one for any change."""
    files = {method: out / f"{_file_stem(method)}.json" for method in methods}
    done = {method: json.loads(path.read_text()) for method, path in files.items() if path.exists()}
    text = []
    for title, sets in (("synthetic cities", ("city",)), ("building change", BUILDINGS), ("any change", ANYTHING)):
        columns = [title, "IoU^c", "F1", "precision", "recall", "CPU s/Mpx", "peak MiB"]
        columns += [f"IoU^c of {name}" for name in sets] if len(sets) > 1 else []
        text += ["| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]
        for method, record in done.items():
            if any(line["data"] in sets for line in record["pairs"]):
                by_set = [f"{_pool_counts(record, (name,)).iou:.3f}" for name in sets] if len(sets) > 1 else []
                text.append("| " + " | ".join([method, *_format_cells(record, sets), *by_set]) + " |")
        text.append("")
    return "\n".join(text)


def _pool_counts(record: dict[str, Any], sets: tuple[str, ...]) -> ConfusionCounts:
    """Return the pooled counts of some data sets."""
    parts = [line for line in record["pairs"] if line["data"] in sets]
    return sum((ConfusionCounts(*(line[key] for key in ("tn", "fp", "fn", "tp"))) for line in parts), ConfusionCounts())


def _format_cells(record: dict[str, Any], sets: tuple[str, ...]) -> list[str]:
    """Return scores, time and memory of some data sets as cells."""
    scores, parts = _pool_counts(record, sets).list_scores(), [line for line in record["pairs"] if line["data"] in sets]
    pace = sum(line["cpu_s"] for line in parts) / (sum(line["px"] for line in parts) / 1e6)
    return [*(f"{scores[name]:.3f}" for name in SCORES), f"{pace:.1f}", f"{record['peak_mib']:.0f}"]


# ------------------------------------------------------------------------------------------------ sheet
CROP_PX, CELL_PX, LEFT_PX, TOP_PX = 320, 164, 104, 22
CROPS = ((0, 64, 64), (1, 352, 480))
"""City, row and column of the crops on the sheet."""
RIGHT, WRONG, MISSED = OUTCOME_COLOURS.values()


def draw_sheet(methods: list[str], every: list[Case], out: Path, path: Path) -> None:
    """Draw one row per method: its score and its map of each crop, coloured by agreement with the truth."""
    cities = [case for case in every if case.data == "city"]
    rows = [("before, after", list(_read_crops(cities)))]
    rows += [
        (method, list(_read_maps(method, cities, out)))
        for method in methods
        if list(out.glob(f"{_file_stem(method)}-*.npz"))
    ]
    draw_page(rows, path)


def draw_page(rows: list[tuple[str, list[np.ndarray]]], path: Path) -> None:
    """Draw rows of a title and square pictures under the legend of `color_errors`, and write them as one picture."""
    size = LEFT_PX + max(len(cells) for _, cells in rows) * CELL_PX, TOP_PX + len(rows) * CELL_PX
    page = Image.new("RGB", size, "white")
    pen, font = ImageDraw.Draw(page), ImageFont.load_default(13)
    for at, (colour, text) in enumerate(((RIGHT, "correct"), (WRONG, "false"), (MISSED, "missed"))):
        pen.rectangle((LEFT_PX + 85 * at, 5, LEFT_PX + 85 * at + 12, 17), fill=colour)
        pen.text((LEFT_PX + 85 * at + 17, 3), text, fill="black", font=font)
    for row, (title, cells) in enumerate(rows):
        top = TOP_PX + row * CELL_PX
        pen.text((4, top + CELL_PX // 2 - 8), title, fill="black", font=font)
        for col, cell_HWC in enumerate(cells):
            picture = Image.fromarray(cell_HWC).resize((CELL_PX - 4, CELL_PX - 4), Image.Resampling.BOX)
            page.paste(picture, (LEFT_PX + col * CELL_PX, top))
    path.parent.mkdir(parents=True, exist_ok=True)
    page.save(path, quality=72)


def color_errors(found_HW: np.ndarray, truth_HW: np.ndarray) -> np.ndarray:
    """Return a map in colours by agreement with the truth."""
    picture_HWC = np.full((*truth_HW.shape, 3), 245, np.uint8)
    picture_HWC[found_HW & truth_HW] = RIGHT
    picture_HWC[found_HW & ~truth_HW] = WRONG
    picture_HWC[~found_HW & truth_HW] = MISSED
    return picture_HWC


def _crop(image: np.ndarray, row: int, col: int) -> np.ndarray:
    return image[row : row + CROP_PX, col : col + CROP_PX]


def _read_crops(cities: list[Case]) -> Iterator[np.ndarray]:
    """Give both dates of every crop."""
    for city, row, col in CROPS:
        for path in (cities[city].before, cities[city].after):
            yield _crop(np.asarray(Image.open(path)), row, col)


def _read_maps(method: str, cities: list[Case], out: Path) -> Iterator[np.ndarray]:
    """Give a method's score (white 0, black 1) and its map of every crop."""
    for city, row, col in CROPS:
        with np.load(out / f"{_file_stem(method)}-{cities[city].name}.npz") as found:
            score_HW, change_HW = (_crop(found[name], row, col) for name in ("score_HW", "change_HW"))
        yield np.repeat((255 * (1 - np.nan_to_num(score_HW)))[..., None], 3, axis=2).astype(np.uint8)
        truth_HW, found_HW = _crop(read_mask(cities[city].label), row, col) == 1, change_HW == 1
        yield color_errors(found_HW, truth_HW)


# ------------------------------------------------------------------------------------------------ command
def main() -> None:
    """Read the options, run what is missing, print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder that holds levir/, fotbcd/, ... each with A/ B/ label/")
    parser.add_argument("-o", "--out", type=Path, default=Path("runs/classic"))
    parser.add_argument("--methods", nargs="+", default=[*OFFLINE, AERIAL])
    parser.add_argument("--set", nargs="*", default=[], help="option of a method: any_change.sam=DIR")
    parser.add_argument("--pairs", type=int, default=1000, help="maximum number of pairs per data set")
    parser.add_argument("--sheet", type=Path, help="picture to draw, .jpg or .png")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    every = list_cases(options.data, options.out, most=options.pairs)
    if options.one:
        chosen = [text.partition(".")[2] for text in options.set if text.startswith(f"{options.one}.")]
        run_one(options.one, every, options.out, _parse_options(chosen))
        return
    for method in options.methods:
        if not (options.out / f"{_file_stem(method)}.json").exists():
            subprocess.run([sys.executable, *sys.argv, "--one", method], check=True)
    print(render_tables(options.methods, options.out))
    if options.sheet:
        draw_sheet(options.methods, every, options.out, options.sheet)


def _parse_options(texts: list[str]) -> dict[str, Any]:
    """Return `key=value` texts as options, as the command line does."""
    from semicdvl.detection.detectors.unsupervised import parse_method_options

    return parse_method_options(texts)


if __name__ == "__main__":
    main()
