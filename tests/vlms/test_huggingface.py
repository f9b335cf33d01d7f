"""The VLMs of transformers, each as the real class with tiny random weights; what the class itself says is right.

Random weights find nothing, so these tests are about everything else: that words, pixels, boxes and masks come out
where the class's own processor and post-processing put them, in any order, batch, size and precision.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tests.support import tiny_vlms as tiny

from semicdvl.errors import ConfigError, InputError
from semicdvl.types import VLM
from semicdvl.vlms import create_vlm
from semicdvl.vlms.huggingface import HuggingFaceVLM
from semicdvl.vlms.instance_stitching import decode_mask
from semicdvl.vlms.models import clip_dense, clipseg, sam3
from semicdvl.vlms.models.sam2_boxes import ScoredBoxes

pytest.importorskip("transformers", reason="needs semicdvl[vlm]")

WORDS = ("Building", "road", "tree")
IMAGE = np.random.default_rng(3).integers(0, 255, (45, 70, 3), dtype=np.uint8)
SHAPE = IMAGE.shape[:2]
Build = Callable[..., HuggingFaceVLM]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("tiny")
    makers = ("clip", "siglip", "clipseg", "owlv2", "grounding_dino", "sam2", "sam3")
    return {name: getattr(tiny, name)(root / name) for name in makers}


@pytest.fixture(scope="module")
def builders(folders: dict[str, Path]) -> dict[str, Build]:
    def bound(name: str, *, weights: str, sam: str | None = None, **fixed: Any) -> Build:
        built: dict[str, HuggingFaceVLM] = {}

        def build(*, fresh: bool = False, **options: Any) -> HuggingFaceVLM:
            given = {"weights": folders[weights], **fixed, **({"sam": folders[sam]} if sam else {}), **options}
            key = repr(sorted(options.items()))
            if fresh or key not in built:
                built[key] = create_vlm(name, **given)
            vlm = built.pop(key) if fresh else built[key]
            return replace(vlm, _image_features=OrderedDict(), _encoded_prompts={})

        return build

    return {
        "sam3": bound("sam3", weights="sam3", threshold=0.24),
        "grounded_sam": bound("grounded_sam", weights="grounding_dino", sam="sam2"),
        "owl_sam": bound("owl_sam", weights="owlv2", sam="sam2"),
        "clipseg": bound("clipseg", weights="clipseg"),
        "clip_dense": bound("clip_dense", weights="clip", tile_px=96),
        "siglip": bound("clip_dense", weights="siglip", tile_px=96),
    }


NAMES = ("sam3", "grounded_sam", "owl_sam", "clipseg", "clip_dense", "siglip")
WITH_INSTANCES = ("sam3", "grounded_sam", "owl_sam")
INDEPENDENT = ("sam3", "owl_sam", "clipseg")  # a prompt's scores do not depend on the others


# ------------------------------------------------------------------------------------------------ the contract
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", NAMES)
def test_contract(builders: dict[str, Build], name: str, dtype: str) -> None:
    vlm = builders[name](dtype=dtype, device="cpu")
    assert isinstance(vlm, VLM) and 0 < vlm.gamma < 1
    answer = vlm.segment(IMAGE, WORDS)
    assert answer.scores_CHW.shape == (3, *SHAPE) and answer.scores_CHW.dtype == np.float32
    assert answer.scores_CHW.min() >= 0 and answer.scores_CHW.max() <= 1 and answer.prompts == WORDS
    assert (answer.instances is not None) == (name in WITH_INSTANCES)
    for one in answer.instances or ():
        assert decode_mask(one.mask).shape == SHAPE and decode_mask(one.mask).any()
        assert one.prompt in range(3) and 0 <= one.score <= 1
    again = vlm.segment(IMAGE, WORDS)
    np.testing.assert_array_equal(again.scores_CHW, answer.scores_CHW)
    assert again.instances == answer.instances
    dtypes = {parameter.dtype for parameter in vlm.model.model.parameters()}
    assert dtypes == {getattr(torch, dtype)}


@pytest.mark.parametrize("name", NAMES)
def test_maps_follow_the_order_of_the_words(builders: dict[str, Build], name: str) -> None:
    vlm = builders[name]()
    straight, turned = vlm.segment(IMAGE, WORDS), vlm.segment(IMAGE, [WORDS[at] for at in (2, 0, 1)])
    np.testing.assert_allclose(turned.scores_CHW, straight.scores_CHW[[2, 0, 1]], atol=2e-5)
    if name in INDEPENDENT:
        alone = vlm.segment(IMAGE, ["tree"])
        np.testing.assert_allclose(alone.scores_CHW[0], straight.scores_CHW[2], atol=2e-5)


@pytest.mark.parametrize("name", ["sam3", "clipseg", "clip_dense", "siglip"])
def test_batches_change_nothing(builders: dict[str, Build], name: str) -> None:
    image = np.random.default_rng(1).integers(0, 255, (60, 150, 3), dtype=np.uint8)
    one, many = (builders[name](batch=batch, tile_px=64).segment(image, WORDS) for batch in (1, 5))
    np.testing.assert_allclose(one.scores_CHW, many.scores_CHW, atol=2e-5)
    assert (one.instances is None) == (many.instances is None)
    assert len(one.instances or ()) == len(many.instances or ())


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", [(9, 31), (150, 70)])
def test_small_and_large_images(builders: dict[str, Build], name: str, shape: tuple[int, int]) -> None:
    image = np.random.default_rng(2).integers(0, 255, (*shape, 3), dtype=np.uint8)
    answer = builders[name](tile_px=96).segment(image, WORDS)
    assert answer.scores_CHW.shape == (3, *shape)
    assert all(decode_mask(one.mask).shape == shape for one in answer.instances or ())


@dataclass(frozen=True)
class Counting:
    """A model that counts how many images it encodes."""

    model: Any
    encoded: list[int] = field(default_factory=list)

    def encode_images(self, images: Sequence[np.ndarray]) -> Sequence[Any]:
        self.encoded.append(len(images))
        seen: Sequence[Any] = self.model.encode_images(images)
        return seen

    def __getattr__(self, name: str) -> Any:
        return getattr(self.model, name)


@pytest.mark.parametrize("name", NAMES)
def test_other_words_about_the_same_image_need_no_second_look(builders: dict[str, Build], name: str) -> None:
    vlm = builders[name]()
    counting = Counting(vlm.model)
    vlm = replace(vlm, model=counting)
    fresh = builders[name]().segment(IMAGE, ("water", "road"))
    vlm.segment(IMAGE, WORDS)
    second = vlm.segment(IMAGE.copy(), ("water", "road"))
    assert counting.encoded == [1]
    np.testing.assert_allclose(second.scores_CHW, fresh.scores_CHW, atol=2e-5)
    for value in (1, 2, 3):
        vlm.segment(np.full_like(IMAGE, value), WORDS)
    assert sum(counting.encoded) == 4 and len(vlm._image_features) == 2
    vlm.segment(IMAGE, WORDS)  # forgotten meanwhile
    assert sum(counting.encoded) == 5


@pytest.mark.parametrize("name", NAMES)
def test_bad_questions(builders: dict[str, Build], name: str) -> None:
    vlm = builders[name]()
    for image in (IMAGE[..., 0], IMAGE[..., :2], IMAGE.astype(np.float32), IMAGE[:0]):
        with pytest.raises(ConfigError, match="uint8 RGB"):
            vlm.segment(image, WORDS)
    for prompts in ("building", [], ["road", " . "]):
        with pytest.raises(ConfigError, match=r"words|is empty"):
            vlm.segment(IMAGE, prompts)


@pytest.mark.parametrize("name", NAMES)
def test_answers_that_are_no_numbers(builders: dict[str, Build], name: str) -> None:
    vlm = builders[name](fresh=True)
    with torch.no_grad():
        for parameter in vlm.model.model.parameters():
            parameter.fill_(torch.nan)
    with pytest.raises(InputError, match="not numbers"):
        vlm.segment(IMAGE, WORDS)


# ------------------------------------------------------------------------------------------------ identity
def test_identity_follows_weights_and_settings(builders: dict[str, Build], tmp_path: Path) -> None:
    plain = builders["clipseg"](device="cpu", dtype="float32").identity
    assert builders["clipseg"](dtype="float32", batch=3).identity == plain  # neither changes answers
    moved = tiny.clipseg(tmp_path / "elsewhere")
    assert clipseg.build_clipseg(weights=moved, dtype="float32").identity == plain
    changed = [
        clipseg.build_clipseg(weights=tiny.clipseg(tmp_path / "other", seed=6), dtype="float32"),
        builders["clipseg"](dtype="bfloat16"),
        builders["clipseg"](dtype="float32", template="a photo of a {}"),
        builders["clipseg"](dtype="float32", tile_px=64),
    ]
    assert len({plain, *(vlm.identity for vlm in changed)}) == 5


def test_identity_follows_the_second_model_too(folders: dict[str, Path], tmp_path: Path) -> None:
    other = tiny.sam2(tmp_path / "sam2", seed=6)
    for name, weights in (("owl_sam", "owlv2"), ("grounded_sam", "grounding_dino")):
        built = [create_vlm(name, weights=folders[weights], sam=sam) for sam in (folders["sam2"], other)]
        assert built[0].identity != built[1].identity


# ------------------------------------------------------------------------------------------------ against the classes
@torch.inference_mode()
def test_clipseg_is_the_class(builders: dict[str, Build]) -> None:
    vlm = builders["clipseg"]()
    model, processor = vlm.model.model, vlm.model.processor
    words = [word.lower() for word in WORDS]
    inputs = processor(text=words, images=[IMAGE] * 3, padding=True, return_tensors="pt")
    scores_CHW = model(**inputs).logits.sigmoid()
    expected = F.interpolate(scores_CHW[None], SHAPE, mode="bilinear")[0].numpy()
    np.testing.assert_allclose(vlm.segment(IMAGE, WORDS).scores_CHW, expected, atol=1e-5)


@torch.inference_mode()
def test_sam3_is_the_class(builders: dict[str, Build]) -> None:
    threshold = 0.24
    vlms = {maps: builders["sam3"](threshold=threshold, maps=maps) for maps in sam3.MAP_SOURCES}
    model, processor = vlms["fused"].model.model, vlms["fused"].model.processor
    answers = {maps: vlm.segment(IMAGE, WORDS) for maps, vlm in vlms.items()}
    for number, word in enumerate(WORDS):
        tokens = processor.tokenizer([word.lower()], padding="max_length", max_length=24, return_tensors="pt")
        pixels = processor(images=IMAGE, return_tensors="pt")["pixel_values"]
        out = model(pixel_values=pixels, **tokens)
        presence = out.presence_logits.sigmoid()[0].numpy()
        semantic = processor.post_process_semantic_segmentation(
            out, target_sizes=[SHAPE], return_segmentation_scores=True
        )[0].segmentation_scores[0]
        maps = answers["semantic"].scores_CHW[number]
        np.testing.assert_allclose(maps, presence * semantic.numpy(), atol=1e-5)
        found = processor.post_process_instance_segmentation(out, threshold=threshold, target_sizes=[SHAPE])[0]
        own = [one for one in answers["fused"].instances or () if one.prompt == number]
        full = [mask.numpy() != 0 for mask in found["masks"]]
        kept = [(mask, score) for mask, score in zip(full, found["scores"].tolist(), strict=True) if mask.any()]
        assert len(own) == len(kept) > 0
        for one, (mask_HW, score) in zip(own, kept, strict=True):
            assert one.score == pytest.approx(score, abs=1e-5)
            assert (decode_mask(one.mask) != mask_HW).mean() < 0.01
    np.testing.assert_allclose(
        answers["fused"].scores_CHW.max(),
        np.maximum(answers["semantic"].scores_CHW, answers["instances"].scores_CHW).max(),
        atol=1e-5,
    )
    both = np.maximum(answers["semantic"].scores_CHW, answers["instances"].scores_CHW)
    assert (answers["fused"].scores_CHW >= both - 1e-5).all()


def test_sam3_says_its_licence_once(folders: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    sam3._print_licence_notice.cache_clear()
    for _ in range(2):
        sam3.build_sam3(weights=folders["sam3"])
    printed = capsys.readouterr()
    assert printed.err.count("SAM License") == 1 and not printed.out


def test_sam3_prompts_that_are_too_long(builders: dict[str, Build]) -> None:
    with pytest.raises(ConfigError, match="24 tokens"):
        builders["sam3"]().segment(IMAGE, ["road", "very " * 20 + "long"])
    with pytest.raises(ConfigError, match="maps 'all'"):
        builders["sam3"](maps="all")


@torch.inference_mode()
def test_owl_finds_the_boxes_of_the_class(builders: dict[str, Build], monkeypatch: pytest.MonkeyPatch) -> None:
    vlm = builders["owl_sam"](threshold=-1.0)
    boxes = _asked_boxes(vlm, monkeypatch)
    model, processor = vlm.model.model, vlm.model.processor
    sentences = [vlm.model.template.format(word.lower()) for word in WORDS]
    inputs = processor(
        text=[sentences], images=IMAGE, truncation=True, padding="max_length", max_length=40, return_tensors="pt"
    )
    out = model(**inputs)
    expected = processor.post_process_grounded_object_detection(out, threshold=-1.0, target_sizes=[SHAPE])[0]
    torch.testing.assert_close(boxes.corners_N4, expected["boxes"], atol=1e-3, rtol=1e-4)
    torch.testing.assert_close(boxes.scores_NP, out.logits[0].sigmoid(), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(boxes.scores_NP.amax(dim=1), expected["scores"], atol=1e-5, rtol=1e-4)


@torch.inference_mode()
def test_grounding_dino_finds_the_boxes_of_the_class(
    builders: dict[str, Build], monkeypatch: pytest.MonkeyPatch
) -> None:
    vlm = builders["grounded_sam"](threshold=0.0)
    boxes = _asked_boxes(vlm, monkeypatch)
    model, processor = vlm.model.model, vlm.model.processor
    inputs = processor(text=[[word.lower() for word in WORDS]], images=IMAGE, return_tensors="pt")
    out = model(**inputs)
    expected = processor.post_process_grounded_object_detection(out, threshold=0.0, target_sizes=[SHAPE])[0]
    torch.testing.assert_close(boxes.corners_N4, expected["boxes"], atol=1e-3, rtol=1e-4)
    # per word: "b ##u ##i ... . road . tree ." between [CLS] and [SEP]
    tokens = processor.tokenizer.convert_ids_to_tokens(inputs["input_ids"][0])
    stops = [at for at, token in enumerate(tokens) if token == "."]
    probabilities = out.logits[0].sigmoid()
    for number, (start, stop) in enumerate(zip([1, stops[0] + 1, stops[1] + 1], stops, strict=True)):
        words_N = probabilities[:, start:stop].amax(dim=1)
        torch.testing.assert_close(boxes.scores_NP[:, number], words_N, atol=1e-5, rtol=1e-4)
    assert "".join(tokens[1 : stops[0]]).replace("##", "") == "building"


def _asked_boxes(vlm: HuggingFaceVLM, monkeypatch: pytest.MonkeyPatch) -> ScoredBoxes:
    """Ask, and return the detector's boxes before any is left out."""
    caught: list[ScoredBoxes] = []
    best = ScoredBoxes.select_best

    def catch(self: ScoredBoxes, **settings: Any) -> ScoredBoxes:
        caught.append(self)
        return best(self, **settings)

    monkeypatch.setattr(ScoredBoxes, "select_best", catch)
    vlm.segment(IMAGE, WORDS)
    return caught[0]


