"""Change event generation (CEG): the single-date scores of a vision-language model become change labels.

    scores of two dates -> pixel_level     -> changed, reliable --+
    instances of two dates -> instance_level -> change events ----+-> mixed -> change label (0, 1, IGNORE)
    scores of two dates -> residual        -> change events, without matching objects (beyond the paper)
    scores of one date  -> segmentation    -> single-date label

`labels.make_labels` does all of it for two answers of a VLM; `streaming_components` and `streaming_instances` do it for
rasters that are too large for memory.
"""

from semicdvl.ceg.rules import instance_level, mixed, pixel_level, segmentation

__all__ = ["instance_level", "mixed", "pixel_level", "segmentation"]
