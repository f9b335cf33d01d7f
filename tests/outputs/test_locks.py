"""One process at a time on one output, and a message that names the other one."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import portalocker
import pytest

from semicdvl.errors import OutputError
from semicdvl.outputs import locks
from semicdvl.outputs.locks import lock_argument, lock_output

HOLD = """
import sys, time
from pathlib import Path
from semicdvl.outputs.locks import lock_output
with lock_output(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def start_holder(path: Path) -> subprocess.Popen[str]:
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None and holder.stdout.readline() == "held\n"
    return holder


def test_the_second_process_is_told_who_the_first_one_is(tmp_path: Path) -> None:
    out = tmp_path / "new" / "out"
    holder = start_holder(out)
    try:
        since = time.strftime("%Y-", time.gmtime())
        wanted = rf"out: another run \(process {holder.pid} on {socket.gethostname()}, since {since}.*UTC\) is writing"
        with pytest.raises(OutputError, match=wanted), lock_output(out):
            pytest.fail("it must not be held twice")
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        with lock_output(out):
            assert json.loads((tmp_path / "new" / ".out.lock").read_text())["pid"] == os.getpid(), "taken over"
        assert list((tmp_path / "new").iterdir()) == [], "and nothing is left"
    finally:
        holder.kill()
        holder.communicate()


def test_a_forked_child_does_not_keep_the_lock(tmp_path: Path) -> None:
    """Workers of a loader of data are forked, and may live some seconds longer than a killed training."""
    script = HOLD.replace(
        "    print", "    import os\n    if not os.fork():\n        time.sleep(20)\n        os._exit(0)\n    print"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path / "run")], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert holder.stdout is not None and holder.stdout.readline() == "held\n"
    try:
        os.kill(holder.pid, signal.SIGKILL)
        holder.wait()
        began = time.monotonic()
        with lock_output(tmp_path / "run"):
            assert time.monotonic() - began < 5
    finally:
        os.killpg(holder.pid, signal.SIGKILL)
        holder.stdout.close()


def test_a_thread_may_take_a_lock_again_and_another_thread_may_not(tmp_path: Path) -> None:
    refused: list[str] = []

    def try_to_lock() -> None:
        try:
            with lock_output(tmp_path / "out"):
                pass
        except OutputError as error:
            refused.append(str(error))

    with lock_output(tmp_path / "out"):
        with lock_output(tmp_path / "out"):
            pass
        other = threading.Thread(target=try_to_lock)
        other.start()
        other.join()
    assert len(refused) == 1 and f"process {os.getpid()}" in refused[0]
    try_to_lock()
    assert len(refused) == 1


def test_without_locks_of_the_file_system_the_file_itself_speaks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise portalocker.exceptions.LockException("no locks available")

    monkeypatch.setattr(portalocker, "lock", fails)
    out, file = tmp_path / "out", tmp_path / ".out.lock"
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    for pid, host, free in (
        (dead.pid, socket.gethostname(), True),
        (os.getppid(), socket.gethostname(), False),
        (dead.pid, "another-machine", False),
    ):
        file.write_text(json.dumps({"pid": pid, "host": host, "since": "yesterday"}))
        if free:
            with lock_output(out):
                pass
            continue
        remedy = rf"delete {file}" if host == "another-machine" else "Wait for it"
        with pytest.raises(OutputError, match=rf"process {pid} on {host}, since yesterday.*{remedy}"), lock_output(out):
            pass


def test_a_damaged_lock_file_does_not_lock(tmp_path: Path) -> None:
    for content in ("", "[]", "{", '{"pid": "x"}', "[" * 100_000):
        (tmp_path / ".out.lock").write_text(content)
        with lock_output(tmp_path / "out"):
            pass


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_where_the_folder_above_is_read_only_the_lock_lies_inside(tmp_path: Path) -> None:
    out = tmp_path / "mounted" / "out"
    out.mkdir(parents=True)
    out.parent.chmod(0o555)
    with lock_output(out):
        assert [path.name for path in out.iterdir()] == [".part-lock"]
    assert list(out.iterdir()) == []


def test_the_lock_lies_inside_where_the_folder_above_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks.os, "access", lambda *_: False)
    with lock_output(tmp_path):
        assert [path.name for path in tmp_path.iterdir()] == [".part-lock"]
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_an_error_of_the_output_whoever_wrote(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"out: cannot be written \(No space left"), lock_output(tmp_path / "out"):
        raise OSError(28, "No space left on device")
    with pytest.raises(FileNotFoundError), lock_output(tmp_path / "out"):
        raise FileNotFoundError(2, "a fault of the program stays one")


def test_a_function_holds_the_lock_of_its_argument(tmp_path: Path) -> None:
    @lock_argument("out")
    def work(first: int, out: Path) -> bool:
        return (out.parent / ".out.lock").exists() and first == 1

    assert work(1, tmp_path / "out") and work(1, out=tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
