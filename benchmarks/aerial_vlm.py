"""Measure the embedded vision-language model: the figures of docs/models/aerial-vlm.md.

    python benchmarks/aerial_vlm.py --data ../shared/data            all of it, some minutes
    python benchmarks/aerial_vlm.py --only footprints --views 1      one part
    python benchmarks/aerial_vlm.py --pictures scratch/pictures      score maps as pictures

Parts: dubai (held-out tiles), footprints (French and xBD buildings), banepa (footprints of a town in Nepal), change
(zero-label instance CEG), words (untrained words), calibration, speed.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from semicdvl.ceg import rules
from semicdvl.ceg.instances import rule as instance_rule
from semicdvl.vlms.aerial.build import build_aerial
from semicdvl.vlms.aerial.model import AerialVLM

PROMPTS = ("house", "building", "road", "grass", "tree", "water")
FOREGROUND = (0, 1)
DUBAI_PROMPTS = ("building", "road", "vegetation", "land", "water")
DUBAI_COLOURS = ((60, 16, 152), (110, 193, 228), (254, 221, 58), (132, 41, 246), (226, 169, 41))
DUBAI_GSD_M = 0.8
"""As in training (see the data card): a magnification of 1.6 to the native 0.5 m."""
HELD_OUT_TILES = (2, 8)
BANEPA_GSD_M = 0.13
MIN_AREA_M2 = 25.0


@dataclass
class Counts:
    """Pooled pixel counts of a binary answer."""

    tp: int = 0
    fp: int = 0
    fn: int = 0

    def add(self, found_HW: NDArray[np.bool_], truth_HW: NDArray[np.bool_]) -> None:
        """Count one image."""
        self.tp += int((found_HW & truth_HW).sum())
        self.fp += int((found_HW & ~truth_HW).sum())
        self.fn += int((~found_HW & truth_HW).sum())

    @property
    def iou(self) -> float:
        """Intersection over union."""
        return self.tp / max(self.tp + self.fp + self.fn, 1)

    def __str__(self) -> str:
        """IoU, precision and recall."""
        precision, recall = self.tp / max(self.tp + self.fp, 1), self.tp / max(self.tp + self.fn, 1)
        return f"IoU {self.iou:.3f}  precision {precision:.3f}  recall {recall:.3f}"


def read_rgb(path: Path) -> NDArray[np.uint8]:
    """Return an image as RGB."""
    return cv2.cvtColor(cv2.imread(str(path), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)


def image_of(folder: Path, stem: str) -> Path:
    """Return the file of a folder with this stem, whatever its suffix."""
    return next(path for path in sorted(folder.iterdir()) if path.stem == stem)


def compute_auc(score: NDArray[np.float32], truth: NDArray[np.bool_]) -> float:
    """Return the area under the ROC curve from 2048-step histograms of the scores."""
    edges = np.linspace(0, 1, 2049)
    positive, negative = (np.histogram(score[truth == side], edges)[0] for side in (True, False))
    below = np.cumsum(negative) - negative
    return float((positive * (below + negative / 2)).sum() / max(positive.sum() * negative.sum(), 1))


def find_buildings(scores_CHW: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Return where "house" or "building" wins."""
    return rules.find_foreground(scores_CHW, foreground=FOREGROUND)[0]


# ------------------------------------------------------------------------------------------------ parts
def measure_dubai(vlm: AerialVLM, data: Path, tiles: tuple[int, ...] = HELD_OUT_TILES) -> dict[str, float]:
    """Measure all five classes on whole tiles that training never saw."""
    counts = {word: Counts() for word in DUBAI_PROMPTS}
    scores, truths = [], []
    for path in sorted((data / "dubai" / "image").glob("*.jpg")):
        if int(path.stem[1]) not in tiles:
            continue
        mask = read_rgb(data / "dubai" / "mask" / f"{path.stem}.png")
        known_HW = np.any([(mask == colour).all(-1) for colour in DUBAI_COLOURS], axis=0)
        scores_CHW = vlm.segment(read_rgb(path), DUBAI_PROMPTS, gsd_m=DUBAI_GSD_M).scores_CHW
        best_HW = scores_CHW.argmax(0)
        for index, (word, colour) in enumerate(zip(DUBAI_PROMPTS, DUBAI_COLOURS, strict=True)):
            counts[word].add((best_HW == index) & known_HW, (mask == colour).all(-1) & known_HW)
        scores.append(scores_CHW[0][known_HW][::7])
        truths.append((mask == DUBAI_COLOURS[0]).all(-1)[known_HW][::7])
    for word, count in counts.items():
        print(f"  {word:12s} {count}")
    area = compute_auc(np.concatenate(scores), np.concatenate(truths))
    print(f"  building AUC {area:.3f}")
    return {f"dubai {word}": count.iou for word, count in counts.items()} | {"dubai building AUC": area}


