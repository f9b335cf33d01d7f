"""Read, write and paint the answers of a labeller: which numbered segment shows which class, and a few drawn shapes.

An answer is one line of text per class:

    building 3 5-8 41
    paved 1 2 10-14
    + building polygon 12,40 61,38 62,77 13,80
    + tank circle 128,90,22

Segments that no line names are unknown. Shapes (x,y in pixels of the scene) are painted over the segments, in order.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

CLASSES = ("ground", "building", "paved", "tree", "water", "tank", "object", "court")
"""Class of each index of a label image. ground: grass, crops, shrubs, bare soil, sand. paved: road, car park, runway,
driveway, concrete, with the cars on it. water: open water and pools. tank: storage tanks. object: airplanes, boats,
containers, trucks in rows, parked machinery. court: sports courts with a hard surface."""
UNKNOWN = 255
LETTERS = {name[0]: index for index, name in enumerate(CLASSES)} | {"k": CLASSES.index("tank"), "u": UNKNOWN}
"""Short names in corrections; `t` is tree, `k` tank, `u` unknown."""
LETTERS["t"] = CLASSES.index("tree")


@dataclass(frozen=True)
class Shape:
    """Hold a polygon (x, y per corner) or a circle (x, y, radius) of one class."""

    label: int
    kind: str
    numbers: tuple[tuple[float, ...], ...]


@dataclass
class Answer:
    """Hold the class of every segment (UNKNOWN where none was given), and the shapes drawn over them."""

    label_of: dict[int, int] = field(default_factory=dict)
    shapes: list[Shape] = field(default_factory=list)


def parse_ranges(words: list[str]) -> list[int]:
    """Return the numbers of "3 5-8"."""
    numbers: list[int] = []
    for word in words:
        match = re.fullmatch(r"(\d+)(?:-(\d+))?", word)
        if match is None:
            raise ValueError(f"{word!r} is neither a segment number nor a range such as 5-8.")
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first:
            raise ValueError(f"The range {word!r} ends before it starts.")
        numbers.extend(range(first, last + 1))
    return numbers


def format_ranges(numbers: list[int]) -> str:
    """Return "3 5-8" for 3, 5, 6, 7, 8."""
    parts: list[list[int]] = []
    for number in sorted(numbers):
        if parts and number == parts[-1][1] + 1:
            parts[-1][1] = number
        else:
            parts.append([number, number])
    return " ".join(str(a) if a == b else f"{a}-{b}" for a, b in parts)


def _name_of(label: int) -> str:
    return "unknown" if label == UNKNOWN else CLASSES[label]


def _label_of(name: str) -> int:
    if name == "unknown":
        return UNKNOWN
    if name not in CLASSES:
        raise ValueError(f"{name!r} is no class; those are {', '.join(CLASSES)} and unknown.")
    return CLASSES.index(name)


def read_answer(path: Path) -> Answer:
    """Read an answer file."""
    answer = Answer()
    for line in path.read_text(encoding="utf-8").splitlines():
        words = line.split()
        if not words:
            continue
        if words[0] == "+":
            corners = tuple(tuple(float(v) for v in word.split(",")) for word in words[3:])
            answer.shapes.append(Shape(_label_of(words[1]), words[2], corners))
        else:
            answer.label_of |= dict.fromkeys(parse_ranges(words[1:]), _label_of(words[0]))
    return answer


def write_answer(path: Path, answer: Answer) -> None:
    """Write an answer file that `read_answer` reads back."""
    lines = []
    for label in sorted(set(answer.label_of.values())):
        numbers = [number for number, given in answer.label_of.items() if given == label]
        lines.append(f"{_name_of(label)} {format_ranges(numbers)}")
    for shape in answer.shapes:
        corners = " ".join(",".join(f"{v:g}" for v in corner) for corner in shape.numbers)
        lines.append(f"+ {_name_of(shape.label)} {shape.kind} {corners}")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def correct_answer(proposal: Answer, text: str, *, scale: float = 1.0) -> Answer:
    """Return a proposal after corrections such as "*g; b 3 5-8; u 9; +b 12,40 61,38 62,77; +k 128,90,22; -shapes".

    `*g` gives every segment a class, `b>g` those of one class another; `+` draws a polygon, or a circle where one
    triple of numbers follows. Their numbers are multiplied by `scale` (from pixels of the enlarged picture to those of
    the scene).
    """
    answer = Answer(dict(proposal.label_of), list(proposal.shapes))
    for part in filter(None, (part.strip() for part in text.split(";"))):
        if part == "-shapes":
            answer.shapes.clear()
            continue
        head, *rest = part.split()
        if head[1:2] == ">":
            old, new = LETTERS[head[0]], LETTERS[head[2]]
            answer.label_of = {n: new if label == old else label for n, label in answer.label_of.items()}
            continue
        label = LETTERS[head[-1]]
        if head[0] == "*":
            answer.label_of = dict.fromkeys(answer.label_of, label)
        elif head[0] == "+":
            corners = tuple(tuple(round(float(v) * scale, 1) for v in word.split(",")) for word in rest)
            kind = "circle" if len(corners) == 1 else "polygon"
            answer.shapes.append(Shape(label, kind, corners))
        else:
            numbers = parse_ranges(rest)
            missing = set(numbers) - answer.label_of.keys()
            if missing:
                raise ValueError(f"There is no segment {sorted(missing)} in this scene.")
            answer.label_of |= dict.fromkeys(numbers, label)
    return answer


def paint_answer(answer: Answer, segments_HW: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the label image of an answer: class indices, UNKNOWN where nothing was said."""
    table = np.full(256, UNKNOWN, np.uint8)
    for number, label in answer.label_of.items():
        table[number] = label
    labels_HW = table[segments_HW]
    for shape in answer.shapes:
        if shape.kind == "circle":
            ((x, y, radius),) = shape.numbers
            rows, cols = np.indices(labels_HW.shape)
            labels_HW[(cols + 0.5 - x) ** 2 + (rows + 0.5 - y) ** 2 <= radius**2] = shape.label
        else:
            corners = np.round(np.array(shape.numbers) * 16 - 8).astype(np.int32)
            cv2.fillPoly(labels_HW, [corners], int(shape.label), shift=4)
    return labels_HW


