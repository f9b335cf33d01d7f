"""A suite's data sets: pairs on disk, the VLM's labels, and a split for every fraction and seed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from semicdvl.atomic_files import hash_values, write_atomically, write_json
from semicdvl.benchmarking.config import CEGConfig, CityEntry, FolderEntry, RealEntry
from semicdvl.ceg.prompts import PROMPT_SETS, ClassPrompts, Prompts, build_class_prompts
from semicdvl.data import splits
from semicdvl.data.change_dataset import ChangeDataset
from semicdvl.data.readers import folder, real_pairs
from semicdvl.data.split_file import write_split
from semicdvl.errors import ConfigError
from semicdvl.pseudo_labels.generate import generate_labels
from semicdvl.pseudo_labels.store import STORE_VERSION
from semicdvl.registry import build_part, suggest_nearest
from semicdvl.synthetic.config import CitySpec
from semicdvl.synthetic.generate import generate_city
from semicdvl.synthetic.vlm_answers import AnswerErrors, write_answers
from semicdvl.synthetic.write import PATCH_CLASSES, write_city_patches
from semicdvl.training.parts import make_split
from semicdvl.types import VLM, PairFiles, Split
from semicdvl.vlms import VLMS
from semicdvl.vlms.precomputed import files

READY_FILE = "ready.json"
"""Written last into a prepared data set, which is complete with it."""
UNLABELLED_COPY_SUFFIX = " (again)"
"""Suffix of the name under which a labelled pair takes part a second time, without its label."""


@dataclass(frozen=True)
class PreparedData:
    """A data set that runs can use.

    Attributes:
        name: as in the suite.
        root: folder of the pairs.
        store: the pseudo-label store, or None.
        splits: folder of the split files.
        make_split: (fraction, seed) -> split.
    """

    name: str
    root: Path
    store: Path | None
    splits: Path
    make_split: Callable[[float, int], Split]

    def write_split_file(self, fraction: float, seed: int) -> Path:
        """Write the split of a fraction and seed, if it is not there, and return its file.

        With all labels no pair would be unlabelled: the labelled pairs then take part a second time without their
        label, so that there is something to learn from by consistency and from the VLM.
        """
        path = self.splits / f"{fraction:g}-{seed}.json"
        if not path.exists():
            split = self.make_split(fraction, seed)
            if not split.unlabelled:
                again = tuple(replace(pair, name=pair.name + UNLABELLED_COPY_SUFFIX) for pair in split.labelled)
                split = replace(split, unlabelled=again)
            write_split(path, split, root=self.root, notes={"labelled": fraction, "seed": seed})
        return path


def prepare_data(entry: CityEntry | RealEntry | FolderEntry, out: Path) -> PreparedData | None:
    """Prepare a data set below `out`, unless it is prepared already. None: its files are not on this machine.

    Raises:
        ConfigError, DataError, InputError: the entry, or what it names, cannot be used.
        OutputError: `out` cannot be written.
    """
    home = out / f"{entry.name}-{hash_values(_describe_entry(entry), STORE_VERSION)[:8]}"
    if isinstance(entry, CityEntry):
        return _prepare_cities(entry, home)
    return _prepare_real_pairs(entry, home) if isinstance(entry, RealEntry) else _prepare_folder(entry, home)


def _describe_entry(entry: CityEntry | RealEntry | FolderEntry) -> dict[str, Any]:
    """Return what determines a data set; keys that version 0.1 did not have only where they have an influence."""
    plain = entry.model_dump(mode="json")
    later = {"classes": False, "classes_known": "everywhere"}
    return {name: value for name, value in plain.items() if name not in later or value != later[name]}


# ------------------------------------------------------------------------------------------------ synthetic cities
CITY_CLASS_PROMPTS = build_class_prompts(
    tuple(each.name for each in PATCH_CLASSES),
    {"building": ("house", "building"), "road": ("road",), "vegetation": ("grass", "tree"), "water": ("water",)},
    ("building",),
)
"""What the simulated VLM is asked for each class; it knows no word for bare ground, and buildings alone change."""


def _prepare_cities(entry: CityEntry, home: Path) -> PreparedData:
    """Render the cities, simulate the VLM's answers, and generate the labels of the training patches."""
    if not (home / READY_FILE).exists():
        _render_cities(entry, home)
        trained = folder.read_folder(home / "pairs").select_subset("train")
        _fill_store(
            trained,
            files.build_precomputed(weights=home / "answers"),
            entry.ceg,
            home / "store",
            gsd_m=None,
            prompts=CITY_CLASS_PROMPTS if entry.classes else PROMPT_SETS["buildings"],
        )
        write_json(home / READY_FILE, _describe_entry(entry))
    dataset = folder.read_folder(home / "pairs", name=entry.name)
    return PreparedData(entry.name, home / "pairs", home / "store", home / "splits", _split_by_fraction(dataset))


