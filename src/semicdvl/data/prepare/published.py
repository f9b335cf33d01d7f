"""LEVIR-CD and WHU-CD as the literature uses them: patches of 256 px by their usual names, and published lists.

Lists are taken as they are, byte for byte, and checked: every name has its files, no name is on two sides, the labelled
and unlabelled lists of a share are together train.txt. Whether they are *the* published lists is told by a hash over
their sorted names, so line ends and order don't matter. The lists themselves are not part of this package.
"""

from __future__ import annotations

import hashlib
import shlex
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from semicdvl.atomic_files import write_atomically
from semicdvl.data.images import ImageCache
from semicdvl.data.pairs import SUBSETS, ChangeDataset, check_all_pair_files, read_pair
from semicdvl.data.patch_files import CHANGED, list_patch_files, write_patch
from semicdvl.data.readers import levir_cd, whu_cd
from semicdvl.data.readers.folder import read_name_list
from semicdvl.data.splits import count_leaks, read_published_lists, select_split
from semicdvl.errors import ConfigError, DataError, InputError, OutputError
from semicdvl.types import PairFiles, Split

PUBLISHED_READERS = {"levir_cd": levir_cd.read_levir_cd, "whu_cd": whu_cd.read_whu_cd}
RECIPE_PREFIXES = {"levir_cd": "levir", "whu_cd": "whu"}
PUBLISHED_LISTS: dict[str, dict[str, tuple[int, str]]] = {
    "levir_cd": {
        "train": (7120, "a5ca0daf59c92943"),
        "val": (1024, "75e3a89981af1eb8"),
        "test": (2048, "5b99def8c5efcafe"),
        "5%/labeled": (356, "94ec317207740c91"),
        "5%/unlabeled": (6764, "49a2181cc83f60e4"),
        "10%/labeled": (712, "0c3ac07190860c05"),
        "10%/unlabeled": (6408, "589f967070f6c533"),
        "20%/labeled": (1424, "81608ce855914636"),
        "20%/unlabeled": (5696, "f8f0f6519001f01c"),
        "40%/labeled": (2848, "d5ca1d59223b5714"),
        "40%/unlabeled": (4272, "8f97ce8db2b7416b"),
    },
    "whu_cd": {
        "train": (5947, "3b97b8e3b84e97a5"),
        "val": (743, "fb68878dc5e5d482"),
        "test": (744, "d5e0b2cdf214a790"),
        "5%/labeled": (297, "2229e12b8c92cdee"),
        "5%/unlabeled": (5650, "115e0f435c03b37b"),
        "10%/labeled": (594, "4010acd7b87ae59c"),
        "10%/unlabeled": (5353, "110f0fe75cc11394"),
        "20%/labeled": (1189, "10bbaad342e9cd50"),
        "20%/unlabeled": (4758, "17974074c49547d3"),
        "40%/labeled": (2378, "59186565164102dc"),
        "40%/unlabeled": (3569, "dc1376befc00fa70"),
    },
}
"""List -> names in it, and the first 16 hex digits of the SHA-256 of its sorted names, one a line. Of the lists that
UniMatch and SemiCD-VL publish, which are the same; counted and hashed from their files."""


@dataclass(frozen=True)
class ListCheck:
    """What is known of one list: its name (`5%/labeled`), its length, and whether it is the published one."""

    name: str
    count: int
    is_published: bool


@dataclass(frozen=True)
class PublishedDataset:
    """What was found and done.

    Attributes:
        dataset: the patches, where they lie now.
        root: their folder.
        written: patches that were written now.
        lists: the lists that were checked; empty if there are none.
        leak_counts: side -> pairs that share ground with a training pair.
        notes: what a user should know.
    """

    dataset: ChangeDataset
    root: Path
    written: int
    lists: tuple[ListCheck, ...]
    leak_counts: dict[str, int]
    notes: tuple[str, ...]

    @property
    def summary(self) -> str:
        """All of that in a few lines, with the command that comes next."""
        sides = ", ".join(f"{side} {len(names)}" for side, names in self.dataset.subsets.items()) or "no subsets"
        lines = [f"{self.dataset.name}: {len(self.dataset.pairs)} patches in {self.root} ({sides}); {self.written} new"]
        for fact in self.lists:
            told = "as published" if fact.is_published else "not the published list"
            lines.append(f"list {fact.name}: {fact.count} names, all with files; {told}")
        if self.lists:
            lines.append("lists: no name is on two sides, and each labelled and unlabelled list make up train.txt")
        for side, count in self.leak_counts.items():
            total = len(self.dataset.subsets[side])
            lines.append(f"leakage: {count} of {total} {side} patches share ground or a border with a training patch")
        lines += [f"note: {note}" for note in self.notes]
        root = shlex.quote(str(self.root))
        if any(fact.name == "5%/labeled" for fact in self.lists):
            recipe = f"recipes/{RECIPE_PREFIXES[self.dataset.name]}-05-supervised.toml"
            share = shlex.quote(str(_find_list_folder(self.root) or self.root) + "/5%")
            lines += ["next:", f"  semicdvl train {recipe} --set data.root={root} --set data.labelled={share}"]
        return "\n".join(lines)


