"""UniMatch V2's public network once more, from its description alone: DINOv2 and DPT in plain torch.

Nothing of the package and nothing of timm is used here. Tensors carry the public code's names.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        batch, count, width = x.shape
        q, k, v = self.qkv(x).reshape(batch, count, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        weights = (q @ k.transpose(-2, -1) / (width // self.heads) ** 0.5).softmax(dim=-1)
        return self.proj((weights @ v).transpose(1, 2).reshape(batch, count, width))


class Scale(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(width))


class Block(nn.Module):
    def __init__(self, width: int, heads: int, *, swiglu: bool) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width, eps=1e-6), nn.LayerNorm(width, eps=1e-6)
        self.attn = Attention(width, heads)
        self.ls1, self.ls2 = Scale(width), Scale(width)
        self.swiglu = swiglu
        hidden = (int(4 * width * 2 / 3) + 7) // 8 * 8
        sizes = {"w12": (width, 2 * hidden), "w3": (hidden, width)} if swiglu else {"fc1": (width, 4 * width)}
        sizes |= {} if swiglu else {"fc2": (4 * width, width)}
        self.mlp = nn.ModuleDict({name: nn.Linear(*size) for name, size in sizes.items()})

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.ls1.gamma * self.attn(self.norm1(x))
        y = self.norm2(x)
        if self.swiglu:
            gate, value = self.mlp["w12"](y).chunk(2, dim=-1)
            y = self.mlp["w3"](F.silu(gate) * value)
        else:
            y = self.mlp["fc2"](F.gelu(self.mlp["fc1"](y)))
        return x + self.ls2.gamma * y


class DinoV2(nn.Module):
    def __init__(self, *, width: int, heads: int, depth: int, swiglu: bool) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + 37 * 37, width))
        self.mask_token = nn.Parameter(torch.zeros(1, width))
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(3, width, 14, stride=14)})
        self.blocks = nn.ModuleList(Block(width, heads, swiglu=swiglu) for _ in range(depth))
        self.norm = nn.LayerNorm(width, eps=1e-6)

    def positions(self, rows: int, columns: int) -> Tensor:
        if (rows, columns) == (37, 37):
            return self.pos_embed
        square = self.pos_embed[:, 1:].reshape(1, 37, 37, -1).permute(0, 3, 1, 2)
        factors = ((rows + 0.1) / 37, (columns + 0.1) / 37)
        resized = F.interpolate(square, scale_factor=factors, mode="bicubic", antialias=False)
        assert resized.shape[-2:] == (rows, columns)
        return torch.cat([self.pos_embed[:, :1], resized.permute(0, 2, 3, 1).flatten(1, 2)], dim=1)

    def forward(self, image: Tensor, layers: tuple[int, ...]) -> list[Tensor]:
        grid = self.patch_embed["proj"](image)
        x = torch.cat([self.cls_token.expand(len(image), -1, -1), grid.flatten(2).transpose(1, 2)], dim=1)
        x = x + self.positions(*grid.shape[-2:])
        found = []
        for index, block in enumerate(self.blocks):
            x = block(x)
            if index in layers:
                tokens = self.norm(x)[:, 1:]
                found.append(tokens.transpose(1, 2).reshape(len(image), -1, *grid.shape[-2:]))
        return found


def _residual_unit(channels: int) -> nn.ModuleDict:
    return nn.ModuleDict({name: nn.Conv2d(channels, channels, 3, padding=1) for name in ("conv1", "conv2")})


def _run_unit(unit: nn.ModuleDict, x: Tensor) -> Tensor:
    return unit["conv2"](F.relu(unit["conv1"](F.relu(x)))) + x


class Head(nn.Module):
    def __init__(self, width: int, features: int, channels: tuple[int, int, int, int]) -> None:
        super().__init__()
        one, two, _, four = channels
        self.projects = nn.ModuleList(nn.Conv2d(width, out, 1) for out in channels)
        self.resize_layers = nn.ModuleList(
            [
                nn.ConvTranspose2d(one, one, 4, stride=4),
                nn.ConvTranspose2d(two, two, 2, stride=2),
                nn.Identity(),
                nn.Conv2d(four, four, 3, stride=2, padding=1),
            ]
        )
        scratch: dict[str, nn.Module] = {
            f"layer{at}_rn": nn.Conv2d(count, features, 3, padding=1, bias=False)
            for at, count in enumerate(channels, start=1)
        }
        for at in (1, 2, 3, 4):
            scratch[f"refinenet{at}"] = nn.ModuleDict(
                {
                    "out_conv": nn.Conv2d(features, features, 1),
                    "resConfUnit1": _residual_unit(features),
                    "resConfUnit2": _residual_unit(features),
                }
            )
        scratch["output_conv"] = nn.Sequential(
            nn.Conv2d(features, features, 3, padding=1), nn.ReLU(), nn.Conv2d(features, 2, 1)
        )
        self.scratch = nn.ModuleDict(scratch)

    def forward(self, maps: list[Tensor]) -> Tensor:
        part = self.scratch
        levels = [
            part[f"layer{at + 1}_rn"](self.resize_layers[at](self.projects[at](one))) for at, one in enumerate(maps)
        ]
        path = None
        for at in (4, 3, 2, 1):
            block, level = part[f"refinenet{at}"], levels[at - 1]
            path = level if path is None else path + _run_unit(block["resConfUnit1"], level)
            path = _run_unit(block["resConfUnit2"], path)
            size = levels[at - 2].shape[-2:] if at > 1 else tuple(2 * side for side in path.shape[-2:])
            path = block["out_conv"](F.interpolate(path, size=size, mode="bilinear", align_corners=True))
        assert path is not None
        return part["output_conv"](path)


class PublicUniMatchV2(nn.Module):
    """DINOv2 on both dates, |f1 - f2|, DPT, logits at the size of the image."""

    def __init__(
        self,
        *,
        width: int = 384,
        heads: int = 6,
        depth: int = 12,
        features: int = 64,
        channels: tuple[int, int, int, int] = (48, 96, 192, 384),
        layers: tuple[int, ...] = (2, 5, 8, 11),
        swiglu: bool = False,
    ) -> None:
        super().__init__()
        self.layers = layers
        self.backbone = DinoV2(width=width, heads=heads, depth=depth, swiglu=swiglu)
        self.head = Head(width, features, channels)

    def forward(self, t1: Tensor, t2: Tensor) -> Tensor:
        maps = zip(self.backbone(t1, self.layers), self.backbone(t2, self.layers), strict=True)
        logits = self.head([(one - other).abs() for one, other in maps])
        return F.interpolate(logits, size=t1.shape[-2:], mode="bilinear", align_corners=True)


def with_random_weights(network: nn.Module, *, seed: int) -> nn.Module:
    """Give every tensor values that matter: positions, class token and layer scales too, which start at 0 or 1."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in network.named_parameters():
            if tensor.ndim > 1 and not name.endswith(("_token", "pos_embed")):
                tensor.normal_(0, tensor[0].numel() ** -0.5, generator=generator)
            else:
                tensor.add_(torch.randn(tensor.shape, generator=generator) * 0.2)
    return network.eval()
