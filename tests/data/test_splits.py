"""Splits: nested, by tile, by published lists, across sets, on disk; and the leaks that lists can have."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.dataset_files import folder_of_pairs
from tests.support.paths import SHARED

from semicdvl.data.change_dataset import ChangeDataset
from semicdvl.data.readers import folder
from semicdvl.data.split_file import read_split, write_split
from semicdvl.data.splits import (
    SplitNames,
    combine_splits,
    count_leaks,
    find_cropped_picture,
    read_published_lists,
    select_split,
    split_by_fraction,
)
from semicdvl.errors import DataError, InputError
from semicdvl.types import PairFiles, Split

LISTS = SHARED / "splits"


def _pair(name: str, *, labelled: bool = True) -> PairFiles:
    return PairFiles(name, Path("A") / name, Path("B") / name, Path("label") / name if labelled else None)


def _set(count: int, *, labelled: int | None = None, **fields: object) -> ChangeDataset:
    most = count if labelled is None else labelled
    return ChangeDataset("synthetic", tuple(_pair(f"p{i}", labelled=i < most) for i in range(count)), **fields)  # type: ignore[arg-type]


def _names(pairs: tuple[PairFiles, ...]) -> set[str]:
    return {pair.name for pair in pairs}


# ------------------------------------------------------------------------------------------------ by fraction
@settings(max_examples=60, deadline=None)
@given(st.integers(30, 200), st.integers(0, 9), st.floats(0.05, 1), st.floats(0.05, 1))
def test_smaller_shares_lie_inside_larger_ones(count: int, seed: int, one: float, other: float) -> None:
    dataset = _set(count)
    small, large = (split_by_fraction(dataset, labelled=share, seed=seed) for share in sorted((one, other)))
    assert _names(small.labelled) <= _names(large.labelled)
    assert small.val == large.val and small.test == large.test
    for made in (small, large):
        sides = [_names(side) for side in vars(made).values()]
        assert sum(len(side) for side in sides) == len(set().union(*sides)) == count
        assert len(made.val) == round(0.1 * count) and len(made.test) == round(0.2 * count)


@pytest.mark.parametrize(
    ("pairs", "share", "published"),
    [(7120, 0.05, 356), (7120, 0.4, 2848), (5947, 0.05, 297), (5947, 0.1, 594), (5947, 0.2, 1189), (5947, 0.4, 2378)],
)
def test_counts_are_rounded_as_published(pairs: int, share: float, published: int) -> None:
    assert len(split_by_fraction(_set(pairs), labelled=share, seed=0, val=0, test=0).labelled) == published


def test_seeds_differ_and_repeat() -> None:
    one, again, other = (split_by_fraction(_set(100), labelled=0.2, seed=seed) for seed in (1, 1, 2))
    assert one == again and one.labelled != other.labelled and _names(one.test) != _names(other.test)


def test_added_pairs_hardly_move_a_split() -> None:
    small, large = (split_by_fraction(_set(count), labelled=0.5, seed=0, val=0, test=0) for count in (100, 102))
    assert len(_names(small.labelled) - _names(large.labelled)) <= 2


def test_published_subsets_are_kept() -> None:
    dataset = _set(20, subsets={"train": tuple(f"p{i}" for i in range(12)), "test": ("p15", "p19")})
    made = split_by_fraction(dataset, labelled=0.5, seed=0, val=0.25)
    assert _names(made.test) == {"p15", "p19"} and len(made.val) == 3
    assert _names(made.labelled + made.unlabelled + made.val) == {f"p{i}" for i in range(12)}


def test_pairs_without_label_are_never_labelled_nor_tested() -> None:
    made = split_by_fraction(_set(50, labelled=20), labelled=1, seed=0)
    assert all(pair.label for pair in made.labelled + made.val + made.test)
    assert {f"p{i}" for i in range(20, 50)} <= _names(made.unlabelled)


def test_crops_of_a_tile_stay_together() -> None:
    pairs = tuple(_pair(f"train_{tile}_{crop}") for tile in range(20) for crop in range(1, 17))
    made = split_by_fraction(ChangeDataset("levir_cd", pairs), labelled=0.1, seed=3)
    assert len(made.test) == 64 and len(made.val) == 32 and count_leaks(made) == 0
    windows = tuple(PairFiles(f"w{i}", Path(f"t{i // 4}"), Path("b"), Path("l"), (i % 4, 0, 1, 1)) for i in range(40))
    made = split_by_fraction(ChangeDataset("windows", windows), labelled=0.5, seed=3)
    assert len(made.test) == 8 and count_leaks(made) == 0
    sources = {f"p{i}": f"tile{i // 5}" for i in range(50)}
    made = split_by_fraction(_set(50, source_tiles=sources), labelled=0.5, seed=3)
    assert len(made.test) == 10 and count_leaks(made, source_tiles=sources) == 0


def test_shares_without_a_pair_are_refused() -> None:
    with pytest.raises(DataError, match=r"0\.05 of 14 training pairs .* less than one pair\. Give at least 0\.0714"):
        split_by_fraction(_set(20), labelled=0.05, seed=0)
    with pytest.raises(DataError, match="Add label files"):
        split_by_fraction(_set(20, labelled=0), labelled=0.5, seed=0, val=0, test=0)
    with pytest.raises(DataError, match=r"labelled = 1\.5 is not a share"):
        split_by_fraction(_set(20), labelled=1.5, seed=0)
    with pytest.raises(DataError, match="too few"):
        split_by_fraction(_set(20, source_tiles={f"p{i}": "one tile" for i in range(20)}), labelled=0.5, seed=0)
    bare = _set(20, labelled=10, subsets={"test": ("p3", "p13")})
    with pytest.raises(DataError, match=r"1 of 2 test pairs has no label file, e\.g\. 'p13'"):
        split_by_fraction(bare, labelled=0.5, seed=0)


# ------------------------------------------------------------------------------------------------ lists
def _lists(root: Path, **lists: str) -> Path:
    for name, text in lists.items():
        path = root / f"{name.replace('__', '/')}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text.replace(" ", ".png\n") + ".png\n")
    return root


def test_lists_are_read_and_picked(tmp_path: Path) -> None:
    root = _lists(tmp_path, half__labeled="p1 p2", half__unlabeled="p3", val="p4", test="p5", train="p2 p3 p1")
    names = read_published_lists(root, part="half")
    assert names == SplitNames(("p1", "p2"), ("p3",), ("p4",), ("p5",))
    made = select_split(_set(6), names)
    assert [pair.name for pair in made.labelled] == ["p1", "p2"]
    assert read_published_lists(root, part=None).labelled == ("p2", "p3", "p1")
    assert read_published_lists(root, part="100%") == read_published_lists(root, part=1.0)
    assert read_published_lists(root, part="100%") == read_published_lists(root, part=None)
    with pytest.raises(DataError, match="1 of 2 labelled pairs has no label file"):
        select_split(_set(6, labelled=2), names)
    with pytest.raises(DataError, match="list 'test' names 1 of 1"):
        select_split(_set(5), names)
    with pytest.raises(DataError, match=r"no lists for '5%'\. Known: half"):
        read_published_lists(root, part=0.05)


def test_lists_that_contradict_are_refused(tmp_path: Path) -> None:
    root = _lists(tmp_path, half__labeled="p1 p2", half__unlabeled="p3", val="p4", test="p5", train="p1 p2 p3 p9")
    with pytest.raises(DataError, match=r"differ from train\.txt in 1 name, e\.g\. 'p9'"):
        read_published_lists(root, part="half")
    (root / "train.txt").unlink()
    _lists(root, test="p5 p1")
    with pytest.raises(DataError, match=r"'labelled' and 'test' have 1 name in common, e\.g\. 'p1'"):
        read_published_lists(root, part="half")
    _lists(root, test="p5 p5")
    with pytest.raises(DataError, match="twice"):
        read_published_lists(root, part="half")
    (root / "val.txt").unlink()
    with pytest.raises(InputError, match=r"val\.txt"):
        read_published_lists(root, part="half")


@pytest.mark.skipif(not LISTS.is_dir(), reason="no published lists at ../shared/splits")
@pytest.mark.parametrize(
    ("name", "labelled", "total", "val", "test"),
    [("levir", (356, 712, 1424, 2848), 7120, 1024, 2048), ("whu", (297, 594, 1189, 2378), 5947, 743, 744)],
)
def test_published_lists(name: str, labelled: tuple[int, ...], total: int, val: int, test: int) -> None:
    inner: set[str] = set()
    for part, count in zip((0.05, "10%", 0.2, "40%"), labelled, strict=True):
        names = read_published_lists(LISTS / name, part=part)
        assert [len(side) for side in vars(names).values()] == [count, total - count, val, test]
        assert inner < set(names.labelled)
        inner = set(names.labelled)
        made = Split(*(tuple(_pair(each) for each in side) for side in vars(names).values()))
        on_test = count_leaks(Split(made.labelled, made.unlabelled, (), made.test))
        assert count_leaks(made) == 0 if name == "levir" else on_test == 715  # 96 % of WHU-CD's test patches


# ------------------------------------------------------------------------------------------------ across, leaks
def test_labels_of_one_set_and_images_of_another() -> None:
    levir, whu = (
        Split(*(tuple(_pair(f"{name}{side}{i}") for i in range(n)) for side, n in enumerate((2, 3, 4, 5))))
        for name in ("levir", "whu")
    )
    crossed = combine_splits(levir, whu)
    assert (crossed.labelled, crossed.val, crossed.test) == (levir.labelled, levir.val, levir.test)
    assert crossed.unlabelled == whu.labelled + whu.unlabelled
    with pytest.raises(DataError, match="twice"):
        combine_splits(levir, levir)


def test_leaks_are_counted_per_pair() -> None:
    def made(train: list[str], test: list[str]) -> Split:
        return Split((_pair(train[0]),), tuple(map(_pair, train[1:])), (), tuple(map(_pair, test)))

    assert count_leaks(made(["train_1_1", "train_2_5"], ["train_1_2", "train_1_9", "train_3_1", "train_22_5"])) == 2
    assert count_leaks(made(["whucd_00005", "whucd_00010"], ["whucd_00006", "whucd_00007", "whucd_00009"])) == 2
    assert count_leaks(made(["a", "b"], ["c", "d"])) == 0
    assert count_leaks(made(["a", "b"], ["c", "d"]), source_tiles={"b": "tile", "d": "tile"}) == 1


# ------------------------------------------------------------------------------------------------ on disk
def _written(tmp_path: Path) -> tuple[Path, Split]:
    root = folder_of_pairs(tmp_path / "data", [f"p{i}" for i in range(10)])
    made = split_by_fraction(folder.read_folder(root), labelled=0.5, seed=0)
    windowed = PairFiles("w", made.test[0].before, made.test[0].after, None, (1, 2, 3, 4))
    made = Split(made.labelled, (*made.unlabelled, windowed), made.val, made.test)
    write_split(tmp_path / "split.json", made, root=root, notes={"seed": 0, "labelled": 0.5})
    return tmp_path / "split.json", made


def test_split_comes_back_from_disk(tmp_path: Path) -> None:
    path, made = _written(tmp_path)
    assert read_split(path) == made
    assert str(tmp_path) not in json.dumps(json.loads(path.read_text())["labelled"])


def test_data_and_split_may_move(tmp_path: Path) -> None:
    path, made = _written(tmp_path)
    shutil.move(tmp_path / "data", tmp_path / "elsewhere")
    with pytest.raises(DataError, match=r"files do not exist, .*root"):
        read_split(path)
    moved = read_split(path, root=tmp_path / "elsewhere")
    assert [pair.name for pair in moved.labelled] == [pair.name for pair in made.labelled]
    assert all(pair.before.is_file() for pair in moved.labelled)


def test_hash_depends_on_content_alone(tmp_path: Path) -> None:
    path, made = _written(tmp_path)
    digest = json.loads(path.read_text())["sha256"]
    root = tmp_path / "data"
    assert write_split(tmp_path / "b.json", made, root=root, notes={"labelled": 0.5, "seed": 0}) == digest
    other = Split(made.labelled[::-1], made.unlabelled, made.val, made.test)
    assert write_split(tmp_path / "b.json", other, root=root, notes={"seed": 0, "labelled": 0.5}) != digest


def test_changed_and_broken_files_are_refused(tmp_path: Path) -> None:
    path, _ = _written(tmp_path)
    content = json.loads(path.read_text())
    content["test"].append(content["labelled"].pop())
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match="do not fit the hash"):
        read_split(path)
    for text, problem in (("{}", "not a split"), ("[1]", "not a split"), ("{", "not valid JSON")):
        path.write_text(text)
        with pytest.raises(InputError, match=problem):
            read_split(path)
    with pytest.raises(InputError, match="cannot be read"):
        read_split(tmp_path / "none.json")


# ------------------------------------------------------------------------------------------------ own crops
def _own_crops(pictures: int, crops: int) -> ChangeDataset:
    names = [
        f"pic{picture:02d}_{256 * row}_{256 * col}" for picture in range(pictures) for row, col in GRID_CELLS[:crops]
    ]
    return ChangeDataset("own", tuple(PairFiles(name, Path("a"), Path("b"), Path("l")) for name in names))


GRID_CELLS = [(0, 0), (0, 1), (1, 0), (1, 1)]


def test_own_crops_of_a_picture_stay_together_and_leaks_are_counted() -> None:
    dataset = _own_crops(14, 3)
    made = split_by_fraction(dataset, labelled=0.5, seed=0)
    pictures = [{find_cropped_picture(pair.name) for pair in pairs} for pairs in (made.val, made.test)]
    trained = {find_cropped_picture(pair.name) for pair in made.labelled + made.unlabelled}
    assert not trained & (pictures[0] | pictures[1]) and not pictures[0] & pictures[1]
    assert count_leaks(made) == 0 and len(made.test) == 9 and len(made.val) == 6
    mixed = Split(dataset.pairs[:20], (), dataset.pairs[20:22], dataset.pairs[39:])  # pair 20 is of pair 18's picture
    assert count_leaks(mixed) == 1
    assert count_leaks(Split(dataset.pairs[::2], (), dataset.pairs[1::2], ())) == 21


@pytest.mark.parametrize(
    ("name", "picture"),
    [
        ("PIC_0_256", "PIC"),
        ("site-a-3-12", "site-a"),
        ("2012_0_1", "2012"),
        ("a_b_0_1", "a_b"),
        ("p_1", None),
        ("r0001_c0002", None),
        ("city00000_r00000_c00256", None),
        ("17", None),
    ],
)
def test_names_of_crops_name_their_picture(name: str, picture: str | None) -> None:
    assert find_cropped_picture(name) == picture


@pytest.mark.parametrize("name", ["a" * 300, "é" * 200, "a/" * 3_000])
def test_a_split_may_name_files_that_no_system_has(name: str, tmp_path: Path) -> None:
    path, made = _written(tmp_path)
    labelled = (replace(made.labelled[0], after=tmp_path / "data" / name), *made.labelled[1:])
    write_split(path, replace(made, labelled=labelled), root=tmp_path / "data")
    with pytest.raises(DataError, match=r"1 of [0-9]+ files do not exist"):
        read_split(path)


def test_a_split_of_another_run_is_refused(tmp_path: Path) -> None:
    path, made = _written(tmp_path)
    digest = json.loads(path.read_text())["sha256"]
    assert read_split(path, sha256=digest) == made
    with pytest.raises(DataError, match=r"split\.json: is the split of another run than the run\.json beside it"):
        read_split(path, sha256="0" * 64)
