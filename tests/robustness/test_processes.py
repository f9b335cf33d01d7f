"""Children end with their parent, however that ends; signals leave everything in order."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

PARENT = """
import multiprocessing, os, subprocess, sys, time
from semicdvl.worker_processes import end_with_parent

def work(path):
    end_with_parent()
    print(os.getpid(), flush=True)
    while True:
        time.sleep(0.1)

if __name__ == "__main__":
    if sys.argv[1] == "pool":
        multiprocessing.get_context("spawn").Process(target=work, args=("",)).start()
    else:
        code = "from semicdvl.worker_processes import end_with_parent; import os, time; end_with_parent(0); print(os.getpid(), flush=True); time.sleep(60)"
        child = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE)
    time.sleep(60)
"""  # noqa: E501


def is_alive(pid: int) -> bool:
    """Tell whether a process runs; one that is dead and not yet collected does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_for_end(pid: int) -> bool:
    until = time.monotonic() + 10
    while is_alive(pid) and time.monotonic() < until:
        time.sleep(0.05)
    return not is_alive(pid)


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
@pytest.mark.parametrize("kind", ["pool", "pipe"])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_child_ends_with_its_parent(tmp_path: Path, kind: str, number: signal.Signals) -> None:
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    parent = subprocess.Popen([sys.executable, str(script), kind], stdout=subprocess.PIPE, text=True)
    try:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert is_alive(child)
        os.kill(parent.pid, number)
        parent.wait()
        assert wait_for_end(child), "it would go on computing, and writing, for ever"
    finally:
        parent.kill()
        parent.communicate()


STOPPED = """
import sys
from pathlib import Path
import semicdvl.cli
from semicdvl import __main__ as program
from semicdvl.atomic_files import write_atomically
def work(standalone_mode):
    with write_atomically(Path(sys.argv[1]) / "a.bin") as part:
        part.write_bytes(b"half")
        print("writing", flush=True)
        import time; time.sleep(60)
semicdvl.cli.app = work
program.main()
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_leaves_no_half_written_file(tmp_path: Path, number: signal.Signals) -> None:
    heeding = (
        f"import signal; signal.signal({int(number)}, signal.SIG_DFL)\n{STOPPED}"  # whoever runs the tests may not
    )
    process = subprocess.Popen(
        [sys.executable, "-c", heeding, str(tmp_path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stdout.readline() == "writing\n"
    process.send_signal(number)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 128 + number
    assert "Interrupted. No half-written file is left." in said and "Traceback" not in said
    assert list(tmp_path.iterdir()) == []


def test_a_signal_that_is_ignored_stays_ignored(tmp_path: Path) -> None:
    """As under `nohup`, by which a long run outlives its terminal."""
    ignoring = "import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)\n" + STOPPED.replace(
        "time.sleep(60)", "time.sleep(1)"
    )
    process = subprocess.Popen([sys.executable, "-c", ignoring, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "writing\n"
    process.send_signal(signal.SIGHUP)
    process.communicate(timeout=30)
    assert process.returncode == 0 and (tmp_path / "a.bin").exists()