def test_grounding_dino_keeps_words_apart(builders: dict[str, Build]) -> None:
    vlm = builders["grounded_sam"]()
    text = vlm.model.encode_prompts(("road", "tree road", "tree"))  # [CLS] road . tree road . tree . [SEP]
    assert text.token_positions == ((1,), (3, 4), (6,))
    with pytest.raises(ConfigError, match="cannot separate"):
        vlm.model.encode_prompts(("st. john", "road"))  # `segment` takes full stops out before
    assert vlm.segment(IMAGE, ["st. john", "road"]).prompts == ("st. john", "road")
    with pytest.raises(ConfigError, match="reads 32 tokens"):
        vlm.segment(IMAGE, ["swimming pool", "solar panel", "parking lot", "greenhouse"])


@torch.inference_mode()
def test_sam2_cuts_out_what_the_class_does(builders: dict[str, Build]) -> None:
    segmenter = builders["owl_sam"]().model.box_segmenter
    corners = [[5.0, 3.0, 60.0, 30.0], [20.0, 10.0, 66.0, 44.0], [1.0, 1.0, 9.0, 40.0]]
    scores_NP = torch.tensor([[0.2, 0.9], [0.8, 0.1], [0.3, 0.4]])
    seen = segmenter.encode_images([IMAGE])[0]
    small = replace(segmenter, batch=2)
    maps_PHW, found = small.segment_boxes(seen, ScoredBoxes(torch.tensor(corners), scores_NP), shape_hw=SHAPE)
    inputs = segmenter.processor(images=IMAGE, input_boxes=[corners], return_tensors="pt")
    out = segmenter.model(**{k: v for k, v in inputs.items() if k != "original_sizes"}, multimask_output=False)
    full = segmenter.processor.post_process_masks(out.pred_masks, inputs["original_sizes"])[0][:, 0].numpy()
    kept = [(mask, prompt, score) for mask, prompt, score in zip(full, (1, 0, 1), (0.9, 0.8, 0.4), strict=True)]
    kept = [one for one in kept if one[0].any()]
    assert len(found) == len(kept) > 0
    for one, (mask_HW, prompt, score) in zip(found, kept, strict=True):
        assert one.prompt == prompt and one.score == pytest.approx(score)
        assert (decode_mask(one.mask) != mask_HW).mean() < 0.002
    soft = out.pred_masks[0, :, 0].sigmoid()
    coarse_PHW = torch.stack([(soft * scores_NP[:, p, None, None]).amax(0) for p in range(2)])
    expected_PHW = F.interpolate(coarse_PHW[None], SHAPE, mode="bilinear")[0]
    torch.testing.assert_close(maps_PHW, expected_PHW, atol=1e-5, rtol=1e-4)


