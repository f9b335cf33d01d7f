"""Cut a scene into numbered segments that follow boundaries, and propose a class for each."""

from __future__ import annotations

import heapq
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from skimage.segmentation import slic
from sklearn.ensemble import ExtraTreesClassifier

from label_answers import CLASSES, UNKNOWN, Answer
from semicdvl.vlms.aerial.model import AerialVLM, resample_tile
from semicdvl.vlms.aerial.net import normalise_image

MOST_SEGMENTS = 170
FIRST_SEGMENTS = 750
LEAST_MERGE_COST = 60.0
"""Segments that differ less (area-weighted squared colour distance) merge even when there are few."""
CLASS_OF_WORD = {
    "building": "building", "road": "paved", "tree": "tree", "grass": "ground", "crop": "ground", "soil": "ground",
    "sand": "ground", "shrub": "ground", "water": "water", "car": "paved", "boat": "object", "airplane": "object",
    "tank": "tank", "court": "court",
}  # fmt: skip
WORD_OF_CONCEPT = {"tank": "storage tank", "court": "tennis court", "crop": "crops", "soil": "bare soil"}
PROMPTS = tuple(WORD_OF_CONCEPT.get(word, word) for word in CLASS_OF_WORD)
WITNESSES = (0, 1, 2, 8)
"""Scores that help to find boundaries: building, road, tree, water."""


@dataclass(frozen=True)
class Reading:
    """Hold what the embedded VLM says of a scene: a score map per prompt, and its features."""

    scores_CHW: NDArray[np.float32]
    features_EHW: NDArray[np.float32]


@torch.inference_mode()
def read_scene(vlm: AerialVLM, image_HWC: NDArray[np.uint8], *, gsd_m: float) -> Reading:
    """Return scores and features of a scene at its size; the features see it at twice the model's native size."""
    scores_CHW = vlm.segment(image_HWC, PROMPTS, gsd_m=gsd_m).scores_CHW
    height, width = image_HWC.shape[:2]
    shown = resample_tile(image_HWC, min(1.0, 2 * gsd_m / 0.5), mirrored=False)
    shown = np.pad(shown, ((0, -shown.shape[0] % 32), (0, -shown.shape[1] % 32), (0, 0)), mode="symmetric")
    maps = vlm.net(normalise_image(torch.from_numpy(shown).permute(2, 0, 1)[None]))[0].numpy()
    scale = maps.shape[1] / shown.shape[0] * min(1.0, 2 * gsd_m / 0.5)
    rows, cols = round(height * scale), round(width * scale)
    resized = [cv2.resize(m[:rows, :cols], (width, height), interpolation=cv2.INTER_LINEAR) for m in maps]
    return Reading(scores_CHW, np.stack(resized).astype(np.float32))


