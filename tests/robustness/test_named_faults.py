"""Faults found in malformed inputs, each with the error that names it; and what refused calls leave: nothing."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.robustness.targets import OLD
from tests.support.command import command
from tests.support.dataset_files import folder_of_pairs

import semicdvl as cd
from semicdvl.atomic_files import leave_nothing_if_refused
from semicdvl.ceg.prompts import Prompts
from semicdvl.data.prepare.polygon_layer import read_polygons
from semicdvl.errors import CheckpointError, ConfigError, InputError, SemicdvlError, StoreError, WorkerError
from semicdvl.evaluation.map_vs_truth import read_detected_map
from semicdvl.official import read_tensors_safely
from semicdvl.pseudo_labels.score_codec import decode_segments, encode_segments
from semicdvl.training.log import read_events
from semicdvl.types import Segments

RECIPE = """
[data]
root = "{data}"
crop_px = 32
[model]
name = "fc_siam_diff"
width = 4
[method]
name = "supervised"
[train]
steps = 2
labelled_batch = 2
device = "cpu"
"""


# ------------------------------------------------------------------------------------------------ giants
@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"decoder_channels": 1_000_000_000}, "decoder_channels = 1000000000, and 16,384 is possible"),
        ({"decoder_channels": 10**400}, r"decoder_channels = 1000.*\.\.\., and 16,384"),
    ],
)
def test_options_of_networks_that_no_machine_holds_are_refused(options: dict[str, Any], why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        cd.create_model("siam_light", backbone="test_resnet", pretrained="none", **options)


def test_networks_with_too_many_parameters_are_refused_before_memory_is_taken() -> None:
    why = "width = 16000 it would have 1,345,540,608,002 parameters, and 4,000,000,000 are possible"
    with pytest.raises(ConfigError, match=why):
        cd.create_model("fc_siam_diff", width=16_000)


def test_a_stored_run_of_a_giant_is_refused_by_its_file(tmp_path: Path) -> None:
    shutil.copytree(OLD / "run", tmp_path / "run")
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    record["recipe"]["model"]["decoder_channels"] = 1_000_000_000
    (tmp_path / "run" / "run.json").write_text(json.dumps(record))
    with pytest.raises(ConfigError, match=r"run\.json: model '\w+': decoder_channels = 1000000000"):
        cd.load_model(tmp_path / "run")


def test_more_prompts_than_a_class_map_holds_are_refused() -> None:
    words = tuple(f"w{number}" for number in range(400))
    with pytest.raises(ConfigError, match="400 prompts were given, and 254 are possible"):
        Prompts(words[:1], words[1:])
    assert len(Prompts(words[:1], words[1:254]).words) == 254
    with pytest.raises(ConfigError, match="is no word"):
        Prompts(("a" * 2_000,), ("b",))


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"seed": -1}, "seed is -1"),
        ({"steps": 10**12}, "steps is"),
        ({"min_valid_frac": float("nan")}, "min_valid_frac is nan"),
        ({"min_valid_frac": 2.0}, "min_valid_frac is 2"),
        ({"batch": 1.5}, "batch is 1.5; it must be a whole number"),
        ({"patches": True}, "patches is True"),
    ],
)
def test_numbers_of_an_adaptation_are_checked(options: dict[str, Any], why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        cd.AdaptConfig(**options)


def test_numbers_without_axes_in_a_public_checkpoint_are_refused(tmp_path: Path) -> None:
    state = {"backbone.layer3.0.x": torch.tensor(1.0), "decode_head.fusion_conv.conv.weight": torch.tensor(2.0)}
    torch.save({"model": state | {"decode_head.conv_seg.weight": torch.tensor(1.0)}}, tmp_path / "a.pth")
    assert read_tensors_safely(tmp_path / "a.pth")["model"].keys() >= state.keys()
    with pytest.raises(SemicdvlError, match=r"a\.pth: "):
        cd.import_official(tmp_path / "a.pth", tmp_path / "run")
    assert not (tmp_path / "run").exists()


# ------------------------------------------------------------------------------------------------ stored answers
def test_an_answer_of_other_prompts_is_refused() -> None:
    kept = encode_segments(Segments(np.zeros((2, 3, 4), np.float32), ("a", "b")))
    with pytest.raises(ValueError, match="maps of 2 prompts, and 3 are wanted"):
        decode_segments(kept, ("a", "b", "c"))


@pytest.mark.parametrize(
    "found",
    [
        [[{"size": [3, 4], "counts": [12]}, 2, 0.5]],
        [[{"size": [3, 4], "counts": [12]}, 0, 1.5]],
        [[{"size": [3, 5], "counts": [15]}, 0, 0.5]],
        [[{"size": [3, 4], "counts": [5]}, 0, 0.5]],
        [[{"size": [3, 4], "counts": "~~~~~~~~~~~~~~~~~~~~~~~~~~~~"}, 0, 0.5]],
    ],
)
def test_instances_of_an_answer_fit_it(found: Any) -> None:
    kept = encode_segments(Segments(np.zeros((2, 3, 4), np.float32), ("a", "b")))
    kept["instances"] = np.frombuffer(json.dumps(found).encode(), np.uint8)
    with pytest.raises(ValueError, match="an instance"):
        decode_segments(kept, ("a", "b"))


@pytest.mark.parametrize("shape", [[1, 3, np.inf], [1.0, 3.0, 4.0], [True, True, True]])
def test_a_shape_that_is_not_of_whole_numbers_is_refused(shape: Any) -> None:
    kept = encode_segments(Segments(np.zeros((1, 3, 4), np.float32), ("a",)))
    kept["shape"] = np.array(shape)
    with pytest.raises(ValueError, match="not of whole numbers"):
        decode_segments(kept, ("a",))


def test_scores_that_unpack_to_more_than_their_shape_are_refused() -> None:
    kept = encode_segments(Segments(np.zeros((1, 900, 900), np.float32), ("a",)))
    kept["shape"] = np.array([1, 3, 4])
    with pytest.raises(ValueError, match="does not unpack to its 12 scores"):
        decode_segments(kept, ("a",))


def test_a_log_that_training_did_not_write_is_refused(tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_text('{"step": 1, "loss": NaN}\n{"step": 2, "val')
    assert [event.step for _, event in read_events(tmp_path / "log.jsonl")] == [1]
    (tmp_path / "log.jsonl").write_text('{"step": 1}\n{"step": "x"}\n{"step": 3}\n')
    with pytest.raises(CheckpointError, match=r"log\.jsonl: line 2 was not written by training \(step: "):
        read_events(tmp_path / "log.jsonl")


# ------------------------------------------------------------------------------------------------ everyday vectors
def write_rings(path: Path, rings: list[Any]) -> Path:
    grid = read_detected_map(OLD / "detected").grid
    left, bottom, right, top = grid.bounds
    x, y = (left + right) / 2, (bottom + top) / 2
    rows = [[[x + dx, y + dy] for dx, dy in ring] for ring in rings]
    features = [
        {"type": "Feature", "properties": {}, "geometry": {"type": "Polygon", "coordinates": [row]}} for row in rows
    ]
    crs = {"type": "name", "properties": {"name": f"urn:ogc:def:crs:EPSG::{grid.crs.to_epsg()}"}}
    path.write_text(json.dumps({"type": "FeatureCollection", "crs": crs, "features": features}))
    return path


SOUND = [(0, 0), (10, 0), (10, 10), (0, 10), (0, 0)]


def test_a_ring_that_is_not_closed_is_closed(tmp_path: Path) -> None:
    path = write_rings(tmp_path / "a.geojson", [SOUND, [(12, 0), (20, 0), (20, 10), (12, 10)]])
    layer = read_polygons(path, grid=read_detected_map(OLD / "detected").grid)
    assert [shape.area for shape in layer.shapes] == [100, 80]


@pytest.mark.parametrize(
    ("ring", "why"),
    [
        ([(0, 0), (5, 5)], "row 2 has a geometry that is none"),
        ([(0, 0), (1e308, 0), (1e308, 1e308), (0, 0)], "row 2 has a coordinate that is no number, or beyond 1e\\+15"),
        ([(0, 0), (1e20, 0), (10, 10), (0, 0)], "row 2 has a coordinate"),
    ],
)
def test_a_ring_that_cannot_be_mended_is_named_by_its_row(ring: Any, why: str, tmp_path: Path) -> None:
    path = write_rings(tmp_path / "a.geojson", [SOUND, ring])
    with pytest.raises(InputError, match=why):
        read_polygons(path, grid=read_detected_map(OLD / "detected").grid)


# ------------------------------------------------------------------------------------------------ what is left
@pytest.mark.parametrize("error", [InputError("a", "b", "c"), ConfigError("x"), StoreError("y"), CheckpointError("z")])
def test_what_is_refused_leaves_nothing(error: SemicdvlError, tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "old").touch()
    for folder in (tmp_path / "new" / "deep", tmp_path / "kept"):
        with pytest.raises(type(error)), leave_nothing_if_refused(folder):
            (folder / "inner").mkdir(parents=True)
            (folder / "inner" / "file").touch()
            raise error
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["kept", "old"]


def test_what_can_be_resumed_stays(tmp_path: Path) -> None:
    for keep, error in ((lambda: True, ConfigError("x")), (lambda: False, WorkerError("y"))):
        with pytest.raises(SemicdvlError), leave_nothing_if_refused(tmp_path / "out", keep=keep):
            (tmp_path / "out").mkdir(exist_ok=True)
            raise error
        assert (tmp_path / "out").is_dir()


def test_a_training_that_meets_a_damaged_image_leaves_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, recipe, run = folder_of_pairs(tmp_path / "data", list("abcdefghij")), tmp_path / "r.toml", tmp_path / "run"
    recipe.write_text(RECIPE.format(data=data.as_posix()))
    for path in (data / "B").iterdir():
        os.truncate(path, path.stat().st_size - 2_000)
    code, _, complaint = command(capsys, "train", recipe, "-o", run)
    assert code == 2 and "is damaged" in complaint, complaint
    assert not run.exists()
    folder_of_pairs(data, list("abcdefghij"))
    code, _, complaint = command(capsys, "train", recipe, "-o", run)
    assert code == 0, complaint


def test_a_preparation_that_meets_a_damaged_image_leaves_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("before.tif", "after.tif", "truth.geojson"):
        shutil.copy(OLD / name, tmp_path / name)
    content = (tmp_path / "after.tif").read_bytes()
    (tmp_path / "after.tif").write_bytes(content[: len(content) // 3] + bytes(len(content) - len(content) // 3))
    words = (
        "prepare",
        "--before",
        tmp_path / "before.tif",
        "--after",
        tmp_path / "after.tif",
        "--labels",
        tmp_path / "truth.geojson",
        "-o",
        tmp_path / "data",
        "--size-px",
        32,
        "--block-m",
        16,
        "--buffer-px",
        0,
    )
    code, _, complaint = command(capsys, *words)
    assert code == 2, complaint
    assert not (tmp_path / "data").exists()
    (tmp_path / "after.tif").write_bytes(content)
    assert command(capsys, *words)[0] == 0


def test_an_error_is_one_line_whatever_a_file_is_called(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert str(ConfigError("a\nb\r\nc\x1b[31m")) == "a b c?[31m"
    (tmp_path / "r.toml").write_text('base = "a\\nb"\n')
    code, _, complaint = command(capsys, "train", tmp_path / "r.toml")
    assert code == 2 and complaint.count("\n") == 1, complaint
