"""The settings of a detection, in one object that is handed through whole."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from pathlib import Path

from semicdvl.errors import ConfigError
from semicdvl.raster.vector.files import get_vector_format
from semicdvl.reading.limits import MAX_GSD_M, MIN_GSD_M
from semicdvl.types import Detector
from semicdvl.types.settings import ReadingSettings, check_finite

GDAL_CACHE_BYTES = 128 * 2**20
"""Memory that GDAL may use for the rasters it reads; its own default is a share of the machine's memory."""
GDAL_WRITE_CACHE_BYTES = 64 * 2**20
"""The same while rasters are written: a row of internal tiles of them. More is slower, and fragments the memory."""
POSTPROCESSING_SETTINGS = ("min_area_m2", "simplify_m", "regularise", "polygons", "title", "overwrite", "force")
"""Settings that do not change the tiles' score maps: an interrupted run can be resumed with other values of these."""


@dataclass(frozen=True)
class DetectionConfig(ReadingSettings):
    """The settings of one detection: those of `ReadingSettings`, which say how the images are read, and its own.

    More than three bands are for detectors that accept any number of them.

    Attributes:
        tile_px: about the side of a tile in pixels: tiles are even, and up to an eighth larger where that makes fewer.
            The memory of a tile grows with its square.
        overlap_px: over how many pixels neighbouring tiles are blended; a detector should not look much further than
            half of it.
        min_area_m2: smaller objects are left out of the map and of the polygons (0: none are). Counted in pixels where
            the size of a pixel is not known. None: what the detector usually leaves out (`Detector.usual_area_m2`: 12
            at the level residual; at others 20 where buildings are looked for, 10 for other words; nothing with a
            network or an unsupervised method), and nothing where the size of a pixel is not known.
        gsd_m: metres per pixel, for files that do not say it (or say it wrong); handed to the detector.
        simplify_m: tolerance in metres by which the polygons are simplified (0: not at all).
        regularise: give polygons right angles where these fit, for buildings.
        polygons: vector formats beside changes.gpkg: "geojson", "fgb", "parquet" (`raster.vector.formats`).
        title: heading of the report; None: made from the file names.
        overwrite: use the output folder even if it holds other files than an earlier result; those files stay.
        force: call the result reliable even where images or words lie beyond what the detector was measured on. The
            result is the same, and the reasons against it are written all the same.
        allow_outside: let a virtual raster (VRT) have sources outside of its folder.

    Examples:
        >>> import semicdvl as cd
        >>> config = cd.DetectionConfig(gsd_m=0.5, min_area_m2=25, polygons=("geojson",))
        >>> config.tile_px, config.min_area_m2
        (1024, 25)
    """

    tile_px: int = 1024
    overlap_px: int = 128
    min_area_m2: float | None = None
    gsd_m: float | None = None
    simplify_m: float = 0.0
    regularise: bool = False
    polygons: tuple[str, ...] = ()
    title: str | None = None
    overwrite: bool = False
    force: bool = False
    allow_outside: bool = False

    def __post_init__(self) -> None:
        """Refuse numbers that nothing can be computed with.

        Raises:
            ConfigError: an area or a length is not finite or negative, or a pixel size is beyond the limits.
        """
        check_finite(self, "min_area_m2", "simplify_m", "gsd_m")
        if (self.min_area_m2 or 0) < 0 or self.simplify_m < 0:
            given = f"min_area_m2 = {self.min_area_m2 or 0:g}, simplify_m = {self.simplify_m:g}"
            raise ConfigError(f"{given}: give 0 or more.")
        if self.gsd_m is not None and not MIN_GSD_M <= self.gsd_m <= MAX_GSD_M:
            limits = f"from {MIN_GSD_M:g} to {MAX_GSD_M:,}"
            raise ConfigError(f"gsd_m = {self.gsd_m:g}: give the size of a pixel in metres, {limits}.")


def list_reading_words(reading: ReadingSettings) -> list[str]:
    """Return the options of a command line that read images as these settings do; defaults are left out."""
    words: list[str] = []
    for field in fields(ReadingSettings):
        value, option = getattr(reading, field.name), f"--{field.name.replace('_', '-')}"
        if value == field.default:
            continue
        shown = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
        words += [option] if value is True else [option, shown]
    return words


def follow_detector(config: DetectionConfig, detector: Detector) -> DetectionConfig:
    """Return the settings with the stretch and the bands that the detector was made with, unless the user gave them."""
    if detector.stretch is not None and config.stretch == "auto":
        config = replace(config, stretch=detector.stretch)
    if detector.bands is not None and config.bands is None:
        config = replace(config, bands=detector.bands)
    return config


def check_config(config: DetectionConfig, detector: Detector) -> None:
    """Refuse settings whose fault would otherwise show only at the end of a long run.

    Raises:
        ConfigError: an unknown vector format, more bands than the detector accepts, or another number of bands than it
            was trained with.
        MissingExtraError: a vector format that needs an optional package.
    """
    for kind in config.polygons:
        get_vector_format(Path(f"changes.{kind}"))
    for bands in (config.bands or (), config.after_bands or ()):
        if detector.bands is not None and bands:
            _require_trained_number(bands, detector.bands, name=detector.name)
        elif detector.max_bands is not None and len(bands) > detector.max_bands:
            listed = ",".join(map(str, bands))
            raise ConfigError(
                f"{detector.name} accepts {detector.max_bands} bands (red, green and blue), but {len(bands)} were "
                f"given ({listed}). Name {detector.max_bands} bands."
            )


def _require_trained_number(bands: tuple[int, ...], trained: tuple[int, ...], *, name: str) -> None:
    """Raise `ConfigError` for another number of bands than a network was trained with."""
    if len(bands) != len(trained):
        raise ConfigError(
            f"{name} was trained with {len(trained)} bands ({','.join(map(str, trained))}), but {len(bands)} were given"
            f" ({','.join(map(str, bands))}). Name {len(trained)} bands, in the order of the training."
        )
