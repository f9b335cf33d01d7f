"""What an imperfect vision-language model would say about a made-up city: truth, spoilt in known ways.

A stand-in for a VLM that nobody has to run: from the classes and the building outlines of both dates it makes score
maps and objects in the layout that `vlms/precomputed/files.py` reads, so they take the ordinary way into a pseudo-label
store. What is wrong with them is set by `AnswerErrors`, each kind of error by itself:

- *misses*: buildings that no object and no score tells of, small ones more often;
- *inventions*: objects where nothing stands;
- *misalignment*: outlines that are shifted and too large or too small;
- *confusion*: patches of ground that look like another class (a gravel yard like a roof, a meadow like trees);
- *noise*: scores that waver from place to place, with a correlation length.

Errors of the two dates are alike to the degree `persistence_frac`: a real VLM overlooks the same roof twice, and only
what it gets wrong on *one* date becomes false change. Surfaces that nobody asked about (bare soil, cars) get low scores
from every prompt. Ours alone; no data set and no VLM is imitated in detail.
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
from semicdvl.synthetic.rendering.palette import LAND_COVER_CLASSES
from semicdvl.types import PairFiles

ScoreMaps = NDArray[np.float32]

ANSWER_PROMPTS = ("house", "building", "road", "grass", "tree", "water")
"""What is asked: the words of the paper, in the order of the channels."""
HOUSE, BUILDING, ROAD, GRASS, TREE, WATER = range(len(ANSWER_PROMPTS))
NO_PROMPT = -1
PROMPT_OF_CLASS = {"road": ROAD, "pavement": ROAD, "grass": GRASS, "field": GRASS, "tree": TREE, "water": WATER}
"""Truth class -> prompt that fits it; a class that is not here fits none. Buildings come from their outlines."""
CONFUSED_WITH = {ROAD: BUILDING, GRASS: TREE, TREE: GRASS, WATER: ROAD, NO_PROMPT: BUILDING}
"""What a prompt's ground is mistaken for."""
LARGEST_HOUSE_M2 = 220.0
SMALL_BUILDING_M2 = 60.0
"""Buildings up to this size are missed twice as often as the others."""


@dataclass(frozen=True)
class AnswerErrors:
    """How a made-up VLM errs.

    The defaults give change labels about as good as those that the SemiCD-VL paper reports of APE on LEVIR-CD (IoU 0.46
    by instances; 0.69 on the 34 % of the pixels that mixed labels at gamma 0.8 keep): 0.44 and 0.70 on 56 %.

    Attributes:
        seed: of the errors; the city has its own.
        miss_frac: share of the buildings that are not seen.
        invented_per_ha: objects per hectare where nothing stands.
        misalignment_px: standard deviation of an outline's shift, on each axis; half of it is that of its growth.
        confusion_frac: share of the ground that is taken for another class.
        confusion_px: typical size of such a patch.
        noise: standard deviation of the noise on the scores, before the sigmoid (a sure answer lies at 2.5).
        noise_px: its correlation length.
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
        """Refuse what is no share or no strength.

        Raises:
            ConfigError: a number is negative, not finite, or a share above 1.
        """
        for field in fields(self):
            value, top = getattr(self, field.name), 1.0 if field.name.endswith("_frac") else math.inf
            if not (math.isfinite(value) and 0 <= value <= top):
                wanted = "a share from 0 to 1" if top == 1 else "0 (off) or more"
                raise ConfigError(f"VLM flaw {field.name} = {value}: {wanted} is wanted.")


NO_ERRORS = AnswerErrors(
    miss_frac=0.0, invented_per_ha=0.0, misalignment_px=0.0, confusion_frac=0.0, noise=0.0, persistence_frac=1.0
)
"""No flaw at all: the truth in the form of answers."""


@dataclass(frozen=True)
class SyntheticInstance:
    """An object of the made-up VLM: its outline in the city's pixels (x = column, y = row), prompt and score."""

    outline: shapely.Geometry
    prompt: int
    score: float


@dataclass(frozen=True)
class SyntheticAnswer:
    """What the made-up VLM says about one date of a city.

    Attributes:
        scores_CHW: in [0, 1], one map per word of `ANSWER_PROMPTS`.
        instances: houses and buildings.
    """

    scores_CHW: ScoreMaps
    instances: tuple[SyntheticInstance, ...]


