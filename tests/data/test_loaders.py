"""Batches: contracts, exact repetition, resuming, workers, several processes, and what is refused before training."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tests.support.dataset_files import folder_of_pairs, save

from semicdvl.data.augment import CutMixSettings, StrongAugmentation, WeakAugmentation
from semicdvl.data.loaders import TrainBatch, load_eval_batches, load_train_batches
from semicdvl.data.pairs import read_pair
from semicdvl.data.readers import folder
from semicdvl.data.samples import LoaderOptions
from semicdvl.errors import DataError, InputError, StoreError
from semicdvl.types import IGNORE, LabelledBatch, PairFiles, Split, UnlabelledBatch, VLMLabels

STILL = LoaderOptions(weak=WeakAugmentation(scale=(1, 1), hflip=0), strong=StrongAugmentation(color_p=0, blur_p=0))
"""No augmentation but the position of the crop."""


class EchoVLM:
    """A label source that gives the pair's own label back, told apart by which map it is in."""

    def read_labels(self, pair: PairFiles) -> VLMLabels:
        label_HW = read_pair(pair).label_HW
        assert label_HW is not None
        return VLMLabels(label_HW, 1 - label_HW, np.where(label_HW == 1, 1, IGNORE).astype(np.uint8))


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> Split:
    root = folder_of_pairs(tmp_path_factory.mktemp("pairs"), [f"p{i:02d}" for i in range(13)])
    pairs = folder.read_folder(root).pairs
    return Split(pairs[:4], pairs[4:], (), ())


def _batches(split: Split, **changes: object) -> list[TrainBatch]:
    settings: dict[str, object] = {
        "crop_px": 32,
        "labelled_batch": 3,
        "unlabelled_batch": 2,
        "vlm": EchoVLM(),
        "steps": 7,
        "seed": 5,
        **changes,
    }
    return list(load_train_batches(split, **settings))  # type: ignore[arg-type]


def _tensors(part: LabelledBatch | UnlabelledBatch) -> dict[str, torch.Tensor]:
    vlm = {f"vlm_{name}": value for name, value in vars(part.vlm).items()} if part.vlm else {}
    return {name: value for name, value in (vars(part) | vlm).items() if isinstance(value, torch.Tensor)}


def _same(one: TrainBatch, other: TrainBatch) -> bool:
    assert one[1] is not None and other[1] is not None
    return all(
        torch.equal(value, _tensors(theirs)[name])
        for ours, theirs in zip(one, other, strict=True)
        for name, value in _tensors(ours).items()  # type: ignore[arg-type]
    )


# ------------------------------------------------------------------------------------------------ contract
def test_batches_keep_the_contract(split: Split) -> None:
    labelled, unlabelled = _batches(split)[0]
    assert unlabelled is not None and labelled.vlm is not None and unlabelled.vlm is not None
    for part, pairs in ((labelled, 3), (unlabelled, 2)):
        for name, value in _tensors(part).items():
            if name.endswith("BCHW"):
                assert value.shape == (pairs, 3, 32, 32) and value.dtype == torch.uint8, name
                assert value.is_contiguous(memory_format=torch.channels_last)
            elif name in ("valid_BHW", "cutmix_box_BHW"):
                assert value.shape == (pairs, 32, 32) and value.dtype == torch.bool, name
            else:
                assert value.shape == (pairs, 32, 32) and value.dtype == torch.int64, name
                assert set(value.unique().tolist()) <= {0, 1, IGNORE}
    assert unlabelled.truth_BHW is not None


def test_labels_follow_their_images(split: Split) -> None:
    for labelled, unlabelled in _batches(split, steps=12):
        assert unlabelled is not None and labelled.vlm is not None and unlabelled.vlm is not None
        for truth_BHW, vlm in ((labelled.label_BHW, labelled.vlm), (unlabelled.truth_BHW, unlabelled.vlm)):
            assert truth_BHW is not None
            known = truth_BHW != IGNORE
            assert torch.equal(vlm.change_BHW, truth_BHW)
            assert torch.equal(vlm.t1_BHW[known], 1 - truth_BHW[known])
            assert torch.equal(vlm.t2_BHW == 1, truth_BHW == 1)
        assert torch.equal(unlabelled.valid_BHW, unlabelled.truth_BHW != IGNORE)
        padding = ~unlabelled.valid_BHW[:, None].expand(-1, 3, -1, -1)
        assert (unlabelled.weak_t1_BCHW[padding] == 0).all()


