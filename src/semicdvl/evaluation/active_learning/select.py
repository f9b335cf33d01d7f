"""Choose the patches to label next: where a result is most uncertain, without choosing similar patches twice.

Map and score of a result give the uncertainty of each patch (`patch_scores.compute_uncertainty`). Patches are chosen
one after the other, the one with the largest product of uncertainty and distance in appearance from all chosen before.
It is the farthest-first traversal of a core set (Sener and Savarese 2018, "Active learning for convolutional neural
networks: a core-set approach"), weighted by uncertainty: without the weight it would cover everything, without the
distance it would choose twenty patches of one car park.
"""

from __future__ import annotations

import shlex
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import geopandas as gpd
import numpy as np
import shapely
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from semicdvl.ceg.features import FeatureExtractor
from semicdvl.detection.config import list_reading_words
from semicdvl.detection.run_record import StoredRecord, read_run_record
from semicdvl.errors import ConfigError, InputError
from semicdvl.evaluation.active_learning import report
from semicdvl.evaluation.active_learning.patch_scores import PatchScores, describe_patches, score_patches
from semicdvl.evaluation.map_vs_truth import DetectedMap, read_detected_map
from semicdvl.outputs.exchange import write_file_set
from semicdvl.outputs.locks import lock_argument
from semicdvl.raster.grid import find_pixel_offset
from semicdvl.raster.io.inputs import resolve_input
from semicdvl.raster.io.open_pair import GRID_CHOICES
from semicdvl.raster.io.pair_reader import RasterPair
from semicdvl.raster.registration.co_registration import open_registered_pair
from semicdvl.raster.vector.files import write_vector
from semicdvl.reading.regular_files import is_file
from semicdvl.reports.numbers import format_count
from semicdvl.types import ReadingSettings

SUGGESTION_FILES = ("suggest.gpkg", "suggest.html")
MIN_PATCH_VALID_FRAC = 0.5
"""Patches with a smaller share of data at both dates are never suggested."""
REDUNDANT_WEIGHT = 0.1
"""Weight of a patch with the same appearance as one chosen before, relative to a patch unlike all of them."""
MAX_CANDIDATES = 20_000
"""Largest number of patches, the most uncertain ones, whose appearance is read from both images."""


@dataclass(frozen=True)
class SuggestConfig:
    """The settings of a choice of patches.

    Attributes:
        count: number of patches.
        patch_px: side of a patch; `semicdvl prepare --size-px` should be the same.
        seed: decides between equally good patches.
        before: where the image of date 1 is now; None: where the result says.
        after: the same for date 2.

    Examples:
        >>> import semicdvl as cd
        >>> cd.SuggestConfig(count=10, patch_px=128).count
        10
    """

    count: int = 20
    patch_px: int = 256
    seed: int = 0
    before: str | None = None
    after: str | None = None

    def __post_init__(self) -> None:
        """Refuse numbers out of range.

        Raises:
            ConfigError: a number is out of range.
        """
        if self.count < 1 or self.patch_px < 32:
            raise ConfigError(
                f"A count of {self.count} and a side of {self.patch_px} px are not possible. Give at least 1 patch of"
                " at least 32 px."
            )


@dataclass(frozen=True)
class PatchSuggestions:
    """The patches to label next.

    Attributes:
        out: folder of the result, with suggest.gpkg and suggest.html.
        patches: the chosen patches, the first to label first.
        novelty_N: distance in appearance of each from those before it, 0 to 1.
        candidate_count: number of patches to choose from.
        notes: what a reader should know.
        next_command: the command that makes training patches of them.

    Examples:
        >>> import semicdvl as cd
        >>> saved = cd.detect_to_folder(before_tif, after_tif, out, detector=cd.create_detector("cva"), progress=False)
        >>> suggested = cd.suggest(saved.folder, config=cd.SuggestConfig(count=2, patch_px=32))
        >>> "suggest.gpkg" in suggested.summary
        True
    """

    out: Path
    patches: PatchScores
    novelty_N: NDArray[np.float64]
    candidate_count: int
    notes: tuple[str, ...]
    next_command: str

    @property
    def summary(self) -> str:
        """All of that in a few lines."""
        patches, frac = self.patches, float(self.patches.uncertainty_N.mean())
        were = "was" if len(patches) == 1 else "were"
        candidates = format_count(self.candidate_count, "patch", "patches")
        count = f"{len(patches)} of {candidates} of {patches.side_px} px {were} chosen"
        lines = [
            f"{count}; their mean uncertainty is {frac:.1%}",
            *(f"note: {note}" for note in self.notes),
        ]
        lines += [f"boxes:  {self.out / SUGGESTION_FILES[0]}", f"report: {self.out / SUGGESTION_FILES[1]}"]
        return "\n".join([*lines, "Digitise all changes inside the boxes as polygons, then:", f"  {self.next_command}"])


