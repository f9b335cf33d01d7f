"""The answers of a VLM for two dates -> the change label and the single-date labels of a pair."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from semicdvl.ceg import rules
from semicdvl.ceg.config import LEVELS_WITHOUT_GAMMA, CEGSettings
from semicdvl.ceg.features import PairFeatures
from semicdvl.ceg.instances import rule as instance_rule
from semicdvl.ceg.instances.events import ChangeEvents, find_change_events, find_change_events_of_instances
from semicdvl.ceg.instances.masks import classify_masks, crop_label_image
from semicdvl.ceg.prompts import ClassPrompts, Prompts
from semicdvl.ceg.residual.appearance import compute_distance_map
from semicdvl.ceg.residual.rule import find_residual_events
from semicdvl.errors import ConfigError
from semicdvl.types import IGNORE, Instance, Segments, VLMLabels


def make_labels(
    t1: Segments,
    t2: Segments,
    *,
    prompts: Prompts,
    settings: CEGSettings,
    features: PairFeatures | None = None,
) -> VLMLabels:
    """Turn the answers for both dates into the change label and the single-date labels.

    An instance that was replaced (an option beyond the paper) is foreground at both dates, so the pixel level has no
    change there: in the mixed label its reliable pixels are changed all the same.

    Args:
        t1: the VLM's answer for date 1.
        t2: the VLM's answer for date 2.
        prompts: foreground and background prompts, in the order of the answers.
        settings: level, thresholds and options.
        features: feature maps of both dates; needed for `min_cosine`, compared at the residual level where given.

    Raises:
        DataError: the answers do not fit each other, or features are needed and missing.
        ConfigError: one date has instances and the other has none.
    """
    found = None if settings.level == "pixel" else find_instance_events(t1, t2, prompts, settings, features=features)
    return make_labels_from_events(found, t1, t2, prompts=prompts, settings=settings)


def make_labels_from_events(
    events: ChangeEvents | None,
    t1: Segments,
    t2: Segments,
    *,
    prompts: Prompts,
    settings: CEGSettings,
) -> VLMLabels:
    """Make the labels of `make_labels` once the change events are known, which do not depend on gamma."""
    shape_hw = t1.scores_CHW.shape[1:]
    unmatched_HW = np.ones(shape_hw, bool) if events is None else events.unmatched_HW
    change_HW, t1_HW, t2_HW = rules.make_mixed_labels(
        t1.scores_CHW,
        t2.scores_CHW,
        unmatched_HW,
        foreground=prompts.foreground,
        gamma=settings.gamma,
        gamma_segmentation=settings.gamma_segmentation,
    )
    if events is not None and settings.level in LEVELS_WITHOUT_GAMMA:  # they have no reliability
        change_HW = (events.unmatched_HW | events.replaced_HW).astype(np.uint8)
    elif events is not None:
        change_HW[events.replaced_HW & (change_HW != IGNORE)] = 1
    return VLMLabels(change_HW, t1_HW, t2_HW)


def make_class_labels_from_events(
    events: Sequence[ChangeEvents | None], t1: Segments, t2: Segments, *, classes: ClassPrompts, settings: CEGSettings
) -> VLMLabels:
    """Return the labels of several classes, once the change events of each changing class are known.

    Change is that of any changing class, each against all others; where it is reliable depends on the best score alone,
    which is the same for all. The single-date labels are the index of the class with the best score.

    Args:
        events: of each of `classes.concepts`; None at the pixel level.
        t1: the VLM's answer for date 1.
        t2: the VLM's answer for date 2.
        classes: the classes, with the prompts of the answers.
        settings: level, thresholds and options.
    """
    of_classes = [
        make_labels_from_events(found, t1, t2, prompts=concept, settings=settings).change_HW
        for found, concept in zip(events, classes.concepts, strict=True)
    ]
    change_HW = of_classes[0]
    for of_class_HW in of_classes[1:]:
        change_HW = np.maximum(change_HW, of_class_HW)  # what is IGNORE of one class is of all
    t1_HW, t2_HW = (
        rules.segment_classes(answer.scores_CHW, classes=classes.precedence, gamma=settings.gamma_segmentation)
        for answer in (t1, t2)
    )
    return VLMLabels(change_HW, t1_HW, t2_HW)


def find_instance_events(
    t1: Segments,
    t2: Segments,
    prompts: Prompts,
    settings: CEGSettings,
    *,
    features: PairFeatures | None = None,
) -> ChangeEvents:
    """Return where the foreground instances of two answers are change events.

    The instances are the VLM's own; for a VLM that gives score maps only, they are connected components of the maps.
    The residual level compares score maps alone, and what it finds counts as unmatched.
    """
    if settings.level == "residual":
        shape_hw = t1.scores_CHW.shape[1], t1.scores_CHW.shape[2]
        residual_HW = find_residual_events(
            t1.scores_CHW,
            t2.scores_CHW,
            foreground=prompts.foreground,
            settings=settings,
            distance_HW=None if features is None else compute_distance_map(features, shape_hw=shape_hw),
        )
        return ChangeEvents(residual_HW, np.zeros_like(residual_HW))
    first, second = (_select_foreground_instances(segments, prompts) for segments in (t1, t2))
    if first is None and second is None:
        labels = [_find_components(segments.scores_CHW, prompts, settings) for segments in (t1, t2)]
        return find_component_events(
            labels[0], labels[1], t1.scores_CHW, t2.scores_CHW, prompts=prompts, settings=settings, features=features
        )
    if first is None or second is None:
        raise ConfigError("one date has instances and the other has none; ask the same VLM for both.")
    height, width = t1.scores_CHW.shape[1:]
    instance_masks = [[instance.mask for instance in instances] for instances in (first, second)]
    if not settings.active_options:
        unmatched_HW = instance_rule.instance_level(*instance_masks, shape_hw=(height, width), delta=settings.delta)
        return ChangeEvents(unmatched_HW, np.zeros_like(unmatched_HW))
    return find_change_events_of_instances(
        *instance_masks,
        shape_hw=(height, width),
        settings=settings,
        classes={"t1": [each.prompt for each in first], "t2": [each.prompt for each in second]},
        features=features,
    )


def find_component_events(
    labels_t1_HW: NDArray[np.int32],
    labels_t2_HW: NDArray[np.int32],
    scores_t1_CHW: NDArray[np.float32],
    scores_t2_CHW: NDArray[np.float32],
    *,
    prompts: Prompts,
    settings: CEGSettings,
    features: PairFeatures | None = None,
) -> ChangeEvents:
    """Find change events as `find_instance_events`, for objects in label images (0 = none), which cannot overlap."""
    if not settings.active_options:
        unmatched_HW = instance_rule.instance_level_from_label_images(labels_t1_HW, labels_t2_HW, delta=settings.delta)
        return ChangeEvents(unmatched_HW, np.zeros_like(unmatched_HW))
    masks = [crop_label_image(labels_HW) for labels_HW in (labels_t1_HW, labels_t2_HW)]
    classes: list[Sequence[int]] = [(), ()]
    if settings.replaced_class:
        classes = [
            classify_masks(of_date, scores_CHW, foreground=prompts.foreground)
            for of_date, scores_CHW in zip(masks, (scores_t1_CHW, scores_t2_CHW), strict=True)
        ]
    height, width = labels_t1_HW.shape
    return find_change_events(
        *masks,
        shape_hw=(height, width),
        settings=settings,
        classes_t1=classes[0],
        classes_t2=classes[1],
        features=features,
    )


def _select_foreground_instances(segments: Segments, prompts: Prompts) -> list[Instance] | None:
    """Return the VLM's own foreground instances, or None if it gives score maps only."""
    if segments.instances is None:
        return None
    return [instance for instance in segments.instances if instance.prompt in prompts.foreground]


def _find_components(scores_CHW: NDArray[np.float32], prompts: Prompts, settings: CEGSettings) -> NDArray[np.int32]:
    """Return the foreground components of score maps as a label image."""
    return instance_rule.find_components(
        scores_CHW,
        foreground=prompts.foreground,
        threshold=settings.instance_score,
        min_area_px=settings.min_area_px,
    )
