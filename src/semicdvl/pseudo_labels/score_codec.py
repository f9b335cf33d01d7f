"""Codec of a VLM's answers: scores in 8-bit steps that keep every decision exact, compressed; instances as RLE."""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as rle

from semicdvl.ceg.config import SCORE_STEPS
from semicdvl.errors import InputError
from semicdvl.reading.json_files import parse_json
from semicdvl.reading.limits import MAX_ARRAY_BYTES
from semicdvl.types import Instance, Segments
from semicdvl.vlms.precomputed.coco import rle_fills_image


def encode_segments(segments: Segments) -> dict[str, NDArray[Any]]:
    """Return an answer as named arrays without Python objects.

    Raises:
        InputError: the scores are not finite.
    """
    steps_CHW = quantise_scores(segments.scores_CHW)
    found = None if segments.instances is None else [instance_to_plain(instance) for instance in segments.instances]
    return {
        "scores": np.frombuffer(compress_steps(steps_CHW), np.uint8),
        "shape": np.array(steps_CHW.shape),
        "instances": np.frombuffer(json.dumps(found).encode(), np.uint8),
    }


def decode_segments(content: Mapping[str, NDArray[Any]], prompts: tuple[str, ...] | None) -> Segments:
    """Return the answer that `encode_segments` encoded, its scores rounded down to the steps.

    Args:
        content: the stored arrays.
        prompts: of the answer, as many as it has maps; None: they are not known, and get numbers.

    Raises:
        ValueError, KeyError, TypeError, zlib.error: the arrays are damaged.
    """
    steps_CHW = content["scores"]
    if steps_CHW.ndim == 1:  # three axes: stored before scores were compressed
        steps_CHW = decompress_steps(steps_CHW.tobytes(), content["shape"])
    if steps_CHW.dtype != np.uint8 or steps_CHW.ndim != 3:
        raise ValueError(f"its scores are {steps_CHW.dtype} with {steps_CHW.ndim} axes, not 8-bit steps with 3")
    if steps_CHW.size and steps_CHW.max() > SCORE_STEPS:
        raise ValueError("its scores go beyond 1")
    words = tuple(map(str, range(len(steps_CHW)))) if prompts is None else prompts
    if len(words) != len(steps_CHW):
        raise ValueError(f"it has maps of {len(steps_CHW)} prompts, and {len(words)} are wanted")
    found = parse_json(content["instances"].tobytes())
    instances = None if found is None else read_instances(found, len(words), steps_CHW.shape[1:])
    return Segments(steps_CHW.astype(np.float32) / np.float32(SCORE_STEPS), words, instances)


def read_instances(found: Any, words: int, shape_hw: tuple[int, ...]) -> tuple[Instance, ...]:
    """Return instances from plain values; their masks must fill the image and their prompts exist.

    Raises:
        ValueError, TypeError: one of them is not so.
    """
    instances = []
    for mask, prompt, score in found:
        if not isinstance(prompt, int) or not 0 <= prompt < words:
            raise ValueError(f"an instance is of prompt {prompt!r}, and there are {words}")
        if not isinstance(score, int | float) or not 0 <= score <= 1:
            raise ValueError(f"an instance has the score {score!r}")
        if not isinstance(mask, dict) or mask.get("size") != list(shape_hw):
            raise ValueError("an instance has a mask of another size")
        if not rle_fills_image(mask.get("counts"), tuple(shape_hw)):
            raise ValueError("an instance has a mask that does not fill the image")
        instances.append(Instance(mask, prompt, score))
    return tuple(instances)


