"""Which patches to label next: where a result is most in doubt, without asking for the same thing twice.

A result's own map and score say how much of each patch is probably wrong (`patch_survey.doubt`): how doubtful its
pixels are, times how many of them. Patches are then taken one after the other: the one whose doubt times its distance
in looks from all that were taken before is greatest. That is the farthest-first traversal of a core set (Sener
and Savarese 2018, "Active learning for convolutional neural networks: a core-set approach"), weighted by doubt: without
doubt it spreads over everything, without looks it takes twenty times the same car park.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import shapely
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from semicdvl.atomic_files import read_json, whole_folder
from semicdvl.ceg.features import FeatureSource
from semicdvl.detection.pair_check.check import open_checked
from semicdvl.errors import ConfigError, InputError
from semicdvl.evaluation.active_learning import report
from semicdvl.evaluation.active_learning.patch_scores import Patches, looks, survey
from semicdvl.evaluation.map_vs_truth import Result, read_result
from semicdvl.raster.grid import offset_px
from semicdvl.raster.io.pair_reader import RasterPair, open_pair
from semicdvl.raster.vector.files import write_vector

FILES = ("suggest.gpkg", "suggest.html")
LEAST_VALID_FRAC = 0.5
"""Patches with less data in both dates are never suggested."""
ALIKE = 0.1
"""What a patch is worth, as a share of its doubt, that looks exactly like one that was taken before."""
MOST_CANDIDATES = 20_000
"""Only so many patches, those of most doubt, are looked at: each is read from both images."""


@dataclass(frozen=True)
class SuggestSettings:
    """How patches are chosen.

    Attributes:
        count: how many.
        patch_px: their side; `semicdvl prepare --size-px` should be the same.
        seed: which of several patches that are equally good comes first.
        before: where the image of date 1 lies now, if not where the result says.
        after: the same of date 2.
    """

    count: int = 20
    patch_px: int = 256
    seed: int = 0
    before: str | None = None
    after: str | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot be meant.

        Raises:
            ConfigError: a number is out of range.
        """
        if self.count < 1 or self.patch_px < 32:
            raise ConfigError(f"{self.count} patches of {self.patch_px} px: at least one of at least 32 px is wanted.")


@dataclass(frozen=True)
class Suggested:
    """What came out.

    Attributes:
        out: folder of the result, in which suggest.gpkg and suggest.html lie.
        patches: those chosen, the first to label first.
        novelty_N: how far each looked from those before it, from 0 to 1.
        of: how many patches there were to choose from.
        notes: what a user should know.
        next_command: what makes training patches of them.
    """

    out: Path
    patches: Patches
    novelty_N: NDArray[np.float64]
    of: int
    notes: tuple[str, ...]
    next_command: str

    @property
    def summary(self) -> str:
        """All of that in a few lines."""
        share = float(self.patches.doubt_N.mean())
        lines = [f"{len(self.patches)} of {self.of} patches of {self.patches.side_px} px; {share:.1%} of them in doubt"]
        lines += [f"note: {note}" for note in self.notes]
        lines += [f"boxes: {self.out / FILES[0]}", f"sheet: {self.out / FILES[1]}"]
        return "\n".join([*lines, "Draw all change inside the boxes as polygons, then:", f"  {self.next_command}"])


def suggest(out: Path, *, settings: SuggestSettings | None = None, source: FeatureSource | None = None) -> Suggested:
    """Choose patches of a result to label, and write them as boxes (suggest.gpkg) and as a sheet (suggest.html).

    Args:
        out: folder that `detect` wrote.
        settings: see `SuggestSettings`.
        source: describes what patches look like; None: by colours and edges.

    Raises:
        InputError: `out` is no such folder, a file in it is damaged, or the images are not where they were.
        ConfigError: no patch fits, or none has data.
        OutputError: the folder cannot be written.
    """
    settings, result = settings or SuggestSettings(), read_result(Path(out))
    record = read_json(result.out / "run.json", remedy="Run `semicdvl detect` again")
    every = survey(result, side_px=settings.patch_px)
    usable, notes = _usable(every, settings, result)
    with ExitStack() as held:
        pair = held.enter_context(_opened(result, record, settings))
        progress = partial(track, description="looking at patches", console=Console(stderr=True), transient=True)
        looks_ND = looks(pair, usable, source=source, shown=progress)
        order_N, novelty_N = chosen(usable.doubt_N, looks_ND, count=settings.count, seed=settings.seed)
        picked = usable.some(order_N)
        suggested = Suggested(result.out, picked, novelty_N, len(usable), notes, _next(record, settings, result))
        _write(suggested, result, pair)
    return suggested


