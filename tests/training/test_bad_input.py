"""Training on what cannot be trained on: through the command line, each one clear error and nothing half-written."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tests.support.command import command
from tests.support.dataset_files import folder_of_pairs, save

from semicdvl.checkpoint import load_weights

NAMES = [f"p{number}" for number in range(10)]
RECIPE = """
name = "tiny"
[data]
root = "{root}/data"
labelled = 0.5
crop_px = 32
[model]
name = "siam_light"
backbone = "test_resnet"
pretrained = "none"
decoder_channels = 8
[method]
name = "supervised"
[train]
steps = 6
eval_every = 2
labelled_batch = 2
unlabelled_batch = 2
device = "cpu"
"""
Refused = Callable[..., str]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Ten pairs and a recipe."""
    folder_of_pairs(tmp_path / "data", NAMES)
    (tmp_path / "recipe.toml").write_text(RECIPE.format(root=tmp_path.as_posix()))
    return tmp_path


@pytest.fixture
def refused(root: Path, capsys: pytest.CaptureFixture[str]) -> Refused:
    """Train with some changes; the error's text, which must be all that comes of it."""

    def run(*changes: str) -> str:
        options = [part for change in changes for part in ("--set", change)]
        code, text, complaint = command(capsys, "train", root / "recipe.toml", "-o", root / "run", *options)
        assert code == 2, text + complaint
        assert complaint.count("error:") == 1 and "Traceback" not in complaint
        assert not (root / "run").exists()
        return complaint

    return run


def _lists(root: Path, **lists: list[str]) -> str:
    """Write published lists and return the setting that takes them."""
    sides: dict[str, list[str]] = {"labeled": NAMES[:2], "unlabeled": NAMES[2:6], "val": NAMES[6:8], "test": NAMES[8:]}
    for name, names in (sides | lists).items():
        path = root / "lists" / ("5%" if "labeled" in name else "") / f"{name}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"{each}.png\n" for each in names))
    return f"data.labelled={root.as_posix()}/lists/5%"


def _everywhere(root: Path, part: str, change: Callable[[np.ndarray], np.ndarray]) -> None:
    """Change all pictures of a part, so that it matters not which ones are drawn."""
    for path in (root / "data" / part).iterdir():
        with Image.open(path) as picture:
            array = np.array(picture)
        save(path, change(array))


# ------------------------------------------------------------------------------------------------ lists and files
def test_a_list_that_names_a_pair_without_files(root: Path, refused: Refused) -> None:
    text = refused(_lists(root, labeled=["p0", "p1", "p77"]))
    assert "p77" in text and "labelled" in text and "1 of 3 pairs" in text


@pytest.mark.parametrize("part", ["A", "B"])
def test_a_labelled_pair_that_lacks_an_image(root: Path, refused: Refused, part: str) -> None:
    setting = _lists(root)
    (root / "data" / part / "p1.png").unlink()
    assert "p1" in refused(setting)


def test_a_labelled_pair_without_its_label(root: Path, refused: Refused) -> None:
    setting = _lists(root)
    (root / "data" / "label" / "p1.png").unlink()
    text = refused(setting)
    assert "p1" in text and "no label file" in text