def prepare_published(
    name: str,
    root: Path,
    out: Path | None = None,
    *,
    lists: Path | None = None,
    only_verify: bool = False,
    console: Console | None = None,
) -> PublishedDataset:
    """Cut a published data set into patches of 256 px where it is not, and check patches and lists.

    Started again, it writes only the patches that are missing. Data that is in patches already is checked where it is,
    and nothing is written.

    Args:
        name: levir_cd or whu_cd.
        root: the data set as published (tiles of 1024 px; two mosaics and a label), or its patches.
        out: folder for the patches (A/ B/ label/, and list/ with the lists); None: `root` with `-256` at its end.
        lists: folder of the lists; None: `root/list` or `root`, if they hold some.
        only_verify: write nothing.
        console: where progress is shown; standard error unless given.

    Raises:
        InputError: files are missing or damaged.
        DataError: a list names patches that have no files, or the lists contradict each other.
        OutputError: `out` cannot be written, or is `root` itself.
    """
    root = Path(root)
    if lists is not None and not lists.is_dir():
        raise InputError(lists, "is no folder", "Give the folder that holds train.txt, val.txt, test.txt and 5%/")
    dataset, folder = PUBLISHED_READERS[name](root), lists or _find_list_folder(root)
    check_all_pair_files(dataset.pairs, read_masks=False)
    facts = verify_lists(dataset, folder) if folder else ()
    written, cut = 0, any(pair.window_px for pair in dataset.pairs)
    if cut and not only_verify:
        place = out or root.resolve().with_name(f"{root.resolve().name}-256")
        if place.resolve() == root.resolve():
            raise OutputError(f"{place}: is the data set itself. Give another folder for the patches with -o.")
        written = _write_patches(dataset, place, console or Console(stderr=True))
        _write_lists(dataset, folder, place)
        dataset, root = _read_back(PUBLISHED_READERS[name](place), dataset), place
    elif out is not None and not only_verify:
        raise ConfigError(f"{root}: holds patches already, nothing is to be cut. Leave -o out to check them there.")
    dataset = _add_subsets(dataset, folder)
    return PublishedDataset(
        dataset, root, written, facts, _count_leaks_by_subset(dataset), _collect_notes(dataset, folder, cut=cut)
    )


# ------------------------------------------------------------------------------------------------ lists
def verify_lists(dataset: ChangeDataset, folder: Path) -> tuple[ListCheck, ...]:
    """Check the lists of a folder against the data and each other.

    Raises:
        InputError: train.txt, val.txt or test.txt is missing.
        DataError: a name has no files or occurs twice, two lists overlap, or a labelled and an unlabelled list are
            together not train.txt.
    """
    paths = {side: folder / f"{side}.txt" for side in SUBSETS}
    for path in paths.values():
        dataset.select_pairs(read_name_list(path), what=str(path))
    select_split(dataset, read_published_lists(folder, part=None))
    facts = [_check_list(dataset.name, side, read_name_list(path)) for side, path in paths.items()]
    for part in find_label_shares(folder):
        names = read_published_lists(folder, part=part)
        select_split(dataset, names)
        facts += [
            _check_list(dataset.name, f"{part}/labeled", names.labelled),
            _check_list(dataset.name, f"{part}/unlabeled", names.unlabelled),
        ]
    return tuple(facts)


def find_label_shares(folder: Path) -> list[str]:
    """Return the folders of labelled and unlabelled lists (`5%`), smallest share first."""
    found = [path.name for path in folder.iterdir() if path.is_dir() and path.name.endswith("%")]
    return sorted(found, key=lambda part: (len(part), part))


