"""What a default detection passes of this package stays small enough to be read in one sitting."""

import os
import re
import subprocess
import sys

from tests.support.paths import ROOT
from tests.support.synthetic_rasters import at, city, tif

MAX_FILES, MAX_FUNCTIONS = 98, 575
"""Of the package; measured: 98 and 575. What adds to them should give up as much elsewhere."""


def test_a_default_detection_passes_few_files_and_functions(tmp_path):
    before, after = city(200, 220), city(200, 220)
    after[:, 50:90, 60:120] = 250
    tif(tmp_path / "a.tif", before, at(0, 90)), tif(tmp_path / "b.tif", after, at(0, 90))
    command = [sys.executable, ROOT / "tools/trace_calls.py", "detect", "a.tif", "b.tif", "-o", "out"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    run = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    counted = re.search(r"(\d+) files, (\d+) functions", run.stderr)
    assert counted is not None, run.stderr
    files, functions = map(int, counted.groups())
    assert 0 < files <= MAX_FILES and 0 < functions <= MAX_FUNCTIONS
    assert (tmp_path / "out" / "run.json").is_file()
