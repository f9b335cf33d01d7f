"""Measure the review server: tiles of a large COG against a bare loop, the keys of a long queue, and the first paint.

    python benchmarks/serve.py tiles --px 16384 --tiles 2000     tiles over HTTP against a bare rio-tiler loop
    python benchmarks/serve.py keys --objects 5000               from a key to the next object framed, in Chromium
    python benchmarks/serve.py paint --result demo/no-labels     from the address to the first paint, in Chromium

Tiles: 256 px tiles of a COG at all levels, the same random tiles for both, 8 at a time: by 8 threads that ask the
server over HTTP, and by 8 threads that read and encode with rio-tiler in their own process. Printed are p50 and p95 of
both in milliseconds, their ratio, the processor time per tile, and the server's memory during the run. Keys: the median
and p95 of the time from a key to the frame in which the next object is drawn, against a key that does nothing. Paint:
of five fresh servers and browsers, the median time to the first paint and until the first object is there at both
dates.
"""

from __future__ import annotations

import argparse
import http.client
import json
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import psutil
import rasterio
import shapely
from affine import Affine
from rasterio.windows import Window

FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
FLAGS += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
SIZE = {"width": 1280, "height": 800}
TILE_PX, AT_A_TIME, TOKEN = 256, 8, "a-token-for-the-benchmark"
SERVER = """
import sys, uvicorn, semicdvl as cd
app = cd.create_review_app(sys.argv[1], config=cd.ServeConfig(token=sys.argv[2]))
uvicorn.run(app, port=int(sys.argv[3]), log_level="error")
"""


def write_scene(folder: Path, *, side_px: int, objects: int) -> Path:
    """Write two COGs, a change map and `objects` squares on it, as `detect` leaves them; return the result's folder."""
    out = folder / "out"
    out.mkdir(parents=True)
    transform, rng = Affine(0.5, 0, 400_000, 0, -0.5, 5_000_000), np.random.default_rng(0)
    block = rng.integers(40, 220, (3, 512, 512), np.uint8)
    for name in ("before", "after"):
        _write_cog(folder / f"{name}.tif", side_px, transform, lambda: np.roll(block, rng.integers(512), axis=2))
    _write_cog(out / "change.tif", side_px, transform, lambda: np.zeros((1, 512, 512), np.uint8))
    places = rng.integers(0, side_px - 40, (objects, 2))
    shapes = [shapely.MultiPolygon([shapely.box(*_place(transform, *place))]) for place in places]
    frame = gpd.GeoDataFrame(
        {"id": np.arange(1, objects + 1), "kind": "appeared", "score": np.round(rng.random(objects), 4)},
        geometry=shapes,
        crs="EPSG:32633",
    )
    frame.to_file(out / "changes.gpkg", layer="changes", geometry_type="MultiPolygon")
    paths = {name: {"path": str(folder / f"{name}.tif")} for name in ("before", "after")}
    record = {"format": "semicdvl-detect", "key": "benchmark", "inputs": paths, "grid": {"gsd_m": 0.5}, "settings": {}}
    (out / "run.json").write_text(json.dumps(record))
    return out


def _place(transform: Affine, row: int, col: int) -> tuple[float, float, float, float]:
    """Return the bounds of a square of 24 px."""
    (left, top), (right, bottom) = transform @ (int(col), int(row)), transform @ (int(col) + 24, int(row) + 24)
    return left, bottom, right, top


def _write_cog(path: Path, side_px: int, transform: Affine, draw: Callable[[], np.ndarray]) -> None:
    """Write a tiled GeoTIFF with overviews, block by block."""
    bands = len(draw())
    profile: dict[str, Any] = {"driver": "GTiff", "dtype": "uint8", "count": bands, "height": side_px, "width": side_px}
    profile |= {"crs": "EPSG:32633", "transform": transform, "tiled": True, "blockxsize": 512, "blockysize": 512}
    profile |= {"compress": "deflate", "interleave": "pixel", "zlevel": 1}
    with rasterio.open(path, "w", **profile) as target:
        for row in range(0, side_px, 512):
            for col in range(0, side_px, 512):
                tall, wide = min(512, side_px - row), min(512, side_px - col)
                target.write(draw()[:, :tall, :wide], window=Window(col, row, wide, tall))
    with rasterio.open(path, "r+") as target:
        target.build_overviews([2**level for level in range(1, 7)])


