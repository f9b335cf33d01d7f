"""Several processes, one store: the bytes of a single one, nothing asked twice, nothing lost when one is killed."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from unittest.mock import MagicMock

import cv2
import numpy as np
import pytest
import torch
from tests.support.paths import ROOT

from semicdvl import ray_cluster
from semicdvl.ceg.config import CEGSettings
from semicdvl.ceg.prompts import Prompts
from semicdvl.errors import ConfigError, InputError, MissingExtraError, StoreError, WorkerError
from semicdvl.pseudo_labels.executor import fill_with_workers
from semicdvl.pseudo_labels.generate import build_store_spec, generate_labels
from semicdvl.pseudo_labels.locks import lock_for_writing, lock_key
from semicdvl.pseudo_labels.quality import fill_store
from semicdvl.pseudo_labels.store import PseudoLabelStore
from semicdvl.pseudo_labels.workers import WorkerSettings
from semicdvl.types import PairFiles, Segments
from semicdvl.vlms.models.fake import FakeVLM, build_fake

WORDS = Prompts(("building",), ("grass", "water"))
SETTINGS = CEGSettings(gamma=0.5, gamma_segmentation=0.5)
ALIKE = replace(SETTINGS, min_cosine=0.5)


class Threaded(FakeVLM):
    """The fake, with an answer that depends on the number of threads, as that of a network does in its last digit."""

    def segment(self, image_HWC: np.ndarray, prompts: Sequence[str], *, gsd_m: float | None = None) -> Segments:
        import torch

        answer = super().segment(image_HWC, prompts, gsd_m=gsd_m)
        answer.scores_CHW[:, 0, 0] = torch.get_num_threads() / 20
        return answer


class Noting(FakeVLM):
    """The fake, writing a line for every question, at leisure."""

    def segment(self, image_HWC: np.ndarray, prompts: Sequence[str], *, gsd_m: float | None = None) -> Segments:
        with Path(os.environ["NOTES"]).open("a") as notes:
            notes.write("asked\n")
        time.sleep(0.15)
        return super().segment(image_HWC, prompts, gsd_m=gsd_m)


class Dying(FakeVLM):
    """Ends its process as a kernel does that is out of memory."""

    def segment(self, image_HWC: np.ndarray, prompts: Sequence[str], *, gsd_m: float | None = None) -> Segments:
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError("unreachable")


@dataclass
class NamedFeatures:
    """A feature extractor that has an identity alone."""

    identity: str


def other_identity() -> FakeVLM:
    return FakeVLM("fake-2")


def _series(folder: Path, count: int) -> list[PairFiles]:
    """Pairs of one place over time: every image but the ends stands in two pairs."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    images = []
    for date in range(count + 1):
        image = np.full((23, 31, 3), (110, 170, 80), np.uint8)
        row, col = rng.integers(0, 15, 2)
        image[row : row + 7, col : col + 9] = (220, 220, 220)
        images.append(folder / f"{date}.png")
        cv2.imwrite(str(images[-1]), image[..., ::-1])
    return [PairFiles(f"p{at}", images[at], images[at + 1]) for at in range(count)]


