"""Vision-language models: one image and words in, a score map per word out. A new one is a file and a line here."""

VLMS: dict[str, str] = {
    "aerial": "semicdvl.vlms.aerial:build",
    "precomputed": "semicdvl.vlms.precomputed:build",
    "fake": "semicdvl.vlms.fake:build",
}
