"""The answers of a VLM for two dates, as score strips of a raster -> change maps, by change event generation."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from semicdvl.ceg.config import LEVELS_WITHOUT_GAMMA, CEGSettings
from semicdvl.ceg.instances.events import ChangeEvents
from semicdvl.ceg.instances.merging import has_instances
from semicdvl.ceg.instances.streaming import StreamedInstanceEvents, find_streamed_instance_events
from semicdvl.ceg.prompts import Prompts
from semicdvl.ceg.residual.streaming import find_streamed_residual_events
from semicdvl.ceg.rules import compute_change_score, mixed, pixel_level
from semicdvl.ceg.streaming_components import PairScoreStrip, StreamedComponentEvents, find_streamed_component_events
from semicdvl.types import IGNORE, ChangeMap, ScoreStrips


@dataclass(frozen=True)
class EventMapper:
    """Decide strip by strip what has changed, and which class is there at each date.

    A map is not a training label: every pixel with data gets a class. Where mixed or pixel-level CEG calls a pixel
    unreliable (best score below gamma), the map says unchanged.

    The change score is |q1 - q2| with q = foreground score / (foreground + background score), the relative score of the
    foreground at each date. It is given everywhere: objects with a high mean are certain, objects with a low mean are
    borderline; high values outside of objects are changes that the rules rejected.

    Attributes:
        prompts: the foreground classes to find and the background classes.
        settings: level, thresholds and options of CEG.
        class_score: mean score from which the class of an object is named and not "unsure".
    """

    prompts: Prompts
    settings: CEGSettings
    class_score: float

    def decide(self, strips: ScoreStrips) -> Iterator[tuple[ChangeMap, ChangeEvents | None]]:
        """Yield the change map of each strip, with its change events; None at the pixel level.

        A pass over the whole raster comes first where objects are compared.
        """
        answers = _AnswerStripReader(strips)
        if self.settings.level == "residual":
            events = find_streamed_residual_events(answers, prompts=self.prompts, settings=self.settings)
            for strip, changed_HW in zip(answers, events.paint(answers), strict=True):
                found = ChangeEvents(changed_HW, np.zeros_like(changed_HW))
                yield self._build_map(strip, found), found
            return
        judged = None if self.settings.level == "pixel" else self._find_events(strips)
        for strip in answers:
            painted = None if judged is None else judged.paint_strip(strip)
            yield self._build_map(strip, painted), painted

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
        difference_HW = compute_change_score(t1_CHW, t2_CHW, foreground=foreground)
        score_HW = np.where(valid_HW, difference_HW, np.float32(np.nan)).astype(np.float32)
        classes_HW = [np.where(valid_HW, scores.argmax(axis=0), IGNORE).astype(np.uint8) for scores in (t1_CHW, t2_CHW)]
        return ChangeMap(
            change_HW, score_HW, self.prompts.words, foreground, t1_HW=classes_HW[0], t2_HW=classes_HW[1],
            t1_score_HW=t1_CHW.max(axis=0), t2_score_HW=t2_CHW.max(axis=0), class_score=self.class_score,
        )  # fmt: skip

    def _decide_changed(
        self, t1_CHW: NDArray[np.float32], t2_CHW: NDArray[np.float32], found: ChangeEvents | None
    ) -> NDArray[np.bool_]:
        """Return where change event generation says changed; unreliable pixels count as unchanged."""
        if found is not None and self.settings.level in LEVELS_WITHOUT_GAMMA:
            return found.unmatched_HW | found.replaced_HW
        foreground = self.prompts.foreground
        pixel_HW, reliable_HW = pixel_level(t1_CHW, t2_CHW, foreground=foreground, gamma=self.settings.gamma)
        if found is None:
            return pixel_HW & reliable_HW
        changed_HW: NDArray[np.bool_] = mixed(pixel_HW, reliable_HW, found.unmatched_HW) == 1
        return changed_HW | (found.replaced_HW & reliable_HW)


@dataclass(frozen=True)
class _AnswerStripReader:
    """The score strips of a raster, split into the maps of each date and, if there is one more, the features' distance.

    Iterable any number of times.
    """

    strips: ScoreStrips

    def __iter__(self) -> Iterator[PairScoreStrip]:
        """Yield the strips from the top."""
        for strip in self.strips:
            count, further = divmod(len(strip.scores_PHW), 2)
            distance_HW = strip.scores_PHW[-1] if further else None
            t1_CHW, t2_CHW = strip.scores_PHW[:count], strip.scores_PHW[count : 2 * count]
            yield PairScoreStrip(strip.row, t1_CHW, t2_CHW, strip.valid_HW, distance_HW)
