"""Demonstrate the whole pipeline on a synthetic city, offline, with scores on a held-out part of it.

    OUT/city/         two GeoTIFFs, the true change map, and the training patches of the western part
    OUT/no-labels/    `detect` without labels: the embedded VLM and change event generation
    OUT/store/        `pseudo`: the VLM's labels of the training patches
    OUT/runs/         `train`: Sup-only and SemiCD-VL with the same labelled patches; OUT/*.toml are their recipes
    OUT/sup-only/     `detect` with the trained networks
    OUT/semicd-vl/
    OUT/report.html   images and the table; OUT/table.md the table alone

Everything can be interrupted; the same command resumes.
"""

from __future__ import annotations

import shlex
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio
from markupsafe import Markup
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from semicdvl.atomic_files import write_atomically, write_json
from semicdvl.ceg.config import DETECTION_LEVEL
from semicdvl.ceg.features import AERIAL_ENCODER, build_feature_extractor
from semicdvl.ceg.prompts import PROMPT_SETS
from semicdvl.config import load_recipe
from semicdvl.data.readers import folder
from semicdvl.detection.config import DetectionConfig
from semicdvl.detection.detectors.network import build_network_detector
from semicdvl.detection.detectors.vlm_ceg import build_default_detector
from semicdvl.detection.pipeline import write_detection
from semicdvl.metrics.change import ConfusionCounts
from semicdvl.outputs.command_name import name_command
from semicdvl.outputs.locks import lock_argument
from semicdvl.pseudo_labels.generate import CEGSettings
from semicdvl.pseudo_labels.quality import fill_store
from semicdvl.registry import build_part
from semicdvl.reports import html
from semicdvl.reports.colours import OUTCOME_COLOURS, draw_outcomes
from semicdvl.synthetic.city import SyntheticCity
from semicdvl.synthetic.config import CitySpec
from semicdvl.synthetic.generate import generate_city
from semicdvl.synthetic.write import write_city, write_city_patches
from semicdvl.training.run import train_recipe
from semicdvl.types import VLM, Detector
from semicdvl.vlms import VLMS


@dataclass(frozen=True)
class DemoConfig:
    """Size of the demonstration; the default takes some minutes on 2 cores."""

    height_px: int = 1536
    width_px: int = 2048
    patch_px: int = 128
    unseen_frac: float = 0.34  # share of the city, in the east, that is held out: nothing is trained or selected on it
    val_every: int = 6  # every so many rows of patches, one is for validation
    labelled: float = 0.05  # share of the training patches that keep their label
    steps: int = 300
    batch: int = 4
    lr: float = 0.0005


@dataclass(frozen=True)
class DemoRow:
    """One way of detecting change, and its counts on the held-out part."""

    title: str
    folder: str
    counts: ConfusionCounts
    seconds: float


TRAINED_METHODS = (("Sup-only", "supervised", "sup-only"), ("SemiCD-VL", "semicd_vl", "semicd-vl"))


@lock_argument("out")
def run_demonstration(
    out: Path, *, seed: int = 0, console: Console | None = None, config: DemoConfig | None = None
) -> list[DemoRow]:
    """Run the demonstration below `out`, print its table and return the rows.

    Raises:
        OutputError, CheckpointError: `out` cannot be written or holds something else.
    """
    console, config = console or Console(), config or DemoConfig()
    began = time.monotonic()
    console.rule("1/5  a synthetic city at two dates")
    city = generate_city(CitySpec(size_px=(config.height_px, config.width_px), seed=seed))
    files = write_city(city, out / "city")
    patches, split_col = _write_training_patches(city, out / "city" / "patches", config)
    console.print(f"{config.width_px} x {config.height_px} px at {city.spec.gsd_m} m: {files.before} and {files.after}")

    console.rule("2/5  detection without labels: vision-language model and change event generation")
    vlm: VLM = build_part("VLM", "aerial", VLMS, {})
    prompts = PROMPT_SETS["buildings"]
    detector: Detector = build_default_detector(vlm, prompts=prompts)
    rows = [_detect_and_score(city, split_col, out, "No labels (VLM + CEG)", "no-labels", detector, console=console)]

    console.rule("3/5  pseudo-labels of the training patches")
    ceg, features = CEGSettings(level=DETECTION_LEVEL), build_feature_extractor(AERIAL_ENCODER)
    pairs, store = folder.read_folder(patches).select_subset("train"), out / "store"
    filled = fill_store(
        pairs, vlm=vlm, prompts=prompts, settings=ceg, root=store, gsd_m=city.spec.gsd_m, features=features
    )
    console.print(filled.summary, highlight=False)

    console.rule(f"4/5  training with {config.labelled:.0%} of the labels: alone, and guided by the VLM")
    for title, method, name in TRAINED_METHODS:
        recipe = _write_recipe(out, method=method, seed=seed, config=config, gsd_m=city.spec.gsd_m)
        trained = train_recipe(load_recipe(recipe), out / "runs" / method)
        console.print(f"{title}: {trained.seconds:.0f} s", highlight=False)
        detector = build_network_detector(trained.run)
        rows.append(
            _detect_and_score(city, split_col, out, title, name, detector, console=console, train_s=trained.seconds)
        )

    console.rule("5/5  report")
    _write_report(out, city=city, split_col=split_col, rows=rows, config=config, seconds=time.monotonic() - began)
    console.print(_build_table(rows, config))
    console.print(f"report: {out / 'report.html'}", highlight=False)
    console.print(_describe_next_steps(out), highlight=False, soft_wrap=True)
    return rows