def count_agreement(first_HW: NDArray[np.uint8], second_HW: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Return the confusion matrix of two label images, where both are known."""
    known_HW = (first_HW != UNKNOWN) & (second_HW != UNKNOWN)
    pairs = first_HW[known_HW].astype(np.int64) * len(CLASSES) + second_HW[known_HW]
    return np.bincount(pairs, minlength=len(CLASSES) ** 2).reshape(len(CLASSES), -1)


def compute_kappa(matrix: NDArray[np.int64]) -> float:
    """Return Cohen's kappa of a confusion matrix."""
    share = matrix / matrix.sum()
    chance = float(share.sum(0) @ share.sum(1))
    return (float(np.trace(share)) - chance) / (1 - chance)


def read_label_set(folder: Path) -> dict[str, NDArray[np.uint8]]:
    """Return the label image of every scene of scenes.txt that has one, by its name.

    Raises:
        ValueError: a label image belongs to no listed scene, has another size than its segments, or another index.
    """
    listed = (folder / "scenes.txt").read_text(encoding="utf-8").split()
    labels: dict[str, NDArray[np.uint8]] = {}
    for path in sorted((folder / "labels").glob("*/*.png")):
        labels_HW = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        segments_HW = cv2.imread(str(folder / "segments" / path.name), cv2.IMREAD_UNCHANGED)
        if path.stem not in listed:
            raise ValueError(f"{path} is the label of no scene in scenes.txt.")
        if labels_HW is None or segments_HW is None or labels_HW.shape != segments_HW.shape:
            raise ValueError(f"{path} is not a one-band image of its scene's size.")
        strange = set(np.unique(labels_HW).tolist()) - {*range(len(CLASSES)), UNKNOWN}
        if strange:
            raise ValueError(f"{path} holds {sorted(strange)}, which are no class indices.")
        labels[path.stem] = np.asarray(labels_HW, np.uint8)
    return labels
