"""A recipe -> the parts of a training: method, data set, split, pseudo-label store, loader options."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from semicdvl.ceg.prompts import build_class_prompts
from semicdvl.config import DataConfig, Recipe
from semicdvl.data import DATASETS
from semicdvl.data.augment import StrongAugmentation, WeakAugmentation
from semicdvl.data.change_dataset import ChangeDataset
from semicdvl.data.samples import LoaderOptions
from semicdvl.data.shared_ground import group_pairs
from semicdvl.data.split_file import read_split
from semicdvl.data.splits import combine_splits, read_published_lists, select_split, split_by_fraction
from semicdvl.errors import ConfigError, DataError, InputError, StoreError
from semicdvl.methods import create_method
from semicdvl.methods.common.guidance import VLMGuidance
from semicdvl.pseudo_labels.published_png import PublishedLabels
from semicdvl.pseudo_labels.store import PseudoLabelStore
from semicdvl.reading.regular_files import exists, is_file
from semicdvl.registry import build_part
from semicdvl.training.distributed import ProcessGroup
from semicdvl.types import Method, PairFiles, Split, VLMLabels, VLMLabelSource


def build_method(recipe: Recipe) -> Method:
    """Build the method of a recipe."""
    return create_method(recipe.method.name, **recipe.method.options)


def teach_classes(recipe: Recipe, method: Method, split: Split) -> Method:
    """Return the method with the semantic term where the recipe names classes and labelled pairs have them.

    Its weight is 1, or `method.semantic_weight`. Where no labelled pair has them, a VLM's labels must teach them, which
    `open_label_source` checks.

    Raises:
        ConfigError: there is a weight without classes, the method has no such term, or the data names other classes.
        DataError: nothing teaches the classes that the recipe names.
    """
    weight = method.semantic_weight
    if recipe.classes is None:
        if weight:
            raise ConfigError("method.semantic_weight is set, but the recipe names no classes. Add [classes] names.")
        return method
    if weight is None:
        raise ConfigError(
            f"the recipe names classes, which method '{recipe.method.name}' cannot learn. Leave [classes] out, or take "
            "supervised, fixmatch, semicd_vl, unimatch, unimatch_v2 or a guided one."
        )
    names = recipe.classes.names
    known = [pair for pair in split.labelled if pair.classes is not None]
    for pair in known:
        assert pair.classes is not None
        if pair.classes.legend.names != names:
            raise ConfigError(
                f"the recipe names the classes {', '.join(names)}, but the labels of '{pair.name}' have the classes "
                f"{', '.join(pair.classes.legend.names)}. Name the same ones in the same order."
            )
    if not known and (weight or not method.learns_vlm_classes):
        raise DataError(
            f"{recipe.data.root}: the recipe names classes, but no labelled pair has a label of either date. Add"
            " label_A, label_B and classes.toml, or leave [classes] out of the recipe."
        )
    if not known or "semantic_weight" in recipe.method.options:
        return method
    taught: Method = replace(method, semantic_weight=1.0)  # type: ignore[type-var]
    return taught


def _check_vlm_classes(recipe: Recipe, store: PseudoLabelStore) -> None:
    """Refuse a store whose labels of either date are not of the recipe's classes.

    Raises:
        ConfigError: they are not, or they were made with other prompts.
    """
    wanted, made = recipe.classes, store.spec.classes
    remedy = "Make them with `semicdvl pseudo --classes RECIPE`, or set method.decoupled = false: the VLM then teaches"
    remedy += " change alone."
    if made is None:
        if wanted is not None and len(wanted.names) != 2:
            raise ConfigError(
                f"{store.root}: the VLM's labels of the dates are foreground and background, and the recipe names"
                f" {len(wanted.names)} classes. {remedy}"
            )
        return
    if wanted is None:
        raise ConfigError(
            f"{store.root}: the VLM's labels are of the classes {', '.join(made.names)}, and the recipe names none. Add"
            f" [classes] names = {json.dumps(made.names)}, or set method.decoupled = false."
        )
    if wanted.names != made.names:
        raise ConfigError(
            f"{store.root}: the VLM's labels are of the classes {', '.join(made.names)}, but the recipe names "
            f"{', '.join(wanted.names)}. {remedy}"
        )
    if wanted.prompts is not None and build_class_prompts(wanted.names, wanted.prompts, wanted.changing) != made:
        raise ConfigError(
            f"{store.root}: was made with other prompts, or another `changing`, than the recipe's. {remedy}"
        )


def weigh_guidance(method: Method, split: Split) -> Method:
    """Return the method with its guidance weighted by the number of labelled pairs, where its settings ask for that."""
    return method.weigh_by_labels(len(split.labelled)) if isinstance(method, VLMGuidance) else method


def read_dataset(config: DataConfig, root: Path) -> ChangeDataset:
    """Read the data set at `root` with the recipe's reader, and group its pairs as the recipe says."""
    dataset: ChangeDataset = build_part("data set", config.dataset, DATASETS, {"root": root, **config.options})
    return group_pairs(dataset, root, config.group)