def test_without_augmentation_views_are_parts_of_their_files(split: Split) -> None:
    labelled, unlabelled = _batches(split, options=STILL, steps=1)[0]
    assert unlabelled is not None and unlabelled.valid_BHW.all()
    assert torch.equal(unlabelled.weak_t2_BCHW, unlabelled.strong_t2_BCHW)
    for index in range(3):
        t1_HWC = labelled.t1_BCHW[index].permute(1, 2, 0).numpy()
        t1, t2, truth_HW = read_pair(split.labelled[t1_HWC[0, 0, 0]])
        assert truth_HW is not None
        places = [
            (row, col)
            for row in range(t1.shape[0] - 31)
            for col in range(t1.shape[1] - 31)
            if np.array_equal(t1[row : row + 32, col : col + 32], t1_HWC)
        ]
        assert len(places) == 1
        row, col = places[0]
        part = slice(row, row + 32), slice(col, col + 32)
        np.testing.assert_array_equal(labelled.t2_BCHW[index].permute(1, 2, 0), t2[part])
        np.testing.assert_array_equal(labelled.label_BHW[index], truth_HW[part])


def test_dates_get_different_transforms_unless_paired(tmp_path: Path) -> None:
    same = np.random.default_rng(0).integers(0, 256, (40, 56, 3), dtype=np.uint8)
    image, label = save(tmp_path / "a.png", same), save(tmp_path / "l.png", np.full((40, 56), 255, np.uint8))
    one = Split((PairFiles("x", image, image, label),), (PairFiles("y", image, image),), (), ())
    for paired in (True, False):
        options = LoaderOptions(strong=StrongAugmentation(color_p=1, blur_p=1, paired=paired))
        parts = [part for _, part in _batches(one, vlm=None, options=options)]
        assert all(part is not None and part.truth_BHW is None for part in parts)
        alike = [torch.equal(part.strong_t1_BCHW, part.strong_t2_BCHW) for part in parts if part]
        assert all(alike) if paired else not any(alike)
        assert all(torch.equal(part.weak_t1_BCHW, part.weak_t2_BCHW) for part in parts if part)


def test_boxes_differ_between_pairs_and_can_be_off(split: Split) -> None:
    boxes = torch.cat([part.cutmix_box_BHW for _, part in _batches(split, steps=30) if part])
    assert 0.3 < boxes.flatten(1).any(1).float().mean() < 0.7
    options = LoaderOptions(cutmix=CutMixSettings(p=0))
    assert not any(part.cutmix_box_BHW.any() for _, part in _batches(split, options=options) if part)


def test_a_second_strong_view_leaves_everything_else_as_it_was(split: Split) -> None:
    for (labelled, one), (same, two) in zip(
        _batches(split), _batches(split, options=LoaderOptions(strong_views=2)), strict=True
    ):
        assert (
            one is not None
            and two is not None
            and one.second_strong_t1_BCHW is None
            and one.second_cutmix_box_BHW is None
        )
        for part, other in ((labelled, same), (one, two)):
            assert all(torch.equal(value, _tensors(other)[name]) for name, value in _tensors(part).items())
        assert two.second_strong_t1_BCHW is not None and two.second_strong_t1_BCHW.shape == two.strong_t1_BCHW.shape
        assert two.second_strong_t1_BCHW.dtype == torch.uint8 and two.second_cutmix_box_BHW is not None
    many = [two for _, two in _batches(split, steps=20, options=LoaderOptions(strong_views=2))]
    for first, second in (("strong_t1_BCHW", "second_strong_t1_BCHW"), ("cutmix_box_BHW", "second_cutmix_box_BHW")):
        alike = [torch.equal(getattr(part, first), getattr(part, second)) for part in many]
        assert sum(alike) < len(alike) / 2  # a draw of its own
    again = [two for _, two in _batches(split, steps=20, start_step=11, options=LoaderOptions(strong_views=2))]
    for part, other in zip(many[11:], again, strict=True):
        assert all(torch.equal(value, _tensors(other)[name]) for name, value in _tensors(part).items())


def test_parts_that_are_not_requested_are_left_out(split: Split) -> None:
    assert all(part is None for _, part in _batches(split, unlabelled_batch=0))
    labelled, unlabelled = _batches(split, vlm=None, options=LoaderOptions(with_truth=False))[0]
    assert unlabelled is not None
    assert labelled.vlm is None and unlabelled.vlm is None and unlabelled.truth_BHW is None
    labelled, unlabelled = _batches(split, options=LoaderOptions(vlm_for_labelled=False))[0]
    assert labelled.vlm is None and unlabelled is not None and unlabelled.vlm is not None


# ------------------------------------------------------------------------------------------------ order
def _numbers(batches: list[TrainBatch], *, labelled: bool) -> list[int]:
    """Numbers of the pairs, as `folder_of_pairs` writes them into band 0."""
    parts = [one.t1_BCHW if labelled else two.weak_t1_BCHW for one, two in batches if two]
    return [int(number) for part in parts for number in part[:, 0].amax((1, 2))]


