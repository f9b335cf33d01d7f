"""Detection without labels, one option at a time: the effect of each by itself, and of all of them together.

    python benchmarks/zero_label.py ../shared/data -o runs/zero --pairs 4
    python benchmarks/zero_label.py ../shared/data -o runs/zero --cities 20 21 22 23 --pairs 0
    python benchmarks/zero_label.py ../shared/data -o runs/levels --cities --rows default residual --sources \
        levir levir_crops fotbcd fotbcd_instances

Data: synthetic cities (`--cities`, by seed), and real pairs whose labels show building change (levir, fotbcd). The
prompts are buildings at about 0.5 m per pixel, so pairs of coarser pixels or of any change are left to
`benchmarks/classic.py`. Every row runs through the tiles of `detect` in a process of its own; rows in which
the VLM sees the same pixels share its scores, and each counts their time in full. Scores are those of the pooled counts
of the changed class. Time is CPU time per megapixel of reading, VLM and decision; memory is the maximum resident size
of the processes involved, with libraries. After an interruption the same command continues with the missing rows.

`--sheet FILE.jpg` draws a crop of every city, one row per option.
"""

from __future__ import annotations

import argparse
import itertools
import json
import resource
import subprocess
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from rich.console import Console

from classic import ANYTHING, BUILDINGS, CITY_SEEDS, GSD_M, SCORES, Case, color_errors, draw_page, list_cases
from semicdvl.data.labels.files import read_mask
from semicdvl.detection.tiles.score_store import ScoreStore
from semicdvl.detection.tiles.tile_runner import PairTileReader, run_tiles
from semicdvl.errors import DataError
from semicdvl.metrics.change import ConfusionCounts
from semicdvl.raster.io.pair_reader import RasterPair
from semicdvl.raster.tiling import plan_tiles
from semicdvl.types import Detector, ReadingSettings

TILE_PX, OVERLAP_PX = 1024, 128
"""The defaults of `detect`."""


@dataclass(frozen=True)
class Row:
    """One configuration of the detection.

    Attributes:
        ceg: settings of change event generation beside the defaults of `detect`.
        normalise: see `detect --normalise`.
        align: see `detect --align`.
        calibrate: keep objects that are probably changed only.
        adapt: detect with a student that learned from the pair's own pseudo labels.
    """

    ceg: dict[str, Any] = field(default_factory=dict)
    normalise: str = "none"
    align: bool = False
    calibrate: bool = False
    adapt: bool = False

    @property
    def asked(self) -> str:
        """Name of what the VLM is asked about: rows of one name share its answers."""
        features = f"-{self.ceg['features']}" if "features" in self.ceg else ""
        features += "-residual" if self.ceg.get("level") == "residual" else ""
        return f"{self.normalise}-{'aligned' if self.align else 'as_is'}{features}{'-adapted' if self.adapt else ''}"


SIMILARITY = {"min_cosine": 0.5, "features": "efficientnet_lite0"}
ROWS = {
    "default": Row(),  # of the options of whole objects: the instance level
    "normalise match": Row(normalise="match"),
    "align": Row(align=True),
    "shift-px 2": Row({"shift_px": 2}),
    "replaced-iou 0.3": Row({"replaced_iou": 0.3}),
    "calibrate": Row(calibrate=True),
    "min-cosine 0.5": Row(SIMILARITY),
    "all together": Row(SIMILARITY, normalise="match", align=True, calibrate=True),
}
"""The default of `--rows`. The last row leaves out `--shift-px`, which does for pairs that are not
aligned what `--align` does, and `--replaced-iou`, whose objects `--min-cosine` recognises by their features."""
LATER = {
    "residual": Row({"level": "residual"}),
    "replaced-class": Row({"replaced_class": True}),
    "normalise match, calibrate": Row(normalise="match", calibrate=True),
    "adapt": Row(adapt=True),
}
"""Rows that run when they are named."""


# ------------------------------------------------------------------------------------------------ one row
def detector_of(row: Row) -> Detector:
    """Return the detector with the options of a row."""
    from semicdvl.ceg.config import CEGSettings
    from semicdvl.ceg.features import build_feature_extractor
    from semicdvl.ceg.prompts import PROMPT_SETS
    from semicdvl.detection.detectors.vlm_ceg import build_default_detector
    from semicdvl.vlms.aerial.build import build_aerial

    vlm, ceg = build_aerial(), dict(row.ceg)
    name = ceg.pop("features", None)
    ceg = {"level": "instance", **ceg}
    settings = CEGSettings(gamma=vlm.gamma, gamma_segmentation=vlm.gamma, **ceg)
    features = None if name is None else build_feature_extractor(name)
    detector = build_default_detector(vlm, prompts=PROMPT_SETS["buildings"], settings=settings, features=features)
    if row.calibrate:
        from semicdvl.detection.detectors.calibrated import add_calibration

        return add_calibration(detector)
    return detector


