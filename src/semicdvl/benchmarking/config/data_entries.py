"""The data sets of a suite: synthetic cities, real pairs, or a folder of the user's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from semicdvl.ceg.config import CEGLevel, CEGSettings
from semicdvl.config import ConfigSection, DataConfig
from semicdvl.reading.limits import MAX_SEED
from semicdvl.types import VLM


class CEGConfig(ConfigSection):
    """How the VLM's answers become the labels that are trained on; see `ceg.config.CEGSettings`."""

    level: CEGLevel = "mixed"
    gamma: float | None = Field(None, ge=0, le=1, description="None: the VLM's own choice")
    gamma_segmentation: float | None = Field(None, ge=0, le=1, description="None: as gamma")
    delta: float = Field(0.0, ge=0, le=1)

    def make_settings(self, vlm: VLM) -> CEGSettings:
        """Return the settings of change event generation with this VLM."""
        gamma = vlm.gamma if self.gamma is None else self.gamma
        segmentation = gamma if self.gamma_segmentation is None else self.gamma_segmentation
        return CEGSettings(level=self.level, gamma=gamma, gamma_segmentation=segmentation, delta=self.delta)


class DataEntry(ConfigSection):
    """What every data set of a suite has."""

    name: str = Field(description="for the table; letters, digits, - and _")
    ceg: CEGConfig = CEGConfig()
    draw_seed: int | None = Field(
        None,
        ge=0,
        le=MAX_SEED,
        description="seed of one draw of the labelled pairs (and of the subsets) for all runs, as published lists are; "
        "None: each seed draws its own",
    )


class CityEntry(DataEntry):
    """Patches of synthetic cities, and a simulated VLM with errors of chosen size. Each city is in one subset only."""

    kind: Literal["city"] = "city"
    name: str = "city"
    city_px: int = Field(1024, ge=64, description="side of a city in pixels")
    patch_px: int = Field(128, ge=32, description="side of a patch in pixels")
    train_cities: int = Field(4, ge=1)
    val_cities: int = Field(1, ge=1)
    test_cities: int = Field(2, ge=1)
    first_seed: int = Field(100, ge=0, le=MAX_SEED, description="seed of the first city; the others follow")
    city: dict[str, float] = Field(default_factory=dict, description="fields of CitySpec, such as {haze = 0.3}")
    vlm: dict[str, float] = Field(default_factory=dict, description="fields of AnswerErrors, such as {miss_frac = 0.3}")
    classes: bool = Field(
        False,
        description="the patches have the classes of both dates (building, road, vegetation, bare, water), and the "
        "VLM's labels are of these; it is not asked for bare ground",
    )
    classes_known: Literal["everywhere", "changed"] = Field(
        "everywhere",
        description="where the training patches have classes: everywhere, or on changed ground alone, as in SECOND",
    )


class RealEntry(DataEntry):
    """Real building-change pairs, crops of FOTBCD and LEVIR-CD; left out, with a note, where the folder is missing."""

    kind: Literal["real"] = "real"
    name: str = "real"
    root: Path = Field(Path("../shared/data"), description="holds fotbcd/, fotbcd_instances/, levir/, levir_crops/")
    crop_px: int = Field(256, ge=64)
    vlm: str = "aerial"


class FolderEntry(DataEntry):
    """A data set of the user's own, with its pseudo-label store."""

    kind: Literal["folder"] = "folder"
    dataset: str = Field("folder", description="reader, see `semicdvl list datasets`")
    root: Path
    store: Path | None = Field(None, description="what `semicdvl pseudo` wrote; None: methods with a VLM are left out")
    lists: Path | None = Field(
        None, description="published lists: train.txt, 5%/labeled.txt, ...; None: drawn by fraction and seed"
    )
    unlabelled: Path | None = Field(None, description="another data set, whose training pairs join without labels")
    val_frac: float = Field(0.15, ge=0, lt=1)
    test_frac: float = Field(0.25, ge=0, lt=1)
    options: dict[str, Any] = Field(default_factory=dict, description="options of the reader")

    def make_data_config(self, fraction: float, seed: int) -> DataConfig:
        """Return the data section of a recipe for a fraction of labels and the seed of their draw."""
        return DataConfig(
            dataset=self.dataset,
            root=self.root,
            labelled=fraction if self.lists is None else self.lists / f"{100 * fraction:g}%",
            val_frac=self.val_frac,
            test_frac=self.test_frac,
            split_seed=seed,
            unlabelled=self.unlabelled,
            options=self.options,
        )


DATA_KINDS: dict[str, type[CityEntry] | type[RealEntry] | type[FolderEntry]] = {
    "city": CityEntry,
    "real": RealEntry,
    "folder": FolderEntry,
}
