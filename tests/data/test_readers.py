"""Readers: layouts of folders, lists, LEVIR-CD's crops, WHU-CD's names, and real pairs where they are at hand."""

from __future__ import annotations

import inspect
from pathlib import Path

import numpy as np
import pytest
from tests.support.dataset_files import folder_of_pairs, save
from tests.support.paths import SHARED

from semicdvl.data import DATASETS
from semicdvl.data.change_dataset import ChangeDataset
from semicdvl.data.pair_checks import check_pair_files
from semicdvl.data.pairs import read_pair
from semicdvl.data.readers import folder, levir_cd, whu_cd
from semicdvl.errors import DataError, InputError
from semicdvl.registry import resolve_builder
from semicdvl.types import PairFiles

REAL = SHARED / "data"


def test_every_registered_name_is_a_reader() -> None:
    for name in DATASETS:
        reader = resolve_builder("data set", name, DATASETS)
        assert next(iter(inspect.signature(reader).parameters)) == "root"


# ------------------------------------------------------------------------------------------------ folder
def test_flat_folder_with_lists(tmp_path: Path) -> None:
    root = folder_of_pairs(tmp_path, ["a", "b", "c.1", "d"])
    (root / "list").mkdir()
    (root / "list" / "train.txt").write_text("b.png\n\nA/a.png B/a.png label/a.png\n")
    (root / "list" / "test.txt").write_text("\ufeffc.1\r\n", encoding="utf-8")
    dataset = folder.read_folder(root, name="mine")
    assert [pair.name for pair in dataset.pairs] == ["a", "b", "c.1", "d"] and dataset.name == "mine"
    assert dataset.subsets == {"train": ("b", "a"), "test": ("c.1",)}
    assert [pair.name for pair in dataset.select_subset("train")] == ["b", "a"]
    assert read_pair(dataset.pairs_by_name["c.1"]).t1_HWC[0, 0, 0] == 2


def test_suffixes_may_differ_and_labels_may_be_missing(tmp_path: Path) -> None:
    root = folder_of_pairs(tmp_path, ["a", "b"])
    (root / "label" / "b.png").unlink()
    save(root / "B" / "a.jpg", np.zeros((40, 56, 3), np.uint8))
    (root / "B" / "a.png").unlink()
    (root / "A" / "notes.txt").write_text("not an image")
    (root / "A" / "a.png.aux.xml").write_text("<x/>")
    a, b = folder.read_folder(root).pairs
    assert a.after.suffix == ".jpg" and a.label is not None and b.label is None
    assert read_pair(b).label_HW is None


def test_one_folder_per_subset(tmp_path: Path) -> None:
    folder_of_pairs(tmp_path / "train", ["x", "y"])
    folder_of_pairs(tmp_path / "test", ["z"], labelled=False)
    assert folder.read_folder(tmp_path).subsets == {"train": ("x", "y"), "test": ("z",)}
    folder_of_pairs(tmp_path / "val", ["x"])  # the same name as in train
    dataset = folder.read_folder(tmp_path)
    assert dataset.subsets == {"train": ("train_x", "train_y"), "val": ("val_x",), "test": ("test_z",)}


def test_dates_named_in_files_and_folders(tmp_path: Path) -> None:
    for date in ("pre", "post"):
        for number in range(2):
            save(tmp_path / date / f"{number}_{date}.tif", np.zeros((4, 5, 3), np.uint8))
    assert [pair.name for pair in folder.read_folder(tmp_path).pairs] == ["0", "1"]


@pytest.mark.parametrize(
    ("before", "after", "label"),
    [
        ("A", "B", "label"),  # LEVIR-CD, WHU-CD
        ("A", "B", "OUT"),  # CDD
        ("Image1", "Image2", "label"),  # S2Looking
        ("time1", "time2", "label"),  # SYSU-CD, CLCD
        ("t1", "t2", "mask"),  # DSIFN
    ],
)
def test_folders_are_called_as_data_sets_are_published(tmp_path: Path, before: str, after: str, label: str) -> None:
    for subset in ("train", "test"):
        for name in (before, after, label):
            save(tmp_path / subset / name / "7.png", np.zeros((4, 5, 3) if name != label else (4, 5), np.uint8))
    dataset = folder.read_folder(tmp_path)
    assert dataset.subsets == {"train": ("train_7",), "test": ("test_7",)}
    assert all(pair.has_label and pair.before.parent.name == before for pair in dataset.pairs)


def test_folders_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not a folder"):
        folder.read_folder(tmp_path / "none")
    with pytest.raises(InputError, match="date folders"):
        folder.read_folder(tmp_path)
    (tmp_path / "A").mkdir()
    (tmp_path / "B").mkdir()
    with pytest.raises(DataError, match="no pair"):
        folder.read_folder(tmp_path)
    root = folder_of_pairs(tmp_path, ["a", "b"])
    (root / "label" / "a.png").rename(root / "label" / "a_mask.png")
    (root / "label" / "b.png").rename(root / "label" / "b_mask.png")
    with pytest.raises(DataError, match="none of its 2 labels"):
        folder.read_folder(root)
    save(root / "B" / "b.tif", np.zeros((4, 5, 3), np.uint8))
    with pytest.raises(DataError, match=r"B: 1 name occurs twice, e\.g\. 'b'"):
        folder.read_folder(root)
    (root / "B" / "b.tif").unlink()
    (root / "B" / "b.png").unlink()
    with pytest.raises(DataError, match="only one of A and B"):
        folder.read_folder(root)


