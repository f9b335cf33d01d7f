"""Detect change between two images, in memory or into a folder; and check whether two images fit each other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from semicdvl.api.images import ImageSource, convert_image
from semicdvl.api.parts import create_detector, create_vlm_detector, load_detector
from semicdvl.detection.inputs import ArrayImage
from semicdvl.errors import ConfigError, InputError
from semicdvl.raster.io.inputs import ImageInput, is_local_name, resolve_input
from semicdvl.types import Detector

if TYPE_CHECKING:
    from rich.console import Console

    from semicdvl.ceg.prompts import Prompts
    from semicdvl.demo import DemoConfig, DemoRow
    from semicdvl.detection.batch.outcomes import BatchResult
    from semicdvl.detection.config import DetectionConfig
    from semicdvl.detection.pair_check.results import PairCheck
    from semicdvl.detection.results import DetectionResult
    from semicdvl.detection.run_record import SavedDetection
    from semicdvl.detection.tiles.tile_runner import TileExecutor
    from semicdvl.types import VLM


def detect(
    before: ImageSource,
    after: ImageSource,
    *,
    model: str | Path | None = None,
    method: str | None = None,
    vlm: str | VLM = "aerial",
    prompts: str | Prompts = "buildings",
    detector: Detector | Callable[[], Detector] | None = None,
    config: DetectionConfig | None = None,
    progress: bool = False,
    trust: Sequence[str] = (),
) -> DetectionResult:
    """Detect what changed between two images of one place; nothing is written to disk unless asked.

    By default no labels are needed: a vision-language model (VLM) segments each date, and change event generation
    compares the two answers. `model` runs a trained network, `method` an unsupervised method.

    Args:
        before: image of date 1: a path, a folder of tiles, an address, an open rasterio dataset, an xarray.DataArray
            with a CRS, a NumPy array HWC of uint8 (red, green and blue first), or an `ArrayImage`.
        after: image of date 2, likewise. Where both are georeferenced it is resampled onto the grid of the result;
            arrays without georeference must be of one shape.
        model: a trained run, or a file of `export`.
        method: an unsupervised method, see `list_detectors`.
        vlm: without `model` and `method`: the VLM, by a name of `list_vlms` or as an object.
        prompts: what the VLM looks for: a name of `list_prompt_sets`, or `Prompts`.
        detector: in place of the four above: from `load_detector`, `create_detector` or `create_vlm_detector`.
        config: how the images are read and the map is made, see `DetectionConfig`.
        progress: show progress on standard error.
        trust: modules whose networks the run of `model` may name, see `load_model`.

    Returns:
        DetectionResult: `.change` (uint8 HW: 1 changed, 0 unchanged, 255 no data), `.score` (float32 HW in [0, 1],
        NaN no data), `.objects` (GeoDataFrame), `.t1` and `.t2` (classes of the dates, or None), `.warnings`, and
        `.save(folder)`, which writes the files that `detect_to_folder` writes.

    Raises:
        InputError: an image cannot be used, or the two have no pixel with data in common.
        ConfigError: arguments exclude each other, or a name or a setting is unknown.
        CheckpointError: `model` is no trained run and no exported file.

    Examples:
        >>> import semicdvl as cd
        >>> detector = cd.create_detector("cva", threshold="otsu")
        >>> result = cd.detect(before, after, detector=detector)     # two arrays of 64 x 96 px
        >>> result.change.shape, result.score.dtype
        ((64, 96), dtype('float32'))
        >>> list(result.objects["area_px"])
        [1200.0]
    """
    from semicdvl.detection.pipeline import detect_in_memory

    chosen = _choose_detector(detector, model=model, method=method, vlm=vlm, prompts=prompts, trust=trust)
    first, second = convert_image(before, name="before"), convert_image(after, name="after")
    return detect_in_memory(
        first,
        second,
        detector=_build(chosen, progress=progress, images=(first, second)),
        config=config,
        progress=_open_console(progress),
    )


def detect_to_folder(
    before: str | Path | Sequence[str | Path],
    after: str | Path | Sequence[str | Path],
    out: str | Path,
    *,
    detector: Detector | Callable[[], Detector] | None = None,
    config: DetectionConfig | None = None,
    executor: Literal["local", "ray"] = "local",
    workers: int = 1,
    progress: bool = True,
) -> SavedDetection:
    """Detect what changed between two rasters of any size and write the map, the polygons and a report to a folder.

    Memory does not grow with the rasters, an interrupted run resumes with the same bytes, and the folder is written
    whole or not at all. It holds `change.tif`, `score.tif`, `t1.tif` and `t2.tif` (where there are classes),
    `changes.gpkg`, `changes.qml`, `report.html` and `run.json`.

    Args:
        before: image of date 1: a path, a folder of tiles, an address, or several files that make a mosaic.
        after: image of date 2, likewise.
        out: the folder. An earlier result in it is replaced.
        detector: from `load_detector`, `create_detector` or `create_vlm_detector`, or a function without arguments that
            calls one of these (`functools.partial`); None: the VLM `aerial` looks for buildings.
        config: how the images are read and the map is made, see `DetectionConfig`.
        executor: where tiles are computed: "local" is this process, "ray" a Ray cluster. The result is the same.
        workers: processes of the executor "ray"; each builds the detector once, so `detector` must be a function.
        progress: show progress on standard error.

    Returns:
        SavedDetection: `.folder`, `.summary` (the result in numbers), `.warnings`, `.reliability` and `.seconds`.

    Raises:
        InputError: an image cannot be used, or the two have no pixel with data in common.
        OutputError: `out` holds other things, or cannot be written.
        ConfigError: impossible settings, or more bands than the detector takes.
        MissingExtraError: an optional package is missing.

    Examples:
        >>> import semicdvl as cd
        >>> saved = cd.detect_to_folder(before_tif, after_tif, out, detector=cd.create_detector("cva"), progress=False)
        >>> (saved.folder / "changes.gpkg").is_file()
        True
    """
    from semicdvl.detection import pipeline

    chosen = create_vlm_detector if detector is None else detector
    built = _build(chosen, progress=progress, images=(before, after))
    with _open_executor(executor, workers=workers, detector=chosen, built=built) as tiles:
        return pipeline.write_detection(
            before, after, Path(out), detector=built, config=config, progress=_open_console(progress), executor=tiles
        )


def detect_pairs(
    table: str | Path,
    out: str | Path,
    *,
    detector: Detector | Callable[[], Detector] | None = None,
    config: DetectionConfig | None = None,
    executor: Literal["local", "ray"] = "local",
    workers: int = 1,
    progress: bool = True,
) -> BatchResult:
    """Detect what changed in every pair of a table; what is finished is not done again.

    Each pair is written to `out/NAME` as `detect_to_folder` does, `out/index.html` lists them all. A pair that fails
    does not stop the others.

    Args:
        table: a CSV or parquet file with the columns `before` and `after` and, if you like, `name`. Paths are relative
            to the folder of the table.
        out: the folder of all results.
        detector: see `detect_to_folder`.
        config: see `DetectionConfig`.
        executor: see `detect_to_folder`.
        workers: see `detect_to_folder`.
        progress: show progress on standard error.

    Returns:
        BatchResult: `.outcomes`, one for each pair, `.failed`, those that failed, and `.summary`.

    Raises:
        InputError: the table cannot be used.
        OutputError: `out` holds other things, or cannot be written.
        ConfigError, MissingExtraError: as `detect_to_folder`.

    Examples:
        >>> import semicdvl as cd
        >>> done = cd.detect_pairs(table, out, detector=cd.create_detector("cva"), progress=False)
        >>> [(one.name, one.state) for one in done.outcomes], len(done.failed)
        ([('north', 'done')], 0)
    """
    from semicdvl.detection.batch.pairs_table import read_pairs
    from semicdvl.detection.batch.run import detect_batch

    pairs, chosen = read_pairs(Path(table)), create_vlm_detector if detector is None else detector
    built = _build(chosen, progress=progress)
    with _open_executor(executor, workers=workers, detector=chosen, built=built) as tiles:
        return detect_batch(
            pairs, Path(out), detector=built, config=config, progress=_open_console(progress), executor=tiles
        )


def check_pair(
    before: str | Path | Sequence[str | Path],
    after: str | Path | Sequence[str | Path],
    *,
    out: str | Path | None = None,
    bands: Sequence[int] | None = None,
    after_bands: Sequence[int] | None = None,
    grid: str | Path = "before",
    alpha: str = "auto",
    stretch: str = "auto",
    collar: str = "auto",
    allow_outside: bool = False,
) -> PairCheck:
    """Check whether two images fit each other: grid, CRS, overlap, no-data, radiometry, and the shift between them.

    Args:
        before: image of date 1: a path, a folder of tiles, an address, or several files that make a mosaic.
        after: image of date 2, likewise.
        out: a folder for `check.json` and `check.html`; None writes nothing.
        bands: 1-based numbers of the bands to read, red, green and blue first; None: as named or tagged, or the
            first three.
        after_bands: the same for date 2, where its bands are in another order.
        grid: grid of the comparison: "before", "after", "finest", "utm" (square pixels), or a raster file.
        alpha: which band says where there is data: "auto" (the one tagged as alpha, unless it holds many values),
            "none", or the number of a band.
        stretch: how data that are not 8-bit become grey values: "auto" (one robust stretch for both dates where their
            values are comparable), "each" (one per date), or "LOW,HIGH" in data values.
        collar: which borders without a no-data tag count as no data: "auto" (of one colour, with a straight edge, and
            solid black ones), "black", "white" or "none".
        allow_outside: let a virtual raster (VRT) have sources outside of its folder.

    Returns:
        PairCheck: `.verdict` (0 fine, 1 usable with warnings, 2 not usable), `.meaning`, `.findings`, `.shift`.

    Raises:
        InputError: an image cannot be opened or read, or the two do not overlap.
        OutputError: the folder cannot be written.

    Examples:
        >>> import semicdvl as cd
        >>> checked = cd.check_pair(before_tif, after_tif)
        >>> checked.verdict in (0, 1), checked.height_px, checked.width_px
        (True, 64, 96)
    """
    from semicdvl.detection.config import DetectionConfig
    from semicdvl.detection.pair_check.check import check_image_pair

    config = DetectionConfig(
        bands=None if bands is None else tuple(bands),
        after_bands=None if after_bands is None else tuple(after_bands),
        grid=str(grid),
        alpha=alpha,
        stretch=stretch,
        collar=collar,
        allow_outside=allow_outside,
    )
    return check_image_pair(before, after, None if out is None else Path(out), config=config)


def run_demo(
    out: str | Path = "demo", *, seed: int = 0, config: DemoConfig | None = None, console: Console | None = None
) -> list[DemoRow]:
    """Run the whole workflow on a synthetic city pair, offline: detect, pseudo-label, train, evaluate, one report.

    Args:
        out: the folder for the city, the runs and the report; started again, it resumes.
        seed: another seed is another city.
        config: size of the demonstration; the default takes some minutes on two cores.
        console: where progress and the table are printed; None: standard output.

    Returns:
        A row for each way of detecting change: `.title`, `.folder`, `.counts` on the held-out part and `.seconds`.

    Raises:
        OutputError, CheckpointError: `out` cannot be written or holds something else.

    Examples:
        >>> import semicdvl as cd
        >>> rows = cd.run_demo("demo")                                          # doctest: +SKIP
        >>> [(row.title, row.counts.iou) for row in rows]                       # doctest: +SKIP
    """
    from semicdvl import demo

    return demo.run_demonstration(Path(out), seed=seed, console=console, config=config)


# ------------------------------------------------------------------------------------------------ arguments -> parts
def _choose_detector(
    detector: Detector | Callable[[], Detector] | None,
    *,
    model: str | Path | None = None,
    method: str | None = None,
    vlm: str | VLM = "aerial",
    prompts: str | Prompts = "buildings",
    trust: Sequence[str] = (),
) -> Detector | Callable[[], Detector]:
    """Return the detector that the arguments mean, or what builds it.

    Raises:
        ConfigError: more than one was given.
    """
    named = {"detector": detector, "model": model, "method": method}
    given = [name for name, value in named.items() if value is not None]
    if len(given) > 1:
        raise ConfigError(f"{' and '.join(given)} each name a detector. Give one of them.")
    if detector is not None:
        return detector
    if model is not None:
        return partial(load_detector, model, trust=trust)
    if method is not None:
        return partial(create_detector, method)
    return partial(create_vlm_detector, vlm, prompts=prompts)


def _build(
    detector: Detector | Callable[[], Detector], *, progress: bool, images: Sequence[ImageInput | ArrayImage] = ()
) -> Detector:
    """Return a detector, built now if it is not yet: importing what it computes with takes seconds.

    Names of images that do not exist are refused before.
    """
    named = (resolve_input(image) for image in images if not isinstance(image, ArrayImage))
    for name in (name for one in named for name in one.gdal_names):
        if is_local_name(name) and not Path(name).exists():
            raise InputError(name, "The file does not exist", "Check the spelling and the folder")
    if isinstance(detector, Detector):
        return detector
    with _open_console(progress).status("loading the detector"):
        return detector()


def _open_executor(
    name: str, *, workers: int, detector: Detector | Callable[[], Detector], built: Detector
) -> AbstractContextManager[TileExecutor | None]:
    """Open what computes the tiles; None for this process.

    Raises:
        ConfigError: an executor with workers and a detector that is built already, or an unknown executor.
    """
    if name == "local" and workers == 1:
        return nullcontext()
    if name != "local" and isinstance(detector, Detector):
        raise ConfigError(
            f"executor '{name}': each worker builds its own detector, so give a function that builds it, "
            "such as functools.partial(semicdvl.load_detector, 'runs/few')."
        )
    from semicdvl.detection.tiles.ray_executor import open_executor

    return open_executor(name, workers=workers, build=partial(_build, detector, progress=False), built=built)


def _open_console(progress: bool) -> Console:
    """Return where progress is shown."""
    from rich.console import Console

    return Console(stderr=True, quiet=not progress, force_jupyter=False)
