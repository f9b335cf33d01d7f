"""Freed memory is kept for the next block, and given back where a stage ends."""

from __future__ import annotations

import resource
import subprocess
import sys

import pytest

from semicdvl.process_memory import limit_memory

SCRIPT = """
from semicdvl.process_memory import keep_freed_memory, return_freed_memory

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


LIMITED = """
from semicdvl.process_memory import limit_memory
import resource

MIB = 2**20
with limit_memory(256 * MIB):
    held = bytearray(128 * MIB)
    try:
        bytearray(512 * MIB)
    except MemoryError:
        print("refused")
print(len(bytearray(512 * MIB)) // MIB, resource.getrlimit(resource.RLIMIT_DATA) == (resource.RLIM_INFINITY,) * 2)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has this limit")
def test_only_so_much_memory_is_given_within_a_limit() -> None:
    ended = subprocess.run([sys.executable, "-c", LIMITED], check=True, capture_output=True, text=True)
    assert ended.stdout.split() == ["refused", "512", "True"]


def test_more_than_the_machine_has_free_is_never_allowed() -> None:
    before = resource.getrlimit(resource.RLIMIT_DATA)
    with limit_memory(2**62):
        soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
        assert hard == before[1] and (sys.platform != "linux" or 0 < soft < 2**50)
    assert resource.getrlimit(resource.RLIMIT_DATA) == before


def test_threads_that_lower_the_limit_leave_it_as_it_was() -> None:
    before = resource.getrlimit(resource.RLIMIT_DATA)
    first, second = limit_memory(2**40), limit_memory(2**41)
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert sys.platform != "linux" or resource.getrlimit(resource.RLIMIT_DATA) != before
    second.__exit__(None, None, None)
    assert resource.getrlimit(resource.RLIMIT_DATA) == before
