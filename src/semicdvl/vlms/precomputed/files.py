"""Precomputed predictions, read from files: any VLM can be used without being installed here.

Folder layout, that of the public SemiCD-VL scripts with a file that names the prompts:

    ANSWERS/answers.json     {"prompts": ["house", "building", "road", ...],      channel order, or category ids
                              "images": "../LEVIR-CD-256"}                       optional, see below
    ANSWERS/A/test_1.npy     C x H x W scores of A/test_1.png (APE's "sem_seg"; sums above 1 are clamped in order)
    ANSWERS/A/test_1.json    its instances, COCO style: a list (or {"annotations": [...], "categories": [...]}) of
                             {"category_id": 0, "score": 0.93, "segmentation": {"size": [H, W], "counts": "..."}}
    ANSWERS/B/test_1.npy     ...

A `category_id` is the index of a prompt, from 0, or an id of the file's own `categories` [{"id": 7, "name": "house"}],
whose names are then prompts; instances of other categories are left out.

`.npy` alone gives maps and no instances; `.json` alone gives instances, and maps in which a pixel has the score of the
best instance that covers it; both are used together. An image arrives here as pixels, so its file is found by their
hash: with `images` set, the image files below that folder are hashed and ANSWERS mirrors their paths without suffix.
Without it, predictions are not nested and are named by `hash_pixels` of the image: ANSWERS/<64 hex digits>.npy.

The public scripts take the argmax over the sums as they are. So that clamping makes no ties, which the foreground would
win, only the prompt with the highest sum of a pixel gets 1; others that reach 1 get the number just below.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from semicdvl.errors import ConfigError, InputError
from semicdvl.raster.io.georeference_warnings import ignore_warnings
from semicdvl.reading.array_files import read_npy
from semicdvl.reading.json_files import read_json, shorten
from semicdvl.reading.limits import MAX_WORDS
from semicdvl.reading.regular_files import require_file_or_folder, require_regular_file, resolve_links
from semicdvl.registry import suggest_nearest
from semicdvl.types import DescribedVLM, Instance, Segments
from semicdvl.vlms.instance_stitching import decode_mask
from semicdvl.vlms.model_cards import ModelCard
from semicdvl.vlms.pixel_hash import hash_pixels
from semicdvl.vlms.precomputed.coco import InstanceReader, read_coco
from semicdvl.vlms.validation import check_image, check_prompts
from semicdvl.vlms.words import normalise_word

CARD = ModelCard(
    description="APE's maps and COCO instances",
    licence="yours",
    size="-",
    needs="a folder of predictions",
    gamma=0.8,
)
ANSWERS_FILE = "answers.json"
READER_VERSION = 2
"""Version of the conversion of files to scores, part of the identity; in version 1 all sums above 1 were tied."""
_BOMBS = (Image.DecompressionBombError, Image.DecompressionBombWarning)
IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp"}
IMAGE_FORMATS = ("PNG", "JPEG", "TIFF", "BMP")


@dataclass(frozen=True)
class AnswerFormat:
    """Describe how one VLM's predictions are written.

    Attributes:
        name: of the VLM.
        gamma: score from which its predictions are reliable.
        reader: reads a file of instances.
        instances_folder: folder of its instance files, beside the arrays; empty: none.
        clamp: clamp sums above 1 and noise below 0 (see `clamp_scores`); False refuses scores outside [0, 1].
    """

    name: str = "precomputed"
    gamma: float = CARD.gamma
    reader: InstanceReader = read_coco
    instances_folder: str = ""
    clamp: bool = True


@dataclass
class PrecomputedVLM(DescribedVLM):
    """Look predictions up in files; `open_answers` makes it.

    Attributes:
        identity: hash over the names, sizes and times of all files, and the prompts.
        folder: the predictions.
        prompts: the prompts of the predictions, in channel order.
        images: folder of the images, or None if predictions are named by pixel hash.
        gamma: score from which predictions are reliable; the paper's, for APE.
        manifest: the content of answers.json.
        answer_format: how the predictions of this VLM are written.
    """

    identity: str
    folder: Path
    prompts: tuple[str, ...]
    images: Path | None = None
    gamma: float = CARD.gamma
    manifest: Mapping[str, Any] = field(default_factory=dict, repr=False)
    answer_format: AnswerFormat = field(default_factory=AnswerFormat, repr=False)
    _stems_by_pixels: dict[str, str] = field(default_factory=dict, repr=False)

    def segment(self, image_HWC: NDArray[np.uint8], prompts: Sequence[str], *, gsd_m: float | None = None) -> Segments:
        """Return the stored prediction for exactly this image; `gsd_m` changes nothing.

        Raises:
            ConfigError: no prompts were given.
            InputError: the predictions lack a prompt or the image, or the prediction is damaged: another size, NaN, or
                masks that are none.
        """
        check_prompts(prompts)
        channels = [self._find_channel(word) for word in prompts]
        check_image(image_HWC, vlm=self.answer_format.name)
        stem = self.folder / self._find_stem(image_HWC)
        maps, objects = (
            stem.with_name(stem.name + ".npy"),
            stem.parent / self.answer_format.instances_folder / f"{stem.name}.json",
        )
        shape_hw = image_HWC.shape[:2]
        found = None
        if objects.is_file():
            found = self.answer_format.reader(objects, shape_hw=shape_hw, note=self.manifest, prompts=self.prompts)
        if maps.is_file():
            raw_CHW = _read_maps(maps, shape_hw=shape_hw, count=len(self.prompts), clamp=self.answer_format.clamp)
            scores_CHW = clamp_scores(raw_CHW[channels])
        elif found is not None:
            scores_CHW = _maps_from_instances(found, shape_hw=shape_hw, count=len(self.prompts))[channels]
        else:
            raise InputError(
                maps,
                "there is no prediction for this image, neither .npy nor .json",
                "Compute predictions of all images",
            )
        return Segments(scores_CHW, tuple(prompts), _select_prompts(found, channels))

    def _find_channel(self, word: str) -> int:
        cleaned, known = normalise_word(word), [normalise_word(prompt) for prompt in self.prompts]
        if cleaned not in known:
            raise InputError(
                self.folder / ANSWERS_FILE,
                f"does not contain the prompt '{word}'.{suggest_nearest(cleaned, self.prompts)} "
                f"It contains: {', '.join(self.prompts)}",
                "Use these prompts only, or compute the predictions again",
            )
        return known.index(cleaned)

    def _find_stem(self, image_HWC: NDArray[np.uint8]) -> str:
        """Return the path of an image's prediction below the folder, without suffix."""
        key = hash_pixels(image_HWC)
        if self.images is None:
            return key
        if not self._stems_by_pixels:
            self._stems_by_pixels.update(_index_images(self.images))
        if key not in self._stems_by_pixels:
            raise InputError(
                self.images,
                f"contains no image with exactly these pixels ({image_HWC.shape[0]} x {image_HWC.shape[1]})",
                f"Correct 'images' in {self.folder / ANSWERS_FILE}; tiles must be cut as for the predictions",
            )
        return self._stems_by_pixels[key]


