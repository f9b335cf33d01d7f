"""A small scene of roofs, a VLM that finds them by their brightness, and the map of a detector over strips."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from tests.support.score_strips import Strips

from semicdvl.ceg.prompts import Prompts
from semicdvl.types import Segments

PROMPTS = Prompts(("roof",), ("grass", "road"))


@dataclass(frozen=True)
class Brightness:
    """A VLM whose score of the first word is the red channel and of the others half of what is left, and little."""

    identity: str = "brightness-1"
    gamma: float = 0.5

    def segment(self, image_HWC, prompts, *, gsd_m=None):
        red_HW = image_HWC[..., 0].astype(np.float32) / 255
        scores = [red_HW, (1 - red_HW), *([(1 - red_HW) / 4] * (len(prompts) - 2))]
        return Segments(np.stack(scores), tuple(prompts))


def draw_roofs(height: int = 40, width: int = 50) -> tuple[np.ndarray, np.ndarray]:
    """A roof that stays (fainter at date 2), one that goes, one that comes, on dark ground."""
    t1, t2 = np.full((height, width, 3), 20, np.uint8), np.full((height, width, 3), 30, np.uint8)
    t1[2:12, 2:12], t2[3:13, 3:13] = 250, 200
    t1[20:28, 5:15] = 230
    t2[25:35, 30:45] = 240
    return t1, t2


def decide_whole(detector, scores_PHW, valid_HW, *, rows: int = 14):
    """Decide strip by strip, and put the answers together."""
    maps = list(detector.decide(Strips(scores_PHW, valid_HW, rows)))
    assert [len(part.change_HW) for part in maps] == [
        len(strip.valid_HW) for strip in Strips(scores_PHW, valid_HW, rows)
    ]
    assert len({(part.classes, part.foreground) for part in maps}) == 1
    names = [name for name in ("change_HW", "score_HW", "t1_HW", "t2_HW") if getattr(maps[0], name) is not None]
    return replace(maps[0], **{name: np.concatenate([getattr(part, name) for part in maps]) for name in names})
