"""Offsets that no file can have end in one message of ours, without lines of libtiff beside it."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from rasterio.errors import RasterioIOError

from semicdvl.raster.file_access import open_raster


@pytest.mark.parametrize("offset", [2**62, 2**63 - 1])
def test_libtiff_prints_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str], offset: int) -> None:
    path = tmp_path / "far.tif"
    path.write_bytes(b"II+\0" + struct.pack("<HHQ", 8, 0, offset) + bytes(100))
    with pytest.raises(RasterioIOError):
        open_raster(str(path), display_name=path.name, local=True)
    assert capfd.readouterr().err == ""
