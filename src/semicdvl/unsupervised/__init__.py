"""Change detection without training: a pair of images -> change scores, one file per method.

A new method is one file and one line of `UNSUPERVISED`; from outside the package it is named `package.module:builder`.
A builder takes its options by keyword and returns a `types.Detector`. If it names one of these arguments first, it gets
a pretrained network: `features` (`common.features.FeatureNetwork`), `sam` (`common.sam.SamMaskGenerator`), `clip`
(`scm.ImageTextClassifier`); `common.networks.default_networks` says which one.
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
