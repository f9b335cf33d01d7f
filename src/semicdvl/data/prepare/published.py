"""Published data sets as the literature uses them: patches of 256 px by their usual names, and the published lists.

Lists are copied byte for byte and checked: every name has its files, no name is in two lists, the labelled and
unlabelled lists of a share are together train.txt. Whether they are *the* published lists is decided by a hash over
their sorted names, so line ends and order don't matter. The lists themselves are not part of this package.
"""

from __future__ import annotations

import hashlib
import shlex
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from semicdvl.atomic_files import write_atomically
from semicdvl.data import DATASETS
from semicdvl.data.change_dataset import SUBSETS, ChangeDataset
from semicdvl.data.images.cache import ImageCache
from semicdvl.data.name_lists import read_name_list
from semicdvl.data.pair_checks import check_all_pair_files
from semicdvl.data.pairs import read_pair
from semicdvl.data.patch_files import CHANGED, list_patch_files, write_patch
from semicdvl.data.publication import Publication, find_publication
from semicdvl.data.splits import count_leaks, read_published_lists, select_split
from semicdvl.errors import ConfigError, DataError, InputError, OutputError
from semicdvl.outputs.locks import lock_argument
from semicdvl.reading.regular_files import resolve_links
from semicdvl.registry import resolve_builder
from semicdvl.types import PairFiles, Split

FIRST_SHARE = "5%"
"""The share of labels whose recipe is suggested."""


@dataclass(frozen=True)
class ListCheck:
    """What is known of one list: its name (`5%/labeled`), its length, and whether it is the published one."""

    name: str
    count: int
    is_published: bool


@dataclass(frozen=True)
class PublishedDataset:
    """A published data set in patches, checked.

    Attributes:
        dataset: the patches, where they are now.
        root: their folder.
        written: number of patches that this run wrote.
        lists: the lists that were checked; empty if there are none.
        leak_counts: val, test -> pairs that share ground with a training pair.
        notes: what a user should know, as sentences.

    Examples:
        >>> import semicdvl as cd
        >>> prepared = cd.prepare_published("levir_cd", "LEVIR-CD")    # doctest: +SKIP
        >>> prepared.written, prepared.leak_counts                     # doctest: +SKIP
    """

    dataset: ChangeDataset
    root: Path
    written: int
    lists: tuple[ListCheck, ...]
    leak_counts: dict[str, int]
    notes: tuple[str, ...]

    @property
    def summary(self) -> str:
        """What was found and written, in a few lines, with the command that comes next."""
        return "\n".join(
            [
                self._describe_patches(),
                *self._describe_lists(),
                *(
                    f"leakage: {count} of {len(self.dataset.subsets[subset])} {subset} patches"
                    f" {'shares' if count == 1 else 'share'} ground or a border with a training patch"
                    for subset, count in self.leak_counts.items()
                ),
                *(f"note: {note}" for note in self.notes),
                *self._suggest_next_command(),
            ]
        )

    def _describe_patches(self) -> str:
        """Return the number of patches by subset."""
        sizes = ", ".join(f"{subset} {len(names)}" for subset, names in self.dataset.subsets.items()) or "no subsets"
        return f"{self.dataset.name}: {len(self.dataset.pairs)} patches in {self.root} ({sizes}); {self.written} new"

    def _describe_lists(self) -> Iterator[str]:
        """Yield a line per list."""
        for check in self.lists:
            verdict = "as published" if check.is_published else "not the published list"
            yield f"list {check.name}: {check.count} names, all with files; {verdict}"
        if self.lists:
            yield "lists: no name is in two subsets, and each labelled and unlabelled list make up train.txt"

    def _suggest_next_command(self) -> list[str]:
        """Return the command that trains on the first share of labels, if its lists are there."""
        if not any(check.name == f"{FIRST_SHARE}/labeled" for check in self.lists):
            return []
        recipe = f"recipes/{_require_publication(self.dataset.name).recipe_prefix}-05-supervised.toml"
        root = shlex.quote(str(self.root))
        share = shlex.quote(str(_find_list_folder(self.root) or self.root) + f"/{FIRST_SHARE}")
        return ["next:", f"  semicdvl train {recipe} --set data.root={root} --set data.labelled={share}"]


