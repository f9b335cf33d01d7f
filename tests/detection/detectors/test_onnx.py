"""A run as one ONNX file: the same answers as torch, without torch; and files that are none."""

import json
import os
import re
import subprocess
import sys
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
import torch
from tests.robustness.hostile_networks import (
    put_functions,
    put_giant,
    put_last,
    put_last_of_type,
    put_loop,
    put_many_tensors,
)
from tests.support.command import command
from tests.support.synthetic_rasters import at, tif
from torch import Tensor, nn

import semicdvl as cd
from semicdvl.atomic_files import write_json
from semicdvl.checkpoint import RUN_FORMAT, save_weights
from semicdvl.detection.detectors.network import build_network_detector
from semicdvl.detection.detectors.onnx import export as onnx_export
from semicdvl.detection.detectors.onnx.detector import OnnxDetector, build_onnx_detector
from semicdvl.detection.detectors.onnx.metadata import METADATA_KEY
from semicdvl.detection.raster_writer import SCORE_FILE_STEPS
from semicdvl.errors import CheckpointError, ConfigError
from semicdvl.models.siam_light import build_siam_light
from semicdvl.types import IGNORE, Detector, Outputs, ScoreStrip

MODEL = {"backbone": "test_resnet", "pretrained": False, "decoder_channels": 12}
HEIGHT, WIDTH = 90, 121
FAR = {"low": [-1e308] * 3, "high": [1e308] * 3}
"""Limits whose difference is infinite."""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run directory as training leaves it, with moved batch-norm statistics and decided answers."""
    folder = tmp_path_factory.mktemp("onnx") / "run"
    torch.manual_seed(0)
    network = build_siam_light(**MODEL)
    network(*torch.randn(2, 2, 3, 64, 96))
    network.change_decoder.classify.weight.data *= 60
    save_weights(folder / "model.safetensors", network.state_dict())
    part = {"name": "siam_light", **MODEL}
    write_json(folder / "run.json", {"format": RUN_FORMAT, "recipe": {"model": part, "method": {"name": "semicd_vl"}}})
    return folder


@pytest.fixture(scope="module")
def file(run: Path) -> Path:
    return onnx_export.export_onnx(run, run.parent / "x.onnx", threshold=0.4).path


def pair() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return tuple(rng.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8) for _ in range(2))  # type: ignore[return-value]


def test_the_file_answers_as_the_run_does(run: Path, file: Path) -> None:
    slow, quick = build_network_detector(run, device="cpu", threshold=0.4), build_network_detector(file, device="cpu")
    assert isinstance(quick, OnnxDetector) and quick.map_count == slow.map_count
    detector: Detector = quick
    planes = detector.predict_scores(*pair())
    wanted = slow.predict_scores(*pair())
    assert planes.dtype == np.float32 and planes.shape == (1, HEIGHT, WIDTH)
    assert np.ptp(wanted) > 0.2 and np.abs(planes - wanted).max() < 1e-4
    assert quick.description()["Model"] == "siam_light" and quick.description()["Threshold"] == "0.4"

    class Strips:
        shape_hw = (HEIGHT, WIDTH)

        def __iter__(self):
            valid_HW = np.ones((HEIGHT, WIDTH), bool)
            valid_HW[0, :3] = False
            yield ScoreStrip(0, planes, valid_HW)

    (decided,) = detector.decide(Strips())
    assert (decided.change_HW[0, :3] == IGNORE).all() and np.isnan(decided.score_HW[0, :3]).all()
    assert np.array_equal(decided.change_HW[1:] == 1, planes[0, 1:] >= 0.4)


def test_metadata_says_all_that_a_reader_needs(file: Path) -> None:
    model = onnx.load(file)
    assert model.opset_import[0].version == onnx_export.ONNX_OPSET
    about = json.loads({entry.key: entry.value for entry in model.metadata_props}[METADATA_KEY])
    assert about["mean"] == [0.485, 0.456, 0.406] and about["classes"] == ["unchanged", "changed"]
    assert about["multiple_px"] == 1 and about["recipe"]["model"]["backbone"] == "test_resnet"
    norms = [node for node in model.graph.node if node.op_type == "BatchNormalization"]
    assert len(norms) == 1  # the decoder's last, which comes after a sum
    for value in (*model.graph.input, *model.graph.output):
        axes = [axis.dim_param for axis in value.type.tensor_type.shape.dim]
        assert axes[0] == "batch" and axes[2:] == ["height", "width"]


def test_detect_runs_it_without_torch(file: Path, tmp_path: Path) -> None:
    for name, image in zip(("a.png", "b.png"), pair(), strict=True):
        assert cv2.imwrite(str(tmp_path / name), image)
    code = (
        "import sys\n"
        "from semicdvl.__main__ import main\n"
        "sys.argv = ['semicdvl', 'detect', 'a.png', 'b.png', '-o', 'out', '--model', sys.argv[1], '--tile', '64',"
        " '--overlap', '32']\n"
        "try:\n"
        "    main()\n"
        "except SystemExit as stop:\n"
        "    assert not stop.code, stop.code\n"
        "assert 'torch' not in sys.modules, 'torch was imported'\n"
    )
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    call = [sys.executable, "-c", code, str(file)]
    done = subprocess.run(call, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "out" / "change.tif").is_file() and "ONNX" in (tmp_path / "out" / "report.html").read_text()


def test_the_command_says_what_it_wrote(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, printed, _ = command(capsys, "export", run, "--to", "onnx", "-o", tmp_path / "y.onnx")
    assert code == 0 and "opset 18, any size" in printed and "largest difference from torch" in printed
    code, _, wrong = command(capsys, "export", run, "-o", tmp_path / "y.pt")
    assert code == 2 and "must end in .onnx" in wrong
    code, _, wrong = command(capsys, "export", tmp_path, "-o", tmp_path / "z.onnx")
    assert code == 2 and "not a trained run" in wrong


def test_what_cannot_be_used_is_refused(file: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="does not exist"):
        build_onnx_detector(tmp_path / "none.onnx")
    (tmp_path / "text.onnx").write_text("no network")
    with pytest.raises(CheckpointError, match="cannot be read as ONNX"):
        build_onnx_detector(tmp_path / "text.onnx")
    with pytest.raises(ConfigError, match=r"no device 'tpu' here. Give one of cpu"):
        build_onnx_detector(file, device="tpu")
    with pytest.raises(ConfigError, match="cannot be changed"):
        build_network_detector(file, precision="bf16")
    with pytest.raises(ConfigError, match="needs 3 bands, but the images have 4"):
        build_onnx_detector(file).predict_scores(*(np.zeros((64, 64, 4), np.uint8),) * 2)
    for text, why in ((None, "another program"), ('{"version": 9}', "version 9")):
        model = onnx.load(file)
        del model.metadata_props[:]
        onnx.helper.set_model_props(model, {} if text is None else {METADATA_KEY: text})
        onnx.save(model, tmp_path / "other.onnx")
        with pytest.raises(CheckpointError, match=why):
            build_onnx_detector(tmp_path / "other.onnx")


class Depends(nn.Module):
    """Adds what depends on the size, in a way that tracing freezes."""

    heads = frozenset({"change"})

    def __init__(self, *, on: int) -> None:
        super().__init__()
        self.conv, self.on = nn.Conv2d(3, 2, 3, padding=1), on

    def forward(self, t1_BCHW: Tensor, t2_BCHW: Tensor, *, heads: frozenset[str] | None = None) -> Outputs:
        odd = int(t1_BCHW.shape[3]) % self.on
        return Outputs(self.conv(t1_BCHW - t2_BCHW) + 5 * odd)


class Pools(Depends):
    """Uses what ONNX has for images of a known size only."""

    def forward(self, t1_BCHW: Tensor, t2_BCHW: Tensor, *, heads: frozenset[str] | None = None) -> Outputs:
        return Outputs(nn.functional.adaptive_avg_pool2d(self.conv(t1_BCHW - t2_BCHW), (5, 3)))


def test_what_onnx_has_not_is_one_error(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ConfigError, match=r"cannot be exported to ONNX.*adaptive_avg_pool2d"):
        onnx_export.export_network(Pools(on=32), tmp_path / "none.onnx")
    assert capfd.readouterr().out == "" and not list(tmp_path.iterdir())


def test_a_trace_that_holds_for_some_sizes_only(tmp_path: Path) -> None:
    done = onnx_export.export_network(Depends(on=32), tmp_path / "some.onnx")
    assert done.multiple_px == 32
    planes = build_onnx_detector(done.path).predict_scores(*pair())
    assert planes.shape == (1, HEIGHT, WIDTH) and np.isfinite(planes).all()
    with pytest.raises(ConfigError, match="cannot be traced for all sizes"):
        onnx_export.export_network(Depends(on=50), tmp_path / "none.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["some.onnx"]


def test_deep_images_get_the_stretch_of_the_training(run: Path, tmp_path: Path) -> None:
    record = json.loads((run / "run.json").read_text())
    limits = {"low": [310.0, 320.0, 330.0], "high": [2300.5, 2400.0, 2500.0]}
    deep_run = tmp_path / "run"
    write_json(deep_run / "run.json", record | {"stretch": limits})
    (deep_run / "model.safetensors").write_bytes((run / "model.safetensors").read_bytes())
    path = onnx_export.export_onnx(deep_run, tmp_path / "deep.onnx").path
    about = json.loads({one.key: one.value for one in onnx.load(path).metadata_props}[METADATA_KEY])
    assert about["stretch"] == limits
    detectors = [build_network_detector(each, device="cpu") for each in (deep_run, path)]
    assert [each.stretch for each in detectors] == ["310.0,2300.5;320.0,2400.0;330.0,2500.0"] * 2
    dates = [
        tif(tmp_path / f"{name}.tif", image_HWC.transpose(2, 0, 1).astype(np.uint16) * 9 + 300, at(0, 90))
        for name, image_HWC in zip("ab", pair(), strict=True)
    ]
    by_run, by_file = (cd.detect(*dates, detector=each) for each in detectors)
    step = 1 / SCORE_FILE_STEPS  # sums in another order may round a score to the next one
    assert np.ptp(by_run.score) > 0.1 and np.abs(by_run.score - by_file.score).max() <= step
    assert np.abs(by_run.score - by_file.score).mean() < step / 100
    plain = build_network_detector(onnx_export.export_onnx(run, tmp_path / "plain.onnx").path, device="cpu")
    assert plain.stretch is None and np.abs(cd.detect(*dates, detector=plain).score - by_run.score).max() > 10 * step


@pytest.mark.parametrize(
    ("classes", "why"),
    [
        ({"names": ["a", "a"]}, "the class name 'a' occurs twice"),
        ({"names": ["a", "b\x1b[31m"]}, "holds control characters"),
        ({"names": ["a", "b"], "foreground": [2]}, "a class of the foreground has no name"),
    ],
)
def test_damaged_classes_are_refused(classes: dict[str, object], why: str, file: Path, tmp_path: Path) -> None:
    model = onnx.load(file)
    about = json.loads({one.key: one.value for one in model.metadata_props}[METADATA_KEY])
    onnx.helper.set_model_props(model, {METADATA_KEY: json.dumps(about | {"date_classes": classes})})
    onnx.save(model, tmp_path / "x.onnx")
    with pytest.raises(CheckpointError, match=f"its metadata are damaged .*{why}"):
        build_onnx_detector(tmp_path / "x.onnx")


def test_a_report_says_what_the_network_does_and_not_what_a_file_calls_so(file: Path, tmp_path: Path) -> None:
    model = onnx.load(file)
    about = json.loads({one.key: one.value for one in model.metadata_props}[METADATA_KEY])
    recipe = about["recipe"] | {"threshold": {"name": "0.99"}, "detector": {"name": "another"}}
    onnx.helper.set_model_props(model, {METADATA_KEY: json.dumps(about | {"recipe": recipe, "run": "r" * 1_000_000})})
    onnx.save(model, tmp_path / "x.onnx")
    told = build_onnx_detector(tmp_path / "x.onnx").description()
    assert told["Threshold"] == "0.4" and told["Detector"].startswith("trained network, ONNX Runtime")
    assert told["Model"] == "siam_light" and len(told["Run"]) < 200


def test_damaged_limits_are_refused(file: Path, tmp_path: Path) -> None:
    model = onnx.load(file)
    about = json.loads({one.key: one.value for one in model.metadata_props}[METADATA_KEY])
    for limits in ({"low": [1, 2], "high": [3, 4]}, {"low": [9, 9, 9], "high": [3, 4, 5]}, FAR, "0,255"):
        onnx.helper.set_model_props(model, {METADATA_KEY: json.dumps(about | {"stretch": limits})})
        onnx.save(model, tmp_path / "x.onnx")
        with pytest.raises(CheckpointError, match="its metadata are damaged"):
            build_onnx_detector(tmp_path / "x.onnx")


@pytest.mark.parametrize(
    ("edit", "problem"),
    [
        (put_loop, "its network holds a loop (Loop), which may never end"),
        (put_giant, "its network needs more memory for a tile of 90 x 121 px than there is, or than networks need"),
        (put_many_tensors, "its network has more than 20,000 parts"),
        (put_functions, "its network has functions of its own"),
        (partial(put_last, operation="MaxPool", kernel_shape=[2, 2], strides=[2, 2]), "gives no logits of a change"),
        (partial(put_last_of_type, number=onnx.TensorProto.BOOL), "gives no logits of a change"),
        (partial(put_last_of_type, number=onnx.TensorProto.STRING), "gives no logits of a change"),
        (partial(put_last_of_type, number=onnx.TensorProto.INT64), "gives no logits of a change"),
    ],
)
def test_networks_that_give_no_map_of_fractions_are_refused(file: Path, tmp_path: Path, edit, problem: str) -> None:
    model = onnx.load(file)
    edit(model)
    onnx.save(model, tmp_path / "edited.onnx")
    with pytest.raises(CheckpointError, match=re.escape(problem)):
        build_onnx_detector(tmp_path / "edited.onnx", device="cpu").predict_scores(*pair())
