"""The network that starts as the detector without labels: where it starts, what moves it, and how far that reaches."""

from __future__ import annotations

import json
import shutil
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from semicdvl.ceg.config import DETECTION_LEVEL, CEGSettings
from semicdvl.ceg.features import AERIAL_ENCODER, build_feature_extractor
from semicdvl.ceg.prompts import PROMPT_SETS
from semicdvl.checkpoint import load_network
from semicdvl.config import Recipe, load_recipe
from semicdvl.data.readers import folder
from semicdvl.detection.config import DetectionConfig
from semicdvl.detection.detectors.inference import prepare_for_inference
from semicdvl.detection.detectors.network import build_network_detector
from semicdvl.detection.detectors.onnx.export import export_network
from semicdvl.detection.detectors.vlm_ceg import build_default_detector
from semicdvl.detection.pipeline import detect_in_memory
from semicdvl.errors import CheckpointError, ConfigError
from semicdvl.methods.semicd_vl import SemiCDVL
from semicdvl.pseudo_labels.generate import generate_labels
from semicdvl.pseudo_labels.store import PseudoLabelStore
from semicdvl.synthetic.config import CitySpec
from semicdvl.synthetic.generate import generate_city
from semicdvl.training.batches import normalise_images
from semicdvl.training.evaluate import evaluate_run
from semicdvl.training.few_labels.network import VLMPriorNet, build_vlm_prior
from semicdvl.training.few_labels.prior import VLMPrior
from semicdvl.training.run import train_recipe
from semicdvl.vlms.aerial.build import build_aerial

