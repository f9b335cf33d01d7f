"""Detection without labels on all real pairs whose labels show change of buildings, by source, with intervals.

    python benchmarks/real_pairs.py ../shared/data -o runs/real-pairs

Rows: the default of `semicdvl detect`; its parts, each by itself; the rule that was the default before (whole objects,
the paper's instance level) and the paper's pixel level; and the VLM alone, against the footprints of one date where
there are some. IoU^c is that of the counts pooled over pairs, its interval from 1000 bootstrap samples of the pairs.
The frozen source was not looked at for any choice (`comparison_cache.FROZEN`). All pairs are at most one tile of
`detect` large, so a row is what `detect` finds.

The VLM's answers and all counts are kept in the output folder: an interrupted run goes on, and another rule takes
minutes. `gallery.html` shows every pair: both dates, the truth, what was found. Its pictures are of images that may not
be published, so it stays where it is written.
"""

from __future__ import annotations

import argparse
import html
import json
from pathlib import Path

import numpy as np
from PIL import Image

from classic import color_errors
from comparison_cache import FROZEN, PROMPTS, AnsweredPair, PairCase, list_pairs, load_answers
from comparison_study import OFF, instance, pixel, residual
from semicdvl.ceg.features import AERIAL_ENCODER, build_feature_extractor
from semicdvl.ceg.rules import find_foreground
from semicdvl.data.labels.files import read_mask
from semicdvl.metrics.change import ConfusionCounts
from semicdvl.vlms.aerial.build import build_aerial

ROWS = {
    "default": residual(),
    "without features": residual(residual_distance=0.0),
    "without outlines": residual(residual_outlines=0.0),
    "residual level alone": residual(**OFF),
    "old default: `--level instance`": instance(),
    "paper's `--level pixel`": pixel(),
}
FOOTPRINTS = {"fotbcd_instances": ("buildings_t2", 1), "xbd": ("buildings_t1", 0)}
"""Folder -> folder of the footprints, and the date that they show."""
SAMPLES = 1000
PICTURE_PX = 360


def measure(
    pairs: list[PairCase], out: Path, *, normalise: str = "none", dtype: str = "auto"
) -> dict[str, dict[str, list[int]]]:
    """Return row -> pair -> counts (tp, fp, fn), from the file of an earlier call where it has them; draw pictures."""
    vlm, extractor = build_aerial(dtype=dtype), build_feature_extractor(AERIAL_ENCODER)
    path = out / f"rows-{vlm.identity}{'' if normalise == 'none' else f'-{normalise}'}.json"
    counts = json.loads(path.read_text()) if path.exists() else {}
    for pair in pairs:
        if all(pair.name in counts.get(row, {}) for row in ROWS):
            continue
        answered = load_answers(pair, vlm, extractor, out, normalise=normalise)
        found = {row: rule(answered) for row, rule in ROWS.items()}
        for row, found_HW in found.items():
            counts.setdefault(row, {})[pair.name] = _count(found_HW, answered.truth_HW)
        for name, of_pair in _measure_footprints(answered).items():
            counts.setdefault(name, {})[pair.name] = of_pair
        draw_pair(answered, found["default"], out / f"pictures-{normalise}" / f"{pair.name}.jpg")
        path.write_text(json.dumps(counts))
        print(f"{pair.name}: IoU {_iou(counts['default'][pair.name]):.3f}", flush=True)
    return counts


def _measure_footprints(answered: AnsweredPair) -> dict[str, list[int]]:
    """Return the counts of the buildings that the VLM sees at the date whose footprints are known, if any."""
    data = answered.pair.case.data
    if data not in FOOTPRINTS:
        return {}
    name, date = FOOTPRINTS[data]
    path = answered.pair.case.label.parent.parent / name / answered.pair.case.label.name
    wins_HW, best_HW = find_foreground(answered.answers[date].scores_CHW, foreground=PROMPTS.foreground)
    return {"VLM alone, footprints": _count(wins_HW & (best_HW >= 0.5), read_mask(path) == 1)}


def _count(found_HW: np.ndarray, truth_HW: np.ndarray) -> list[int]:
    counts = ConfusionCounts.from_maps(found_HW.astype(np.uint8), truth_HW)
    return [counts.tp, counts.fp, counts.fn]


