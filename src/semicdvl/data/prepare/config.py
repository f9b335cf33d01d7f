"""Settings of a preparation: how two rasters are cut into patches and divided into subsets."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from semicdvl.errors import ConfigError
from semicdvl.types import ClassLegend
from semicdvl.types.bands import check_band_numbers
from semicdvl.types.settings import ReadingSettings, check_finite

PrepareInputs = dict[str, Path | None]
"""The files of a preparation: `before`, `after`, `labels` and `labelled_area`."""

MIN_PATCH_PX = 32
RGB_BANDS = 3
SETTINGS_SINCE_0_2 = {
    "alpha": "auto",
    "stretch": "auto",
    "collar": "auto",
    "class_columns": None,
    "class_names": None,
    "after_bands": None,
    "grid": "before",
    "normalise": "none",
    "align": False,
}
"""Settings that version 0.1 did not have, with their defaults."""


@dataclass(frozen=True)
class PrepareSettings(ReadingSettings):
    """How rasters are read, see `ReadingSettings`, and cut into patches.

    The values of more than three bands are kept as they are stored, in GeoTIFF patches.

    Attributes:
        size_px: side of a patch.
        val_frac: share of the labelled patches for validation; 0: none.
        test_frac: share of the labelled patches for test; 0: none.
        block_m: side of the blocks of ground that are assigned to one subset as a whole; None: the largest blocks of
            which enough hold a change, see `run.MIN_BLOCKS_WITH_CHANGE`.
        buffer_px: unused gap between blocks; None: a quarter of a patch.
        seed: of the draw of blocks.
        min_valid_frac: patches with a smaller share of pixels with data (on both dates) are skipped.
        min_known_frac: share of a patch on which the label must be known (inside the labelled area, data on both
            dates); patches with less are unlabelled. Below 1, labels hold 128 where nothing is known, and a recipe has
            to set `data.label_values`.
        layer: layer of the file of labels, needed where it has several.
        area_layer: layer of the file of the labelled area, needed where it has several.
        class_columns: columns of the file of labels that hold the class before and after, such as ("from", "to"); None:
            the labels say what changed alone.
        class_names: the classes, in the order of their index; None: all values of both columns, sorted.
        allow_outside: let a virtual raster (VRT) have sources outside of its folder; a permission, not a part of what
            is made.

    Examples:
        >>> import semicdvl as cd
        >>> cd.PrepareSettings(size_px=128, val_frac=0.2).gap_px
        32
    """

    size_px: int = 256
    val_frac: float = 0.15
    test_frac: float = 0.25
    block_m: float | None = None
    buffer_px: int | None = None
    seed: int = 0
    min_valid_frac: float = 0.5
    min_known_frac: float = 1.0
    layer: str | None = None
    area_layer: str | None = None
    class_columns: tuple[str, str] | None = None
    class_names: tuple[str, ...] | None = None
    allow_outside: bool = False

    def __post_init__(self) -> None:
        """Refuse settings by which nothing can be cut.

        Raises:
            ConfigError: a size or a share is out of range, or not finite, or classes don't go with columns.
        """
        check_finite(self, "val_frac", "test_frac", "block_m", "min_valid_frac", "min_known_frac")
        if self.size_px < MIN_PATCH_PX or self.gap_px < 0:
            raise ConfigError(
                f"Patches of {self.size_px} px with gaps of {self.gap_px} px cannot be cut."
                f" Give a patch size of at least {MIN_PATCH_PX} px and a gap of at least 0 px."
            )
        if min(self.val_frac, self.test_frac) < 0 or self.val_frac + self.test_frac >= 1:
            raise ConfigError(
                f"Shares of {self.val_frac:g} for validation and {self.test_frac:g} for test leave nothing to train"
                " with. Give shares from 0 whose sum is below 1."
            )
        if not 0 < self.min_known_frac <= 1:
            raise ConfigError(f"min_known_frac is {self.min_known_frac:g}. Give a share above 0 and up to 1.")
        if self.class_names is not None and self.class_columns is None:
            raise ConfigError("Classes are named, but not the columns that hold them. Give --class-columns FROM,TO.")
        if self.class_names is not None:
            ClassLegend(self.class_names)
        for bands in (self.bands, self.after_bands):
            if bands is not None:
                check_band_numbers(bands)
        if self.block_m is not None and self.block_m <= 0:
            raise ConfigError(f"Blocks of {self.block_m:g} m are not possible. Give a positive length.")

    def list_key_parts(self) -> dict[str, object]:
        """Return the settings that tell one preparation from another; the defaults of newer ones are left out."""
        parts = {name: value for name, value in asdict(self).items() if name != "allow_outside"}
        return dict(item for item in parts.items() if item not in SETTINGS_SINCE_0_2.items())

    @property
    def keeps_values(self) -> bool:
        """Whether the patches hold the values of the bands in place of grey values of red, green and blue."""
        return self.bands is not None and len(self.bands) > RGB_BANDS

    @property
    def image_suffix(self) -> str:
        """Suffix of the images of a patch."""
        return ".tif" if self.keeps_values else ".png"

    @property
    def gap_px(self) -> int:
        """The gap between blocks in pixels."""
        return self.size_px // 4 if self.buffer_px is None else self.buffer_px
