"""The pseudo-label store: VLM answers and the labels made from them, each kept under a key of its content.

    STORE/manifest.json              the specification in force: VLM, prompts, CEG settings
    STORE/answers/ab/<key>.npz       key = image bytes + window, VLM identity, prompts, ground sampling distance
    STORE/labels/cd/<key>.png        key = both answers, prompts split in find and background, CEG settings
    STORE/labels/cd/<key>.json       which pair it is and how the label came about

Changing a threshold makes new labels from the kept answers and never asks the VLM again. Files are written whole, so a
store can be interrupted at any point and two processes may write it at once.

Scores are kept as 8-bit steps of 1/200, rounded down: an error below 0.005, and none at all for the decision
`score >= gamma` with a gamma that is a multiple of 0.005.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as rle

from semicdvl.errors import InputError, StoreError
from semicdvl.files import key_of, read_json, sha256, whole, write_json
from semicdvl.pseudo.prompts import Prompts
from semicdvl.types import Instance, PairFiles, Segments, VLMLabels

VERSION = 1
STEPS = 200
"""Scores are kept as multiples of 1 / STEPS."""


@dataclass(frozen=True)
class StoreSpec:
    """How the labels of a store come about.

    Attributes:
        vlm: identity of the VLM (name and hash of the weights).
        prompts: what was asked.
        ceg: settings of change event generation, as plain values.
        gsd_m: ground sampling distance that the VLM was told, if any.
    """

    vlm: str
    prompts: Prompts
    ceg: dict[str, Any]
    gsd_m: float | None = None


class PseudoStore:
    """Answers and labels on disk. Implements `types.LabelSource`."""

    def __init__(self, root: Path, spec: StoreSpec) -> None:
        """Use the store at `root` under a specification; nothing is written yet."""
        self.root, self.spec = root, spec

    @classmethod
    def create(cls, root: Path, spec: StoreSpec) -> PseudoStore:
        """Make a store, or take an existing one and put this specification in force; what it holds is kept.

        Raises:
            StoreError: `root` holds something else, or a store of another version.
        """
        if root.exists() and (not root.is_dir() or (any(root.iterdir()) and not (root / "manifest.json").exists())):
            raise StoreError(f"{root}: exists and is no pseudo-label store. Give an empty or new folder.")
        if (root / "manifest.json").exists():
            _manifest(root)
        write_json(root / "manifest.json", {"format": "semicdvl-pseudo-store", "version": VERSION, **asdict(spec)})
        return cls(root, spec)

    @classmethod
    def open(cls, root: Path) -> PseudoStore:
        """Open a store for reading.

        Raises:
            StoreError: there is none, or it is of another version.
        """
        manifest = _manifest(root)
        prompts = Prompts(tuple(manifest["prompts"]["find"]), tuple(manifest["prompts"]["background"]))
        return cls(root, StoreSpec(manifest["vlm"], prompts, manifest["ceg"], manifest["gsd_m"]))

    # -------------------------------------------------------------------------------------------- answers
    def answer_key(self, image: Path, window_px: tuple[int, int, int, int] | None) -> str:
        """Return the key of the VLM's answer for an image file, or a window of it."""
        return key_of(sha256(image), window_px, self.spec.vlm, self.spec.prompts.words, self.spec.gsd_m)

    def answer(self, key: str) -> Segments | None:
        """Return a kept answer, or None."""
        path = self._path("answers", key, ".npz")
        if not path.exists():
            return None
        try:
            with path.open("rb") as handle, np.load(handle, allow_pickle=False) as content:
                steps_CHW = content["scores"]
                found = json.loads(content["instances"].tobytes().decode())
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise StoreError(
                f"{path}: a damaged answer ({error}). Delete the file and run `semicdvl pseudo` again."
            ) from error
        instances = None if found is None else tuple(Instance(mask, prompt, score) for mask, prompt, score in found)
        return Segments(steps_CHW.astype(np.float32) / np.float32(STEPS), self.spec.prompts.words, instances)

    def keep_answer(self, key: str, segments: Segments) -> Segments:
        """Keep an answer and return it as it will be read again (scores rounded down to the steps).

        Raises:
            InputError: the scores are not numbers.
        """
        steps_CHW = quantised(segments.scores_CHW)
        found = None if segments.instances is None else [_plain(instance) for instance in segments.instances]
        with whole(self._path("answers", key, ".npz")) as temporary, temporary.open("wb") as handle:
            np.savez_compressed(handle, scores=steps_CHW, instances=np.frombuffer(json.dumps(found).encode(), np.uint8))
        kept = self.answer(key)
        assert kept is not None
        return kept

    # -------------------------------------------------------------------------------------------- labels
    def label_key(self, pair: PairFiles) -> str:
        """Return the key of a pair's labels under the specification in force."""
        answers = [self.answer_key(image, pair.window_px) for image in (pair.before, pair.after)]
        return key_of(answers, self.spec.prompts.find, self.spec.prompts.background, self.spec.ceg)

    def has(self, pair: PairFiles) -> bool:
        """Tell whether the pair's labels are there."""
        return self._path("labels", self.label_key(pair), ".json").exists()

    def keep_labels(self, pair: PairFiles, labels: VLMLabels) -> dict[str, Any]:
        """Keep a pair's labels; return their record (name, reliable and changed share, how they came about)."""
        key = self.label_key(pair)
        stacked = np.stack([labels.t2_HW, labels.t1_HW, labels.change_HW], axis=-1)  # OpenCV's BGR: red is change
        with whole(self._path("labels", key, ".png")) as temporary:
            if not cv2.imwrite(str(temporary), stacked):
                raise OSError(28, "the picture could not be written")
        record = {
            "name": pair.name,
            "before": str(pair.before),
            "after": str(pair.after),
            "window_px": pair.window_px,
            "answers": [self.answer_key(image, pair.window_px) for image in (pair.before, pair.after)],
            "reliable_frac": float((labels.change_HW != 255).mean()),
            "changed_frac": float((labels.change_HW == 1).mean()),
            "spec": asdict(self.spec),
        }
        write_json(self._path("labels", key, ".json"), record)
        return record

    def record(self, pair: PairFiles) -> dict[str, Any]:
        """Return the record of a pair's labels."""
        content: dict[str, Any] = read_json(
            self._path("labels", self.label_key(pair), ".json"), remedy="Run `semicdvl pseudo` again"
        )
        return content

    def labels(self, pair: PairFiles) -> VLMLabels:
        """Return the labels of a pair.

        Raises:
            StoreError: the store holds none for these images under the specification in force, or they are damaged.
        """
        path = self._path("labels", self.label_key(pair), ".png")
        if not path.exists():
            raise StoreError(
                f"{self.root}: holds no labels for the pair '{pair.name}' ({pair.before}). It was made for "
                "other images, or not finished; run `semicdvl pseudo` on this data set with the same -o."
            )
        stacked = cv2.imread(str(path), cv2.IMREAD_COLOR)
        if stacked is None:
            raise StoreError(f"{path}: a damaged label. Delete the file and run `semicdvl pseudo` again.")
        change, t1, t2 = (np.ascontiguousarray(stacked[..., band]).astype(np.uint8) for band in (2, 1, 0))
        return VLMLabels(change, t1, t2)

    def records(self) -> Iterator[dict[str, Any]]:
        """Yield the record of every label in the store, of all specifications."""
        for path in sorted((self.root / "labels").glob("*/*.json")):
            yield read_json(path, remedy="Delete the file and run `semicdvl pseudo` again")

    def verify(self) -> list[str]:
        """Read everything again and return what is wrong, one line each; an empty list is a sound store."""
        wrong = []
        for path in sorted((self.root / "answers").glob("*/*.npz")):
            try:
                self.answer(path.stem)
            except StoreError as error:
                wrong.append(str(error))
        for path in sorted((self.root / "labels").glob("*/*.json")):
            picture = cv2.imread(str(path.with_suffix(".png")), cv2.IMREAD_COLOR)
            if picture is None or not np.isin(picture, (0, 1, 255)).all():
                wrong.append(f"{path.with_suffix('.png')}: a damaged label.")
        return wrong

    def _path(self, kind: str, key: str, suffix: str) -> Path:
        """Return where a key is kept; two letters of it make the folder, so that none gets too full."""
        return self.root / kind / key[:2] / f"{key}{suffix}"


