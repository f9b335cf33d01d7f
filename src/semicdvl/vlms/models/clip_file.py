"""CLIP weights in either form: a folder of `transformers`, or one file as OpenCLIP, RemoteCLIP and GeoRSCLIP ship.

Such a file (`.pt` or `.safetensors`) holds tensors only, in OpenAI's naming. The network's shape is read from theirs.
Two parts are not in it: the vocabulary, which is CLIP's own for all of them and is taken from `tokenizer.json` (or
`vocab.json` and `merges.txt`) beside the file, or else from the hub; and the activation, which is QuickGELU for weights
that started from OpenAI's. Pickled files are read with `weights_only`: tensors, no code.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from semicdvl.errors import InputError
from semicdvl.reading.tensor_files import check_torch_archive, read_tensors
from semicdvl.vlms import weights

WEIGHTS_SPEC = weights.WeightsSpec("clip_dense", "openai/clip-vit-base-patch16", ("clip", "siglip"))
OPENAI_MEAN = (0.48145466, 0.4578275, 0.40821073)
OPENAI_STD = (0.26862954, 0.26130258, 0.27577711)
"""Pixels of OpenAI's CLIP and what was trained from it."""
TOKENIZER_SOURCE = "openai/clip-vit-base-patch32"
"""Whose tokenizer a file without one is given; all of OpenAI's CLIPs share it."""
TOKENIZER_FILES = ("tokenizer.json", "vocab.json", "merges.txt", "tokenizer_config.json", "special_tokens_map.json")
HEAD_WIDTH = 64
"""Channels per attention head in every ViT that OpenAI trained."""


@dataclass(frozen=True)
class LoadedClip:
    """Hold a loaded CLIP or SigLIP.

    Attributes:
        model: `CLIPModel` or `SiglipModel` of transformers.
        tokenizer: its tokenizer.
        normalisation: mean and deviation of its pixels.
        fingerprint: hash of what was loaded.
    """

    model: Any
    tokenizer: Any
    normalisation: tuple[tuple[float, ...], tuple[float, ...]]
    fingerprint: str


def load_clip(source: Path | str | None, *, device: torch.device, dtype: torch.dtype) -> LoadedClip:
    """Load a CLIP or SigLIP from a folder, a hub name (None: the default) or an OpenCLIP file.

    Raises:
        InputError: missing, damaged, or another model.
    """
    if source is not None and Path(source).is_file():
        return _load_openclip_file(Path(source), device=device, dtype=dtype)
    from transformers import AutoImageProcessor, AutoModel, AutoTokenizer

    found = weights.find_weights(source, WEIGHTS_SPEC)
    model = weights.load_transformers_model(AutoModel, found, device=device, dtype=dtype)
    pixels = weights.load_processor(AutoImageProcessor, found)
    normal = (tuple(pixels.image_mean), tuple(pixels.image_std))
    return LoadedClip(model, weights.load_processor(AutoTokenizer, found), normal, found.compute_fingerprint())


def _load_openclip_file(path: Path, *, device: torch.device, dtype: torch.dtype) -> LoadedClip:
    """Load a file in OpenAI's naming."""
    from transformers import AutoTokenizer, CLIPModel

    tensors = _read_tensors(path)
    config = _infer_config(tensors, path)
    model: Any = CLIPModel(config)
    try:
        model.load_state_dict(rename_clip_tensors(tensors))
    except (RuntimeError, KeyError) as error:
        raise InputError(path, f"does not fit the CLIP that its shapes imply ({error})", _REMEDY) from error
    words = path.parent if _has_tokenizer(path.parent) else _download_tokenizer(path)
    tokenizer = weights.load_processor(AutoTokenizer, weights.WeightsFolder(words))
    used = [words / name for name in TOKENIZER_FILES if (words / name).is_file()]
    model = model.eval().requires_grad_(False).to(device, dtype)
    return LoadedClip(model, tokenizer, (OPENAI_MEAN, OPENAI_STD), weights.fingerprint_files([path, *used]))


_REMEDY = "Give a ViT CLIP in OpenCLIP's form (RemoteCLIP-ViT-L-14.pt, RS5M_ViT-B-32.pt), or a folder of transformers"


def _download_tokenizer(path: Path) -> Path:
    """Return a folder with CLIP's vocabulary: downloaded before, or now."""
    from huggingface_hub import HfApi, snapshot_download

    names = list(TOKENIZER_FILES)
    with contextlib.suppress(OSError):
        folder = Path(snapshot_download(TOKENIZER_SOURCE, local_files_only=True, allow_patterns=names))
        if _has_tokenizer(folder):
            return folder
    try:
        HfApi().model_info(
            TOKENIZER_SOURCE, timeout=weights.HUB_TIMEOUT_S
        )  # fails soon where the download would try for long
        return Path(snapshot_download(TOKENIZER_SOURCE, allow_patterns=names, etag_timeout=weights.HUB_TIMEOUT_S))
    except Exception as error:  # whatever a network can do wrong
        raise InputError(
            path,
            "holds no vocabulary, and the model hub can't be reached for it",
            f"Put tokenizer.json, or vocab.json and merges.txt, of {TOKENIZER_SOURCE} beside the file",
        ) from error


def _has_tokenizer(folder: Path) -> bool:
    """Tell whether a folder has a vocabulary."""
    return any((folder / name).is_file() for name in ("tokenizer.json", "vocab.json"))