def fill_outlines(truth_HW: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Fill what an outline of the truth encloses: some French footprints were drawn as a line and never filled."""
    framed = np.pad(truth_HW, 1).astype(np.uint8)
    cv2.floodFill(framed, None, (0, 0), 2)
    return (framed != 2)[1:-1, 1:-1]


def measure_pairs(vlm: AerialVLM, name: str, pairs: list[tuple[Path, Path]], gsd_m: float, *, filled: bool = False
                  ) -> dict[str, float]:  # fmt: skip
    """Measure "house" or "building" against footprint masks, pooled over images.

    Args:
        vlm: the model.
        name: what the figures are called.
        pairs: image and mask files.
        gsd_m: metres per pixel.
        filled: also measure against masks whose outlines are filled.
    """
    count, whole, half, scores, truths = Counts(), Counts(), Counts(), [], []
    for image_path, mask_path in pairs:
        truth_HW = cv2.imread(str(mask_path), cv2.IMREAD_GRAYSCALE) > 127
        scores_CHW = vlm.segment(read_rgb(image_path), PROMPTS, gsd_m=gsd_m).scores_CHW
        found_HW, best_HW = find_buildings(scores_CHW), scores_CHW[list(FOREGROUND)].max(0)
        count.add(found_HW, truth_HW)
        whole.add(found_HW, fill_outlines(truth_HW))
        half.add(best_HW >= 0.5, truth_HW)
        scores.append(best_HW.ravel()[::5])
        truths.append(truth_HW.ravel()[::5])
    area = compute_auc(np.concatenate(scores), np.concatenate(truths))
    print(f"  {name:18s} {count}  AUC {area:.3f}  score >= 0.5: IoU {half.iou:.3f}")
    result = {f"{name} IoU": count.iou, f"{name} AUC": area, f"{name} IoU at 0.5": half.iou}
    if filled:
        print(f"  {name + ' filled':18s} {whole}")
        result[f"{name} filled IoU"] = whole.iou
    return result


def measure_footprints(vlm: AerialVLM, data: Path) -> dict[str, float]:
    """Measure building footprints: French aerial images at 0.2 m, xBD satellite images at 0.5 m."""
    result = {}
    for name, images, truth, gsd_m in (
        ("fotbcd_instances", "B", "buildings_t2", 0.2),
        ("xbd", "A", "buildings_t1", 0.5),
    ):
        masks = sorted((data / name / truth).glob("*.png"))
        pairs = [(image_of(data / name / images, path.stem), path) for path in masks]
        result |= measure_pairs(vlm, name, pairs, gsd_m, filled=name == "fotbcd_instances")
    return result


def measure_banepa(vlm: AerialVLM, data: Path) -> dict[str, float]:
    """Measure footprints of Banepa (OpenStreetMap): the half whose images training may see, and the held-out half."""
    masks = sorted((data / "banepa" / "buildings").glob("*.png"))
    pairs = [(image_of(data / "banepa" / "image", path.stem), path) for path in masks]
    middle = len(pairs) // 2
    return measure_pairs(vlm, "banepa, first half", pairs[:middle], BANEPA_GSD_M) | measure_pairs(
        vlm, "banepa, held out", pairs[middle:], BANEPA_GSD_M
    )


def measure_change(vlm: AerialVLM, data: Path) -> dict[str, float]:
    """Measure zero-label change: instance CEG (delta 0 and 0.01), and the agreement of pixel and instance level."""
    result = {}
    for name, gsd_m in (("fotbcd", 0.2), ("levir", 0.5), ("levir_crops", 0.5)):
        kinds = {kind: Counts() for kind in ("instance", "instance .01", "pixel", "pixel & instance")}
        for path in sorted((data / name / "label").glob("*.png")):
            truth_HW = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE) > 127
            both = [
                vlm.segment(read_rgb(image_of(data / name / side, path.stem)), PROMPTS, gsd_m=gsd_m).scores_CHW
                for side in "AB"
            ]
            minimum = round(MIN_AREA_M2 / gsd_m**2)
            labels = [
                instance_rule.find_components(s, foreground=FOREGROUND, threshold=0.5, min_area_px=minimum)
                for s in both
            ]
            answers = {
                "instance": instance_rule.instance_level_from_label_images(*labels),
                "instance .01": instance_rule.instance_level_from_label_images(*labels, delta=0.01),
                "pixel": rules.pixel_level(*both, foreground=FOREGROUND, gamma=0.5)[0],
            }
            answers["pixel & instance"] = answers["pixel"] & answers["instance"]
            for kind, answer_HW in answers.items():
                kinds[kind].add(answer_HW, truth_HW)
        for kind, count in kinds.items():
            print(f"  {name:12s} {kind:17s} {count}")
            result[f"{name} {kind}"] = count.iou
    return result


UNTRAINED_WORDS = (
    "swimming pool", "canal", "villa", "skyscraper", "mobile home", "motorway", "pine tree", "lagoon", "pasture",
    "sailboat", "seaplane", "solar panel", "bridge", "snow",
)  # fmt: skip
"""Prompts that training never used; the last ones hardly occur in UC Merced."""


def measure_untrained_words(vlm: AerialVLM, data: Path, per_scene: int = 10) -> dict[str, float]:
    """Ask for untrained words: in which scenes they cover most pixels with a score >= 0.5."""
    result = {}
    scenes = sorted(path.name for path in (data / "ucmerced").iterdir() if path.is_dir())
    share = {}
    for scene in scenes:
        paths = sorted((data / "ucmerced" / scene).glob("*.jpg"))[:: 100 // per_scene]
        maps = [vlm.segment(read_rgb(path), UNTRAINED_WORDS, gsd_m=0.3).scores_CHW for path in paths]
        share[scene] = np.mean([(scores_CHW >= 0.5).mean((1, 2)) for scores_CHW in maps], axis=0)
    for index, word in enumerate(UNTRAINED_WORDS):
        ranked = sorted(scenes, key=lambda scene: -share[scene][index])[:4]
        print(f"  {word:20s} " + ", ".join(f"{scene} {share[scene][index]:.0%}" for scene in ranked))
        result[word] = float(share[ranked[0]][index])
    return result


def measure_calibration(vlm: AerialVLM, data: Path) -> dict[str, float]:
    """Compare the score of "building" with how often it is one, on held-out Dubai and on xBD."""
    result = {}
    sources = [(p, data / "dubai" / "mask" / f"{p.stem}.png", DUBAI_GSD_M) for t in HELD_OUT_TILES
               for p in sorted((data / "dubai" / "image").glob(f"t{t}_*.jpg"))]  # fmt: skip
    sources += [
        (image_of(data / "xbd" / "A", p.stem), p, 0.5) for p in sorted((data / "xbd" / "buildings_t1").glob("*"))
    ]
    edges = np.linspace(0, 1, 11)
    for name, chosen in (("dubai", sources[:18]), ("xbd", sources[18:])):
        hits, totals, reliable = np.zeros(10), np.zeros(10), []
        for path, mask_path, gsd_m in chosen:
            mask = read_rgb(mask_path)
            truth_HW = (mask == (DUBAI_COLOURS[0] if name == "dubai" else (255, 255, 255))).all(-1)
            scores_CHW = vlm.segment(read_rgb(path), PROMPTS, gsd_m=gsd_m).scores_CHW
            score_HW = scores_CHW[list(FOREGROUND)].max(0)
            totals += np.histogram(score_HW, edges)[0]
            hits += np.histogram(score_HW[truth_HW], edges)[0]
            reliable.append((scores_CHW.max(0) >= 0.8).mean())
        print(f"  {name:6s} truth per score decile " + " ".join(f"{v:.2f}" for v in hits / np.maximum(totals, 1)))
        print(f"  {name:6s} reliable at 0.8: {np.mean(reliable):.0%}")
        result[f"{name} reliable"] = float(np.mean(reliable))
    return result


def measure_speed(vlm: AerialVLM, data: Path, count: int = 24) -> dict[str, float]:
    """Measure 256 px images per second with six words, CPU seconds per megapixel of 768 px tiles, the loading time."""
    began = time.perf_counter()
    build_aerial()
    loading_s = time.perf_counter() - began
    image = np.random.default_rng(0).integers(0, 255, (256, 256, 3), dtype=np.uint8)
    vlm.segment(image, PROMPTS)
    began = time.perf_counter()
    for _ in range(count):
        vlm.segment(image, PROMPTS)
    rate = count / (time.perf_counter() - began)
    tile = np.random.default_rng(0).integers(0, 255, (768, 768, 3), dtype=np.uint8)
    vlm.segment(tile, PROMPTS)
    began = time.process_time()
    for _ in range(3):
        vlm.segment(tile, PROMPTS)
    cpu_s = (time.process_time() - began) / 3 / (tile.shape[0] * tile.shape[1] / 1e6)
    print(f"  {rate:.1f} images of 256 px per second, {cpu_s:.1f} CPU s per MPix, loaded in {loading_s:.2f} s")
    return {"images_per_s": rate, "cpu_s_per_mpix": cpu_s, "loading_s": loading_s}


PARTS = {
    "dubai": measure_dubai,
    "footprints": measure_footprints,
    "banepa": measure_banepa,
    "change": measure_change,
    "words": measure_untrained_words,
    "calibration": measure_calibration,
    "speed": measure_speed,
}


def write_contact_sheets(vlm: AerialVLM, data: Path, out: Path) -> None:
    """Write contact sheets: image, truth, score of "building", most likely of the six words."""
    out.mkdir(parents=True, exist_ok=True)
    colours = np.array(
        [(230, 60, 50), (255, 120, 60), (150, 150, 150), (160, 220, 90), (20, 110, 40), (50, 110, 230)], np.uint8
    )
    for name, images, truth, gsd_m in (
        ("fotbcd_instances", "B", "buildings_t2", 0.2), ("xbd", "A", "buildings_t1", 0.5), ("levir", "B", "label", 0.5),
        ("fotbcd", "A", "label", 0.2), ("fotbcd", "B", "label", 0.2),
    ):  # fmt: skip
        rows = []
        for path in sorted((data / name / truth).glob("*.png"))[:6]:
            image = read_rgb(image_of(data / name / images, path.stem))
            scores_CHW = vlm.segment(image, PROMPTS, gsd_m=gsd_m).scores_CHW
            grey = (scores_CHW[list(FOREGROUND)].max(0) * 255).astype(np.uint8)
            panels = [image, cv2.cvtColor(cv2.imread(str(path), 0), cv2.COLOR_GRAY2RGB),
                      cv2.cvtColor(grey, cv2.COLOR_GRAY2RGB), colours[scores_CHW.argmax(0)]]  # fmt: skip
            rows.append(np.hstack([cv2.resize(p, (384, 384), interpolation=cv2.INTER_AREA) for p in panels]))
        cv2.imwrite(str(out / f"{name}_{images}.png"), cv2.cvtColor(np.vstack(rows), cv2.COLOR_RGB2BGR))


def main() -> None:
    """Read the command line and run."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--data", type=Path, default=Path("../shared/data"))
    p.add_argument("--weights", type=Path, default=None)
    p.add_argument("--views", type=int, default=4)
    p.add_argument("--only", nargs="*", choices=sorted(PARTS), default=list(PARTS))
    p.add_argument("--pictures", type=Path, default=None, help="write contact sheets here instead")
    p.add_argument("--json", type=Path, default=None, help="write the figures here as well")
    a = p.parse_args()
    vlm = build_aerial(weights=a.weights, views=a.views)
    print(vlm.identity)
    if a.pictures is not None:
        write_contact_sheets(vlm, a.data, a.pictures)
        return
    figures = {}
    for name in a.only:
        print(name)
        figures |= PARTS[name](vlm, a.data)
    if a.json is not None:
        a.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
