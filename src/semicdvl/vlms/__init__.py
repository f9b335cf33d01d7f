"""Vision-language models: one image and words in, a score map per word out. A new one is a file and a line here."""

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
