"""Published data sets are cut into patches by their usual names, and their lists are verified."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console
from tests.support.command import command
from tests.support.dataset_files import folder_of_pairs, save
from tests.support.paths import SHARED

from semicdvl.data.images.reading import read_rgb
from semicdvl.data.name_lists import read_name_list
from semicdvl.data.prepare.published import cut_published, verify_lists
from semicdvl.data.publication import find_publication
from semicdvl.errors import DataError, InputError

QUIET = Console(quiet=True)
LISTS = SHARED / "splits"


def tiles(root: Path, size_px: int = 512) -> Path:
    """Write a LEVIR-CD with one tile per subset."""
    for number, side in enumerate(("train", "val", "test")):
        folder_of_pairs(root / side, [f"{side}_{number + 7}"], size_px=(size_px, size_px))
    return root


def lists(root: Path, **sides: list[str]) -> Path:
    for name, names in sides.items():
        path = root / name.replace("__", "/").replace("5", "5%")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.with_suffix(".txt").write_bytes("".join(f"{each}.png\r\n" for each in names).encode())
    return root


def test_levir_cd_is_cut_by_its_usual_names(tmp_path: Path) -> None:
    root = tiles(tmp_path / "LEVIR")
    own = {side: [f"{side}_{n}_{i}" for i in (3, 1, 2, 4)] for side, n in (("train", 7), ("val", 8), ("test", 9))}
    below = lists(tmp_path / "lists", **own, **{"5__labeled": own["train"][:1], "5__unlabeled": own["train"][1:]})
    found = cut_published("levir_cd", root, lists=below, console=QUIET)
    assert found.root == tmp_path / "LEVIR-256" and found.written == 12
    whole_HWC = read_rgb(root / "train" / "A" / "train_7.png")
    np.testing.assert_array_equal(read_rgb(found.root / "A" / "train_7_2.png"), whole_HWC[:256, 256:])
    np.testing.assert_array_equal(read_rgb(found.root / "A" / "train_7_3.png"), whole_HWC[256:, :256])
    label_HW = np.asarray(Image.open(found.root / "label" / "train_7_1.png"))
    assert set(np.unique(label_HW)) == {0, 255} and label_HW[6, 10] == 255
    copied = found.root / "list" / "5%" / "labeled.txt"
    assert copied.read_bytes() == (below / "5%" / "labeled.txt").read_bytes()
    assert [(fact.name, fact.count, fact.is_published) for fact in found.lists][-1] == ("5%/unlabeled", 3, False)
    assert found.leak_counts == {"val": 0, "test": 0} and "not the published list" in found.summary
    copied.parent.parent.joinpath("odd.txt").touch()
    (found.root / "A" / "train_7_2.png").unlink()
    assert cut_published("levir_cd", root, lists=below, console=QUIET).written == 1  # only what is missing
    checked = cut_published("levir_cd", found.root, console=QUIET)
    assert checked.written == 0 and checked.root == found.root and "recipes/levir-05" in checked.summary


def test_without_lists_subsets_follow_the_tiles(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, printed, _ = command(capsys, "prepare", "levir-cd", tiles(tmp_path / "LEVIR"))
    assert code == 0 and "train 4, val 4, test 4" in printed and "12 new" in printed
    assert read_name_list(tmp_path / "LEVIR-256" / "list" / "val.txt") == tuple(f"val_8_{i}" for i in (1, 2, 3, 4))
    code, printed, _ = command(capsys, "prepare", "levir-cd", tmp_path / "LEVIR-256", "--verify")
    assert code == 0 and "12 patches" in printed and "0 new" in printed


def test_contradicting_lists_are_refused(tmp_path: Path) -> None:
    names = [f"whucd_{i:05d}" for i in (1, 2, 3, 4)]
    root = folder_of_pairs(tmp_path / "WHU", names)
    good = {"train": names[:2], "val": names[2:3], "test": names[3:]}
    cases = {
        r"train\.txt names 1 of 3 pairs that have no files": {**good, "train": [*names[:2], "whucd_00009"]},
        "in common": {**good, "test": names[2:]},
        "twice": {**good, "train": [names[0], names[0]]},
        r"differ from train\.txt": {**good, "5__labeled": names[:1], "5__unlabeled": ["whucd_00007"]},
    }
    for number, (problem, sides) in enumerate(cases.items()):
        with pytest.raises(DataError, match=problem):
            cut_published("whu_cd", root, lists=lists(tmp_path / str(number), **sides), console=QUIET)
    with pytest.raises(InputError, match=r"test\.txt"):
        cut_published("whu_cd", root, lists=lists(tmp_path / "x", train=names[:2], val=names[2:3]), console=QUIET)
    found = cut_published("whu_cd", root, lists=lists(tmp_path / "good", **good), console=QUIET)
    assert found.leak_counts == {"val": 1, "test": 0}  # 3 is beside 2, 4 beside 3 only
    (root / "label" / "whucd_00001.png").write_bytes(b"no picture")
    with pytest.raises(InputError, match=r"whucd_00001\.png.*not an image"):
        cut_published("whu_cd", root, console=QUIET)


def test_whu_cd_mosaics_are_cut_row_by_row(tmp_path: Path) -> None:
    root = tmp_path / "WHU"
    rng = np.random.default_rng(0)
    for name, shape in (("before/before", (530, 800, 3)), ("after/after", (530, 800, 3)), ("change_label", (530, 800))):
        image = rng.integers(0, 256, shape, dtype=np.uint8)
        save(root / f"{name}.tif", image if len(shape) == 3 else (image > 200).astype(np.uint8) * 255)
    found = cut_published("whu_cd", root, tmp_path / "OUT", console=QUIET)
    assert [pair.name for pair in found.dataset.pairs] == [f"whucd_{i:05d}" for i in range(1, 7)]
    whole_HWC = read_rgb(root / "after" / "after.tif")
    np.testing.assert_array_equal(read_rgb(tmp_path / "OUT" / "B" / "whucd_00005.png"), whole_HWC[256:512, 256:512])
    assert any("row by row" in note for note in found.notes)
    save(root / "after" / "after2.tif", whole_HWC)
    with pytest.raises(InputError, match="2 mosaics that could be 'after'"):
        cut_published("whu_cd", root, console=QUIET)


@pytest.mark.skipif(not LISTS.is_dir(), reason="no published lists at ../shared/splits")
@pytest.mark.parametrize("name", ["levir", "whu"])
def test_published_lists_are_known_by_their_hash(name: str) -> None:
    from semicdvl.data.change_dataset import ChangeDataset
    from semicdvl.types import PairFiles

    names = [each for side in ("train", "val", "test") for each in read_name_list(LISTS / name / f"{side}.txt")]
    pairs = tuple(PairFiles(each, Path(each), Path(each), Path(each)) for each in names)
    facts = verify_lists(ChangeDataset(f"{name}_cd", pairs), LISTS / name)
    assert len(facts) == 11 == len(find_publication(f"{name}_cd").lists) and all(fact.is_published for fact in facts)