def describe_pixels(image_HWC: NDArray[np.uint8], scores_CHW: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return what pixels are compared by when segments merge: colour, and a little of what the VLM sees."""
    smooth = cv2.bilateralFilter(image_HWC, 5, 25, 2)
    lab = cv2.cvtColor(smooth.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
    lab[..., 1:] *= 1.5
    return np.concatenate([lab, 12 * scores_CHW[list(WITNESSES)].transpose(1, 2, 0)], axis=2)


def cut_segments(image_HWC: NDArray[np.uint8], scores_CHW: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Return a scene's segments, numbered from 0 in reading order: SLIC superpixels, merged by Ward's cost."""
    fine_HW = slic(image_HWC, n_segments=FIRST_SEGMENTS, compactness=6, sigma=0.6, start_label=0)
    merged_HW = merge_segments(fine_HW, describe_pixels(image_HWC, scores_CHW))
    rows, cols = np.indices(merged_HW.shape)
    count = int(merged_HW.max()) + 1
    size = np.bincount(merged_HW.ravel(), minlength=count)
    row = np.bincount(merged_HW.ravel(), rows.ravel(), minlength=count) / size
    col = np.bincount(merged_HW.ravel(), cols.ravel(), minlength=count) / size
    rank = np.empty(count, np.uint8)
    rank[np.lexsort((col, (row // (merged_HW.shape[0] / 12)).astype(int)))] = np.arange(count)
    return rank[merged_HW]


def merge_segments(fine_HW: NDArray[np.int64], pixels_HWF: NDArray[np.float32]) -> NDArray[np.int64]:
    """Merge neighbours, cheapest first, until MOST_SEGMENTS are left and every merge would cost LEAST_MERGE_COST."""
    count = int(fine_HW.max()) + 1
    scale = fine_HW.size / 256**2
    size = np.bincount(fine_HW.ravel(), minlength=count).astype(float)
    mean = np.stack(
        [np.bincount(fine_HW.ravel(), band.ravel(), minlength=count) for band in np.moveaxis(pixels_HWF, 2, 0)], 1
    )
    mean /= np.maximum(size, 1)[:, None]
    near: list[set[int]] = [set() for _ in range(count)]
    for a, b in ((fine_HW[1:], fine_HW[:-1]), (fine_HW[:, 1:], fine_HW[:, :-1])):
        for i, j in np.unique(np.stack([a[a != b], b[a != b]], 1), axis=0).tolist():
            near[i].add(j)
            near[j].add(i)

    def cost(i: int, j: int) -> float:
        weight = (size[i] * size[j] / (size[i] + size[j])) ** 0.7
        return float(weight * ((mean[i] - mean[j]) ** 2).sum() / scale**0.7)

    heap = [(cost(i, j), i, j, 0, 0) for i in range(count) for j in near[i] if i < j]
    heapq.heapify(heap)
    age, parent, alive = [0] * count, list(range(count)), int((size > 0).sum())
    while heap and (alive > MOST_SEGMENTS or heap[0][0] < LEAST_MERGE_COST):
        _, i, j, age_i, age_j = heapq.heappop(heap)
        if parent[i] != i or parent[j] != j or age[i] != age_i or age[j] != age_j:
            continue
        mean[i] = (mean[i] * size[i] + mean[j] * size[j]) / (size[i] + size[j])
        size[i] += size[j]
        parent[j], age[i], alive = i, age[i] + 1, alive - 1
        near[i] = {k for k in near[i] | near[j] if parent[k] == k} - {i, j}
        for k in near[i]:
            near[k] = near[k] - {j} | {i}
            heapq.heappush(heap, (cost(i, k), i, k, age[i], age[k]))
    for k in range(count):
        while parent[parent[k]] != parent[k]:
            parent[k] = parent[parent[k]]
    return np.unique(np.array(parent)[fine_HW], return_inverse=True)[1].reshape(fine_HW.shape)


def describe_segments(
    image_HWC: NDArray[np.uint8], segments_HW: NDArray[np.uint8], reading: Reading, kind: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Return a feature row per segment: means and deviations of colours, scores and features, its size, its scene."""
    lab = cv2.cvtColor(image_HWC.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
    maps = np.concatenate([np.moveaxis(lab, 2, 0), reading.scores_CHW, reading.features_EHW])
    flat, count = segments_HW.ravel(), int(segments_HW.max()) + 1
    size = np.bincount(flat, minlength=count)
    mean = np.stack([np.bincount(flat, band.ravel(), minlength=count) for band in maps], 1) / size[:, None]
    square = np.stack([np.bincount(flat, band.ravel() ** 2, minlength=count) for band in maps[:3]], 1) / size[:, None]
    deviation = np.sqrt(np.maximum(square - mean[:, :3] ** 2, 0))
    whole = np.repeat(reading.scores_CHW.mean((1, 2))[None], count, 0)
    scene = np.repeat(kind[None], count, 0)
    return np.concatenate([mean, deviation, np.log(size)[:, None], whole, scene], axis=1).astype(np.float32)


def propose_from_scores(segments_HW: NDArray[np.uint8], scores_CHW: NDArray[np.float32]) -> Answer:
    """Return the class with the best mean score of each segment."""
    flat, count = segments_HW.ravel(), int(segments_HW.max()) + 1
    total = np.stack([np.bincount(flat, band.ravel(), minlength=count) for band in scores_CHW], 1)
    names = list(CLASS_OF_WORD.values())
    return Answer({n: CLASSES.index(names[best]) for n, best in enumerate(total.argmax(1).tolist())})


def fit_proposer(rows_NF: NDArray[np.float32], labels_N: NDArray[np.uint8]) -> ExtraTreesClassifier:
    """Fit trees that propose the class of a segment from the scenes that were labelled before."""
    known = labels_N != UNKNOWN
    trees = ExtraTreesClassifier(200, min_samples_leaf=2, max_features=0.3, class_weight="balanced", random_state=0)
    return trees.fit(rows_NF[known], labels_N[known])
