"""What is special about one network: wiring facts, and faults of public code that it must not have."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from tests.support.tiny_models import tiny
from torch import Tensor, nn

from semicdvl.checkpoint import build_untrained_network
from semicdvl.errors import ConfigError
from semicdvl.models import bit, changeformer, deeplab, fc_siam, snunet, stanet
from semicdvl.models.common.blocks import PooledBatchNorm, append_channel_dropout, pad_to_multiple
from semicdvl.models.encoders.mit import MiT, MiTConfig
from semicdvl.models.encoders.timm import build_backbone

PERTURBED = ("siam_light", "deeplab", "psp", "siam_unet")


def images(*, height: int = 64, width: int = 96, batch: int = 2, seed: int = 1) -> tuple[Tensor, Tensor]:
    t1_BCHW, t2_BCHW = torch.randn(2, batch, 3, height, width, generator=torch.Generator().manual_seed(seed))
    return t1_BCHW, t2_BCHW


# ---------------------------------------------------------------------------------------- feature perturbation
def test_half_of_the_channels_are_dropped_behind_the_whole_maps() -> None:
    torch.manual_seed(0)
    map_BDHW = torch.rand(3, 40, 5, 7) + 0.1
    (both_BDHW,) = append_channel_dropout([map_BDHW])
    assert torch.equal(both_BDHW[:3], map_BDHW)
    ratio_BD = (both_BDHW[3:] / map_BDHW).flatten(2)
    assert torch.equal(ratio_BD.amin(dim=-1), ratio_BD.amax(dim=-1))  # whole channels
    assert set(ratio_BD.unique().tolist()) == {0.0, 2.0}
    assert 0.3 < (ratio_BD == 0).float().mean() < 0.7


@pytest.mark.parametrize("name", PERTURBED)
def test_perturbed_logits_are_others_in_training_and_the_same_in_eval_mode(name: str) -> None:
    net, pair, heads = tiny(name), images(), frozenset({"perturbed"})
    out = net.train()(*pair, heads=heads)
    assert not torch.equal(out.change_BKHW, out.perturbed_change_BKHW)
    out.perturbed_change_BKHW.square().sum().backward()
    assert all(parameter.grad is not None for parameter in net.encoder.parameters())
    evaluated = net.eval()(*pair, heads=heads)
    assert torch.equal(evaluated.change_BKHW, evaluated.perturbed_change_BKHW)


@pytest.mark.parametrize("name", PERTURBED)
def test_the_decoder_takes_whole_and_dropped_features_as_one_batch(name: str) -> None:
    net, batches = tiny(name).train(), []
    norm = next(m for key, m in net.named_modules() if isinstance(m, nn.BatchNorm2d) and not key.startswith("encoder"))
    norm.register_forward_pre_hook(lambda _, args: batches.append(len(args[0])))
    net(*images(), heads=frozenset({"change"}))
    net(*images(), heads=frozenset({"perturbed"}))
    assert batches == [2, 4]


# ---------------------------------------------------------------------------------------- shared pieces
def test_pooled_norm_takes_a_batch_of_one() -> None:
    norm = PooledBatchNorm(5)
    norm.running_mean.fill_(1.0)
    with torch.no_grad():
        assert torch.equal(norm(torch.ones(1, 5, 1, 1)), torch.zeros(1, 5, 1, 1))
    assert norm.num_batches_tracked == 0 and torch.equal(norm.running_mean, torch.ones(5))
    several_BDHW = torch.randn(4, 5, 1, 1)
    torch.testing.assert_close(norm(several_BDHW), nn.BatchNorm2d(5)(several_BDHW))


def test_padding_repeats_the_border() -> None:
    image_BCHW = torch.arange(2 * 3 * 5 * 7).reshape(2, 3, 5, 7).float()
    padded_BCHW = pad_to_multiple(image_BCHW, multiple_px=4)
    assert padded_BCHW.shape == (2, 3, 8, 8) and torch.equal(padded_BCHW[..., :5, :7], image_BCHW)
    assert torch.equal(padded_BCHW[..., 7, :7], image_BCHW[..., -1, :])
    assert pad_to_multiple(padded_BCHW, multiple_px=4) is padded_BCHW


def test_backbones_have_the_published_strides() -> None:
    with torch.device("meta"):
        assert deeplab.build_deeplab(pretrained=False).encoder.strides == (4, 8, 16, 16)
        assert tiny("psp", backbone="resnet50s").encoder.strides == (4, 8, 8, 8)
        assert tiny("cct", backbone="resnet50s").encoder.strides == (4, 8, 8, 8)
        assert stanet.build_stanet(pretrained=False).encoder.strides == (4, 8, 16, 32)
        assert bit.build_bit(pretrained=False).encoder.strides == (4, 8, 8)


@pytest.mark.parametrize("name", ["resnet18", "test_vit"])
def test_three_stages_are_the_first_three_of_four(name: str) -> None:
    """What only the fourth stage needs is not built."""
    torch.manual_seed(0)
    four = build_backbone(name, weights="none").eval()
    three = build_backbone(name, weights="none", stages=3).eval()
    three.load_state_dict({key: four.state_dict()[key] for key in three.state_dict()})
    with torch.no_grad():
        ours, theirs = three(images()[0]), four(images()[0])
    assert len(ours) == 3 == len(three.channels) == len(three.strides)
    assert all(torch.equal(one, other) for one, other in zip(ours, theirs[:3], strict=True))
    assert len(three.state_dict()) < len(four.state_dict())


# ---------------------------------------------------------------------------------------- DeepLab's second classifier
def test_deeplab_has_a_second_classifier_where_it_is_asked_for() -> None:
    net = tiny("deeplab", auxiliary=True)
    assert net.heads == {"change", "perturbed", "complementary", "auxiliary"}
    (logits_BKHW,) = net(*images(height=65, width=97)).auxiliary_BKHW
    assert logits_BKHW.shape == (2, 2, 65, 97)
    logits_BKHW.square().sum().backward()
    assert all(parameter.grad is not None for parameter in net.auxiliary.parameters())
    third = net.encoder.channels[2]
    assert sum(p.numel() for p in net.auxiliary.parameters()) == 4 * (third * 2 * 9 + 2)
    assert all(p.grad is None for p in net.classify.parameters())


# ---------------------------------------------------------------------------------------- FC-EF and its Siamese kin
@pytest.mark.parametrize("build", [fc_siam.build_fc_siam_diff, fc_siam.build_fc_siam_conc])
def test_dropout_erases_the_same_channels_at_both_dates(build) -> None:
    """In the public code each date draws its own: a pair without change differs in every layer."""
    torch.manual_seed(0)
    net, image_BCHW, seen = build(width=4, dropout=0.5).train(), images()[0], []
    for level in net.levels:
        level.register_forward_hook(lambda _, args, maps: seen.append(maps))
    net(image_BCHW, image_BCHW)
    assert len(seen) == 4
    for one_BDHW, other_BDHW in seen:
        assert torch.equal(one_BDHW, other_BDHW)
        assert (one_BDHW.flatten(2).amax(dim=-1) == 0).any()  # something was dropped


def test_the_bottleneck_is_of_date_2_and_skips_are_differences() -> None:
    net, seen = fc_siam.build_fc_siam_diff(width=4).eval(), []
    net.ups[-1].register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    (one_BCHW, same_BCHW), other_BCHW = (images()[0], images()[0]), images(seed=7)[0]
    with torch.no_grad():
        net(other_BCHW, one_BCHW)
        net(one_BCHW, same_BCHW)
        net(one_BCHW, other_BCHW)
    assert torch.equal(seen[0], seen[1]) and not torch.equal(seen[1], seen[2])
    skip_BDHW = net._fuse_skip(net.levels[0]([one_BCHW, other_BCHW]))
    assert torch.equal(skip_BDHW, net._fuse_skip(net.levels[0]([other_BCHW, one_BCHW]))) and (skip_BDHW >= 0).all()


# ---------------------------------------------------------------------------------------- STANet
def lively_stanet(**settings) -> stanet.STANet:
    """Attention that starts from N(0, 0.02) makes all pixels alike: distances too small to test with."""
    net = tiny("stanet", **settings).train()
    for module in net.attention.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.normal_(module.weight, std=1.0)
    for norm in (m for m in net.modules() if isinstance(m, nn.BatchNorm2d)):
        norm.momentum = 1.0  # the statistics of these images, lest all signal vanish
    with torch.no_grad():
        net(*images())
    return net.eval()


@pytest.mark.parametrize("attention", ["pam", "bam"])
def test_stanets_distance_is_over_channels(attention: str) -> None:
    """`F.pairwise_distance`, which the public code calls, sums over image columns since torch 1.9."""
    net, seen = lively_stanet(attention=attention), []
    net.attention.register_forward_hook(lambda _, args, pair_BDHW: seen.append(pair_BDHW))
    with torch.no_grad():
        out = net(*images())
    one_BDHW, other_BDHW = seen[0].chunk(2, dim=-1)
    assert one_BDHW.shape == (2, 8, 16, 24)
    distance_BHW = ((one_BDHW - other_BDHW) ** 2).sum(dim=1).sqrt()
    assert distance_BHW.max() > 2 * distance_BHW.min() > 0
    size_px = (64, 96)
    whole_BHW = F.interpolate(distance_BHW[:, None], size=size_px, mode="bilinear", align_corners=True)[:, 0]
    torch.testing.assert_close(out.distance_BHW, whole_BHW)
    assert torch.equal(out.change_BKHW.argmax(dim=1) == 1, out.distance_BHW > 1)


@pytest.mark.parametrize("attention", ["pam", "bam"])
def test_stanet_is_symmetric_and_finds_nothing_between_an_image_and_itself(attention: str) -> None:
    net, (t1_BCHW, t2_BCHW) = lively_stanet(attention=attention), images(height=65, width=97)
    with torch.no_grad():
        one, other = net(t1_BCHW, t2_BCHW).distance_BHW, net(t2_BCHW, t1_BCHW).distance_BHW
        same = net(t1_BCHW, t1_BCHW)
    torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)
    assert one.max() > 0.1 and same.distance_BHW.max() < 1e-3
    assert (same.change_BKHW.softmax(dim=1)[:, 0] > 0.95).all()  # sure enough for a pseudo label


@pytest.mark.parametrize("parts", [1, 2, 4])
def test_attention_stays_within_a_part_of_both_dates(parts: int) -> None:
    torch.manual_seed(0)
    layer = stanet.RegionAttention(16, parts=parts, norm=True).eval()
    pair_BDHW = torch.randn(2, 16, 8, 2 * 12)
    with torch.no_grad():
        ours_BDHW, theirs_BDHW = layer(pair_BDHW), _attention_part_by_part(layer, pair_BDHW)
    torch.testing.assert_close(ours_BDHW, theirs_BDHW, atol=1e-5, rtol=1e-5)


def _attention_part_by_part(layer: stanet.RegionAttention, pair_BDHW: Tensor) -> Tensor:
    """The definition: for each part, one softmax over the part's pixels of both dates."""
    query, key, value = layer.query(pair_BDHW), layer.key(pair_BDHW), layer.value(pair_BDHW)
    height, width = pair_BDHW.shape[-2], pair_BDHW.shape[-1] // 2
    rows_px, columns_px = height // layer.parts, width // layer.parts
    result = torch.zeros_like(value)
    for top in range(0, height, rows_px):
        for left in range(0, width, columns_px):
            inside = torch.zeros(height, 2 * width, dtype=torch.bool)
            for start in (left, width + left):
                inside[top : top + rows_px, start : start + columns_px] = True
            weights = (query[..., inside].transpose(1, 2) @ key[..., inside] * 2**-0.5).softmax(dim=-1)
            result[..., inside] = value[..., inside] @ weights.transpose(1, 2)
    return result


