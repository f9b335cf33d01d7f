"""OMG-Seg's predictions, computed elsewhere: panoptic segmentation with instances, read as mmdetection 3 saves them.

OMG-Seg needs mmdetection 3. Run its image demo with `--out-dir ANSWERS/A` for the first dates and `ANSWERS/B` for the
second (`docs/models/vlms.md` has the commands); it leaves

    ANSWERS/A/preds/test_1.json     {"labels": [129, ...], "scores": [0.93, ...], "masks": [{"size", "counts"}, ...]}

Add `ANSWERS/answers.json` with the prompts, and the class numbers of the model's data set that belong to each:

    {"prompts": ["house", "road"], "images": "../LEVIR-CD-256", "classes": {"house": [129, 128], "road": [100]}}

Classes that belong to no prompt are left out. Maps are drawn from instances: a pixel has the score of the best one that
covers it. Gamma is 0.5, the usual bound of mask classifiers of this kind; not tuned on aerial images.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from semicdvl.errors import InputError
from semicdvl.reading.json_files import read_json
from semicdvl.types import Instance
from semicdvl.vlms.model_cards import ModelCard
from semicdvl.vlms.precomputed.coco import validate_instance
from semicdvl.vlms.precomputed.files import ANSWERS_FILE, AnswerFormat, PrecomputedVLM, open_answers

CARD = ModelCard(
    description="panoptic: things and ground cover",
    licence="MIT",
    size="-",
    needs="a folder of predictions",
    gamma=0.5,
)


def read_mmdetection(
    path: Path, *, shape_hw: tuple[int, ...], note: Mapping[str, Any], prompts: Sequence[str]
) -> list[Instance]:
    """Read one prediction file of mmdetection's `DetInferencer`.

    Raises:
        InputError: it is none, or has no masks.
    """
    content = read_json(path, remedy="Compute this prediction again")
    remedy = "Give a file that mmdetection's DetInferencer wrote, of a model with masks"
    parts = [content.get(name) if isinstance(content, dict) else None for name in ("labels", "scores", "masks")]
    if not all(isinstance(part, list) for part in parts) or len({len(part or []) for part in parts}) != 1:
        raise InputError(path, "lacks equally long lists 'labels', 'scores' and 'masks'", remedy)
    place = {number: prompts.index(word) for word, numbers in note["classes"].items() for number in numbers}
    labels, scores, masks = parts
    found = []
    for number, (label, score, mask) in enumerate(zip(labels or [], scores or [], masks or [], strict=True)):
        if not isinstance(label, int) or not isinstance(score, int | float):
            raise InputError(path, f"instance {number} has the label {label!r} and the score {score!r}", remedy)
        if label in place:
            prompt = place[label]
            found.append(validate_instance(path, number, mask=mask, prompt=prompt, score=score, shape_hw=shape_hw))
    return found


def build_omg_seg(
    *, weights: Path | str | None = None, images: Path | str | None = None, device: str = "cpu"
) -> PrecomputedVLM:
    """Open a folder of OMG-Seg's predictions.

    Args:
        weights: the folder, with `answers.json` in it.
        images: folder of the images; overrides `images` of answers.json.
        device: not used; every VLM accepts it.

    Raises:
        ConfigError: no folder was given.
        InputError: answers.json is not valid, or does not assign classes to every prompt.
    """
    form = AnswerFormat("omg_seg", gamma=CARD.gamma, reader=read_mmdetection, instances_folder="preds")
    vlm = open_answers(weights, images=images, form=form)
    classes = vlm.manifest.get("classes")
    remedy = 'Write {"classes": {"house": [numbers of the model\'s classes], ...}} for every prompt'
    if not isinstance(classes, dict) or set(classes) != set(vlm.prompts):
        raise InputError(
            vlm.folder / ANSWERS_FILE, "does not name in 'classes' the class numbers of every prompt", remedy
        )
    numbers = [number for group in classes.values() if isinstance(group, list) for number in group]
    if not all(isinstance(group, list) and group for group in classes.values()) or not all(
        isinstance(number, int) for number in numbers
    ):
        raise InputError(vlm.folder / ANSWERS_FILE, "has 'classes' that are no lists of numbers", remedy)
    if len(set(numbers)) != len(numbers):
        raise InputError(vlm.folder / ANSWERS_FILE, "assigns one class number to two prompts", remedy)
    return vlm
