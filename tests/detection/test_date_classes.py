"""Detection with a network that tells several classes of each date: rasters, objects, transitions, exported files."""

from __future__ import annotations

import json
from pathlib import Path

import geopandas as gpd
import numpy as np
import onnx
import pytest
import rasterio
import torch
from tests.support.command import command
from tests.support.synthetic_rasters import at, tif
from torch import nn

import semicdvl as cd
from semicdvl.atomic_files import write_json
from semicdvl.checkpoint import RUN_FORMAT, save_weights
from semicdvl.detection.detectors.date_classes import DateClasses, read_date_classes
from semicdvl.detection.detectors.inference import SEGMENTATION, prepare_for_inference
from semicdvl.detection.detectors.network import NetworkDetector
from semicdvl.detection.detectors.onnx.metadata import METADATA_KEY
from semicdvl.detection.detectors.trained import HeadAgreement
from semicdvl.errors import CheckpointError, ConfigError
from semicdvl.models.siam_light import build_siam_light
from semicdvl.reports.flow_chart import render_flow_chart
from semicdvl.types import Outputs

NAMES = ("building", "vegetation", "water")
COLOURS = np.array([(230, 20, 20), (20, 230, 20), (20, 20, 230)], np.uint8)


class Colours(nn.Module):
    """The class is the brightest band; changed is where green differs by more than half a standard deviation."""

    heads = frozenset({"change", "segmentation"})

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(40.0))

    def forward(self, t1_BCHW: torch.Tensor, t2_BCHW: torch.Tensor, *, heads: frozenset[str]) -> Outputs:
        changed_BHW = ((t2_BCHW - t1_BCHW)[:, 1].abs() - 0.5) * self.scale
        change_BKHW = torch.stack([torch.zeros_like(changed_BHW), changed_BHW], dim=1)
        if "segmentation" not in heads:
            return Outputs(change_BKHW)
        return Outputs(change_BKHW, t1_BKHW=t1_BCHW * self.scale, t2_BKHW=t2_BCHW * self.scale)


def _images() -> tuple[np.ndarray, np.ndarray]:
    """Vegetation; a building becomes vegetation, vegetation water, dark vegetation lighter, a building water."""
    t1, t2 = np.full((2, 60, 80), 1)
    t1[5:15, 5:20], t2[30:50, 40:70], t1[20:24, 60:70], t2[20:24, 60:70] = 0, 2, 0, 2
    first, second = COLOURS[t1], COLOURS[t2]
    first[40:46, 5:15] = (20, 130, 20)  # the change head sees a change, the classes don't
    return first, second


@pytest.fixture
def detector() -> NetworkDetector:
    network = prepare_for_inference(Colours().eval(), heads=SEGMENTATION)
    return NetworkDetector(network, "runs/colours", classes=DateClasses(NAMES, (0,), True))


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    images = zip(("before", "after"), _images(), strict=True)
    first, second = (tif(tmp_path / f"{name}.tif", each.transpose(2, 0, 1), at(0, 90)) for name, each in images)
    return first, second


def test_rasters_objects_and_transitions(detector: NetworkDetector, pair: tuple[Path, Path], tmp_path: Path) -> None:
    saved = cd.detect_to_folder(*pair, tmp_path / "out", detector=detector, progress=False)
    t1, t2 = np.full((2, 60, 80), 1)
    t1[5:15, 5:20], t2[30:50, 40:70], t1[20:24, 60:70], t2[20:24, 60:70] = 0, 2, 0, 2
    for name, wanted in (("t1", t1), ("t2", t2)):
        with rasterio.open(tmp_path / "out" / f"{name}.tif") as raster:
            assert (raster.read(1) == wanted).all() and raster.crs is not None
            tags = raster.tags()
            assert [tags[f"CLASS_{at}"] for at in range(3)] == list(NAMES)
            assert raster.colormap(1)[2][:3] == (54, 130, 200), "water is blue"
        assert "vegetation" in (tmp_path / "out" / f"{name}.qml").read_text()
        assert "<Category>water</Category>" in (tmp_path / "out" / f"{name}.tif.aux.xml").read_text()
    rows = gpd.read_file(tmp_path / "out" / "changes.gpkg")
    found = {(row.kind, row.from_class, row.to_class): row.area_m2 for row in rows.itertuples()}
    assert found == {
        ("changed", "vegetation", "water"): 150.0,
        ("disappeared", "building", "vegetation"): 37.5,
        ("changed", "vegetation", "vegetation"): 15.0,
    }
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert record["classes"] == list(NAMES)
    assert record["transitions"] == [
        {"from": "vegetation", "to": "water", "px": 600, "m2": 150.0},
        {"from": "building", "to": "vegetation", "px": 150, "m2": 37.5},
        {"from": "vegetation", "to": "vegetation", "px": 60, "m2": 15.0},
    ]
    assert any("60 of 810 px (7.4%) that the change head calls changed have the same" in one for one in saved.warnings)
    assert any("40 of 3,990 px (1.0%) that it calls unchanged have different" in one for one in saved.warnings)
    report = (tmp_path / "out" / "report.html").read_text()
    assert "What became what" in report and "vegetation → water: 150 m²" in report and "→ water" in report


