"""What every network owes, over the whole table."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from tests.support.tiny_models import TINY, tiny
from torch import Tensor, nn

from semicdvl import models
from semicdvl.catalog import count_parameters
from semicdvl.errors import ConfigError
from semicdvl.models import MODELS
from semicdvl.models.common.heads import models_with_heads, read_heads
from semicdvl.models.encoders.timm import build_backbone
from semicdvl.registry import resolve_builder
from semicdvl.types import HEADS, Outputs

CHANGE = frozenset({"change"})
OUTPUT_OF = {
    "change": ("change_BKHW",),
    "vlm_change": ("vlm_change_BKHW",),
    "segmentation": ("t1_BKHW", "t2_BKHW"),
    "features": ("features_t1_BDHW", "features_t2_BDHW"),
    "perturbed": ("perturbed_change_BKHW",),
    "complementary": ("change_BKHW",),
    "auxiliary": ("auxiliary_BKHW",),
    "distance": ("distance_BHW",),
}
PARAMETERS = {
    "siam_light": (26_128_838, 24_880_066),
    "deeplab": (40_471_074, 40_471_074),
    "psp": (46_706_626, 46_706_626),
    "cct": (50_688_694, 46_853_122),  # published: 50.69 M, 46.85 M
    "fc_ef": (1_350_578, 1_350_578),
    "fc_siam_diff": (1_350_146, 1_350_146),
    "fc_siam_conc": (1_545_986, 1_545_986),
    "stanet": (16_929_152, 16_929_152),
    "snunet": (12_034_978, 12_034_978),
    "bit": (3_495_778, 3_495_778),
    "changeformer": (41_026_674, 41_008_066),
    "ban": (244_907_878, 244_907_878),  # 16,979,814 of them are trained; no published number for this form
    "siam_unet": (24_411_394, 24_411_394),  # our own
    "dpt": (
        108_619_270,
        97_525_570,
    ),  # published 97,526,338 with the unused mask_token; in training with our guidance heads
}
"""In training and at inference; where nothing else is said, the published number."""

every_model = pytest.mark.parametrize("name", MODELS)


def images(*, height: int = 65, width: int = 97, batch: int = 2, seed: int = 1) -> tuple[Tensor, Tensor]:
    t1_BCHW, t2_BCHW = torch.randn(2, batch, 3, height, width, generator=torch.Generator().manual_seed(seed))
    return t1_BCHW, t2_BCHW


def awake(name: str, **settings: Any) -> nn.Module:
    """A network whose residual branches all work: timm's start with a batch-norm weight of zero."""
    net = tiny(name, **settings)
    for norm in (m for m in net.modules() if isinstance(m, nn.BatchNorm2d)):
        nn.init.ones_(norm.weight)
    return net


def tensors(out: Outputs) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for name, value in vars(out).items():
        if isinstance(value, tuple):
            found |= {f"{name}.{index}": one for index, one in enumerate(value)}
        elif value is not None:
            found[name] = value
    return found


def test_every_network_is_in_these_tests() -> None:
    assert list(MODELS) == list(TINY) == list(PARAMETERS)


@every_model
def test_parameters_as_published(name: str) -> None:
    assert count_parameters(name) == tuple(f"{count:,}" for count in PARAMETERS[name])


@every_model
def test_heads_are_those_that_the_table_says(name: str) -> None:
    assert tiny(name).heads == read_heads(resolve_builder("model", name, MODELS)) <= frozenset(HEADS)
    for head in HEADS:
        assert (name in models_with_heads(frozenset({head}))) == (head in tiny(name).heads)


@every_model
@pytest.mark.parametrize(("height", "width"), [(65, 97), (33, 130), (7, 19)])
def test_outputs_have_the_size_of_any_input(name: str, height: int, width: int) -> None:
    net = tiny(name).eval()
    if min(height, width) < getattr(net, "patch_px", 0):
        pytest.skip("a transformer takes no image that is smaller than its patch; test_dpt.py")
    with torch.no_grad():
        out = net(*images(height=height, width=width))
    promised = {output for head in net.heads for output in OUTPUT_OF[head]}
    assert {name for name, value in vars(out).items() if value is not None} == promised
    for output, value in tensors(out).items():
        assert value.dtype == torch.float32 and value.isfinite().all(), output
        if output.startswith(("change", "vlm_change", "t1", "t2", "perturbed")):
            assert value.shape == (2, 2, height, width), output
        elif output.startswith("auxiliary"):
            assert value.shape[:2] == (2, 2), output
        elif output == "distance_BHW":
            assert value.shape == (2, height, width)


