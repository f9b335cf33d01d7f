"""Vision-language models: one image and words in, a score map per word out. A new one is a file and a line here."""

VLMS: dict[str, str] = {
    "aerial": "semicdvl.vlms.aerial:build",
    "sam3": "semicdvl.vlms.sam3:build",
    "grounded_sam": "semicdvl.vlms.grounded_sam:build",
    "owl_sam": "semicdvl.vlms.owl_sam:build",
    "clipseg": "semicdvl.vlms.clipseg:build",
    "clip_dense": "semicdvl.vlms.clip_dense:build",
    "precomputed": "semicdvl.vlms.precomputed:build",
    "zegclip": "semicdvl.vlms.zegclip:build",
    "omg_seg": "semicdvl.vlms.omg_seg:build",
    "fake": "semicdvl.vlms.fake:build",
}