def test_every_pair_comes_once_per_epoch(split: Split) -> None:
    batches = _batches(split, steps=12, options=STILL)
    labelled, unlabelled = _numbers(batches, labelled=True), _numbers(batches, labelled=False)
    assert Counter(labelled) == dict.fromkeys(range(4), 9)
    assert Counter(unlabelled[:18]) == dict.fromkeys(range(4, 13), 2)
    assert labelled[:4] != labelled[4:8] or labelled[:4] != labelled[8:12]  # shuffled anew
    joined = _batches(split, steps=13, options=LoaderOptions(weak=STILL.weak, unlabelled_includes_labelled=True))
    assert Counter(_numbers(joined, labelled=False)) == dict.fromkeys(range(13), 2)


def test_same_seed_same_batches_and_another_seed_others(split: Split) -> None:
    one, again, other = _batches(split), _batches(split), _batches(split, seed=6)
    assert all(_same(a, b) for a, b in zip(one, again, strict=True))
    assert not any(_same(a, b) for a, b in zip(one, other, strict=True))
    assert not any(_same(a, b) for a, b in zip(one[1:], one[:-1], strict=True))


def test_resuming_gives_the_batches_of_an_uninterrupted_run(split: Split) -> None:
    whole, rest = _batches(split), _batches(split, start_step=4)
    assert len(rest) == 3 and all(_same(a, b) for a, b in zip(whole[4:], rest, strict=True))


def test_batches_do_not_change_the_global_random_state(split: Split) -> None:
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002  the global state is what is looked at
    before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    _batches(split, steps=2)
    assert torch.equal(before[0], torch.get_rng_state())
    np.testing.assert_array_equal(before[1], np.random.get_state()[1])  # noqa: NPY002


def test_workers_change_nothing(split: Split) -> None:
    one, two = _batches(split, steps=5, start_step=1), _batches(split, steps=5, start_step=1, workers=2)
    assert len(one) == len(two) == 4 and all(_same(a, b) for a, b in zip(one, two, strict=True))


def test_two_processes_share_the_doubled_batch(split: Split) -> None:
    whole = _batches(split, labelled_batch=6, unlabelled_batch=4)
    ranks = [_batches(split, options=LoaderOptions(rank=rank, world_size=2)) for rank in range(2)]
    for (labelled, unlabelled), *parts in zip(whole, *ranks, strict=True):
        assert unlabelled is not None
        for name, value in _tensors(labelled).items():
            assert torch.equal(value, torch.cat([_tensors(part[0])[name] for part in parts])), name
        for name, value in _tensors(unlabelled).items():
            assert torch.equal(value, torch.cat([_tensors(part[1])[name] for part in parts])), name


def test_small_images_are_padded_and_large_ones_cut(tmp_path: Path) -> None:
    small = folder.read_folder(folder_of_pairs(tmp_path / "small", ["s"], size_px=(20, 28))).pairs
    large = folder.read_folder(folder_of_pairs(tmp_path / "large", ["l"], size_px=(90, 50))).pairs
    mixed = Split(small + large, large + small, (), ())
    for _, part in _batches(mixed, steps=4):
        assert part is not None
        assert sorted(part.valid_BHW.flatten(1).all(1).tolist()) == [False, True]


# ------------------------------------------------------------------------------------------------ evaluation
@pytest.mark.parametrize("workers", [0, 1])
def test_evaluation_keeps_order_size_and_pixels(tmp_path: Path, workers: int) -> None:
    one = folder.read_folder(folder_of_pairs(tmp_path / "one", ["a", "b", "c"], size_px=(20, 28))).pairs
    two = folder.read_folder(folder_of_pairs(tmp_path / "two", ["d"], size_px=(24, 28), labelled=False)).pairs
    pairs = [*one, *two]
    batches = list(load_eval_batches(pairs, batch=2, workers=workers))
    assert [tuple(batch.t1_BCHW.shape) for batch in batches] == [(2, 3, 20, 28), (1, 3, 20, 28), (1, 3, 24, 28)]
    read = [arrays for batch in batches for arrays in zip(batch.t1_BCHW, batch.t2_BCHW, batch.label_BHW, strict=True)]
    for pair, (t1_CHW, t2_CHW, label_HW) in zip(pairs, read, strict=True):
        wanted = read_pair(pair)
        np.testing.assert_array_equal(t1_CHW.permute(1, 2, 0), wanted.t1_HWC)
        np.testing.assert_array_equal(t2_CHW.permute(1, 2, 0), wanted.t2_HWC)
        np.testing.assert_array_equal(label_HW, IGNORE if wanted.label_HW is None else wanted.label_HW)


