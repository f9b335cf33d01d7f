"""Options that several commands share, and what turns them into parts."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

if TYPE_CHECKING:
    from semicdvl.data.pairs import DataSet
    from semicdvl.pseudo.generate import CEGSettings
    from semicdvl.pseudo.prompts import Prompts
    from semicdvl.types import VLM

Find = Annotated[str | None, typer.Option(help="What to look for, in words: house,building")]
Background = Annotated[str | None, typer.Option(help="What else there is, in words: road,grass,tree,water")]
PromptSet = Annotated[str, typer.Option("--prompts", help="A named set of both: buildings, roads, water, forest, ...")]
VLMName = Annotated[str, typer.Option("--vlm", help="See `semicdvl list vlms`; or package.module:builder")]
VLMFrom = Annotated[
    Path | None,
    typer.Option(
        "--weights", "--vlm-from", help="Weights of the VLM: folder, file or hub name; or the folder of kept answers"
    ),
]
Device = Annotated[str | None, typer.Option(help="Where the VLM runs: auto, cpu, cuda, cuda:1; else its own choice")]
Dtype = Annotated[str | None, typer.Option(help="Numbers that it computes with: auto, float32, bfloat16, float16")]
VLMSet = Annotated[
    list[str] | None, typer.Option("--vlm-set", help="Another option of the VLM, key=value: threshold=0.4, sam=DIR")
]
Gsd = Annotated[float | None, typer.Option("--gsd", min=0.01, help="Metres per pixel, where the files don't say")]
Gamma = Annotated[
    float | None, typer.Option(min=0, max=1, help="A pixel is reliable from this score on; else the VLM's own choice")
]
Delta = Annotated[float, typer.Option(min=0, max=1, help="Greatest sum of IoUs of a changed object")]
ShiftPx = Annotated[
    int, typer.Option(min=0, max=32, help="Objects this far apart count as one: dates that don't lie exactly over")
]
ReplacedIoU = Annotated[
    float | None, typer.Option(min=0, max=1, help="Changed, too: an object whose best partner has a lower IoU")
]
ReplacedClass = Annotated[
    bool, typer.Option(help="Changed, too: an object whose partner answers another word (not with synonyms)")
]
DataSetName = Annotated[str, typer.Option("--dataset", help="Reader of DATA, see `semicdvl list datasets`")]


class Level(StrEnum):
    """Kinds of change labels."""

    mixed = "mixed"
    instance = "instance"
    pixel = "pixel"


# ------------------------------------------------------------------------------------------------ options -> parts
def prompts_from(find: str | None, background: str | None, name: str) -> Prompts:
    """Return the prompts that the options name."""
    from semicdvl.pseudo.prompts import prompts_of

    return prompts_of(find=find, background=background, prompt_set=name)


def build_vlm(name: str, weights: Path | None, device: str | None, dtype: str | None, more: list[str] | None) -> VLM:
    """Build a VLM by name, with the options that were given."""
    from semicdvl.checkpoint import build
    from semicdvl.vlms import VLMS
    from semicdvl.vlms.options import options_of

    options = options_of(weights=weights, device=device, dtype=dtype, more=more or ())
    vlm: VLM = build("VLM", name, VLMS, options)
    return vlm


def ceg_settings(vlm: VLM, **settings: Any) -> CEGSettings:
    """Return CEG settings, the options that were not given at their defaults."""
    from semicdvl.pseudo.generate import CEGSettings

    given = {name: value for name, value in settings.items() if value is not None}
    return CEGSettings(**{"gamma": vlm.gamma, "gamma_segmentation": vlm.gamma, **given})


def read_dataset(name: str, root: Path, tile_px: int | None) -> DataSet:
    """Read a data set."""
    from semicdvl.checkpoint import build
    from semicdvl.data import DATASETS

    options: dict[str, Any] = {"root": root} if tile_px is None else {"root": root, "crop_px": tile_px}
    dataset: DataSet = build("data set", name, DATASETS, options)
    return dataset


def scores_table(title: str, columns: dict[str, dict[str, float]]) -> Table:
    """Return scores as a table, one column per set of pairs."""
    table = Table("", *columns, title=title, title_justify="left", box=None, header_style="bold")
    for name in dict.fromkeys(name for scores in columns.values() for name in scores):
        table.add_row(name, *(f"{scores[name]:.4f}" if name in scores else "" for scores in columns.values()))
    return table
