"""The pseudo-label store: VLM answers and the labels made from them, each stored under a key of its content.

    STORE/manifest.json              the current specification: VLM, prompts, CEG settings
    STORE/answers/ab/<key>.npz       key = image bytes, window, stretch, VLM identity, prompts, ground sampling distance
    STORE/labels/cd/<key>.png        key = both answers, prompts of foreground and background, CEG settings
    STORE/labels/cd/<key>.json       record: which pair it is and how the label was made
    STORE/features/ef/<key>.npz      only to compare features: key = image bytes, window, stretch, features, gsd

Changing a threshold makes new labels from the stored answers and never asks the VLM again. Files are written
atomically, so generation can be interrupted at any point, and several processes can write at once (`locks`).

Scores are stored as 8-bit steps of 1/200, rounded down. What is lost: a score is up to 0.005 too low, and up to 0.01
where it is within a step of another prompt's higher score at the same pixel. What is not lost: the prompt that wins a
pixel, wherever its score is 0.005 or more, and for every gamma that is a multiple of 0.005 the decision
`best score >= gamma`. So labels made from stored answers equal those of the VLM's own scores, to the bit.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from semicdvl.atomic_files import hash_file, hash_values, write_atomically, write_bytes_atomically, write_json
from semicdvl.errors import ConfigError, InputError, StoreError
from semicdvl.outputs.exchange import TEMPORARY_PREFIX
from semicdvl.pseudo_labels.label_png import encode_labels, read_label_png
from semicdvl.pseudo_labels.locks import list_records, lock_key
from semicdvl.pseudo_labels.score_codec import decode_segments, encode_segments
from semicdvl.pseudo_labels.store_spec import StoredRecord, StoredSpec, StoreSpec
from semicdvl.reading.array_files import read_npz
from semicdvl.reading.folder_kinds import FOLDER, describe_folder
from semicdvl.reading.json_files import describe_fault, read_json, shorten
from semicdvl.reading.regular_files import require_file_or_folder
from semicdvl.types import IGNORE, PairFiles, Segments, VLMLabels

STORE_VERSION = 1
STORE_FOLDERS = ("answers", "labels", "features")
"""Folders of a store."""
WindowPx = tuple[int, int, int, int] | None
"""(row, col, height, width) of the part of an image that is used; None for the whole image."""
CEG_FEATURES_KEY = "features"
"""Key of the CEG settings of a specification that holds the identity of the features, where there are any."""


_REMAKE = "Delete the file and run `semicdvl pseudo` again"


class PseudoLabelStore:
    """Answers and labels on disk. Implements `types.VLMLabelSource`."""

    def __init__(self, root: Path, spec: StoreSpec) -> None:
        """Use the store at `root` with a specification; nothing is written yet."""
        self.root, self.spec = root, spec

    @classmethod
    def create(cls, root: Path, spec: StoreSpec) -> PseudoLabelStore:
        """Make a store, or open an existing one and set this specification; what it holds is kept.

        Raises:
            StoreError: `root` holds other files, or a store of another version.
        """
        if root.exists() and not (root / "manifest.json").exists() and not _is_empty_folder(root):
            raise StoreError(f"{root}: exists and is not a pseudo-label store. Give an empty or new folder.")
        if (root / "manifest.json").exists():
            _read_manifest(root)
        content = {"format": "semicdvl-pseudo-store", "version": STORE_VERSION, **spec.to_plain_dict()}
        if not (root / "manifest.json").exists() or _read_manifest(root) != json.loads(json.dumps(content)):
            write_json(root / "manifest.json", content)
        return cls(root, spec)

    @classmethod
    def open(cls, root: Path) -> PseudoLabelStore:
        """Open a store for reading.

        Raises:
            StoreError: there is no store, or it has another version.
        """
        stored = StoredSpec.model_validate(_read_manifest(root))
        try:
            return cls(root, stored.to_spec())
        except ConfigError as error:
            raise StoreError(
                f"{root / 'manifest.json'}: {error} Make the store anew with `semicdvl pseudo`."
            ) from error

    # -------------------------------------------------------------------------------------------- answers
    def answer_key(self, image: Path, window_px: WindowPx) -> str:
        """Return the key of the VLM's answer for an image file, or a window of it."""
        asked = self.spec.vlm, self.spec.prompts.words, self.spec.gsd_m
        return hash_values(*self._identify_image(image, window_px), *asked)

    def _identify_image(self, image: Path, window_px: WindowPx) -> tuple[Any, ...]:
        """Return what the grey values of an image depend on."""
        stretch = () if self.spec.stretch is None else (self.spec.stretch,)
        return hash_file(image), window_px, *stretch

    def read_answer(self, key: str) -> Segments | None:
        """Return a stored answer, or None."""
        content = self._read_arrays("answers", key)
        if content is None:
            return None
        try:
            return decode_segments(content, self.spec.prompts.words)
        except (ValueError, KeyError, TypeError, zlib.error) as error:
            raise _damaged_error(self._path("answers", key, ".npz"), "answer", error) from error

    def write_answer(self, key: str, segments: Segments) -> Segments:
        """Store an answer and return it as it is read again (scores rounded down to the steps).

        Raises:
            InputError: the scores are not finite.
            OutputError: the disk is full or the store cannot be written.
        """
        arrays = encode_segments(segments)
        with write_atomically(self._path("answers", key, ".npz")) as temporary, temporary.open("wb") as handle:
            np.savez_compressed(handle, **arrays)  # type: ignore[arg-type]
        kept = self.read_answer(key)
        assert kept is not None
        return kept

    def get_or_make_answer(self, key: str, ask: Callable[[], Segments]) -> Segments:
        """Return the stored answer, or ask the VLM and store it; of several processes that need it, one asks.

        Raises:
            StoreError: the stored answer is damaged.
            InputError: the new answer has scores that are not finite.
            OutputError: the disk is full or the store cannot be written.
        """
        kept = self.read_answer(key)
        if kept is None:
            with lock_key(self.root, key):
                kept = self.read_answer(key) or self.write_answer(key, ask())
        return kept

    def get_or_make_features(
        self, image: Path, window_px: WindowPx, describe: Callable[[], NDArray[Any]]
    ) -> NDArray[np.float32]:
        """Return the stored feature map DHW of an image, or compute it and store it (in half precision)."""
        key = self._features_key(image, window_px)
        content = self._read_arrays("features", key)
        if content is None:
            with lock_key(self.root, key):
                content = self._read_arrays("features", key)
                if content is None:
                    content = {"features": describe().astype(np.float16)}
                    with (
                        write_atomically(self._path("features", key, ".npz")) as temporary,
                        temporary.open("wb") as handle,
                    ):
                        np.savez_compressed(handle, features=content["features"])
        return self._check_features(key, content)

    def _features_key(self, image: Path, window_px: WindowPx) -> str:
        """Return the key of the feature map of an image file, or a window of it."""
        gsd = () if self.spec.gsd_m is None else (self.spec.gsd_m,)  # by which an extractor may resample the image
        return hash_values(*self._identify_image(image, window_px), self.spec.ceg.get(CEG_FEATURES_KEY), *gsd)

    def _check_features(self, key: str, content: dict[str, NDArray[Any]]) -> NDArray[np.float32]:
        """Return the feature map DHW of a stored file."""
        features_DHW: NDArray[np.float32] = content.get("features", np.zeros(0)).astype(np.float32)
        if features_DHW.ndim != 3 or not np.isfinite(features_DHW).all():
            problem = "it holds numbers that are not finite, or no maps"
            raise _damaged_error(self._path("features", key, ".npz"), "feature map", problem)
        return features_DHW

    def _read_arrays(self, kind: str, key: str) -> dict[str, NDArray[Any]] | None:
        """Read the arrays of a stored file; None if there is none."""
        path = self._path(kind, key, ".npz")
        if not path.exists():
            return None
        try:
            return read_npz(path, remedy=_REMAKE)
        except InputError as error:
            raise _damaged_error(path, kind.removesuffix("s"), error.problem) from error

    # -------------------------------------------------------------------------------------------- labels
    def label_key(self, pair: PairFiles) -> str:
        """Return the key of a pair's labels under the current specification."""
        answers = [self.answer_key(image, pair.window_px) for image in (pair.before, pair.after)]
        made_by = answers, self.spec.prompts.find, self.spec.prompts.background, self.spec.ceg
        return hash_values(*made_by, *([] if self.spec.classes is None else [asdict(self.spec.classes)]))

    def has_labels(self, pair: PairFiles) -> bool:
        """Return whether the store holds the labels of a pair and their record."""
        key = self.label_key(pair)
        return all(self._path("labels", key, suffix).exists() for suffix in (".json", ".png"))

    def has_pair(self, pair: PairFiles) -> bool:
        """Return whether the store holds the labels of a pair and all that they were made from."""
        images, window_px = (pair.before, pair.after), pair.window_px
        made_from = [self._path("answers", self.answer_key(image, window_px), ".npz") for image in images]
        if CEG_FEATURES_KEY in self.spec.ceg:
            made_from += [self._path("features", self._features_key(image, window_px), ".npz") for image in images]
        return self.has_labels(pair) and all(path.exists() for path in made_from)

    def write_labels(self, pair: PairFiles, labels: VLMLabels) -> dict[str, Any]:
        """Store a pair's labels; return their record (name, reliable and changed fraction, how they were made)."""
        key = self.label_key(pair)
        write_bytes_atomically(self._path("labels", key, ".png"), encode_labels(labels))
        record = {
            "name": pair.name,
            "before": str(pair.before),
            "after": str(pair.after),
            "window_px": pair.window_px,
            "answers": [self.answer_key(image, pair.window_px) for image in (pair.before, pair.after)],
            "reliable_frac": float((labels.change_HW != 255).mean()),
            "changed_frac": float((labels.change_HW == 1).mean()),
            "spec": self.spec.to_plain_dict(),
        }
        write_json(self._path("labels", key, ".json"), record)
        return record

    def read_record(self, pair: PairFiles) -> dict[str, Any]:
        """Return the record of a pair's labels."""
        return _read_record(self._path("labels", self.label_key(pair), ".json"))

    def read_labels(self, pair: PairFiles) -> VLMLabels:
        """Return the labels of a pair.

        Raises:
            StoreError: the store holds none for these images under the current specification, or they are damaged.
        """
        path = self._path("labels", self.label_key(pair), ".png")
        if not path.exists():
            raise StoreError(
                f"{self.root}: holds no labels for the pair '{pair.name}' ({pair.before}). It was made for "
                "other images or is not finished; run `semicdvl pseudo` on this data set with the same -o."
            )
        labels = read_label_png(path)
        if labels is None:
            raise _damaged_error(path, "label", "not a picture")
        return labels

    def iterate_records(self) -> Iterator[dict[str, Any]]:
        """Yield the records of all labels in the store, whatever their specification."""
        for path in list_records(self.root):
            yield _read_record(path)

    def verify(self) -> list[str]:
        """Read all files and return one line per damaged file; the list is empty for an intact store."""
        wrong = []
        for kind in ("answers", "features"):
            for path in sorted((self.root / kind).glob("*/*.npz")):
                try:
                    self._verify_arrays(kind, path.stem)
                except StoreError as error:
                    wrong.append(str(error))
        for path in list_records(self.root):
            classes = 2
            try:
                of_classes = _read_record(path)["spec"]["classes"]
                classes = 2 if of_classes is None else len(of_classes["names"])
            except StoreError as error:
                wrong.append(str(error))
            if not _holds_labels(path.with_suffix(".png"), classes):
                held = "0, 1 and 255" if classes == 2 else f"0 to {classes - 1} and 255"
                wrong.append(str(_damaged_error(path.with_suffix(".png"), "label", f"not a picture of {held}")))
        return wrong

    def _verify_arrays(self, kind: str, key: str) -> None:
        """Read a file of arrays; one of an answer may be of other prompts than those of now."""
        content = self._read_arrays(kind, key)
        if content is None:
            return
        if kind == "features":
            self._check_features(key, content)
            return
        try:
            decode_segments(content, None)
        except (ValueError, KeyError, TypeError, zlib.error) as error:
            raise _damaged_error(self._path(kind, key, ".npz"), "answer", error) from error

    def _path(self, kind: str, key: str, suffix: str) -> Path:
        """Return the file of a key; its first two letters are the folder, so that no folder gets too full."""
        return self.root / kind / key[:2] / f"{key}{suffix}"


