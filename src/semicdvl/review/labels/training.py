"""The training set of the labelled patches: its lists, its recipe, and the command that trains on it."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from pathlib import Path

from semicdvl.atomic_files import write_atomically
from semicdvl.data.patch_files import LABEL_VALUES_OPTION

RECIPE_FILE = "train.toml"
VAL_EVERY = 4
"""Of the patches, in their order, every so many is for validation once it is labelled."""
MIN_LABELLED_FOR_VALIDATION = 8
"""Of a folder without lists: with fewer labels none is kept for validation."""
RECIPE_TEMPLATE = """# Trains on the patches that were labelled in the review page:
#   semicdvl train {path} -o {run}
name = "reviewed"
seed = 0

[data]
root = {root}
labelled = 1.0
crop_px = {crop_px}
rot90 = true
vflip = 0.5
label_values = {label_values}
{validation}
[model]
name = "siam_light"
backbone = "efficientnet_lite0"
decoder_channels = 96

[method]
name = "supervised"
change_weight = 3.0
dice_weight = 1.0

[train]
steps = {steps}
labelled_batch = 4
unlabelled_batch = 4
optimizer = "adamw"
lr = 0.0005
head_lr_multiplier = 4
eval_every = 50
{select}"""


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


def write_recipe(root: Path, *, patch_px: int, validated: bool, own_lists: bool, steps: int = 300) -> Path:
    """Write the recipe of a training on all labels of the folder; return its path.

    Args:
        root: folder of the training set.
        patch_px: side of the smallest patch.
        validated: whether there are patches for validation; without, the last step is kept.
        own_lists: whether the folder has lists of its subsets.
        steps: length of the training.

    Raises:
        OutputError: the folder cannot be written.
    """
    fractions = "" if own_lists or validated else "val_frac = 0.0\ntest_frac = 0.0\n"
    fractions = "test_frac = 0.0\n" if validated and not own_lists else fractions
    content = RECIPE_TEMPLATE.format(
        path=shorten_path(root / RECIPE_FILE),
        run=name_run(root),
        root=json.dumps(root.as_posix()),
        crop_px=min(128, patch_px // 32 * 32 or 32),
        label_values=LABEL_VALUES_OPTION.replace("=", " = ").replace(",", ", "),
        validation=fractions,
        steps=steps,
        select="" if validated else 'select = "last"\n',
    )
    path = root / RECIPE_FILE
    with write_atomically(path) as temporary:
        temporary.write_text(content, encoding="utf-8")
    return path


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
