"""What a user wants to know before choosing a VLM; sizes are those of the default weights.

Licences and sizes of weights that are fetched could not be checked against the publishers' pages when this was
written: the licence that comes with the files is the one that holds.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ModelCard:
    """One row of `semicdvl list vlms`.

    Attributes:
        licence: of the weights.
        size: parameters, and file size.
        needs: what must be installed or fetched.
        description: one line.
    """

    licence: str
    size: str
    needs: str
    description: str


_VLM = "extra vlm"
MODEL_CARDS: dict[str, ModelCard] = {
    "aerial": ModelCard("Apache-2.0", "5 M, 10 MB", "nothing", "aerial images of 0.3-1 m, offline, on a CPU"),
    "precomputed": ModelCard("yours", "-", "a folder of answers", "APE's maps and COCO instances"),
    "sam3": ModelCard("SAM License", "0.85 B, 3.4 GB", f"{_VLM}, GPU", "objects and ground cover, outlines, instances"),
    "grounded_sam": ModelCard("Apache-2.0", "0.46 B, 1.8 GB", f"{_VLM}, GPU", "things with outlines; no ground cover"),
    "owl_sam": ModelCard("Apache-2.0", "0.38 B, 1.5 GB", f"{_VLM}, GPU", "small and many things; no ground cover"),
    "clipseg": ModelCard("Apache-2.0", "0.15 B, 0.6 GB", _VLM, "anything, coarsely; quick, also on a CPU"),
    "clip_dense": ModelCard("MIT", "0.15 B, 0.6 GB", _VLM, "ground cover, coarsely; remote-sensing CLIPs"),
    "zegclip": ModelCard("MIT", "-", "a folder of answers", "ground cover"),
    "omg_seg": ModelCard("MIT", "-", "a folder of answers", "panoptic: things and ground cover"),
    "fake": ModelCard("Apache-2.0", "-", "nothing", "tests only"),
}
