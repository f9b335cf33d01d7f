"""Go the whole loop once: a map, 50 objects reviewed by keyboard, 8 patches labelled in the page, better maps.

    python benchmarks/review_loop.py --output loop [--seed 0]

A synthetic city stands for the world, and a reviewer who knows it sits at the page (headless Chromium): accepts an
object if half of it changed in truth, and draws the outlines of the changes on the patches that `suggest` recommends.
Printed are the IoU of the map without labels and of the maps of networks that were trained on the decisions, on the
painted patches and on both, on the ground of no painted patch.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import rasterio
import rasterio.features
from numpy.typing import NDArray
from playwright.sync_api import sync_playwright
from scipy import ndimage

import semicdvl as cd
from semicdvl.metrics.change import ConfusionCounts
from semicdvl.synthetic.config import CitySpec
from semicdvl.synthetic.generate import generate_city
from semicdvl.synthetic.write import write_city

TOKEN, PORT, PATCH_PX, RECIPE = "a-token-for-the-loop", 8768, 256, "train.toml"
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
FLAGS += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
SERVER = """
import sys, uvicorn, semicdvl as cd
config = cd.ServeConfig(token=sys.argv[2], label=sys.argv[4] == "label", reviewer="a reviewer who knows the city")
uvicorn.run(cd.create_review_app(sys.argv[1], config=config), port=int(sys.argv[3]), log_level="error")
"""


def open_page(playwright: Any, folder: Path, mode: str) -> tuple[subprocess.Popen[bytes], Any]:
    """Serve a result and open its page."""
    process = subprocess.Popen([sys.executable, "-c", SERVER, str(folder), TOKEN, str(PORT), mode])
    profile = folder.parent / f".profile-{mode}"
    shutil.rmtree(profile, ignore_errors=True)
    context = playwright.chromium.launch_persistent_context(
        profile, executable_path=shutil.which("chromium"), args=FLAGS, viewport={"width": 1280, "height": 800}
    )
    page = context.pages[0]
    for _ in range(300):
        try:
            page.goto(f"http://127.0.0.1:{PORT}/?token={TOKEN}")
            break
        except Exception:
            time.sleep(0.3)
    return process, page


def review(playwright: Any, out: Path, truth_HW: NDArray[np.bool_], count: int) -> None:
    """Accept or reject the first objects of the random order by keys alone, and write the result."""
    objects = gpd.read_file(out / "changes.gpkg").set_index("id")
    with rasterio.open(out / "change.tif") as source:
        transform, shape = source.transform, source.shape
    process, page = open_page(playwright, out, "review")
    try:
        page.wait_for_selector(".card strong", timeout=90_000)
        page.locator("aside details select").first.select_option("random")
        page.keyboard.press("Escape")
        idle = "() => document.querySelector('.maps').review.idle()"
        for _ in range(min(count, len(objects))):
            number = page.evaluate("() => document.querySelector('.maps').review.current()")
            mask_HW = rasterio.features.geometry_mask([objects.loc[number, "geometry"]], shape, transform, invert=True)
            page.keyboard.press("a" if truth_HW[mask_HW].mean() >= 0.5 else "r")
            page.wait_for_function(idle)
        page.wait_for_timeout(1500)
        print("review:", page.locator(".sentence").text_content())
        page.keyboard.press("d")
        page.wait_for_selector(".out code", timeout=60_000)
        _make_training_set(page)
        page.context.close()
    finally:
        process.terminate()
        process.wait()


def _make_training_set(page: Any) -> None:
    """Press the key that makes a training set of the review, and print what is in it."""
    page.keyboard.press("t")
    page.wait_for_selector(".out .commands", timeout=60_000)
    print("training set:", str(page.locator(".out p").first.text_content()).partition(".")[0])


def make_training_set(playwright: Any, out: Path) -> None:
    """Open the review again and make the training set anew: of the decisions and of what was painted since."""
    process, page = open_page(playwright, out, "review")
    try:
        page.wait_for_selector(".card strong", timeout=90_000)
        _make_training_set(page)
        page.context.close()
    finally:
        process.terminate()
        process.wait()


def train_and_map(recipe: Path, files: Any, folder: Path) -> Path:
    """Train, and detect with what was learned; return the folder of the map."""
    run = folder / "run"
    cd.train(recipe, run, quiet=True)
    detector = cd.load_detector(run)
    return cd.detect_to_folder(files.before, files.after, folder / "map", detector=detector, progress=False).folder


def label(playwright: Any, out: Path, truth_HW: NDArray[np.bool_], count: int) -> list[tuple[int, int]]:
    """Paint the true changes on the first patches with brush and outline; return the places of the patches."""
    process, page = open_page(playwright, out, "label")
    done = "() => document.getElementById('app').labelling?.patch() && !document.getElementById('app').labelling.busy()"
    places = []
    try:
        page.wait_for_selector(".toolbox", timeout=180_000)
        page.wait_for_function(done, timeout=120_000)
        for _ in range(count):
            name = page.evaluate("() => document.getElementById('app').labelling.patch().name")
            row, col = (int(part[1:]) for part in name.split("_"))
            places.append((row, col))
            _paint(page, truth_HW[row : row + PATCH_PX, col : col + PATCH_PX])
            page.keyboard.press("s")
            page.wait_for_timeout(300)
            page.wait_for_function(done, timeout=60_000)
        page.context.close()
    finally:
        process.terminate()
        process.wait()
    return places


def _paint(page: Any, truth_HW: NDArray[np.bool_]) -> None:
    """Clear the patch and draw an outline around every change."""
    import cv2

    page.keyboard.press("c")
    page.keyboard.press("3")
    box = page.locator("canvas.paint").nth(1).bounding_box()
    scale = box["width"] / truth_HW.shape[1]
    regions, many = ndimage.label(truth_HW)
    for number in range(1, many + 1):
        contours, _ = cv2.findContours((regions == number).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
        ring = cv2.approxPolyDP(contours[0], 1.0, True)[:, 0]
        if len(ring) < 3:
            continue
        for x, y in ring:
            page.mouse.click(box["x"] + (x + 0.5) * scale, box["y"] + (y + 0.5) * scale)
        page.keyboard.press("Enter")


def score(folder: Path, truth_HW: NDArray[np.bool_], counted_HW: NDArray[np.bool_]) -> ConfusionCounts:
    """Compare a map with the truth where nothing was labelled."""
    with rasterio.open(folder / "change.tif") as source:
        found_HW = source.read(1)
    return ConfusionCounts.from_maps(found_HW[counted_HW], truth_HW[counted_HW].astype(np.uint8))


def main() -> None:
    """Go the loop and print what came out."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", "-o", type=Path, default=Path("loop"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--height", type=int, default=1536)
    parser.add_argument("--width", type=int, default=2048)
    parser.add_argument("--objects", type=int, default=50, help="how many are reviewed")
    parser.add_argument("--patches", type=int, default=8, help="how many are painted")
    given = parser.parse_args()
    city = generate_city(CitySpec(size_px=(given.height, given.width), seed=given.seed))
    files, out = write_city(city, given.output / "city"), (given.output / "map").absolute()
    truth_HW = city.change_HW == 1
    print(cd.detect_to_folder(files.before, files.after, out, progress=False).summary.format_line())
    maps = {"without labels": out}
    with sync_playwright() as playwright:
        review(playwright, out, truth_HW, given.objects)
        maps["trained on the review"] = train_and_map(out / "reviewed-patches" / RECIPE, files, given.output / "review")
        places = label(playwright, out, truth_HW, given.patches)
        maps["trained on the patches"] = train_and_map(out / "labels" / RECIPE, files, given.output / "patches")
        make_training_set(playwright, out)
    maps["trained on both"] = train_and_map(out / "reviewed-patches" / RECIPE, files, given.output / "both")
    counted_HW = np.ones(truth_HW.shape, bool)
    for row, col in places:
        counted_HW[row : row + PATCH_PX, col : col + PATCH_PX] = False
    for name, folder in maps.items():
        counts = score(folder, truth_HW, counted_HW)
        print(f"{name}: IoU {counts.iou:.3f}, precision {counts.precision:.3f}, recall {counts.recall:.3f}")


if __name__ == "__main__":
    main()