def build_precomputed(
    *, weights: Path | str | None = None, images: Path | str | None = None, device: str = "cpu"
) -> PrecomputedVLM:
    """Open a folder of predictions.

    Args:
        weights: the folder of predictions.
        images: folder of the images; overrides `images` of answers.json.
        device: not used; every VLM accepts it.

    Raises:
        ConfigError: no folder was given.
        InputError: the folder has no valid answers.json.
    """
    return open_answers(weights, images=images, form=AnswerFormat())


def open_answers(weights: Path | str | None, *, images: Path | str | None, form: AnswerFormat) -> PrecomputedVLM:
    """Open a folder of predictions that are written in a certain format.

    Raises:
        ConfigError: no folder was given.
        InputError: the folder has no valid answers.json.
    """
    if weights is None:
        raise ConfigError(f"the VLM '{form.name}' needs the folder of its predictions. Give it with --weights FOLDER.")
    folder = Path(weights)
    note_path = folder / ANSWERS_FILE
    note = read_json(note_path, remedy='Write {"prompts": [the words in channel order]} into it')
    words = note.get("prompts") if isinstance(note, dict) else None
    if not isinstance(words, list) or not words or not all(isinstance(word, str) and word.strip() for word in words):
        raise InputError(note_path, "has no list 'prompts' of words", 'Write {"prompts": [the words in channel order]}')
    prompts = tuple(word.strip().lower() for word in words)
    if len(set(prompts)) != len(prompts):
        raise InputError(note_path, "names a prompt twice", "Give every channel its own prompt")
    place = images if images is not None else note.get("images")
    if place is not None and not isinstance(place, str | Path):
        raise InputError(note_path, "names something else than a folder as 'images'", "Write the path of a folder")
    if len(words) > MAX_WORDS:
        raise InputError(note_path, f"has {len(words)} prompts, and {MAX_WORDS} are possible", "Use fewer prompts")
    where = None if place is None else folder / place  # an absolute path stays as it is
    if where is not None:
        require_file_or_folder(where, remedy=f"Correct 'images' in {note_path}, or leave it out")
        if images is None:
            _require_near(where, note_path)
    if where is not None and not where.is_dir():
        raise InputError(where, "is no folder of images", f"Correct 'images' in {note_path}, or leave it out")
    identity = f"{form.name}-{_fingerprint_answers(folder, note)}"
    return PrecomputedVLM(identity, folder, prompts, where, form.gamma, note, form)


