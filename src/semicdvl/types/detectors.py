"""The base class of everything that detects change in a pair of rasters."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from semicdvl.types.reliability import Reliability, SourceFacts
from semicdvl.types.tiles import ChangeMap, PairTiles, ScoreStrips, TilePrediction


class Detector(ABC):
    """Trained networks, ONNX files, unsupervised methods and VLM + CEG share this interface.

    The tile runner calls `prepare` once, then `predict_tile` for every tile; the score maps are blended where tiles
    overlap; `decide` turns the blended maps of the whole raster into the change map, so that an object cut by a tile
    border is one object again. No step holds a whole raster: memory does not grow with its size.

    A subclass sets `name` and `map_count` and implements `predict_scores` and `decide`. The other members have
    defaults:

        class Brighter(Detector):
            name, map_count = "brighter", 1

            def predict_scores(self, t1_HWC, t2_HWC, *, gsd_m=None):
                difference_HW = t2_HWC.mean(axis=2, dtype=np.float32) - t1_HWC.mean(axis=2, dtype=np.float32)
                return np.clip(difference_HW / 255, 0, 1)[None]

            def decide(self, strips):
                for strip in strips:
                    score_HW = strip.scores_PHW[0]
                    yield ChangeMap((score_HW > 0.5).astype(np.uint8), score_HW)

    Attributes:
        name: what reports call the detector.
        map_count: number P of score maps that `predict_scores` returns.
        max_bands: greatest number of bands that the detector can use; None: any number.
        stretch: limits of the grey values that the detector was made with, as the setting of the same name says them;
            None: no such limits are known, and those of the images are measured.
        bands: 1-based numbers of the bands that the detector was made with, which are read unless the user names
            others, as many; None: red, green and blue.
        reads_values: whether tiles hold the images' own values as float32 (physical ones, NaN where there is no data)
            in place of grey values of 8 bits.
        tells_transitions: whether its classes of both dates are named ones of its own, so that what became what is a
            result: the report then has a matrix of it.
        stored_kind: the kind of detector as stored results and interrupted runs name it; None: the path of the class.
            Built-in detectors set it, so that moving or renaming a class does not change what was stored.

    Examples:
        >>> import semicdvl as cd
        >>> detector = cd.create_detector("cva")
        >>> isinstance(detector, cd.Detector), detector.map_count
        (True, 1)
    """

    name: str
    map_count: int
    max_bands: ClassVar[int | None] = None
    tells_transitions: bool = False
    stored_kind: ClassVar[str | None] = None
    stretch: str | None = None
    bands: tuple[int, ...] | None = None
    reads_values: bool = False

    def prepare(self, tiles: PairTiles) -> Detector:
        """Return the detector fitted to this pair (means, principal components, clusters); by default itself.

        It is called once per pair, before the first tile is predicted.
        """
        return self

    @abstractmethod
    def predict_scores(
        self, t1_HWC: NDArray[np.uint8], t2_HWC: NDArray[np.uint8], *, gsd_m: float | None = None
    ) -> NDArray[np.float32]:
        """Return the float32 score maps PHW of one pair of tiles.

        Args:
            t1_HWC: uint8 image of date 1, padded to the tile's full size by reflection.
            t2_HWC: uint8 image of date 2, of the same size.
            gsd_m: ground sampling distance in metres per pixel, if known.
        """

    def predict_tile(
        self,
        t1_HWC: NDArray[np.uint8],
        t2_HWC: NDArray[np.uint8],
        *,
        valid_HW: NDArray[np.bool_],
        gsd_m: float | None = None,
    ) -> TilePrediction:
        """Return everything that the detector finds in one pair of tiles; by default the score maps alone.

        Override it to return instances or features as well; `decide` finds them in `strips.tile_instances`.

        Args:
            t1_HWC: uint8 image of date 1, padded to the tile's full size by reflection.
            t2_HWC: uint8 image of date 2, of the same size.
            valid_HW: where both dates have data, from the tile's top left; it ends where the raster ends.
            gsd_m: ground sampling distance in metres per pixel, if known.
        """
        return TilePrediction(self.predict_scores(t1_HWC, t2_HWC, gsd_m=gsd_m), valid_HW)

    def skip_tile(self, valid_HW: NDArray[np.bool_]) -> TilePrediction:
        """Return the prediction for a tile in which no pixel has data in both dates: no score maps."""
        return TilePrediction(None, valid_HW)

    @abstractmethod
    def decide(self, strips: ScoreStrips) -> Iterator[ChangeMap]:
        """Yield one `ChangeMap` per strip, of its rows; all of them have the same `classes`."""

    def description(self) -> dict[str, str]:
        """Return what the detector is made of for the report, label -> text; empty: the report shows its name."""
        return {}

    @property
    def identity(self) -> str | None:
        """What the score maps depend on: equal identities mean equal maps, so weights are named by their hash.

        None: `detection.fingerprint.identify_detector` takes the name, the description and the plain fields instead.
        """
        return None

    def judge_source(self, source: SourceFacts) -> Reliability:
        """Judge whether images lie within what the detector was measured on; by default it cannot be told."""
        return Reliability(None, (f"Nothing is measured that says how reliable {self.name} is on such images.",))

    @property
    def usual_area_m2(self) -> float:
        """Area of the smallest object that is usually of interest; smaller ones are left out unless the user says so.

        0: nothing is known of what is looked for, and nothing is left out.
        """
        return 0.0

    def set_least_area(self, area_m2: float) -> Detector:
        """Return the detector for a smallest object that the user gave; by default itself, as it has no own limit.

        Called after `prepare`. The area is in pixels where their size is not known.
        """
        return self

    def notes(self) -> tuple[str, ...]:
        """Return remarks on the result for its reader; called after `decide` has finished."""
        return ()
