"""Detect change without labels: a vision-language model with change event generation."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from semicdvl.ceg.config import DETECTION_LEVEL, CEGSettings
from semicdvl.ceg.features import (
    AERIAL_ENCODER,
    FeatureExtractor,
    PairFeatures,
    build_feature_extractor,
    refuse_unused_features,
    segment_with_features,
)
from semicdvl.ceg.instances.events import ChangeEvents
from semicdvl.ceg.instances.merging import crop_tile_instances
from semicdvl.ceg.prompts import Prompts
from semicdvl.ceg.residual.appearance import compute_distance_map
from semicdvl.ceg.residual.outlines import CANDIDATE_SETTINGS, prepare_residual_answers
from semicdvl.ceg.residual.rule import ASSUMED_GSD_M
from semicdvl.detection.detectors.event_maps import EventMapper
from semicdvl.detection.detectors.vlm_range import judge_vlm_source
from semicdvl.raster.vector.object_stats import FOREGROUND_SCORE, UNSURE
from semicdvl.types import (
    VLM,
    ChangeMap,
    DescribedVLM,
    Detector,
    PairTiles,
    Reliability,
    ScoreStrips,
    Segments,
    SourceFacts,
    TilePrediction,
)

BUILDING_AREA_M2, OTHER_AREA_M2 = 20.0, 10.0
"""Smallest objects of interest, where buildings are looked for and where other things are. In a synthetic city a third
of the objects that are found are smaller than 20 m2, and hold 2 % of the area."""


@dataclass(frozen=True)
class VLMDetector(Detector):
    """Ask a VLM about both dates, tile by tile, and compare the answers over the whole raster.

    The score maps are those of all prompts at date 1, then at date 2. `decide` runs change event generation on the
    blended maps (`event_maps.EventMapper`). The objects are the instances of the VLM where it gives some: those of one
    object in neighbouring tiles are merged (`ceg.instances.merging`). For a VLM that gives score maps alone they are
    the 8-connected components of the blended maps. Either way, an object cut by tiles is one object. Instances are used
    as in pseudo-labelling: all that answer a foreground prompt, whatever their score and size.

    With `min_cosine`, objects are also compared by their features. Features are extracted per tile; every pixel takes
    those of the tile whose centre is nearest (`ceg.instances.feature_similarity`). Pseudo-labelling, which extracts
    features of a whole image at once, differs by what a network sees beyond the edge of a tile.

    Attributes:
        vlm: the vision-language model.
        prompts: the foreground classes to find and the background classes.
        settings: level, thresholds and options of CEG. Of the paper's levels, instance is the best for a map without
            labels (IoU 46.3 on LEVIR-CD; pixel level at most 41.4; mixed, which is made for training, 32.3 over all
            pixels); `semicdvl detect` takes the residual level, which is beyond the paper, by default.
        features: extracts the features that objects are compared by: with `min_cosine`, or at the residual level.
        class_score: mean score from which the class of an object is named and not "unsure"; None: the VLM's own.
    """

    max_bands = 3
    stored_kind = "semicdvl.predict.vlm_ceg.VLMCEG"

    vlm: VLM
    prompts: Prompts
    settings: CEGSettings = field(default_factory=lambda: CEGSettings(level="instance"))
    features: FeatureExtractor | None = None
    class_score: float | None = None

    def __post_init__(self) -> None:
        """Refuse `min_cosine` without features, features that nothing compares, and words that the VLM does not know.

        Raises:
            ConfigError: one of these.
        """
        if isinstance(self.vlm, DescribedVLM):
            self.vlm.check_words(self.prompts.words)
        refuse_unused_features(self.settings, self.features)

    @property
    def name(self) -> str:  # type: ignore[override]  # the base class has a plain attribute
        """Short name for reports."""
        return f"{self.vlm.identity} + {self.settings.level} CEG"

    @property
    def identity(self) -> str:
        """The model, the prompts and the feature extractor: what the score maps depend on, not change event generation.

        Prompts are listed by their roles, because only instances of the foreground are kept.
        """
        prompted = f"{self.vlm.identity}: {', '.join(self.prompts.find)} | {', '.join(self.prompts.background)}"
        settings = self.settings
        if settings.level == "residual" and settings.residual_outlines:
            prompted += f"; outlines {settings.residual_outlines:g} of segments {settings.residual_segment_scale:g}"
            given = {name: getattr(settings, name) for name in CANDIDATE_SETTINGS}
            others = [f"{name} {value:g}" for name, value in given.items() if value != getattr(CEGSettings, name)]
            prompted += " ".join([" around candidates", *others])
        elif settings.level == "residual":  # instances are painted into the maps
            prompted += "; own outlines"
        if self.features is None:
            return prompted
        return f"{prompted}; {'distance' if self._compares_distances else 'features'} {self.features.identity}"

    @property
    def map_count(self) -> int:  # type: ignore[override]
        """Number of maps: one per prompt and date, and at the residual level the distance of the features."""
        return 2 * len(self.prompts.words) + self._compares_distances

    @property
    def _compares_distances(self) -> bool:
        """Tell whether the last map is the distance of the features of the dates."""
        return self.features is not None and self.settings.vetoes_by_distance

    @property
    def least_class_score(self) -> float:
        """Mean score from which the class of an object is named."""
        if self.class_score is not None:
            return self.class_score
        own = self.vlm.class_score if isinstance(self.vlm, DescribedVLM) else None
        return self.vlm.gamma if own is None else own

    @property
    def usual_area_m2(self) -> float:
        """Area of the smallest object of interest; the residual level has its own."""
        if self.settings.level == "residual":
            return self.settings.residual_area_m2
        return BUILDING_AREA_M2 if self.prompts.finds_buildings else OTHER_AREA_M2

    def set_least_area(self, area_m2: float) -> Detector:
        """Return the detector whose residual level, too, has the smallest object that the user gave.

        A smallest event that was given by itself (`residual_area_m2`) stays.
        """
        settings = self.settings
        if settings.level != "residual" or settings.residual_area_m2 != CEGSettings.residual_area_m2:
            return self
        if settings.gsd_m is None:  # the area is in pixels
            area_m2 *= ASSUMED_GSD_M**2
        return replace(self, settings=replace(settings, residual_area_m2=area_m2))

    def judge_source(self, source: SourceFacts) -> Reliability:
        """Judge whether words, pixel size and bands lie within what the VLM was measured on."""
        return judge_vlm_source(self.vlm, self.prompts.find, source)

    def prepare(self, tiles: PairTiles) -> Detector:
        """Return the detector with the pair's ground sampling distance, by which the residual level measures."""
        settings = self.settings.at_gsd(tiles.gsd_m)
        return self if settings is self.settings else replace(self, settings=settings)

    def notes(self) -> tuple[str, ...]:
        """Return which ground sampling distance was assumed, where the residual level does not know it."""
        if self.settings.level != "residual" or self.settings.gsd_m is not None:
            return ()
        return (
            f"The ground sampling distance is unknown, so the residual level assumed {ASSUMED_GSD_M:g} m per pixel. "
            "Give the true one with --gsd if it differs.",
        )

    def description(self) -> dict[str, str]:
        """Return model, prompts and thresholds."""
        settings = self.settings
        return {
            "Detector": f"vision-language model, {settings.level}-level change event generation, no labels",
            "Model": self.vlm.identity,
            "Looked for": ", ".join(self.prompts.find),
            "Against": ", ".join(self.prompts.background),
            "Thresholds": settings.describe_thresholds(),
            "Classes": self._describe_naming(),
            **{f"Option {name}": f"{getattr(settings, name)}" for name in settings.active_options},
            **({} if self.features is None else {"Features": self.features.identity}),
        }

    def _describe_naming(self) -> str:
        """Return from which score on the classes of an object are named, and how often they are right."""
        least = self.least_class_score
        reliability = "not measured"
        if isinstance(self.vlm, DescribedVLM) and least == self.vlm.class_score:
            reliability = self.vlm.class_reliability
        return (
            f"named from a mean score of {least:g} on ({min(least, FOREGROUND_SCORE):g} for what is looked for), else "
            f"'{UNSURE}'; how often they are right: {reliability}"
        )

    def predict_scores(
        self, t1_HWC: NDArray[np.uint8], t2_HWC: NDArray[np.uint8], *, gsd_m: float | None = None
    ) -> NDArray[np.float32]:
        """Return the score maps of both dates, PHW; at the residual level also the distance of the features."""
        answers, features = self._ask(t1_HWC, t2_HWC, gsd_m=gsd_m)
        return self._stack_maps(answers, (t1_HWC, t2_HWC), features, gsd_m)

    def _ask(
        self, t1_HWC: NDArray[np.uint8], t2_HWC: NDArray[np.uint8], *, gsd_m: float | None
    ) -> tuple[tuple[Segments, Segments], PairFeatures | None]:
        """Return the VLM's answers for both dates, and the feature maps of both where they are compared.

        Raises:
            DataError: features are NaN, or their shapes differ.
        """
        (t1, t1_DHW), (t2, t2_DHW) = (
            segment_with_features(image_HWC, self.prompts.words, vlm=self.vlm, features=self.features, gsd_m=gsd_m)
            for image_HWC in (t1_HWC, t2_HWC)
        )
        if t1_DHW is None or t2_DHW is None:
            return (t1, t2), None
        return (t1, t2), PairFeatures(t1_DHW, t2_DHW)

    def predict_tile(
        self,
        t1_HWC: NDArray[np.uint8],
        t2_HWC: NDArray[np.uint8],
        *,
        valid_HW: NDArray[np.bool_],
        gsd_m: float | None = None,
    ) -> TilePrediction:
        """Return the score maps of both dates, the instances of the VLM, and the features if they are used.

        Raises:
            ConfigError: one date has instances and the other has none.
            DataError: features are NaN, or their shapes differ.
        """
        (t1, t2), features = self._ask(t1_HWC, t2_HWC, gsd_m=gsd_m)
        objects, kept_2DHW = None, None
        if t1.instances is not None or t2.instances is not None:
            objects = crop_tile_instances(t1, t2, foreground=self.prompts.foreground, valid_HW=valid_HW)
        if features is not None and not self._compares_distances:
            kept_2DHW = np.stack([features.t1_DHW, features.t2_DHW]).astype(np.float32)
        maps_PHW = self._stack_maps((t1, t2), (t1_HWC, t2_HWC), features, gsd_m)
        return TilePrediction(maps_PHW, valid_HW, objects, kept_2DHW)

    def _stack_maps(
        self,
        answers: tuple[Segments, Segments],
        images_HWC: tuple[NDArray[np.uint8], NDArray[np.uint8]],
        features: PairFeatures | None,
        gsd_m: float | None,
    ) -> NDArray[np.float32]:
        """Return the score maps of both dates, and the distance of the features where it is compared, stacked."""
        if self.settings.level == "residual":
            settings = self.settings.at_gsd(gsd_m)
            answers = prepare_residual_answers(answers, images_HWC, prompts=self.prompts, settings=settings)
        maps = [np.clip(answer.scores_CHW, 0, 1) for answer in answers]
        if features is not None and self._compares_distances:
            shape_hw = maps[0].shape[1], maps[0].shape[2]
            maps.append(compute_distance_map(features, shape_hw=shape_hw)[None])
        return np.concatenate(maps).astype(np.float32)

    def skip_tile(self, valid_HW: NDArray[np.bool_]) -> TilePrediction:
        """Return a tile without instances: they count as known, so that the other tiles' instances are used."""
        return TilePrediction(None, valid_HW, ())

    def decide(self, strips: ScoreStrips) -> Iterator[ChangeMap]:
        """Yield the change map strip by strip, after a pass over the whole raster where objects are compared."""
        for change, _ in self.decide_with_events(strips):
            yield change

    def decide_with_events(self, strips: ScoreStrips) -> Iterator[tuple[ChangeMap, ChangeEvents | None]]:
        """Return what `decide` yields, with the change events of the strip; None at the pixel level."""
        return EventMapper(self.prompts, self.settings, self.least_class_score).decide(strips)


