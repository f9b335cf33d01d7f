"""The training set of the labelled patches: its lists, its recipe, and the command that trains on it."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from pathlib import Path

from semicdvl.atomic_files import write_atomically
from semicdvl.ceg.prompts import Prompts
from semicdvl.data.patch_files import LABEL_VALUES_OPTION

RECIPE_FILE = "train.toml"
VAL_EVERY = 4
"""Of the patches, in their order, every so many is for validation once it is labelled."""
MIN_LABELLED_FOR_VALIDATION = 8
"""Of a folder without lists: with fewer labels none is kept for validation."""
MAX_FEW_LABELLED = 16
"""Up to so many labelled patches correct the map without labels; a network of millions of weights needs more."""
RECIPE_TEMPLATE = """# Trains on the patches that were labelled in the review page:
#   semicdvl train {path} -o {run}
# {why}
name = "reviewed"
seed = 0

[data]
root = {root}
labelled = 1.0
label_values = {label_values}
{fractions}{parts}{select}"""
CORRECTION = """
[model]
name = "vlm_prior"
find = {find}
background = {background}
{gsd}
[method]
name = "supervised"
change_weight = 1.2

[train]
optimizer = "lbfgs"
steps = 100
weight_decay = {weight_decay}
"""
WEIGHT_DECAY = 0.004
"""Of the correction: four times that of `recipes/few-labels-supervised.toml`, since a reviewer begins with few patches
and a map that is worse than before would be a bad reward."""
NETWORK = """crop_px = {crop_px}
rot90 = true
vflip = 0.5

[model]
name = "siam_light"
backbone = "efficientnet_lite0"
decoder_channels = 96

[method]
name = "supervised"
change_weight = 3.0
dice_weight = 1.0

[train]
steps = 300
labelled_batch = 4
unlabelled_batch = 4
optimizer = "adamw"
lr = 0.0005
head_lr_multiplier = 4
eval_every = 50
"""


def split_for_validation(names: Sequence[str], labelled: set[str]) -> tuple[list[str], list[str]]:
    """Return the labelled patches of training and of validation; a patch never changes sides.

    Args:
        names: all patches in their order.
        labelled: those that have a label.
    """
    done = [(at, name) for at, name in enumerate(names) if name in labelled]
    train = [name for at, name in done if at % VAL_EVERY != VAL_EVERY - 1]
    val = [name for at, name in done if at % VAL_EVERY == VAL_EVERY - 1]
    return (train, val) if train else (val, [])


def write_lists(root: Path, train: Sequence[str], val: Sequence[str]) -> None:
    """Write the names of both subsets; a subset without patches has no list.

    Raises:
        OutputError: the folder cannot be written.
    """
    for subset, names in (("train", train), ("val", val)):
        path = root / "list" / f"{subset}.txt"
        if names:
            with write_atomically(path) as temporary:
                temporary.write_text("".join(f"{name}.png\n" for name in names), encoding="utf-8")
        else:
            path.unlink(missing_ok=True)


def write_recipe(
    root: Path,
    *,
    labelled: int,
    patch_px: int,
    gsd_m: float | None,
    prompts: Prompts,
    validated: bool,
    own_lists: bool,
) -> Path:
    """Write the recipe of a training on all labels of the folder; return its path.

    Args:
        root: folder of the training set.
        labelled: number of labelled patches. A few correct the map without labels, more train a network.
        patch_px: side of the smallest patch.
        gsd_m: metres per pixel of the patches; None: unknown.
        prompts: what the vision-language model looks for.
        validated: whether there are patches for validation; without, the last step is kept.
        own_lists: whether the folder has lists of its subsets.

    Raises:
        OutputError: the folder cannot be written.
    """
    few = labelled <= MAX_FEW_LABELLED
    fractions = "" if own_lists or validated else "val_frac = 0.0\ntest_frac = 0.0\n"
    content = RECIPE_TEMPLATE.format(
        path=shorten_path(root / RECIPE_FILE),
        run=name_run(root),
        why=f"With at most {MAX_FEW_LABELLED} patches the labels correct the map without labels."
        if few
        else f"With more than {MAX_FEW_LABELLED} patches the labels train a network from ImageNet's weights.",
        root=json.dumps(root.as_posix()),
        label_values=LABEL_VALUES_OPTION.replace("=", " = ").replace(",", ", "),
        fractions="test_frac = 0.0\n" if validated and not own_lists else fractions,
        parts=_describe_correction(prompts, gsd_m)
        if few
        else NETWORK.format(crop_px=min(128, patch_px // 32 * 32 or 32)),
        select='select = "last"\n' if few or not validated else "",
    )
    path = root / RECIPE_FILE
    with write_atomically(path) as temporary:
        temporary.write_text(content, encoding="utf-8")
    return path


def _describe_correction(prompts: Prompts, gsd_m: float | None) -> str:
    return CORRECTION.format(
        find=json.dumps(list(prompts.find), ensure_ascii=False),
        background=json.dumps(list(prompts.background), ensure_ascii=False),
        gsd="" if gsd_m is None else f"gsd_m = {gsd_m:.6g}\n",
        weight_decay=WEIGHT_DECAY,
    )


def name_run(root: Path) -> str:
    """Return the folder of the trained run, in that of the training set."""
    return shorten_path(root / "run")


def list_commands(root: Path, *, folder: Path, before: str | None, after: str | None) -> list[str]:
    """Return the training, and, where there is a map, the detection with what it learned."""
    run = shlex.quote(name_run(root))
    commands = [f"semicdvl train {shlex.quote(shorten_path(root / RECIPE_FILE))} -o {run}"]
    if before is not None and after is not None:
        better = shlex.quote(shorten_path(folder.parent / f"{folder.name}-trained"))
        images = " ".join(shlex.quote(shorten_path(Path(each))) for each in (before, after))
        commands.append(f"semicdvl detect {images} --model {run} -o {better}")
    return commands


def shorten_path(path: Path) -> str:
    """Return a path as it is named from the present folder, where it lies below it."""
    return (path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path).as_posix()