def cut_published(
    name: str,
    root: Path,
    out: Path | None = None,
    *,
    lists: Path | None = None,
    only_verify: bool = False,
    console: Console | None = None,
) -> PublishedDataset:
    """Cut a published data set into patches of 256 px where it is not in patches yet, and check patches and lists.

    Started again, it writes only the patches that are missing. Data that is in patches already is checked where it is,
    and nothing is written.

    Args:
        name: a reader that declares its publication: levir_cd or whu_cd.
        root: the data set as published (tiles of 1024 px; two mosaics and a label), or its patches.
        out: folder for the patches (A/ B/ label/, and list/ with the lists); None: `root` with `-256` at its end.
        lists: folder of the lists; None: `root/list` or `root`, if they hold some.
        only_verify: write nothing.
        console: where progress is shown; standard error unless given.

    Raises:
        ConfigError: the reader declares no publication, or `out` is given although there is nothing to cut.
        InputError: files are missing or damaged.
        DataError: a list names patches that have no files, or the lists contradict each other.
        OutputError: `out` cannot be written, or is `root` itself.
    """
    root = Path(root)
    if lists is not None and not lists.is_dir():
        raise InputError(lists, "is not a folder", "Give the folder that holds train.txt, val.txt, test.txt and 5%/")
    _require_publication(name)
    dataset, list_folder = _read_dataset(name, root), lists or _find_list_folder(root)
    check_all_pair_files(dataset.pairs, read_masks=False)
    checks = verify_lists(dataset, list_folder) if list_folder else ()
    written, is_uncut = 0, any(pair.window_px for pair in dataset.pairs)
    if is_uncut and not only_verify:
        target = out or resolve_links(root).with_name(f"{resolve_links(root).name}-256")
        written = _cut_dataset(dataset, root, target, list_folder, console or Console(stderr=True))
        dataset, root = _read_written(dataset, target), target
    elif out is not None and not only_verify:
        raise ConfigError(f"{root}: holds patches already, nothing is to be cut. Leave -o out to check them there.")
    dataset = _add_subsets(dataset, list_folder)
    notes = _collect_notes(dataset, list_folder, is_uncut=is_uncut)
    return PublishedDataset(dataset, root, written, checks, _count_leaks_by_subset(dataset), notes)


def _read_dataset(name: str, root: Path) -> ChangeDataset:
    """Read a data set by the name of its reader."""
    dataset: ChangeDataset = resolve_builder("data set", name, DATASETS)(root)
    return dataset


def _require_publication(name: str) -> Publication:
    """Return what a reader declares of its publication, or raise."""
    publication = find_publication(name)
    if publication is None:
        raise ConfigError(f"The data set '{name}' has no published lists. Give levir_cd or whu_cd.")
    return publication


# ------------------------------------------------------------------------------------------------ lists
def verify_lists(dataset: ChangeDataset, folder: Path) -> tuple[ListCheck, ...]:
    """Check the lists of a folder against the data and each other.

    Args:
        dataset: named as its reader is.
        folder: holds train.txt, val.txt, test.txt and folders such as 5%/.

    Raises:
        InputError: train.txt, val.txt or test.txt is missing.
        DataError: a name has no files or occurs twice, two lists overlap, or a labelled and an unlabelled list are
            together not train.txt.
    """
    publication = _require_publication(dataset.name)
    paths = {subset: folder / f"{subset}.txt" for subset in SUBSETS}
    for path in paths.values():
        dataset.select_pairs(read_name_list(path), what=str(path))
    select_split(dataset, read_published_lists(folder, part=None))
    checks = [_check_list(publication, subset, read_name_list(path)) for subset, path in paths.items()]
    for part in list_label_shares(folder):
        names = read_published_lists(folder, part=part)
        select_split(dataset, names)
        checks += [
            _check_list(publication, f"{part}/labeled", names.labelled),
            _check_list(publication, f"{part}/unlabeled", names.unlabelled),
        ]
    return tuple(checks)


def list_label_shares(folder: Path) -> list[str]:
    """Return the names of the folders with labelled and unlabelled lists (`5%`), smallest share first."""
    shares = [path.name for path in folder.iterdir() if path.is_dir() and path.name.endswith("%")]
    return sorted(shares, key=lambda share: (len(share), share))


def _check_list(publication: Publication, name: str, names: Sequence[str]) -> ListCheck:
    """Compare one list with the published one."""
    digest = hashlib.sha256("\n".join(sorted(names)).encode()).hexdigest()[:16]
    return ListCheck(name, len(names), publication.lists.get(name) == (len(names), digest))


def _find_list_folder(root: Path) -> Path | None:
    """Return the folder that holds lists: `root/list` or `root`."""
    return next((folder for folder in (root / "list", root) if (folder / "train.txt").is_file()), None)