PATCH_PX = 96
GSD_M = 0.5
VIEWS = 1


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nine patches of a synthetic city as a folder of pairs."""
    root = tmp_path_factory.mktemp("few") / "pairs"
    city = generate_city(CitySpec(size_px=(3 * PATCH_PX, 3 * PATCH_PX), seed=3))
    for part, image in (("A", city.t1_HWC), ("B", city.t2_HWC), ("label", city.change_HW * 255)):
        (root / part).mkdir(parents=True)
        for row in range(0, 3 * PATCH_PX, PATCH_PX):
            for col in range(0, 3 * PATCH_PX, PATCH_PX):
                patch = image[row : row + PATCH_PX, col : col + PATCH_PX].astype(np.uint8)
                Image.fromarray(patch).save(root / part / f"p{row}_{col}.png")
    return root


@pytest.fixture(scope="module")
def store(data: Path) -> Path:
    """The maps without labels of these pairs."""
    vlm, root = build_aerial(views=VIEWS), data.parent / "store"
    settings = CEGSettings(level="residual")
    records = list(
        generate_labels(
            folder.read_folder(data).pairs, vlm=vlm, prompts=PROMPT_SETS["buildings"], settings=settings, root=root,
            gsd_m=GSD_M, features=build_feature_extractor(AERIAL_ENCODER),
        )
    )  # fmt: skip
    assert len(records) == 9
    return root


def recipe_of(data: Path, store: Path, *changes: str) -> Recipe:
    """The shipped recipe at the size of these pairs."""
    values = (
        f"data.root={data}", "data.labelled=0.6", f"data.crop_px={PATCH_PX}", f"pseudo.store={store}",
        f"model.views={VIEWS}", f"model.gsd_m={GSD_M}", "train.device=cpu", "train.cross_validate=false",
    )  # fmt: skip
    return load_recipe("few-labels", overrides=(*values, *changes))


def name_images(data: Path, name: str) -> list[Path]:
    return [data / part / f"{name}.png" for part in ("A", "B")]


def read_images(data: Path, name: str) -> list[NDArray[np.uint8]]:
    return [np.array(Image.open(path)) for path in name_images(data, name)]


def to_batch(image_HWC: NDArray[np.uint8]) -> Tensor:
    return normalise_images(torch.from_numpy(image_HWC.copy()).permute(2, 0, 1)[None])


def find_change(network: torch.nn.Module, images: list[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    with torch.inference_mode():
        change = network(*(to_batch(image) for image in images)).change_BKHW.argmax(dim=1)[0]
    return change.numpy().astype(np.uint8)


def test_untrained_it_is_the_detector_without_labels(data: Path) -> None:
    detector = build_default_detector(
        build_aerial(views=VIEWS),
        prompts=PROMPT_SETS["buildings"],
        settings=CEGSettings(level=DETECTION_LEVEL),
    )
    network = build_vlm_prior(views=VIEWS, gsd_m=GSD_M).eval()
    changed = 0
    for name in ("p0_0", "p96_96", "p192_0"):
        config = DetectionConfig(gsd_m=GSD_M, min_area_m2=0.0)
        found = detect_in_memory(*name_images(data, name), detector=detector, config=config)
        np.testing.assert_array_equal(find_change(network, read_images(data, name)), found.change == 1)
        changed += int((found.change == 1).sum())
    assert changed


def test_it_has_eight_weights_and_takes_images_of_any_size() -> None:
    network = build_vlm_prior(views=VIEWS)
    assert sum(weight.numel() for weight in network.parameters()) == 8
    images = torch.zeros(2, 3, 45, 70), torch.ones(2, 3, 45, 70)
    logits_BKHW = network.eval()(*images).change_BKHW
    assert logits_BKHW.shape == (2, 2, 45, 70) and logits_BKHW.dtype == torch.float32
    with pytest.raises(ConfigError, match="no head"):
        network(*images, heads=frozenset({"change", "features"}))


def test_copies_share_what_the_vlm_said(data: Path) -> None:
    network = build_vlm_prior(views=VIEWS, gsd_m=GSD_M)
    assert deepcopy(network).prior is network.prior is build_vlm_prior(views=VIEWS, gsd_m=0.3).prior
    images = read_images(data, "p0_96")
    first = network.prior.ask(*images, gsd_m=GSD_M)
    assert network.prior.ask(*[image.copy() for image in images], gsd_m=GSD_M) is first
    assert network.prior.ask(*images, gsd_m=0.4) is not first


# ------------------------------------------------------------------------------------------------ how far labels reach
def move(network: VLMPriorNet) -> VLMPriorNet:
    """Let the correction call everything changed."""
    with torch.no_grad():
        network.correction.bias.fill_(10.0)  # type: ignore[union-attr]
    return network


def test_a_correction_reaches_images_like_those_of_training_alone(data: Path) -> None:
    network, images = move(build_vlm_prior(views=VIEWS, gsd_m=GSD_M)), read_images(data, "p0_0")
    network.train()
    for name in ("p0_0", "p96_0", "p0_192"):
        network(*(to_batch(image) for image in read_images(data, name)))
    network.eval()
    assert find_change(network, images).all()
    strange = [(image // 4).astype(np.uint8) for image in images]
    untrained = build_vlm_prior(views=VIEWS, gsd_m=GSD_M).eval()
    np.testing.assert_array_equal(find_change(network, strange), find_change(untrained, strange))


def test_the_looks_of_training_are_their_mean_and_deviation(data: Path) -> None:
    network, names = build_vlm_prior(views=VIEWS, gsd_m=GSD_M).train(), ("p0_0", "p96_0", "p0_192")
    for name in names:
        network(*(to_batch(image) for image in read_images(data, name)))
    means_N6 = np.array([[image.mean(axis=(0, 1)) / 255 for image in read_images(data, name)] for name in names])
    means_N6 = means_N6.reshape(3, 6)
    assert network.looks_3L[0].tolist() == [3.0] * 12
    np.testing.assert_allclose(network.looks_3L[1, :6], means_N6.mean(axis=0), atol=1e-6)
    np.testing.assert_allclose(network.looks_3L[2, :6] / 3, means_N6.var(axis=0), atol=1e-6)


def test_pairs_without_a_label_widen_the_reach_if_they_look_like_labelled_ones(data: Path) -> None:
    network, pixels_P = build_vlm_prior(views=VIEWS, gsd_m=GSD_M).train(), np.arange(5)
    first, second, third = (read_images(data, name) for name in ("p0_0", "p96_0", "p0_192"))
    network.describe_pixels(*first, pixels_P, labelled=False)  # type: ignore[misc]
    assert network.looks_3L[0, 0] == 0, "nothing is labelled yet"
    for images in (first, second):
        network.describe_pixels(*images, pixels_P, labelled=True)  # type: ignore[misc]
    network.describe_pixels(*first, pixels_P, labelled=False)  # type: ignore[misc]
    assert network.looks_3L[0, 0] == 3
    network.describe_pixels(*[(image // 4).astype(np.uint8) for image in third], pixels_P, labelled=False)  # type: ignore[misc]
    assert network.looks_3L[0, 0] == 3 and network.labelled_looks_3L[0, 0] == 2


# ------------------------------------------------------------------------------------------------ as a run
def test_a_run_is_trained_resumed_loaded_evaluated_and_detected_with(data: Path, store: Path, tmp_path: Path) -> None:
    recipe = recipe_of(data, store)
    whole = train_recipe(recipe, tmp_path / "whole", quiet=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("semicdvl.training.few_labels.fit.TrainingCheckpoint.keep_if_best", _interrupt)
        with pytest.raises(KeyboardInterrupt):
            train_recipe(recipe, tmp_path / "cut", quiet=True)
    train_recipe(recipe, tmp_path / "cut", quiet=True)
    network, resumed = (load_network(tmp_path / name) for name in ("whole", "cut"))
    for key, value in network.state_dict().items():
        torch.testing.assert_close(resumed.state_dict()[key], value, msg=key)
    assert network.correction.weight.abs().sum() > 0  # type: ignore[union-attr, operator]
    again = evaluate_run(tmp_path / "whole", folder.read_folder(data), subset="test")
    assert again == pytest.approx(whole.test, abs=1e-6, nan_ok=True)
    detector = build_network_detector(tmp_path / "whole", device="cpu")
    found = detect_in_memory(*name_images(data, "p0_0"), detector=detector, config=DetectionConfig(gsd_m=GSD_M))
    np.testing.assert_array_equal(found.change == 1, find_change(network, read_images(data, "p0_0")) == 1)


def _interrupt(*given: object, **options: object) -> bool:
    raise KeyboardInterrupt


def test_labels_that_do_not_agree_correct_nothing(
    data: Path, store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each pair's label is drawn by chance, so what one asks for makes the others worse."""
    noisy, rng = tmp_path / "noisy", np.random.default_rng(0)
    shutil.copytree(data, noisy)
    for path in sorted((noisy / "label").iterdir()):
        label_HW = np.array(Image.open(path))
        Image.fromarray(label_HW if rng.random() < 0.5 else 255 - label_HW).save(path)
    recipe = recipe_of(noisy, store, "train.cross_validate=true", "data.labelled=0.5")
    train_recipe(recipe, tmp_path / "run", quiet=False)
    network = load_network(tmp_path / "run")
    assert not any(weight.any() for weight in network.correction.parameters())  # type: ignore[union-attr, operator]
    assert "no correction that some of the labelled pairs ask for" in capsys.readouterr().err


