# ruff: noqa: T201  (a script that prints a table)
"""Kill every long command again and again, and compare what the next start makes with an undisturbed run.

    python tests/robustness/kill_drills.py --kills 10 --seed 0 [--only detect "detect, network" train] [--full-disk]

Each drill forks this process, which has everything imported already, lets the child run a command line until its first
part is saved, and disturbs it after a random further moment. The same command is then started again and must end with
the same bytes as an undisturbed run, and leave nothing beside them. The table that it prints stands in
docs/reliability.md. `--full-disk` needs root, to mount a small file system in memory.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import os
import pkgutil
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # a forked child has none of the threads of this process
sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.robustness.drill_commands import DRILLS, Drill, lay_out, make_inputs, run_line

import semicdvl

FINISHED, REFUSED, BROKEN = (0, 1), 2, 70
SIGNALS = {signal.SIGTERM: 143, signal.SIGINT: 130, signal.SIGHUP: 129}
TIMED = (
    "seconds", "started", "finished", "written", "peak_mib", "peak_memory_mib", "tiles", "cost", "train_s", "test_s",
)  # fmt: skip
"""Keys of records that differ between equal runs."""
PRESENT = (".html", ".jsonl", ".svg", ".csv", ".log", ".md")
"""Files that name seconds: of these only the presence is compared."""
FREE_KIB = (0, 8, 40, 150, 500, 1500)
"""What is left on a full disk."""
FILE_KIB = (1, 8, 40, 150)
"""How large a file may become, where the limit is on files."""
PATIENCE_S = 240


# ------------------------------------------------------------------------------------------------ processes
class Place:
    """A fresh output of a command, and the log beside it."""

    def __init__(self, home: Path, folder: Path, drill: Drill) -> None:
        self.home, self.folder, self.drill = home, folder, drill
        self.out, self.log = folder / "out", folder / "log"
        lay_out(drill, home, self.out)

    def start(self, *, file_kib: int | None = None) -> int:
        """Fork a child that runs the command."""
        sys.stdout.flush()
        pid = os.fork()
        if pid:
            return pid
        code = BROKEN
        try:
            os.setsid()
            os.chdir(self.home)
            handle = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
            os.dup2(handle, 1)
            os.dup2(handle, 2)
            if file_kib is not None:
                resource.setrlimit(resource.RLIMIT_FSIZE, (file_kib * 1024, file_kib * 1024))
            code = run_line(self.drill.line, self.out)
        except BaseException:
            os.write(2, traceback.format_exc().encode())
        finally:
            os._exit(code)
        raise AssertionError("unreachable")

    def run(self, **limits: int) -> int:
        """Run the command and return its exit code."""
        return finish(self.start(**limits))

    def wait_for_part(self, pid: int) -> bool:
        """Wait until the command has saved its first part; False if it ended before."""
        until = time.monotonic() + PATIENCE_S
        while self.drill.parts and not any(self.folder.glob(self.drill.parts)) and time.monotonic() < until:
            if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
                return False
            time.sleep(0.001)
        return True

    def read(self) -> dict[str, Any]:
        """Return what was written, without times and without what differs by the place it lies in."""
        mine = [path for path in self.folder.rglob("*") if path.is_file() and path != self.log]
        names = self.drill.compared
        mine = [path for path in mine if not names or path.name in names or path.name.startswith((".part-", ".old-"))]
        return {str(path.relative_to(self.folder)): _read_file(path, self.folder) for path in sorted(mine)}

    @property
    def said(self) -> str:
        """The last words of the command."""
        return self.log.read_text(errors="replace")[-1500:] if self.log.exists() else ""


def import_everything() -> None:
    """Import what the commands import, so that no child has to, and a signal meets work rather than imports."""
    import geopandas  # noqa: F401
    import matplotlib.pyplot  # noqa: F401
    import onnxruntime  # noqa: F401
    import torch

    torch.set_num_threads(1)
    for module in pkgutil.walk_packages(semicdvl.__path__, "semicdvl."):
        if "__main__" not in module.name:
            importlib.import_module(module.name)


def finish(pid: int) -> int:
    """Wait for a child and return its exit code, negative for a signal."""
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return BROKEN


def _read_file(path: Path, folder: Path) -> Any:
    if path.suffix in PRESENT or path.name in ("batch.json", "pairs.json"):
        return "present"
    content = path.read_bytes().replace(str(folder).encode(), b"")
    if path.suffix != ".json":
        return content if path.suffix in (".txt", ".toml") else path.read_bytes()
    return _without_times(json.loads(content))


def _without_times(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_times(one) for key, one in value.items() if key not in TIMED}
    return [_without_times(one) for one in value] if isinstance(value, list) else value


class Drills:
    """The drills of one command.

    Attributes:
        seen: how often what happened.
        faults: what was not as it should be.
    """

    def __init__(self, name: str, home: Path, rng: random.Random) -> None:
        self.name, self.drill, self.home, self.rng = name, DRILLS[name], home, rng
        self.seen: Counter[str] = Counter()
        self.faults: list[str] = []
        with self.open_place() as place:
            code = place.run()
            assert code in FINISHED, place.said
            self.wanted = place.read()

    @contextlib.contextmanager
    def open_place(self, parent: Path | None = None) -> Iterator[Place]:
        """Give an empty folder beside the inputs."""
        folder = Path(tempfile.mkdtemp(dir=parent or self.home))
        try:
            yield Place(self.home, folder, self.drill)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def count(self, what: str, is_right: bool, place: Place, code: int) -> None:
        """Note how a drill ended."""
        self.seen[what] += 1
        self.seen[f"{what}, right"] += is_right
        if not is_right:
            found = place.read()
            differ = sorted(key for key in found.keys() | self.wanted.keys() if found.get(key) != self.wanted.get(key))
            self.faults.append(f"{self.name}, {what}: code {code}, differ {differ[:6]}: {place.said[-700:]}")
            print("#", self.faults[-1], flush=True)

    def run_again(self, what: str, place: Place) -> None:
        """Start the command again; it must make what an undisturbed run makes, and nothing else may be there."""
        code = place.run()
        self.count(f"{what}, next start", code in FINISHED and place.read() == self.wanted, place, code)

    def kill(self, count: int) -> None:
        """Kill it with SIGKILL."""
        for _ in range(count):
            with self.open_place() as place:
                pid = place.start()
                self.send(place, pid, signal.SIGKILL)
                code = finish(pid)
                self.count("SIGKILL", code in (-signal.SIGKILL, *FINISHED), place, code)
                self.seen["SIGKILL after the end"] += code in FINISHED
                self.run_again("SIGKILL", place)

    def stop(self, count: int) -> None:
        """Ask it to end, by the signals of a terminal and of a scheduler."""
        for number, wanted in SIGNALS.items():
            for _ in range(count):
                with self.open_place() as place:
                    pid = place.start()
                    self.send(place, pid, number)
                    code = finish(pid)
                    unfinished = [path for path in place.folder.rglob(".part-*") if path.is_file()]
                    is_right = code in (wanted, *FINISHED) and not unfinished and "Traceback" not in place.said
                    self.count("signals", is_right, place, code)
                    self.run_again("signals", place)

    def send(self, place: Place, pid: int, number: int) -> None:
        """Send a signal a moment after the first part was saved."""
        place.wait_for_part(pid)
        time.sleep(self.rng.uniform(0 if self.drill.parts else 0.1, self.drill.spread_s))
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)

    def write_twice(self) -> None:
        """Start it while another process, stopped in its middle, works on the same output."""
        with self.open_place() as place:
            first = place.start()
            if not self.drill.parts or not place.wait_for_part(first):
                finish(first)
                return
            os.kill(first, signal.SIGSTOP)
            code = place.run()
            is_right = code == REFUSED and f"process {first}" in place.said.replace("\n", " ")
            os.kill(first, signal.SIGCONT)
            ended = finish(first)
            self.count("two writers", is_right and ended in FINISHED and place.read() == self.wanted, place, code)

    def fill_disk(self) -> None:
        """Run it on a disk that is full, over an earlier result, which must stay; with space it goes on."""
        with self.open_place() as room:
            disk = room.folder / "disk"
            disk.mkdir()
            subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256m", "tmpfs", str(disk)], check=True)
            try:
                for free_kib in FREE_KIB:
                    with self.open_place(disk) as place:
                        self.fill_place(place, disk, free_kib)
            finally:
                subprocess.run(["umount", "-l", str(disk)], check=True)

    def fill_place(self, place: Place, disk: Path, free_kib: int) -> None:
        """Leave so little space, run the command, take the ballast away, run it again."""
        if self.drill.replaces:
            assert place.run() in FINISHED, place.said
        before, ballast = place.read(), disk / "ballast"
        place.log.unlink(missing_ok=True)
        place.log = self.home / "log of the full disk"
        facts = os.statvfs(disk)
        with ballast.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, max(facts.f_bavail * facts.f_frsize - free_kib * 1024, 1))
        code = place.run()
        self.count("full disk", self.is_orderly(place, code, before), place, code)
        ballast.unlink()
        self.run_again("full disk", place)

    def limit_files(self) -> None:
        """Run it where files may not grow beyond a size."""
        for size in FILE_KIB:
            with self.open_place() as place:
                before = place.read()
                code = place.run(file_kib=size)
                self.count("file limit", self.is_orderly(place, code, before), place, code)
                self.run_again("file limit", place)

    def is_orderly(self, place: Place, code: int, before: dict[str, Any]) -> bool:
        """Tell whether a command that could not write has said so in one line, and left the earlier result."""
        self.seen["of these fitted"] += code in FINISHED
        left = [path for path in place.folder.rglob(".part-*") if path.is_file()]
        if code in FINISHED:
            return not left
        found = place.read()
        kept = not self.drill.replaces or all(found.get(name) == content for name, content in before.items())
        said = place.said.replace("\n", " ")
        return code == REFUSED and "cannot be written" in said and "Traceback" not in said and not left and kept

    def change_input(self) -> None:
        """Take an image away, cut it or write another one over it, after the first part; the next run is right."""
        image = self.home / self.drill.reads
        kept, facts = image.read_bytes(), image.stat()
        for change in ("gone", "cut", "other"):
            with self.open_place() as place:
                pid = place.start()
                place.wait_for_part(pid)
                if change == "gone":
                    image.unlink()
                elif change == "cut":
                    os.truncate(image, len(kept) // 2)
                else:
                    image.write_bytes(kept[: len(kept) // 2] + bytes(len(kept) - len(kept) // 2))
                code = finish(pid)
                is_right = code == REFUSED or (code in FINISHED and place.read() == self.wanted)
                self.count("changing input", is_right and "Traceback" not in place.said, place, code)
                image.write_bytes(kept)
                os.utime(image, ns=(facts.st_atime_ns, facts.st_mtime_ns))
                self.run_again("changing input", place)


COLUMNS = ("SIGKILL", "signals", "two writers", "file limit", "full disk", "changing input")


def show(name: str, seen: Counter[str]) -> None:
    """Print a row of the table: right ones of all, and right next starts."""
    cells = []
    for what in COLUMNS:
        again = f"{what}, next start"
        cell = f"{seen[f'{what}, right']}/{seen[what]}" if seen[what] else "-"
        cells.append(cell + (f", {seen[f'{again}, right']}/{seen[again]}" if seen[again] else ""))
    print(f"| {name} | " + " | ".join(cells) + " |", flush=True)


def main() -> None:
    """Run the drills and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=10, help="SIGKILLs per command")
    parser.add_argument("--signals", type=int, default=1, help="SIGTERM, SIGINT and SIGHUP, each, per command")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="*", default=[], choices=[*DRILLS], metavar="COMMAND", help="; ".join(DRILLS))
    parser.add_argument("--full-disk", action="store_true")
    options = parser.parse_args()
    rng, total, faults = random.Random(options.seed), Counter[str](), 0
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        pid = os.fork()  # threads of GDAL that this process had started would be missing in all that are forked from it
        if not pid:
            make_inputs(home)
            os._exit(0)
        assert finish(pid) == 0, "the inputs were not made"
        import_everything()
        print(f"| command | {' | '.join(COLUMNS)} |\n|---" + "|---" * len(COLUMNS) + "|")
        for name in DRILLS:
            if options.only and name not in options.only:
                continue
            drills = Drills(name, home, rng)
            drills.kill(options.kills)
            drills.stop(options.signals)
            if DRILLS[name].parts and name != "pseudo":  # several processes may fill one store
                drills.write_twice()
            drills.limit_files()
            if options.full_disk:
                drills.fill_disk()
            if DRILLS[name].reads:
                drills.change_input()
            show(name, drills.seen)
            total.update(drills.seen)
            faults += len(drills.faults)
    show("all", total)
    print(f"{faults} faults; {total['SIGKILL after the end']} of the SIGKILLs came after the end")
    raise SystemExit(1 if faults else 0)


if __name__ == "__main__":
    main()