@every_model
@pytest.mark.parametrize("training", [False, True])
def test_a_batch_of_one(name: str, training: bool) -> None:
    out = tiny(name).train(training)(*images(batch=1))
    for output, value in tensors(out).items():
        assert len(value) == 1 and value.isfinite().all(), output


@every_model
def test_a_pair_in_eval_mode_does_not_depend_on_its_neighbours(name: str) -> None:
    net, (t1_BCHW, t2_BCHW) = tiny(name).eval(), images()
    with torch.no_grad():
        both, alone = net(t1_BCHW, t2_BCHW), net(t1_BCHW[1:], t2_BCHW[1:])
    for (output, value), other in zip(
        tensors(both.select_pairs(slice(1, 2))).items(), tensors(alone).values(), strict=True
    ):
        torch.testing.assert_close(value, other, atol=2e-4, rtol=1e-3, msg=lambda text, at=output: f"{at}: {text}")


@every_model
def test_swapped_dates_give_the_same_change_where_that_is_claimed(name: str) -> None:
    net, (t1_BCHW, t2_BCHW) = awake(name), images()
    for norm in (m for m in net.modules() if isinstance(m, nn.BatchNorm2d)):
        norm.momentum = 1.0  # the statistics of these images, lest all signal vanish in an untrained network
    with torch.no_grad():
        net(t1_BCHW, t2_BCHW)
        net.eval()
        one, other = net(t1_BCHW, t2_BCHW).change_BKHW, net(t2_BCHW, t1_BCHW).change_BKHW
    assert torch.allclose(one, other, atol=1e-5, rtol=1e-4) == net.symmetric


@every_model
def test_eval_mode_is_deterministic_and_draws_nothing(name: str) -> None:
    net, pair = awake(name).eval(), images()
    state = torch.get_rng_state()
    with torch.no_grad():
        first, again = net(*pair), net(*pair)
    assert torch.equal(state, torch.get_rng_state())
    for (output, value), other in zip(tensors(first).items(), tensors(again).values(), strict=True):
        assert torch.equal(value, other), output


@every_model
def test_state_round_trip(name: str) -> None:
    net, pair = awake(name), images()
    with torch.no_grad():
        net(*pair)  # moves the batch-norm statistics
        other = tiny(name, seed=9)
        before = other.eval()(*pair)
        other.load_state_dict(net.state_dict())
        ours, theirs = net.eval()(*pair), other.eval()(*pair)
    assert not all(torch.equal(value, tensors(ours)[output]) for output, value in tensors(before).items())
    for (output, value), same in zip(tensors(ours).items(), tensors(theirs).values(), strict=True):
        assert torch.equal(value, same), output


@every_model
def test_every_trainable_weight_gets_a_gradient(name: str) -> None:
    net = awake(name).train()
    torch.manual_seed(2)
    sum(value.square().mean() for value in tensors(net(*images())).values()).backward()
    for key, parameter in net.named_parameters():
        if not parameter.requires_grad:
            assert parameter.grad is None, key
            continue
        assert parameter.grad is not None and parameter.grad.isfinite().all(), key
        if parameter.ndim > 1 and not key.startswith("auxiliary."):  # a mask may hide everything from one of those
            assert parameter.grad.any(), key


@every_model
def test_heads_that_are_not_read_cost_nothing(name: str) -> None:
    net, small = awake(name).train(), tiny(name)
    if hasattr(small, "drop_train_heads"):
        assert small.drop_train_heads() is small and small.heads == CHANGE
    needed = {key for key, parameter in small.named_parameters() if parameter.requires_grad}
    out = net(*images(), heads=CHANGE)
    assert list(tensors(out)) == ["change_BKHW"]
    out.change_BKHW.square().mean().backward()
    assert {key for key, parameter in net.named_parameters() if parameter.grad is not None} == needed