# ------------------------------------------------------------------------------------------------ bad input
def test_bad_lists_are_refused_at_once(split: Split, tmp_path: Path) -> None:
    def start(made: Split, **changes: object) -> None:
        settings: dict[str, object] = {"crop_px": 32, "labelled_batch": 1, "unlabelled_batch": 1, "steps": 1, "seed": 0}
        load_train_batches(made, vlm=None, **(settings | changes))  # type: ignore[arg-type]  # not even iterated

    good = split.labelled[0]
    with pytest.raises(DataError, match="no labelled pair"):
        start(Split((), split.unlabelled, (), ()))
    with pytest.raises(DataError, match="no unlabelled pair"):
        start(Split(split.labelled, (), (), ()))
    start(Split(split.labelled, (), (), ()), unlabelled_batch=0)
    with pytest.raises(DataError, match="1 labelled pair has no label file"):
        start(Split((PairFiles("x", good.before, good.after),), split.unlabelled, (), ()))
    with pytest.raises(InputError, match=r"gone\.png: does not exist"):
        start(Split((good, PairFiles("x", tmp_path / "gone.png", good.after, good.label)), split.unlabelled, (), ()))
    odd = save(tmp_path / "odd.png", np.full((40, 56), 7, np.uint8))
    with pytest.raises(InputError, match=r"odd\.png.*\{7\}"):
        start(Split((good, PairFiles("x", good.before, good.after, odd)), split.unlabelled, (), ()))
    small = save(tmp_path / "small.png", np.zeros((4, 5, 3), np.uint8))
    with pytest.raises(InputError, match=r"small\.png is|small\.png: is"):
        start(Split(split.labelled, (PairFiles("x", good.before, small),), (), ()))


class WrongVLM:
    """Labels of another size than the images."""

    def read_labels(self, pair: PairFiles) -> VLMLabels:
        return VLMLabels(*(np.zeros((4, 5), np.uint8) for _ in range(3)))


@pytest.mark.parametrize("workers", [0, 1])
def test_errors_of_workers_are_raised_unchanged(split: Split, tmp_path: Path, workers: int) -> None:
    with pytest.raises(StoreError, match=r"p\d\d: the VLM's labels are"):
        _batches(split, vlm=WrongVLM(), workers=workers)
    broken = tmp_path / "broken.png"
    broken.write_bytes(split.labelled[0].before.read_bytes()[:2000])  # the header is whole, the rest is not
    pair = PairFiles("x", broken, broken)
    with pytest.raises(InputError, match=r"broken\.png: is damaged") as caught:
        _batches(Split(split.labelled, (pair,), (), ()), vlm=None, workers=workers)
    assert caught.value.path == str(broken) and "remove the pair" in caught.value.remedy


# ------------------------------------------------------------------------------------------------ transparent ground
def test_transparent_ground_of_patches_is_ignored(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for folder_name in ("A", "B"):
        (tmp_path / folder_name).mkdir()
    for name in ("one", "two"):
        for folder_name in ("A", "B"):
            image = rng.integers(0, 256, (32, 32, 4), dtype=np.uint8)
            image[..., 3] = 255
            if folder_name == "B":
                image[:, :12, 3] = 0  # the second date shows nothing there
            Image.fromarray(image).save(tmp_path / folder_name / f"{name}.png")
    (tmp_path / "label").mkdir()
    Image.fromarray(np.full((32, 32), 255, np.uint8)).save(tmp_path / "label" / "one.png")
    pairs = folder.read_folder(tmp_path).pairs
    labelled = tuple(pair for pair in pairs if pair.has_label)
    batches = load_train_batches(
        Split(labelled, pairs, (), ()), crop_px=32, labelled_batch=1, unlabelled_batch=2, vlm=ConstantVLM(), steps=1,
        seed=0, options=STILL,
    )  # fmt: skip
    of_labelled, unlabelled = next(iter(batches))
    assert unlabelled is not None and unlabelled.vlm is not None and of_labelled.vlm is not None
    hidden_BHW = (torch.arange(32) < 12).expand(1, 32, 32)
    for known_BHW in (of_labelled.label_BHW, *vars(of_labelled.vlm).values()):
        assert torch.equal(known_BHW == IGNORE, hidden_BHW)
    wanted_W = torch.arange(32) >= 12
    assert torch.equal(unlabelled.valid_BHW, wanted_W.expand(2, 32, 32))
    assert torch.equal(unlabelled.vlm.change_BHW == IGNORE, ~wanted_W.expand(2, 32, 32))


class ConstantVLM:
    """A label source that calls everything changed."""

    def read_labels(self, pair: PairFiles) -> VLMLabels:
        ones_HW = np.ones((32, 32), np.uint8)
        return VLMLabels(ones_HW, ones_HW, ones_HW)