def make_split(config: DataConfig, *, select: str = "val") -> Split:
    """Return the split that the recipe describes: a written one, published lists, or by fraction and seed.

    Args:
        config: the recipe's section.
        select: the pairs that select the best step, which must not be empty; "last": none do.

    Raises:
        DataError: the recipe needs labelled pairs, or pairs to select with, and the split has none.
    """
    if config.split is not None:
        split = read_split(config.split)
    else:
        split = _split_dataset(config, config.root)
        if config.unlabelled is not None:
            # published lists are of one data set; of the other one all training pairs are taken
            other = config.model_copy(update={"labelled": 1.0})
            split = combine_splits(split, _split_dataset(other, config.unlabelled))
    needed = ["labelled"] if config.labelled != 0 else []
    for subset in (*needed, *([select] if select != "last" else [])):
        if not getattr(split, subset):
            field = "labelled" if subset == "labelled" else f"{subset}_frac"
            raise DataError(f"{config.root}: the split has no {subset} pair. Raise data.{field}, or take other lists.")
    return split


def _split_dataset(config: DataConfig, root: Path) -> Split:
    """Split one data set."""
    if config.dataset in DATASETS and not exists(root):  # a reader of the user's own may read something else
        raise InputError(
            root, "does not exist", "Give the folder of the data set in the recipe, or --set data.root=DIR"
        )
    dataset = read_dataset(config, root)
    if isinstance(config.labelled, Path):
        lists = config.labelled
        if is_file(lists) or not lists.parent.is_dir() or (lists.parent == Path() and not lists.is_dir()):
            raise DataError(
                f"data.labelled = '{lists}': is neither a fraction, such as 0.05 for 5 %, nor a folder with "
                f"labeled.txt and unlabeled.txt, such as {root / 'list' / '5%'}. Give one of these."
            )
        return select_split(dataset, read_published_lists(lists.parent, part=lists.name))
    return split_by_fraction(
        dataset, labelled=config.labelled, seed=config.split_seed, val=config.val_frac, test=config.test_frac
    )


@dataclass(frozen=True)
class ShuffledLabels:
    """The VLM's labels of other pairs, as a control: what they say of a pair is wrong, how they look is not.

    Attributes:
        source: the labels.
        other: the pair whose labels each pair gets, by its images.
    """

    source: VLMLabelSource
    other: Mapping[tuple[Any, ...], PairFiles]

    @classmethod
    def draw(cls, source: VLMLabelSource, pairs: Sequence[PairFiles], *, seed: int) -> ShuffledLabels:
        """Give each pair the labels of the next one in a random order; a pair that occurs twice counts once."""
        distinct = list({_identify_images(pair): pair for pair in pairs}.values())
        order = np.random.default_rng(seed).permutation(len(distinct)).tolist()
        next_of = zip(order, [*order[1:], *order[:1]], strict=True)
        return cls(source, {_identify_images(distinct[one]): distinct[other] for one, other in next_of})

    def read_labels(self, pair: PairFiles) -> VLMLabels:
        """Return the labels of another pair, of the same size."""
        return self.source.read_labels(self.other[_identify_images(pair)])


def _identify_images(pair: PairFiles) -> tuple[Any, ...]:
    """Return what tells a pair's images from others'."""
    return pair.before, pair.after, pair.window_px


def open_label_source(recipe: Recipe, method: Method, split: Split) -> VLMLabelSource | None:
    """Open the VLM's labels if the method learns from them, and check that every training pair has them.

    Raises:
        ConfigError: the recipe names no store, or one of other classes.
        StoreError: labels are missing.
    """
    if not method.uses_vlm:
        return None
    if recipe.pseudo is None:
        raise ConfigError(
            f"method '{recipe.method.name}' learns from a VLM's labels; make them with `semicdvl pseudo "
            f'{recipe.data.root} -o STORE` and add pseudo.store = "STORE" to the recipe.'
        )
    pairs = split.labelled + split.unlabelled
    if recipe.pseudo.source == "semicdvl_png":
        if method.learns_vlm_classes and recipe.classes is not None and len(recipe.classes.names) != 2:
            raise ConfigError(
                "the published labels of the dates are foreground and background, and the recipe names "
                f"{len(recipe.classes.names)} classes. Set method.decoupled = false, or take a store."
            )
        assert recipe.pseudo.change is not None and recipe.pseudo.segmentation is not None
        published = PublishedLabels.open(recipe.pseudo.change, recipe.pseudo.segmentation, pairs=pairs)
        return ShuffledLabels.draw(published, pairs, seed=recipe.seed) if recipe.pseudo.shuffled else published
    assert recipe.pseudo.store is not None
    store = PseudoLabelStore.open(recipe.pseudo.store)
    if method.learns_vlm_classes:
        _check_vlm_classes(recipe, store)
    missing = [pair.name for pair in pairs if not store.has_labels(pair)]
    if missing:
        raise StoreError(
            f"{recipe.pseudo.store}: holds no labels for {len(missing)} of {len(pairs)} training pairs, such as "
            f"'{missing[0]}'. Run `semicdvl pseudo {recipe.data.root} -o {recipe.pseudo.store}` (with the same reader)."
        )
    return ShuffledLabels.draw(store, pairs, seed=recipe.seed) if recipe.pseudo.shuffled else store


def build_loader_options(recipe: Recipe, method: Method, processes: ProcessGroup) -> LoaderOptions:
    """Return how the recipe's pairs are loaded and augmented."""
    return LoaderOptions(
        weak=WeakAugmentation(
            scale=recipe.data.scale,
            hflip=recipe.data.hflip,
            vflip=recipe.data.vflip,
            rot90=recipe.data.rot90,
            rotate_deg=recipe.data.rotate_deg,
        ),
        strong=StrongAugmentation(paired=recipe.data.paired_looks),
        strong_views=method.strong_views,
        label_values=recipe.data.label_values,
        with_classes=bool(method.semantic_weight),
        rank=processes.rank,
        world_size=processes.count,
        accumulate=recipe.train.accumulate,
    )