def quantise_scores(scores_CHW: NDArray[np.floating[Any]]) -> NDArray[np.uint8]:
    """Return scores in [0, 1] as whole steps of 1 / STEPS, rounded down.

    A float32 that is below a step by rounding alone counts as the step, so `score >= gamma` is preserved for every
    gamma that is a multiple of 1 / SCORE_STEPS, rounded to float32. Where different scores of a pixel fall on the step
    of the best one, those below the best go one step lower: else rounding would produce ties, which the foreground
    wins. Scores above 1 are clamped, and the winning prompt is preserved in the same way.

    Raises:
        InputError: a score is not a number.
    """
    if not np.isfinite(scores_CHW).all():
        raise InputError("VLM", "returned scores that are not finite", "Check its weights and its precision")
    raw_CHW = np.clip(scores_CHW, 0, np.finfo(np.float32).max).astype(np.float32)
    clamped_CHW = np.minimum(raw_CHW, np.float32(1))
    grid = np.arange(SCORE_STEPS + 1, dtype=np.float32) / np.float32(SCORE_STEPS)
    steps_CHW = np.floor(clamped_CHW * np.float32(SCORE_STEPS)).astype(np.int16)
    steps_CHW += grid[np.minimum(steps_CHW + 1, SCORE_STEPS)] <= clamped_CHW
    steps_CHW -= grid[np.minimum(steps_CHW, SCORE_STEPS)] > clamped_CHW
    np.minimum(steps_CHW, SCORE_STEPS, out=steps_CHW)
    false_tie_CHW = (steps_CHW == steps_CHW.max(axis=0)) & (raw_CHW < raw_CHW.max(axis=0)) & (steps_CHW > 0)
    kept: NDArray[np.uint8] = (steps_CHW - false_tie_CHW).astype(np.uint8)
    return kept


def compress_steps(steps_CHW: NDArray[np.uint8]) -> bytes:
    """Compress maps of steps, each pixel as its difference from a prediction by its upper and left neighbours.

    Score maps are smooth, so the differences are small and compress to two thirds of the size of the steps; a Huffman
    code with runs (`Z_RLE`) suits them better than a search for repeated strings, and is faster. Own code instead of
    zarr, since stores hold one small file per image, written and read as a whole: chunking has nothing to add.
    """
    padded_CHW = np.pad(steps_CHW, ((0, 0), (1, 0), (1, 0)))
    left_CHW, up_CHW, corner_CHW = padded_CHW[:, 1:, :-1], padded_CHW[:, :-1, 1:], padded_CHW[:, :-1, :-1]
    difference_CHW = steps_CHW - left_CHW - up_CHW + corner_CHW  # wraps at 256, and back again
    deflate = zlib.compressobj(6, zlib.DEFLATED, zlib.MAX_WBITS, 9, zlib.Z_RLE)
    return deflate.compress(difference_CHW.tobytes()) + deflate.flush()


def decompress_steps(content: bytes, shape: Sequence[int] | NDArray[Any]) -> NDArray[np.uint8]:
    """Return what `packed` compressed.

    Raises:
        ValueError, zlib.error: the content is damaged.
    """
    if np.asarray(shape).dtype.kind not in "iu":
        raise ValueError("its shape is not of whole numbers")
    sides = [int(size) for size in shape]
    count = math.prod(sides)
    if len(sides) != 3 or min(sides) < 0 or count > MAX_ARRAY_BYTES:
        raise ValueError(f"its shape {sides} is not that of prompts, rows and columns")
    inflate = zlib.decompressobj()
    steps = inflate.decompress(content, count + 1)
    if len(steps) != count or not inflate.eof:
        raise ValueError(f"it does not unpack to its {count:,} scores")
    difference_CHW = np.frombuffer(steps, np.uint8).reshape(sides)
    columns_CHW = np.cumsum(difference_CHW, axis=1, dtype=np.uint8)
    return np.cumsum(columns_CHW, axis=2, dtype=np.uint8, out=columns_CHW)


def instance_to_plain(instance: Instance) -> tuple[dict[str, Any], int, float]:
    """Return an instance as plain values, its mask as COCO RLE with text counts."""
    mask = instance.mask
    if isinstance(mask, np.ndarray):
        mask = rle.encode(np.asfortranarray(mask, dtype=np.uint8))
    counts = mask["counts"]
    return (
        {"size": list(mask["size"]), "counts": counts.decode() if isinstance(counts, bytes) else counts},
        int(instance.prompt),
        float(instance.score),  # numbers of NumPy are none that JSON knows
    )
