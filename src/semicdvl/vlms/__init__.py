"""Vision-language models: an image and prompts in, a score map per prompt out.

A builder takes its settings by keyword, `weights` and `device` among them, and returns a `types.VLM`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from semicdvl.errors import ConfigError
from semicdvl.registry import build_part

if TYPE_CHECKING:
    from collections.abc import Sequence

    from semicdvl.types import VLM

VLMS: dict[str, str] = {
    "aerial": "semicdvl.vlms.aerial.build:build_aerial",
    "sam3": "semicdvl.vlms.models.sam3:build_sam3",
    "grounded_sam": "semicdvl.vlms.models.grounded_sam:build_grounded_sam",
    "owl_sam": "semicdvl.vlms.models.owl_sam:build_owl_sam",
    "clipseg": "semicdvl.vlms.models.clipseg:build_clipseg",
    "clip_dense": "semicdvl.vlms.models.clip_dense:build_clip_dense",
    "precomputed": "semicdvl.vlms.precomputed.files:build_precomputed",
    "zegclip": "semicdvl.vlms.precomputed.zegclip:build_zegclip",
    "omg_seg": "semicdvl.vlms.precomputed.omg_seg:build_omg_seg",
    "fake": "semicdvl.vlms.models.fake:build_fake",
}
"""Name -> builder. Adding a VLM takes one file, with its model card, and one line here."""


def list_vlms() -> tuple[str, ...]:
    """List the names of the vision-language models that `create_vlm` knows.

    Examples:
        >>> import semicdvl as cd
        >>> "aerial" in cd.list_vlms()
        True
    """
    return tuple(VLMS)


def create_vlm(name: str = "aerial", **options: Any) -> VLM:
    """Build a vision-language model (VLM) by its name.

    Args:
        name: one of `list_vlms`, or `package.module:builder` for a VLM of your own. `aerial` is shipped with the
            package and runs offline on a CPU.
        options: keyword arguments of its builder, such as `weights`, `device` and `dtype`; unknown ones are refused.

    Returns:
        An object with `segment(image_HWC, prompts, gsd_m=None) -> Segments`, `identity` and `gamma`.

    Raises:
        ConfigError: the name or an option is unknown, or a value does not fit.
        InputError: its weights are missing or damaged.
        MissingExtraError: the VLM needs an optional package.

    Examples:
        >>> import semicdvl as cd
        >>> vlm = cd.create_vlm("fake")
        >>> vlm.segment(before, ("building", "grass")).scores_CHW.shape
        (2, 64, 96)
    """
    from semicdvl.types import VLM

    vlm = build_part("VLM", name, VLMS, options)
    if not isinstance(vlm, VLM):
        raise ConfigError(f"VLM '{name}' is no VLM: it must have `identity`, `gamma` and `segment` (see types.VLM).")
    return vlm


def check_prompt_words(name: str, words: Sequence[str]) -> None:
    """Refuse words that a VLM does not know, without building it; only `aerial` can tell by its name.

    Args:
        name: of the VLM, as `create_vlm` takes it.
        words: the prompts.

    Raises:
        ConfigError: it does not know a word.
        MissingExtraError: that cannot be told without an optional package.
    """
    if name != "aerial":
        return
    from semicdvl.vlms.aerial.text import load_word_table
    from semicdvl.vlms.words import normalise_word

    load_word_table().check_words([normalise_word(word) for word in words])
