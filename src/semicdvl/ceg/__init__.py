"""Change event generation (CEG): the single-date scores of a vision-language model become change labels.

    scores of two dates -> pixel_level     -> changed, reliable --+
    instances of two dates -> instance_level -> change events ----+-> mixed -> change label (0, 1, IGNORE)
    scores of two dates -> residual        -> change events, without matching objects (beyond the paper)
    scores of one date  -> segmentation    -> single-date label

`labels.make_labels` does all of it for two answers of a VLM; `streaming_components` and `instances.streaming` do it for
rasters that are too large for memory.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from semicdvl.ceg.instances.rule import instance_level
    from semicdvl.ceg.rules import mixed, pixel_level, segmentation

__all__ = ["instance_level", "mixed", "pixel_level", "segmentation"]


def __getattr__(name: str) -> Any:
    """Import a rule when it is first used: the command line needs the settings alone, and no NumPy."""
    if name not in __all__:
        raise AttributeError(f"module 'semicdvl.ceg' has no attribute '{name}'")
    module = "semicdvl.ceg.instances.rule" if name == "instance_level" else "semicdvl.ceg.rules"
    return getattr(import_module(module), name)