def _render_cities(entry: CityEntry, home: Path) -> None:
    """Write all cities as patches, with lists of the subsets, and the VLM's answers for the training cities."""
    spec = _build_settings(CitySpec, entry.city, f"data '{entry.name}', city")
    answer_errors = _build_settings(AnswerErrors, entry.vlm, f"data '{entry.name}', vlm")
    subsets = {"train": entry.train_cities, "val": entry.val_cities, "test": entry.test_cities}
    seed = entry.first_seed
    for subset, count in subsets.items():
        names: list[str] = []
        for _ in range(count):
            city = generate_city(replace(spec, seed=seed, size_px=entry.city_px))
            pairs = write_city_patches(
                city,
                home / "pairs",
                size_px=entry.patch_px,
                classes=PATCH_CLASSES if entry.classes else None,
                classes_known=entry.classes_known if subset == "train" else "everywhere",
            )
            names += [pair.name for pair in pairs]
            if subset == "train":
                place, size_px = home / "pairs", entry.patch_px
                write_answers(city, pairs, home / "answers", images=place, size_px=size_px, errors=answer_errors)
            seed += 1
        with write_atomically(home / "pairs" / f"{subset}.txt") as temporary:
            temporary.write_text("".join(f"{name}\n" for name in names))


def _build_settings(kind: type[Any], values: dict[str, float], source: str) -> Any:
    """Build a dataclass of settings from the suite's values."""
    known = [field.name for field in fields(kind) if field.name != "size_px"]
    for key in values:
        if key not in known:
            raise ConfigError(f"{source}: unknown key '{key}'.{suggest_nearest(key, known)} Known: {', '.join(known)}.")
    exact: dict[str, type] = {"seed": int, "epsg": int, "nir": bool}
    return kind(**{key: exact[key](value) if key in exact else value for key, value in values.items()})


# ------------------------------------------------------------------------------------------------ real pairs
def _prepare_real_pairs(entry: RealEntry, home: Path) -> PreparedData | None:
    """Cut the real pairs and generate the VLM's labels."""
    if not real_pairs.has_real_pairs(entry.root):
        return None
    dataset = real_pairs.read_real_pairs(entry.root, crops=home / "pairs", crop_px=entry.crop_px)
    if not (home / READY_FILE).exists():
        vlm: VLM = build_part("VLM", entry.vlm, VLMS, {})
        _fill_store(dataset.pairs, vlm, entry.ceg, home / "store", gsd_m=real_pairs.REAL_PAIRS_GSD_M)
        write_json(home / READY_FILE, entry.model_dump(mode="json"))

    def make_real_split(fraction: float, seed: int) -> Split:
        return splits.select_split(dataset, real_pairs.draw_real_split(dataset, seed=seed, labelled_frac=fraction))

    return PreparedData(entry.name, home / "pairs", home / "store", home / "splits", make_real_split)


def _prepare_folder(entry: FolderEntry, home: Path) -> PreparedData:
    """Take the user's data set as it is; its store exists already."""

    def make_folder_split(fraction: float, seed: int) -> Split:
        if entry.lists is None or fraction > 0:
            return make_split(entry.make_data_config(fraction, seed))
        whole = make_split(entry.make_data_config(1.0, seed))  # held-out pairs are those of the lists, as with labels
        return replace(whole, labelled=(), unlabelled=whole.unlabelled or whole.labelled)

    return PreparedData(entry.name, entry.root, entry.store, home / "splits", make_folder_split)


# ------------------------------------------------------------------------------------------------ shared
def _split_by_fraction(dataset: ChangeDataset, **shares: float) -> Callable[[float, int], Split]:
    """Return what splits a data set: published subsets are kept, labelled pairs drawn (5 % are among the 10 %)."""

    def make_fraction_split(fraction: float, seed: int) -> Split:
        return splits.split_by_fraction(dataset, labelled=fraction, seed=seed, **shares)

    return make_fraction_split


def _fill_store(
    pairs: tuple[PairFiles, ...],
    vlm: VLM,
    ceg: CEGConfig,
    store: Path,
    *,
    gsd_m: float | None,
    prompts: Prompts | ClassPrompts = PROMPT_SETS["buildings"],
) -> None:
    """Fill a pseudo-label store as `semicdvl pseudo` does."""
    settings = ceg.make_settings(vlm)
    for _ in generate_labels(pairs, vlm=vlm, prompts=prompts, settings=settings, root=store, gsd_m=gsd_m):
        pass