def test_stanets_last_stage_has_three_blocks_that_look_1_2_and_4_px_far() -> None:
    net = stanet.build_stanet(pretrained=False)
    blocks = [*net.encoder.net.layer4, net.last_block]
    assert [block.conv1.dilation for block in blocks] == [(1, 1), (2, 2), (4, 4)]
    assert [block.conv2.dilation for block in blocks] == [(1, 1)] * 3
    assert sum(p.numel() for p in stanet.build_stanet(pretrained=False, attention="bam").parameters()) == 16_897_040


# ---------------------------------------------------------------------------------------- SNUNet
def test_snunet_computes_the_deepest_level_of_date_2_alone() -> None:
    net, ran = snunet.build_snunet(width=4), []
    for row, level in enumerate(net.levels):
        level.register_forward_hook(lambda *_, row=row: ran.append(row))
    net(*images())
    assert ran == [0, 1, 2, 3, 0, 1, 2, 3, 4]
    assert len(snunet.build_snunet().state_dict()) == 236  # tensors of the public code's network


# ---------------------------------------------------------------------------------------- BIT
def test_bit_scales_by_the_tokens_channels_and_its_third_stage_is_not_dilated() -> None:
    with torch.device("meta"):
        net = bit.build_bit(pretrained=False)
        assert (
            sum(p.numel() for p in bit.build_bit(pretrained=False, head_channels_decoder=8).parameters()) == 3_037_026
        )
    assert all(layer.scale == 32**-0.5 for layer in [net.head.encode, *net.head.decode]) and len(net.head.decode) == 8
    assert {m.dilation for m in net.encoder.modules() if isinstance(m, nn.Conv2d)} == {(1, 1)}
    assert not any("layer4" in key or "fc" in key for key in net.state_dict())


