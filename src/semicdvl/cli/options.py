"""Options that several commands share, and what turns them into parts."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from semicdvl.cli.app import out

if TYPE_CHECKING:
    from semicdvl.ceg.prompts import Prompts
    from semicdvl.data.change_dataset import ChangeDataset
    from semicdvl.pseudo_labels.generate import CEGSettings
    from semicdvl.types import VLM

Before = Annotated[
    str, typer.Argument(help="Date 1: a GeoTIFF or another raster, a folder of tiles, a.tif,b.tif, a URL")
]
After = Annotated[
    str, typer.Argument(help="Date 2, likewise; on another grid it is resampled. PNG or JPEG pairs work, too")
]
OneBefore = Annotated[str | None, typer.Argument(help="Date 1: a GeoTIFF or another raster, a folder of tiles, ...")]
OneAfter = Annotated[str | None, typer.Argument(help="Date 2, likewise; on another grid it is resampled")]
Bands = Annotated[
    str | None, typer.Option(help="Numbers of red, green and blue in the files, like 4,3,2; else as tagged, or 1,2,3")
]
AfterBands = Annotated[str | None, typer.Option(help="The same of date 2, where its bands lie in another order")]
GridOf = Annotated[
    str, typer.Option("--grid", help="Whose pixels the result has: before, after, finest, or a raster file")
]
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
MinCosine = Annotated[
    float | None, typer.Option(min=-1, max=1, help="Changed, too: an object whose looks agree less; see --features")
]
FeaturesName = Annotated[
    str | None,
    typer.Option("--features", help="Backbone that says what objects look like: efficientnet_lite0 or one of timm"),
]
DataSetName = Annotated[str, typer.Option("--dataset", help="Reader of DATA, see `semicdvl list datasets`")]


class Level(StrEnum):
    """Kinds of change labels."""

    mixed = "mixed"
    instance = "instance"
    pixel = "pixel"


class Normalise(StrEnum):
    """What is done about the light of two dates."""

    none = "none"
    match = "match"


NormaliseBy = Annotated[
    Normalise, typer.Option(help="match: bring the after image to the before image's light, once for the whole pair")
]
Align = Annotated[bool, typer.Option(help="Move the after image by the shift that `check` measures")]


# ------------------------------------------------------------------------------------------------ options -> parts
def words_in(text: str | None) -> list[str]:
    """Return the words of a list with commas."""
    return [word.strip() for word in (text or "").split(",") if word.strip()]


def numbers_in(text: str | None, option: str) -> tuple[int, ...] | None:
    """Return the whole numbers of a list with commas; None where nothing was given."""
    from semicdvl.errors import ConfigError

    if text is None:
        return None
    try:
        return tuple(int(word) for word in words_in(text))
    except ValueError as error:
        raise ConfigError(f"{option} is {text!r}; wanted whole numbers with commas in between, like 4,3,2.") from error


def prompts_from(find: str | None, background: str | None, name: str) -> Prompts:
    """Return the prompts that the options name."""
    from semicdvl.ceg.prompts import resolve_prompts

    words = resolve_prompts(find=find, background=background, prompt_set=name)
    if find is not None and background is None:
        note = f"Looking for {', '.join(words.find)} against {', '.join(words.background)}: what else there is in the "
        note += (
            f"prompt set '{name}'. Name your own with --background, since a VLM finds what it has no other word for."
        )
        out.print(note, highlight=False, soft_wrap=True, markup=False)
    return words


def build_vlm(name: str, weights: Path | None, device: str | None, dtype: str | None, more: list[str] | None) -> VLM:
    """Build a VLM by name, with the options that were given."""
    from semicdvl.registry import build_part
    from semicdvl.vlms import VLMS
    from semicdvl.vlms.options import parse_vlm_options

    options = parse_vlm_options(weights=weights, device=device, dtype=dtype, assignments=more or ())
    vlm: VLM = build_part("VLM", name, VLMS, options)
    return vlm


def ceg_settings(vlm: VLM, **settings: Any) -> CEGSettings:
    """Return CEG settings, the options that were not given at their defaults."""
    from semicdvl.pseudo_labels.generate import CEGSettings

    given = {name: value for name, value in settings.items() if value is not None}
    return CEGSettings(**{"gamma": vlm.gamma, "gamma_segmentation": vlm.gamma, **given})


def refuse_idle(context: typer.Context, *, model: Path | None, method: str | None) -> None:
    """Refuse options that were given and that the chosen detector does not look at.

    Raises:
        ConfigError: there is one; the text names it.
    """
    from semicdvl.detection.detectors.unsupervised import refuse_unused_options as refuse

    given = {}
    for option in context.command.params:
        source = context.get_parameter_source(str(option.name))
        if source is not None and source.name in ("COMMANDLINE", "ENVIRONMENT"):
            given[str(option.name)] = " / ".join(option.opts)
    refuse(given, model=model, method=method)


def read_dataset(name: str, root: Path, tile_px: int | None) -> ChangeDataset:
    """Read a data set."""
    from semicdvl.data import DATASETS
    from semicdvl.registry import build_part

    options: dict[str, Any] = {"root": root} if tile_px is None else {"root": root, "crop_px": tile_px}
    dataset: ChangeDataset = build_part("data set", name, DATASETS, options)
    return dataset


def scores_table(title: str, columns: dict[str, dict[str, float]]) -> Table:
    """Return scores as a table, one column per set of pairs."""
    table = Table("", *columns, title=title, title_justify="left", box=None, header_style="bold")
    for name in dict.fromkeys(name for scores in columns.values() for name in scores):
        table.add_row(name, *(f"{scores[name]:.4f}" if name in scores else "" for scores in columns.values()))
    return table


def failures_table(errors: dict[str, str]) -> Table:
    """Return what failed and why, one line each."""
    table = Table("", "failed", title_justify="left", box=None, header_style="bold red")
    for name, error in errors.items():
        table.add_row(escape(name), escape(error))
    return table