def quantised(scores_CHW: NDArray[np.floating[Any]]) -> NDArray[np.uint8]:
    """Return scores in [0, 1] as whole steps of 1 / STEPS, rounded down (sums above 1 are clamped).

    A float32 just below a step by rounding alone counts as the step, so `score >= gamma` is kept for every gamma that
    is a multiple of 1 / STEPS, rounded to float32.

    Raises:
        InputError: a score is not a number.
    """
    if not np.isfinite(scores_CHW).all():
        raise InputError("VLM", "answered with scores that are not numbers", "Check its weights and its precision")
    clamped = np.clip(scores_CHW, 0, 1).astype(np.float32)
    grid = np.arange(STEPS + 1, dtype=np.float32) / np.float32(STEPS)
    steps = np.floor(clamped * np.float32(STEPS)).astype(np.int16)
    steps += grid[np.minimum(steps + 1, STEPS)] <= clamped
    steps -= grid[np.minimum(steps, STEPS)] > clamped
    kept: NDArray[np.uint8] = np.minimum(steps, STEPS).astype(np.uint8)
    return kept


def _plain(instance: Instance) -> tuple[dict[str, Any], int, float]:
    """Return an instance as plain values, its mask as COCO RLE with text counts."""
    mask = instance.mask
    if isinstance(mask, np.ndarray):
        mask = rle.encode(np.asfortranarray(mask, dtype=np.uint8))
    counts = mask["counts"]
    return (
        {"size": list(mask["size"]), "counts": counts.decode() if isinstance(counts, bytes) else counts},
        instance.prompt,
        instance.score,
    )


def _manifest(root: Path) -> dict[str, Any]:
    """Read and check a store's manifest."""
    path = root / "manifest.json"
    if not path.exists():
        raise StoreError(
            f"{root}: no pseudo-label store here (no manifest.json). Make one with `semicdvl pseudo DATA -o {root}`."
        )
    manifest = read_json(path, remedy="Make the store anew with `semicdvl pseudo`")
    if not isinstance(manifest, dict) or manifest.get("format") != "semicdvl-pseudo-store":
        raise StoreError(
            f"{path}: not the manifest of a pseudo-label store. Give the folder that `semicdvl pseudo` wrote."
        )
    if manifest.get("version") != VERSION:
        raise StoreError(
            f"{path}: a store of version {manifest.get('version')}; this program reads {VERSION}. Make it anew."
        )
    return manifest
