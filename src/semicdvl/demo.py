"""The whole way on a made-up city, offline: no labels, few labels, few labels and a VLM, measured on an unseen part.

    OUT/city/         two GeoTIFFs, the truth, and the training patches of the western part
    OUT/no-labels/    detect: the embedded VLM and change event generation
    OUT/store/        pseudo: the VLM's labels of the training patches
    OUT/runs/         train: Sup-only and SemiCD-VL with the same labelled patches; OUT/*.toml are their recipes
    OUT/sup-only/     detect with either
    OUT/semicd-vl/
    OUT/report.html   pictures and the table; OUT/table.md the table alone

Everything can be interrupted; the same command goes on where it stopped.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from semicdvl.atomic_files import write_atomically, write_json
from semicdvl.ceg.prompts import PROMPT_SETS
from semicdvl.config import load_recipe
from semicdvl.data.readers import folder
from semicdvl.detection.config import DetectionConfig
from semicdvl.detection.detectors.network import build_network_detector
from semicdvl.detection.detectors.vlm_ceg import build_vlm_detector
from semicdvl.detection.pipeline import detect_to_folder
from semicdvl.metrics.change import ConfusionCounts
from semicdvl.pseudo_labels.generate import CEGSettings
from semicdvl.pseudo_labels.quality import fill_store
from semicdvl.registry import build_part
from semicdvl.reports import html
from semicdvl.synthetic.city import SyntheticCity
from semicdvl.synthetic.config import CitySpec
from semicdvl.synthetic.generate import generate_city
from semicdvl.synthetic.write import write_city, write_city_patches
from semicdvl.training.run import train
from semicdvl.types import VLM
from semicdvl.vlms import VLMS


@dataclass(frozen=True)
class DemoSettings:
    """How large the demonstration is; the default takes some minutes on 2 cores."""

    height_px: int = 1536
    width_px: int = 2048
    patch_px: int = 128
    unseen_frac: float = 0.34  # eastern part that nothing is trained or chosen on
    val_every: int = 6  # one row of patches in so many is what the best weights are chosen on
    labelled: float = 0.05  # share of the training patches that keeps its label
    steps: int = 300
    batch: int = 4
    lr: float = 0.0005


@dataclass(frozen=True)
class DemoRow:
    """One way of finding change and how it did on the unseen part."""

    title: str
    folder: str
    counts: ConfusionCounts
    seconds: float


TRAINED_METHODS = (("Sup-only", "supervised", "sup-only"), ("SemiCD-VL", "semicd_vl", "semicd-vl"))


def run_demo(
    out: Path, *, seed: int = 0, console: Console | None = None, size: DemoSettings | None = None
) -> list[DemoRow]:
    """Run the demonstration below `out`, print its table and return the rows.

    Raises:
        OutputError, CheckpointError: `out` cannot be written or holds something else.
    """
    console, size = console or Console(), size or DemoSettings()
    began = time.monotonic()
    console.rule("1/5  a made-up city, two dates")
    city = generate_city(CitySpec(size_px=(size.height_px, size.width_px), seed=seed))
    files = write_city(city, out / "city")
    patches, split_col = _write_training_patches(city, out / "city" / "patches", size)
    console.print(f"{size.width_px} x {size.height_px} px at {city.spec.gsd_m} m: {files.before} and {files.after}")

    console.rule("2/5  detect without labels: vision-language model and change event generation")
    vlm: VLM = build_part("VLM", "aerial", VLMS, {})
    detectors = [("No labels (VLM + CEG)", "no-labels", build_vlm_detector(vlm, prompts=PROMPT_SETS["buildings"]))]
    rows = [_detect_and_score(city, split_col, out, *detectors[0], console=console)]

    console.rule("3/5  pseudo labels for the training patches")
    settings = CEGSettings(gamma=vlm.gamma, gamma_segmentation=vlm.gamma)
    pairs = folder.read_folder(patches).select_subset("train")
    words = PROMPT_SETS["buildings"]
    filled = fill_store(pairs, vlm=vlm, prompts=words, settings=settings, root=out / "store", gsd_m=city.spec.gsd_m)
    console.print(filled.summary, highlight=False)
    console.print(filled.to_table())

    console.rule(f"4/5  train with {size.labelled:.0%} of the labels: alone, and guided by the VLM")
    for title, method, name in TRAINED_METHODS:
        recipe = _write_recipe(out, method=method, seed=seed, size=size)
        trained = train(load_recipe(recipe), out / "runs" / method)
        console.print(f"{title}: {trained.seconds:.0f} s, validation IoU {trained.val['iou']:.3f}")
        detector = build_network_detector(trained.run)
        rows.append(
            _detect_and_score(city, split_col, out, title, name, detector, console=console, train_s=trained.seconds)
        )

    console.rule("5/5  report")
    _write_report(out, city=city, split_col=split_col, rows=rows, size=size, seconds=time.monotonic() - began)
    console.print(_build_table(rows, size))
    console.print(f"report: {out / 'report.html'}", highlight=False)
    return rows


# ------------------------------------------------------------------------------------------------ data
def _write_training_patches(city: SyntheticCity, root: Path, size: DemoSettings) -> tuple[Path, int]:
    """Write the patches west of the unseen part and return their folder and that part's column.

    Validation rows run through the whole west: a strip beside the unseen part was not like the rest of the city.
    """
    step = size.patch_px
    split_col = int(size.width_px * (1 - size.unseen_frac)) // step * step
    val_every = min(size.val_every, size.height_px // step)
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
labelled = {size.labelled}
crop_px = {size.patch_px}
rot90 = true

[model]
name = "siam_light"
backbone = "efficientnet_lite0"
decoder_channels = 96

[method]
name = "{method}"
dice_weight = 1.0
{extra}
[train]
steps = {size.steps}
labelled_batch = {size.batch}
unlabelled_batch = {size.batch}
optimizer = "adamw"
lr = {size.lr}
head_lr_multiplier = 4
eval_every = {every}
"""