def test_boxes_are_cleaned() -> None:
    corners = torch.tensor([[-5.0, 2, 30, 20], [0, 2, 30, 21], [0, 2, 30, 20], [50, 50, 50.4, 60], [60, 10, 90, 40]])
    scores = torch.tensor([[0.9, 0.1], [0.8, 0.1], [0.1, 0.7], [0.9, 0.9], [0.3, 0.2]])
    best = ScoredBoxes(corners, scores).select_best(threshold=0.25, same_iou=0.5, shape_hw=(45, 70))
    # the second is the first again; the third is another word's; the fourth has no width; the last is clipped
    assert best.corners_N4.tolist() == [[0, 2, 30, 20], [0, 2, 30, 20], [60, 10, 70, 40]]
    assert best.scores_NP.argmax(dim=1).tolist() == [0, 1, 0]
    none = ScoredBoxes(corners, scores).select_best(threshold=0.95, same_iou=0.5, shape_hw=(45, 70))
    assert len(none.corners_N4) == 0


@pytest.mark.parametrize("name", ["owl_sam", "grounded_sam"])
def test_nothing_found_is_an_answer(builders: dict[str, Build], name: str) -> None:
    answer = builders[name](threshold=1.1).segment(IMAGE, WORDS)
    assert answer.instances == () and not answer.scores_CHW.any()