def _check_list(dataset: str, name: str, names: Sequence[str]) -> ListCheck:
    """Compare one list with the published one."""
    digest = hashlib.sha256("\n".join(sorted(names)).encode()).hexdigest()[:16]
    return ListCheck(name, len(names), PUBLISHED_LISTS[dataset].get(name) == (len(names), digest))


def _find_list_folder(root: Path) -> Path | None:
    """Return the folder below `root` that holds lists."""
    return next((folder for folder in (root / "list", root) if (folder / "train.txt").is_file()), None)


def _add_subsets(dataset: ChangeDataset, folder: Path | None) -> ChangeDataset:
    """Return the data set with the subsets of the lists, where there are some."""
    if folder is None:
        return dataset
    subsets = {side: read_name_list(folder / f"{side}.txt") for side in SUBSETS}
    return ChangeDataset(dataset.name, dataset.pairs, subsets, dataset.source_tiles)


def _count_leaks_by_subset(dataset: ChangeDataset) -> dict[str, int]:
    """Count the held-out pairs that share ground with a training pair, by side."""
    if "train" not in dataset.subsets:
        return {}
    train = dataset.select_subset("train")
    held = {side: dataset.select_subset(side) for side in ("val", "test") if side in dataset.subsets}
    return {
        side: count_leaks(Split(train, (), (), pairs), source_tiles=dataset.source_tiles)
        for side, pairs in held.items()
    }


def _collect_notes(dataset: ChangeDataset, folder: Path | None, *, cut: bool) -> tuple[str, ...]:
    """Say what a user should know."""
    notes = []
    expected = sum(PUBLISHED_LISTS[dataset.name][side][0] for side in SUBSETS)
    if len(dataset.pairs) != expected:
        notes.append(f"{len(dataset.pairs)} patches are here, the whole data set has {expected}.")
    if folder is None:
        where = " (train, val and test are told by the tiles)" if dataset.subsets else ""
        notes.append(f"No lists were found{where}; give them with --lists, or split by fraction in the recipe.")
    if cut and dataset.name == "whu_cd":
        notes.append("Patches are numbered row by row; check one or two against a list's origin before you compare.")
    return tuple(notes)


# ------------------------------------------------------------------------------------------------ writing
def _write_patches(dataset: ChangeDataset, out: Path, console: Console) -> int:
    """Write the patches that are not there yet; return how many."""
    todo = [pair for pair in dataset.pairs if not all(path.is_file() for path in _list_targets(out, pair))]
    cache = ImageCache(0)  # its few recent files serve the crops of a tile
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("patches"))
    with Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=console, transient=True) as shown:
        for pair in shown.track(todo, description="cutting"):
            images = read_pair(pair, cache=cache)
            label_HW = None if images.label_HW is None else images.label_HW * CHANGED
            write_patch(out, pair.name, images.t1_HWC, images.t2_HWC, label_HW)
    return len(todo)


def _list_targets(out: Path, pair: PairFiles) -> Iterator[Path]:
    """Yield the files that a patch has when it is written."""
    first, second, label = list_patch_files(out, pair.name)
    yield from (first, second) if pair.label is None else (first, second, label)


def _write_lists(dataset: ChangeDataset, folder: Path | None, out: Path) -> None:
    """Copy the lists unchanged, or write those of the published subsets where there are none."""
    if folder is None:
        for side, names in dataset.subsets.items():
            with write_atomically(out / "list" / f"{side}.txt") as part:
                part.write_text("".join(f"{name}.png\n" for name in names), encoding="utf-8")
        return
    below = [folder / f"{side}.txt" for side in SUBSETS]
    below += [path for share in find_label_shares(folder) for path in sorted((folder / share).glob("*.txt"))]
    for path in below:
        with write_atomically(out / "list" / path.relative_to(folder)) as part:
            shutil.copyfile(path, part)


def _read_back(there: ChangeDataset, meant: ChangeDataset) -> ChangeDataset:
    """Return the data set as it lies on the disk, with the tiles that its patches come from."""
    strange = {pair.name for pair in there.pairs} ^ {pair.name for pair in meant.pairs}
    if strange:
        raise DataError(
            f"{there.name}: {len(strange)} patches in the folder are not of this data set, e.g. '{min(strange)}'."
            " Give a new folder with -o."
        )
    return ChangeDataset(there.name, there.pairs, there.subsets, meant.source_tiles)
