"""SemiCD-VL's network: parameter counts, shapes, which head needs what, and the fusing trick's exactness."""

import pytest
import torch
import torch.nn.functional as F

from semicdvl.errors import ConfigError
from semicdvl.models.siam_light import OFFICIAL_PREFIXES, TRAINING_HEADS, LightDecoder, SiamLight, build_siam_light

PRESENT = (
    "change_BKHW",
    "perturbed_change_BKHW",
    "vlm_change_BKHW",
    "t1_BKHW",
    "t2_BKHW",
    "features_t1_BDHW",
    "features_t2_BDHW",
)


def small(**settings) -> SiamLight:
    torch.manual_seed(0)
    return build_siam_light(backbone="resnet18", pretrained=False, decoder_channels=8, **settings)


def images(seed: int = 0, batch: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    t1_BCHW, t2_BCHW = torch.randn(2, batch, 3, 64, 96, generator=generator)
    return t1_BCHW, t2_BCHW


def count(net: torch.nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


def test_parameters_of_the_published_network():
    net = build_siam_light(pretrained=False)
    assert count(net) == 26_128_838
    assert count(net.encoder) == 23_631_808
    assert count(net.change_decoder) == 1_248_772
    assert len(net.state_dict()) == 396
    keys = set(net.state_dict())
    assert count(net.drop_train_heads()) == 24_880_066
    inference = build_siam_light(pretrained=False, train_heads=False)
    assert count(inference) == 24_880_066
    assert set(inference.state_dict()) == set(net.state_dict()) < keys


def test_every_tensor_has_one_public_name():
    def public(key: str) -> str:
        ours, theirs = next((o, t) for o, t in OFFICIAL_PREFIXES.items() if key.startswith(o))
        return theirs + key.removeprefix(ours)

    net = build_siam_light(backbone="resnet50s", pretrained=False, decoder_channels=8)
    names = {public(key) for key in net.state_dict()}
    assert len(names) == 396
    assert {
        "backbone.conv1.0.weight",
        "backbone.layer4.2.bn3.running_var",
        "decode_head.convs.3.conv.weight",
        "decode_head.convs.0.bn.num_batches_tracked",
        "decode_head.fusion_conv.conv.weight",
        "decode_head.conv_seg.bias",
        "decode_head.conv_seg_for_vl.weight",
        "auxiliary_seg_head.fusion_conv.bn.bias",
        "auxiliary_seg_head.conv_seg.weight",
    } <= names


def test_shapes_of_all_outputs():
    out = small()(*images())
    for logits in (out.change_BKHW, out.vlm_change_BKHW, out.t1_BKHW, out.t2_BKHW):
        assert logits is not None and logits.shape == (2, 2, 64, 96)
    for features in (out.features_t1_BDHW, out.features_t2_BDHW):
        assert features is not None and features.shape == (2, 8, 16, 24)


@pytest.mark.parametrize("size", [(65, 97), (33, 160)])
def test_odd_sizes(size):
    out = small().eval()(torch.randn(1, 3, *size), torch.randn(1, 3, *size))
    assert out.change_BKHW.shape == (1, 2, *size)


@pytest.mark.parametrize("wanted", [(), ("vlm_change",), ("segmentation",), ("features",), TRAINING_HEADS])
def test_only_what_is_wanted_is_computed(wanted):
    net, run = small(), []
    for name in ("change_decoder.classify_vlm", "segmentation_decoder", "segmentation_decoder.classify"):
        net.get_submodule(name).register_forward_hook(lambda *_, name=name: run.append(name))
    out = net(*images(), heads=frozenset(wanted))
    assert (out.vlm_change_BKHW is not None) == ("vlm_change" in wanted) == ("change_decoder.classify_vlm" in run)
    assert (out.t1_BKHW is not None) == (out.t2_BKHW is not None) == ("segmentation" in wanted)
    assert run.count("segmentation_decoder.classify") == 2 * ("segmentation" in wanted)
    assert (out.features_t1_BDHW is not None) == (out.features_t2_BDHW is not None) == ("features" in wanted)
    assert run.count("segmentation_decoder") == 2 * bool({"segmentation", "features"} & set(wanted))


def test_inference_network_says_the_same_and_refuses_other_heads():
    net, pair = small().eval(), images()
    with torch.no_grad():
        before = net(*pair).change_BKHW
        dropped = net.drop_train_heads()
        after = dropped(*pair)
    assert dropped.heads == {"change"} and after.vlm_change_BKHW is after.t1_BKHW is after.features_t1_BDHW is None
    assert torch.equal(before, after.change_BKHW)
    with pytest.raises(ConfigError, match=r"no head \['features'\].*train_heads=True"):
        dropped(*pair, heads=frozenset({"change", "features"}))


def test_eval_is_deterministic_and_symmetric_in_time():
    net, (t1_BCHW, t2_BCHW) = small().eval(), images()
    with torch.no_grad():
        first, again, swapped = net(t1_BCHW, t2_BCHW), net(t1_BCHW, t2_BCHW), net(t2_BCHW, t1_BCHW)
    for name in PRESENT:
        assert torch.equal(getattr(first, name), getattr(again, name))
    assert torch.equal(first.change_BKHW, swapped.change_BKHW)  # |f1 - f2| = |f2 - f1|
    torch.testing.assert_close(first.t1_BKHW, swapped.t2_BKHW)


def test_training_pass_does_not_draw_random_numbers():
    net, pair = small(), images()
    state = torch.get_rng_state()
    net(*pair, heads=TRAINING_HEADS - {"perturbed", "complementary"})
    assert torch.equal(state, torch.get_rng_state())
    net(*pair, heads=frozenset({"perturbed"}))
    assert not torch.equal(state, torch.get_rng_state())


def test_state_round_trip():
    net, pair = small(), images()
    net(*pair)  # moves the batch-norm statistics
    torch.manual_seed(9)
    other = build_siam_light(backbone="resnet18", pretrained=False, decoder_channels=8)
    other.load_state_dict(net.state_dict())
    with torch.no_grad():
        ours, theirs = net.eval()(*pair), other.eval()(*pair)
    for name in PRESENT:
        assert torch.equal(getattr(ours, name), getattr(theirs, name))


def concatenating(decoder: LightDecoder, maps: list[torch.Tensor]) -> torch.Tensor:
    """The decoder as it is drawn: resize everything, concatenate, fuse."""
    resized = [
        F.interpolate(conv(m), size=maps[0].shape[-2:], mode="bilinear", align_corners=False)
        for conv, m in zip(decoder.convs, maps, strict=True)
    ]
    return decoder.fusion_conv(torch.cat(resized, dim=1))


@pytest.mark.parametrize("training", [True, False])
def test_fusing_before_resizing_is_exact(training):
    torch.manual_seed(3)
    decoder = LightDecoder((5, 6, 7, 9), channels=8, classes=2).train(training)
    for bn in (m for m in decoder.modules() if isinstance(m, torch.nn.BatchNorm2d)):
        torch.nn.init.normal_(bn.weight, mean=1)
        torch.nn.init.normal_(bn.bias)
    sizes = {5: (16, 24), 6: (8, 12), 7: (4, 6), 9: (4, 6)}
    maps = [torch.randn(2, channels, *size) for channels, size in sizes.items()]
    plain_BDHW = concatenating(decoder, maps)
    grads = torch.autograd.grad(plain_BDHW.square().sum(), decoder.fusion_conv.conv.weight)
    ours_BDHW = decoder(maps)
    torch.testing.assert_close(ours_BDHW, plain_BDHW, atol=2e-5, rtol=1e-5)
    our_grads = torch.autograd.grad(ours_BDHW.square().sum(), decoder.fusion_conv.conv.weight)
    torch.testing.assert_close(our_grads, grads, atol=1e-2, rtol=1e-4)


def test_first_weights_are_those_of_the_public_code():
    net = build_siam_light(backbone="resnet18", pretrained=False, decoder_channels=256)
    for classify in (net.change_decoder.classify, net.segmentation_decoder.classify):
        assert classify.weight.std().item() == pytest.approx(0.01, rel=0.15)
        assert not classify.bias.any()
    vlm = net.change_decoder.classify_vlm
    assert vlm.weight.abs().max().item() <= 256**-0.5 and vlm.weight.std().item() == pytest.approx(
        256**-0.5 / 3**0.5, rel=0.1
    )
    assert vlm.bias.any()
    fusing = net.change_decoder.fusion_conv.conv.weight
    assert fusing.std().item() == pytest.approx((2 / 256) ** 0.5, rel=0.02)


def test_bfloat16_autocast_gives_float32_logits():
    with torch.autocast("cpu", torch.bfloat16):
        out = small()(*images())
    assert out.change_BKHW.dtype == torch.float32 and out.change_BKHW.isfinite().all()


def test_pretrained_takes_truth_values_names_and_files(tmp_path):
    with pytest.raises(Exception, match="is no weights file"):
        build_siam_light(backbone="resnet18", pretrained=tmp_path / "none.safetensors")
    assert build_siam_light(backbone="resnet18", pretrained="none").heads == TRAINING_HEADS