def _require_near(images: Path, note_path: Path) -> None:
    """Refuse images that are neither below the folder of the predictions nor below the folder above it.

    Raises:
        InputError: they lie elsewhere; a file that somebody sent could have the whole disk searched.
    """
    lexical = (Path(os.path.normpath(path.absolute())) for path in (images, note_path))
    for where, note in (tuple(lexical), (resolve_links(images), resolve_links(note_path))):
        if where.is_relative_to(note.parent.parent):
            return
    problem = f"names images outside of the folder above it ({shorten(images)})"
    remedy = "Set a symbolic link to them beside the folder of the predictions, and name that (in Python: images=...)"
    raise InputError(note_path, problem, remedy)


def _fingerprint_answers(folder: Path, note: Mapping[str, Any]) -> str:
    digest = hashlib.sha256(json.dumps({**note, "images": None, "reading": READER_VERSION}, sort_keys=True).encode())
    for path in sorted(folder.rglob("*")):
        if path.suffix in (".npy", ".json"):
            stat = path.stat()
            digest.update(f"{path.relative_to(folder).as_posix()} {stat.st_size} {stat.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:12]


def _index_images(images: Path) -> dict[str, str]:
    """Return pixel key -> path without suffix of every image below a folder."""
    names = {}
    for path in sorted(images.rglob("*")):
        if path.suffix.lower() not in IMAGE_SUFFIXES:
            continue
        require_regular_file(path, remedy="Repair or remove it")
        try:
            with ignore_warnings(Image.DecompressionBombWarning):  # refused below
                picture = Image.open(path, formats=IMAGE_FORMATS)
            with picture:
                if Image.MAX_IMAGE_PIXELS is not None and picture.width * picture.height > Image.MAX_IMAGE_PIXELS:
                    raise Image.DecompressionBombError(f"{picture.width} x {picture.height} px")
                pixels_HWC = np.asarray(picture.convert("RGB"))
        except (OSError, ValueError, SyntaxError, EOFError, *_BOMBS) as error:
            raise InputError(path, f"cannot be read as an image ({error})", "Repair or remove it") from error
        names[hash_pixels(pixels_HWC)] = path.relative_to(images).with_suffix("").as_posix()
    return names


# ------------------------------------------------------------------------------------------------ one prediction
def _read_maps(path: Path, *, shape_hw: tuple[int, ...], count: int, clamp: bool) -> NDArray[np.floating[Any]]:
    """Read score maps CHW; finite, and without `clamp` from 0 to 1."""
    raw = read_npy(path, remedy="Save it with numpy.save, without objects")
    expected = (count, *shape_hw)
    if raw.shape != expected:
        raise InputError(
            path,
            f"has the shape {raw.shape}, not {expected}: one map per prompt, of the image's size",
            "Compute it again",
        )
    if not np.issubdtype(raw.dtype, np.number) or np.issubdtype(raw.dtype, np.complexfloating):
        raise InputError(path, f"has the type {raw.dtype}, not real numbers", "Save the scores as float32")
    if not np.isfinite(raw).all():
        raise InputError(path, "contains NaN or infinite scores", "Compute this prediction again")
    if not clamp and (raw.min(initial=0) < -1e-3 or raw.max(initial=0) > 1 + 1e-3):
        problem = f"contains scores from {raw.min():g} to {raw.max():g}, outside 0 to 1"
        raise InputError(path, problem, "Save probabilities: after the sigmoid or softmax, not logits or percent")
    raw_CHW: NDArray[np.floating[Any]] = raw if np.issubdtype(raw.dtype, np.floating) else raw.astype(np.float64)
    return raw_CHW


def clamp_scores(raw_CHW: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
    """Clamp scores to [0, 1], with the winners of the raw ones.

    Where a prompt's score is above 1, every prompt that has the pixel's highest score gets 1 and all others that reach
    1 get the float32 just below it: the winning prompt, ties, and the decision `best score >= gamma` are those of the
    raw scores for every gamma up to 1. Pixels without a score above 1 keep their scores.
    """
    best_HW = raw_CHW.max(axis=0)
    scores_CHW: NDArray[np.float32] = np.clip(raw_CHW, 0.0, 1.0).astype(np.float32)
    scores_CHW[(raw_CHW >= 1) & (raw_CHW < best_HW)] = np.nextafter(np.float32(1), np.float32(0))
    return scores_CHW


def _maps_from_instances(found: Sequence[Instance], *, shape_hw: tuple[int, ...], count: int) -> NDArray[np.float32]:
    """Draw maps in which a pixel has the score of the best instance of the prompt that covers it."""
    scores_CHW = np.zeros((count, *shape_hw), np.float32)
    for instance in found:
        covered_HW = decode_mask(instance.mask)
        channel_HW = scores_CHW[instance.prompt]
        channel_HW[covered_HW] = np.maximum(channel_HW[covered_HW], instance.score)
    return scores_CHW


def _select_prompts(found: Sequence[Instance] | None, channels: Sequence[int]) -> tuple[Instance, ...] | None:
    """Return the instances of the requested prompts, with their indices in the request."""
    if found is None:
        return None
    place = {channel: index for index, channel in enumerate(channels)}
    return tuple(Instance(i.mask, place[i.prompt], i.score) for i in found if i.prompt in place)
