"""UniMatch V2's network: counts, sizes, transformers of all kinds, and the public code's outputs from its weights."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from tests.support.command import command
from tests.support.paths import SHARED
from tests.support.public_unimatch_v2 import PublicUniMatchV2, with_random_weights
from tests.support.tiny_models import tiny

from semicdvl import create_model, load_model
from semicdvl.errors import CheckpointError, ConfigError
from semicdvl.models.common.blocks import drop_complementary_channels
from semicdvl.models.encoders.dinov2 import is_dinov2, resize_positions
from semicdvl.official import import_public_checkpoint

PUBLISHED = {"small": 24_794_402, "base": 97_526_338}
UNUSED_MASK_TOKEN = {"small": 384, "base": 768}


@pytest.mark.parametrize("size", PUBLISHED)
def test_parameters_are_the_published_ones_less_the_unused_mask_token(size: str) -> None:
    with torch.device("meta"):
        net = create_model("dpt", backbone=f"vit_{size}_patch14_dinov2", pretrained=False, train_heads=False)
    assert sum(p.numel() for p in net.parameters()) == PUBLISHED[size] - UNUSED_MASK_TOKEN[size]


@pytest.fixture(scope="module")
def public() -> PublicUniMatchV2:
    network = with_random_weights(PublicUniMatchV2(), seed=3)
    assert isinstance(network, PublicUniMatchV2)
    return network


@pytest.fixture(scope="module")
def imported(public: PublicUniMatchV2, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("unimatch_v2")
    tensors = {f"module.{name}": value for name, value in public.state_dict().items()}
    other = {name: torch.zeros_like(value) for name, value in tensors.items()}
    torch.save({"model": other, "model_ema": tensors, "epoch": 59, "previous_best": 0.837}, root / "best.pth")
    done = import_public_checkpoint(root / "best.pth", root / "run", public_code="unimatch_v2")
    assert done.tensors == 236 and done.model["backbone"] == "vit_small_patch14_dinov2"
    return root / "run"


def test_the_reference_has_the_public_tensors(public: PublicUniMatchV2) -> None:
    listed = SHARED / "public_keys" / "unimatch_v2_small_keys.json"
    if not listed.is_file():
        pytest.skip(f"{listed} is not here")
    expected = json.loads(listed.read_text())
    assert {name: list(value.shape) for name, value in public.state_dict().items()} == {
        name: shape for name, (shape, _) in expected.items()
    }


@pytest.mark.parametrize("size_px", [(84, 70), (252, 252), pytest.param((518, 518), marks=pytest.mark.slow)])
def test_an_imported_network_gives_the_outputs_of_the_public_one(
    public: PublicUniMatchV2, imported: Path, size_px: tuple[int, int]
) -> None:
    t1_BCHW, t2_BCHW = torch.randn(2, 1, 3, *size_px, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        ours, theirs = load_model(imported)(t1_BCHW, t2_BCHW).change_BKHW, public(t1_BCHW, t2_BCHW)
    assert theirs.std() > 0.01
    assert (ours - theirs).abs().max() <= 1e-4 * theirs.abs().max()


def test_another_size_is_resized_to_the_nearest_multiple_of_the_patch(public: PublicUniMatchV2, imported: Path) -> None:
    t1_BCHW, t2_BCHW = torch.randn(2, 1, 3, 88, 64, generator=torch.Generator().manual_seed(1))
    fitted = [
        torch.nn.functional.interpolate(one, (84, 70), mode="bilinear", align_corners=True)
        for one in (t1_BCHW, t2_BCHW)
    ]
    with torch.no_grad():
        ours, theirs = load_model(imported)(t1_BCHW, t2_BCHW).change_BKHW, public(*fitted)
    theirs = torch.nn.functional.interpolate(theirs, (88, 64), mode="bilinear", align_corners=True)
    assert (ours - theirs).abs().max() <= 1e-4 * theirs.abs().max()


def test_the_other_weights_of_the_file_are_taken_on_request(
    public: PublicUniMatchV2, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    zeros = {name: torch.zeros_like(value) for name, value in public.state_dict().items()}
    torch.save({"model": zeros, "model_ema": public.state_dict()}, tmp_path / "best.pth")
    options = ("--from", "unimatch_v2", "--weights", "model")
    code, text, _ = command(capsys, "import-official", tmp_path / "best.pth", "-o", tmp_path / "run", *options)
    assert code == 0 and "236 tensors" in text
    assert all((value == 0).all() for value in load_model(tmp_path / "run").state_dict().values())
    options = ("--from", "unimatch_v2", "--weights", "ema")
    code, _, complaint = command(capsys, "import-official", tmp_path / "best.pth", "-o", tmp_path / "no", *options)
    assert code == 2 and "holds nothing under 'ema'" in complaint and not (tmp_path / "no").exists()


def test_a_checkpoint_of_the_other_code_is_refused(public: PublicUniMatchV2, tmp_path: Path) -> None:
    torch.save({"model": public.state_dict()}, tmp_path / "best.pth")
    with pytest.raises(CheckpointError, match=r"SemiCD-VL's network, .* or say --from unimatch_v2"):
        import_public_checkpoint(tmp_path / "best.pth", tmp_path / "run")


def test_the_giant_transformer_is_imported_under_its_other_names() -> None:
    from semicdvl.public_codes import to_unimatch_v2_giant_name

    theirs = PublicUniMatchV2(width=48, heads=2, depth=1, features=8, layers=(0,), swiglu=True).state_dict()
    with torch.device("meta"):
        net = create_model("dpt", backbone="vit_giant_patch14_dinov2", pretrained=False, train_heads=False)
    of_first_block = {name for name in theirs if ".blocks.0." in name}
    ours = {to_unimatch_v2_giant_name(name) for name in net.state_dict() if ".blocks.0." in name}
    assert ours == of_first_block


def test_an_image_below_one_patch_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"19 x 7 px is smaller than one patch .*16 px"):
        tiny("dpt")(torch.zeros(1, 3, 7, 19), torch.zeros(1, 3, 7, 19))


def test_a_backbone_that_is_no_transformer_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"'resnet18' is no plain vision transformer, which model 'dpt' needs"):
        create_model("dpt", backbone="resnet18", pretrained=False)


@pytest.mark.slow
@pytest.mark.parametrize("backbone", ["vit_small_patch16_dinov3", "samvit_base_patch16", "vit_tiny_patch16_224"])
def test_other_transformers_of_timm_work(backbone: str) -> None:
    net = create_model("dpt", backbone=backbone, pretrained=False).eval()
    pair = torch.randn(2, 1, 3, 64, 80, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert net(*pair).t1_BKHW.shape == (1, 2, 64, 80)


def test_positions_are_resized_as_dinov2_does() -> None:
    positions_1ND = torch.randn(1, 1 + 37 * 37, 4, generator=torch.Generator().manual_seed(1))
    assert resize_positions(positions_1ND, (37, 37)) is positions_1ND
    resized_1ND = resize_positions(positions_1ND, (6, 5))
    assert resized_1ND.shape == (1, 31, 4) and torch.equal(resized_1ND[:, 0], positions_1ND[:, 0])
    assert is_dinov2("vit_small_patch14_dinov2") and not is_dinov2("vit_small_patch14_reg4_dinov2")


def test_complementary_dropout_keeps_in_one_view_what_it_drops_in_the_other() -> None:
    torch.manual_seed(0)
    maps = [torch.rand(10, 64, 3, 2) + 1, torch.rand(10, 64, 2, 1) + 1, torch.rand(10, 7, 1, 1) + 1]
    dropped = drop_complementary_channels(maps)
    factors = [
        (after / before).flatten(2).mean(dim=2) for before, after in zip(maps, dropped, strict=True)
    ]  # one factor per pair and channel
    torch.testing.assert_close(factors[0], factors[1])  # maps of one width share their mask
    for factor_BD in factors:
        first, second = factor_BD[:5], factor_BD[5:]
        torch.testing.assert_close(first + second, torch.full_like(first, 2.0))
        whole = (first == 1).all(dim=1)
        assert whole.sum() == 2  # half of 5 pairs, rounded down
        values = first[~whole].round(decimals=4).unique().tolist()
        assert values == [0.0, 2.0]
    share = (factors[0][:5][~(factors[0][:5] == 1).all(dim=1)] == 0).float().mean()
    assert 0.35 < share < 0.65


def test_complementary_dropout_reaches_change_alone_on_request_and_in_training() -> None:
    pair = torch.randn(2, 4, 3, 48, 32, generator=torch.Generator().manual_seed(1))
    net = tiny("dpt").train()
    with torch.no_grad():
        plain = net(*pair).change_BKHW  # all heads: without it
        assert torch.equal(plain, net(*pair, heads=frozenset({"change"})).change_BKHW)
        asked = frozenset({"change", "complementary"})
        torch.manual_seed(0)
        changed = (net(*pair, heads=asked).change_BKHW - plain).abs().flatten(1).amax(dim=1) > 1e-6
        assert changed.tolist() in ([True, False, True, False], [False, True, False, True])  # one pair of two is whole
        net.eval()
        assert torch.equal(net(*pair, heads=asked).change_BKHW, net(*pair, heads=frozenset({"change"})).change_BKHW)
