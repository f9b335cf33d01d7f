"""Tiles over a local Ray: the bytes of one process, with every kind of detector; errors in words; nothing lost."""

import json
import os
import pickle
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from tests.support.command import command
from tests.support.synthetic_rasters import at, city, png, tif

from semicdvl.atomic_files import write_json
from semicdvl.ceg.prompts import Prompts
from semicdvl.checkpoint import RUN_FORMAT, save_weights
from semicdvl.detection.batch.pairs_table import BatchPair, PairsTable
from semicdvl.detection.batch.run import detect_batch
from semicdvl.detection.config import DetectionConfig
from semicdvl.detection.detectors.network import build_network_detector
from semicdvl.detection.detectors.unsupervised import build_unsupervised_detector
from semicdvl.detection.detectors.vlm_ceg import build_vlm_detector
from semicdvl.detection.fingerprint import identify_detector
from semicdvl.detection.pipeline import write_detection
from semicdvl.detection.tiles import ray_executor
from semicdvl.detection.tiles.ray_executor import TILES_IN_FLIGHT, DetectorWorker, RayTileExecutor, open_executor
from semicdvl.detection.tiles.tile_runner import TileJob, detect_tile
from semicdvl.errors import ConfigError, InputError, MissingExtraError, WorkerError
from semicdvl.models.siam_light import build_siam_light as siam_light
from semicdvl.ray_cluster import connect_ray
from semicdvl.types import IGNORE, ChangeMap, Detector
from semicdvl.vlms.models.fake import FakeVLM
from semicdvl.worker_processes import DriverEnvironment

QUIET = Console(quiet=True)
TILES = DetectionConfig(tile_px=64, overlap_px=16)
WORKERS = 2
ROWS, COLS = 4, 5
"""Tiles of an image of 130 x 177 px."""
MODEL = {"backbone": "test_resnet", "pretrained": False, "decoder_channels": 12}
FILES = ("change.tif", "score.tif", "t1.tif", "t2.tif", "changes.gpkg")


@dataclass(frozen=True)
class Threaded(Detector):
    """Looks around each pixel; its last digit depends on the number of threads, as that of a network does.

    It writes into what it is given, as it may in one process; told to, it fails or dies in the middle.
    """

    fail_at: int = -1
    die: bool = False
    die_once: Path | None = None
    name: str = "threaded"
    map_count: int = 2

    def predict_scores(self, t1_HWC, t2_HWC, *, gsd_m=None):
        if self.die_once is not None and t1_HWC[0, 0, 0] == 33 and not self.die_once.exists():
            self.die_once.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if self.die and t1_HWC[0, 0, 0] > 128:
            os.kill(os.getpid(), signal.SIGKILL)
        if self.fail_at == t1_HWC[0, 0, 0]:
            raise InputError("weights.bin", "is damaged", "Get it anew")
        t1_HWC[0, 0] = t2_HWC[0, 0]
        difference_HW = np.abs(t1_HWC.astype(np.float32) - t2_HWC).mean(axis=2) / 255
        difference_HW = (difference_HW + np.roll(difference_HW, 9, axis=1)) / 2
        return np.stack([difference_HW, difference_HW * 0 + torch.get_num_threads() / 64 + (gsd_m or 0) / 128])

    def decide(self, strips):
        for strip in strips:
            score_HW = np.where(strip.valid_HW, strip.scores_PHW.mean(axis=0), np.nan).astype(np.float32)
            yield ChangeMap(np.where(strip.valid_HW, score_HW > 0.1, IGNORE).astype(np.uint8), score_HW)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ray")


@pytest.fixture(scope="module")
def pair(folder: Path) -> tuple[Path, Path]:
    """Two images of 130 x 177 px, black (no data) in a corner that holds two whole tiles."""
    images = [city(130, 177, seed=seed) for seed in (0, 1)]
    images[1][:, 66:, :130] = 0
    before, after = (
        tif(folder / f"{name}.tif", image, at(366_000, 4_104_000), nodata=0)
        for name, image in zip("ab", images, strict=True)
    )
    return before, after