def simulate_answers(city: SyntheticCity, flaws: AnswerErrors) -> tuple[SyntheticAnswer, SyntheticAnswer]:
    """Return the answers for both dates; equal city and flaws give equal answers."""
    both = _NoiseFields.draw(city, flaws, part=0)
    invented = _draw_false_positives(city, flaws, part=0)
    dates = ((city.classes_t1_HW, city.buildings_t1, 1), (city.classes_t2_HW, city.buildings_t2, 2))
    answers = []
    for classes_HW, buildings, date in dates:
        own = both.mix(_NoiseFields.draw(city, flaws, part=date), flaws.persistence_frac)
        only_here = _draw_false_positives(city, flaws, part=date)
        found = (
            *_detect_buildings(city, buildings, flaws, date=date),
            *_select_false_positives(invented, only_here, flaws),
        )
        answers.append(SyntheticAnswer(_render_scores(classes_HW, found, own, flaws), found))
    return answers[0], answers[1]


# ------------------------------------------------------------------------------------------------ random fields
@dataclass(frozen=True)
class _NoiseFields:
    """Gaussian fields of mean 0 and deviation 1 over the city: one per prompt for noise, one for confusion."""

    noise_CHW: ScoreMaps
    confusion_HW: ScoreMaps

    @classmethod
    def draw(cls, city: SyntheticCity, flaws: AnswerErrors, *, part: int) -> _NoiseFields:
        """Draw the fields of one date (1, 2) or of both together (0)."""
        rng = np.random.default_rng((flaws.seed, city.spec.seed, 1, part))
        shape = city.change_HW.shape
        noise = [_draw_smooth_field(shape, flaws.noise_px, rng) for _ in ANSWER_PROMPTS]
        return cls(np.stack(noise), _draw_smooth_field(shape, flaws.confusion_px, rng))

    def mix(self, other: _NoiseFields, own_frac: float) -> _NoiseFields:
        """Return fields of the same strength of which `own_frac` (of the variance) is of these."""
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
    city: SyntheticCity, buildings: Any, flaws: AnswerErrors, *, date: int
) -> list[SyntheticInstance]:
    """Return the buildings of a date that are seen, with outlines as they are seen.

    A building's luck is drawn by its number, so that one which stands on both dates can have the same on both.
    """
    inverse = ~city.transform
    to_px = [inverse.a, inverse.b, inverse.d, inverse.e, inverse.c, inverse.f]
    found = []
    for number, area_m2, shape in zip(buildings["id"], buildings["area_m2"], buildings.geometry, strict=True):
        shared = np.random.default_rng((flaws.seed, city.spec.seed, 2, int(number))).random()
        part = 0 if shared < flaws.persistence_frac else date
        rng = np.random.default_rng((flaws.seed, city.spec.seed, 3, part, int(number)))
        luck, score = rng.random(), rng.beta(9, 1.5)
        shift_px, growth_px = rng.normal(0, flaws.misalignment_px, 2), rng.normal(0, flaws.misalignment_px / 2)
        if luck < flaws.miss_frac * (2 if area_m2 <= SMALL_BUILDING_M2 else 1):
            continue
        outline = translate(affine_transform(shape, to_px), *shift_px)
        outline = outline.buffer(growth_px, join_style="mitre") if growth_px else outline
        if not outline.is_empty:
            prompt = HOUSE if area_m2 <= LARGEST_HOUSE_M2 else BUILDING
            found.append(SyntheticInstance(outline, prompt, 1.0 if flaws == NO_ERRORS else float(score)))
    return found


def _draw_false_positives(city: SyntheticCity, flaws: AnswerErrors, *, part: int) -> list[SyntheticInstance]:
    """Return rectangles of a house's size, anywhere but on buildings; their scores are lower than true ones'."""
    rng = np.random.default_rng((flaws.seed, city.spec.seed, 4, part))
    height, width = city.change_HW.shape
    area_ha = height * width * city.spec.gsd_m**2 / 1e4
    built_HW = (city.classes_t1_HW == LAND_COVER_CLASSES.index("building")) | (
        city.classes_t2_HW == LAND_COVER_CLASSES.index("building")
    )
    found = []
    for _ in range(rng.poisson(flaws.invented_per_ha * area_ha)):
        x, y = rng.uniform(0, width), rng.uniform(0, height)
        long_px, turn_deg = rng.uniform(6, 22) / city.spec.gsd_m, rng.uniform(0, 180)
        box = shapely.box(-long_px / 2, -long_px * rng.uniform(0.2, 0.5), long_px / 2, long_px * rng.uniform(0.2, 0.5))
        score = float(rng.beta(5, 2.5))
        if not built_HW[int(y), int(x)]:
            turned = shapely.affinity.rotate(box, turn_deg, origin=(0, 0))
            found.append(SyntheticInstance(translate(turned, x, y), HOUSE if long_px < 30 else BUILDING, score))
    return found