@lock_argument("out")
def suggest_patches(
    out: Path, *, config: SuggestConfig | None = None, source: FeatureExtractor | None = None
) -> PatchSuggestions:
    """Choose patches of a result to label and write them as boxes (suggest.gpkg) and as a report (suggest.html).

    Args:
        out: folder that `detect` wrote.
        config: the settings; None: the defaults.
        source: extracts features to compare patches by; None: colours and edges.

    Raises:
        InputError: `out` is not a result, a file in it is damaged, or the images are not where they were.
        ConfigError: no patch fits, or none has data.
        OutputError: the folder cannot be written.
    """
    config, result = config or SuggestConfig(), read_detected_map(Path(out))
    record = read_run_record(result.out)
    every = score_patches(result, side_px=config.patch_px)
    usable, notes = _filter_usable(every, config, result)
    with ExitStack() as held:
        pair = held.enter_context(_open_images(result, record, config))
        progress = partial(track, description="reading patches", console=Console(stderr=True), transient=True)
        looks_ND = describe_patches(pair, usable, source=source, shown=progress)
        order_N, novelty_N = select_patches(usable.uncertainty_N, looks_ND, count=config.count, seed=config.seed)
        picked = usable.select(order_N)
        suggested = PatchSuggestions(
            result.out, picked, novelty_N, len(usable), notes, _format_next_command(record, config, result)
        )
        _write_files(suggested, result, pair)
    return suggested


