"""Simulate the answers of an imperfect vision-language model (VLM) on a synthetic city: the truth with known errors.

It replaces a VLM that would have to be run: from the classes and the building outlines of both dates it makes score
maps and instances in the layout that `vlms/precomputed/files.py` reads, so they get into a pseudo-label store in the
usual way. Their errors are set by `AnswerErrors`, each kind separately:

- *misses*: buildings without an instance and with low scores, small ones more often;
- *false positives*: instances where there is no building;
- *misalignment*: outlines that are shifted and too large or too small;
- *confusion*: patches of ground that look like another class (a gravel yard like a roof, a meadow like trees);
- *noise*: scores that vary from place to place, with a correlation length.

The share `persistence_frac` of the errors is common to both dates: a real VLM misses the same roof twice, and only what
it gets wrong on *one* date becomes false change. Surfaces that no prompt names (bare soil, cars) get low scores from
every prompt. This is a method of this project; no data set and no VLM is imitated in detail.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import rasterio.features
import shapely
from numpy.typing import NDArray
from pycocotools import mask as rle
from shapely.affinity import affine_transform, translate

from semicdvl.atomic_files import write_atomically, write_json
from semicdvl.errors import ConfigError, DataError
from semicdvl.synthetic.city import SyntheticCity
from semicdvl.synthetic.materials import LAND_COVER_CLASSES
from semicdvl.types import PairFiles

ScoreMaps = NDArray[np.float32]

ANSWER_PROMPTS = ("house", "building", "road", "grass", "tree", "water")
"""The prompts: the words of the paper, in the order of the channels."""
HOUSE, BUILDING, ROAD, GRASS, TREE, WATER = range(len(ANSWER_PROMPTS))
NO_PROMPT = -1
PROMPT_OF_CLASS = {"road": ROAD, "pavement": ROAD, "grass": GRASS, "field": GRASS, "tree": TREE, "water": WATER}
"""True class -> the prompt that fits it; other classes fit none. Buildings come from their outlines."""
CONFUSED_WITH = {ROAD: BUILDING, GRASS: TREE, TREE: GRASS, WATER: ROAD, NO_PROMPT: BUILDING}
"""Prompt that fits a place -> prompt that it is confused with."""
LARGEST_HOUSE_M2 = 220.0
SMALL_BUILDING_M2 = 60.0
"""Buildings up to this size are missed twice as often as the others."""


@dataclass(frozen=True)
class AnswerErrors:
    """How often and how much a simulated VLM errs.

    The defaults give change labels about as good as those that the SemiCD-VL paper reports of APE on LEVIR-CD (IoU 0.46
    by instances; 0.69 on the 34 % of the pixels that mixed labels at gamma 0.8 keep): 0.44 and 0.70 on 56 %.

    Attributes:
        seed: of the errors; the seed of the city is another one.
        miss_frac: share of the buildings that are missed.
        invented_per_ha: false positives: instances per hectare where there is no building.
        misalignment_px: standard deviation of the shift of an outline on each axis; half of it for its dilation.
        confusion_frac: share of the ground that is confused with another class.
        confusion_px: typical size of such a patch.
        noise: standard deviation of the noise on the scores, before the sigmoid (a certain answer is 2.5).
        noise_px: correlation length of the noise.
        persistence_frac: share of all errors that both dates have in common.
    """

    seed: int = 0
    miss_frac: float = 0.12
    invented_per_ha: float = 0.5
    misalignment_px: float = 1.0
    confusion_frac: float = 0.03
    confusion_px: float = 12.0
    noise: float = 0.8
    noise_px: float = 5.0
    persistence_frac: float = 0.5

    def __post_init__(self) -> None:
        """Refuse numbers out of range.

        Raises:
            ConfigError: a number is negative, not finite, or a share above 1.
        """
        for field in fields(self):
            value, top = getattr(self, field.name), 1.0 if field.name.endswith("_frac") else math.inf
            if not (math.isfinite(value) and 0 <= value <= top):
                remedy = "Give a share from 0 to 1" if top == 1 else "Give 0 (off) or more"
                raise ConfigError(f"VLM error {field.name} = {value} is out of range. {remedy}.")


NO_ERRORS = AnswerErrors(
    miss_frac=0.0, invented_per_ha=0.0, misalignment_px=0.0, confusion_frac=0.0, noise=0.0, persistence_frac=1.0
)
"""No error at all: the truth in the form of answers."""


@dataclass(frozen=True)
class SyntheticInstance:
    """An instance of the simulated VLM: outline in pixels of the city (x = column, y = row), prompt and score."""

    outline: shapely.Geometry
    prompt: int
    score: float


@dataclass(frozen=True)
class SyntheticAnswer:
    """The answer of the simulated VLM for one date of a city.

    Attributes:
        scores_CHW: in [0, 1], one map per word of `ANSWER_PROMPTS`.
        instances: of houses and buildings.
    """

    scores_CHW: ScoreMaps
    instances: tuple[SyntheticInstance, ...]


def simulate_answers(city: SyntheticCity, errors: AnswerErrors) -> tuple[SyntheticAnswer, SyntheticAnswer]:
    """Return the answers for both dates; the same city and errors give the same answers.

    Args:
        city: the truth.
        errors: how the VLM errs.
    """
    both = _NoiseFields.draw(city, errors, part=0)
    invented = _draw_false_positives(city, errors, part=0)
    dates = ((city.classes_t1_HW, city.buildings_t1, 1), (city.classes_t2_HW, city.buildings_t2, 2))
    answers = []
    for classes_HW, buildings, date in dates:
        own = both.mix(_NoiseFields.draw(city, errors, part=date), errors.persistence_frac)
        only_here = _draw_false_positives(city, errors, part=date)
        found = (
            *_detect_buildings(city, buildings, errors, date=date),
            *_select_false_positives(invented, only_here, errors),
        )
        answers.append(SyntheticAnswer(_render_scores(classes_HW, found, own, errors), found))
    return answers[0], answers[1]


# ------------------------------------------------------------------------------------------------ random fields
@dataclass(frozen=True)
class _NoiseFields:
    """Gaussian random fields of mean 0 and deviation 1 over the city: one per prompt for noise, one for confusion."""

    noise_CHW: ScoreMaps
    confusion_HW: ScoreMaps

    @classmethod
    def draw(cls, city: SyntheticCity, errors: AnswerErrors, *, part: int) -> _NoiseFields:
        """Draw the fields of one date (1, 2) or of both together (0)."""
        rng = np.random.default_rng((errors.seed, city.spec.seed, 1, part))
        shape = city.change_HW.shape
        noise = [_draw_smooth_field(shape, errors.noise_px, rng) for _ in ANSWER_PROMPTS]
        return cls(np.stack(noise), _draw_smooth_field(shape, errors.confusion_px, rng))

    def mix(self, other: _NoiseFields, own_frac: float) -> _NoiseFields:
        """Return fields of the same variance, of which the share `own_frac` comes from this one."""
        own, rest = np.float32(math.sqrt(own_frac)), np.float32(math.sqrt(1 - own_frac))
        return _NoiseFields(
            own * self.noise_CHW + rest * other.noise_CHW, own * self.confusion_HW + rest * other.confusion_HW
        )


def _draw_smooth_field(shape: tuple[int, ...], length_px: float, rng: np.random.Generator) -> ScoreMaps:
    """Return smooth noise of deviation 1: white noise, blurred."""
    white_HW = rng.standard_normal(shape, dtype=np.float32)
    if length_px > 0:
        white_HW = np.asarray(cv2.GaussianBlur(white_HW, (0, 0), length_px / 2), np.float32)
    spread: ScoreMaps = (white_HW - white_HW.mean()) / max(float(white_HW.std()), 1e-6)
    return spread


# ------------------------------------------------------------------------------------------------ objects
def _detect_buildings(
    city: SyntheticCity, buildings: Any, errors: AnswerErrors, *, date: int
) -> list[SyntheticInstance]:
    """Return the instances of the buildings of a date that are not missed, with misaligned outlines.

    What happens to a building is drawn by its number, so that one of both dates can have the same errors on both.
    """
    inverse = ~city.transform
    to_px = [inverse.a, inverse.b, inverse.d, inverse.e, inverse.c, inverse.f]
    found = []
    for number, area_m2, shape in zip(buildings["id"], buildings["area_m2"], buildings.geometry, strict=True):
        shared = np.random.default_rng((errors.seed, city.spec.seed, 2, int(number))).random()
        part = 0 if shared < errors.persistence_frac else date
        rng = np.random.default_rng((errors.seed, city.spec.seed, 3, part, int(number)))
        chance, score = rng.random(), rng.beta(9, 1.5)
        shift_px, growth_px = rng.normal(0, errors.misalignment_px, 2), rng.normal(0, errors.misalignment_px / 2)
        if chance < errors.miss_frac * (2 if area_m2 <= SMALL_BUILDING_M2 else 1):
            continue
        outline = translate(affine_transform(shape, to_px), *shift_px)
        outline = outline.buffer(growth_px, join_style="mitre") if growth_px else outline
        if not outline.is_empty:
            prompt = HOUSE if area_m2 <= LARGEST_HOUSE_M2 else BUILDING
            found.append(SyntheticInstance(outline, prompt, 1.0 if errors == NO_ERRORS else float(score)))
    return found


def _draw_false_positives(city: SyntheticCity, errors: AnswerErrors, *, part: int) -> list[SyntheticInstance]:
    """Return rectangles of the size of a house, anywhere but on buildings, with lower scores than true instances."""
    rng = np.random.default_rng((errors.seed, city.spec.seed, 4, part))
    height, width = city.change_HW.shape
    area_ha = height * width * city.spec.gsd_m**2 / 1e4
    built_HW = (city.classes_t1_HW == LAND_COVER_CLASSES.index("building")) | (
        city.classes_t2_HW == LAND_COVER_CLASSES.index("building")
    )
    found = []
    for _ in range(rng.poisson(errors.invented_per_ha * area_ha)):
        x, y = rng.uniform(0, width), rng.uniform(0, height)
        long_px, turn_deg = rng.uniform(6, 22) / city.spec.gsd_m, rng.uniform(0, 180)
        box = shapely.box(-long_px / 2, -long_px * rng.uniform(0.2, 0.5), long_px / 2, long_px * rng.uniform(0.2, 0.5))
        score = float(rng.beta(5, 2.5))
        if not built_HW[int(y), int(x)]:
            turned = shapely.affinity.rotate(box, turn_deg, origin=(0, 0))
            found.append(SyntheticInstance(translate(turned, x, y), HOUSE if long_px < 30 else BUILDING, score))
    return found


def _select_false_positives(
    shared: Sequence[SyntheticInstance], own: Sequence[SyntheticInstance], errors: AnswerErrors
) -> tuple[SyntheticInstance, ...]:
    """Return the false positives of one date: some that both dates share, and some of its own."""
    both = round(len(shared) * errors.persistence_frac)
    return (*shared[:both], *own[: round(len(own) * (1 - errors.persistence_frac))])


# ------------------------------------------------------------------------------------------------ scores
def _render_scores(
    classes_HW: NDArray[np.uint8], found: Sequence[SyntheticInstance], field: _NoiseFields, errors: AnswerErrors
) -> ScoreMaps:
    """Return the score maps: the prompt that each place is taken for, blurred at borders, with noise."""
    prompt_HW = _confuse_ground(classes_HW, field.confusion_HW, errors)
    evidence_CHW = np.stack([(prompt_HW == channel).astype(np.float32) for channel in range(len(ANSWER_PROMPTS))])
    sure_HW = np.full(classes_HW.shape, 0.0, np.float32)
    for channel in (HOUSE, BUILDING):
        shapes = sorted(((one.outline, one.score) for one in found if one.prompt == channel), key=lambda item: item[1])
        if shapes:
            drawn_HW = rasterio.features.rasterize(shapes, out_shape=classes_HW.shape, dtype=np.float32)
            evidence_CHW[channel] = np.maximum(evidence_CHW[channel], drawn_HW)
            sure_HW = np.maximum(sure_HW, drawn_HW)
    evidence_CHW[ROAD:] *= 1 - sure_HW  # where this VLM reports a building, it reports nothing else
    if errors != NO_ERRORS:
        evidence_CHW = np.stack([cv2.GaussianBlur(one_HW, (0, 0), 1.0) for one_HW in evidence_CHW])
    logits_CHW = 5.0 * evidence_CHW - 2.5 + np.float32(errors.noise) * field.noise_CHW
    scores_CHW: ScoreMaps = (1 / (1 + np.exp(-logits_CHW))).astype(np.float32)
    return scores_CHW


def _confuse_ground(classes_HW: NDArray[np.uint8], confusion_HW: ScoreMaps, errors: AnswerErrors) -> NDArray[np.int8]:
    """Return the prompt that each place is taken for, without buildings; some places are confused."""
    table = np.array([PROMPT_OF_CLASS.get(name, NO_PROMPT) for name in LAND_COVER_CLASSES], np.int8)
    prompt_HW: NDArray[np.int8] = table[classes_HW]
    if errors.confusion_frac > 0:
        mistaken_HW = confusion_HW > np.quantile(confusion_HW, 1 - errors.confusion_frac)
        building_HW = classes_HW == LAND_COVER_CLASSES.index("building")
        swapped = np.array(
            [CONFUSED_WITH.get(channel, channel) for channel in (*range(len(ANSWER_PROMPTS)), NO_PROMPT)], np.int8
        )
        prompt_HW = np.where(mistaken_HW & ~building_HW, swapped[prompt_HW], prompt_HW)
    return prompt_HW


# ------------------------------------------------------------------------------------------------ files
def write_answers(
    city: SyntheticCity, pairs: Sequence[PairFiles], folder: Path, *, images: Path, size_px: int, errors: AnswerErrors
) -> None:
    """Write the answers for the patches of a city, one `.npy` and one `.json` per image; `answers.json` comes last.

    Args:
        city: the city that the patches were cut from.
        pairs: patches as `write_city_patches` names them (`..._r<row>_c<col>`).
        folder: for the answers; several cities can share one.
        images: folder that holds the A/ and B/ of the patches.
        size_px: side of the patches.
        errors: how the VLM errs.

    Raises:
        DataError: a name does not hold the position of the patch.
        OutputError: the folder cannot be written.
    """
    answers = simulate_answers(city, errors)
    trees = [shapely.STRtree([one.outline for one in answer.instances]) for answer in answers]
    for pair in pairs:
        row, col = _parse_position(pair.name)
        for date, answer, tree in zip(("A", "B"), answers, trees, strict=True):
            stem = folder / date / pair.name
            part_CHW = answer.scores_CHW[:, row : row + size_px, col : col + size_px]
            with write_atomically(stem.with_name(f"{stem.name}.npy")) as temporary:
                np.save(temporary, part_CHW.astype(np.float16))
            near = tree.query(shapely.box(col, row, col + size_px, row + size_px))
            objects = [_to_coco(answer.instances[at], row=row, col=col, size_px=size_px) for at in sorted(near)]
            with write_atomically(stem.with_name(f"{stem.name}.json")) as temporary:
                temporary.write_text(json.dumps([entry for entry in objects if entry]), encoding="utf-8")
    write_json(folder / "answers.json", {"prompts": list(ANSWER_PROMPTS), "images": str(images.resolve())})


def _parse_position(name: str) -> tuple[int, int]:
    """Return (row, col) of the upper left pixel of a patch from its name."""
    try:
        _, row, col = name.rsplit("_", 2)
        assert row[0] == "r" and col[0] == "c"
        return int(row[1:]), int(col[1:])
    except (ValueError, AssertionError, IndexError):
        raise DataError(
            f"'{name}' does not hold the position of the patch. Use the pairs that `write_city_patches` returns."
        ) from None


def _to_coco(one: SyntheticInstance, *, row: int, col: int, size_px: int) -> dict[str, Any] | None:
    """Return the part of an instance inside a patch as a COCO entry, None without a pixel."""
    outline = translate(one.outline, -col, -row)
    mask_HW = rasterio.features.rasterize([outline], out_shape=(size_px, size_px), dtype=np.uint8)
    if not mask_HW.any():
        return None
    code = rle.encode(np.asfortranarray(mask_HW))
    mask = {"size": [size_px, size_px], "counts": code["counts"].decode()}
    return {"category_id": one.prompt, "score": round(one.score, 4), "segmentation": mask}
