"""Change without training on labels: a pair -> how different, one file per method. A new one is a file and a line here.

A builder takes its options by keyword and returns a `types.Detector`. One that needs networks names them first and is
handed them by `detection/detectors/unsupervised.py`: `features` (see `unsupervised.common.features`), `sam`
(`unsupervised.common.sam`), `clip`
(`unsupervised.scm.ImageTextClassifier`).
"""

UNSUPERVISED: dict[str, str] = {
    "cva": "semicdvl.unsupervised.cva:build_cva",
    "log_ratio": "semicdvl.unsupervised.log_ratio:build_log_ratio",
    "irmad": "semicdvl.unsupervised.irmad:build_irmad",
    "pca_km": "semicdvl.unsupervised.pca_km:build_pca_km",
    "dsfa": "semicdvl.unsupervised.dsfa:build_dsfa",
    "cnn_cd": "semicdvl.unsupervised.cnn_cd:build_cnn_cd",
    "dcva": "semicdvl.unsupervised.dcva:build_dcva",
    "gmcd": "semicdvl.unsupervised.gmcd:build_gmcd",
    "dino_cva": "semicdvl.unsupervised.dino_cva:build_dino_cva",
    "any_change": "semicdvl.unsupervised.any_change:build_any_change",
    "scm": "semicdvl.unsupervised.scm:build_scm",
}
"""Name -> builder."""
