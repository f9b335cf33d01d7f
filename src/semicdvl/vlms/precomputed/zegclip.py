"""ZegCLIP's predictions, computed elsewhere: zero-shot semantic segmentation, one map per class.

ZegCLIP needs mmsegmentation 0.x, which is not installed beside this package. Run it where it is, save the class
probabilities of every image (C x H x W, 0 to 1) as `.npy`, and give the folder: `docs/models/vlms.md` has the commands.
The layout is that of `precomputed`; the difference is that scores outside [0, 1] are refused instead of clamped,
because ZegCLIP's head gives logits of which only the sigmoid is a score. Gamma is 0.5, "more likely than not".
"""

from __future__ import annotations

from pathlib import Path

from semicdvl.vlms.model_cards import ModelCard
from semicdvl.vlms.precomputed.files import AnswerFormat, PrecomputedVLM, open_answers

CARD = ModelCard(
    description="ground cover",
    licence="MIT",
    size="-",
    needs="a folder of predictions",
    gamma=0.5,
)


def build_zegclip(
    *, weights: Path | str | None = None, images: Path | str | None = None, device: str = "cpu"
) -> PrecomputedVLM:
    """Open a folder of ZegCLIP's predictions.

    Args:
        weights: the folder, with `answers.json` in it (see `precomputed`).
        images: folder of the images; overrides `images` of answers.json.
        device: not used; there for VLMs that compute.

    Raises:
        ConfigError: no folder was given.
        InputError: the folder has no valid answers.json.
    """
    return open_answers(weights, images=images, form=AnswerFormat("zegclip", gamma=CARD.gamma, clamp=False))
