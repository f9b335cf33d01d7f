"""Label scenes with the embedded model itself: where several magnifications agree with confidence, and nowhere else.

    python tools/aerial_pseudo.py --data ../shared/data --out scratch/aerial/pseudo

For UC Merced scenes that may show buildings the concepts are restricted to what the scene may show. A pixel is labelled
with a concept whose mean probability over four views is high, or as "this scene, but no building" where building is
most unlikely, or keeps the label of its scene.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from aerial_data import SCENE_GSD_M, read_rgb
from aerial_words import (
    CONCEPT_NAMES,
    FIRST_OPEN,
    FIRST_SCENE,
    SCENES,
    allowed_matrix,
)  # fmt: skip
from semicdvl.vlms.aerial.build import build_aerial
from semicdvl.vlms.aerial.model import NATIVE_GSD_M, AerialVLM, resample_tile
from semicdvl.vlms.aerial.net import normalise_image

VIEWS = ((1.0, False), (1.0, True), (1.35, True), (0.7, False))
"""Magnification and mirroring of the views that must agree."""
SURE, SURE_BUILDING, SURELY_NONE = 0.85, 0.7, 0.02
RIM_PX = 4
BUILDING = CONCEPT_NAMES.index("building")
Image = NDArray[np.uint8]


@torch.inference_mode()
def concept_probabilities(vlm: AerialVLM, image_HWC: Image, *, gsd_m: float, allowed_K: torch.Tensor) -> torch.Tensor:
    """Return the mean probability KHW of the allowed concepts over the views, at the image's size."""
    height, width = image_HWC.shape[:2]
    total_KHW = torch.zeros(len(CONCEPT_NAMES), height, width)
    for magnification, mirrored in VIEWS:
        view = resample_tile(image_HWC, gsd_m / NATIVE_GSD_M * magnification, mirrored=mirrored)
        pad = [(0, -size % 32) for size in view.shape[:2]]
        padded = np.pad(view, (*pad, (0, 0)), mode="symmetric")
        logits = vlm.net.compute_logits(
            vlm.net(normalise_image(torch.from_numpy(padded).permute(2, 0, 1)[None])), vlm.anchors_KE
        )
        logits = torch.where(allowed_K[:, None, None], logits, -torch.inf)
        p = torch.nn.functional.interpolate(
            logits.softmax(1), size=padded.shape[:2], mode="bilinear", align_corners=False
        )
        p = torch.nn.functional.interpolate(
            p[:, :, : view.shape[0], : view.shape[1]], size=(height, width), mode="bilinear", align_corners=False
        )[0]
        total_KHW += p.flip(-1) if mirrored else p
    return total_KHW / len(VIEWS)


def choose_labels(p_KHW: torch.Tensor, *, open_label: int, none_label: int) -> Image:
    """Return label ids HW: sure concepts, "no building" where that is sure, `open_label` elsewhere."""
    best_HW, index_HW = p_KHW.max(0)
    label_HW = torch.full(best_HW.shape, open_label)
    label_HW[p_KHW[BUILDING] <= SURELY_NONE] = none_label
    sure_HW = best_HW >= torch.where(index_HW == BUILDING, SURE_BUILDING, SURE)
    label_HW[sure_HW] = index_HW[sure_HW]
    return open_outlines(label_HW.numpy().astype(np.uint8), open_label=open_label)


def open_outlines(label_HW: Image, *, open_label: int) -> Image:
    """Give the outer `RIM_PX` of buildings back to `open_label`: the earlier model draws them too wide."""
    whole = (label_HW == BUILDING).astype(np.uint8)
    core = cv2.erode(whole, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * RIM_PX + 1, 2 * RIM_PX + 1)))
    return np.where((whole == 1) & (core == 0), np.uint8(open_label), label_HW)


def label_scenes(vlm: AerialVLM, data: Path, out: Path) -> None:
    """Label every UC Merced scene that may show a building."""
    for index, (scene, (words, _)) in enumerate(SCENES.items()):
        if "building" not in words.split():
            continue
        for path in sorted((data / "ucmerced" / scene).glob("*.jpg")):
            image = cv2.resize(read_rgb(path), (256, 256), interpolation=cv2.INTER_AREA)
            allowed_K = allowed_matrix()[FIRST_SCENE + index]
            p_KHW = concept_probabilities(vlm, image, gsd_m=SCENE_GSD_M, allowed_K=allowed_K)
            label = choose_labels(p_KHW, open_label=FIRST_SCENE + index, none_label=FIRST_OPEN + index)
            cv2.imwrite(str(out / f"{path.stem}.png"), label)
        print(scene, flush=True)


if __name__ == "__main__":
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--data", type=Path, default=Path("../shared/data"))
    p.add_argument("--weights", type=Path, default=None, help="the labelling model; none: the shipped one")
    p.add_argument("--out", type=Path, default=Path("scratch/aerial/pseudo"))
    a = p.parse_args()
    torch.set_num_threads(1)
    a.out.mkdir(parents=True, exist_ok=True)
    labeller = build_aerial(weights=a.weights)
    label_scenes(labeller, a.data, a.out)