def _bytes(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def _alone(pairs: list[PairFiles], root: Path, vlm: FakeVLM | None = None) -> dict[str, bytes]:
    list(generate_labels(pairs, vlm=vlm or build_fake(), prompts=WORDS, settings=SETTINGS, root=root))
    return _bytes(root)


def _with(pairs: list[PairFiles], crew: WorkerSettings, root: Path) -> list[dict]:
    spec = build_store_spec(build_fake(), prompts=WORDS, settings=SETTINGS)
    return list(fill_with_workers(pairs, crew, spec=spec, settings=SETTINGS, root=root))


@pytest.fixture
def pairs(tmp_path: Path) -> list[PairFiles]:
    return _series(tmp_path / "images", 6)


def test_two_processes_write_the_bytes_of_one_and_ask_nothing_twice(
    tmp_path: Path, pairs: list[PairFiles], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = _alone(pairs, tmp_path / "whole")
    monkeypatch.setenv("NOTES", str(tmp_path / "notes"))
    records = _with(pairs, WorkerSettings(Noting, workers=2), tmp_path / "two")
    assert [record["name"] for record in records] == [pair.name for pair in pairs]
    assert _bytes(tmp_path / "two") == whole
    assert (tmp_path / "notes").read_text().count("asked") == 7  # two processes, twelve dates, seven images
    filled = fill_store(
        pairs,
        vlm=build_fake(),
        prompts=WORDS,
        settings=SETTINGS,
        root=tmp_path / "two",
        workers=WorkerSettings(build_fake),
    )
    assert filled.summary.startswith("6 pairs in ") and not filled.quality


@pytest.fixture
def three_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


def test_workers_compute_with_as_many_threads_as_one_process(
    tmp_path: Path, pairs: list[PairFiles], three_threads: None
) -> None:
    whole = _alone(pairs[:2], tmp_path / "whole", Threaded())
    before = dict(os.environ)
    _with(pairs[:2], WorkerSettings(Threaded, workers=2), tmp_path / "two")
    assert _bytes(tmp_path / "two") == whole
    assert dict(os.environ) == before


def test_an_error_of_a_worker_is_the_users_error_and_what_was_done_is_kept(
    tmp_path: Path, pairs: list[PairFiles]
) -> None:
    whole = _alone(pairs, tmp_path / "whole")
    sound = pairs[5].after.read_bytes()
    pairs[5].after.write_bytes(sound[:60])
    with pytest.raises(InputError, match=r"5|6\.png"):
        _with(pairs, WorkerSettings(build_fake, workers=2), tmp_path / "store")
    done = list((tmp_path / "store" / "labels").glob("*/*.json"))
    assert 1 <= len(done) <= 5
    pairs[5].after.write_bytes(sound)
    _alone(pairs, tmp_path / "store")
    assert _bytes(tmp_path / "store") == whole
    with pytest.raises(StoreError, match="a worker has the VLM fake-2"):
        _with(pairs, WorkerSettings(other_identity, workers=2), tmp_path / "other")
    spec = build_store_spec(build_fake(), prompts=WORDS, settings=ALIKE, features=NamedFeatures("plain-1"))
    other = WorkerSettings(build_fake, partial(NamedFeatures, "plain-2"))
    with pytest.raises(StoreError, match=r"a worker has the features plain-2, but the store is made with plain-1"):
        other.build_labeler(tmp_path / "features", spec, ALIKE)


def test_a_worker_that_is_killed_is_told_in_words(tmp_path: Path, pairs: list[PairFiles]) -> None:
    with pytest.raises(WorkerError, match=r"a worker process died.*fewer --workers"):
        _with(pairs, WorkerSettings(partial(Dying), workers=2), tmp_path / "store")
    with pytest.raises(ConfigError, match="engine 'dask'"):
        WorkerSettings(build_fake, engine="dask")


KILLED = """
import sys; sys.path.insert(0, sys.argv[1])
from pathlib import Path
from tests.pseudo_labels.test_executor import SETTINGS, WORDS, Noting, PairFiles, generate_labels
images = sorted(Path(sys.argv[2]).glob("*.png"), key=lambda path: int(path.stem))
pairs = [PairFiles(f"p{at}", *images[at : at + 2]) for at in range(len(images) - 1)]
list(generate_labels(pairs, vlm=Noting(), prompts=WORDS, settings=SETTINGS, root=Path(sys.argv[3])))
"""


def test_killed_in_the_middle_and_started_again_it_ends_with_the_same_bytes(
    tmp_path: Path, pairs: list[PairFiles]
) -> None:
    whole, root = _alone(pairs, tmp_path / "whole"), tmp_path / "cut"
    environment = os.environ | {"NOTES": str(tmp_path / "notes")}
    command = [sys.executable, "-c", KILLED, str(ROOT), str(pairs[0].before.parent), str(root)]
    process = subprocess.Popen(command, env=environment)
    while process.poll() is None and len(list(root.glob("labels/*/*.json"))) < 2:
        time.sleep(0.01)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert 2 <= len(list(root.glob("labels/*/*.json"))) < len(pairs)
    half = root / "answers" / "ab" / ".part-half.npz"  # what a write leaves that is cut off in the middle
    half.parent.mkdir(exist_ok=True)
    with lock_for_writing(root):  # somebody else is writing: it could be theirs
        half.write_bytes(b"half")
        list(generate_labels(pairs[:1], vlm=build_fake(), prompts=WORDS, settings=SETTINGS, root=root))
        assert half.exists()
    list(generate_labels(pairs, vlm=build_fake(), prompts=WORDS, settings=SETTINGS, root=root))
    assert not half.exists()
    assert _bytes(root) == whole


def test_a_lock_lasts_no_longer_than_its_work(tmp_path: Path) -> None:
    with lock_key(tmp_path, "key"):
        assert (tmp_path / ".locks" / "key").exists()
    assert not (tmp_path / ".locks" / "key").exists()


# ------------------------------------------------------------------------------------------------ Ray
def test_on_a_local_ray_the_bytes_are_the_same_and_errors_are_the_users(
    tmp_path: Path, pairs: list[PairFiles], three_threads: None
) -> None:
    pytest.importorskip("ray", reason="semicdvl[ray] is not installed")
    whole = _alone(pairs, tmp_path / "whole", Threaded())
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    crew, spec = (
        WorkerSettings(Threaded, workers=2, engine="ray"),
        build_store_spec(build_fake(), prompts=WORDS, settings=SETTINGS),
    )
    work = fill_with_workers(
        [*pairs, PairFiles("broken", broken, broken)], crew, spec=spec, settings=SETTINGS, root=tmp_path / "ray"
    )
    with pytest.raises(InputError, match=r"broken\.png"):
        for _ in work:
            pass
    assert _bytes(tmp_path / "ray") == whole


@pytest.mark.parametrize(
    ("cpus", "gpus", "workers", "shares"),
    [(8, 0, 3, (1, 0)), (8, 2, 2, (1, 1)), (8, 2, 3, (1, 1 / 2)), (4, 3, 8, (1 / 2, 1 / 3)), (1, 1, 7, (1 / 7, 1 / 7))],
)
def test_all_actors_have_room_on_a_small_cluster(
    cpus: int, gpus: int, workers: int, shares: tuple[float, float]
) -> None:
    """A share lies in one GPU: of 2 GPUs, shares of 2/3 have room for two actors, and the third one waits for ever."""
    cluster = MagicMock()
    cluster.cluster_resources.return_value = {"CPU": float(cpus)} | ({"GPU": float(gpus)} if gpus else {})
    ray_cluster._define_actor(cluster, FakeVLM, workers)
    assert cluster.remote.call_args.kwargs == dict(zip(("num_cpus", "num_gpus"), shares, strict=True))


def test_without_ray_the_extra_is_named(
    tmp_path: Path, pairs: list[PairFiles], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtraError, match=r"semicdvl\[ray\]"):
        _with(pairs, WorkerSettings(build_fake, engine="ray"), tmp_path / "store")
    assert PseudoLabelStore.open(tmp_path / "store").verify() == []
