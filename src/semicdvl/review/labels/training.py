"""The training set of the labelled patches: its lists, its recipe, and the command that trains on it."""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from semicdvl.atomic_files import write_atomically
from semicdvl.ceg.prompts import Prompts, resolve_prompts
from semicdvl.config import read_toml
from semicdvl.data.patch_files import LABEL_VALUES_OPTION
from semicdvl.errors import ConfigError, InputError
from semicdvl.outputs.command_name import name_command
from semicdvl.raster.io.inputs import is_local_name
from semicdvl.review.folder import RunFacts
from semicdvl.review.settings import DEFAULT_PROMPTS, ServeConfig

RECIPE_FILE = "train.toml"
VAL_EVERY = 4
"""Of the patches, in their order, every so many is for validation once it is labelled."""
MAX_FEW_LABELLED = 16
"""Up to so many labelled patches correct the map without labels; a network of millions of weights needs more. A
correction has no step to choose, so that all of the few are for training."""
RECIPE_NAME = "reviewed"
RECIPE_TEMPLATE = """# Trains on what a person labelled or decided in the review page:
#   {command}
# {why}
name = "{name}"
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


def choose_prompts(facts: RunFacts | None, config: ServeConfig) -> Prompts:
    """Return what the map was asked for, unless the user names a set or the map was not made by asking.

    Raises:
        ConfigError: the named set does not exist.
    """
    if config.prompts == DEFAULT_PROMPTS and facts is not None:
        words = [
            tuple(word.strip() for word in text.split(",") if word.strip())
            for text in (facts.detector.looked_for, facts.detector.against)
        ]
        if all(words):
            with suppress(ConfigError):  # a record of somebody else may hold anything
                return Prompts(*words)
    return resolve_prompts(prompt_set=config.prompts)


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


def name_round(labels: Iterable[Path]) -> str:
    """Return a name for the labels as they are now: their number and four digits of what they hold.

    Labels that were painted anew or further ones have another name, so the next training is another run.
    """
    paths = sorted(labels)
    digest = hashlib.sha256()
    for path in paths:
        digest.update(path.name.encode() + path.read_bytes())
    return f"{len(paths)}-{digest.hexdigest()[:4]}"


def write_recipe(
    root: Path,
    *,
    labels: Sequence[Path],
    patch_px: int,
    gsd_m: float | None,
    prompts: Prompts,
    validated: bool,
    own_lists: bool,
    corrects: bool = False,
) -> Path:
    """Write the recipe of a training on all labels of the folder; return its path.

    Args:
        root: folder of the training set.
        labels: the label files. A few correct the map without labels, more train a network.
        patch_px: side of the smallest patch.
        gsd_m: metres per pixel of the patches; None: unknown.
        prompts: what the vision-language model looks for.
        validated: whether some patches are for validation; without, the last step is kept.
        own_lists: whether the folder has lists of subsets that the user made; all patches are trained on where it has
            none, but for those for validation.
        corrects: correct the map without labels, however many labels there are.

    Raises:
        OutputError: the folder cannot be written.
    """
    few = corrects or len(labels) <= MAX_FEW_LABELLED
    fractions = "" if own_lists else "test_frac = 0.0\n" if validated else "val_frac = 0.0\ntest_frac = 0.0\n"
    name = f"{RECIPE_NAME}-{name_round(labels)}"
    content = RECIPE_TEMPLATE.format(
        command=_format_training(root, name),
        name=name,
        why="The labels correct the map without labels."
        if few
        else "The labels train a network from ImageNet's weights.",
        root=json.dumps(root.as_posix()),
        label_values=LABEL_VALUES_OPTION.replace("=", " = ").replace(",", ", "),
        fractions=fractions,
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


def read_recipe_name(root: Path) -> str:
    """Return the name in the recipe of a training set; the one that older recipes have where there is none."""
    try:
        return str(read_toml(root / RECIPE_FILE).get("name", RECIPE_NAME))
    except InputError:
        return RECIPE_NAME


def _format_training(root: Path, name: str) -> str:
    recipe, run = (shlex.quote(name_from_here(root / each)) for each in (RECIPE_FILE, _name_run(name)))
    return f"{name_command()} train {recipe} -o {run}"


def _name_run(recipe_name: str) -> str:
    """Return the folder of the trained run, in that of the training set."""
    return recipe_name.replace(RECIPE_NAME, "run", 1)


def list_commands(
    root: Path, *, folder: Path, before: str | None, after: str | None, settings: Mapping[str, Any] | None = None
) -> list[str]:
    """Return the training, and, where there is a map, the detection with what it learned and its review.

    Args:
        root: folder of the training set.
        folder: of the result.
        before: image of date 1; None: there is no map.
        after: image of date 2, likewise.
        settings: of the detection that made the result: the next one reads the same images in the same way.
    """
    name = read_recipe_name(root)
    commands = [_format_training(root, name)]
    if before is not None and after is not None:
        better = shlex.quote(name_from_here(folder.parent / name_better_map(folder.name, name)))
        images = " ".join(shlex.quote(name_from_here(each)) for each in (before, after))
        options = " ".join(["", *list_detect_options(settings or {})])
        run = shlex.quote(name_from_here(root / _name_run(name)))
        commands.append(f"{name_command()} detect {images}{options} --model {run} -o {better}")
        commands.append(f"{name_command()} serve {better}")
    return commands


def name_better_map(folder: str, recipe_name: str) -> str:
    """Return the folder of the map that the training makes, named after the map that was reviewed first."""
    return f"{folder.partition('-trained-')[0]}{_name_run(recipe_name).replace('run', '-trained', 1)}"


DETECT_OPTIONS: Mapping[str, tuple[str, Any]] = {
    "bands": ("--bands", None),
    "after_bands": ("--after-bands", None),
    "grid": ("--grid", "before"),
    "gsd_m": ("--gsd", None),
    "normalise": ("--normalise", "none"),
    "alpha": ("--alpha", "auto"),
    "stretch": ("--stretch", "auto"),
    "collar": ("--collar", "auto"),
    "min_area_m2": ("--min-area-m2", None),
    "simplify_m": ("--simplify-m", 0.0),
    "align": ("--align", False),
    "allow_outside": ("--allow-outside", False),
    "regularise": ("--regularise", False),
}
"""Setting of a detection -> its option and default."""


def list_detect_options(settings: Mapping[str, Any]) -> list[str]:
    """Return the options by which a detection reads its images and draws its outlines as an earlier one did."""
    found = []
    for name, (option, usual) in DETECT_OPTIONS.items():
        value = settings.get(name, usual)
        if value is None or value == usual:
            continue
        found.append(option if value is True else f"{option} {shlex.quote(_format_value(value))}")
    return found


def _format_value(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ",".join(map(str, value))
    return str(value).removesuffix(".0") if isinstance(value, float) else str(value)


def name_from_here(image: str | Path) -> str:
    """Return a path as it is named from the present folder, where it lies below it; an address stays as it is."""
    if "://" in str(image) or not is_local_name(str(image)):
        return str(image)
    path = Path(image)
    return (path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path).as_posix()