def _read_tensors(path: Path) -> dict[str, Tensor]:
    """Read a file of tensors."""
    try:
        if path.suffix == ".safetensors":
            content: Any = read_tensors(path, remedy=_REMEDY)[0]
        else:
            check_torch_archive(path, remedy=_REMEDY)
            content = torch.load(path, map_location="cpu", weights_only=True)
    except InputError:
        raise
    except Exception as error:  # pickles of code, damaged archives, text files
        raise InputError(path, f"is no file of tensors ({type(error).__name__})", _REMEDY) from error
    if isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        content = content["state_dict"]
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        raise InputError(path, "is no file of tensors", _REMEDY)
    return {str(name).removeprefix("module."): value for name, value in content.items()}


def _infer_config(tensors: Mapping[str, Tensor], path: Path) -> Any:
    """Infer the configuration from the tensors' shapes."""
    from transformers import CLIPConfig

    try:
        patches = tensors["visual.conv1.weight"]
        grid = round((len(tensors["visual.positional_embedding"]) - 1) ** 0.5)
        length, text_width = tensors["positional_embedding"].shape
        words, joint = len(tensors["token_embedding.weight"]), tensors["text_projection"].shape[1]
        visual_mlp = len(tensors["visual.transformer.resblocks.0.mlp.c_fc.weight"])
        text_mlp = len(tensors["transformer.resblocks.0.mlp.c_fc.weight"])
    except KeyError as error:
        raise InputError(path, f"holds no ViT CLIP: the tensor {error} is missing", _REMEDY) from error
    except (ValueError, TypeError, IndexError) as error:
        raise InputError(path, "holds no ViT CLIP: a tensor has another number of axes", _REMEDY) from error
    shared = {"projection_dim": joint, "hidden_act": "quick_gelu"}
    vision = {
        "hidden_size": len(patches),
        "intermediate_size": visual_mlp,
        "num_hidden_layers": _count_blocks(tensors, "visual.transformer"),
        "num_attention_heads": max(1, len(patches) // HEAD_WIDTH),
        "patch_size": patches.shape[-1],
        "image_size": patches.shape[-1] * grid,
    }
    text = {
        "hidden_size": text_width,
        "intermediate_size": text_mlp,
        "num_hidden_layers": _count_blocks(tensors, "transformer"),
        "num_attention_heads": max(1, text_width // HEAD_WIDTH),
        "max_position_embeddings": length,
        "vocab_size": words,
        "eos_token_id": words - 1,  # CLIP pools at <|endoftext|>, its last token
    }
    return CLIPConfig(text_config=text | shared, vision_config=vision | shared, projection_dim=joint)


def _count_blocks(tensors: Mapping[str, Tensor], tower: str) -> int:
    """Return the number of blocks of a tower."""
    block = re.compile(rf"{re.escape(tower)}\.resblocks\.(\d+)\.")
    return 1 + max(int(match[1]) for name in tensors if (match := block.match(name)))


NAMES_OUTSIDE_BLOCKS = {
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
    "ln_final.weight": "text_model.final_layer_norm.weight",
    "ln_final.bias": "text_model.final_layer_norm.bias",
    "logit_scale": "logit_scale",
    "visual.class_embedding": "vision_model.embeddings.class_embedding",
    "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
    "visual.conv1.weight": "vision_model.embeddings.patch_embedding.weight",
    "visual.ln_pre.weight": "vision_model.pre_layrnorm.weight",
    "visual.ln_pre.bias": "vision_model.pre_layrnorm.bias",
    "visual.ln_post.weight": "vision_model.post_layernorm.weight",
    "visual.ln_post.bias": "vision_model.post_layernorm.bias",
}
TRANSPOSED_NAMES = {"text_projection": "text_projection.weight", "visual.proj": "visual_projection.weight"}
"""OpenAI multiplies from the right, `nn.Linear` from the left."""
NAMES_INSIDE_BLOCKS = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "attn.out_proj": "self_attn.out_proj",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}
BLOCK_PATTERN = re.compile(r"(visual\.)?transformer\.resblocks\.(\d+)\.(.+)\.(weight|bias)")
ATTENTION_INPUT_PATTERN = re.compile(r"(visual\.)?transformer\.resblocks\.(\d+)\.attn\.in_proj_(weight|bias)")


def rename_clip_tensors(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors of a CLIP in the names of transformers; what is no weight is left out.

    Raises:
        KeyError: a block holds a part that CLIP does not have.
    """
    out = {}
    for name, value in tensors.items():
        if name in NAMES_OUTSIDE_BLOCKS:
            out[NAMES_OUTSIDE_BLOCKS[name]] = value
        elif name in TRANSPOSED_NAMES:
            out[TRANSPOSED_NAMES[name]] = value.T.contiguous()
        elif match := ATTENTION_INPUT_PATTERN.fullmatch(name):
            for part, chunk in zip("qkv", value.chunk(3), strict=True):
                out[f"{_layer_name(match)}.self_attn.{part}_proj.{match[3]}"] = chunk.contiguous()
        elif match := BLOCK_PATTERN.fullmatch(name):
            out[f"{_layer_name(match)}.{NAMES_INSIDE_BLOCKS[match[3]]}.{match[4]}"] = value
    return out


def _layer_name(match: re.Match[str]) -> str:
    """Return the name of an encoder layer."""
    return f"{'vision' if match[1] else 'text'}_model.encoder.layers.{match[2]}"