def _add_subsets(dataset: ChangeDataset, list_folder: Path | None) -> ChangeDataset:
    """Return the data set with the subsets of the lists, where there are some."""
    if list_folder is None:
        return dataset
    return replace(dataset, subsets={subset: read_name_list(list_folder / f"{subset}.txt") for subset in SUBSETS})


def _count_leaks_by_subset(dataset: ChangeDataset) -> dict[str, int]:
    """Count the pairs of val and test that share ground with a training pair."""
    if "train" not in dataset.subsets:
        return {}
    train = dataset.select_subset("train")
    held_out = {subset: dataset.select_subset(subset) for subset in ("val", "test") if subset in dataset.subsets}
    return {
        subset: count_leaks(Split(train, (), (), pairs), source_tiles=dataset.source_tiles)
        for subset, pairs in held_out.items()
    }


def _collect_notes(dataset: ChangeDataset, list_folder: Path | None, *, is_uncut: bool) -> tuple[str, ...]:
    """Say in sentences what a user should know."""
    publication = _require_publication(dataset.name)
    notes = []
    expected = sum(publication.lists[subset][0] for subset in SUBSETS)
    if len(dataset.pairs) != expected:
        notes.append(f"There are {len(dataset.pairs)} patches here; the whole data set has {expected}.")
    if list_folder is None:
        where = " (train, val and test follow the tiles)" if dataset.subsets else ""
        notes.append(f"No lists were found{where}; give them with --lists, or split by fraction in the recipe.")
    if is_uncut and publication.cut_note:
        notes.append(publication.cut_note)
    return tuple(notes)


# ------------------------------------------------------------------------------------------------ writing
@lock_argument("out")
def _cut_dataset(dataset: ChangeDataset, root: Path, out: Path, list_folder: Path | None, console: Console) -> int:
    """Write patches and lists into another folder; return how many patches were written."""
    if resolve_links(out) == resolve_links(root):
        raise OutputError(f"{out}: is the data set itself. Give another folder for the patches with -o.")
    written = _write_patches(dataset, out, console)
    _write_lists(dataset, list_folder, out)
    return written


def _write_patches(dataset: ChangeDataset, out: Path, console: Console) -> int:
    """Write the patches that are not there yet; return how many."""
    missing = [pair for pair in dataset.pairs if not all(path.is_file() for path in _list_targets(out, pair))]
    cache = ImageCache(0)  # its few recent files serve the crops of a tile
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("patches"))
    with Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=console, transient=True) as progress:
        for pair in progress.track(missing, description="cutting"):
            images = read_pair(pair, cache=cache)
            label_HW = None if images.label_HW is None else images.label_HW * CHANGED
            write_patch(out, pair.name, images.t1_HWC, images.t2_HWC, label_HW)
    return len(missing)


def _list_targets(out: Path, pair: PairFiles) -> tuple[Path, ...]:
    """Return the files that a patch has when it is written."""
    files = list_patch_files(out, pair.name)
    return files[:2] if pair.label is None else files


def _write_lists(dataset: ChangeDataset, list_folder: Path | None, out: Path) -> None:
    """Copy the lists unchanged, or write those of the published subsets where there are none."""
    if list_folder is None:
        for subset, names in dataset.subsets.items():
            with write_atomically(out / "list" / f"{subset}.txt") as temporary:
                temporary.write_text("".join(f"{name}.png\n" for name in names), encoding="utf-8")
        return
    paths = [list_folder / f"{subset}.txt" for subset in SUBSETS]
    for share in list_label_shares(list_folder):
        paths += sorted((list_folder / share).glob("*.txt"))
    for path in paths:
        with write_atomically(out / "list" / path.relative_to(list_folder)) as temporary:
            shutil.copyfile(path, temporary)


def _read_written(dataset: ChangeDataset, out: Path) -> ChangeDataset:
    """Read the patches that were written, with the tiles that they come from.

    Raises:
        DataError: the folder holds other patches, too.
    """
    written = _read_dataset(dataset.name, out)
    foreign = {pair.name for pair in written.pairs} ^ {pair.name for pair in dataset.pairs}
    if foreign:
        raise DataError(
            f"{dataset.name}: {len(foreign)} patches in {out} are not of this data set, e.g. '{min(foreign)}'."
            " Give a new folder with -o."
        )
    return replace(written, source_tiles=dataset.source_tiles)
