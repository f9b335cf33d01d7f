"""Change without training on labels: a pair -> how different, one file per method. A new one is a file and a line here.

A builder takes its options by keyword and returns a `types.Detector`. One that needs networks names them first and is
handed them by `detection/detectors/unsupervised.py`: `features` (see `unsupervised.common.features`), `sam`
(`unsupervised.common.sam`), `clip`
(`unsupervised.scm.Words`).
"""

CLASSIC: dict[str, str] = {
    "cva": "semicdvl.unsupervised.cva:build",
    "log_ratio": "semicdvl.unsupervised.log_ratio:build",
    "irmad": "semicdvl.unsupervised.irmad:build",
    "pca_km": "semicdvl.unsupervised.pca_km:build",
    "dsfa": "semicdvl.unsupervised.dsfa:build",
    "cnn_cd": "semicdvl.unsupervised.cnn_cd:build",
    "dcva": "semicdvl.unsupervised.dcva:build",
    "gmcd": "semicdvl.unsupervised.gmcd:build",
    "dino_cva": "semicdvl.unsupervised.dino_cva:build",
    "any_change": "semicdvl.unsupervised.any_change:build",
    "scm": "semicdvl.unsupervised.scm:build",
}
"""Name -> builder."""