def test_labels_that_agree_choose_a_penalty(data: Path, store: Path, tmp_path: Path) -> None:
    """All labels call every pixel changed: any correction towards that helps the others."""
    alike = tmp_path / "alike"
    shutil.copytree(data, alike)
    for path in (alike / "label").iterdir():
        Image.fromarray(np.full((PATCH_PX, PATCH_PX), 255, np.uint8)).save(path)
    train_recipe(recipe_of(alike, store, "train.cross_validate=true"), tmp_path / "run", quiet=True)
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert [line["weight_decay"] for line in lines if "weight_decay" in line] in ([0.0005], [0.002])
    network = load_network(tmp_path / "run")
    assert network.correction.weight.abs().sum() > 0  # type: ignore[union-attr, operator]


def test_cross_validation_of_a_training_by_steps_is_refused(data: Path, store: Path) -> None:
    with pytest.raises(ConfigError, match="cross_validate needs optimizer 'lbfgs', not 'adamw'"):
        recipe_of(data, store, "train.cross_validate=true", "train.optimizer=adamw")


def test_steps_over_crops_move_it_too(data: Path, store: Path, tmp_path: Path) -> None:
    changes = (
        "train.optimizer=adam",
        "train.steps=2",
        "train.eval_every=1",
        "train.lr=0.1",
        "train.unlabelled_batch=2",
    )
    train_recipe(recipe_of(data, store, *changes, "data.scale=[1.0,1.0]", "data.hflip=0"), tmp_path / "run", quiet=True)
    network = load_network(tmp_path / "run")
    assert network.correction.weight.abs().sum() > 0 and network.looks_3L[0, 0] > 0  # type: ignore[union-attr, operator, index]


def test_the_fit_is_the_minimum_of_the_methods_loss(data: Path, store: Path, tmp_path: Path) -> None:
    """Moving any weight makes the sum of the terms and the penalty larger."""
    seen: list[tuple[Any, ...]] = []
    with pytest.MonkeyPatch.context() as patch:
        taken = SemiCDVL.step
        patch.setattr(SemiCDVL, "step", lambda self, *given: seen.append((self, *given)) or taken(self, *given))
        train_recipe(recipe_of(data, store, "train.steps=100"), tmp_path / "run", quiet=True)
        method, view, *rest = seen[-1]

    def compute_loss() -> float:
        with torch.no_grad():
            penalty = sum(weight.square().sum() for weight in view._network[0].parameters()) * 0.0005 / 2
            return float(sum(method.step(view, *rest).values()) + penalty)

    least = compute_loss()
    for weight in view._network[0].parameters():
        for moved in (0.1, -0.1):
            with torch.no_grad():
                weight.flatten()[0] += moved
                assert compute_loss() > least
                weight.flatten()[0] -= moved