def _select_false_positives(
    shared: Sequence[SyntheticInstance], own: Sequence[SyntheticInstance], flaws: AnswerErrors
) -> tuple[SyntheticInstance, ...]:
    """Return the inventions of one date: the first part of those of both dates, the last part of its own."""
    both = round(len(shared) * flaws.persistence_frac)
    return (*shared[:both], *own[: round(len(own) * (1 - flaws.persistence_frac))])


# ------------------------------------------------------------------------------------------------ scores
def _render_scores(
    classes_HW: NDArray[np.uint8], found: Sequence[SyntheticInstance], field: _NoiseFields, flaws: AnswerErrors
) -> ScoreMaps:
    """Return the score maps: what each place looks like, softened at borders, with noise."""
    looks_HW = _confuse_ground(classes_HW, field.confusion_HW, flaws)
    evidence_CHW = np.stack([(looks_HW == channel).astype(np.float32) for channel in range(len(ANSWER_PROMPTS))])
    sure_HW = np.full(classes_HW.shape, 0.0, np.float32)
    for channel in (HOUSE, BUILDING):
        shapes = sorted(((one.outline, one.score) for one in found if one.prompt == channel), key=lambda item: item[1])
        if shapes:
            drawn_HW = rasterio.features.rasterize(shapes, out_shape=classes_HW.shape, dtype=np.float32)
            evidence_CHW[channel] = np.maximum(evidence_CHW[channel], drawn_HW)
            sure_HW = np.maximum(sure_HW, drawn_HW)
    evidence_CHW[ROAD:] *= 1 - sure_HW  # what is a building to this VLM is nothing else to it
    if flaws != NO_ERRORS:
        evidence_CHW = np.stack([cv2.GaussianBlur(one_HW, (0, 0), 1.0) for one_HW in evidence_CHW])
    logits_CHW = 5.0 * evidence_CHW - 2.5 + np.float32(flaws.noise) * field.noise_CHW
    scores_CHW: ScoreMaps = (1 / (1 + np.exp(-logits_CHW))).astype(np.float32)
    return scores_CHW


def _confuse_ground(classes_HW: NDArray[np.uint8], confusion_HW: ScoreMaps, flaws: AnswerErrors) -> NDArray[np.int8]:
    """Return the prompt that fits each place but for buildings, with the patches that are mistaken."""
    table = np.array([PROMPT_OF_CLASS.get(name, NO_PROMPT) for name in LAND_COVER_CLASSES], np.int8)
    looks_HW: NDArray[np.int8] = table[classes_HW]
    if flaws.confusion_frac > 0:
        mistaken_HW = confusion_HW > np.quantile(confusion_HW, 1 - flaws.confusion_frac)
        building_HW = classes_HW == LAND_COVER_CLASSES.index("building")
        swapped = np.array(
            [CONFUSED_WITH.get(channel, channel) for channel in (*range(len(ANSWER_PROMPTS)), NO_PROMPT)], np.int8
        )
        looks_HW = np.where(mistaken_HW & ~building_HW, swapped[looks_HW], looks_HW)
    return looks_HW


# ------------------------------------------------------------------------------------------------ files
def write_answers(
    city: SyntheticCity, pairs: Sequence[PairFiles], folder: Path, *, images: Path, size_px: int, flaws: AnswerErrors
) -> None:
    """Write the answers for a city's patches, one `.npy` and one `.json` per image; `answers.json` comes last.

    Args:
        city: the city that the patches were cut from.
        pairs: patches as `write_city_patches` names them (`..._r<row>_c<col>`).
        folder: for the answers; several cities can share one.
        images: folder that holds the A/ and B/ of the patches.
        size_px: side of the patches.
        flaws: how the VLM errs.

    Raises:
        DataError: a name does not say where the patch lies.
        OutputError: the folder cannot be written.
    """
    answers = simulate_answers(city, flaws)
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
    """Return (row, col) of a patch's corner from its name."""
    try:
        _, row, col = name.rsplit("_", 2)
        assert row[0] == "r" and col[0] == "c"
        return int(row[1:]), int(col[1:])
    except (ValueError, AssertionError, IndexError):
        raise DataError(
            f"'{name}' does not say where in the city the patch lies; take the pairs that `write_city_patches` returns."
        ) from None


def _to_coco(one: SyntheticInstance, *, row: int, col: int, size_px: int) -> dict[str, Any] | None:
    """Return the part of an object inside a patch as a COCO entry, None if no pixel is left."""
    outline = translate(one.outline, -col, -row)
    mask_HW = rasterio.features.rasterize([outline], out_shape=(size_px, size_px), dtype=np.uint8)
    if not mask_HW.any():
        return None
    code = rle.encode(np.asfortranarray(mask_HW))
    mask = {"size": [size_px, size_px], "counts": code["counts"].decode()}
    return {"category_id": one.prompt, "score": round(one.score, 4), "segmentation": mask}
