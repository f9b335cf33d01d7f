"""Pairs of images on disk -> batches of tensors.

pairs.py            one pair as arrays; pair_checks.py whether the files fit
images/             one image as an array, and many of them in memory
change_dataset.py   what a reader returns; publication.py what its module may declare of published names and lists
labels/             change masks and class maps: what a file of them holds
readers/            a folder of any layout -> ChangeDataset, one file per data set
splits.py           which pair is used for what; split_file.py keeps it, name_lists.py reads published lists
augment/            a pair -> its weak and strong training views
samples.py          pairs -> the tensors of one batch
loaders.py          a split -> endless batches
patch_files.py      patches as PNG files
prepare/            two rasters and GIS labels, or a published data set -> patches
"""

DATASETS = {
    "folder": "semicdvl.data.readers.folder:read_folder",
    "levir_cd": "semicdvl.data.readers.levir_cd:read_levir_cd",
    "second": "semicdvl.data.readers.second:read_second",
    "whu_cd": "semicdvl.data.readers.whu_cd:read_whu_cd",
    "real_pairs": "semicdvl.data.readers.real_pairs:read_real_pairs",
}
"""Name -> reader `read(root, **options) -> ChangeDataset`."""
