"""Classes of each date: legends, indices, colours and palettes, SECOND, batches, splits, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.support.dataset_files import folder_of_pairs, save

from semicdvl.data.augment import WeakAugmentation
from semicdvl.data.images.cache import ImageCache
from semicdvl.data.labels.files import read_classes
from semicdvl.data.loaders import load_eval_batches, load_train_batches
from semicdvl.data.pair_checks import check_all_pair_files
from semicdvl.data.pairs import read_class_maps, read_pair
from semicdvl.data.readers.folder import read_folder
from semicdvl.data.readers.levir_cd import read_levir_cd
from semicdvl.data.readers.second import SECOND_LEGEND, read_second
from semicdvl.data.samples import LoaderOptions
from semicdvl.data.split_file import read_split, write_split
from semicdvl.errors import ConfigError, InputError
from semicdvl.types import IGNORE, ClassLegend, Split

NAMES = 'names = ["building", "road", "water"]\n'
COLOURS = "colours = [[128, 0, 0], [90, 90, 90], [0, 0, 255]]\nunknown = [[255, 255, 255]]\n"
LEGEND = ClassLegend(("building", "road", "water"), ((128, 0, 0), (90, 90, 90), (0, 0, 255)), ((255, 255, 255),))
T1_HW = np.array([[0, 1, 2], [255, 2, 2]], np.uint8)
T2_HW = np.array([[1, 1, 0], [0, 255, 2]], np.uint8)


def _folder(root: Path, *, legend: str = NAMES, names: tuple[str, ...] = ("a", "b")) -> Path:
    """Write pairs with a map of indices for both dates of "a" and for the second date of "b"."""
    folder_of_pairs(root, list(names), size_px=(2, 3))
    save(root / "label_A" / "a.png", T1_HW)
    save(root / "label_B" / "a.png", T2_HW)
    save(root / "label_B" / "b.png", T2_HW)
    (root / "classes.toml").write_text(legend)
    return root


def _paint(class_HW: np.ndarray, legend: ClassLegend = LEGEND) -> np.ndarray:
    """Return a class map as a picture in the colours of a legend."""
    assert legend.colours is not None
    table = np.full((256, 3), 255, np.uint8)
    table[: legend.count] = legend.colours
    return table[class_HW]


# ------------------------------------------------------------------------------------------------ what is read
def test_indices_of_both_dates_and_a_missing_one(tmp_path: Path) -> None:
    a, b = read_folder(_folder(tmp_path)).pairs
    assert a.classes is not None and a.classes.legend == ClassLegend(("building", "road", "water"))
    maps = read_class_maps(a, cache=ImageCache(0))
    np.testing.assert_array_equal(maps.t1_HW, T1_HW)
    np.testing.assert_array_equal(maps.t2_HW, T2_HW)
    of_b = read_class_maps(b, cache=ImageCache(0))
    assert (of_b.t1_HW == IGNORE).all() and (of_b.t2_HW == T2_HW).all()
    assert read_pair(a).label_HW is not None, "the change mask is read as ever"


def test_pictures_and_palettes_by_the_colours_of_the_legend(tmp_path: Path) -> None:
    np.testing.assert_array_equal(read_classes(save(tmp_path / "rgb.png", _paint(T1_HW)), LEGEND), T1_HW)
    paletted = Image.fromarray(np.array([[7, 4, 9], [1, 9, 9]], np.uint8))  # its own numbers
    colours = {7: (128, 0, 0), 4: (90, 90, 90), 9: (0, 0, 255), 1: (255, 255, 255)}
    paletted.putpalette([band for index in range(256) for band in colours.get(index, (1, 2, 3))])
    paletted.save(tmp_path / "palette.png")
    np.testing.assert_array_equal(read_classes(tmp_path / "palette.png", LEGEND), T1_HW)
    np.testing.assert_array_equal(read_classes(save(tmp_path / "index.png", T1_HW), LEGEND), T1_HW)


def test_colours_as_a_table_by_name(tmp_path: Path) -> None:
    table = "[colours]\nwater = [0, 0, 255]\nbuilding = [128, 0, 0]\nroad = [90, 90, 90]\n"
    (pair, _) = read_folder(_folder(tmp_path, legend=NAMES + table)).pairs
    assert pair.classes is not None and pair.classes.legend.colours == LEGEND.colours


def test_second_gives_classes_and_change(tmp_path: Path) -> None:
    building, water, unchanged = 4, 0, IGNORE
    t1_HW = np.array([[building, unchanged, water], [unchanged, water, unchanged]], np.uint8)
    t2_HW = np.array([[water, unchanged, building], [unchanged, unchanged, unchanged]], np.uint8)
    for folder in ("im1", "im2"):
        for name in ("00003", "00011"):
            save(tmp_path / "train" / folder / f"{name}.png", np.zeros((2, 3, 3), np.uint8))
    save(tmp_path / "train" / "label1" / "00003.png", _paint(t1_HW, SECOND_LEGEND))
    save(tmp_path / "train" / "label2" / "00003.png", _paint(t2_HW, SECOND_LEGEND))
    dataset = read_second(tmp_path)
    pair, without = dataset.pairs
    assert dataset.subsets == {"train": ("00003", "00011")} and pair.has_label and not without.has_label
    maps = read_class_maps(pair, cache=ImageCache(0))
    np.testing.assert_array_equal(maps.t1_HW, t1_HW)
    np.testing.assert_array_equal(maps.t2_HW, t2_HW)
    np.testing.assert_array_equal(read_pair(pair).label_HW, [[1, 0, 1], [0, 1, 0]])
    check_all_pair_files(dataset.pairs, read_classes=True)


def test_crops_of_a_tile_read_their_window(tmp_path: Path) -> None:
    folder_of_pairs(tmp_path, ["train_1"], size_px=(4, 4))
    class_HW = np.arange(16, dtype=np.uint8).reshape(4, 4) % 3
    save(tmp_path / "label_A" / "train_1.png", class_HW)
    save(tmp_path / "label_B" / "train_1.png", 2 - class_HW)
    (tmp_path / "classes.toml").write_text(NAMES)
    crop = read_levir_cd(tmp_path, crop_px=2).pairs[3]
    np.testing.assert_array_equal(read_class_maps(crop, cache=ImageCache(0)).t1_HW, class_HW[2:, 2:])


# ------------------------------------------------------------------------------------------------ batches and splits
def test_batches_carry_classes_in_the_geometry_of_the_images(tmp_path: Path) -> None:
    root = folder_of_pairs(tmp_path, ["a", "b"], size_px=(40, 56))
    for pair in read_folder(root).pairs:  # the classes repeat the images, so that geometry can be checked
        for date, path in (("A", pair.before), ("B", pair.after)):
            save(root / f"label_{date}" / path.name, np.asarray(Image.open(path))[..., 1] % 3)
    (root / "classes.toml").write_text(NAMES)
    pairs = read_folder(root).pairs
    still = LoaderOptions(weak=WeakAugmentation(scale=(1, 1), rot90=True), with_classes=True)
    options = {"crop_px": 32, "labelled_batch": 2, "unlabelled_batch": 1, "vlm": None, "steps": 2, "seed": 1}
    for labelled, _ in load_train_batches(Split(pairs, pairs, (), ()), **options, options=still):
        assert labelled.classes is not None
        np.testing.assert_array_equal(labelled.classes.t1_BHW, labelled.t1_BCHW[:, 1] % 3)
        np.testing.assert_array_equal(labelled.classes.t2_BHW, labelled.t2_BCHW[:, 1] % 3)
    (whole,) = load_eval_batches(pairs, batch=2, with_classes=True)
    assert whole.classes is not None and (whole.classes.t2_BHW == whole.t2_BCHW[:, 1] % 3).all()
    (plain,) = load_eval_batches(pairs, batch=2)
    assert plain.classes is None


def test_a_split_keeps_classes_and_one_without_is_what_it_was(tmp_path: Path) -> None:
    a, b = read_folder(_folder(tmp_path, legend=NAMES + COLOURS)).pairs
    write_split(tmp_path / "split.json", Split((a,), (b,), (), ()), root=tmp_path)
    assert read_split(tmp_path / "split.json", root=tmp_path) == Split((a,), (b,), (), ())
    plain = read_folder(folder_of_pairs(tmp_path / "plain", ["x"])).pairs
    write_split(tmp_path / "plain.json", Split(plain, (), (), ()), root=tmp_path)
    content = json.loads((tmp_path / "plain.json").read_text())
    assert "legends" not in content, "the hash of splits without classes stays as it was"
    assert sorted(content["labelled"][0]) == ["after", "before", "label", "name", "window_px"]


# ------------------------------------------------------------------------------------------------ what is refused
@pytest.mark.parametrize(
    ("legend", "message"),
    [
        ('names = ["building", "road", "building"]', "the class name 'building' occurs twice"),
        ('names = ["building"]', "1 class names are given"),
        ('name = ["a", "b"]', "unknown key 'name'. Did you mean 'names'"),
        ("names = 3", "does not give the names of the classes"),
        (f"{NAMES}colours = [[1, 2, 3]]", "1 colours are given for 3 classes"),
        (f"{NAMES}[colours]\nforest = [1, 2, 3]", r"the colour \[1, 2, 3\] is of 'forest', which is no class"),
        (f"{NAMES}[colours]\nroad = [1, 2, 3]", "the class 'building' has no colour"),
        (f"{NAMES}colours = [[1, 2, 3], [1, 2, 3], [4, 5, 6]]", r"the colour \[1, 2, 3\] occurs twice"),
        (f"{NAMES}colours = [[1, 2, 3], [1, 2, 300], [4, 5, 6]]", r"\[1, 2, 300\] is not a colour"),
        (f"{NAMES}colours = [1, 2, 3]", r"does not give colours as \[red, green, blue\]"),
        ("names = [", "is not valid TOML"),
        pytest.param(f"names = [{'9' * 5_000}]", "is not valid TOML", id="a number of 5000 digits"),
        ('names = ["road", "\\u001b[31mriver"]', "holds control characters"),
    ],
)
def test_a_legend_that_does_not_tell_classes_apart_is_refused(tmp_path: Path, legend: str, message: str) -> None:
    with pytest.raises((ConfigError, InputError), match=message) as caught:
        read_folder(_folder(tmp_path, legend=legend))
    assert "classes.toml" in str(caught.value)


def test_a_class_map_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    high = save(tmp_path / "high.png", np.array([[0, 3]], np.uint8))
    with pytest.raises(InputError, match=r"high.png: holds the class 3, but there are 3: 0 \(building\) to 2"):
        read_classes(high, LEGEND)
    strange = _paint(T1_HW)
    strange[0, 0] = (1, 2, 3)
    with pytest.raises(InputError, match=r"holds the colour \[1, 2, 3\] in 1 px, which no class has"):
        read_classes(save(tmp_path / "strange.png", strange), LEGEND)
    with pytest.raises(InputError, match=r"is a colour image, and classes.toml gives no colours"):
        read_classes(save(tmp_path / "rgb.png", _paint(T1_HW)), ClassLegend(("a", "b", "c")))
    with pytest.raises(InputError, match="compressed with loss"):
        read_classes(save(tmp_path / "lossy.jpg", _paint(T1_HW)), LEGEND)


def test_folders_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    root = _folder(tmp_path)
    (root / "classes.toml").rename(root / "elsewhere.toml")
    with pytest.raises(InputError, match=r"has classes of each date \(label_A and label_B\), but no classes.toml"):
        read_folder(root)
    (root / "elsewhere.toml").rename(root / "classes.toml")
    (root / "label_A").rename(root / "other")
    with pytest.raises(InputError, match="has the folder label_B without label_A"):
        read_folder(root)


def test_another_size_is_refused_from_the_header(tmp_path: Path) -> None:
    root = _folder(tmp_path)
    save(root / "label_B" / "a.png", np.zeros((2, 4), np.uint8))
    a, b = read_folder(root).pairs
    with pytest.raises(InputError, match=r"a.png: is 2 x 4 px, but a.png of the same pair is 2 x 3 px"):
        check_all_pair_files([a, b], read_masks=False)
    with pytest.raises(InputError, match="2 x 4 px"):
        read_class_maps(a, cache=ImageCache(0))


def test_a_split_whose_classes_do_not_fit_is_refused(tmp_path: Path) -> None:
    a, _ = read_folder(_folder(tmp_path)).pairs
    path = tmp_path / "split.json"
    write_split(path, Split((a,), (), (), ()), root=tmp_path)
    kept = json.loads(path.read_text())
    for legends, message in (
        ([], "the classes of 'a' are of a legend that is not in the file"),
        ([{**kept["legends"][0], "names": ["road", "road"]}], "the class name 'road' occurs twice"),
    ):
        path.write_text(json.dumps({**kept, "legends": legends}))
        with pytest.raises(InputError, match=message):
            read_split(path, root=tmp_path)
