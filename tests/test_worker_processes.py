"""Freed memory is kept for the next block, and given back where a stage ends."""

from __future__ import annotations

import subprocess
import sys

import pytest

from semicdvl import worker_processes
from semicdvl.worker_processes import return_freed_memory

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


def test_within_a_stage_memory_is_returned_at_intervals(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s, returned_at = [100.0], []

    class Library:
        def __init__(self, name: None) -> None:
            """Stand for the C library."""

        def malloc_trim(self, pad: int) -> None:
            returned_at.append(now_s[0])

    monkeypatch.setattr(worker_processes, "_returned_s", 100.0)
    monkeypatch.setattr(worker_processes.sys, "platform", "linux")
    monkeypatch.setattr(worker_processes.ctypes, "CDLL", Library)
    monkeypatch.setattr(worker_processes.time, "monotonic", lambda: now_s[0])
    for _ in range(10):
        return_freed_memory(every_s=30)
        now_s[0] += 8
    assert returned_at == [132.0, 164.0]  # the first time that is 30 s or more after the last one
    return_freed_memory()
    assert returned_at == [132.0, 164.0, 180.0]
