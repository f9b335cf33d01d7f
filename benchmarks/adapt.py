"""Self-training from zero labels against the labels that it learns from.

    python benchmarks/adapt.py -o runs/adapt --seeds 0 1 2                     # synthetic cities
    python benchmarks/adapt.py -o runs/adapt-levir --real ../shared/data/levir --gsd 0.5 --most 1    # a folder of pairs

For each pair: `semicdvl detect` without labels (embedded VLM, its default level), the labels that `semicdvl adapt`
learns from (over all pixels, unreliable ones taken as unchanged, and over those that have a label), the adapted
network's own map (`semicdvl detect --model RUN`), and both maps combined (`semicdvl adapt --detect`). IoU of the
changed class over the whole pair: the network has seen all of it, as the labels have; the truth is used for the scores
only. Interrupted, the same command resumes.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rich.console import Console

from semicdvl.atomic_files import write_json
from semicdvl.ceg.config import CEGLevel, CEGSettings
from semicdvl.ceg.prompts import PROMPT_SETS
from semicdvl.data.labels.files import read_mask
from semicdvl.data.readers import folder
from semicdvl.detection.config import DetectionConfig
from semicdvl.detection.detectors.vlm_ceg import build_default_detector
from semicdvl.detection.pipeline import write_detection
from semicdvl.metrics.change import ConfusionCounts
from semicdvl.pseudo_labels.store import PseudoLabelStore
from semicdvl.reading.json_files import read_json
from semicdvl.synthetic.config import CitySpec
from semicdvl.synthetic.generate import generate_city
from semicdvl.synthetic.write import write_city
from semicdvl.training.self_training import AdaptConfig, adapt_to_pair
from semicdvl.training.self_training.labels import default_gamma_of
from semicdvl.training.self_training.run import detect_with_adapted
from semicdvl.types import IGNORE
from semicdvl.vlms.aerial.build import build_aerial

WORDS = PROMPT_SETS["buildings"]
COLUMNS = ("zero labels", "labels, all pixels", "labels, where given", "adapted", "combined")
DIFFERENCES = (("adapted", COLUMNS[0]), ("combined", COLUMNS[0]))
"""What is compared with what: maps of the whole pair."""


@dataclass(frozen=True)
class Case:
    """A pair with its truth."""

    name: str
    before: Path
    after: Path
    truth_HW: NDArray[np.uint8]


def render_cities(out: Path, seeds: list[int], size_px: int) -> Iterator[Case]:
    """Make the cities."""
    for seed in seeds:
        city = generate_city(CitySpec(seed=seed, size_px=size_px))
        files = write_city(city, out / f"city-{seed}")
        yield Case(f"city-{seed}", files.before, files.after, city.change_HW)


def list_real_pairs(root: Path, most: int, names: list[str] | None = None) -> Iterator[Case]:
    """Read labelled pairs from their folder: the first ones, or those that are named."""
    pairs = folder.read_folder(root).pairs
    for pair in pairs[:most] if names is None else [pair for pair in pairs if pair.name in names]:
        assert pair.label is not None, f"{pair.name} has no label to be measured against"
        yield Case(pair.name, pair.before, pair.after, read_mask(pair.label))


# ------------------------------------------------------------------------------------------------ one pair
def measure_case(case: Case, out: Path, *, config: AdaptConfig, level: CEGLevel = "residual") -> dict[str, Any]:
    """Return the scores of all columns for one pair, from the stored ones where they exist."""
    kept = out / "scores.json"
    if kept.exists():
        content: dict[str, Any] = read_json(kept, remedy="Delete it")
        return content
    vlm = build_aerial()
    plain = DetectionConfig(gsd_m=config.detection.gsd_m, min_area_m2=0.0)
    base = build_default_detector(vlm, prompts=WORDS)
    write_detection(case.before, case.after, out / "zero", detector=base, config=plain)
    ceg = CEGSettings(level=level, gamma=default_gamma_of(vlm), gamma_segmentation=default_gamma_of(vlm))
    adapted = adapt_to_pair(case.before, case.after, out / "run", vlm=vlm, prompts=WORDS, ceg=ceg, config=config)
    detect_with_adapted(adapted, case.before, case.after, out / "adapted")
    detect_with_adapted(adapted, case.before, case.after, out / "combined", base=base)
    labels_HW = assemble_labels(out / "run", case.truth_HW.shape)
    maps = {
        "zero labels": read_map(out / "zero"),
        "labels, all pixels": (labels_HW == 1).astype(np.uint8),
        "labels, where given": labels_HW,
        "adapted": read_map(out / "adapted"),
        "combined": read_map(out / "combined"),
    }
    scores = {name: scores_of(map_HW, case.truth_HW) for name, map_HW in maps.items()}
    write_json(kept, scores)
    return scores


def scores_of(map_HW: NDArray[np.uint8], truth_HW: NDArray[np.uint8]) -> dict[str, float]:
    """Return the scores of a map over its labelled pixels."""
    counts = ConfusionCounts.from_maps(map_HW, np.where(map_HW == IGNORE, IGNORE, truth_HW).astype(np.uint8))
    return {name: float(getattr(counts, name)) for name in ("iou", "f1", "precision", "recall")}


def read_map(result: Path) -> NDArray[np.uint8]:
    """Read the change map of a detection."""
    with rasterio.open(result / "change.tif") as source:
        change_HW: NDArray[np.uint8] = source.read(1)
    return change_HW


def assemble_labels(run: Path, shape_hw: tuple[int, ...]) -> NDArray[np.uint8]:
    """Put the patches' labels together; where patches overlap, the one whose edge is further away counts."""
    store = PseudoLabelStore.open(run / "adapt" / "store")
    whole_HW, depth_HW = np.full(shape_hw, IGNORE, np.uint8), np.zeros(shape_hw, np.int32)
    for pair in folder.read_folder(run / "adapt" / "patches").pairs:
        row, col = (int(part[1:]) for part in pair.name.split("_"))
        label_HW = store.read_labels(pair).change_HW
        height, width = label_HW.shape
        depth_1D = [np.minimum(np.arange(length), np.arange(length)[::-1]) + 1 for length in (height, width)]
        own_HW = np.minimum(depth_1D[0][:, None], depth_1D[1][None])
        at = (slice(row, row + height), slice(col, col + width))
        closer_HW = own_HW > depth_HW[at]
        whole_HW[at][closer_HW], depth_HW[at][closer_HW] = label_HW[closer_HW], own_HW[closer_HW]
    return whole_HW