# ------------------------------------------------------------------------------------------------ MaskCLIP
@torch.inference_mode()
def test_dense_clip_is_clip_whose_last_attention_looks_at_itself(
    builders: dict[str, Build], monkeypatch: pytest.MonkeyPatch
) -> None:
    adapter = builders["clip_dense"]().model
    model, features = adapter.model, adapter.encode_images([IMAGE])[0]
    assert features.grid_hw == (8, 12) and len(features.values_NE) == 96  # 45 x 70 px brought to 64 x 96, patches of 8
    attention = model.vision_model.encoder.layers[-1].self_attn

    def identity(hidden_states: torch.Tensor, **_: Any) -> tuple[torch.Tensor, None]:
        return attention.out_proj(attention.v_proj(hidden_states)), None

    monkeypatch.setattr(attention, "forward", identity)
    hidden = model.vision_model(adapter._preprocess_images([IMAGE]), interpolate_pos_encoding=True).last_hidden_state[
        0, 1:
    ]
    expected = model.visual_projection(model.vision_model.post_layernorm(hidden))
    torch.testing.assert_close(features.values_NE, F.normalize(expected, dim=-1), atol=1e-5, rtol=1e-4)


@torch.inference_mode()
def test_dense_siglip_pools_single_patches(builders: dict[str, Build]) -> None:
    adapter = builders["siglip"]().model
    model, features = adapter.model, adapter.encode_images([IMAGE])[0]
    hidden = model.vision_model(adapter._preprocess_images([IMAGE]), interpolate_pos_encoding=True).last_hidden_state[0]
    expected = model.vision_model.head(hidden[7][None, None])[0]
    torch.testing.assert_close(features.values_NE[7], F.normalize(expected, dim=-1), atol=1e-5, rtol=1e-4)


