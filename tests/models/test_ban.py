"""BAN: a foundation model that stays as it is, read where the paper reads it, bridged into a side network."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from tests.support.tiny_models import tiny
from torch import Tensor, nn

from semicdvl.errors import ConfigError
from semicdvl.models.ban import BAN, MLPHead, build_ban
from semicdvl.models.bit import BITHead
from semicdvl.models.encoders.foundation import TransformersBackbone, build_foundation
from semicdvl.types import IMAGENET_MEAN, IMAGENET_STD

CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


def images(*, height: int = 65, width: int = 97) -> tuple[Tensor, Tensor]:
    t1_BCHW, t2_BCHW = torch.randn(2, 2, 3, height, width, generator=torch.Generator().manual_seed(1))
    return t1_BCHW, t2_BCHW


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CLIP of eight blocks, text half included, as the hub's repositories hold it."""
    transformers = pytest.importorskip("transformers", reason="transformers is not installed (semicdvl[vlm])")
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2}
    config = transformers.CLIPConfig(
        text_config={**sizes, "num_hidden_layers": 1, "vocab_size": 40},
        vision_config={**sizes, "num_hidden_layers": 8, "image_size": 48, "patch_size": 8},
    )
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("clip") / "tiny"
    transformers.CLIPModel(config).save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps({"image_mean": CLIP_MEAN, "image_std": CLIP_STD}))
    return folder


def test_the_foundation_model_is_frozen_and_part_of_the_state() -> None:
    net = tiny("ban").train()
    assert not any(parameter.requires_grad for parameter in net.foundation.parameters())
    before = {key: value.clone() for key, value in net.foundation.state_dict().items()}
    net(*images()).change_BKHW.square().sum().backward()
    torch.optim.SGD((p for p in net.parameters() if p.requires_grad), lr=0.1).step()
    assert all(torch.equal(value, before[key]) for key, value in net.foundation.state_dict().items())
    assert all(f"foundation.{key}" in net.state_dict() for key in before)
    one, other = net.train().foundation(images()[0]), net.eval().foundation(images()[0])
    assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize(
    ("name", "blocks", "kept", "px", "channels"),
    [
        ("vit_base_patch16_clip_quickgelu_224.openai", [2, 5, 8], 9, 224, 768),
        ("vit_large_patch14_clip_quickgelu_336.openai", [5, 11, 17], 18, 336, 1024),
    ],
)
def test_clip_is_read_where_the_paper_reads_it(name: str, blocks: list[int], kept: int, px: int, channels: int) -> None:
    with torch.device("meta"):
        foundation = build_foundation(name, weights="none", size_px=None)
    assert foundation.backbone.blocks == blocks and len(foundation.backbone.net.blocks) == kept
    assert foundation.size_px == px and foundation.channels == (channels,) * 3


def test_a_timm_transformer_gives_its_blocks_own_outputs_of_the_resized_image() -> None:
    torch.manual_seed(0)
    foundation, seen, image_BCHW = build_foundation("test_vit", weights="none", size_px=64), [], images()[0]
    for block in foundation.backbone.net.blocks:
        block.register_forward_hook(lambda _, args, tokens_BND: seen.append(tokens_BND))
    maps = foundation(image_BCHW)
    assert foundation.backbone.blocks == [0, 2, 3] and len(seen) == 4
    for map_BDHW, block in zip(maps, [0, 2, 3], strict=True):
        assert map_BDHW.shape == (2, 64, 4, 4)
        torch.testing.assert_close(map_BDHW.flatten(2).transpose(1, 2), seen[block][:, 1:])
    small_BCHW = F.interpolate(image_BCHW, size=(64, 64), mode="bilinear", align_corners=False)
    assert all(torch.equal(a, b) for a, b in zip(maps, foundation(small_BCHW), strict=True))


