"""Real architectures of transformers, tiny and randomly initialised, saved as a model hub would give them."""

from __future__ import annotations

import string
from pathlib import Path
from typing import Any

import torch

SEED = 5
LETTERS = string.ascii_lowercase + ",'"


def clip_tokenizer(length: int) -> Any:
    """CLIP's own tokenizer class with letters as its whole vocabulary."""
    from transformers import CLIPTokenizer

    pieces = [*LETTERS, *(f"{letter}</w>" for letter in LETTERS), ".</w>", "<|startoftext|>", "<|endoftext|>"]
    vocabulary = {piece: at + 1 for at, piece in enumerate(pieces)}  # 0 marks a padded query in OWLv2
    vocabulary = {"!": 0, **vocabulary}
    return CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=length)


VOCABULARY = 2 * len(LETTERS) + 4


def _text(**more: Any) -> dict[str, Any]:
    ends = {"bos_token_id": VOCABULARY - 2, "eos_token_id": VOCABULARY - 1, "pad_token_id": VOCABULARY - 1}
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    return {"vocab_size": VOCABULARY, "max_position_embeddings": 40, "projection_dim": 12, **sizes, **ends, **more}


def _vision(**more: Any) -> dict[str, Any]:
    sizes = {"hidden_size": 24, "intermediate_size": 32, "num_hidden_layers": 3, "num_attention_heads": 3}
    return {"image_size": 32, "patch_size": 8, "projection_dim": 12, **sizes, **more}


def save(folder: Path, model_class: Any, config: Any, *parts: Any, scale: float = 1.0, seed: int = SEED) -> Path:
    """Save a random model; `scale` makes its answers less alike than fresh weights do."""
    torch.manual_seed(seed)
    model = model_class(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(scale)
    model.save_pretrained(folder)
    for part in parts:
        part.save_pretrained(folder)
    return folder


def clip(folder: Path, *, one_head: bool = False, **kind: Any) -> Path:
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel

    heads = {"num_attention_heads": 1} if one_head else {}
    config = CLIPConfig(text_config=_text(**heads), vision_config=_vision(**heads), projection_dim=12)
    pixels = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=32)
    return save(folder, CLIPModel, config, pixels, clip_tokenizer(40), scale=4.0, **kind)