def _iou(counts: list[int] | np.ndarray) -> float:
    return float(counts[0] / max(sum(counts), 1))


# ------------------------------------------------------------------------------------------------ table
def render(counts: dict[str, dict[str, list[int]]]) -> str:
    """Return the table by source: IoU^c with its interval, precision and recall."""
    groups = {
        "all but the frozen source": ("levir", "levir_crops", "fotbcd", "fotbcd_instances"),
        "levir": ("levir", "levir_crops"),
        "fotbcd": ("fotbcd", "fotbcd_instances"),
        f"{FROZEN} (frozen)": (FROZEN,),
    }
    lines = ["| rule | " + " | ".join(groups) + " |", "|---" * (len(groups) + 1) + "|"]
    for row, of_pair in counts.items():
        cells = []
        for folders in groups.values():
            mine_N3 = np.array([three for name, three in of_pair.items() if name.partition("-")[0] in folders])
            cells.append(_format_cell(mine_N3) if len(mine_N3) else "")
        lines.append(f"| {row} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _format_cell(counts_N3: np.ndarray) -> str:
    total = counts_N3.sum(axis=0)
    chance = np.random.default_rng(0)
    samples = counts_N3[chance.integers(0, len(counts_N3), (SAMPLES, len(counts_N3)))].sum(axis=1)
    low, high = np.percentile(samples[:, 0] / np.maximum(samples.sum(axis=1), 1), (2.5, 97.5))
    precision, recall = total[0] / max(total[0] + total[1], 1), total[0] / max(total[0] + total[2], 1)
    return f"**{_iou(total):.3f}** ({low:.2f}-{high:.2f}), P {precision:.2f}, R {recall:.2f}"


# ------------------------------------------------------------------------------------------------ gallery
def draw_pair(answered: AnsweredPair, found_HW: np.ndarray, path: Path) -> None:
    """Draw both dates, the truth, and what was found coloured by agreement, side by side."""
    truth_HWC = np.repeat(np.where(answered.truth_HW, 40, 245).astype(np.uint8)[..., None], 3, axis=2)
    cells = (*answered.images_HWC, truth_HWC, color_errors(found_HW, answered.truth_HW))
    shown = [Image.fromarray(cell).resize((PICTURE_PX, PICTURE_PX), Image.Resampling.BOX) for cell in cells]
    page = Image.new("RGB", (len(shown) * (PICTURE_PX + 4), PICTURE_PX), "white")
    for at, picture in enumerate(shown):
        page.paste(picture, (at * (PICTURE_PX + 4), 0))
    path.parent.mkdir(parents=True, exist_ok=True)
    page.save(path, quality=85)


def write_gallery(counts: dict[str, list[int]], out: Path, *, normalise: str = "none") -> Path:
    """Write a page with every pair, those with most wrong pixels first."""
    ordered = sorted(counts, key=lambda name: -sum(counts[name][1:]))
    parts = [
        f"<h3>{html.escape(name)}: IoU {_iou(counts[name]):.3f}</h3>"
        f"<img src='pictures-{normalise}/{html.escape(name)}.jpg'>"
        for name in ordered
    ]
    legend = "before, after, truth, found: green right, orange wrong, blue missed; most wrong pixels first"
    path = out / "gallery.html"
    path.write_text(f"<!doctype html><meta charset='utf-8'><title>Real pairs</title><p>{legend}</p>{''.join(parts)}")
    return path


def main() -> None:
    """Read the options, run what is missing, print the table and write the gallery."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder that holds levir/, fotbcd/, ... each with A/ B/ label/")
    parser.add_argument("-o", "--out", type=Path, default=Path("runs/real-pairs"))
    parser.add_argument("--frozen", action="store_true", help="also score the frozen source: once, at the end")
    parser.add_argument("--normalise", choices=("none", "match"), default="none", help="as in `semicdvl detect`")
    parser.add_argument("--dtype", default="auto", help="number type of the VLM; its features are those of the default")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    pairs = list_pairs(options.data, options.out, seeds=())
    pairs += list_pairs(options.data, options.out, frozen=True) if options.frozen else []
    counts = measure(pairs, options.out, normalise=options.normalise, dtype=options.dtype)
    print(render(counts))
    print(f"\npictures: {write_gallery(counts['default'], options.out, normalise=options.normalise)}")


if __name__ == "__main__":
    main()