# ------------------------------------------------------------------------------------------------ which
def chosen(
    doubt_N: NDArray[np.floating], looks_ND: NDArray[np.floating], *, count: int, seed: int = 0
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return which of N to take, first one first, and how far each looked from those before it (0-1; the first: 1).

    Args:
        doubt_N: how much there is to learn from each, not negative.
        looks_ND: what each looks like.
        count: how many; all where there are fewer.
        seed: which of several that are equally good.
    """
    many = len(doubt_N)
    tie_N = np.random.default_rng(seed).permutation(many)
    left_N, nearest_N = np.ones(many, bool), np.full(many, np.inf)
    order: list[int] = []
    novelty: list[float] = []
    spread = 0.0
    for _ in range(min(count, many)):
        new_N = np.ones(many) if not order else nearest_N / max(spread, 1e-12)
        worth_N = np.where(left_N, np.asarray(doubt_N, np.float64) * (ALIKE + (1 - ALIKE) * new_N), -1.0)
        best = int(np.lexsort((tie_N, -np.where(left_N, doubt_N, -1.0), -worth_N))[0])
        order.append(best)
        novelty.append(float(np.clip(new_N[best], 0, 1)))
        left_N[best] = False
        distance_N = np.sqrt(((looks_ND - looks_ND[best]) ** 2).mean(axis=1, dtype=np.float64))
        nearest_N = np.minimum(nearest_N, distance_N)
        spread = spread or float(distance_N.max())
    return np.array(order, np.int64), np.array(novelty)


def _usable(every: Patches, settings: SuggestSettings, result: Result) -> tuple[Patches, tuple[str, ...]]:
    """Return the patches to choose from, those of most doubt first, and what there is to say about them."""
    full = every.some(every.valid_frac_N == 1)
    usable, notes = full, []
    if len(full) < settings.count:
        usable = every.some(every.valid_frac_N >= LEAST_VALID_FRAC)
        if len(usable) > len(full):
            notes.append(
                f"Only {len(full)} patches have data everywhere; others that have it on half of them count, too."
            )
            notes.append("`semicdvl prepare` labels such patches with --min-known-frac below 1.")
    if not len(usable):
        raise ConfigError(
            f"{result.out}: no patch of {settings.patch_px} px has data in both dates. Give a smaller one."
        )
    if len(usable) < settings.count:
        notes.append(
            f"{settings.count} patches were asked for, but there are only {len(usable)}: all of them are given."
        )
    if result.grid.crs is None:
        notes.append("The result has no CRS: the boxes are in pixels (x = column, y = row).")
    most = np.argsort(-usable.doubt_N, kind="stable")[:MOST_CANDIDATES]
    return usable.some(np.sort(most)), tuple(notes)


# ------------------------------------------------------------------------------------------------ the images
def _opened(result: Result, record: Mapping[str, Any], settings: SuggestSettings) -> RasterPair:
    """Open the images that a result was made of, as it was made."""
    before = _found(result, record, "before", settings.before)
    after = _found(result, record, "after", settings.after)
    ran = record["settings"]
    same = {key: ran[key] for key in ("bands", "after_bands", "grid", "normalise")}
    pair = open_checked(before, after, **same, align=True)[0] if ran["align"] else open_pair(before, after, **same)
    pair = pair.in_colour()
    if offset_px(result.grid, pair.grid) != (0, 0) or pair.shape_hw != (result.grid.height, result.grid.width):
        pair.close()
        remedy = "Give the images that the result was made of (--before, --after), or run `semicdvl detect` again"
        raise InputError(result.out, "lies elsewhere than the images that are there now", remedy)
    return pair


def _found(result: Result, record: Mapping[str, Any], date: str, given: str | None) -> str:
    """Return where the image of a date lies."""
    if given is not None:
        return given
    facts = record["inputs"][date]
    path = str(facts["path"])
    if "bytes" in facts and not Path(path).is_file():
        remedy = f"Say where the image lies now: `semicdvl suggest {result.out} --{date} FILE`"
        raise InputError(path, f"is not there any more, and {result.out.name} was made of it", remedy)
    if "bytes" in facts and Path(path).stat().st_size != facts["bytes"]:
        raise InputError(path, f"is not the image that {result.out.name} was made of", "Run `semicdvl detect` again")
    return path


def _next(record: Mapping[str, Any], settings: SuggestSettings, result: Result) -> str:
    """Return the command that makes training patches of the boxes, once they are labelled."""
    before, after = (getattr(settings, date) or record["inputs"][date]["path"] for date in ("before", "after"))
    named = {"before": before, "after": after, "labels": "changes.gpkg", "labelled-area": result.out / FILES[0]}
    files = " ".join(f"--{option} {shlex.quote(str(value))}" for option, value in named.items())
    return f"semicdvl prepare {files} --size-px {settings.patch_px} --buffer-px 0 -o DATA"


# ------------------------------------------------------------------------------------------------ files
def boxes(suggested: Suggested, result: Result) -> gpd.GeoDataFrame:
    """Return the patches as boxes on the map, the first to label first."""
    patches = suggested.patches
    places = zip(patches.row_N.tolist(), patches.col_N.tolist(), strict=True)
    grids = [result.grid.part(row, col, patches.side_px, patches.side_px) for row, col in places]
    return gpd.GeoDataFrame(
        {
            "rank": np.arange(1, len(patches) + 1),
            "doubt": np.round(patches.doubt_N, 4),
            "novelty": np.round(suggested.novelty_N, 4),
            "changed_frac": np.round(patches.changed_frac_N, 4),
            "valid_frac": np.round(patches.valid_frac_N, 4),
            "row_px": patches.row_N,
            "col_px": patches.col_N,
        },
        geometry=[shapely.MultiPolygon([shapely.box(*grid.bounds)]) for grid in grids],
        crs=None if result.grid.crs is None else result.grid.crs.to_wkt(),
    )


def _write(suggested: Suggested, result: Result, pair: RasterPair) -> None:
    """Write both files: they are made in a folder of their own and take their places together."""
    with whole_folder(result.out / ".suggest") as room:
        write_vector(room / FILES[0], boxes(suggested, result), layer="suggest")
        report.write(room / FILES[1], result, pair, suggested.patches, suggested.novelty_N, suggested.notes)
    for name in FILES:
        (result.out / ".suggest" / name).replace(result.out / name)
    (result.out / ".suggest").rmdir()
