"""The public SemiCD-VL network once more, from its description alone: torchvision's ResNet and plain functions.

Nothing of the package is used here, so that the import of a public checkpoint is compared with something else than
itself. Tensors carry the public code's names.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.resnet import Bottleneck, ResNet


class DeepStemResNet50(ResNet):
    """ResNet50 whose stem is three 3x3 convolutions (64, 64, 128), its last stage dilated: output stride 16."""

    def __init__(self) -> None:
        super().__init__(Bottleneck, [3, 4, 6, 3], replace_stride_with_dilation=[False, False, True])

        def conv(channels_in: int, channels_out: int, stride: int = 1) -> nn.Conv2d:
            return nn.Conv2d(channels_in, channels_out, 3, stride=stride, padding=1, bias=False)

        self.conv1 = nn.Sequential(
            conv(3, 64, stride=2),
            nn.BatchNorm2d(64),
            nn.ReLU(),
            conv(64, 64),
            nn.BatchNorm2d(64),
            nn.ReLU(),
            conv(64, 128),
        )
        self.bn1 = nn.BatchNorm2d(128)
        self.inplanes, self.dilation = 128, 1
        self.layer1 = self._make_layer(Bottleneck, 64, 3)
        del self.fc

    def forward(self, image_BCHW: Tensor) -> list[Tensor]:
        value = self.maxpool(self.relu(self.bn1(self.conv1(image_BCHW))))
        maps = []
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            value = stage(value)
            maps.append(value)
        return maps


def _layer(channels_in: int, channels_out: int) -> nn.ModuleDict:
    return nn.ModuleDict(
        {"conv": nn.Conv2d(channels_in, channels_out, 1, bias=False), "bn": nn.BatchNorm2d(channels_out)}
    )


class Head(nn.Module):
    """Each map through 1x1 convolution, batch norm and ReLU; resized, concatenated, fused, classified."""

    def __init__(self, names: tuple[str, ...]) -> None:
        super().__init__()
        self.convs = nn.ModuleList(_layer(channels, 256) for channels in (256, 512, 1024, 2048))
        self.fusion_conv = _layer(1024, 256)
        for name in names:
            self.add_module(name, nn.Conv2d(256, 2, 1))

    def forward(self, maps: list[Tensor]) -> Tensor:
        size = maps[0].shape[-2:]
        parts = [
            F.interpolate(F.relu(layer["bn"](layer["conv"](part))), size, mode="bilinear", align_corners=False)
            for layer, part in zip(self.convs, maps, strict=True)
        ]
        return F.relu(self.fusion_conv["bn"](self.fusion_conv["conv"](torch.cat(parts, dim=1))))


class PublicNetwork(nn.Module):
    """Backbone, change head with its two classifiers, segmentation head."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = DeepStemResNet50()
        self.decode_head = Head(("conv_seg", "conv_seg_for_vl"))
        self.auxiliary_seg_head = Head(("conv_seg",))

    def forward(self, t1_BCHW: Tensor, t2_BCHW: Tensor) -> dict[str, Tensor]:
        maps_t1, maps_t2 = self.backbone(t1_BCHW), self.backbone(t2_BCHW)
        q = self.decode_head([(a - b).abs() for a, b in zip(maps_t1, maps_t2, strict=True)])
        features_t1, features_t2 = self.auxiliary_seg_head(maps_t1), self.auxiliary_seg_head(maps_t2)
        logits = {
            "change_BKHW": self.decode_head.conv_seg(q),
            "vlm_change_BKHW": self.decode_head.conv_seg_for_vl(q),
            "t1_BKHW": self.auxiliary_seg_head.conv_seg(features_t1),
            "t2_BKHW": self.auxiliary_seg_head.conv_seg(features_t2),
        }
        size = t1_BCHW.shape[-2:]
        resized = {
            name: F.interpolate(value, size, mode="bilinear", align_corners=False) for name, value in logits.items()
        }
        return resized | {"features_t1_BDHW": features_t1, "features_t2_BDHW": features_t2}


def with_statistics(network: nn.Module) -> nn.Module:
    """Give every batch norm statistics and weights of its own, so that none can be taken for another."""
    generator = torch.Generator().manual_seed(5)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for value in (module.running_mean, module.bias):
                nn.init.normal_(value, std=0.1, generator=generator)
            for value in (module.running_var, module.weight):
                nn.init.uniform_(value, 0.7, 1.3, generator=generator)
    return network.eval()