@pytest.fixture(scope="module")
def onnx_file(folder: Path) -> Path:
    pytest.importorskip("onnxruntime", reason="semicdvl[onnx] is not installed")
    from semicdvl.detection.detectors.onnx.export import export_onnx

    torch.manual_seed(0)
    network = siam_light(**MODEL)
    network.change_decoder.classify.weight.data *= 60
    save_weights(folder / "run" / "model.safetensors", network.state_dict())
    part = {"name": "siam_light", **MODEL}
    write_json(
        folder / "run" / "run.json", {"format": RUN_FORMAT, "recipe": {"model": part, "method": {"name": "fixmatch"}}}
    )
    return export_onnx(folder / "run", folder / "x.onnx").path


@pytest.fixture(scope="module")
def three_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def cluster(three_threads: None) -> Iterator[None]:
    pytest.importorskip("ray", reason="semicdvl[ray] is not installed")
    with connect_ray(WORKERS):
        yield


@pytest.fixture(scope="module")
def engine(cluster: None, onnx_file: Path) -> Iterator[RayTileExecutor]:
    """One for all: it builds the ONNX detector over there, and is sent the others."""
    build = partial(build_network_detector, onnx_file, device="cpu")
    with RayTileExecutor(workers=WORKERS, build=build, built=build()) as engine:
        yield engine


def bytes_of(out: Path) -> dict[str, bytes]:
    return {name: (out / name).read_bytes() for name in FILES if (out / name).exists()}


def compared(pair: tuple[Path, Path], root: Path, detector: Detector, engine: RayTileExecutor) -> dict[str, bytes]:
    write_detection(*pair, root / "here", detector=detector, config=TILES, progress=QUIET)
    write_detection(*pair, root / "there", detector=detector, config=TILES, progress=QUIET, executor=engine)
    here, there = (bytes_of(root / name) for name in ("here", "there"))
    assert here == there and len(here) >= 3
    records = [json.loads((root / name / "run.json").read_text()) for name in ("here", "there")]
    assert records[0]["key"] == records[1]["key"] and records[0]["result"] == records[1]["result"]
    assert records[0]["result"]["changed_px"] > 0
    return here


# ------------------------------------------------------------------------------------------------ the same bytes
def test_a_vlm_gives_the_same_bytes(pair, tmp_path, engine):
    detector = build_vlm_detector(FakeVLM(), prompts=Prompts(("building",), ("grass", "water")))
    assert set(compared(pair, tmp_path, detector, engine)) == set(FILES)


def test_a_network_gives_the_same_bytes(pair, tmp_path, engine, folder):
    compared(pair, tmp_path, build_network_detector(folder / "run", device="cpu", threshold=0.4), engine)


def test_a_session_that_cannot_be_sent_is_built_over_there(pair, tmp_path, engine):
    with pytest.raises((TypeError, pickle.PicklingError)):
        pickle.dumps(engine._built)
    compared(pair, tmp_path, engine._built, engine)


@pytest.mark.parametrize("name", ["irmad", "pca_km"])
def test_a_method_that_must_see_the_whole_pair_takes_along_what_it_saw(pair, tmp_path, engine, name):
    compared(pair, tmp_path, build_unsupervised_detector(name), engine)


def test_many_pairs_with_as_many_threads_and_inputs_that_can_be_written_to(pair, tmp_path, engine):
    before, after = map(str, pair)
    plain = [str(png(tmp_path / f"{seed}.png", city(90, 70, seed=seed))) for seed in (2, 3)]
    table = PairsTable(tmp_path / "t.csv", (BatchPair("x", before, after), BatchPair("y", *plain)))
    for root, helper in (("here", None), ("there", engine)):
        found = detect_batch(table, tmp_path / root, detector=Threaded(), config=TILES, progress=QUIET, executor=helper)
        assert [one.state for one in found.outcomes] == ["done", "done"]
    for name in "xy":
        assert bytes_of(tmp_path / "here" / name) == bytes_of(tmp_path / "there" / name) != {}