def train_student(case: Case, run: Path) -> Detector:
    """Return a network that was trained on the pair's own pseudo-labels (`semicdvl adapt`, its defaults).

    Raises:
        DataError: the VLM detects nothing to learn from.
    """
    from semicdvl.ceg.config import CEGSettings
    from semicdvl.ceg.prompts import PROMPT_SETS
    from semicdvl.detection.config import DetectionConfig
    from semicdvl.detection.detectors.network import build_network_detector
    from semicdvl.training.self_training import AdaptConfig, adapt_to_pair
    from semicdvl.training.self_training.labels import default_gamma_of
    from semicdvl.vlms.aerial.build import build_aerial

    vlm = build_aerial()
    gamma = default_gamma_of(vlm)
    ceg = CEGSettings(gamma=gamma, gamma_segmentation=gamma)
    asked = {"vlm": vlm, "prompts": PROMPT_SETS["buildings"], "ceg": ceg, "console": Console(quiet=True)}
    config = AdaptConfig(detection=DetectionConfig(gsd_m=GSD_M[case.data]))
    adapt_to_pair(case.before, case.after, run, config=config, **asked)
    return build_network_detector(run)


def open_pair_for(row: Row, case: Case) -> RasterPair:
    """Open a pair as `detect` does with the options of a row."""
    from semicdvl.detection.config import DetectionConfig
    from semicdvl.detection.pair_check.check import open_checked_pair
    from semicdvl.raster.io.open_pair import open_pair

    if row.align:
        config = DetectionConfig(normalise=row.normalise, align=True)
        return open_checked_pair(case.before, case.after, config=config).pair
    return open_pair(case.before, case.after, ReadingSettings(normalise=row.normalise))


def get_answers(row: Row, case: Case, detector: Detector, room: Path) -> tuple[ScoreStore, RasterPair, dict[str, Any]]:
    """Return the VLM's answers about a pair, from an earlier row where it saw the same pixels, and their cost."""
    start = time.process_time()
    pair = open_pair_for(row, case)
    cut = plan_tiles(*pair.shape_hw, tile_px=TILE_PX, overlap_px=OVERLAP_PX)
    store = ScoreStore(room, cut, map_count=detector.map_count)
    opened_s = time.process_time() - start
    cost_path = room / "cost.txt"
    if not cost_path.exists():
        room.mkdir(parents=True, exist_ok=True)
        start = time.process_time()
        run_tiles(store, pair, detector, gsd_m=GSD_M[case.data], console=Console(quiet=True))
        cost_path.write_text(json.dumps({"cpu_s": time.process_time() - start, "peak_mib": peak_mib()}))
    cost = json.loads(cost_path.read_text())
    return store, pair, cost | {"cpu_s": cost["cpu_s"] + opened_s}


def run_row(name: str, row: Row, every: list[Case], out: Path) -> None:
    """Run one row on every pair; write its counts, time and memory, and its maps."""
    detector = detector_of(row)
    lines, peaks = [], []
    for case in every:
        start = time.process_time()
        if row.adapt:
            try:
                detector = train_student(case, out / "runs" / f"{case.data}-{case.name}")
            except DataError as error:
                print(f"{name}: {case.data} {case.name} left out: {error}", flush=True)
                continue
        trained_s = time.process_time() - start
        with ExitStack() as held:
            store, pair, cost = get_answers(
                row, case, detector, out / "answers" / row.asked / f"{case.data}-{case.name}"
            )
            held.enter_context(pair)
            start = time.process_time()
            maps = list(detector.prepare(PairTileReader(pair, tile_px=TILE_PX, gsd_m=GSD_M[case.data])).decide(store))
            seconds = trained_s + cost["cpu_s"] + time.process_time() - start
            place = slice(pair.row, pair.row + pair.grid.height), slice(pair.col, pair.col + pair.grid.width)
        change_HW = np.concatenate([part.change_HW for part in maps])
        truth_HW = read_mask(case.label)
        counts = ConfusionCounts.from_maps(change_HW, truth_HW[place])
        lines.append({"data": case.data, "name": case.name, "px": truth_HW.size, "cpu_s": seconds, **vars(counts)})
        peaks.append(max(cost["peak_mib"], peak_mib()))
        whole_HW = np.full(truth_HW.shape, 255, np.uint8)
        whole_HW[place] = change_HW
        (out / "maps" / _file(name)).mkdir(parents=True, exist_ok=True)
        Image.fromarray(whole_HW).save(out / "maps" / _file(name) / f"{case.data}-{case.name}.png")
        print(f"{name:20s} {case.data} {case.name}: IoU {counts.iou:.3f}, {seconds:.1f} CPU s", flush=True)
    (out / f"{_file(name)}.json").write_text(json.dumps({"peak_mib": max(peaks), "pairs": lines}, indent=1))


