"""A second witness for the residual rule: does the ground under an event look different at the two dates?

A VLM sees each date by itself, so a word that it takes for granted at one date and misses at the other becomes an
event although nothing changed. The features of a network say whether it looks the same. The measure is the cosine
distance between the feature maps of the dates; an event is kept if its mean distance d fulfils

    d >= min(`residual_distance_most`, g + `residual_distance` * (1 - g)),

with g the median distance of the pair's own ground outside of all events: light, season and sensor make all ground
differ, by an amount that is another one in every pair. The cap keeps events on ground that changed everywhere.

Distances are counted in whole steps, so the result is the same to the bit for every division of a raster into strips.
"""

from __future__ import annotations

import math
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from semicdvl.ceg.config import CEGSettings
from semicdvl.ceg.features import PairFeatures

DISTANCE_STEPS = 200
"""Distances are counted as multiples of 1 / DISTANCE_STEPS, from 0 to 1."""
NO_DATA = 255
"""Step of pixels without data."""


def compute_distance_map(features: PairFeatures, *, shape_hw: tuple[int, int]) -> NDArray[np.float32]:
    """Return the cosine distance between the features of the dates at every pixel, in [0, 1].

    Distances are computed per cell of the feature maps and interpolated. A cell without features has the distance 0.

    Args:
        features: feature maps of both dates, which cover the image.
        shape_hw: height and width of the image in pixels.
    """
    t1_DHW, t2_DHW = (np.asarray(date_DHW, np.float32) for date_DHW in (features.t1_DHW, features.t2_DHW))
    lengths_HW = np.sqrt((t1_DHW**2).sum(axis=0) * (t2_DHW**2).sum(axis=0))
    cosine_HW = np.where(lengths_HW > 0, (t1_DHW * t2_DHW).sum(axis=0) / np.maximum(lengths_HW, 1e-12), 1.0)
    distance_HW = np.clip(1 - cosine_HW, 0, 1).astype(np.float32)
    return np.asarray(cv2.resize(distance_HW, shape_hw[::-1], interpolation=cv2.INTER_LINEAR), np.float32)


def quantise_distance(distance_HW: NDArray[np.floating[Any]], valid_HW: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Return distances in whole steps; NO_DATA where not valid."""
    steps_HW = np.rint(np.clip(distance_HW, 0, 1) * DISTANCE_STEPS).astype(np.uint8)
    return np.where(valid_HW, steps_HW, np.uint8(NO_DATA)).astype(np.uint8)


def count_ground(steps_HW: NDArray[np.uint8], event_HW: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Return how many pixels of the ground outside of events have each distance."""
    ground_N = steps_HW[(event_HW == 0) & (steps_HW != NO_DATA)]
    return np.bincount(ground_N, minlength=DISTANCE_STEPS + 1)


def find_least_distance(ground_S: NDArray[np.int64], settings: CEGSettings) -> float:
    """Return the mean distance from which an event is kept, given the counts of the pair's ground; 0 without ground."""
    count = int(ground_S.sum())
    if not count:
        return 0.0
    median = int(np.searchsorted(np.cumsum(ground_S), math.ceil(count / 2))) / DISTANCE_STEPS
    return min(settings.residual_distance_most, median + settings.residual_distance * (1 - median))


def sum_by_label(labels_HW: NDArray[np.int32], steps_HW: NDArray[np.uint8], count: int) -> NDArray[np.int64]:
    """Return the sums of the steps of each label, label 0 first. Events hold no pixel without data."""
    inside_HW = labels_HW > 0
    sums_L = np.bincount(labels_HW[inside_HW], weights=steps_HW[inside_HW], minlength=count)
    return np.rint(sums_L).astype(np.int64)