def test_in_memory_and_by_both_heads(detector: NetworkDetector) -> None:
    result = cd.detect(*_images(), detector=detector, config=cd.DetectionConfig(min_area_m2=0))
    assert result.transitions is not None
    assert result.transitions.loc["vegetation"].tolist() == [0, 60, 600]
    assert result.t1 is not None and result.classes == NAMES
    both = NetworkDetector(detector.network, "runs/colours", classes=detector.classes, deciding="both")
    strict = cd.detect(*_images(), detector=both, config=cd.DetectionConfig(min_area_m2=0))
    assert strict.transitions is not None
    assert strict.transitions.loc["vegetation"].tolist() == [0, 0, 600], "equal classes are no change then"
    assert strict.transitions.to_numpy().sum() == result.transitions.to_numpy().sum() - 60
    assert detector.identity != both.identity


def test_small_objects_are_not_in_the_transitions(
    detector: NetworkDetector, pair: tuple[Path, Path], tmp_path: Path
) -> None:
    config = cd.DetectionConfig(min_area_m2=20)
    cd.detect_to_folder(*pair, tmp_path / "out", detector=detector, config=config, progress=False)
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert [one["px"] for one in record["transitions"]] == [600, 150]


# ------------------------------------------------------------------------------------------------ runs and files
MODEL = {"backbone": "test_resnet", "pretrained": "none", "decoder_channels": 12, "segmentation_classes": 3}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that knows three classes, with weights that decide."""
    folder = tmp_path_factory.mktemp("run") / "run"
    torch.manual_seed(0)
    network = build_siam_light(**MODEL)
    network(*torch.randn(2, 2, 3, 64, 96))
    save_weights(folder / "model.safetensors", network.state_dict())
    recipe = {"model": {"name": "siam_light", **MODEL}, "method": {"name": "semicd_vl"}, "classes": {"names": NAMES}}
    heads = ["change", "segmentation"]
    write_json(folder / "run.json", {"format": RUN_FORMAT, "recipe": recipe, "heads": heads})
    return folder


def _noise() -> tuple[np.ndarray, np.ndarray]:
    first, second = np.random.default_rng(0).integers(0, 256, (2, 64, 96, 3), dtype=np.uint8)
    return first, second


def test_a_run_predicts_what_its_detector_does(run: Path) -> None:
    predicted = cd.load_model(run).predict(*_noise())
    assert predicted.classes == NAMES and predicted.foreground == ()
    assert predicted.t1_HW is not None and predicted.t1_score_HW is not None
    built = cd.load_detector(run, device="cpu")
    assert built.map_count == 7 and built.description()["Classes"].startswith("building, vegetation, water at each")
    maps_PHW = built.predict_scores(*_noise())
    assert maps_PHW[1:4].sum(axis=0) == pytest.approx(np.ones((64, 96)), abs=1e-5)
    assert (maps_PHW[1:4].argmax(axis=0) == predicted.t1_HW).mean() > 0.99
    assert maps_PHW[1:4].max(axis=0) == pytest.approx(predicted.t1_score_HW, abs=1e-4)


def test_a_file_with_heads_answers_as_the_run(run: Path, tmp_path: Path) -> None:
    exported = cd.export(run, tmp_path / "x.onnx", heads=True)
    slow, quick = (cd.load_detector(path, device="cpu", decide="both") for path in (run, exported.path))
    assert quick.map_count == 7 and quick.tells_transitions
    assert quick.predict_scores(*_noise()) == pytest.approx(slow.predict_scores(*_noise()), abs=1e-4)
    results = [cd.detect(*_noise(), detector=each) for each in (slow, quick)]
    assert results[1].t1 is not None and (results[0].t1 == results[1].t1).mean() > 0.99
    assert results[1].classes == NAMES
    odd = cd.detect(*(image[:61, :77] for image in _noise()), detector=quick)
    assert odd.t2 is not None and odd.t2.shape == (61, 77)


def test_a_file_without_heads_is_as_before(run: Path, tmp_path: Path) -> None:
    plain = cd.load_detector(cd.export(run, tmp_path / "x.onnx").path, device="cpu")
    assert plain.map_count == 1 and not plain.tells_transitions and plain.notes() == ()
    with pytest.raises(ConfigError, match=r"has no classes of either date that could decide\. Leave out --decide"):
        cd.load_detector(tmp_path / "x.onnx", decide="both")


def test_what_does_not_fit_is_refused(run: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"decide = 'all' is unknown\. Known: change, both"):
        cd.load_detector(run, decide="all")  # type: ignore[arg-type]
    record = json.loads((run / "run.json").read_text())
    for folder, changes in (
        ("plain", {"heads": ["change"]}),
        ("odd", {"recipe": record["recipe"] | {"classes": {"names": ["a", "b"]}}}),
    ):
        save_weights(tmp_path / folder / "model.safetensors", dict(cd.load_model(run).state_dict()))
        write_json(tmp_path / folder / "run.json", record | changes)
    with pytest.raises(ConfigError, match=r"has no trained segmentation heads\. Leave out --heads"):
        cd.export(tmp_path / "plain", tmp_path / "x.onnx", heads=True)
    with pytest.raises(ConfigError, match="no classes of either date that could decide"):
        cd.load_detector(tmp_path / "plain", decide="both")
    with pytest.raises(
        CheckpointError, match=r"odd/run\.json: recipe: .*names 2 classes, and the network tells 3 apart"
    ):
        cd.detect(*_noise(), model=tmp_path / "odd")


def test_a_file_that_names_other_classes_is_refused_by_its_name(run: Path, tmp_path: Path) -> None:
    path = cd.export(run, tmp_path / "x.onnx", heads=True).path
    model = onnx.load(path)
    (about,) = [one for one in model.metadata_props if one.key == METADATA_KEY]
    about.value = about.value.replace(json.dumps(list(NAMES)), json.dumps(["a", "b" * 10_000]))
    onnx.save(model, path)
    with pytest.raises(CheckpointError, match=r"x\.onnx: the network tells 3 classes .* but 2 are named: a, b+\.\.\."):
        cd.load_detector(path, device="cpu").predict_scores(*_noise())


def test_the_command_takes_the_option_for_networks_only(
    pair: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, complained = command(capsys, "detect", *pair, "-o", tmp_path / "out", "--decide", "both")
    assert code == 2 and "--decide is for trained networks" in " ".join(complained.split())


@pytest.mark.parametrize(
    ("recipe", "names", "foreground"),
    [
        ({}, ("background", "foreground"), (1,)),
        ({"model": {"segmentation_classes": 3}}, ("class 0", "class 1", "class 2"), ()),
        ({"classes": {"names": ["a", "b"]}}, ("a", "b"), ()),
        ({"classes": {"names": ["background", "b"]}}, ("background", "b"), (1,)),
        ({"classes": {"names": ["a", "b", "c"], "changing": ["b"]}}, ("a", "b", "c"), (1,)),
        ({"classes": None}, ("background", "foreground"), (1,)),
    ],
)
def test_classes_of_a_record(recipe: dict[str, object], names: tuple[str, ...], foreground: tuple[int, ...]) -> None:
    found = read_date_classes(recipe)
    assert (found.names, found.foreground) == (names, foreground)


def test_agreement_is_counted_by_hand() -> None:
    agreement = HeadAgreement()
    change_HW, differ_HW = np.array([[1, 1, 0, 255]], np.uint8), np.array([[True, False, True, True]])
    agreement.add(change_HW, differ_HW)
    assert vars(agreement) == {"changed_px": 2, "same_class_px": 1, "unchanged_px": 1, "other_class_px": 1}


def test_the_flow_chart_has_a_band_for_each_transition() -> None:
    amounts_KK = np.array([[0.0, 5.0, 0.0], [3.0, 2.0, 0.0], [0.0, 0.0, 0.0]])
    colours = [(1, 2, 3), (4, 5, 6), (7, 8, 9)]
    drawn = render_flow_chart(
        ("a", "<b>", "c"), colours, amounts_KK, titles=("was", "is"), format_amount=lambda amount: f"{amount:g} ha"
    )
    assert drawn.count("<path") == 3 and drawn.count("<rect") == 4
    assert "a → &lt;b&gt;: 5 ha" in drawn and "&lt;b&gt;, 7 ha" in drawn and "c, " not in drawn
