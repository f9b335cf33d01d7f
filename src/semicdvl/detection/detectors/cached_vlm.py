"""A VLM whose answers are kept on disk: a second detection of the same images does not ask it again.

What is kept for each tile depends on its pixels, the VLM and the words, and on nothing that comes after: other
thresholds, rules or areas take the kept answers. Where the score of a word does not depend on the other words
(`DescribedVLM.words_are_independent`), every word is kept by itself, and the VLM is asked for the words of all shipped
prompt sets at once, so that other words take kept answers, too: the network's pass is what costs, not the words.

Answers are those of the VLM rounded down to steps (`vlms.answer_cache`), whether they were kept before or not: with a
cache the first run and every later one give the same map. The identity says so, since without it scores are up to
1 / 4000 higher.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard

import numpy as np
from numpy.typing import NDArray

from semicdvl.atomic_files import hash_values
from semicdvl.ceg.features import FeatureSharingVLM
from semicdvl.ceg.prompts import PROMPT_SETS
from semicdvl.errors import ConfigError, InputError, MissingExtraError
from semicdvl.pseudo_labels.score_codec import instance_to_plain, read_instances
from semicdvl.reading.json_files import parse_json
from semicdvl.types import VLM, DescribedVLM, Instance, Segments
from semicdvl.vlms.answer_cache import FORMAT, AnswerCache, pack_steps, restore_scores, round_scores, unpack_steps
from semicdvl.vlms.pixel_hash import hash_pixels

SHIPPED_WORDS = tuple(dict.fromkeys(word for prompts in PROMPT_SETS.values() for word in prompts.words))
"""The words of all shipped prompt sets."""
_FAULTS = (ValueError, KeyError, TypeError, zlib.error)
"""What decoding a damaged entry raises."""


def cache_answers(vlm: VLM, cache: AnswerCache) -> VLM:
    """Return a VLM that answers as another one does, rounded down to steps, and keeps its answers."""
    return _FeatureCachingVLM(vlm, cache) if _shares_features(vlm) else CachedVLM(vlm, cache)


def _shares_features(vlm: VLM) -> TypeGuard[FeatureSharingVLM]:
    """Tell whether a VLM gives features from its own pass."""
    return isinstance(vlm, FeatureSharingVLM)


@dataclass(frozen=True)
class _Question:
    """An image, and what its kept answers depend on beside the words."""

    image_HWC: NDArray[np.uint8]
    identity: str
    gsd_m: float | None
    digest: str

    def make_key(self, *what: str) -> str:
        """Return the key of an answer for words, or of features."""
        return hash_values(FORMAT, self.identity, self.digest, self.gsd_m, what)


class CachedVLM(DescribedVLM):
    """A VLM whose answers are kept; `cache_answers` makes it."""

    def __init__(self, vlm: VLM, cache: AnswerCache) -> None:
        """Wrap a VLM."""
        self._vlm, self._cache = vlm, cache
        self.identity, self.gamma = f"{vlm.identity}-kept", vlm.gamma
        if isinstance(vlm, DescribedVLM):
            self.measured, self.class_score = vlm.measured, vlm.class_score
            self.class_reliability, self.words_are_independent = vlm.class_reliability, vlm.words_are_independent
        self._further_words = tuple(filter(self._knows, SHIPPED_WORDS)) if self.words_are_independent else ()

    def check_words(self, words: Sequence[str]) -> None:
        """Refuse words that the VLM does not know.

        Raises:
            ConfigError, MissingExtraError: as the VLM does.
        """
        if isinstance(self._vlm, DescribedVLM):
            self._vlm.check_words(words)

    def _knows(self, word: str) -> bool:
        """Tell whether the VLM can be asked for a word."""
        try:
            self.check_words([word])
        except (ConfigError, MissingExtraError):
            return False
        return True

    def segment(self, image_HWC: NDArray[np.uint8], prompts: Sequence[str], *, gsd_m: float | None = None) -> Segments:
        """Return the kept answer, or ask the VLM and keep what it says."""
        question = _Question(image_HWC, self._vlm.identity, gsd_m, hash_pixels(image_HWC))
        return self._find_answer(question, prompts) or self._keep(
            question, prompts, self._ask(image_HWC, prompts, gsd_m)
        )

    def _ask(self, image_HWC: NDArray[np.uint8], prompts: Sequence[str], gsd_m: float | None) -> Segments:
        """Ask the VLM for words, and for those that may be wanted later."""
        return self._vlm.segment(image_HWC, self._add_words(prompts), gsd_m=gsd_m)

    def _add_words(self, prompts: Sequence[str]) -> tuple[str, ...]:
        """Return words with those that may be wanted later."""
        return tuple(dict.fromkeys((*prompts, *self._further_words)))

    def _group(self, words: Sequence[str]) -> list[tuple[str, ...]]:
        """Return the words that are kept together: each by itself, where they do not depend on each other."""
        return [(word,) for word in words] if self.words_are_independent else [tuple(words)]

    def _find_answer(self, question: _Question, prompts: Sequence[str]) -> Segments | None:
        """Return the kept answer; None where a word is missing or a file is damaged."""
        parts = []
        for words in self._group(prompts):
            arrays = self._cache.read(question.make_key("answer", *words))
            if arrays is None:
                return None
            try:
                parts.append(_decode(arrays, (len(words), *question.image_HWC.shape[:2])))
            except _FAULTS:
                return None
        instances = None if self.words_are_independent else parts[0][1]
        return Segments(np.concatenate([scores_CHW for scores_CHW, _ in parts]), tuple(prompts), instances)

    def _keep(self, question: _Question, prompts: Sequence[str], answer: Segments) -> Segments:
        """Keep an answer of the VLM, and return its part for some words as it will be read again.

        Raises:
            InputError: the VLM's scores are not finite, or of another size than the image.
            OutputError: the folder cannot be written.
        """
        _check_scores(answer, question.image_HWC)
        steps_CHW, at = round_scores(answer.scores_CHW), {word: index for index, word in enumerate(answer.prompts)}
        for words in self._group(answer.prompts):
            part_CHW = steps_CHW[[at[word] for word in words]]
            self._cache.write(question.make_key("answer", *words), _encode(part_CHW, answer.instances))
        wanted_CHW = restore_scores(steps_CHW[[at[word] for word in prompts]])
        return Segments(wanted_CHW, tuple(prompts), None if self.words_are_independent else answer.instances)


class _FeatureCachingVLM(CachedVLM):
    """A VLM that gives features from its own pass, whose answers and features are kept."""

    _vlm: FeatureSharingVLM

    @property
    def features_identity(self) -> str:
        """The `identity` of the feature extractor; features are kept as they are."""
        return self._vlm.features_identity

    def segment_with_features(
        self, image_HWC: NDArray[np.uint8], prompts: Sequence[str], *, gsd_m: float | None = None
    ) -> tuple[Segments, NDArray[np.float32] | None]:
        """Return the kept answer and features, or ask the VLM and keep both."""
        question = _Question(image_HWC, self._vlm.identity, gsd_m, hash_pixels(image_HWC))
        key = question.make_key("features", self.features_identity)
        answer, kept = self._find_answer(question, prompts), self._cache.read(key)
        if answer is not None and kept is not None and _holds_features(kept):
            return answer, kept["features"] if kept["features"].size else None
        found, features_DHW = self._vlm.segment_with_features(image_HWC, self._add_words(prompts), gsd_m=gsd_m)
        nothing = np.zeros((0, 0, 0), np.float32)
        self._cache.write(key, {"features": nothing if features_DHW is None else features_DHW})
        return self._keep(question, prompts, found), features_DHW


def _holds_features(arrays: dict[str, NDArray[Any]]) -> bool:
    """Tell whether an entry holds a map of features, or none as an empty one."""
    features = arrays.get("features")
    is_map = features is not None and features.ndim == 3 and features.dtype == np.float32
    return is_map and bool(np.isfinite(arrays["features"]).all())


def _check_scores(answer: Segments, image_HWC: NDArray[np.uint8]) -> None:
    """Refuse an answer that cannot be kept.

    Raises:
        InputError: the scores are not finite, or of another size than the image.
    """
    wanted, remedy = (len(answer.prompts), *image_HWC.shape[:2]), "Check its weights and its precision"
    if answer.scores_CHW.shape != wanted:
        raise InputError("VLM", f"returned scores of shape {answer.scores_CHW.shape} instead of {wanted}", remedy)
    if not np.isfinite(answer.scores_CHW).all():
        raise InputError("VLM", "returned scores that are not finite", remedy)


def _encode(steps_CHW: NDArray[np.uint16], instances: Sequence[Instance] | None) -> dict[str, NDArray[Any]]:
    """Return an answer as plain arrays."""
    found = None if instances is None else [instance_to_plain(instance) for instance in instances]
    return {
        "scores": np.frombuffer(pack_steps(steps_CHW), np.uint8),
        "instances": np.frombuffer(json.dumps(found).encode(), np.uint8),
    }


def _decode(
    arrays: dict[str, NDArray[Any]], shape: tuple[int, ...]
) -> tuple[NDArray[np.float32], tuple[Instance, ...] | None]:
    """Return scores and instances of plain arrays.

    Raises:
        ValueError, KeyError, TypeError, zlib.error: they are damaged, or of another image.
    """
    scores_CHW = restore_scores(unpack_steps(arrays["scores"].tobytes(), shape))
    found = parse_json(arrays["instances"].tobytes().decode())
    return scores_CHW, None if found is None else read_instances(found, shape[0], shape[1:])