def test_bits_tokens_are_weighted_means_over_pixels() -> None:
    torch.manual_seed(0)
    head = bit.BITHead(6, channels=8, tokens=3, decoder_depth=1, head_channels=4, classes=2)
    map_BDHW = torch.randn(2, 8, 5, 7)
    tokens_BTD = head._extract_tokens(map_BDHW)
    weights_BTHW = head.look(map_BDHW).flatten(2).softmax(dim=-1).reshape(2, 3, 5, 7)
    expected_BTD = (weights_BTHW[:, :, None] * map_BDHW[:, None]).sum(dim=(-2, -1))
    torch.testing.assert_close(tokens_BTD, expected_BTD)


def test_bits_attention_is_softmax_attention() -> None:
    torch.manual_seed(0)
    layer, asking_BND, asked_BMD = bit.TokenAttention(8, head_channels=5), torch.randn(2, 7, 8), torch.randn(2, 3, 8)
    query, key, value = layer.query(layer.norm(asking_BND)), layer.key(layer.norm(asked_BMD)), layer.value(layer.norm(asked_BMD))  # fmt: skip # noqa: E501
    heads = []
    for head in range(8):
        own = slice(5 * head, 5 * head + 5)
        weights_BNM = (query[..., own] @ key[..., own].transpose(1, 2) * 8**-0.5).softmax(dim=-1)
        heads.append(weights_BNM @ value[..., own])
    told_BND = asking_BND + layer.out(torch.cat(heads, dim=-1))
    torch.testing.assert_close(layer(asking_BND, asked_BMD), told_BND + layer.mlp(told_BND), atol=1e-5, rtol=1e-5)


