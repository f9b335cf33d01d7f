"""A small pair with squares that appeared, its change map, and a client of its review server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from starlette.testclient import TestClient
from tests.support.synthetic_rasters import at, city, png, tif

import semicdvl as cd

HEIGHT, WIDTH, SIDE = 330, 470, 20
SQUARES = [(row, col) for row in (30, 130, 230) for col in (40, 150, 260, 370)]
"""Top left corners of the squares that appeared, all with whole pixels around them."""
TOKEN = "a-token-for-the-tests"
CONFIG = cd.ServeConfig(token=TOKEN, reviewer="tester")


def make_images(*, dtype: str = "uint8") -> tuple[np.ndarray, np.ndarray]:
    """Return both dates CHW; in the second, squares appeared."""
    before = city(HEIGHT, WIDTH).astype(np.int64) // 2 + 20
    after = before.copy()
    for row, col in SQUARES:
        after[:, row : row + SIDE, col : col + SIDE] = 240
    if dtype == "uint16":
        before, after = before * 40 + 100, after * 40 + 100
    return before.astype(dtype), after.astype(dtype)


def write_result(folder: Path, *, kind: str = "tif", dtype: str = "uint8") -> Path:
    """Write both images and the change map; return the folder of the result."""
    folder.mkdir(parents=True, exist_ok=True)
    before, after = make_images(dtype=dtype)
    if kind == "png":
        paths = png(folder / "before.png", before), png(folder / "after.png", after)
    else:
        paths = tuple(
            tif(folder / f"{name}.tif", data, at(366600, 4104200), tiled=True, blockxsize=128, blockysize=128)
            for name, data in (("before", before), ("after", after))
        )
    detector = cd.create_detector("cva", threshold="otsu")
    config = cd.DetectionConfig(min_area_m2=20)
    return cd.detect_to_folder(*paths, folder / "out", detector=detector, config=config, progress=False).folder


def open_client(folder: Path, config: cd.ServeConfig = CONFIG, **options: Any) -> TestClient:
    """Return a client that carries the token."""
    app = cd.create_review_app(folder, config=config)
    headers = {"Authorization": f"Bearer {config.token}"}
    return TestClient(app, base_url="http://127.0.0.1:8765", headers=headers, **options)


def decide(client: TestClient, number: int, state: str, **extra: Any) -> Any:
    """Decide on a change as its present version."""
    version = client.get(f"/api/pairs/out/changes/{number}").json()["version"]
    body = {"version": version, "state": state, "window": "w1", **extra}
    return client.post(f"/api/pairs/out/changes/{number}/decision", json=body)


def square(row: int, col: int, side: int = SIDE) -> dict[str, Any]:
    """Return a square of pixels as a GeoJSON polygon in map coordinates."""
    corners = [(col, row), (col + side, row), (col + side, row + side), (col, row + side), (col, row)]
    return {"type": "Polygon", "coordinates": [[list(at(366600, 4104200) @ corner) for corner in corners]]}
