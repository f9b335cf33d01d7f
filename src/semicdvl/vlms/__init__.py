"""Vision-language models: an image and prompts in, a score map per prompt out.

A builder takes its settings by keyword, `weights` and `device` among them, and returns a `types.VLM`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from semicdvl.errors import ConfigError
from semicdvl.registry import build_part

if TYPE_CHECKING:
    from semicdvl.types import VLM

VLMS: dict[str, str] = {
    "aerial": "semicdvl.vlms.aerial.model:build_aerial",
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
    """Return the names of all VLMs.

    >>> "aerial" in list_vlms()
    True
    """
    return tuple(VLMS)


def create_vlm(name: str, **options: Any) -> VLM:
    """Build a VLM by its name; its weights are loaded, and downloaded if they must be.

    >>> vlm = create_vlm("aerial", views=1)
    >>> vlm.gamma
    0.5

    Args:
        name: a name of `list_vlms()`, or `package.module:builder` for a VLM of your own.
        options: keyword arguments of its builder, such as `weights` and `device`.

    Raises:
        ConfigError: an unknown name or option, a value out of range, or a builder of something that is no VLM.
        InputError: the weights are missing, damaged or another model's.
        MissingExtraError: a package that it needs is not installed.
    """
    from semicdvl.types import VLM

    vlm = build_part("VLM", name, VLMS, options)
    if not isinstance(vlm, VLM):
        raise ConfigError(f"VLM '{name}' is no VLM: it must have `identity`, `gamma` and `segment` (see types.VLM).")
    return vlm