# ---------------------------------------------------------------------------------------- ChangeFormer and its encoder
def test_changeformer_predicts_at_five_sizes() -> None:
    net = tiny("changeformer")
    out = net(*images(height=256, width=256, batch=1))
    assert [one.shape[-1] for one in out.auxiliary_BKHW] == [8, 16, 32, 64] and out.change_BKHW.shape[-1] == 256
    out = net(*images(height=70, width=97))  # what lies over the image alone, of 96 x 128
    assert [tuple(one.shape[-2:]) for one in out.auxiliary_BKHW] == [(3, 4), (5, 7), (9, 13), (18, 25)]


def test_changeformer_takes_a_backbone_of_timm() -> None:
    net = tiny("changeformer", backbone="test_resnet").eval()
    out = net(*images(height=65, width=97))
    assert out.change_BKHW.shape == (2, 2, 65, 97)
    assert [tuple(one.shape[-2:]) for one in out.auxiliary_BKHW] == [(3, 4), (5, 7), (9, 13), (17, 25)]


def test_changeformers_sizes_are_the_published_ones() -> None:
    with torch.device("meta"):
        net = changeformer.build_changeformer()
    assert sum(p.numel() for p in net.encoder.parameters()) == 28_937_408
    assert [len(stage.blocks) for stage in net.encoder.stages] == [3, 3, 4, 3]
    assert [stage.patches.kernel_size for stage in net.encoder.stages] == [(7, 7)] * 4
    drops = [block.drop_path.drop_prob for stage in net.encoder.stages for block in stage.blocks]
    assert drops[0] == 0 and drops[-1] == pytest.approx(0.1) and drops == sorted(drops)