# ------------------------------------------------------------------------------------------------ the table
def render_table(rows: dict[str, dict[str, Any]]) -> str:
    """Return the IoU of every pair, the differences, and their mean and spread."""
    heads = [*COLUMNS, *(f"{name} - {other}" for name, other in DIFFERENCES)]
    lines = [f"| pair | {' | '.join(heads)} |", "|" + "---|" * (len(heads) + 1)]
    values: dict[str, list[float]] = {head: [] for head in heads}
    for scores in rows.values():
        ious = {name: scores[name]["iou"] for name in COLUMNS}
        ious |= {f"{name} - {other}": ious[name] - ious[other] for name, other in DIFFERENCES}
        for head in heads:
            values[head].append(ious[head])
    shown = {head: [f"{value:{'+' if ' - ' in head else ''}.3f}" for value in values[head]] for head in heads}
    for at, name in enumerate(rows):
        lines.append(f"| {name} | {' | '.join(shown[head][at] for head in heads)} |")
    if len(rows) > 1:
        cells = [f"{statistics.mean(each):.3f} +- {statistics.stdev(each):.3f}" for each in values.values()]
        lines.append(f"| mean +- deviation | {' | '.join(cells)} |")
    for name, scores in rows.items():
        parts = [f"{way} {scores[way]['precision']:.3f} / {scores[way]['recall']:.3f}" for way in COLUMNS]
        lines.append(f"\n{name}, precision / recall: {'; '.join(parts)}")
    return "\n".join(lines)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder for everything")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="cities, and seeds of the training")
    parser.add_argument("--size", type=int, default=1024, help="side of the cities in pixels")
    parser.add_argument("--steps", type=int, default=AdaptConfig.steps)
    parser.add_argument(
        "--level", default="residual", choices=("instance", "mixed", "pixel", "residual"), help="kind of labels"
    )
    parser.add_argument("--backbone", default=AdaptConfig.backbone, help="network instead of the default")
    parser.add_argument("--real", type=Path, help="a folder of labelled pairs (A, B, label) instead of the cities")
    parser.add_argument("--gsd", type=float, help="its metres per pixel")
    parser.add_argument("--most", type=int, default=3, help="pairs of it")
    parser.add_argument("--pairs", nargs="+", help="names of pairs of it, instead of the first ones")
    asked = parser.parse_args()
    every = (
        list_real_pairs(asked.real, asked.most, asked.pairs)
        if asked.real
        else render_cities(asked.output, asked.seeds, asked.size)
    )
    rows: dict[str, dict[str, Any]] = {}
    for at, case in enumerate(every):
        seed = 0 if asked.real else asked.seeds[at]
        config = AdaptConfig(
            steps=asked.steps, seed=seed, backbone=asked.backbone, detection=DetectionConfig(gsd_m=asked.gsd)
        )
        rows[case.name] = measure_case(case, asked.output / case.name, config=config, level=asked.level)
        write_json(asked.output / "table.json", rows)
        Console().print(f"{case.name}: {json.dumps(rows[case.name])}", highlight=False)
    Console().print(render_table(rows), highlight=False, markup=False, soft_wrap=True)


if __name__ == "__main__":
    main()
