"""Pairs that share ground: groups by name, by manifest and by content; and what is not known."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from semicdvl.data.readers.folder import read_folder
from semicdvl.data.shared_ground import check_leaks, describe_leaks, group_pairs, hash_anchors
from semicdvl.data.splits import find_cropped_picture, split_by_fraction
from semicdvl.errors import DataError
from semicdvl.types import Split


def picture(seed, side=160):
    return np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)


def write(root, images):
    """Write pairs of one name each, with a label."""
    for folder in ("A", "B", "label"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for name, image in images.items():
        Image.fromarray(image).save(root / "A" / f"{name}.png")
        Image.fromarray(image[::-1].copy()).save(root / "B" / f"{name}.png")
        label = np.zeros(image.shape[:2], np.uint8)
        label[:4, :4] = 255
        Image.fromarray(label).save(root / "label" / f"{name}.png")
    return read_folder(root)


def split_of(dataset, trained):
    pairs = dataset.pairs
    return Split(tuple(p for p in pairs if p.name in trained), (), (), tuple(p for p in pairs if p.name not in trained))


# ------------------------------------------------------------------------------------------------ content
def test_crops_cut_anywhere_have_common_anchors_and_others_none():
    whole = picture(0)
    first, second = (set(hash_anchors(part).tolist()) for part in (whole[:96, :96], whole[37:133, 41:137]))
    shared = hash_anchors(whole[37:96, 41:96])
    assert len(shared) >= 12 and set(shared.tolist()) == first & second
    assert not first & set(hash_anchors(picture(1)).tolist())
    assert len(hash_anchors(np.full((64, 64, 3), 90, np.uint8))) == 0, "flat ground tells nothing"


def test_overlapping_crops_with_meaningless_names_are_found(tmp_path):
    one, other = picture(0), picture(1)
    dataset = write(tmp_path, {"alpha": one[:96, :96], "beta": one[30:126, 20:116], "gamma": other[:96, :96]})
    leaks = check_leaks(split_of(dataset, {"alpha"}))
    assert (leaks.leaking_pairs, leaks.by_name, leaks.by_content) == (1, 0, 1)


def test_nothing_found_among_meaningless_names_is_not_known(tmp_path):
    dataset = write(tmp_path, {name: picture(seed) for seed, name in enumerate(("alpha", "beta", "gamma"))})
    leaks = check_leaks(split_of(dataset, {"alpha"}))
    assert leaks.leaking_pairs is None and leaks.by_content == 0 and "some pairs are (3, such as" in leaks.reason
    leaks = check_leaks(split_of(dataset, {"alpha"}), max_px=1000)
    assert leaks.leaking_pairs is None and leaks.by_content is None and "not compared" in leaks.reason
    tiles = {"alpha": "x", "beta": "y", "gamma": "x"}
    assert check_leaks(split_of(dataset, {"alpha"}), source_tiles=tiles).leaking_pairs == 1
    assert check_leaks(split_of(dataset, {"alpha", "gamma"}), source_tiles=tiles).leaking_pairs == 0


# ------------------------------------------------------------------------------------------------ groups
@pytest.mark.parametrize(
    ("name", "wanted"),
    [("PIC_0_256", "PIC"), ("city-12-3", "city"), ("a_r3_c4", "a"), ("a_x0_y256", "a"), ("Ort_row_0_col_256", "Ort"),
     ("south_tile12", "south"), ("south_patch_7", "south"), ("2019_3_4", "2019"), ("scene", None), ("img_12", None)],
)  # fmt: skip
def test_picture_of_a_crop_by_its_name(name, wanted):
    assert find_cropped_picture(name) == wanted


def names_of(pairs):
    return {pair.name[:2] for pair in pairs}


def sites(tmp_path):
    """Write 6 pictures of 4 crops, called by letters that no rule knows."""
    return write(tmp_path, {f"s{at}{letter}": picture(at, 32) for at in range(6) for letter in "abcd"})


@pytest.mark.parametrize("group", [r"^(s\d)", r"s\d"])
def test_regular_expression_keeps_crops_on_one_side(tmp_path, group):
    dataset = group_pairs(sites(tmp_path), tmp_path, group)
    assert dataset.source_tiles["s3b"] == "s3" and len(set(dataset.source_tiles.values())) == 6
    made = split_by_fraction(dataset, labelled=0.5, seed=0, val=0.2, test=0.2)
    sides = [names_of(made.labelled + made.unlabelled), names_of(made.val), names_of(made.test)]
    assert sum(map(len, sides)) == 6 and len(made.val) == len(made.test) == 8
    assert check_leaks(made, source_tiles=dataset.source_tiles).leaking_pairs == 0


def manifest(tmp_path, column, separator=","):
    rows = [f"A/s{at}{letter}.png{separator}farm {at // 2}" for at in range(6) for letter in "abcd"]
    (tmp_path / "manifest.csv").write_text(f"file{separator}{column}\n" + "\n".join(rows), encoding="utf-8")


def test_column_of_a_manifest(tmp_path):
    plain = sites(tmp_path)
    manifest(tmp_path, "farm", ";")
    assert group_pairs(plain, tmp_path, "farm").source_tiles["s5a"] == "farm 2"
    assert not group_pairs(plain, tmp_path, None).source_tiles, "only a column called group is taken unasked"
    manifest(tmp_path, "group")
    assert group_pairs(plain, tmp_path, None).source_tiles["s0d"] == "farm 0"


def test_groups_that_do_not_fit_are_refused(tmp_path):
    plain = sites(tmp_path)
    for group, told in (("farm", "names a column"), (r"^(x\d)", "does not match 24 of 24"), ("(", "no regular")):
        with pytest.raises(DataError, match=told):
            group_pairs(plain, tmp_path, group)
    manifest(tmp_path, "farm")
    lines = Path(tmp_path / "manifest.csv").read_text().splitlines()[:-1]
    Path(tmp_path / "manifest.csv").write_text("\n".join(lines))
    with pytest.raises(DataError, match=r"no group of some pairs \(1\), e\.g\. 's5d'"):
        group_pairs(plain, tmp_path, "farm")


def test_three_pictures_are_one_side_each(tmp_path):
    crops = {
        f"pic{at}_{row}_{col}": picture(100 * at + row + col, 40)
        for at in range(3)
        for row in (0, 40)
        for col in (0, 40)
    }
    made = split_by_fraction(write(tmp_path, crops), labelled=1.0, seed=0, val=0.15, test=0.25)
    sides = [{find_cropped_picture(pair.name) for pair in pairs} for pairs in (made.labelled, made.val, made.test)]
    assert [len(side) for side in sides] == [1, 1, 1] and len(set.union(*sides)) == 3
    assert check_leaks(made).leaking_pairs == 0


def test_leaks_are_said_in_a_sentence():
    sizes = {"val": 3, "test": 4}
    found = {"leaking_pairs": 1, "leaks": {"reason": "by names"}}
    assert describe_leaks(sizes | found).startswith("1 of 7 validation and test pairs shares ground")
    assert describe_leaks(sizes | {"leaking_pairs": 0}) is None
    unknown = {"leaking_pairs": None, "leaks": {"reason": "nothing tells"}}
    assert describe_leaks(sizes | unknown) == (
        "Whether validation and test pairs share ground with training pairs is not known: nothing tells."
    )
