"""Cut training patches: of two rasters and polygons of change, or of a published data set."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from semicdvl.data.prepare.config import PrepareSettings
    from semicdvl.data.prepare.published import PublishedDataset
    from semicdvl.data.prepare.results import PreparedPatches


def prepare(
    before: str | Path,
    after: str | Path,
    out: str | Path,
    *,
    labels: str | Path,
    labelled_area: str | Path | None = None,
    config: PrepareSettings | None = None,
) -> PreparedPatches:
    """Cut two rasters and polygons of change into training patches, split by area without leakage.

    Args:
        before: raster of date 1.
        after: raster of date 2; it may be on another grid.
        out: the folder for the patches (A/, B/, label/, and lists).
        labels: polygons of what changed (GeoPackage, GeoJSON, ...), in any CRS.
        labelled_area: polygons of the ground on which `labels` holds all change; None: everywhere.
        config: see `PrepareSettings`.

    Returns:
        PreparedPatches: `.out`, the folder, and `.summary`: how many patches each side of the split has.

    Raises:
        InputError: a file cannot be used.
        DataError: the labels leave nothing to train or to test on.
        OutputError: `out` holds something else, or cannot be written.

    Examples:
        >>> import semicdvl as cd
        >>> config = cd.PrepareSettings(size_px=32, val_frac=0, test_frac=0)
        >>> prepared = cd.prepare(before_tif, after_tif, out, labels=changes_gpkg, config=config)
        >>> (prepared.out / "A").is_dir()
        True
    """
    from semicdvl.data.prepare.run import prepare_patches

    area = None if labelled_area is None else Path(labelled_area)
    return prepare_patches(
        Path(before), Path(after), Path(out), labels=Path(labels), labelled_area=area, settings=config
    )


def prepare_published(
    name: Literal["levir_cd", "whu_cd"],
    root: str | Path,
    out: str | Path | None = None,
    *,
    lists: str | Path | None = None,
    only_verify: bool = False,
) -> PublishedDataset:
    """Cut a published data set into its patches of 256 px, and check patches and split lists.

    Args:
        name: "levir_cd" or "whu_cd".
        root: the data set as it was published, or its patches.
        out: folder for the patches; None: `root` with `-256` at its end.
        lists: folder of the published lists (train.txt, 5%/labeled.txt, ...); None: those in `root`.
        only_verify: write nothing, only check files and lists.

    Returns:
        PublishedDataset: `.written`, the number of patches, and `.summary`, what was checked.

    Raises:
        InputError: files are missing or damaged.
        DataError: a list names patches that have no files, or lists contradict each other.
        OutputError: `out` cannot be written, or is `root` itself.

    Examples:
        >>> import semicdvl as cd
        >>> cd.prepare_published("levir_cd", "LEVIR-CD", "LEVIR-CD-256").written        # doctest: +SKIP
        10192
    """
    from semicdvl.data.prepare import published

    places = [None if path is None else Path(path) for path in (out, lists)]
    return published.cut_published(name, Path(root), places[0], lists=places[1], only_verify=only_verify)
