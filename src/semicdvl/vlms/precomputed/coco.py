"""Instances from COCO files, validated before they are decoded: run lengths must fill the image."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from semicdvl.errors import InputError
from semicdvl.reading.json_files import read_json
from semicdvl.types import Instance

ChannelLookup = Callable[[int], int | None]
"""Index of a prompt by a file's own class number; None for a class that is no prompt."""
InstanceReader = Callable[..., list[Instance]]
"""Reads one file of instances: (path, shape_hw=, note=, prompts=) -> instances with the prompts' indices."""


def read_coco(
    path: Path, *, shape_hw: tuple[int, ...], note: Mapping[str, Any], prompts: Sequence[str]
) -> list[Instance]:
    """Read COCO-style instances, with their channel as prompt index; `note` is not needed."""
    content = read_json(path, remedy="Compute this prediction again")
    entries = content.get("annotations", []) if isinstance(content, dict) else content
    if not isinstance(entries, list):
        raise InputError(path, "is neither a list of instances nor COCO annotations", "Compute this prediction again")
    channels = _make_channel_lookup(path, content, prompts)
    found = (_read_instance(path, entry, number, shape_hw, channels) for number, entry in enumerate(entries))
    return [instance for instance in found if instance is not None]


def _make_channel_lookup(path: Path, content: Any, prompts: Sequence[str]) -> ChannelLookup:
    """Return the lookup from category ids to prompts: by the file's own categories' names, or as they are."""
    if not isinstance(content, dict) or not content.get("categories"):

        def counted(category: int) -> int:
            if not 0 <= category < len(prompts):
                problem = f"has an instance of category_id {category}, prompts are 0..{len(prompts) - 1}"
                raise InputError(path, problem, "Name the ids in 'categories', or compute it again")
            return category

        return counted
    try:
        names = {int(one["id"]): str(one["name"]).strip().lower() for one in content["categories"]}
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise InputError(path, f"has categories without id or name ({error!r})", "Write COCO categories") from error
    places = {number: prompts.index(name) for number, name in names.items() if name in prompts}
    return places.get


def _read_instance(
    path: Path, entry: Any, number: int, shape_hw: tuple[int, ...], channels: ChannelLookup
) -> Instance | None:
    try:
        category, score = int(entry["category_id"]), float(entry.get("score", 1.0))
        mask: Any = entry["segmentation"]
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise InputError(
            path, f"instance {number} lacks category_id, score or a segmentation ({error!r})", "Write COCO RLE"
        ) from error
    prompt = channels(category)
    checked = validate_instance(path, number, mask=mask, prompt=prompt or 0, score=score, shape_hw=shape_hw)
    return None if prompt is None else checked


def validate_instance(
    path: Path, number: int, *, mask: Any, prompt: int, score: float, shape_hw: tuple[int, ...]
) -> Instance:
    """Validate an instance from a file: its mask must fill the image and its score must be a number.

    Raises:
        InputError: one of them is not so.
    """
    try:
        size, counts = tuple(int(side) for side in mask["size"]), mask["counts"]
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise InputError(path, f"instance {number} lacks an RLE mask ({error!r})", "Write COCO RLE") from error
    if size != tuple(shape_hw):
        raise InputError(
            path, f"instance {number} has a mask of {size}, the image is {tuple(shape_hw)}", "Compute it again"
        )
    if not np.isfinite(score):
        raise InputError(path, f"instance {number} has the score {score}", "Compute this prediction again")
    if not rle_fills_image(counts, size):
        raise InputError(
            path, f"instance {number} has an RLE that does not fill {size}", "Compute this prediction again"
        )
    return Instance({"size": list(size), "counts": counts}, prompt, float(np.clip(score, 0.0, 1.0)))


def rle_fills_image(counts: Any, size: tuple[int, ...]) -> bool:
    """Tell whether run lengths cover the image exactly; the decoder itself would read past the end."""
    if isinstance(counts, list):
        return (
            all(isinstance(run, int) and not isinstance(run, bool) and run >= 0 for run in counts)
            and sum(counts) == size[0] * size[1]
        )
    if not isinstance(counts, str) or not counts.isascii():
        return False
    runs: list[int] = []
    value = shift = 0
    for code in counts.encode():  # COCO's string: 5 bits a character, lowest first, from the 4th run on as differences
        bits = code - 48
        if not 0 <= bits < 64:
            return False
        value |= (bits & 31) << shift
        shift += 5
        if shift > 60:  # more pixels than any image has
            return False
        if not bits & 32:
            value -= (1 << shift) if bits & 16 else 0
            runs.append(value + (runs[-2] if len(runs) > 2 else 0))
            value = shift = 0
    return shift == 0 and min(runs, default=0) >= 0 and sum(runs) == size[0] * size[1]
