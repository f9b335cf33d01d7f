"""Self-training from zero labels: two rasters and a VLM become a run, whatever happens on the way."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from tests.support.command import command
from tests.support.synthetic_rasters import at, tif

from semicdvl.ceg.prompts import PROMPT_SETS, Prompts
from semicdvl.checkpoint import load_network
from semicdvl.cli.self_training import AdaptCEGOptions
from semicdvl.config import parse_recipe
from semicdvl.data.readers import folder
from semicdvl.detection.config import DetectionConfig
from semicdvl.detection.detectors.network import build_network_detector
from semicdvl.detection.detectors.vlm_ceg import build_default_detector
from semicdvl.detection.pipeline import write_detection
from semicdvl.errors import CheckpointError, ConfigError, DataError, InputError, OutputError
from semicdvl.methods.semicd_vl import SemiCDVL
from semicdvl.pseudo_labels.generate import CEGSettings
from semicdvl.pseudo_labels.store import PseudoLabelStore
from semicdvl.training.batches import normalise_images
from semicdvl.training.run import train_recipe
from semicdvl.training.self_training import AdaptConfig, adapt_to_pair
from semicdvl.training.self_training.labels import default_gamma_of, select_training_patches
from semicdvl.training.self_training.network import build_siam_aerial
from semicdvl.training.self_training.patches import place_patches
from semicdvl.training.self_training.run import build_adapt_recipe, build_detect_command, detect_with_adapted
from semicdvl.types import IGNORE, PairFiles, Segments
from semicdvl.vlms.aerial.build import build_aerial, load_trained_net
from semicdvl.vlms.aerial.net import normalise_image
from semicdvl.vlms.models.fake import FakeVLM

GRASS, ROOF = (110, 170, 80), (220, 220, 220)
WORDS = Prompts(("building",), ("grass", "road"))
CEG = CEGSettings(gamma=0.5, gamma_segmentation=0.5)
QUIET = Console(quiet=True)
TINY = AdaptConfig(
    patches=20, patch_px=64, crop_px=32, steps=4, batch=2, backbone="test_resnet", pretrained="none", device="cpu"
)


def _town(folder: Path, *, changed: bool = True, height: int = 128, width: int = 160, blind_px: int = 0) -> list[Path]:
    """Write a lawn with a house at both dates and, if changed, two that are new; the left columns may be no data."""
    rng = np.random.default_rng(0)
    dates = []
    for date in (1, 2):
        ground = rng.normal(0, 3, (height, width, 3)) + GRASS
        ground[8:28, 70:96] = ROOF
        if date == 2 and changed:
            ground[40:60, 30:56] = ground[90:112, 100:130] = ROOF
        dates.append(np.clip(ground, 1, 255).astype(np.uint8).transpose(2, 0, 1))
    seen = np.ones((height, width), bool)
    seen[:, :blind_px] = False
    folder.mkdir(parents=True, exist_ok=True)
    masked = {"alpha": seen} if blind_px else {}
    return [tif(folder / f"{date}.tif", image, at(5e5, 4e6), **masked) for date, image in enumerate(dates, 1)]


def _adapt(pair: list[Path], run: Path, *, vlm: Any = None, ceg: CEGSettings = CEG, **changes: Any) -> Any:
    changed = replace(TINY, **changes)
    return adapt_to_pair(*pair, run, vlm=vlm or FakeVLM(), prompts=WORDS, ceg=ceg, config=changed, console=QUIET)


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return _town(tmp_path_factory.mktemp("town"))


@pytest.fixture(scope="module")
def done(town: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Any:
    return _adapt(town, tmp_path_factory.mktemp("done") / "run")


# ------------------------------------------------------------------------------------------------ the whole way
def test_a_pair_becomes_a_run_that_detects(town: list[Path], done: Any) -> None:
    record = json.loads((done.run / "run.json").read_text())
    assert record["status"] == "finished" and record["split"]["labelled"] == 0
    assert record["selected_on"] == "last" and record["best_step"] == TINY.steps
    assert record["split"]["unlabelled"] == len(done.patches.pairs) == 3 * 4  # half overlapping, on 128 x 160 px
    assert record["val"] == record["test"] == {}, "nothing was compared with a true label"
    assert 0 < done.patches.changed_frac < done.patches.reliable_frac <= 1
    assert "change" in load_network(done.run).heads
    lines = [json.loads(line) for line in (done.run / "log.jsonl").read_text().splitlines()]
    steps = [line for line in lines if "loss" in line]
    assert all(line["supervised"] == 0 and line["vlm_change_weak"] > 0 < line["vlm_change_strong"] for line in steps)


def test_it_learns_from_the_pseudo_labels(town: list[Path], tmp_path: Path) -> None:
    """With some more steps the new houses stand out, from the ground and from the house that stays."""
    adapted = _adapt(town, tmp_path / "run", steps=50)
    images = [rasterio.open(path).read().transpose(1, 2, 0) for path in town]
    probability_HW = build_network_detector(adapted.run, device="cpu").predict_scores(*images)[0]
    new_HW, old_HW = np.zeros((2, *probability_HW.shape), bool)
    new_HW[40:60, 30:56] = new_HW[90:112, 100:130] = old_HW[8:28, 70:96] = True
    assert probability_HW[new_HW].mean() > 2 * max(probability_HW[~new_HW].mean(), probability_HW[old_HW].mean())


def test_command_line_adapts_and_detects(town: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, out = tmp_path / "run", tmp_path / "out"
    words = ("--vlm", "semicdvl.vlms.models.fake:build_fake", "--find", "building", "--background", "grass,road")
    small = ("--patch-px", 64, "--steps", 2, "--backbone", "test_resnet", "--pretrained", "none", "--device", "cpu")
    code, told, _ = command(capsys, "adapt", *town, "-o", run, "--detect", out, *words, *small, "--seed", 3)
    assert code == 0 and (out / "change.tif").is_file()
    assert f"next: semicdvl detect {town[0]} {town[1]} -o {run}-out --model {run}" in told
    assert json.loads((run / "run.json").read_text())["recipe"]["seed"] == 3
    again = tmp_path / "again"
    code, _, complaint = command(
        capsys, "detect", *town, "-o", again, "--model", run, "--combine", "both", *words, "--device", "cpu"
    )
    assert code == 0, complaint
    maps = [rasterio.open(folder / "change.tif").read(1) for folder in (out, again)]
    np.testing.assert_array_equal(*maps)


def test_the_default_network_trains_and_detects(town: list[Path], tmp_path: Path) -> None:
    adapted = _adapt(town, tmp_path / "run", steps=1, backbone="aerial")
    images = [rasterio.open(path).read().transpose(1, 2, 0) for path in town]
    probability_PHW = build_network_detector(adapted.run, device="cpu").predict_scores(*images)
    assert probability_PHW.shape == (3, 128, 160) and np.isfinite(probability_PHW).all()


def test_at_the_residual_level_patches_take_the_map_of_the_whole_pair(town: list[Path], tmp_path: Path) -> None:
    """New houses in all of its patches: cut apart, they have no unchanged ground around."""
    ceg = CEGSettings(level="residual", gamma=0.5, gamma_segmentation=0.5, residual_outlines=0.0)
    adapted = _adapt(town, tmp_path / "run", ceg=ceg, steps=1)
    home = tmp_path / "run" / "adapt"
    with rasterio.open(next(home.glob("map-*")) / "change.tif") as source:
        whole_HW = source.read(1)
    assert (whole_HW == 1).any()
    store = PseudoLabelStore.open(home / "store")
    for pair in adapted.patches.pairs:
        row, col = (int(part[1:]) for part in pair.name.split("_"))
        np.testing.assert_array_equal(
            store.read_labels(pair).change_HW, whole_HW[row : row + TINY.patch_px, col : col + TINY.patch_px]
        )


# ------------------------------------------------------------------------------------------------ the network
def test_the_network_starts_as_the_embedded_model() -> None:
    """Its map of an image is the one whose unit vectors the embedded model compares with words."""
    trained, network = load_trained_net(), build_siam_aerial().eval()
    image_BCHW = torch.randint(0, 256, (1, 3, 64, 96), dtype=torch.uint8, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        seen = trained(normalise_image(image_BCHW))
        head = network.encoder.head(network._extract_features(normalise_images(image_BCHW)))
    torch.testing.assert_close(torch.nn.functional.normalize(head, dim=1), seen, atol=1e-4, rtol=1e-3)


def test_training_one_network_changes_neither_the_next_one_nor_the_embedded_model() -> None:
    image_HWC = np.random.default_rng(1).integers(0, 256, (64, 64, 3), np.uint8)
    before_CHW = build_aerial(views=1, dtype="float32").segment(image_HWC, ["road"]).scores_CHW
    first, start = build_siam_aerial(), build_siam_aerial().state_dict()
    with torch.no_grad():
        for weight in first.parameters():
            weight.add_(1.0)
    again = build_siam_aerial().state_dict()
    for name in [key for key in start if key.startswith("encoder.")]:
        assert torch.equal(start[name], again[name]), name
    after_CHW = build_aerial(views=1, dtype="float32").segment(image_HWC, ["road"]).scores_CHW
    np.testing.assert_array_equal(after_CHW, before_CHW)


def test_the_network_gives_the_requested_heads_and_is_symmetric() -> None:
    network = build_siam_aerial(pretrained="none", backbone="test_efficientnet").eval()
    t1_BCHW, t2_BCHW = torch.randn(2, 2, 3, 45, 70, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        there, back = network(t1_BCHW, t2_BCHW), network(t2_BCHW, t1_BCHW, heads=frozenset({"change"}))
    assert there.change_BKHW.shape == there.t1_BKHW.shape == there.t2_BKHW.shape == (2, 2, 45, 70)
    torch.testing.assert_close(there.change_BKHW, back.change_BKHW)
    assert back.t1_BKHW is None and network.drop_train_heads().heads == frozenset({"change"})
    assert not any(name.startswith("segmentation") for name in network.state_dict())
    with pytest.raises(ConfigError, match="has no head"):
        network(t1_BCHW, t2_BCHW, heads=frozenset({"segmentation"}))


def test_every_weight_but_the_text_layer_is_trained() -> None:
    network = build_siam_aerial(pretrained=False, backbone="test_efficientnet").train()
    out = network(*torch.randn(2, 2, 3, 64, 64, generator=torch.Generator().manual_seed(1)))
    sum(map_BKHW.square().mean() for map_BKHW in (out.change_BKHW, out.t1_BKHW, out.t2_BKHW)).backward()
    idle = {name for name, weight in network.named_parameters() if weight.grad is None or not weight.grad.any()}
    assert idle == {"encoder.head.weight", "encoder.head.bias", "encoder.log_scale"}


def test_an_unknown_backbone_is_refused() -> None:
    with pytest.raises(ConfigError, match="backbone 'nothing' cannot be built"):
        build_siam_aerial(pretrained="none", backbone="nothing")


# ------------------------------------------------------------------------------------------------ going on
class Stopping(FakeVLM):
    """Is interrupted at its fifth answer."""

    asked = 0

    def segment(self, *given: Any, **more: Any) -> Any:
        Stopping.asked += 1
        if Stopping.asked == 5:
            raise KeyboardInterrupt
        return super().segment(*given, **more)


def test_interrupted_twice_it_resumes_with_the_same_result(
    town: list[Path], done: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        _adapt(town, run, vlm=Stopping())
    step = SemiCDVL.step

    def stopped(self: SemiCDVL, *given: Any, **more: Any) -> Any:
        if given[-1].step == 3:
            raise KeyboardInterrupt
        return step(self, *given, **more)

    monkeypatch.setattr(SemiCDVL, "step", stopped)
    with pytest.raises(KeyboardInterrupt):
        _adapt(town, run)
    assert json.loads((run / "run.json").read_text())["status"] == "started"
    monkeypatch.setattr(SemiCDVL, "step", step)
    asked = Stopping.asked
    again = _adapt(town, run, vlm=Stopping())
    assert Stopping.asked == asked, "what the VLM has answered is not asked again"
    assert (run / "model.safetensors").read_bytes() == (done.run / "model.safetensors").read_bytes()
    assert again.patches.changed_frac == done.patches.changed_frac


def test_a_finished_adaptation_is_only_read(town: list[Path], done: Any) -> None:
    before = (done.run / "model.safetensors").stat().st_mtime_ns
    assert _adapt(town, done.run).training.seconds == done.training.seconds
    assert (done.run / "model.safetensors").stat().st_mtime_ns == before


# ------------------------------------------------------------------------------------------------ refused
def test_no_change_is_nothing_to_learn(tmp_path: Path) -> None:
    pair, run = _town(tmp_path, changed=False), tmp_path / "run"
    with pytest.raises(DataError, match=r"detects no change of building in any of 12 patches.*nothing to learn"):
        _adapt(pair, run)
    assert not (run / "run.json").exists()


class Unsure(FakeVLM):
    """Never gives a score above a half."""

    def segment(self, *given: Any, **more: Any) -> Segments:
        answer = super().segment(*given, **more)
        return replace(answer, scores_CHW=answer.scores_CHW / 2)


def test_a_vlm_without_confident_answers_is_reported(town: list[Path], tmp_path: Path) -> None:
    """And what helps can be done in the same folder."""
    with pytest.raises(DataError, match=r"only 0% of the pixels.*lower --gamma \(0.6\)"):
        _adapt(town, tmp_path / "run", vlm=Unsure(), ceg=CEGSettings(gamma=0.6, gamma_segmentation=0.6))
    lower = CEGSettings(gamma=0.3, gamma_segmentation=0.3, instance_score=0.4)
    assert _adapt(town, tmp_path / "run", vlm=Unsure(), ceg=lower).patches.with_change > 0


def test_other_pairs_and_folders_are_refused(town: list[Path], done: Any, tmp_path: Path) -> None:
    other = _town(tmp_path / "other", width=192)
    with pytest.raises(OutputError, match="the adaptation to other images"):
        _adapt(other, done.run)
    with pytest.raises(OutputError, match="the adaptation to other images"):
        _adapt(town, done.run, patch_px=96)
    with pytest.raises(CheckpointError, match="holds a run of another recipe"):
        _adapt(town, done.run, steps=5)
    with pytest.raises(OutputError, match="another VLM, other prompts or other thresholds"):
        _adapt(town, done.run, ceg=replace(CEG, gamma=0.4))
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").touch()
    with pytest.raises(OutputError, match="was not made by `semicdvl adapt`"):
        _adapt(town, tmp_path / "full")


def test_a_wrong_network_is_refused_before_anything_is_written(town: list[Path], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="unknown backbone 'nothing'"):
        _adapt(town, tmp_path / "run", backbone="nothing")
    assert not (tmp_path / "run").exists()


def test_images_without_ground_are_refused(town: list[Path], tmp_path: Path) -> None:
    with pytest.raises(DataError, match="overlap on 20 x 160 px"):
        _adapt(_town(tmp_path / "flat", height=20, changed=False), tmp_path / "a")
    blind = _town(tmp_path / "blind", blind_px=155)
    with pytest.raises(InputError, match="no patch of 64 px with data in both dates on at least 50%"):
        _adapt(blind, tmp_path / "b")


@pytest.mark.parametrize(
    ("changes", "words"),
    [({"patches": 0}, "patches is 0"), ({"crop_px": 128}, "crops of 128 px")],
)
def test_settings_out_of_range_are_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        replace(TINY, **changes)


def test_more_bands_than_a_vlm_sees_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"4 bands were given \(1,2,3,4\)\. Name three"):
        AdaptConfig(detection=DetectionConfig(bands=(1, 2, 3, 4)))


@pytest.mark.parametrize(
    ("method", "remedy"),
    [
        ({"name": "supervised"}, "Take method"),
        ({"name": "fixmatch"}, "Take"),
        ({"name": "semicd_vl"}, "dual_head = false"),
    ],
)
def test_methods_that_need_labels_say_so(done: Any, tmp_path: Path, method: dict[str, Any], remedy: str) -> None:
    content = build_adapt_recipe(done.run, TINY, side_px=64).model_dump(mode="json")
    recipe = parse_recipe({**content, "method": method}, source="test")
    with pytest.raises(ConfigError, match=rf"needs labelled pairs, and data.labelled = 0 leaves none.*{remedy}"):
        train_recipe(recipe, tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists()


def test_a_result_that_cannot_be_written_is_refused_before_training(
    town: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.txt").touch()
    for out in (tmp_path, tmp_path / "run"):
        code, _, told = command(capsys, "adapt", *town, "-o", tmp_path / "run", "--detect", out)
        assert code == 2 and str(out) in told
    assert not (tmp_path / "run").exists()


# ------------------------------------------------------------------------------------------------ parts
def test_few_labels_are_warned_of(done: Any) -> None:
    few, many = (replace(done, patches=replace(done.patches, reliable_frac=share)) for share in (0.42, 0.9))
    assert "Only 42% of the pixels have a label" in few.summary and "--background" in few.summary
    assert "note: Only" not in many.summary


def test_nodata_pixels_have_no_label(tmp_path: Path) -> None:
    """The blind columns have no label, though the VLM was sure of them."""
    run = tmp_path / "run"
    _adapt(_town(tmp_path, blind_px=24), run)
    store = PseudoLabelStore.open(run / "adapt" / "store")
    left = [pair for pair in folder.read_folder(run / "adapt" / "patches").pairs if pair.name.endswith("_c000000")]
    assert left
    for pair in left:
        labels = store.read_labels(pair)
        for map_HW in vars(labels).values():
            assert (map_HW[:, :24] == IGNORE).all() and (map_HW[:, 24:] != IGNORE).any()


@settings(deadline=None, max_examples=200)
@given(st.integers(32, 5000), st.integers(32, 5000), st.integers(32, 256), st.integers(1, 900))
def test_patches_are_bounded_spread_and_inside(height: int, width: int, side: int, most: int) -> None:
    side = min(side, height, width)
    cells = place_patches(height, width, side_px=side, max_patches=most)
    assert 1 <= len(cells) <= most and len(set(cells)) == len(cells)
    assert all(0 <= cell.row <= height - side and 0 <= cell.col <= width - side for cell in cells)
    rows, cols = (sorted({getattr(cell, axis) for cell in cells}) for axis in ("row", "col"))
    assert len(rows) * len(cols) == len(cells)
    for starts, length in ((rows, height), (cols, width)):
        if len(starts) > 1:
            gaps = np.diff(starts)
            assert starts[0] == 0 and starts[-1] == length - side and gaps.max() - gaps.min() <= 1


def test_the_default_gamma_is_lower_than_the_vlms_and_a_step_of_the_store() -> None:
    for own in (0.5, 0.8, 0.33):
        gamma = default_gamma_of(FakeVLM(gamma=own))
        assert 0.38 * own < gamma < 0.42 * own
        assert CEGSettings(gamma=gamma, gamma_segmentation=gamma).gamma == gamma, "a step that the store can keep"


def test_small_rasters_are_covered_without_gaps() -> None:
    cells = place_patches(300, 450, side_px=128, max_patches=1000)
    seen = np.zeros((300, 450), int)
    for cell in cells:
        seen[cell.row : cell.row + 128, cell.col : cell.col + 128] += 1
    assert seen.min() >= 1 and len(cells) == 4 * 7


def test_patches_with_change_come_first_and_unchanged_ones_remain() -> None:
    pairs = [PairFiles(f"p{at:03d}", Path("a"), Path("b")) for at in range(100)]
    changed = [0.1 if at % 10 == 0 else 0.0 for at in range(100)]
    chosen = select_training_patches(pairs, changed, max_patches=40)
    assert len(chosen) == 40 and {f"p{at:03d}" for at in range(0, 100, 10)} <= {pair.name for pair in chosen}
    assert [pair.name for pair in chosen] == sorted(pair.name for pair in chosen)
    chosen = select_training_patches(pairs, [0.1] * 90 + [0.0] * 10, max_patches=40)
    assert len(chosen) == 40 and sum(int(pair.name[1:]) >= 90 for pair in chosen) == 10
    assert select_training_patches(pairs, changed, max_patches=100) == tuple(pairs)


def test_next_command_reads_the_pair_as_training_did() -> None:
    read = DetectionConfig(bands=(4, 3, 2), normalise="match", align=True, grid="finest")
    told = build_detect_command("a b.tif", "c.tif", Path("runs/x"), read)
    assert told.startswith("semicdvl detect 'a b.tif' c.tif -o runs/x-out --model runs/x")
    assert told.endswith("--bands 4,3,2 --grid finest --normalise match --align")
    read = DetectionConfig(alpha="none", stretch="200,3000", collar="none", allow_outside=True)
    told = build_detect_command("a.tif", "b.tif", Path("r"), read)
    assert told.endswith("--model r --alpha none --stretch 200,3000 --collar none --allow-outside")
    assert AdaptConfig(detection=read).list_reading_parts()["collar"] == "none"


def test_next_command_combines_with_the_map_without_labels_where_the_shipped_vlm_was_asked() -> None:
    read = DetectionConfig(gsd_m=0.5)
    usual, mixed = CEGSettings(level="residual"), CEGSettings(level="mixed", residual_score=0.7)
    for ceg in (usual, mixed):
        combined = PROMPT_SETS["buildings"], ceg
        told = build_detect_command("a.tif", "b.tif", Path("r"), read, combined_with=combined)
        assert told == "semicdvl detect a.tif b.tif -o r-out --model r --combine both --gsd 0.5"
    combined = Prompts(("road",), ("grass", "bare soil")), CEGSettings(level="residual", residual_area_m2=40)
    told = build_detect_command("a.tif", "b.tif", Path("r"), read, combined_with=combined)
    assert told.endswith("--combine both --find road --background 'grass,bare soil' --residual-area-m2 40 --gsd 0.5")


def test_the_map_that_the_network_completes_is_the_one_that_it_learned_from() -> None:
    """`adapt --residual-score 0.7 --detect OUT` combined the network with the map of the usual score."""
    assert AdaptCEGOptions(residual_score=0.7).map_settings == {"residual_score": 0.7}
    assert AdaptCEGOptions().map_settings == {}
    assert AdaptCEGOptions(gamma=0.5).map_settings is None and AdaptCEGOptions(delta=0.1).map_settings is None


def test_the_map_of_the_pair_keeps_what_is_found_without_labels(town: list[Path], done: Any, tmp_path: Path) -> None:
    base = build_default_detector(FakeVLM(), prompts=WORDS, settings=CEGSettings(level="instance", gamma=0.5))
    maps = {}
    for name, chosen in (("plain", None), ("network", None), ("combined", base)):
        if name == "plain":
            write_detection(*town, tmp_path / name, detector=base, progress=QUIET)
        else:
            detect_with_adapted(done, *town, tmp_path / name, base=chosen)
        with rasterio.open(tmp_path / name / "change.tif") as source:
            maps[name] = source.read(1) == 1
    assert maps["plain"].any() and not (maps["plain"] & ~maps["combined"]).any()