def _describe_next_steps(out: Path) -> str:
    """Return how to open the review page on what was just made."""
    folder = shlex.quote((out / "no-labels").as_posix())
    return (
        "Look at the map, accept, reject and redraw what was found (the line that it prints opens in a browser):\n"
        f"  {name_command()} serve {folder}\n"
        "Paint labels where the map is most uncertain, and train on them:\n"
        f"  {name_command()} serve {folder} --label"
    )


# ------------------------------------------------------------------------------------------------ data
def _write_training_patches(city: SyntheticCity, root: Path, config: DemoConfig) -> tuple[Path, int]:
    """Write all patches, those of the held-out part as test; return their folder and the column where it begins.

    Validation rows run through the whole western part: a single strip of the city is not typical of the rest.
    """
    step = config.patch_px
    split_col = int(config.width_px * (1 - config.unseen_frac)) // step * step
    val_every = min(config.val_every, config.height_px // step)
    lists: dict[str, list[str]] = {"train": [], "val": [], "test": []}
    for pair in write_city_patches(city, root, size_px=step):
        row, col = (int(part) for part in pair.name.partition("_r")[2].split("_c"))
        is_val = row // step % val_every == val_every // 2
        lists["test" if col >= split_col else "val" if is_val else "train"].append(pair.name)
    for subset, chosen in lists.items():
        with write_atomically(root / f"{subset}.txt") as temporary:
            temporary.write_text("".join(f"{name}\n" for name in chosen))
    return root, split_col


RECIPE_TEMPLATE = """# Written by `semicdvl demo`; the same by hand: semicdvl train {path} -o {out}/runs/{method}
name = "{method}"
seed = {seed}

[data]
root = "{out}/city/patches"
labelled = {config.labelled}
crop_px = {config.patch_px}
rot90 = true
"""

SUPERVISED_SECTIONS = """
[model]
name = "siam_light"
backbone = "efficientnet_lite0"
decoder_channels = 96

[method]
name = "supervised"
dice_weight = 1.0

[train]
steps = {config.steps}
labelled_batch = {config.batch}
optimizer = "adamw"
lr = {config.lr}
head_lr_multiplier = 4
eval_every = {every}
"""

SEMICD_VL_SECTIONS = """
[pseudo]
store = "{out}/store"

# As recipes/few-labels.toml, where each setting is explained, but for `train.cross_validate`.
[model]
name = "vlm_prior"
gsd_m = {gsd_m}

[method]
name = "semicd_vl"
change_weight = 1.2
vlm_change_weight = 1.2
dual_head = false
decoupled = false
lambda_c = 0.0
strong_view = false
vlm_on_labelled = false
lambda_vl = 6.0
lambda_vl_end = 6.0
full_guidance_labels = 4
vlm_over = "valid"

[train]
optimizer = "lbfgs"
steps = 100
weight_decay = 0.0005
unlabelled_batch = 48
select = "last"
"""


def _write_recipe(out: Path, *, method: str, seed: int, config: DemoConfig, gsd_m: float) -> Path:
    """Write the recipe of one method; the recipes share the labelled patches."""
    path = out / f"{method}.toml"
    sections = SEMICD_VL_SECTIONS if method == "semicd_vl" else SUPERVISED_SECTIONS
    parts = {"path": path.as_posix(), "out": out.as_posix(), "method": method, "gsd_m": gsd_m}
    every = max(config.steps // 6, 1)
    with write_atomically(path) as temporary:
        temporary.write_text((RECIPE_TEMPLATE + sections).format(**parts, seed=seed, config=config, every=every))
    return path


def _detect_and_score(
    city: SyntheticCity,
    split_col: int,
    out: Path,
    title: str,
    name: str,
    detector: Detector,
    *,
    console: Console,
    train_s: float = 0.0,
) -> DemoRow:
    """Detect change on the whole city and count right and wrong pixels east of `split_col`."""
    began = time.monotonic()
    settings = DetectionConfig(title=f"Synthetic city: {title}", min_area_m2=0.0)  # every pixel counts
    result = write_detection(
        out / "city" / "before.tif", out / "city" / "after.tif", out / name, detector=detector, config=settings
    )
    with rasterio.open(result.folder / "change.tif") as source:
        found_HW = source.read(1)
    counts = ConfusionCounts.from_maps(found_HW[:, split_col:], city.change_HW[:, split_col:])
    console.print(f"{title}: IoU {counts.iou:.3f} on the held-out part", highlight=False)
    return DemoRow(title, name, counts, time.monotonic() - began + train_s)


# ------------------------------------------------------------------------------------------------ result
TABLE_COLUMNS = ("", "labels", "IoU", "F1", "precision", "recall", "seconds")


def _format_cells(row: DemoRow, config: DemoConfig) -> list[str]:
    """Return a row of the table."""
    labels = "none" if row.folder == "no-labels" else f"{config.labelled:.0%}"
    scores = (row.counts.iou, row.counts.f1, row.counts.precision, row.counts.recall)
    return [row.title, labels, *(f"{score:.3f}" for score in scores), f"{row.seconds:.0f}"]


def _build_table(rows: Sequence[DemoRow], config: DemoConfig) -> Table:
    """Return the table for the terminal."""
    table = Table(
        *TABLE_COLUMNS, title="On the held-out part of the city", title_justify="left", box=None, header_style="bold"
    )
    for row in rows:
        table.add_row(*_format_cells(row, config))
    return table


def _write_report(
    out: Path, *, city: SyntheticCity, split_col: int, rows: Sequence[DemoRow], config: DemoConfig, seconds: float
) -> None:
    """Write the report, the table as Markdown and the counts as JSON."""
    lines = [_format_cells(row, config) for row in rows]
    markdown = ["| " + " | ".join(cells) + " |" for cells in (TABLE_COLUMNS, ["---"] * len(TABLE_COLUMNS), *lines)]
    with write_atomically(out / "table.md") as temporary:
        temporary.write_text("\n".join(markdown) + "\n")
    write_json(out / "table.json", [{"title": row.title, **vars(row.counts), "seconds": row.seconds} for row in rows])
    held_out = (slice(None), slice(split_col, None))
    figures = [
        html.render_figure(_draw_error_map(out / row.folder, city, held_out), f"{row.title}: IoU {row.counts.iou:.3f}")
        for row in rows
    ]
    dates = html.render_swipe(
        city.t1_HWC[held_out], city.t2_HWC[held_out], "The held-out part at both dates; drag the line"
    )
    reports = Markup(", ").join(html.render_link(f"{row.folder}/report.html", row.title) for row in rows)
    files = Markup(", ").join(html.render_link(name, name) for name in ("table.md", "table.json"))
    sections = [
        html.Section("Scores", [html.render_table(TABLE_COLUMNS, lines)], lead=_explain_table(config)),
        html.Section("The images", [dates]),
        html.Section(
            "Comparison with the truth", [html.render_legend(OUTCOME_COLOURS.items()), html.render_gallery(figures)]
        ),
        html.Section(
            "More", [Markup("<p>Maps, polygons and a report of each: {}. The table: {}.</p>").format(reports, files)]
        ),
        html.Section("Time", [html.render_paragraph(f"The demonstration took {seconds:.0f} s.")]),
    ]
    html.write_page(out / "report.html", "Change in a synthetic city", sections)


def _draw_error_map(result: Path, city: SyntheticCity, where: tuple[slice, slice]) -> NDArray[np.uint8]:
    """Return date 2 in grey, with correctly detected, missed and falsely detected pixels in colour."""
    with rasterio.open(result / "change.tif") as source:
        found_HW = source.read(1)[where] == 1
    return draw_outcomes(city.t2_HWC[where], found_HW, city.change_HW[where] == 1)


def _explain_table(config: DemoConfig) -> str:
    """Return what the numbers mean."""
    return (
        f"Changed buildings in the eastern {config.unseen_frac:.0%} of the city, on which nothing was trained and no "
        "step was selected. "
        f"Sup-only and SemiCD-VL share the labels ({config.labelled:.0%} of the western patches). Sup-only is a "
        "network that learns from them alone. SemiCD-VL starts from the map without labels and corrects it, held to "
        "the vision-language model on the other patches. "
        "The city is synthetic: the numbers show that the parts work together, not how accurate they are on your "
        "images."
    )
