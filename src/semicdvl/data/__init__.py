"""Pairs -> batches.

folder.py       A/ B/ label/ and lists -> DataSet
levir_cd.py     LEVIR-CD: tiles of 1024 px, cut while reading, or crops
whu_cd.py       WHU-CD: numbered patches and lists
synthetic.py    a made-up city with exact truth (and its parts, synthetic_*.py)
images.py       one file -> one array
pairs.py        what a data set holds, what is in one pair
prepare.py      two rasters and GIS labels -> patches (polygons.py, blocks.py, cut.py, patches.py, prepare_files.py)
published.py    the published data sets -> patches of 256 px, and their lists checked
splits.py       which pair is for what; split_file.py keeps it
augment.py      a pair -> its training views
samples.py      pairs -> the tensors of one batch
loaders.py      a split -> endless batches
"""

DATASETS = {
    "folder": "semicdvl.data.readers.folder:read_folder",
    "levir_cd": "semicdvl.data.readers.levir_cd:read_levir_cd",
    "whu_cd": "semicdvl.data.readers.whu_cd:read_whu_cd",
}
"""Name -> reader `read(root, ...) -> DataSet`."""