def build_vlm_detector(
    vlm: VLM, *, prompts: Prompts, settings: CEGSettings | None = None, features: FeatureExtractor | None = None
) -> VLMDetector:
    """Return the detector that needs no labels; without `settings` at the paper's instance level.

    Raises:
        ConfigError: `min_cosine` without a feature extractor, or one that nothing compares by.
    """
    return VLMDetector(vlm, prompts, settings or CEGSettings(level="instance"), features)


def build_default_detector(
    vlm: VLM,
    *,
    prompts: Prompts,
    settings: CEGSettings | None = None,
    features: FeatureExtractor | None = None,
    class_score: float | None = None,
) -> VLMDetector:
    """Return the detector that needs no labels as `semicdvl detect` runs it.

    Args:
        vlm: the vision-language model.
        prompts: what it looks for, and against what.
        settings: of change event generation; None: the residual level.
        features: what the dates are compared by; None: the embedded VLM's own encoder at the residual level.
        class_score: mean score from which the class of an object is named; None: the VLM's own.

    Raises:
        ConfigError: `min_cosine` without a feature extractor, or one that nothing compares by.
    """
    settings = settings or CEGSettings(level=DETECTION_LEVEL, gamma=vlm.gamma, gamma_segmentation=vlm.gamma)
    if features is None and settings.vetoes_by_distance:
        features = build_feature_extractor(AERIAL_ENCODER)
    return VLMDetector(vlm, prompts, settings, features, class_score)