def siglip(folder: Path, **kind: Any) -> Path:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, SiglipConfig, SiglipImageProcessor, SiglipModel

    words = ["<pad>", "<unk>", "a", "an", "aerial", "satellite", "photo", "of", "building", "road", "tree", "water"]
    raw = Tokenizer(models.WordLevel({word: at for at, word in enumerate(words)}, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, pad_token="<pad>", unk_token="<unk>")
    text = _text(vocab_size=len(words), hidden_size=24, projection_size=24, bos_token_id=0, eos_token_id=0)
    config = SiglipConfig(text_config=text, vision_config=_vision())
    pixels = SiglipImageProcessor(size={"height": 32, "width": 32})
    return save(folder, SiglipModel, config, pixels, tokenizer, scale=4.0, **kind)


def clipseg(folder: Path, **kind: Any) -> Path:
    from transformers import CLIPSegConfig, CLIPSegForImageSegmentation, CLIPSegProcessor, ViTImageProcessor

    config = CLIPSegConfig(
        text_config=_text(),
        vision_config=_vision(),
        projection_dim=12,
        extract_layers=[0, 2],
        reduce_dim=8,
        decoder_num_attention_heads=2,
        decoder_intermediate_size=16,
    )
    processor = CLIPSegProcessor(ViTImageProcessor(size={"height": 32, "width": 32}), clip_tokenizer(40))
    return save(folder, CLIPSegForImageSegmentation, config, processor, scale=4.0, **kind)


def owlv2(folder: Path, **kind: Any) -> Path:
    from transformers import Owlv2Config, Owlv2ForObjectDetection, Owlv2ImageProcessor, Owlv2Processor

    config = Owlv2Config(text_config=_text(), vision_config=_vision(image_size=48), projection_dim=16)
    processor = Owlv2Processor(Owlv2ImageProcessor(size={"height": 48, "width": 48}), clip_tokenizer(40))
    return save(folder, Owlv2ForObjectDetection, config, processor, scale=4.0, **kind)


def grounding_dino(folder: Path, **kind: Any) -> Path:
    from transformers import (
        BertConfig,
        BertTokenizer,
        GroundingDinoConfig,
        GroundingDinoForObjectDetection,
        GroundingDinoImageProcessor,
        GroundingDinoProcessor,
        SwinConfig,
    )

    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", *LETTERS, *(f"##{letter}" for letter in LETTERS)]
    words = {piece: at for at, piece in enumerate([*pieces, "road", "tree"])}
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = GroundingDinoConfig(
        backbone_config=SwinConfig(
            image_size=64, patch_size=4, embed_dim=8, depths=[1, 1, 1, 1], num_heads=[1, 2, 2, 2], window_size=4,
            out_features=["stage2", "stage3", "stage4"],
        ),
        text_config=BertConfig(vocab_size=len(words), max_position_embeddings=64, **sizes),
        d_model=32, encoder_layers=1, decoder_layers=2, encoder_attention_heads=2, decoder_attention_heads=2,
        encoder_ffn_dim=24, decoder_ffn_dim=24, num_queries=9, max_text_len=32,
    )  # fmt: skip
    pixels = GroundingDinoImageProcessor(size={"shortest_edge": 64, "longest_edge": 96})
    processor = GroundingDinoProcessor(pixels, BertTokenizer(vocab=words))
    return save(folder, GroundingDinoForObjectDetection, config, processor, scale=1.5, **kind)


def _pixels(name: str, **options: Any) -> Any:
    """Return an image processor; early releases of transformers 5 call the only one of SAM 2 and 3 "fast"."""
    import transformers

    kind = f"{name}ImageProcessor"
    return (getattr(transformers, kind, None) or getattr(transformers, f"{kind}Fast"))(**options)


def sam2(folder: Path, **kind: Any) -> Path:
    from transformers import (
        Sam2Config,
        Sam2HieraDetConfig,
        Sam2Model,
        Sam2Processor,
        Sam2VisionConfig,
    )

    backbone = Sam2HieraDetConfig(
        hidden_size=8, image_size=[64, 64], blocks_per_stage=[1, 1, 2, 1], embed_dim_per_stage=[8, 16, 32, 64],
        num_attention_heads_per_stage=[1, 2, 2, 2], window_size_per_stage=[8, 4, 4, 4], global_attention_blocks=[3],
    )  # fmt: skip
    vision = Sam2VisionConfig(
        backbone_config=backbone, backbone_channel_list=[64, 32, 16, 8], fpn_hidden_size=16,
        backbone_feature_sizes=[[16, 16], [8, 8], [4, 4]],
    )  # fmt: skip
    config = Sam2Config(
        vision_config=vision,
        prompt_encoder_config={"hidden_size": 16, "image_size": 64, "patch_size": 16, "mask_input_channels": 8},
        mask_decoder_config={"hidden_size": 16, "mlp_dim": 24, "num_attention_heads": 2, "iou_head_hidden_dim": 16},
    )
    processor = Sam2Processor(_pixels("Sam2", size={"height": 64, "width": 64}), target_size=64)
    return save(folder, Sam2Model, config, processor, scale=2.0, **kind)


def sam3(folder: Path, **kind: Any) -> Path:
    from transformers import Sam3Config, Sam3Model, Sam3Processor

    small = {"hidden_size": 16, "num_attention_heads": 2}
    head = {**small, "intermediate_size": 24, "num_layers": 1}
    config = Sam3Config(
        vision_config={
            "backbone_config": {
                "model_type": "sam3_vit_model", "hidden_size": 24, "intermediate_size": 32, "num_hidden_layers": 2,
                "num_attention_heads": 2, "image_size": 56, "patch_size": 14, "window_size": 2,
                "global_attn_indexes": [1], "pretrain_image_size": 28,
            },
            "fpn_hidden_size": 16,
            "backbone_feature_sizes": [[16, 16], [8, 8], [4, 4]],
        },
        text_config={"model_type": "clip_text_model", **_text(max_position_embeddings=24)},
        geometry_encoder_config=head,
        detr_encoder_config=head,
        detr_decoder_config={**head, "num_queries": 7},
        mask_decoder_config=small,
    )  # fmt: skip
    processor = Sam3Processor(_pixels("Sam3", size={"height": 56, "width": 56}), clip_tokenizer(24))
    return save(folder, Sam3Model, config, processor, scale=2.0, **kind)
