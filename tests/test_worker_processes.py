"""Freed memory is kept for the next block, and given back where a stage ends."""

from __future__ import annotations

import subprocess
import sys

import pytest

SCRIPT = """
from semicdvl.worker_processes import keep_freed_memory, return_freed_memory

def measure_mib():
    with open("/proc/self/status") as status:
        return int(next(line for line in status if line.startswith("VmRSS")).split()[1]) // 1024

keep_freed_memory()
blocks = [bytearray(b"x" * 2**23) for _ in range(24)]
del blocks
kept = measure_mib()
return_freed_memory()
print(kept, measure_mib())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_freed_memory_is_kept_until_it_is_returned() -> None:
    ended = subprocess.run([sys.executable, "-c", SCRIPT], check=True, capture_output=True, text=True)
    kept, returned = map(int, ended.stdout.split())
    if kept < 192:
        pytest.skip("a C library that keeps no memory of this size")
    assert kept - returned >= 180