def _jobs(given: list[int]) -> Iterator[TileJob]:
    """Thirty tiles, each of its own grey; every seventh shows nothing. The numbers of those asked for are noted."""
    for number in range(30):
        given.append(number)
        date_HWC = np.full((7, 5, 3), number, np.uint8)
        dates_HWC = None if number % 7 == 3 else (date_HWC, date_HWC // 2)
        yield TileJob(dates_HWC, np.full((6, 4), number % 2 == 0))


def test_the_answers_come_in_order_and_few_are_on_the_way(engine):
    detector, given, most = Threaded(), [], 0
    wanted = [detect_tile(detector, job, gsd_m=0.5) for job in _jobs([])]
    for number, told in enumerate(engine.bind(detector, gsd_m=0.5)(_jobs(given))):
        most = max(most, len(given) - number)
        assert np.array_equal(told.valid_HW, wanted[number].valid_HW)
        if number % 7 == 3:
            assert told.scores_PHW is None
        else:
            assert np.array_equal(told.scores_PHW, wanted[number].scores_PHW)
    assert number == 29 and 1 < most <= TILES_IN_FLIGHT * WORKERS


# ------------------------------------------------------------------------------------------------ going on
class Stopping:
    """An engine at which somebody presses Ctrl-C."""

    def __init__(self, engine: RayTileExecutor, *, after: int) -> None:
        self.engine, self.after = engine, after

    def bind(self, detector, *, gsd_m):
        def some(jobs):
            for number, told in enumerate(self.engine.bind(detector, gsd_m=gsd_m)(jobs)):
                if number == self.after:
                    raise KeyboardInterrupt
                yield told

        return some


def test_an_interrupted_run_goes_on_here_and_there(pair, tmp_path, engine):
    detector = Threaded()
    write_detection(*pair, tmp_path / "whole", detector=detector, config=TILES, progress=QUIET)
    for name, helper in (("here", None), ("there", engine)):
        with pytest.raises(KeyboardInterrupt):
            stopping = Stopping(engine, after=COLS + 4)
            write_detection(*pair, tmp_path / name, detector=detector, config=TILES, progress=QUIET, executor=stopping)
        write_detection(*pair, tmp_path / name, detector=detector, config=TILES, progress=QUIET, executor=helper)
        tiles = json.loads((tmp_path / name / "run.json").read_text())["tiles"]
        assert tiles["all"] == ROWS * COLS and tiles["from_an_interrupted_run"] >= COLS
        assert bytes_of(tmp_path / name) == bytes_of(tmp_path / "whole")


def test_an_error_over_there_is_the_users_error(pair, tmp_path, engine):
    before = png(tmp_path / "a.png", np.full((3, 90, 90), 7, np.uint8))
    after = png(tmp_path / "b.png", np.full((3, 90, 90), 99, np.uint8))
    with pytest.raises(InputError, match=r"weights\.bin: is damaged"):
        write_detection(before, after, tmp_path / "o", detector=Threaded(fail_at=7), config=TILES, progress=QUIET,
               executor=engine)  # fmt: skip
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "b.png"]
    cannot = replace(Threaded(), name=(one for one in "ab"))  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"cannot be sent to a worker of Ray .*generator"):
        list(engine.bind(cannot, gsd_m=None)(_jobs([])))


def test_a_worker_that_dies_is_told_in_words_and_what_is_done_is_kept(tmp_path, engine):
    dates = [np.full((3, 400, 70), 60 + 60 * date, np.uint8) for date in range(2)]
    dates[0][:, 350:] = 200  # the last row of tiles
    before, after = (png(tmp_path / f"{date}.png", dates[date]) for date in range(2))
    with pytest.raises(WorkerError, match=r"A Ray worker died .*Finished work is kept"):
        write_detection(before, after, tmp_path / "o", detector=Threaded(die=True), config=TILES, progress=QUIET,
               executor=engine)  # fmt: skip
    assert list((tmp_path / ".o.partial" / "tiles").glob("*.json")) and not (tmp_path / "o").exists()