def peak_mib() -> float:
    """Return the peak memory of this process."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _file(name: str) -> str:
    return name.replace(" ", "_").replace(".", "_")


# ------------------------------------------------------------------------------------------------ tables
def render_tables(names: list[str], out: Path, *, sources: tuple[str, ...]) -> str:
    """Return one Markdown table for the cities and one for the real pairs of some sources."""
    files = {name: out / f"{_file(name)}.json" for name in names}
    done = {name: json.loads(path.read_text()) for name, path in files.items() if path.exists()}
    text = []
    for title, sets in (("synthetic cities", ("city",)), ("building change", sources), ("any change", ANYTHING)):
        columns = [title, "IoU^c", "F1", "precision", "recall", "CPU s/Mpx", "peak MiB"]
        columns += [f"IoU^c of {name}" for name in sets] if len(sets) > 1 else []
        rows = [(name, record) for name, record in done.items() if _lines(record, sets)]
        if rows:
            text += ["| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]
        for name, record in rows:
            by_set = [f"{_pool_counts(record, (each,)).iou:.3f}" for each in sets] if len(sets) > 1 else []
            text.append("| " + " | ".join([_code(name), *_format_cells(record, sets), *by_set]) + " |")
        text.append("")
    return "\n".join(text)


def _code(name: str) -> str:
    if name in ("adapt", "residual"):
        return "`semicdvl adapt`" if name == "adapt" else "`--level residual`"
    return f"`--{name}`" if name in ROWS | LATER and name not in ("default", "all together") else name


def _lines(record: dict[str, Any], sets: tuple[str, ...]) -> list[dict[str, Any]]:
    return [line for line in record["pairs"] if line["data"] in sets]


def _pool_counts(record: dict[str, Any], sets: tuple[str, ...]) -> ConfusionCounts:
    """Return the pooled counts of some data sets."""
    counts = (ConfusionCounts(*(line[key] for key in ("tn", "fp", "fn", "tp"))) for line in _lines(record, sets))
    return sum(counts, ConfusionCounts())


def _format_cells(record: dict[str, Any], sets: tuple[str, ...]) -> list[str]:
    """Return scores, time and memory of some data sets as cells."""
    scores, parts = _pool_counts(record, sets).list_scores(), _lines(record, sets)
    pace = sum(line["cpu_s"] for line in parts) / (sum(line["px"] for line in parts) / 1e6)
    return [*(f"{scores[name]:.3f}" for name in SCORES), f"{pace:.1f}", f"{record['peak_mib']:.0f}"]


# ------------------------------------------------------------------------------------------------ reliability
EDGES = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0)
"""Borders of the bins of probabilities."""


def render_reliability(every: list[Case], out: Path) -> str:
    """Return a Markdown table: are objects of a probability p changes in a share p of the cases?

    All objects that were judged count, those that `--calibrate` leaves out, too. An object is a change if more than
    half of its pixels are.
    """
    from scipy import ndimage

    from semicdvl.detection.detectors.calibrated import add_calibration

    row = Row()
    detector = replace(add_calibration(detector_of(row)), min_probability=0.0)
    found: dict[str, list[tuple[float, bool]]] = {}
    for case in every:
        store, pair, _ = get_answers(row, case, detector, out / "answers" / row.asked / f"{case.data}-{case.name}")
        with pair:
            maps = list(detector.decide(store))
        probability_HW = np.concatenate([part.probability_HW for part in maps])
        labels_HW, many = ndimage.label(np.concatenate([part.change_HW for part in maps]) == 1, np.ones((3, 3)))
        if many:
            truth_HW = read_mask(case.label) == 1
            means = [ndimage.mean(each, labels_HW, np.arange(1, many + 1)) for each in (probability_HW, truth_HW)]
            judged = [(p, share > 0.5) for p, share in zip(*means, strict=True) if np.isfinite(p)]
            found.setdefault("synthetic cities" if case.data == "city" else "real pairs", []).extend(judged)
    lines = ["| data | probability | objects | mean probability | share that changed |", "|---" * 5 + "|"]
    return "\n".join([*lines, *(line for kind, judged in found.items() for line in _format_bins(kind, judged))])


def _format_bins(kind: str, judged: list[tuple[float, bool]]) -> list[str]:
    """Return a row per bin of probabilities, and one for all."""
    p_N, true_N = np.array([p for p, _ in judged]), np.array([true for _, true in judged])
    lines, error = [], 0.0
    for low, high in itertools.pairwise(EDGES):
        inside_N = (p_N >= low) & ((p_N < high) | (high == 1))
        if inside_N.any():
            mean, share = p_N[inside_N].mean(), true_N[inside_N].mean()
            error += inside_N.mean() * abs(mean - share)
            lines.append(f"| {kind} | {low:g} - {high:g} | {inside_N.sum()} | {mean:.2f} | {share:.2f} |")
    last = f"| {kind} | all; calibration error {error:.3f} | {len(p_N)} | {p_N.mean():.2f} | {true_N.mean():.2f} |"
    return [*lines, last]


# ------------------------------------------------------------------------------------------------ sheet
CROP_PX = 384


def draw_sheet(names: list[str], every: list[Case], out: Path, path: Path) -> None:
    """Draw one row per option: its map in a crop of every city, coloured by agreement with the truth.

    Real pairs are not drawn: their images may not be published.
    """
    shown = [case for case in every if case.data == "city"]
    some = [(case, *_find_busiest_crop(read_mask(case.label) == 1)) for case in shown]
    rows = [("before", [_crop(np.asarray(Image.open(case.before).convert("RGB")), *at) for case, *at in some])]
    rows.append(("after", [_crop(np.asarray(Image.open(case.after).convert("RGB")), *at) for case, *at in some]))
    done = [name for name in names if (out / f"{_file(name)}.json").exists()]
    rows += [(name, [_draw_answer(name, case, out, *at) for case, *at in some]) for name in done]
    draw_page(rows, path)


def _find_busiest_crop(changed_HW: np.ndarray) -> tuple[int, int]:
    """Return row and column of the crop with most change, out of a coarse raster of crops."""
    steps = [range(0, max(size - CROP_PX, 0) + 1, 64) for size in changed_HW.shape]
    places = [(row, col) for row in steps[0] for col in steps[1]]
    return max(places, key=lambda place: int(_crop(changed_HW, *place).sum()))


def _crop(image: np.ndarray, row: int, col: int) -> np.ndarray:
    return image[row : row + CROP_PX, col : col + CROP_PX]


def _draw_answer(name: str, case: Case, out: Path, row: int, col: int) -> np.ndarray:
    """Return a crop of a map in colours."""
    found_HW = _crop(np.asarray(Image.open(out / "maps" / _file(name) / f"{case.data}-{case.name}.png")), row, col) == 1
    truth_HW = _crop(read_mask(case.label), row, col) == 1
    return color_errors(found_HW, truth_HW)


# ------------------------------------------------------------------------------------------------ command
def main() -> None:
    """Read the options, run what is missing, print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder that holds levir/ and fotbcd/, each with A/ B/ label/")
    parser.add_argument("-o", "--out", type=Path, default=Path("runs/zero"))
    parser.add_argument("--rows", nargs="+", default=list(ROWS), help=f"of {', '.join([*ROWS, *LATER])}")
    parser.add_argument("--cities", nargs="*", type=int, default=list(CITY_SEEDS), help="seeds")
    parser.add_argument("--pairs", type=int, default=1000, help="maximum number of pairs per real data set")
    parser.add_argument("--sources", nargs="+", default=list(BUILDINGS), help="data sets that show building change")
    parser.add_argument("--anything", action="store_true", help="only the pairs with change of any kind")
    parser.add_argument("--sheet", type=Path, help="picture to draw, .jpg or .png")
    parser.add_argument("--reliability", action="store_true", help="also: are the probabilities right?")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    sources, seeds = tuple(options.sources), tuple(options.cities)
    every = list_cases(options.data, options.out, most=options.pairs, seeds=seeds, names=(*sources, *ANYTHING))
    asked = {str(seed) for seed in options.cities}
    wanted = ANYTHING if options.anything else sources
    every = [case for case in every if case.data in wanted or (case.data == "city" and case.name in asked)]
    if options.one:
        run_row(options.one, (ROWS | LATER)[options.one], every, options.out)
        return
    for name in options.rows:
        if not (options.out / f"{_file(name)}.json").exists():
            subprocess.run([sys.executable, *sys.argv, f"--one={name}"], check=True)
    print(render_tables(options.rows, options.out, sources=sources))
    if options.reliability:
        print(render_reliability(every, options.out))
    if options.sheet:
        draw_sheet(options.rows, every, options.out, options.sheet)


if __name__ == "__main__":
    main()
