"""Detect change without labels, and take from a trained network what it knows better: `adapt`, `detect --combine`.

A network that was trained on the map without labels is no judge of its objects: what it says of them it has learnt from
that map. So the objects of the map without labels stay. The network was trained at full resolution, and may move their
outlines outwards by a little; and what it finds away from all of them, and is sure of, is added. What is sure shows
after a pass over the whole raster. Memory grows with the number of objects, not with the raster.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal, cast, get_args

import numpy as np
from numpy.typing import NDArray

from semicdvl.ceg.residual.rule import ASSUMED_GSD_M, dilate
from semicdvl.ceg.residual.streaming import MaskStrip, add_neighbouring_rows
from semicdvl.detection.detectors.calibrated import CalibratedVLMDetector
from semicdvl.detection.detectors.trained import TrainedDetector
from semicdvl.detection.detectors.vlm_ceg import VLMDetector
from semicdvl.errors import ConfigError
from semicdvl.raster.object_sums import ObjectSums, label_regions
from semicdvl.types import (
    ChangeMap,
    Detector,
    PairTiles,
    Reliability,
    ScoreStrip,
    ScoreStrips,
    SourceFacts,
    TilePrediction,
)

Combination = Literal["both", "outlines", "objects"]
"""What is taken from the network: wider outlines, further objects, or both."""
GROWN_M = 0.5
"""By so much the network may widen the objects of the map without labels, see `docs/guides/self-training.md`."""
SURE_SCORE = 0.8
"""Mean probability from which an object that the network alone finds is added."""


@dataclass(frozen=True)
class CombinedDetector(Detector):
    """Detect change without labels, with wider outlines and further objects from a trained network.

    The score maps are those of the detector without labels, then the network's probability of change.

    Attributes:
        base: the `VLMDetector` that detects without labels.
        network: a trained network, usually one that was adapted to this pair (`training.self_training`).
        combination: what is taken from the network.
        gsd_m: metres per pixel of the pair, from `prepare` on; None: `ASSUMED_GSD_M`.
    """

    max_bands = 3
    stored_kind = "semicdvl.detection.CombinedDetector"

    base: Detector
    network: TrainedDetector
    combination: Combination = "both"
    gsd_m: float | None = None

    def __post_init__(self) -> None:
        """Refuse networks that see other bands than the VLM does, or whose change head does not decide alone.

        Raises:
            ConfigError: the network was trained with such bands, or its classes decide, too.
        """
        if self.network.input_bands is not None:
            raise ConfigError(
                f"{self.network.name}: was trained with {self.network.input_bands.describe()}, and the VLM sees red, "
                "green and blue. Leave out the combination, and compare both maps."
            )
        if self.network.deciding != "change":
            raise ConfigError(
                f"{self.network.name}: its change head alone completes the map without labels, and the classes of the "
                "dates cannot decide, too. Leave out --decide, or --combine."
            )

    @property
    def stretch(self) -> str | None:  # type: ignore[override]  # the base class has a plain attribute
        """The limits of the grey values that the network was trained with."""
        return self.network.stretch

    @property
    def name(self) -> str:  # type: ignore[override]  # the base class has a plain attribute
        """Short name for reports."""
        return f"{self.base.name} + {self.network.name}"

    @property
    def identity(self) -> str:
        """What the score maps depend on."""
        return f"{self.base.identity} + {self.network.identity}"

    @property
    def map_count(self) -> int:  # type: ignore[override]
        """The maps of the detector without labels, and one of the network."""
        return self.base.map_count + 1

    @property
    def usual_area_m2(self) -> float:
        """Area of the smallest object of interest."""
        return self.base.usual_area_m2

    def set_least_area(self, area_m2: float) -> Detector:
        """Return the detector for a smallest object that the user gave."""
        return replace(self, base=self.base.set_least_area(area_m2))

    def prepare(self, tiles: PairTiles) -> Detector:
        """Return the detector with the pair's ground sampling distance."""
        return replace(self, base=self.base.prepare(tiles), gsd_m=tiles.gsd_m)

    def judge_source(self, source: SourceFacts) -> Reliability:
        """Judge whether words, pixel size and bands lie within what the VLM was measured on."""
        return self.base.judge_source(source)

    def notes(self) -> tuple[str, ...]:
        """Return the notes of the detector without labels."""
        return self.base.notes()

    def description(self) -> dict[str, str]:
        """Return both parts."""
        taken = {
            "outlines": f"up to {GROWN_M:g} m around objects",
            "objects": f"further objects with a mean probability of {SURE_SCORE:g}",
        }
        parts = [text for part, text in taken.items() if self.combination in (part, "both")]
        return self.base.description() | {"Network": self.network.name, "Taken from it": " and ".join(parts)}

    def predict_scores(
        self, t1_HWC: NDArray[np.uint8], t2_HWC: NDArray[np.uint8], *, gsd_m: float | None = None
    ) -> NDArray[np.float32]:
        """Return the score maps of both parts, PHW."""
        maps_PHW = self.base.predict_scores(t1_HWC, t2_HWC, gsd_m=gsd_m)
        return np.concatenate([maps_PHW, self._ask_network(t1_HWC, t2_HWC, gsd_m=gsd_m)])

    def predict_tile(
        self,
        t1_HWC: NDArray[np.uint8],
        t2_HWC: NDArray[np.uint8],
        *,
        valid_HW: NDArray[np.bool_],
        gsd_m: float | None = None,
    ) -> TilePrediction:
        """Return what the detector without labels finds in a tile, with the network's probability as the last map."""
        found = self.base.predict_tile(t1_HWC, t2_HWC, valid_HW=valid_HW, gsd_m=gsd_m)
        if found.scores_PHW is None:
            return found
        maps = [found.scores_PHW, self._ask_network(t1_HWC, t2_HWC, gsd_m=gsd_m)]
        return replace(found, scores_PHW=np.concatenate(maps))

    def skip_tile(self, valid_HW: NDArray[np.bool_]) -> TilePrediction:
        """Return the prediction for a tile without data."""
        return self.base.skip_tile(valid_HW)

    def _ask_network(
        self, t1_HWC: NDArray[np.uint8], t2_HWC: NDArray[np.uint8], *, gsd_m: float | None
    ) -> NDArray[np.float32]:
        """Return the network's probability of change as 1HW."""
        return self.network.predict_scores(t1_HWC, t2_HWC, gsd_m=gsd_m)[:1]

    def decide(self, strips: ScoreStrips) -> Iterator[ChangeMap]:
        """Yield the combined map: a pass that measures the network's objects, and one that paints."""
        own = _LeadingMaps(strips, self.base.map_count)
        added_L, starts = self._choose_added(strips, own)
        waiting: deque[tuple[ChangeMap, NDArray[np.float32]]] = deque()

        def find_masks() -> Iterator[MaskStrip]:
            for change, strip in zip(self.base.decide(own), strips, strict=True):
                found_HW = self._find_changed(strip)
                labels_HW, start = label_regions(found_HW), starts[strip.row]
                flags_L = np.concatenate([[False], added_L[start : start + int(labels_HW.max(initial=0))]])
                masks = (change.change_HW == 1, found_HW, flags_L[labels_HW])
                waiting.append((change, strip.scores_PHW[-1]))
                yield MaskStrip(strip.row, np.stack(masks).astype(np.uint8))

        for window in add_neighbouring_rows(find_masks(), math.floor(self._grown_px)):
            known_HW, found_HW, added_HW = window.masks_NHW
            near_HW = dilate(known_HW, self._grown_px)
            new_HW = (((found_HW & near_HW) | added_HW) > known_HW)[window.own]
            change, probability_HW = waiting.popleft()
            score_HW = np.where(new_HW, np.maximum(change.score_HW, probability_HW), change.score_HW)
            change_HW = np.where(new_HW, np.uint8(1), change.change_HW)
            yield replace(change, change_HW=change_HW, score_HW=score_HW.astype(np.float32))

    @property
    def _grown_px(self) -> float:
        """By how many pixels objects may be widened."""
        return 0.0 if self.combination == "objects" else GROWN_M / (self.gsd_m or ASSUMED_GSD_M)

    def _choose_added(self, strips: ScoreStrips, own: ScoreStrips) -> tuple[NDArray[np.bool_], dict[int, int]]:
        """Return whether each label of the network's regions is added, and the first label of every strip."""
        sums, starts = ObjectSums(), {}
        for change, strip in zip(self.base.decide(own), strips, strict=True):
            starts[strip.row] = sums.count
            sums.add(label_regions(self._find_changed(strip)), strip.scores_PHW[-1], change.change_HW == 1)
        group_L, (area_N, score_N, known_N) = sums.merge_objects()
        added_N = (known_N == 0) & (score_N >= SURE_SCORE * area_N) & (self.combination != "outlines")
        return added_N[group_L], starts

    def _find_changed(self, strip: ScoreStrip) -> NDArray[np.bool_]:
        """Return where the network finds change in a strip."""
        found_HW: NDArray[np.bool_] = strip.valid_HW & (strip.scores_PHW[-1] >= self.network.threshold)
        return found_HW