@every_model
def test_dropping_what_only_training_needs_leaves_change_as_it_is(name: str) -> None:
    net, pair = awake(name).eval(), images()
    if not hasattr(net, "drop_train_heads"):
        assert not {"vlm_change", "segmentation", "auxiliary"} & net.heads
        return
    with torch.no_grad():
        before = net(*pair).change_BKHW
        small = net.drop_train_heads()
        assert torch.equal(before, small(*pair).change_BKHW)
    if "train_heads" in inspect.signature(resolve_builder("model", name, MODELS)).parameters:
        tiny(name, train_heads=False).load_state_dict(small.state_dict())


@every_model
def test_bfloat16_gives_float32_logits_that_train(name: str) -> None:
    net = awake(name).train()
    with torch.autocast("cpu", torch.bfloat16):
        out = net(*images())
    for output, value in tensors(out).items():
        if not output.startswith("features"):
            assert value.dtype == torch.float32, output
        assert value.isfinite().all(), output
    out.change_BKHW.square().mean().backward()
    assert all(p.grad.isfinite().all() for p in net.parameters() if p.grad is not None)


@every_model
def test_a_head_that_it_has_not_is_refused_with_the_networks_that_have(name: str) -> None:
    net = tiny(name)
    for head in sorted(frozenset(HEADS) - net.heads):
        with pytest.raises(ConfigError, match=rf"no head \['{head}'\], only .*use a network that has") as refused:
            net(*images(), heads=frozenset({"change", head}))
        for other in models_with_heads(frozenset({head})):
            assert other in str(refused.value)


@every_model
def test_weights_from_a_file_arrive_in_the_encoder_and_stay(name: str, tmp_path: Path) -> None:
    """BIT's public code draws every weight anew after it has loaded the pretrained ones."""
    takes = inspect.signature(resolve_builder("model", name, MODELS)).parameters
    assert ("pretrained" in takes) == hasattr(tiny(name), "encoder")
    if "pretrained" not in takes:
        return
    torch.manual_seed(5)
    if name == "changeformer":
        state = tiny(name, seed=5).encoder.state_dict()
    else:
        backbone = TINY[name]["backbone"]
        net_state = build_backbone(backbone, weights="none").net.state_dict()
        state = {f"net.{key}": value for key, value in net_state.items()}
    save_file({key.removeprefix("net."): value for key, value in state.items()}, tmp_path / "weights.safetensors")
    settings: dict[str, Any] = {"foundation_weights": _saved_foundation(tmp_path)} if name == "ban" else {}
    net = tiny(name, pretrained=tmp_path / "weights.safetensors", **settings)
    own = net.encoder.state_dict()
    assert own and all(torch.equal(value, state[key]) for key, value in own.items())


def _saved_foundation(folder: Path) -> Path:
    path = folder / "foundation.safetensors"
    save_file(build_backbone("test_vit", weights="none").net.state_dict(), path)
    return path


@pytest.mark.parametrize(
    ("name", "settings", "words"),
    [
        ("deeplab", {"decoder_channels": 0}, "decoder_channels must be 1 or more, got 0"),
        ("fc_ef", {"width": 0}, "width must be 1 or more, got 0"),
        ("fc_siam_diff", {"dropout": 1.0}, r"dropout must be at least 0 and below 1, got 1\.0"),
        ("stanet", {"attention": "pan"}, r"attention has no choice 'pan'\. Did you mean 'pam'"),
        ("siam_unet", {"fusion": "differences"}, r"fusion has no choice 'differences'\. Did you mean 'difference'"),
        ("changeformer", {"widths": (8, 16, 24)}, r"widths must be four multiples of .* got \(8, 16, 24\)"),
        ("changeformer", {"pretrained": True}, "no ImageNet weights of 'changeformer_v6'"),
        ("ban", {"backbone": "mit_b0", "pretrained": True, "foundation_weights": "none"}, "weights of 'mit_b0'"),
        ("ban", {"backbone": "swin_tiny_patch4_window7_224"}, "cannot be bridged stage by stage"),
        ("ban", {"foundation": "test_resnet"}, "no plain vision transformer"),
        ("ban", {"foundation": "no/such/folder"}, "cannot be loaded as a vision transformer"),
        ("snunet", {"classes": 0}, "classes must be 1 or more, got 0"),
        ("bit", {"tokens": 0}, "tokens must be 1 or more, got 0"),
    ],
)  # fmt: skip
def test_settings_out_of_range_are_refused(name: str, settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        tiny(name, **settings)


def test_no_module_of_the_room_is_imported_by_the_table() -> None:
    assert "torch" not in vars(models)
