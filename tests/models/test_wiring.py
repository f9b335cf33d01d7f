"""Whole networks against their definition, written out a second time: torch's functions on the weights, layer by layer.

Parameter counts say which layers there are; these tests say in which order, from which date and at which size they are
used. The backbones are taken as they are: `test_encoders.py` is about them.
"""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F
from tests.support.tiny_models import tiny
from torch import Tensor, nn

from semicdvl.models import ban, changeformer, snunet


@dataclass(frozen=True)
class Weights:
    """A network's tensors by name, and the layers that can be made of them; batch norm by its running statistics."""

    state: dict[str, Tensor]

    def conv(self, name: str, map_BDHW: Tensor, *, padding: int = 0, dilation: int = 1) -> Tensor:
        weight, bias = self.state[f"{name}.weight"], self.state.get(f"{name}.bias")
        return F.conv2d(map_BDHW, weight, bias, padding=padding, dilation=dilation)

    def transposed(self, name: str, map_BDHW: Tensor, **geometry: int) -> Tensor:
        return F.conv_transpose2d(map_BDHW, self.state[f"{name}.weight"], self.state[f"{name}.bias"], **geometry)

    def norm(self, name: str, map_BDHW: Tensor) -> Tensor:
        mean, variance, weight, bias = (
            self.state[f"{name}.{kind}"] for kind in ("running_mean", "running_var", "weight", "bias")
        )
        return F.batch_norm(map_BDHW, mean, variance, weight, bias)

    def unit(self, name: str, map_BDHW: Tensor, *, dilation: int = 1) -> Tensor:
        """Convolution that keeps the size, batch norm, ReLU."""
        padding = dilation * (self.state[f"{name}.conv.weight"].shape[-1] // 2)
        return F.relu(self.norm(f"{name}.bn", self.conv(f"{name}.conv", map_BDHW, padding=padding, dilation=dilation)))


def lively(name: str, **settings) -> tuple[nn.Module, Weights]:
    """A network in eval mode whose batch norms all do something, and its weights."""
    net = tiny(name, **settings).eval()
    for norm in (m for m in net.modules() if isinstance(m, nn.BatchNorm2d)):
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.normal_(norm.bias, std=0.3)
        norm.running_mean.normal_(std=0.3)
        norm.running_var.uniform_(0.5, 1.5)
    return net, Weights(net.state_dict())


def images(*, height: int = 32, width: int = 48) -> tuple[Tensor, Tensor]:
    t1_BCHW, t2_BCHW = torch.randn(2, 2, 3, height, width, generator=torch.Generator().manual_seed(1))
    return t1_BCHW, t2_BCHW


def resized(map_BDHW: Tensor, size, *, corners: bool) -> Tensor:
    return F.interpolate(map_BDHW, size=tuple(size), mode="bilinear", align_corners=corners)


def same(net: nn.Module, logits_BKHW: Tensor, *pair: Tensor) -> None:
    """The network says what the definition says, and it says something."""
    found_BKHW = net(*pair, heads=frozenset({"change"})).change_BKHW
    assert found_BKHW.std() > 0.01
    torch.testing.assert_close(found_BKHW, logits_BKHW, atol=1e-4, rtol=1e-4)


# ---------------------------------------------------------------------------------------- UniMatch's two networks
@torch.no_grad()
def test_deeplab() -> None:
    (net, w), pair = lively("deeplab"), images()
    first, second = (net.encoder(image_BCHW) for image_BCHW in pair)
    low_BDHW, deep_BDHW = (first[0] - second[0]).abs(), (first[-1] - second[-1]).abs()
    seen = [w.unit("aspp.branches.0", deep_BDHW)]
    seen += [w.unit(f"aspp.branches.{at}", deep_BDHW, dilation=rate) for at, rate in ((1, 6), (2, 12), (3, 18))]
    pooled_BD11 = w.unit("aspp.pooled", deep_BDHW.mean(dim=(2, 3), keepdim=True))
    seen.append(pooled_BD11.expand_as(seen[0]))
    far_BDHW = resized(w.unit("aspp.project", torch.cat(seen, dim=1)), low_BDHW.shape[-2:], corners=True)
    fused_BDHW = torch.cat([far_BDHW, w.unit("low", low_BDHW)], dim=1)
    assert w.state["low.conv.weight"].shape[0] == 48
    fused_BDHW = w.unit("fuse.1", w.unit("fuse.0", fused_BDHW))
    same(net, resized(w.conv("classify", fused_BDHW), (32, 48), corners=True), *pair)


def pyramid(w: Weights, difference_BDHW: Tensor) -> Tensor:
    size, seen = difference_BDHW.shape[-2:], [difference_BDHW]
    for at, bins in enumerate((1, 2, 3, 6)):
        mean_BDHW = w.unit(f"pooling.means.{at}", F.adaptive_avg_pool2d(difference_BDHW, bins))
        seen.append(resized(mean_BDHW, size, corners=True))
    return w.unit("pooling.bottleneck", torch.cat(seen, dim=1))


@torch.no_grad()
def test_psp() -> None:
    (net, w), pair = lively("psp"), images()
    first, second = (net.encoder(image_BCHW)[-1] for image_BCHW in pair)
    logits_BKHW = w.conv("classify", pyramid(w, (first - second).abs()))
    same(net, resized(logits_BKHW, (32, 48), corners=True), *pair)
    assert net.dropout.p == 0.1


@torch.no_grad()
def test_cct() -> None:
    """The published order: first resized, then classified."""
    (net, w), pair = lively("cct"), images()
    first, second = (net.encoder(image_BCHW)[-1] for image_BCHW in pair)
    hidden_BDHW = F.relu(w.conv("decoder.conv", pyramid(w, (first - second).abs()), padding=1))
    assert hidden_BDHW.shape[1] == 32 and "decoder.conv.bias" not in w.state
    same(net, w.conv("decoder.classify", resized(hidden_BDHW, (32, 48), corners=False)), *pair)


# ---------------------------------------------------------------------------------------- FC-EF and its Siamese kin
@pytest.mark.parametrize("name", ["fc_ef", "fc_siam_diff", "fc_siam_conc"])
@torch.no_grad()
def test_fc(name: str) -> None:
    (net, w), pair = lively(name), images()
    maps, skips = [torch.cat(pair, dim=1)] if name == "fc_ef" else list(pair), []
    for level, convs in enumerate((2, 2, 3, 3)):
        for at in range(convs):
            maps = [w.unit(f"levels.{level}.{at}", one) for one in maps]
        skips.append((maps[0] - maps[1]).abs() if name == "fc_siam_diff" else torch.cat(maps, dim=1))
        maps = [F.max_pool2d(one, 2) for one in maps]
    map_BDHW = maps[-1]  # of both dates at once, or of date 2

    def back(layer: str) -> Tensor:
        kept_BDHW = w.transposed(f"{layer}.conv", map_BDHW, padding=1)
        return F.relu(w.norm(f"{layer}.bn", kept_BDHW))

    for level, chain in ((3, "back.2"), (2, "back.1"), (1, "back.0"), (0, "last")):
        larger_BDHW = w.transposed(f"ups.{level}", map_BDHW, stride=2, padding=1, output_padding=1)
        map_BDHW = torch.cat([larger_BDHW, skips[level]], dim=1)
        for at in range({3: 3, 2: 3, 1: 2, 0: 1}[level]):
            map_BDHW = back(f"{chain}.{at}")
    same(net, w.transposed("classify", map_BDHW, padding=1), *pair)


# ---------------------------------------------------------------------------------------- SNUNet
@torch.no_grad()
def test_snunet() -> None:
    """Both dates in every skip, date 2 alone from below; then the ensemble channel attention."""
    (net, w), pair = lively("snunet"), images()

    def block(name: str, *maps: Tensor) -> Tensor:
        kept_BDHW = w.conv(f"{name}.first", torch.cat(maps, dim=1), padding=1)
        deeper_BDHW = w.conv(f"{name}.second", F.relu(w.norm(f"{name}.first_norm", kept_BDHW)), padding=1)
        return F.relu(w.norm(f"{name}.second_norm", deeper_BDHW) + kept_BDHW)

    def node(name: str, *before: Tensor, below: Tensor) -> Tensor:
        return block(f"nodes.{name}", *before, w.transposed(f"ups.{name}", below, stride=2))

    a, b = ([block("levels.0", image_BCHW)] for image_BCHW in pair)
    for row in range(1, 5):
        a.append(block(f"levels.{row}", F.max_pool2d(a[-1], 2)))
        b.append(block(f"levels.{row}", F.max_pool2d(b[-1], 2)))
    x01, x11, x21, x31 = (node(f"{row}_1", a[row], b[row], below=b[row + 1]) for row in range(4))
    x02 = node("0_2", a[0], b[0], x01, below=x11)
    x12 = node("1_2", a[1], b[1], x11, below=x21)
    x22 = node("2_2", a[2], b[2], x21, below=x31)
    x03 = node("0_3", a[0], b[0], x01, x02, below=x12)
    x13 = node("1_3", a[1], b[1], x11, x12, below=x22)
    x04 = node("0_4", a[0], b[0], x01, x02, x03, below=x13)

    def attention(name: str, map_BDHW: Tensor) -> Tensor:
        pooled = map_BDHW.mean(dim=(2, 3), keepdim=True), map_BDHW.amax(dim=(2, 3), keepdim=True)
        said = [w.conv(f"{name}.layers.2", F.relu(w.conv(f"{name}.layers.0", one))) for one in pooled]
        return (said[0] + said[1]).sigmoid()

    all_BDHW, total_BDHW = torch.cat([x01, x02, x03, x04], dim=1), x01 + x02 + x03 + x04
    by_sum_BD11 = torch.cat(4 * [attention("attend_sum", total_BDHW)], dim=1)
    attended_BDHW = attention("attend_all", all_BDHW) * (all_BDHW + by_sum_BD11)
    same(net, w.conv("classify", attended_BDHW), *pair)


def test_snunets_attention_has_the_published_size() -> None:
    """Without it there are four 1x1 layers 32 -> 2 and one 8 -> 2 in place of one 128 -> 2: 12,032,442 in all."""
    with torch.device("meta"):
        net = snunet.build_snunet()
    attention = sum(p.numel() for part in (net.attend_all, net.attend_sum) for p in part.parameters())
    last, others = 128 * 2 + 2, 4 * (32 * 2 + 2) + (8 * 2 + 2)
    assert sum(p.numel() for p in net.parameters()) - attention - last + others == 12_032_442


# ---------------------------------------------------------------------------------------- STANet
@pytest.mark.parametrize("attention", ["pam", "bam"])
@torch.no_grad()
def test_stanet(attention: str) -> None:
    """Features, attention over both dates beside each other along W, distance over channels; sides are 64 and 96 px."""
    (net, w), pair = lively("stanet", attention=attention), images(height=64, width=96)
    for layer in (m for m in net.attention.modules() if isinstance(m, nn.Conv2d)):
        nn.init.normal_(layer.weight, std=1.0)  # from N(0, 0.02) all pixels are alike

    def features(image_BCHW: Tensor) -> Tensor:
        maps = net.encoder(image_BCHW)
        maps[-1] = net.last_block(maps[-1])
        seen = [resized(w.unit(f"stages.{at}", one), (16, 24), corners=True) for at, one in enumerate(maps)]
        return w.unit("fuse.2", w.unit("fuse.0", torch.cat(seen, dim=1)))

    both_BDHW = torch.cat([features(image_BCHW) for image_BCHW in pair], dim=3)
    if attention == "bam":
        query, key, value = (
            w.conv(f"attention.attention.{name}", both_BDHW).flatten(2) for name in ("query.0", "key.0", "value")
        )
        weights_BNM = (query.transpose(1, 2) @ key * query.shape[1] ** -0.5).softmax(dim=-1)
        told_BDHW = both_BDHW + (value @ weights_BNM.transpose(1, 2)).unflatten(2, (16, 48))
    else:  # each scale is tested by itself; here: four of them, side by side, no residual
        scales = [net.attention.scales[at](both_BDHW) for at in range(4)]
        assert [scale.parts for scale in net.attention.scales] == [1, 2, 4, 8]
        told_BDHW = w.conv("attention.fuse", torch.cat(scales, dim=1))
    one_BDHW, other_BDHW = told_BDHW[..., :24], told_BDHW[..., 24:]
    distance_BHW = ((one_BDHW - other_BDHW) ** 2).sum(dim=1).sqrt()
    whole_BHW = resized(distance_BHW[:, None], (64, 96), corners=True)[:, 0]
    found = net(*pair)
    assert whole_BHW.std() > 1e-4
    torch.testing.assert_close(found.distance_BHW, whole_BHW, atol=1e-5, rtol=1e-4)
    margin_BHW = found.change_BKHW[:, 1] - found.change_BKHW[:, 0]
    torch.testing.assert_close(margin_BHW, 4 * (whole_BHW - 1), atol=1e-4, rtol=1e-4)


# ---------------------------------------------------------------------------------------- BIT
@torch.no_grad()
def test_bit() -> None:
    """Tokens of both dates meet in the encoder; each pixel then asks the tokens of its own date alone."""
    (net, w), pair = lively("bit"), images()
    head, maps, tokens = net.head, [], []
    for image_BCHW in pair:
        deep_BDHW = net.encoder(image_BCHW)[-1].repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
        map_BDHW = w.conv("head.reduce", deep_BDHW, padding=1)
        weights_BTN = w.conv("head.look", map_BDHW).flatten(2).softmax(dim=-1)
        maps.append(map_BDHW)
        tokens.append(torch.einsum("btn,bdn->btd", weights_BTN, map_BDHW.flatten(2)))
    assert [one.shape[1] for one in tokens] == [4, 4]
    all_BTD = torch.cat(tokens, dim=1) + w.state["head.places"]
    all_BTD = head.encode(all_BTD, all_BTD)
    told = []
    for map_BDHW, own_BTD in zip(maps, (all_BTD[:, :4], all_BTD[:, 4:]), strict=True):
        pixels_BND = map_BDHW.flatten(2).transpose(1, 2)
        for layer in head.decode:
            pixels_BND = layer(pixels_BND, own_BTD)
        told.append(pixels_BND.transpose(1, 2).unflatten(2, map_BDHW.shape[-2:]))
    difference_BDHW = resized((told[0] - told[1]).abs(), (32, 48), corners=False)
    same(net, w.conv("head.classify.1", w.unit("head.classify.0", difference_BDHW), padding=1), *pair)


# ---------------------------------------------------------------------------------------- ChangeFormer
@torch.no_grad()
def test_changeformer() -> None:
    (net, w), pair = lively("changeformer"), images(height=64, width=96)
    first, second = (net.encoder(image_BCHW) for image_BCHW in pair)
    found: list[Tensor] = []
    for stage in (3, 2, 1, 0):  # coarse to fine
        both_BDHW = torch.cat([w.conv(f"linears.{stage}", maps[stage]) for maps in (first, second)], dim=1)
        name = f"differences.{stage}.layers"
        hidden_BDHW = w.norm(f"{name}.2", F.relu(w.conv(f"{name}.0", both_BDHW, padding=1)))
        map_BDHW = F.relu(w.conv(f"{name}.3", hidden_BDHW, padding=1))
        found.append(map_BDHW + (resized(found[-1], map_BDHW.shape[-2:], corners=False) if found else 0))
    auxiliary = net(*pair).auxiliary_BKHW
    for at, map_BDHW in enumerate(found):
        hidden_BKHW = w.norm(f"predict.{at}.2", F.relu(w.conv(f"predict.{at}.0", map_BDHW, padding=1)))
        torch.testing.assert_close(auxiliary[at], w.conv(f"predict.{at}.3", hidden_BKHW, padding=1))
    finest_BDHW = torch.cat([resized(one, (16, 24), corners=False) for one in found], dim=1)
    map_BDHW = w.norm("fuse.1", w.conv("fuse.0", finest_BDHW))
    for up, residual in ((0, 1), (2, 3)):
        map_BDHW = w.transposed(f"enlarge.{up}", map_BDHW, stride=2, padding=1)
        name = f"enlarge.{residual}.layers"
        hidden_BDHW = F.relu(w.conv(f"{name}.0", map_BDHW, padding=1))
        map_BDHW = map_BDHW + 0.1 * w.conv(f"{name}.2", hidden_BDHW, padding=1)
    same(net, w.conv("classify", map_BDHW, padding=1), *pair)


def test_changeformer_with_a_narrow_decoder_has_the_published_size() -> None:
    with torch.device("meta"):
        net = changeformer.build_changeformer(decoder_channels=64)
    assert sum(p.numel() for p in net.parameters()) == pytest.approx(29.75e6, rel=2e-4)  # known to four digits


# ---------------------------------------------------------------------------------------- BAN
def test_bans_frozen_part_is_18_of_24_blocks_and_the_rest_is_trained() -> None:
    """Counted by hand: CLIP ViT-L/14 at 336 px, 1024 wide, MLP of 4096."""
    with torch.device("meta"):
        net = ban.build_ban(pretrained=False)
    block = (4 * 1024**2 + 4 * 1024) + (2 * 1024 * 4096 + 4096 + 1024) + 4 * 1024  # attention, MLP, two layer norms
    first = 3 * 14**2 * 1024 + 1024 + (24**2 + 1) * 1024 + 2 * 1024  # patches, class token, places, layer norm
    frozen = sum(p.numel() for p in net.parameters() if not p.requires_grad)
    assert frozen == 18 * block + first == sum(p.numel() for p in net.foundation.parameters())
    trained = {name: p.numel() for name, p in net.named_parameters() if p.requires_grad}
    assert sum(trained.values()) == 16_979_814
    assert {name.partition(".")[0] for name in trained} == {"encoder", "bridges", "head"}


@torch.no_grad()
def test_bans_bridge() -> None:
    """x + attention(x to the foundation's map), + MLP, + the foundation's map enlarged."""
    torch.manual_seed(0)
    bridge = ban.Bridge(10, 8, heads=2).eval()
    own_BDHW, other_BDHW = torch.randn(2, 8, 6, 7), torch.randn(2, 10, 3, 4)
    w = Weights(bridge.state_dict())

    def normed(name: str, tokens_BND: Tensor) -> Tensor:
        return F.layer_norm(tokens_BND, tokens_BND.shape[-1:], w.state[f"{name}.weight"], w.state[f"{name}.bias"])

    def linear(name: str, tokens_BND: Tensor) -> Tensor:
        return F.linear(tokens_BND, w.state[f"{name}.weight"], w.state[f"{name}.bias"])

    told_BND = own_BDHW.flatten(2).transpose(1, 2)
    other_BMD = linear("reduce", normed("foundation_norm", other_BDHW.flatten(2).transpose(1, 2)))
    into, bias = w.state["attention.in_proj_weight"].chunk(3), w.state["attention.in_proj_bias"].chunk(3)
    asked = normed("norm_1", told_BND), other_BMD, other_BMD
    query, key, value = (F.linear(one, *layer) for one, layer in zip(asked, zip(into, bias, strict=True), strict=True))
    heads = []
    for own in (slice(0, 4), slice(4, 8)):
        weights_BNM = (query[..., own] @ key[..., own].transpose(1, 2) / 4**0.5).softmax(dim=-1)
        heads.append(weights_BNM @ value[..., own])
    told_BND = told_BND + linear("attention.out_proj", torch.cat(heads, dim=-1))
    hidden_BEHW = linear("mlp.first", normed("norm_2", told_BND)).transpose(1, 2).unflatten(2, (6, 7))
    hidden_BEHW = F.conv2d(
        hidden_BEHW, w.state["mlp.depthwise.weight"], w.state["mlp.depthwise.bias"], padding=1, groups=4
    )
    told_BND = told_BND + linear("mlp.second", F.gelu(hidden_BEHW.flatten(2).transpose(1, 2)))
    enlarged_BDHW = resized(other_BMD.transpose(1, 2).unflatten(2, (3, 4)), (6, 7), corners=False)
    expected_BDHW = told_BND.transpose(1, 2).unflatten(2, (6, 7)) + enlarged_BDHW
    torch.testing.assert_close(bridge(own_BDHW, other_BDHW), expected_BDHW, atol=1e-5, rtol=1e-4)


# ---------------------------------------------------------------------------------------- our own
@torch.no_grad()
def test_siam_unet() -> None:
    (net, w), pair = lively("siam_unet"), images()
    first, second = (net.encoder(image_BCHW) for image_BCHW in pair)
    *fine, map_BDHW = ((one - other).abs() for one, other in zip(first, second, strict=True))
    for at, fine_BDHW in enumerate(reversed(fine)):
        map_BDHW = torch.cat([resized(map_BDHW, fine_BDHW.shape[-2:], corners=False), fine_BDHW], dim=1)
        map_BDHW = w.unit(f"ups.{at}.layers.1", w.unit(f"ups.{at}.layers.0", map_BDHW))
    map_BDHW = resized(map_BDHW, (16, 24), corners=False)
    map_BDHW = w.unit("ups.3.layers.1", w.unit("ups.3.layers.0", map_BDHW))
    same(net, resized(w.conv("classify", map_BDHW, padding=1), (32, 48), corners=False), *pair)