@torch.inference_mode()
def test_words_are_means_over_sentences(builders: dict[str, Build]) -> None:
    model = builders["clip_dense"](templates=["a photo of a {}", "many {}s"]).model
    vectors = []
    for sentence in ("a photo of a road", "many roads"):
        tokens = model.tokenizer([sentence], return_tensors="pt")
        vectors.append(F.normalize(model.model.get_text_features(**tokens).pooler_output[0], dim=-1))
    expected = F.normalize(torch.stack(vectors).mean(0), dim=-1)
    torch.testing.assert_close(model.encode_prompts(("tree", "road"))[1], expected, atol=1e-5, rtol=1e-4)


def _dense(builders: dict[str, Build], **settings: float) -> Any:
    """Return a model of two words whose four patches and keys are known."""
    model = builders["clip_dense"](**settings).model
    with torch.no_grad():
        model.model.logit_scale.fill_(0.0)
    angle = torch.tensor([0.0, 0.3, 1.2, 0.78])
    values = torch.stack([angle.cos(), angle.sin()], dim=1)
    keys = F.normalize(torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [1.0, 0.0]]), dim=1)
    return model, clip_dense.PatchFeatures(values, keys, (2, 2))


@torch.inference_mode()
def test_key_smoothing_and_prompt_denoising(builders: dict[str, Build]) -> None:
    words = torch.eye(2)
    model, seen = _dense(builders)
    plain = model.predict(seen, words, shape_hw=(2, 2))[0]
    expected = (seen.values_NE @ words.T).softmax(dim=1)
    torch.testing.assert_close(plain, expected.T.reshape(2, 2, 2))
    model, _ = _dense(builders, key_smoothing=0.52)  # only the last patch is that unsure
    smooth = model.predict(seen, words, shape_hw=(2, 2))[0]
    weights = (seen.keys_ND @ seen.keys_ND[3]).clamp_min(0)
    torch.testing.assert_close(smooth[:, 1, 1], (weights[:, None] * expected).sum(0) / weights.sum())
    torch.testing.assert_close(smooth[:, 0], plain[:, 0])
    torch.testing.assert_close(smooth.sum(0), torch.ones(2, 2))
    model, _ = _dense(builders, prompt_denoising=0.66)  # the second word never gets there
    kept = model.predict(seen, words, shape_hw=(2, 2))[0]
    assert float(plain[1].max()) < 0.66 < float(plain[0].max())
    assert (kept[0] == 1).all() and (kept[1] == 0).all()
    model, _ = _dense(builders, prompt_denoising=0.99)  # nobody does: nobody is dropped
    torch.testing.assert_close(model.predict(seen, words, shape_hw=(2, 2))[0], plain)


def test_dense_clip_compares(builders: dict[str, Build]) -> None:
    vlm = builders["clip_dense"]()
    np.testing.assert_allclose(vlm.segment(IMAGE, WORDS).scores_CHW.sum(0), 1, atol=1e-4)
    with pytest.raises(ConfigError, match="two or more"):
        vlm.segment(IMAGE, ["road"])


@pytest.mark.parametrize("name", ["clip_dense", "clipseg", "owl_sam"])
def test_templates_name_the_place_of_the_word(builders: dict[str, Build], name: str) -> None:
    option = {"templates": ["no place"]} if name == "clip_dense" else {"template": "{} and {}"}
    with pytest.raises(ConfigError, match="place of the word"):
        builders[name](**option)