def draw_tiles(side_px: int, count: int) -> list[tuple[int, int, int]]:
    """Return random tiles: level, row and column; half of them are of level 0."""
    rng, levels = np.random.default_rng(1), int(np.log2(side_px // TILE_PX)) + 1
    found = []
    for _ in range(count):
        level = 0 if rng.random() < 0.5 else int(rng.integers(levels))
        many = max(1, side_px // (TILE_PX * 2**level))
        found.append((level, int(rng.integers(many)), int(rng.integers(many))))
    return found


def time_all(work: Callable[[tuple[int, int, int]], None], tiles: list[tuple[int, int, int]]) -> np.ndarray:
    """Return the milliseconds of each tile, 8 at a time."""

    def one(tile: tuple[int, int, int]) -> float:
        start = time.perf_counter()
        work(tile)
        return (time.perf_counter() - start) * 1000

    with ThreadPoolExecutor(AT_A_TIME) as pool:
        return np.array(list(pool.map(one, tiles)))


OPENED = threading.local()


def read_bare(path: Path, tile: tuple[int, int, int]) -> None:
    """Read and encode a tile with rio-tiler alone; each thread opens the file once."""
    from rio_tiler.io import Reader

    if not hasattr(OPENED, "source"):
        OPENED.source = Reader(str(path))
    level, row, col = tile
    side = TILE_PX * 2**level
    window = Window(col * side, row * side, side, side)
    image = OPENED.source.read(window=window, height=TILE_PX, width=TILE_PX, resampling_method="average")
    image.render(img_format="JPEG", add_mask=False)


def measure_tiles(side_px: int, count: int) -> None:
    """Print the times of both ways, and the server's memory."""
    with tempfile.TemporaryDirectory() as folder:
        out = write_scene(Path(folder), side_px=side_px, objects=50)
        tiles, port = draw_tiles(side_px, count), 8766
        process = subprocess.Popen([sys.executable, "-c", SERVER, str(out), TOKEN, str(port)])
        try:
            base = f"http://127.0.0.1:{port}"
            _wait_for(base)
            watched, memory = psutil.Process(process.pid), list[int]()

            def ask(tile: tuple[int, int, int]) -> None:
                _get_kept(port, f"/api/pairs/out/tiles/after/{tile[0]}/{tile[1]}/{tile[2]}")
                memory.append(watched.memory_info().rss // 2**20)

            time_all(ask, tiles[:64])  # the first requests open the images
            memory.clear()
            before_s = sum(watched.cpu_times()[:2])
            served = time_all(ask, tiles)
            server_s = sum(watched.cpu_times()[:2]) - before_s
        finally:
            process.terminate()
            process.wait()
        before_s = time.process_time()
        bare = time_all(lambda tile: read_bare(Path(folder) / "after.tif", tile), tiles)
        bare_s = time.process_time() - before_s
    quarter = max(1, len(memory) // 4)
    for name, times, cpu_s in (("server", served, server_s), ("bare rio-tiler loop", bare, bare_s)):
        cpu_ms = cpu_s / count * 1000
        p50, p95 = np.percentile(times, (50, 95))
        print(f"{name}: p50 {p50:.1f} ms, p95 {p95:.1f} ms, {cpu_ms:.1f} ms of processor time per tile")
    print(f"ratio of p95: {np.percentile(served, 95) / np.percentile(bare, 95):.2f}")
    first, last = max(memory[:quarter]), max(memory[-quarter:])
    print(f"server memory: {first} MiB in the first quarter, {last} MiB in the last")


def _get_kept(port: int, place: str) -> bytes:
    """Ask over a connection that this thread keeps open, as a browser does."""
    if not hasattr(OPENED, "connection"):
        OPENED.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    OPENED.connection.request("GET", place, headers={"Authorization": f"Bearer {TOKEN}"})
    answer = OPENED.connection.getresponse()
    content = answer.read()
    assert answer.status == 200, content[:200]
    return bytes(content)


def _get(address: str) -> bytes:
    request = urllib.request.Request(address, headers={"Authorization": f"Bearer {TOKEN}"})
    with urllib.request.urlopen(request, timeout=120) as answer:
        return bytes(answer.read())


def _wait_for(base: str) -> None:
    """Wait until the server answers."""
    for _ in range(600):
        try:
            _get(f"{base}/api/health")
            return
        except OSError:
            time.sleep(0.2)
    raise SystemExit("the server did not start")


TIME_KEY = """([key, moves]) => new Promise((done) => {
    const { map, current, idle } = document.querySelector('.maps').review;
    const before = current(), start = performance.now();
    const look = () => {
        if (!idle() || (moves && current() === before)) return requestAnimationFrame(look);
        map.main.once('postrender', () => done(performance.now() - start));
        map.main.render();
    };
    document.dispatchEvent(new KeyboardEvent('keydown', { key, bubbles: true }));
    requestAnimationFrame(look);
})"""


def measure_keys(objects: int, count: int) -> None:
    """Print the time from a key to the next object framed, and of a key that does nothing."""
    from playwright.sync_api import sync_playwright

    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        out, port = write_scene(Path(folder), side_px=8192, objects=objects), 8767
        process = subprocess.Popen([sys.executable, "-c", SERVER, str(out), TOKEN, str(port)])
        try:
            _wait_for(f"http://127.0.0.1:{port}")
            context = playwright.chromium.launch_persistent_context(
                Path(folder) / "profile", executable_path=shutil.which("chromium"), args=FLAGS,
                viewport=SIZE,
            )  # fmt: skip
            page = context.pages[0]
            page.goto(f"http://127.0.0.1:{port}/?token={TOKEN}")
            page.wait_for_selector(".card strong", timeout=120_000)
            for key, moves, name in (
                ("Shift", False, "a key that does nothing"),
                ("ArrowRight", True, "next"),
                ("a", True, "accept"),
            ):
                times = np.array([page.evaluate(TIME_KEY, [key, moves]) for _ in range(count)])
                print(f"{name}: median {np.median(times):.1f} ms, p95 {np.percentile(times, 95):.1f} ms")
            context.close()
        finally:
            process.terminate()
            process.wait()


PAINTED = """() => {
    const tiles = performance.getEntriesByType('resource').filter((one) => one.name.includes('/tiles/'));
    const paint = performance.getEntriesByName('first-contentful-paint')[0].startTime;
    return [paint, Math.max(...tiles.map((one) => one.responseEnd))];
}"""


def measure_paint(result: Path, count: int = 5) -> None:
    """Print the time from the address to the first paint, and until the images of the first object are there."""
    from playwright.sync_api import sync_playwright

    found = []
    for _ in range(count):
        command = [sys.executable, "-u", "-m", "semicdvl", "serve", str(result), "--port", "0"]
        with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
            process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
            try:
                assert process.stdout is not None
                address = next(line.strip() for line in process.stdout if "http://" in line)
                context = playwright.chromium.launch_persistent_context(
                    folder,
                    executable_path=shutil.which("chromium"),
                    args=FLAGS,
                    viewport=SIZE,
                )
                page = context.pages[0]
                page.goto(address)
                page.wait_for_selector(".card strong", timeout=120_000)
                page.wait_for_load_state("networkidle")
                found.append(page.evaluate(PAINTED))
                context.close()
            finally:
                process.terminate()
                process.wait()
    paint, pictures = np.median(found, axis=0)
    print(f"first paint after {paint:.0f} ms, both dates of the first object after {pictures:.0f} ms")


def main() -> None:
    """Run one of them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("tiles", "keys", "paint"))
    parser.add_argument("--px", type=int, default=16_384, help="side of the COG")
    parser.add_argument("--tiles", type=int, default=2000)
    parser.add_argument("--objects", type=int, default=5000)
    parser.add_argument("--keys", type=int, default=60, help="how often each key is pressed")
    parser.add_argument("--result", type=Path, default=Path("demo/no-labels"), help="folder of a detection")
    given = parser.parse_args()
    if given.what == "tiles":
        measure_tiles(given.px, given.tiles)
    elif given.what == "keys":
        measure_keys(given.objects, given.keys)
    else:
        measure_paint(given.result)


if __name__ == "__main__":
    main()