VLM_SECTIONS_TEMPLATE = """# A run of hundreds of steps: the VLM weighs more than in the paper's tens of thousands.
pseudo_start_frac = 0.2
lambda_vl = 6.0
lambda_vl_end = 1.0
vlm_over = "valid"
lambda_c = 0.02

[pseudo]
store = "{out}/store"
"""


def _write_recipe(out: Path, *, method: str, seed: int, size: DemoSettings) -> Path:
    """Write the recipe of one method; the recipes differ in nothing but the method and its settings."""
    path = out / f"{method}.toml"
    extra = VLM_SECTIONS_TEMPLATE.format(out=out.as_posix()) if method == "semicd_vl" else ""
    parts = {"path": path.as_posix(), "out": out.as_posix(), "method": method, "extra": extra}
    content = RECIPE_TEMPLATE.format(**parts, seed=seed, size=size, every=max(size.steps // 6, 1))
    with write_atomically(path) as temporary:
        temporary.write_text(content)
    return path


def _detect_and_score(
    city: SyntheticCity,
    split_col: int,
    out: Path,
    title: str,
    name: str,
    detector: Any,
    *,
    console: Console,
    train_s: float = 0.0,
) -> DemoRow:
    """Detect on the whole city and count right and wrong pixels east of `split_col`."""
    began = time.monotonic()
    settings = DetectionConfig(title=f"Made-up city: {title}")
    result = detect_to_folder(
        out / "city" / "before.tif", out / "city" / "after.tif", out / name, detector=detector, config=settings
    )
    with rasterio.open(result.folder / "change.tif") as source:
        found_HW = source.read(1)
    counts = ConfusionCounts.from_maps(found_HW[:, split_col:], city.change_HW[:, split_col:])
    console.print(f"{title}: IoU {counts.iou:.3f} on the unseen part", highlight=False)
    return DemoRow(title, name, counts, time.monotonic() - began + train_s)


# ------------------------------------------------------------------------------------------------ result
TABLE_COLUMNS = ("", "labels", "IoU", "F1", "precision", "recall", "seconds")


def _format_cells(row: DemoRow, size: DemoSettings) -> list[str]:
    """Return a row of the table."""
    labels = "none" if row.folder == "no-labels" else f"{size.labelled:.0%}"
    scores = (row.counts.iou, row.counts.f1, row.counts.precision, row.counts.recall)
    return [row.title, labels, *(f"{score:.3f}" for score in scores), f"{row.seconds:.0f}"]


def _build_table(rows: Sequence[DemoRow], size: DemoSettings) -> Table:
    """Return the table for the terminal."""
    table = Table(
        *TABLE_COLUMNS, title="On the unseen part of the city", title_justify="left", box=None, header_style="bold"
    )
    for row in rows:
        table.add_row(*_format_cells(row, size))
    return table


def _write_report(
    out: Path, *, city: SyntheticCity, split_col: int, rows: Sequence[DemoRow], size: DemoSettings, seconds: float
) -> None:
    """Write the page, the table as Markdown and the numbers as JSON."""
    lines = [_format_cells(row, size) for row in rows]
    markdown = ["| " + " | ".join(cells) + " |" for cells in (TABLE_COLUMNS, ["---"] * len(TABLE_COLUMNS), *lines)]
    with write_atomically(out / "table.md") as temporary:
        temporary.write_text("\n".join(markdown) + "\n")
    write_json(out / "table.json", [{"title": row.title, **vars(row.counts), "seconds": row.seconds} for row in rows])
    unseen = (slice(None), slice(split_col, None))
    figures = [
        html.render_figure(_draw_error_map(out / row.folder, city, unseen), f"{row.title}: IoU {row.counts.iou:.3f}")
        for row in rows
    ]
    colours = [("found, and true", DETECTED_COLOR), ("missed", MISSED_COLOR), ("invented", FALSE_ALARM_COLOR)]
    dates = html.render_swipe(city.t1_HWC[unseen], city.t2_HWC[unseen], "The unseen part; drag the line")
    links = ", ".join(f"{row.folder}/report.html" for row in rows)
    sections = [
        html.Section("What was found", [html.render_table(TABLE_COLUMNS, lines)], lead=_explain_table(size)),
        html.Section("The place", [dates]),
        html.Section("Against the truth", [html.render_legend(colours), html.render_gallery(figures)]),
        html.Section(
            "More", [html.render_paragraph(f"Maps, polygons and a report of each: {links}. In all {seconds:.0f} s.")]
        ),
    ]
    html.write_page(out / "report.html", "Change in a made-up city", sections)


DETECTED_COLOR, MISSED_COLOR, FALSE_ALARM_COLOR = (40, 160, 90), (215, 60, 50), (240, 170, 40)


def _draw_error_map(result: Path, city: SyntheticCity, where: tuple[slice, slice]) -> NDArray[np.uint8]:
    """Return date 2, greyed, with what was found, missed and invented."""
    with rasterio.open(result / "change.tif") as source:
        found_HW = source.read(1)[where] == 1
    truth_HW = city.change_HW[where] == 1
    grey_HW = city.t2_HWC[where].mean(axis=-1) * 0.5 + 110
    picture_HWC = np.repeat(grey_HW[..., None], 3, axis=-1).astype(np.uint8)
    for mask_HW, colour in (
        (found_HW & truth_HW, DETECTED_COLOR),
        (truth_HW & ~found_HW, MISSED_COLOR),
        (found_HW & ~truth_HW, FALSE_ALARM_COLOR),
    ):
        picture_HWC[mask_HW] = colour
    return picture_HWC


def _explain_table(size: DemoSettings) -> str:
    """Say what the numbers mean."""
    return (
        f"Changed buildings in the eastern {size.unseen_frac:.0%} of the city, on which nothing was trained and no "
        "step selected. "
        f"Sup-only and SemiCD-VL share network, start and labels ({size.labelled:.0%} of the western patches); "
        "SemiCD-VL also sees the other patches, with what the vision-language model says about them. "
        "This is a drawn city: the numbers show that the parts work together, not how well they do on yours."
    )