def test_a_clip_folder_gives_the_hidden_states_of_the_whole_model(clip: Path) -> None:
    import transformers

    foundation, image_BCHW = build_foundation(str(clip), weights="published", size_px=None), images()[0]
    assert isinstance(foundation.backbone, TransformersBackbone)
    assert foundation.size_px == 48 and foundation.backbone.blocks == [1, 3, 5]
    assert len(foundation.backbone.net.encoder.layers) == 6

    whole = transformers.CLIPVisionModel.from_pretrained(clip).eval()
    rgb_BCHW = F.interpolate(image_BCHW, size=(48, 48), mode="bilinear", align_corners=False)
    rgb_BCHW = rgb_BCHW * torch.tensor(IMAGENET_STD)[:, None, None] + torch.tensor(IMAGENET_MEAN)[:, None, None]
    own_BCHW = (rgb_BCHW - torch.tensor(CLIP_MEAN)[:, None, None]) / torch.tensor(CLIP_STD)[:, None, None]
    with torch.no_grad():
        states = whole(pixel_values=own_BCHW, output_hidden_states=True).hidden_states
    for map_BDHW, block in zip(foundation(image_BCHW), [1, 3, 5], strict=True):
        expected_BDHW = states[block + 1][:, 1:].transpose(1, 2).reshape(2, 16, 6, 6)
        torch.testing.assert_close(map_BDHW, expected_BDHW, atol=1e-5, rtol=1e-4)


def test_a_network_on_a_clip_folder_trains_and_comes_back_without_its_weights(clip: Path) -> None:
    net = tiny("ban", foundation=str(clip), foundation_px=None, pretrained=False)
    trained = build_ban(foundation=str(clip), backbone="test_resnet", pretrained=_weights(clip))
    net.load_state_dict(trained.state_dict())
    with torch.no_grad():
        ours, theirs = net.eval()(*images()), trained.eval()(*images())
    assert torch.equal(ours.change_BKHW, theirs.change_BKHW)
    with pytest.raises(ConfigError, match="takes 48 px; leave foundation_px out"):
        build_foundation(str(clip), weights="none", size_px=64)
    with pytest.raises(ConfigError, match="has weights of its own"):
        build_foundation(str(clip), weights="some.safetensors", size_px=None)


def _weights(folder: Path) -> Path:
    """Return a file with weights of the side network."""
    from safetensors.torch import save_file

    path = folder / "side.safetensors"
    save_file(tiny("ban", seed=4).encoder.net.state_dict(), path)
    return path


@pytest.mark.parametrize(("backbone", "head", "bridged"), [("test_resnet", BITHead, 3), ("mit_b0", MLPHead, 3)])
def test_each_side_network_asks_the_foundation_model(backbone: str, head: type[nn.Module], bridged: int) -> None:
    net = tiny("ban", backbone=backbone)
    assert isinstance(net, BAN) and isinstance(net.head, head) and len(net.bridges) == bridged
    assert all(bridge.mlp.first.out_features == 4 for bridge in net.bridges)  # a literal 4, as published
    pair = images()
    with torch.no_grad():
        before = net.eval()(*pair).change_BKHW
        net.foundation.backbone.net.patch_embed.proj.weight.mul_(-1)
        assert before.shape == (2, 2, 65, 97) and not torch.equal(before, net(*pair).change_BKHW)


def test_the_transformer_side_network_is_bridged_from_its_second_stage_on() -> None:
    net, order = tiny("ban", backbone="mit_b0"), []
    for kind, modules in (("stage", net.encoder.stages), ("bridge", net.bridges)):
        for index, module in enumerate(modules):
            module.register_forward_hook(lambda *_, kind=kind, index=index: order.append((kind, index)))
    net(*images())
    one_date = [("stage", 0)] + [(kind, index) for stage in range(3) for kind, index in (("stage", stage + 1), ("bridge", stage))]  # fmt: skip # noqa: E501
    assert order == 2 * one_date
    assert [bridge.attention.num_heads for bridge in net.bridges] == [2, 5, 8]
    sum(p.sum() for p in [net(*images()).change_BKHW]).backward()
    assert all(p.grad is not None for p in net.parameters() if p.requires_grad)