def test_the_tile_of_a_dead_worker_is_computed_again(tmp_path, engine):
    """One worker is killed in the middle of a tile; the result has the bytes of one process."""
    dates = [city(150, 140, seed=seed) for seed in (0, 1)]
    dates[0][:, 48:112, 48:112] = 33
    before, after = (png(tmp_path / f"{date}.png", dates[date]) for date in range(2))
    mark = tmp_path / "died"
    mark.touch()
    write_detection(before, after, tmp_path / "here", detector=Threaded(die_once=mark), config=TILES, progress=QUIET)
    mark.unlink()
    write_detection(before, after, tmp_path / "there", detector=Threaded(die_once=mark), config=TILES, progress=QUIET,
           executor=engine)  # fmt: skip
    assert mark.exists(), "a worker died"
    assert bytes_of(tmp_path / "there") == bytes_of(tmp_path / "here")


# ------------------------------------------------------------------------------------------------ without a cluster
def test_another_detector_over_there_is_refused(monkeypatch, tmp_path):
    monkeypatch.setenv("OMP_WAIT_POLICY", "PASSIVE")
    monkeypatch.chdir(tmp_path)
    worker = DetectorWorker(DriverEnvironment.current())
    wanted = identify_detector(Threaded())
    assert worker.build(Threaded, wanted) is None
    refused = worker.build(partial(Threaded, name="an older one"), wanted)
    assert isinstance(refused, ConfigError) and "an older one" in str(refused) and "same files" in str(refused)
    refused = worker.build(partial(build_network_detector, tmp_path / "none"), wanted)
    assert refused is not None and "none" in str(refused)


def test_without_ray_the_extra_is_named(pair, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with RayTileExecutor(workers=2) as engine, pytest.raises(MissingExtraError, match=r"semicdvl\[ray\]"):
        write_detection(*pair, tmp_path / "o", detector=Threaded(), config=TILES, progress=QUIET, executor=engine)
    assert list(tmp_path.iterdir()) == []
    with (
        pytest.raises(ConfigError, match="engine 'dask'"),
        open_executor("dask", workers=1, build=Threaded, built=Threaded()),
    ):
        pass
    with pytest.raises(ConfigError, match="--workers 0"):
        RayTileExecutor(workers=0)


ROUTES = {
    "vlm": ["--vlm", "fake", "--find", "building", "--background", "grass", "--shift-px", "2"],
    "method": ["--method", "pca_km", "--method-set", "block_px=5"],
    "onnx": ["--model", "{onnx}"],
    "run": ["--model", "{run}", "--device", "cpu"],
}


@pytest.mark.parametrize("route", ROUTES)
def test_the_command_says_how_to_build_its_detector(pair, tmp_path, monkeypatch, capsys, folder, onnx_file, route):
    """What the command hands to the workers can be sent, and builds what the command itself has built."""
    handed = {}

    class Noted(RayTileExecutor):
        def __init__(self, **given):
            super().__init__(**given)
            handed.update(given)

        def bind(self, detector, *, gsd_m):
            return partial(map, partial(detect_tile, detector, gsd_m=gsd_m))

    monkeypatch.setattr(ray_executor, "RayTileExecutor", Noted)
    options = [one.format(onnx=onnx_file, run=folder / "run") for one in ROUTES[route]]
    out = tmp_path / "o"
    code, _, told = command(capsys, "detect", *pair, "-o", out, "--engine", "ray", "--workers", 3, *options)
    assert code == 0, told
    assert handed["workers"] == 3
    again = pickle.loads(pickle.dumps(handed["build"]))()
    assert identify_detector(again) == identify_detector(handed["built"])
    if route == "vlm":
        assert again.settings == handed["built"].settings and again.settings.shift_px == 2
