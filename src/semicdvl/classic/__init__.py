"""Change without training on labels: a pair -> how different, one file per method. A new one is a file and a line here.

A builder takes its options by keyword and returns a `types.Detector`. One that needs networks names them first and is
handed them by `predict/classic.py`: `features` (see `classic.features`), `sam` (`classic.sam_masks`), `clip`
(`classic.scm.Words`).
"""

CLASSIC: dict[str, str] = {
    "cva": "semicdvl.classic.cva:build",
    "log_ratio": "semicdvl.classic.log_ratio:build",
    "irmad": "semicdvl.classic.irmad:build",
    "pca_km": "semicdvl.classic.pca_km:build",
    "dsfa": "semicdvl.classic.dsfa:build",
    "cnn_cd": "semicdvl.classic.cnn_cd:build",
    "dcva": "semicdvl.classic.dcva:build",
    "gmcd": "semicdvl.classic.gmcd:build",
    "dino_cva": "semicdvl.classic.dino_cva:build",
    "any_change": "semicdvl.classic.any_change:build",
    "scm": "semicdvl.classic.scm:build",
}
"""Name -> builder."""