def combine_detectors(base: Detector, network: Detector, *, combination: str = "both") -> CombinedDetector:
    """Return the detector that widens the objects of the map without labels and adds to them, by a trained network.

    Raises:
        ConfigError: the first is none without labels, or gives its objects probabilities, or the second no trained
            network; or the network was trained with other bands; or the combination is unknown.
    """
    if not isinstance(base, VLMDetector):
        raise ConfigError(f"{base.name} is no detector with a VLM. Give one of `create_vlm_detector` first.")
    if isinstance(base, CalibratedVLMDetector):
        raise ConfigError(
            "A calibrated probability belongs to an object of the VLM as it is: widened by a network it has none, and "
            "one that is dropped as improbable may come back from the network, which learned it. Leave out --calibrate,"
            " or --combine."
        )
    if not isinstance(network, TrainedDetector):
        raise ConfigError(f"{network.name} is no trained network. Give one of `load_detector` second.")
    if combination not in get_args(Combination):
        raise ConfigError(f"combination = '{combination}' is unknown. Known: {', '.join(get_args(Combination))}.")
    return CombinedDetector(base, network, cast(Combination, combination))


class _LeadingMaps(ScoreStrips):
    """The first maps of some strips."""

    def __init__(self, strips: ScoreStrips, count: int) -> None:
        """Take the first `count` maps."""
        self.strips, self.count = strips, count
        self.shape_hw, self.tile_instances = strips.shape_hw, strips.tile_instances

    def __iter__(self) -> Iterator[ScoreStrip]:
        """Yield the strips."""
        for strip in self.strips:
            yield replace(strip, scores_PHW=strip.scores_PHW[: self.count])
