"""Vision-language models: one image and words in, a score map per word out. A new one is a file and a line here."""

VLMS: dict[str, str] = {
    "aerial": "semicdvl.vlms.aerial.model:build",
    "sam3": "semicdvl.vlms.models.sam3:build",
    "grounded_sam": "semicdvl.vlms.models.grounded_sam:build",
    "owl_sam": "semicdvl.vlms.models.owl_sam:build",
    "clipseg": "semicdvl.vlms.models.clipseg:build",
    "clip_dense": "semicdvl.vlms.models.clip_dense:build",
    "precomputed": "semicdvl.vlms.precomputed.files:build",
    "zegclip": "semicdvl.vlms.precomputed.zegclip:build",
    "omg_seg": "semicdvl.vlms.precomputed.omg_seg:build",
    "fake": "semicdvl.vlms.models.fake:build",
}