def test_a_split_whose_files_are_missing(root: Path, refused: Refused, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(capsys, "train", root / "recipe.toml", "-o", root / "first", "--set", "steps=1")[0] == 0
    shutil.rmtree(root / "data" / "B")
    assert "10 of 30 files do not exist" in refused(f"data.split={root.as_posix()}/first/split.json")


# ------------------------------------------------------------------------------------------------ masks and sizes
def test_masks_with_other_values(root: Path, refused: Refused) -> None:
    _everywhere(root, "label", lambda label_HW: np.where(label_HW > 0, 128, 7).astype(np.uint8))
    text = refused()
    assert "{7, 128}" in text and "label_values" in text and ".png" in text


@pytest.mark.parametrize("part", ["B", "label"])
def test_sizes_that_differ(root: Path, refused: Refused, part: str) -> None:
    _everywhere(root, part, lambda array: array[:-3])
    text = refused()
    assert "37 x 56 px" in text and "40 x 56 px" in text


@pytest.mark.parametrize("name", ["p7", "p9"])
def test_pairs_that_are_only_scored_are_checked_before_training(root: Path, refused: Refused, name: str) -> None:
    """p7 is a validation pair, p9 a test pair: the first would be read after many steps, the other after all."""
    setting = _lists(root)
    label = root / "data" / "label" / f"{name}.png"
    right_HW = np.array(Image.open(label))
    save(label, right_HW // 2)
    text = refused(setting)
    assert f"{name}.png" in text and "{0, 127}" in text
    save(label, right_HW)
    save(root / "data" / "B" / f"{name}.png", np.zeros((30, 56, 3), np.uint8))
    assert "30 x 56 px" in refused(setting)


def test_pairs_that_are_only_scored_need_no_change(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    setting = _lists(root)
    for name in NAMES[6:]:
        save(root / "data" / "label" / f"{name}.png", np.zeros((40, 56), np.uint8))
    options = ("--set", setting, "--set", "steps=1")
    assert command(capsys, "train", root / "recipe.toml", "-o", root / "run", *options)[0] == 0


def test_no_pixel_with_a_label(root: Path, refused: Refused) -> None:
    text = refused("data.label_values={0 = 255, 255 = 255}")
    assert "None of the labelled pairs (3) has a labelled pixel" in text


def test_no_changed_pixel(root: Path, refused: Refused) -> None:
    _everywhere(root, "label", np.zeros_like)
    assert "None of the labelled pairs (3) has a changed pixel" in refused()


def test_a_fraction_of_less_than_a_pair(root: Path, refused: Refused) -> None:
    text = refused("labelled=0.05")
    assert "0.05 of 6 training pairs with a label is less than one pair. Give at least 0.1667" in text


def test_nothing_to_select_with(root: Path, refused: Refused) -> None:
    assert "no val pair" in refused("val_frac=0.0")
    assert "no test pair" in refused("test_frac=0.0", "select=test")


# ------------------------------------------------------------------------------------------------ stores and models
def _store(root: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """Make a store of a data set's labels and return the setting that takes it."""
    words = ["--vlm", "fake", "--find", "building", "--background", "grass"]
    code, text, complaint = command(capsys, "pseudo", data, "-o", root / "store", *words)
    assert code == 0, text + complaint
    return f"pseudo.store={root.as_posix()}/store"


def test_a_store_of_other_images(root: Path, refused: Refused, capsys: pytest.CaptureFixture[str]) -> None:
    other = folder_of_pairs(root / "other", ["q1", "q2"], size_px=(40, 48))
    setting = _store(root, other, capsys)
    text = refused(setting, "method.name=semicd_vl")
    assert "no labels for 6 of 6 training pairs" in text and "semicdvl pseudo" in text


def test_a_store_of_images_that_were_changed_since(
    root: Path, refused: Refused, capsys: pytest.CaptureFixture[str]
) -> None:
    setting = _store(root, root / "data", capsys)
    _everywhere(root, "A", lambda image_HWC: image_HWC[::-1])
    assert "no labels for 6 of 6 training pairs" in refused(setting, "method.name=semicd_vl")


def test_no_store_and_a_folder_that_is_no_store(root: Path, refused: Refused) -> None:
    assert "is a data set, not a pseudo-label store" in refused(
        f"pseudo.store={root.as_posix()}/data", "method.name=semicd_vl"
    )
    assert "add pseudo.store" in refused("method.name=semicd_vl")


def test_weights_of_another_network_to_start_from(root: Path, refused: Refused) -> None:
    torch.save({"conv1.weight": torch.zeros(1)}, root / "other.pth")
    text = refused(f"model.pretrained={root.as_posix()}/other.pth")
    assert "other.pth" in text and "tensors are missing or of another shape" in text


def test_a_method_that_the_network_has_no_heads_for(root: Path, refused: Refused) -> None:
    text = refused("method.name=semicd_vl", "model.train_heads=false", f"pseudo.store={root.as_posix()}/store")
    assert "no pseudo-label store here" in text  # first things first
    assert "features" in refused("method.name=semicd_vl", "model.train_heads=false", "method.vlm_guidance=false")


def test_a_missing_head_is_refused_with_the_networks_that_have_it(root: Path, refused: Refused) -> None:
    assert "Take model 'stanet'" in refused("method.contrastive_weight=1")
    assert "Take model 'cct' or 'changeformer'" in refused("method.name=semicd")
    text = refused("method.name=unimatch", "model.train_heads=false")
    assert "lacks. Take model 'siam_light' as it is by default, 'deeplab'" in text
    recipe = RECIPE.format(root=root.as_posix()).split("[model]")[0] + '[model]\nname = "fc_ef"\n[method]\n'
    (root / "recipe.toml").write_text(recipe + 'name = "unimatch"\n[train]\nsteps = 2\ndevice = "cpu"\n')
    text = refused()
    assert "method 'unimatch' needs the heads perturbed, which model 'fc_ef' lacks" in text
    assert "'psp'" in text and "'snunet'" not in text
    assert "method.perturbed_weight = 0" in text


def test_a_mean_teacher_without_an_average(refused: Refused) -> None:
    assert "Set train.ema = 0.99" in refused("method.name=mean_teacher")


@pytest.mark.parametrize("how", ["detect", "evaluate"])
def test_a_run_whose_weights_are_of_another_model(root: Path, capsys: pytest.CaptureFixture[str], how: str) -> None:
    for name, width in (("one", 8), ("two", 12)):
        change = ("--set", f"decoder_channels={width}", "--set", "steps=1")
        assert command(capsys, "train", root / "recipe.toml", "-o", root / name, *change)[0] == 0
    shutil.copy(root / "two" / "model.safetensors", root / "one" / "model.safetensors")
    image = root / "data" / "A" / "p0.png"
    rest: dict[str, list[Any]] = {
        "detect": [image, image, "-o", root / "out", "--model", root / "one"],
        "evaluate": [root / "one", root / "data"],
    }
    code, _, complaint = command(capsys, how, *rest[how])
    assert code == 2 and "weights of another model" in complaint and "tensors don't fit" in complaint
    assert not (root / "out").exists()


# ------------------------------------------------------------------------------------------------ not a number
def test_a_nan_loss_names_the_step_and_keeps_the_last_good_weights(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Steps 2 and 4 are validated and kept; step 5 breaks."""
    change = ("--set", "method.name=tests.support.plain_network:BreaksAt", "--set", "method.step_number=5")
    code, _, complaint = command(capsys, "train", root / "recipe.toml", "-o", root / "run", *change)
    assert code == 2 and "Traceback" not in complaint
    assert "not a number at step 5 (broken)" in complaint and "train.lr" in complaint
    found = [path for path in (root / "run").rglob("*.safetensors") if path.name == "model.safetensors"]
    assert {path.parent.name for path in found} == {"run", "00000004"}
    for path in found:
        assert all(value.isfinite().all() for value in load_weights(path).values())
    assert json.loads((root / "run" / "run.json").read_text())["status"] == "started"
    assert command(capsys, "evaluate", root / "run", root / "data")[0] == 0  # the best weights so far can be used


def test_a_far_too_high_learning_rate(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, complaint = command(capsys, "train", root / "recipe.toml", "-o", root / "run", "--set", "lr=1e30")
    assert code == 2 and "is not a number at step" in complaint and "Traceback" not in complaint
    for path in (root / "run").rglob("*.safetensors"):
        assert all(value.isfinite().all() for value in load_weights(path).values())


def test_inverted_masks_are_remarked_and_the_remedy_works(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _everywhere(root, "label", lambda mask_HW: 255 - mask_HW)
    remark = "of their pixels changed. If white means unchanged"
    code, _, said = command(capsys, "train", root / "recipe.toml", "-o", root / "inverted", "--set", "train.steps=2")
    assert code == 0 and said.count(remark) == 1
    right = ("--set", "data.label_values=0=changed,255=unchanged")
    code, _, said = command(capsys, "train", root / "recipe.toml", "-o", root / "run", "--set", "train.steps=2", *right)
    assert code == 0 and remark not in said