# ------------------------------------------------------------------------------------------------ which
def select_patches(
    uncertainty_N: NDArray[np.floating], appearance_ND: NDArray[np.floating], *, count: int, seed: int = 0
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return the chosen ones of N in order, and the distance of each from those before it (0-1; the first: 1).

    Args:
        uncertainty_N: weight of each, not negative.
        appearance_ND: description of each.
        count: how many to choose; all where there are fewer.
        seed: decides between equally good ones.
    """
    many = len(uncertainty_N)
    tie_N = np.random.default_rng(seed).permutation(many)
    left_N, nearest_N = np.ones(many, bool), np.full(many, np.inf)
    order: list[int] = []
    novelty: list[float] = []
    spread = 0.0
    for _ in range(min(count, many)):
        new_N = np.ones(many) if not order else nearest_N / max(spread, 1e-12)
        worth_N = np.where(
            left_N, np.asarray(uncertainty_N, np.float64) * (REDUNDANT_WEIGHT + (1 - REDUNDANT_WEIGHT) * new_N), -1.0
        )
        best = int(np.lexsort((tie_N, -np.where(left_N, uncertainty_N, -1.0), -worth_N))[0])
        order.append(best)
        novelty.append(float(np.clip(new_N[best], 0, 1)))
        left_N[best] = False
        distance_N = np.sqrt(((appearance_ND - appearance_ND[best]) ** 2).mean(axis=1, dtype=np.float64))
        nearest_N = np.minimum(nearest_N, distance_N)
        spread = spread or float(distance_N.max())
    return np.array(order, np.int64), np.array(novelty)


def _filter_usable(
    every: PatchScores, config: SuggestConfig, result: DetectedMap
) -> tuple[PatchScores, tuple[str, ...]]:
    """Return the patches to choose from, and notes about them."""
    full = every.select(every.valid_frac_N == 1)
    usable, notes = full, []
    if len(full) < config.count:
        usable = every.select(every.valid_frac_N >= MIN_PATCH_VALID_FRAC)
        if len(usable) > len(full):
            notes.append(
                f"Complete data: {format_count(len(full), 'patch', 'patches')}. Patches with data on half of their "
                "pixels are candidates, too."
            )
            notes.append("Run `semicdvl prepare` with --min-known-frac below 1 to keep such patches.")
    if not len(usable):
        raise ConfigError(
            f"{result.out}: no patch of {config.patch_px} px has data at both dates. Give a smaller --patch-px."
        )
    if len(usable) < config.count:
        notes.append(
            f"{config.count} patches were requested. There {'is' if len(usable) == 1 else 'are'} only {len(usable)}, "
            "and all of them are listed."
        )
    if result.grid.crs is None:
        notes.append("The result has no CRS: the boxes are in pixels (x = column, y = row).")
    most = np.argsort(-usable.uncertainty_N, kind="stable")[:MAX_CANDIDATES]
    return usable.select(np.sort(most)), tuple(notes)


# ------------------------------------------------------------------------------------------------ the images
def _open_images(result: DetectedMap, record: StoredRecord, config: SuggestConfig) -> RasterPair:
    """Open the images of a result, read as they were for the detection."""
    before = _locate_image(result, record, "before", config.before)
    after = _locate_image(result, record, "after", config.after)
    try:
        pair = open_registered_pair(before, after, _get_settings(result, record)).pair.select_rgb()
    except ConfigError as error:
        raise ConfigError(f"{result.out / 'run.json'}: {error}") from error
    if find_pixel_offset(result.grid, pair.grid) != (0, 0) or pair.shape_hw != (result.grid.height, result.grid.width):
        pair.close()
        remedy = "Give the images that the result was made of (--before, --after), or run `semicdvl detect` again"
        raise InputError(result.out, "has another grid than the images that are there now", remedy)
    return pair


def _get_settings(result: DetectedMap, record: StoredRecord) -> ReadingSettings:
    """Return how the images were read; a file or an address that gave the grid is not opened: the map has its grid."""
    settings = record.settings
    return settings if settings.grid in GRID_CHOICES else replace(settings, grid=str(result.out / "change.tif"))


def _locate_image(result: DetectedMap, record: StoredRecord, date: str, given: str | None) -> str:
    """Return the path of the image of a date."""
    if given is not None:
        return given
    facts = getattr(record.inputs, date)
    path: str = facts.path
    if facts.size_bytes is None and resolve_input(path).is_remote:
        remedy = f"Name it yourself: `semicdvl suggest {result.out} --{date} ADDRESS`"
        raise InputError(
            path, f"is an address that {result.out.name}/run.json names; nothing is fetched for it", remedy
        )
    if facts.size_bytes is not None and not is_file(path):
        remedy = f"Give its new path: `semicdvl suggest {result.out} --{date} FILE`"
        raise InputError(path, f"does not exist any more, but {result.out.name} was made of it", remedy)
    if facts.size_bytes is not None and Path(path).stat().st_size != facts.size_bytes:
        raise InputError(path, f"is not the image that {result.out.name} was made of", "Run `semicdvl detect` again")
    return path


def _format_next_command(record: StoredRecord, config: SuggestConfig, result: DetectedMap) -> str:
    """Return the command that makes training patches of the boxes, once they are labelled."""
    before, after = (getattr(config, date) or getattr(record.inputs, date).path for date in ("before", "after"))
    named = {
        "before": before,
        "after": after,
        "labels": "changes.gpkg",
        "labelled-area": result.out / SUGGESTION_FILES[0],
    }
    files = " ".join(f"--{option} {shlex.quote(str(value))}" for option, value in named.items())
    reading = " ".join([files, *map(shlex.quote, list_reading_words(_get_settings(result, record)))])
    return f"semicdvl prepare {reading} --size-px {config.patch_px} --buffer-px 0 -o DATA"


# ------------------------------------------------------------------------------------------------ files
def build_boxes(suggested: PatchSuggestions, result: DetectedMap) -> gpd.GeoDataFrame:
    """Return the patches as boxes in map coordinates, the first to label first."""
    patches = suggested.patches
    places = zip(patches.row_N.tolist(), patches.col_N.tolist(), strict=True)
    grids = [result.grid.window(row, col, patches.side_px, patches.side_px) for row, col in places]
    return gpd.GeoDataFrame(
        {
            "rank": np.arange(1, len(patches) + 1),
            "doubt": np.round(patches.uncertainty_N, 4),
            "novelty": np.round(suggested.novelty_N, 4),
            "changed_frac": np.round(patches.changed_frac_N, 4),
            "valid_frac": np.round(patches.valid_frac_N, 4),
            "row_px": patches.row_N,
            "col_px": patches.col_N,
        },
        geometry=[shapely.MultiPolygon([shapely.box(*grid.bounds)]) for grid in grids],
        crs=None if result.grid.crs is None else result.grid.crs.to_wkt(),
    )


def _write_files(suggested: PatchSuggestions, result: DetectedMap, pair: RasterPair) -> None:
    """Write both files to a temporary folder and move them to their places together."""
    with write_file_set(result.out) as room:
        write_vector(room / SUGGESTION_FILES[0], build_boxes(suggested, result), layer="suggest")
        report.write_suggestion_report(
            room / SUGGESTION_FILES[1], result, pair, suggested.patches, suggested.novelty_N, suggested.notes
        )