def test_networks_and_methods_that_cannot_be_fitted_at_once_are_refused(
    data: Path, store: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="has no strong views, which method 'semicd_vl' compares with"):
        train_recipe(recipe_of(data, store, "method.strong_view=true"), tmp_path / "run", quiet=True)
    with pytest.raises(ConfigError, match="learns from pairs without a label by the VLM's alone"):  # not by true ones
        train_recipe(recipe_of(data, store, "method.vlm_guidance=false"), tmp_path / "run", quiet=True)
    other = ("model.backbone=test_resnet", "model.pretrained=none", "train.optimizer=lbfgs", "train.select=last")
    with pytest.raises(ConfigError, match="model 'siam_light' does not"):
        train_recipe(
            load_recipe("small-supervised", overrides=(f"data.root={data}", "data.labelled=0.6", *other)),
            tmp_path / "run",
            quiet=True,
        )
    assert not (tmp_path / "run").exists()


def test_another_vlm_or_other_words_are_refused(data: Path, store: Path, tmp_path: Path) -> None:
    train_recipe(recipe_of(data, store), tmp_path / "run", quiet=True)
    network = load_network(tmp_path / "run")
    network.prior = build_vlm_prior(find=["tank"], background=["grass"], views=VIEWS).prior
    with pytest.raises(CheckpointError, match="other prompts"):
        network(torch.zeros(1, 3, 64, 64), torch.zeros(1, 3, 64, 64))


def test_a_run_of_a_processor_with_another_precision_is_of_use() -> None:
    hashes = []
    for identity in ("aerial-1a2b-3", "aerial-1a2b-3-bfloat16", "aerial-ffff-3"):
        prior = VLMPrior(PROMPT_SETS["buildings"], VIEWS)
        vlm = replace(build_vlm_prior(views=VIEWS).prior.detector.vlm, identity=identity)  # type: ignore[type-var]
        prior.__dict__["detector"] = replace(build_vlm_prior(views=VIEWS).prior.detector, vlm=vlm)
        hashes.append(prior.identity_hash)
    assert hashes[0] == hashes[1] != hashes[2]


def test_it_is_neither_exported_nor_compiled(tmp_path: Path) -> None:
    network = build_vlm_prior(views=VIEWS).eval()
    with pytest.raises(ConfigError, match="neither compiled nor exported: it asks the embedded VLM"):
        export_network(network, tmp_path / "x.onnx")
    with pytest.raises(ConfigError, match="Leave out --compile"):
        prepare_for_inference(network, compiled=True)
    assert not list(tmp_path.iterdir())


def test_detection_tells_the_network_the_ground_sampling_distance(data: Path, store: Path, tmp_path: Path) -> None:
    train_recipe(recipe_of(data, store), tmp_path / "run", quiet=True)
    detector, images = build_network_detector(tmp_path / "run", device="cpu"), read_images(data, "p0_0")
    told = [detector.predict_scores(*images, gsd_m=gsd_m) for gsd_m in (None, GSD_M, 0.25, None)]
    np.testing.assert_array_equal(told[0], told[1])
    assert (told[1] != told[2]).any()


def test_the_store_holds_the_map_that_it_starts_from(data: Path, store: Path) -> None:
    """Scores are stored in steps of 1/200, so single pixels may differ."""
    network, kept = build_vlm_prior(views=VIEWS, gsd_m=GSD_M).eval(), PseudoLabelStore.open(store)
    pair = folder.read_folder(data).pairs_by_name["p96_96"]
    differing_HW = kept.read_labels(pair).change_HW != find_change(network, read_images(data, pair.name))
    assert differing_HW.mean() < 0.02


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"gsd_m": -1.0}, "gsd_m = -1"),
        ({"gsd_m": 1e-300}, "0.01 to"),
        ({"gsd_m": 1e300}, "0.01 to"),
        ({"views": 5}, "views must be one of"),
        ({"find": []}, "no prompt"),
    ],
)
def test_settings_out_of_range_are_refused(options: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        build_vlm_prior(**options)  # type: ignore[arg-type]