def _holds_labels(path: Path, classes: int) -> bool:
    """Tell whether a file holds labels of a pair: change, and this many classes at each date."""
    labels = read_label_png(path)
    return labels is not None and all(
        bool(((map_HW < count) | (map_HW == IGNORE)).all())
        for map_HW, count in ((labels.change_HW, 2), (labels.t1_HW, classes), (labels.t2_HW, classes))
    )


def _is_empty_folder(path: Path) -> bool:
    """Tell whether a path is a folder with nothing in it but what a process is writing, or left when it was killed."""
    return path.is_dir() and all(each.name.startswith(TEMPORARY_PREFIX) for each in path.iterdir())


def _read_manifest(root: Path) -> dict[str, Any]:
    """Read and check a store's manifest."""
    path = root / "manifest.json"
    require_file_or_folder(path, remedy="Give the folder that `semicdvl pseudo` wrote")
    if not path.exists():
        kind = describe_folder(root)
        problem = "no pseudo-label store here" if kind == FOLDER else f"is {kind}, not a pseudo-label store"
        raise StoreError(f"{root}: {problem} (no manifest.json). Make one with `semicdvl pseudo DATA -o STORE`.")
    manifest = read_json(path, remedy="Make the store anew with `semicdvl pseudo`")
    if not isinstance(manifest, dict) or manifest.get("format") != "semicdvl-pseudo-store":
        raise StoreError(
            f"{path}: not the manifest of a pseudo-label store. Give the folder that `semicdvl pseudo` wrote."
        )
    if manifest.get("version") != STORE_VERSION:
        raise StoreError(
            f"{path}: a store of version {shorten(manifest.get('version'))}; this program reads {STORE_VERSION}. "
            "Make it anew."
        )
    try:
        StoredSpec.model_validate(manifest)
    except ValidationError as error:
        raise StoreError(f"{path}: {describe_fault(error)}. Make the store anew with `semicdvl pseudo`.") from None
    return manifest


def _read_record(path: Path) -> dict[str, Any]:
    """Read and check the record of a pair's labels; further fields are kept as they are."""
    try:
        content = read_json(path, remedy=_REMAKE)
        return StoredRecord.model_validate(content).model_dump()
    except InputError as error:
        raise _damaged_error(path, "record", error.problem) from error
    except ValidationError as error:
        raise _damaged_error(path, "record", describe_fault(error)) from None


def _damaged_error(path: Path, what: str, why: object) -> StoreError:
    """Return the error for a damaged file of the store."""
    return StoreError(f"{path}: a damaged {what} ({why}). {_REMAKE}.")
