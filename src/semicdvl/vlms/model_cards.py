"""What a user wants to know before choosing a VLM; sizes are those of the default weights.

Licences and sizes of weights that are fetched could not be checked against the publishers' pages when this was
written: the licence that comes with the files is the one that holds.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class VLMFacts:
    """One row of `semicdvl list vlms`.

    Attributes:
        licence: of the weights.
        size: parameters, and file size.
        needs: what must be installed or fetched.
        good_at: one line.
    """

    licence: str
    size: str
    needs: str
    good_at: str


_VLM = "extra vlm"
FACTS: dict[str, VLMFacts] = {
    "aerial": VLMFacts("Apache-2.0", "5 M, 10 MB", "nothing", "aerial images of 0.3-1 m, offline, on a CPU"),
    "precomputed": VLMFacts("yours", "-", "a folder of answers", "APE's maps and COCO instances"),
    "sam3": VLMFacts("SAM License", "0.85 B, 3.4 GB", f"{_VLM}, GPU", "objects and ground cover, outlines, instances"),
    "grounded_sam": VLMFacts("Apache-2.0", "0.46 B, 1.8 GB", f"{_VLM}, GPU", "things with outlines; no ground cover"),
    "owl_sam": VLMFacts("Apache-2.0", "0.38 B, 1.5 GB", f"{_VLM}, GPU", "small and many things; no ground cover"),
    "clipseg": VLMFacts("Apache-2.0", "0.15 B, 0.6 GB", _VLM, "anything, coarsely; quick, also on a CPU"),
    "clip_dense": VLMFacts("MIT", "0.15 B, 0.6 GB", _VLM, "ground cover, coarsely; remote-sensing CLIPs"),
    "zegclip": VLMFacts("MIT", "-", "a folder of answers", "ground cover"),
    "omg_seg": VLMFacts("MIT", "-", "a folder of answers", "panoptic: things and ground cover"),
    "fake": VLMFacts("Apache-2.0", "-", "nothing", "tests only"),
}