def test_lists_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    root = folder_of_pairs(tmp_path, ["tile_a", "tile_b"])
    (root / "train.txt").write_text("tile_a\ntile_c\n")
    with pytest.raises(DataError, match=r"names 1 of 2 pairs that have no files, e\.g\. 'tile_c'"):
        folder.read_folder(root)
    (root / "train.txt").write_text("tile_a.png\ntile_a\n")
    with pytest.raises(DataError, match="twice"):
        folder.read_folder(root)
    (root / "train.txt").write_text("\n")
    with pytest.raises(DataError, match="empty list"):
        folder.read_folder(root)
    (root / "train.txt").write_bytes(b"\xff\xfe\x00broken")
    with pytest.raises(InputError, match="not a list"):
        folder.read_folder(root)


def test_data_sets_that_contradict_themselves_are_refused(tmp_path: Path) -> None:
    pair = PairFiles("a", tmp_path, tmp_path)
    with pytest.raises(DataError, match="1 name occurs twice"):
        ChangeDataset("mine", (pair, pair))
    with pytest.raises(DataError, match="no subset 'val'"):
        ChangeDataset("mine", (pair,), {"train": ("a",)}).select_subset("val")


# ------------------------------------------------------------------------------------------------ LEVIR-CD
def test_levir_tiles_are_cut_row_by_row_from_one(tmp_path: Path) -> None:
    for subset in ("train", "val"):
        folder_of_pairs(tmp_path / subset, [f"{subset}_7", f"{subset}_8"], size_px=(32, 48))
    dataset = levir_cd.read_levir_cd(tmp_path, crop_px=16)
    assert len(dataset.pairs) == 2 * 2 * 6
    assert dataset.subsets["val"][:7] == tuple([f"val_7_{k}" for k in range(1, 7)] + ["val_8_1"])
    fifth = dataset.pairs_by_name["train_8_5"]
    assert fifth.window_px == (16, 16, 16, 16) and dataset.source_tiles["train_8_5"] == "train_8"
    whole, cut = read_pair(PairFiles("w", fifth.before, fifth.after, fifth.label)), read_pair(fifth)
    for before, after in zip(whole, cut, strict=True):
        np.testing.assert_array_equal(before[16:32, 16:32], after)


def test_levir_numbers_are_the_published_ones(tmp_path: Path) -> None:
    folder_of_pairs(tmp_path / "train", ["train_369"], size_px=(1024, 1024))
    dataset = levir_cd.read_levir_cd(tmp_path)
    assert len(dataset.pairs) == 16
    assert dataset.pairs_by_name["train_369_10"].window_px == (512, 256, 256, 256)


def test_levir_crops_stay_as_they_are(tmp_path: Path) -> None:
    folder_of_pairs(tmp_path, ["train_1_1", "train_1_16", "val_3_0256_0512"], size_px=(16, 16))
    dataset = levir_cd.read_levir_cd(tmp_path, crop_px=16)
    assert dataset.subsets == {"train": ("train_1_1", "train_1_16"), "val": ("val_3_0256_0512",)}
    assert dataset.source_tiles == {"train_1_1": "train_1", "train_1_16": "train_1", "val_3_0256_0512": "val_3"}
    assert all(pair.window_px is None for pair in dataset.pairs)


def test_levir_crops_must_fit(tmp_path: Path) -> None:
    folder_of_pairs(tmp_path, ["train_1"], size_px=(40, 56))
    with pytest.raises(DataError, match="whole crops"):
        levir_cd.read_levir_cd(tmp_path, crop_px=16)
    assert len(levir_cd.read_levir_cd(tmp_path, crop_px=None).pairs) == 1


# ------------------------------------------------------------------------------------------------ WHU-CD
def test_whu_reads_lists_and_knows_neighbours(tmp_path: Path) -> None:
    root = folder_of_pairs(tmp_path, ["whucd_00001", "whucd_00002", "whucd_00009"])
    (root / "train.txt").write_text("whucd_00009.png\n")
    assert whu_cd.read_whu_cd(root).subsets == {"train": ("whucd_00009",)}
    assert whu_cd.list_borders("whucd_00001") & whu_cd.list_borders("whucd_00002")
    assert not whu_cd.list_borders("whucd_00001") & whu_cd.list_borders("whucd_00003")
    assert not whu_cd.list_borders("train_1_2")
    assert (
        whu_cd.find_mosaic_strip("whucd_00126")
        == whu_cd.find_mosaic_strip("whucd_00001")
        != whu_cd.find_mosaic_strip("whucd_00127")
    )


# ------------------------------------------------------------------------------------------------ real pairs
@pytest.mark.skipif(not (REAL / "fotbcd").is_dir(), reason="no real pairs at ../shared/data")
@pytest.mark.parametrize("name", ["fotbcd", "fotbcd_instances", "sztaki", "oscd", "dsifn", "xbd", "joplin/chips"])
def test_real_folders_are_read(name: str) -> None:
    dataset = folder.read_folder(REAL / name)
    for pair in dataset.pairs[:3]:
        check_pair_files(pair)
    t1_HWC, t2_HWC, label_HW = read_pair(dataset.pairs[0])
    assert t1_HWC.shape == t2_HWC.shape and t1_HWC.std() > 5
    assert (label_HW is None) == (name == "joplin/chips")
    assert label_HW is None or set(np.unique(label_HW)) <= {0, 1}


@pytest.mark.skipif(not (REAL / "levir").is_dir(), reason="no real pairs at ../shared/data")
def test_real_levir_in_both_forms() -> None:
    tiles, crops = levir_cd.read_levir_cd(REAL / "levir"), levir_cd.read_levir_cd(REAL / "levir_crops")
    assert len(tiles.pairs) == 48 == len(tiles.subsets["test"])
    assert {len(read_pair(pair).t1_HWC) for pair in (tiles.pairs[9], crops.pairs[0])} == {256}
    assert set(crops.subsets) == {"train", "val"}
