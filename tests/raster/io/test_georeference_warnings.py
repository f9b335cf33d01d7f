"""Python's warning filters belong to the process: threads leave them as they were, and are quiet."""

from __future__ import annotations

import ast
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.support.object_scenes import PLAIN, build_plain_frame
from tests.support.synthetic_rasters import city, png, tif

from semicdvl.data.images.files import open_image_raster
from semicdvl.data.images.reading import read_rgb
from semicdvl.errors import InputError
from semicdvl.raster.io.georeference_warnings import ignore_warnings
from semicdvl.raster.vector.files import write_vector

SOURCE = Path(__file__).parents[3] / "src" / "semicdvl"
ROUNDS, THREADS = 60, 8


def test_threads_that_read_and_write_plain_images_are_quiet_and_leave_the_filters(tmp_path):
    image = city(20, 30)
    paths = [png(tmp_path / "a.png", image), tif(tmp_path / "b.tif", image, crs=None)]
    frame = build_plain_frame(PLAIN)

    def work(number: int) -> None:
        read_rgb(paths[number % 2])
        with open_image_raster(paths[1]) as raster:
            assert raster.count == 3
        if number % 10 == 0:
            write_vector(tmp_path / f"{number}.fgb", frame)
            write_vector(tmp_path / f"{number}.gpkg", frame)

    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        before = list(warnings.filters)
        with ThreadPoolExecutor(THREADS) as threads:
            list(threads.map(work, range(ROUNDS)))
        assert list(warnings.filters) == before
    assert [str(one.message) for one in heard if "georeference" in str(one.message) or "crs" in str(one.message)] == []


def test_only_the_named_warnings_are_suppressed():
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        with ignore_warnings(UserWarning, message="'crs' was not"):
            warnings.warn("'crs' was not provided", UserWarning, stacklevel=1)
            warnings.warn("something else", UserWarning, stacklevel=1)
    assert [str(one.message) for one in heard] == ["something else"]


def test_picture_beyond_the_limit_is_refused_without_a_warning(tmp_path, monkeypatch):
    path = png(tmp_path / "a.png", np.zeros((3, 20, 30), np.uint8))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 599)
    with pytest.raises(InputError, match=r"a\.png.*too large to be decoded at once"):
        read_rgb(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 250)
    with pytest.raises(InputError, match=r"a\.png.*too large to be decoded at once"):
        read_rgb(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 600)
    assert read_rgb(path).shape == (20, 30, 3)


def test_only_one_file_changes_filters_for_a_while():
    """Others call `ignore_warnings`, in which no two threads are at once."""
    changing = {
        path.relative_to(SOURCE).as_posix()
        for path in SOURCE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute) and node.attr in ("catch_warnings", "simplefilter", "resetwarnings")
    }
    assert changing == {"raster/io/georeference_warnings.py"}
