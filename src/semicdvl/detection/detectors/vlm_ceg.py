"""Detect change without labels: a vision-language model with change event generation."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from semicdvl.ceg import rules
from semicdvl.ceg.config import DETECTION_LEVEL, LEVELS_WITHOUT_GAMMA, CEGSettings
from semicdvl.ceg.feature_similarity import PairFeatures, refuse_unusable_features
from semicdvl.ceg.features import AERIAL_ENCODER, FeatureExtractor, build_feature_extractor, segment_with_features
from semicdvl.ceg.instance_events import ChangeEvents
from semicdvl.ceg.instance_merging import crop_tile_instances, has_instances
from semicdvl.ceg.prompts import Prompts
from semicdvl.ceg.residual.appearance import compute_distance_map
from semicdvl.ceg.residual.outlines import prepare_residual_answers
from semicdvl.ceg.residual.rule import ASSUMED_GSD_M
from semicdvl.ceg.residual.streaming import find_streamed_residual_events
from semicdvl.ceg.streaming_components import PairScoreStrip, StreamedComponentEvents, find_streamed_component_events
from semicdvl.ceg.streaming_instances import StreamedInstanceEvents, find_streamed_instance_events
from semicdvl.detection.detectors.vlm_range import judge_vlm_source
from semicdvl.pseudo_labels.generate import refuse_unused_features
from semicdvl.raster.vector.object_stats import FOREGROUND_SCORE, UNSURE
from semicdvl.types import (
    IGNORE,
    VLM,
    ChangeMap,
    DescribedVLM,
    Detector,
    PairTiles,
    Reliability,
    ScoreStrip,
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
    blended maps. The objects are the instances of the VLM where it gives some: those of one object in neighbouring
    tiles are merged (`ceg.instance_merging`). For a VLM that gives score maps alone they are the 8-connected components
    of the blended maps. Either way, an object cut by tiles is one object. Instances are used as in pseudo-labelling:
    all that answer a foreground prompt, whatever their score and size.

    With `min_cosine`, objects are also compared by their features. Features are extracted per tile; every pixel takes
    those of the tile whose centre is nearest (`ceg.feature_similarity`). Pseudo-labelling, which extracts features of a
    whole image at once, differs by what a network sees beyond the edge of a tile.

    A map is not a training label: every pixel with data gets a class. Where mixed or pixel-level CEG calls a pixel
    unreliable (best score below gamma), the map says unchanged.

    The change score is |q1 - q2| with q = foreground score / (foreground + background score), the relative score of the
    foreground at each date. It is given everywhere: objects with a high mean are certain, objects with a low mean are
    borderline; high values outside of objects are changes that the rules rejected.

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
            prompted += " around candidates"
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
        return getattr(self.vlm, "gamma", FOREGROUND_SCORE) if own is None else own

    @property
    def usual_area_m2(self) -> float:
        """Area of the smallest object of interest; the residual level has its own."""
        if self.settings.level == "residual":
            return self.settings.residual_area_m2
        return BUILDING_AREA_M2 if self.prompts.finds_buildings else OTHER_AREA_M2

    def set_least_area(self, area_m2: float) -> Detector:
        """Return the detector whose residual level, too, has the smallest object that the user gave."""
        if self.settings.level != "residual":
            return self
        return replace(self, settings=replace(self.settings, residual_area_m2=area_m2))

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
            "Thresholds": describe_thresholds(settings),
            "Classes": self._describe_naming(),
            **{f"Option {name}": f"{getattr(settings, name)}" for name in settings.active_options},
            **({} if self.features is None else {"Features": self.features.identity}),
        }

    def _describe_naming(self) -> str:
        """Return from which score on the classes of an object are named, and how often they are right."""
        least = self.least_class_score
        own = isinstance(self.vlm, DescribedVLM) and least == self.vlm.class_score
        told = self.vlm.class_reliability if own and isinstance(self.vlm, DescribedVLM) else "not measured"
        return (
            f"named from a mean score of {least:g} on ({min(least, FOREGROUND_SCORE):g} for what is looked for), else "
            f"'{UNSURE}'; how often they are right: {told}"
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
        refuse_unusable_features(t1_DHW, t2_DHW)
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
        objects = crop_tile_instances(t1, t2, foreground=self.prompts.foreground, valid_HW=valid_HW)
        kept_2DHW = None
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
        """Yield what `decide` yields, with the change events of the strip; None at the pixel level."""
        if self.settings.level == "residual":
            yield from self._decide_residual(strips)
            return
        judged = None if self.settings.level == "pixel" else self._find_events(strips)
        for strip in strips:
            answers = _split_answers(strip)
            found = None if judged is None else judged.paint_strip(answers)
            yield self._build_map(answers, found), found

    def _decide_residual(self, strips: ScoreStrips) -> Iterator[tuple[ChangeMap, ChangeEvents]]:
        """Yield the change map of the residual rule, in two passes over the raster."""
        answers = _AnswerStripReader(strips)
        events = find_streamed_residual_events(answers, prompts=self.prompts, settings=self.settings)
        for strip, changed_HW in zip(answers, events.paint(answers), strict=True):
            found = ChangeEvents(changed_HW, np.zeros_like(changed_HW))
            yield self._build_map(strip, found), found

    def _find_events(self, strips: ScoreStrips) -> StreamedComponentEvents | StreamedInstanceEvents:
        """Find which objects are change events; the only place that decides what an object is."""
        finds = strips.tile_instances
        if finds is not None and has_instances(finds):
            return find_streamed_instance_events(finds, settings=self.settings)
        return find_streamed_component_events(
            _AnswerStripReader(strips), prompts=self.prompts, settings=self.settings, tile_instances=finds
        )

    def _build_map(self, strip: PairScoreStrip, found: ChangeEvents | None) -> ChangeMap:
        """Return the change map of one strip."""
        t1_CHW, t2_CHW, valid_HW, foreground = strip.t1_CHW, strip.t2_CHW, strip.valid_HW, self.prompts.foreground
        change_HW = np.where(valid_HW, self._decide_changed(t1_CHW, t2_CHW, found), np.uint8(IGNORE)).astype(np.uint8)
        difference_HW = rules.compute_change_score(t1_CHW, t2_CHW, foreground=foreground)
        score_HW = np.where(valid_HW, difference_HW, np.float32(np.nan)).astype(np.float32)
        classes_HW = [np.where(valid_HW, scores.argmax(axis=0), IGNORE).astype(np.uint8) for scores in (t1_CHW, t2_CHW)]
        return ChangeMap(
            change_HW, score_HW, self.prompts.words, foreground, t1_HW=classes_HW[0], t2_HW=classes_HW[1],
            t1_score_HW=t1_CHW.max(axis=0), t2_score_HW=t2_CHW.max(axis=0), class_score=self.least_class_score,
        )  # fmt: skip

    def _decide_changed(
        self, t1_CHW: NDArray[np.float32], t2_CHW: NDArray[np.float32], found: ChangeEvents | None
    ) -> NDArray[np.bool_]:
        """Return where change event generation says changed; unreliable pixels count as unchanged."""
        if found is not None and self.settings.level in LEVELS_WITHOUT_GAMMA:
            return found.unmatched_HW | found.replaced_HW
        foreground = self.prompts.foreground
        pixel_HW, reliable_HW = rules.pixel_level(t1_CHW, t2_CHW, foreground=foreground, gamma=self.settings.gamma)
        if found is None:
            return pixel_HW & reliable_HW
        changed_HW: NDArray[np.bool_] = rules.mixed(pixel_HW, reliable_HW, found.unmatched_HW) == 1
        return changed_HW | (found.replaced_HW & reliable_HW)


def describe_thresholds(settings: CEGSettings) -> str:
    """Return the thresholds of a level as a line of a report."""
    if settings.level == "residual":
        return (
            f"score {settings.residual_score:g} at one date, below {settings.residual_other_score:g} within "
            f"{settings.residual_apart_m:g} m at the other; opened by {settings.residual_open_m:g} m, at least "
            f"{settings.residual_area_m2:g} m², grown back {settings.residual_regrow_m:g} m; segments of scale "
            f"{settings.residual_segment_scale:g} with weight {settings.residual_outlines:g}; feature distance "
            f"{settings.residual_distance:.0%} of the way from unchanged ground to 1, at most "
            f"{settings.residual_distance_most:g}"
        )
    return (
        f"gamma {settings.gamma:g}, delta {settings.delta:g}, "
        f"objects from score {settings.instance_score:g} and {settings.min_area_px} px"
    )


@dataclass(frozen=True)
class _AnswerStripReader:
    """The score strips of a raster, split by date; iterable any number of times."""

    strips: ScoreStrips

    def __iter__(self) -> Iterator[PairScoreStrip]:
        """Yield the strips from the top."""
        return map(_split_answers, self.strips)


def _split_answers(strip: ScoreStrip) -> PairScoreStrip:
    """Split the maps of a strip: those of either date, and the distance of the features if there is one more."""
    count, further = divmod(len(strip.scores_PHW), 2)
    distance_HW = strip.scores_PHW[-1] if further else None
    t1_CHW, t2_CHW = strip.scores_PHW[:count], strip.scores_PHW[count : 2 * count]
    return PairScoreStrip(strip.row, t1_CHW, t2_CHW, strip.valid_HW, distance_HW)


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