def test_the_transformer_encoder_is_segformers() -> None:
    transformers = pytest.importorskip("transformers", reason="transformers is not installed (semicdvl[vlm])")
    torch.manual_seed(0)
    widths, depths, heads = (8, 16, 24, 32), (1, 2, 1, 1), (1, 2, 3, 4)
    config = transformers.SegformerConfig(hidden_sizes=widths, depths=depths, num_attention_heads=heads)
    theirs = transformers.SegformerModel(config).eval()
    for key, norm in theirs.named_modules():  # ours are 1e-6 in blocks, as in SegFormer's own code
        if isinstance(norm, nn.LayerNorm) and "patch" not in key and "reduction" not in key:
            norm.eps = 1e-6
    ours = MiT(MiTConfig(widths=widths, depths=depths, heads=heads)).eval()
    ours.load_state_dict({name: _of_segformer(name, theirs.state_dict()) for name in ours.state_dict()})
    with torch.no_grad():
        found = ours(images()[0])
        expected = theirs(images()[0], output_hidden_states=True).hidden_states
    for one, other in zip(found, expected[-4:], strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


SEGFORMER_NAMES = {
    "patches.": "patch_embeddings.proj.",
    "patches_norm.": "patch_embeddings.layer_norm.",
    "norm_1.": "layernorm_before.",
    "norm_2.": "layernorm_after.",
    "attention.query.": "attention.q_proj.",
    "attention.out.": "attention.o_proj.",
    "attention.reduce.": "attention.sequence_reduction.sequence_reduction.",
    "attention.norm.": "attention.sequence_reduction.layer_norm.",
    "mlp.first.": "mlp.fc1.",
    "mlp.second.": "mlp.fc2.",
    "mlp.depthwise.": "mlp.dwconv.dwconv.",
}


def _of_segformer(name: str, state: dict[str, Tensor]) -> Tensor:
    """Return the tensor that our name means in the transformers library."""
    if ".keys_values." in name:
        before, _, kind = name.partition("keys_values.")
        return torch.cat([state[f"{before}{part}_proj.{kind}"] for part in "kv"])
    for ours, theirs in SEGFORMER_NAMES.items():
        if f".{ours}" in name:
            return state[name.replace(f".{ours}", f".{theirs}")]
    return state[name.replace(".norm.", ".layer_norm.")]


@pytest.mark.parametrize("name", ["psp", "cct"])
def test_pyramid_pooling_can_read_an_earlier_stage(name: str) -> None:
    part = {"name": name, "backbone": "resnet18", "decoder_channels": 8, "output_stride": 32}
    whole, three = (build_untrained_network(part | {"stages": stages}) for stages in (4, 3))
    assert whole.encoder.strides == (4, 8, 16, 32) and three.encoder.strides == (4, 8, 16)
    assert not any("layer4" in key for key in three.state_dict())
    dates = (torch.rand(2, 3, 40, 56), torch.rand(2, 3, 40, 56))
    with torch.no_grad():
        assert three.eval()(*dates, heads=frozenset({"change"})).change_BKHW.shape == (2, 2, 40, 56)
    with pytest.raises(ConfigError, match="stages must be at most 4"):
        build_untrained_network(part | {"stages": 5})
