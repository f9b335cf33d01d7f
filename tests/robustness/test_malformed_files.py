"""Malformed files of every format end in a clear error or are read: no traceback, no hang, no remains, nothing outside.

`make test` runs a share of the cases, `make test-robustness` all of them, and prints how they ended. A case is named by
its target, its number and what was done, and is always the same for one seed:

    python -m tests.robustness.report --seed 1          other cases of the same kinds
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from tests.robustness.mutations import mutate
from tests.robustness.runner import run_case, take_snapshot
from tests.robustness.targets import TARGETS, Target, build_scene

SHARE = 12
"""Of the cases of a target, every such one is run by `make test`."""


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_scene(tmp_path_factory.mktemp("sound") / "scene")


def run_target(
    target: Target, sound: Path, folder: Path, *, seed: int = 0, share: int = 1, offset: int = 0
) -> dict[str, list[str]]:
    """Run the cases of a target; return how they ended -> descriptions."""
    ended: dict[str, list[str]] = {}
    cases = mutate(target.kind, (sound / target.file).read_bytes(), seed=seed, count=target.count)
    acts = target.readers or target.commands
    scene = folder / "scene"
    shutil.copytree(sound, scene, symlinks=True)
    whole = take_snapshot(scene)
    for number, (what, content) in enumerate(cases):
        if number % share != offset % share:
            continue
        is_command = bool(target.commands) and (number // share) % 6 == 5
        act = target.commands[number % len(target.commands)] if is_command else acts[number % len(acts)]
        (scene / target.file).write_bytes(content)
        outcome = run_case(scene, act)
        told = act if isinstance(act, str) else "read"
        ended.setdefault(outcome.state, []).append(f"{target.name} {number} ({what[:80]}), {told}: {outcome.text}")
        if (scene / target.file).parent.is_dir():  # a training that finishes removes its checkpoints
            shutil.copy2(sound / target.file, scene / target.file)
        if take_snapshot(scene) != whole:
            shutil.rmtree(scene)
            shutil.copytree(sound, scene, symlinks=True)
    return ended


def find_faults(ended: dict[str, list[str]]) -> list[str]:
    return [
        f"{state}: {text}" for state, texts in ended.items() if state not in ("accepted", "refused") for text in texts
    ]


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_a_share_of_malformed_files(target: Target, sound: Path, tmp_path: Path) -> None:
    ended = run_target(target, sound, tmp_path, share=SHARE, offset=TARGETS.index(target))
    assert not find_faults(ended), "\n\n".join(find_faults(ended))
    assert ended


@pytest.mark.robustness
@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_all_malformed_files(target: Target, sound: Path, tmp_path: Path) -> None:
    ended = run_target(target, sound, tmp_path)
    assert not find_faults(ended), "\n\n".join(find_faults(ended))
    assert ended.get("refused"), "nothing was refused"
