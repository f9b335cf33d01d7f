"""VLMs with weights from libraries: one file per model family."""
