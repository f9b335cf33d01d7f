"""A suite that cannot work is one clear error before anything is made; a run that breaks is a line of the table."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from tests.support.command import command
from tests.support.paths import ROOT

from semicdvl.benchmarking import processes
from semicdvl.benchmarking.jobs import TrainingJob
from semicdvl.benchmarking.worker import _score_last_step
from semicdvl.config import load_recipe
from semicdvl.errors import CheckpointError

RECIPES = ROOT / "recipes"
SUITE = f"""
name = "tiny"
labelled = [0.5]
seeds = [1]

[set.train]
steps = 3
eval_every = 1
labelled_batch = 1
unlabelled_batch = 2

[[methods]]
name = "Sup-only"
recipe = "{RECIPES.as_posix()}/small-supervised.toml"

[methods.set.model]
name = "fc_ef"
width = 4

[[data]]
kind = "city"
city_px = 192
patch_px = 64
train_cities = 1
test_cities = 1
first_seed = 7
"""
UNIMATCH = f'[[methods]]\nname = "UniMatch"\nrecipe = "{RECIPES.as_posix()}/small-unimatch.toml"\n'
BAD = {
    "a pair that cannot work": (
        '[[data]]',
        f'{UNIMATCH}[methods.set.model]\nname = "snunet"\n[[data]]',
        "method 'UniMatch': method 'unimatch' needs the heads perturbed, which model 'snunet' lacks. Take model",
    ),
    "an unknown method": (
        "[[data]]",
        f'{UNIMATCH}[methods.set.method]\nname = "unimatsh"\n[[data]]',
        "method 'UniMatch': unknown method 'unimatsh'. Did you mean 'unimatch'",
    ),
    "an unknown network": ('name = "fc_ef"', 'name = "fc_eff"', "unknown model 'fc_eff'. Did you mean 'fc_ef'"),
    "an unknown network among all": (
        "[[data]]",
        '[[models]]\nname = "deep"\nset = {name = "deeplap"}\n[[data]]',
        "method 'Sup-only' with network 'deep': unknown model 'deeplap'. Did you mean 'deeplab'",
    ),
    "an option of another network": ("width = 4", "wide = 4", "has no option 'wide'. Did you mean 'width'"),
    "an unknown key": ("eval_every = 1", "evaluate = 1", "unknown key 'train.evaluate'"),
    "a recipe that is not there": ("small-supervised", "small-supervisd", "small-supervisd.toml: cannot be read"),
    "no labels at all": ("labelled = [0.5]", "labelled = [0.0]", "method 'supervised' needs labelled pairs"),
    "fewer than no labels": ("labelled = [0.5]", "labelled = [-0.5]", "labelled.0 = -0.5"),
}  # fmt: skip


@pytest.mark.parametrize(("old", "new", "says"), BAD.values(), ids=BAD.keys())
def test_what_cannot_work_is_refused_before_anything_is_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], old: str, new: str, says: str
) -> None:
    assert old in SUITE
    (tmp_path / "suite.toml").write_text(SUITE.replace(old, new), encoding="utf-8")
    code, _, complaint = command(capsys, "benchmark", tmp_path / "suite.toml", "-o", tmp_path / "out", "--jobs", 0)
    assert code == 2 and complaint.count("error:") == 1 and "Traceback" not in complaint
    assert says in " ".join(complaint.split()), complaint
    assert not (tmp_path / "out").exists()


def test_a_fraction_without_a_labelled_pair(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The cities are made before their patches can be counted; what is refused leaves nothing of them."""
    (tmp_path / "suite.toml").write_text(SUITE.replace("[0.5]", "[0.5, 0.05]"), encoding="utf-8")
    code, _, complaint = command(capsys, "benchmark", tmp_path / "suite.toml", "-o", tmp_path / "out", "--jobs", 0)
    assert code == 2 and "Traceback" not in complaint
    text = " ".join(complaint.split())
    assert "city: 0.05 of 9 training pairs with a label is less than one pair. Give at least 0.1111" in text
    assert not (tmp_path / "out").exists()


def test_a_run_that_diverges_is_a_line_that_says_where_and_the_others_go_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    breaks = SUITE.split("[[methods]]")[1].split("[[data]]")[0].replace('"Sup-only"', '"Breaks"')
    breaks += '[methods.set.method]\nname = "tests.support.plain_network:BreaksAt"\nstep_number = 2\n'
    text = SUITE.replace("[[methods]]", f"[[methods]]{breaks}[[methods]]")  # the one that breaks comes first
    (tmp_path / "suite.toml").write_text(text, encoding="utf-8")
    arguments = ("benchmark", tmp_path / "suite.toml", "-o", tmp_path / "out", "--jobs", 0)
    code, table, complaint = command(capsys, *arguments)
    assert code == 0, complaint
    assert "Breaks, 50 %, seed 1: diverged at step 2." in table and "0 of 1 (1 diverged at step 2)" in table
    with (tmp_path / "out" / "results.csv").open(encoding="utf-8") as handle:
        ended = {row["method"]: (row["status"], bool(row["iou_val_best"])) for row in csv.DictReader(handle)}
    assert ended == {"Breaks": ("diverged at step 2", False), "Sup-only": ("finished", True)}
    kept = list((tmp_path / "out" / "runs").glob("city-breaks-*/model.safetensors"))
    assert len(kept) == 1, "what was good before it broke is kept"
    code, _, complaint = command(capsys, *arguments)
    assert code == 0 and "2 runs, 2 of them done already" in complaint


def test_a_process_gets_its_gpu_and_its_share_of_the_cores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started = []

    class Process:
        stdin = None

        def __init__(self, command: list[str], *, stdin, stdout, stderr, env: dict[str, str]) -> None:
            started.append((command[-2], env.get("CUDA_VISIBLE_DEVICES"), env["OMP_NUM_THREADS"]))

        def poll(self) -> int:
            return 0

    class Quick:
        """What is needed of a job."""

        cost, steps, place = 1.0, 1, {"data": "d", "method": "m", "labelled": 0.5, "seed": 0}

        def __init__(self, number: int) -> None:
            self.run, self.result = tmp_path, tmp_path / f"{number}.result.json"
            self.file = tmp_path / f"{number}.json"

        def write(self) -> Path:
            return self.file

    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(processes.subprocess, "Popen", Process)
    monkeypatch.setattr(processes, "POLL_S", 0.0)
    monkeypatch.setattr(processes, "count_cores", lambda: 7)
    jobs: list[TrainingJob] = [Quick(number) for number in range(5)]  # type: ignore[list-item]
    processes.run_jobs(jobs, 3, processes.Console(quiet=True), devices=("0", "2"))
    assert [Path(name).name for name, _, _ in started] == [f"{number}.json" for number in range(5)]
    assert [device for _, device, _ in started] == ["0", "2", "0", "0", "2"]  # three run, end together, then two
    assert {threads for _, _, threads in started} == {"2"}


def test_a_run_without_its_last_weights_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"run: has lost the weights of its last step \(state/\)\. Delete it"):
        _score_last_step(load_recipe(RECIPES / "small-supervised.toml"), tmp_path / "run")
