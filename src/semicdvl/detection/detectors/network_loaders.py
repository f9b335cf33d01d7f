"""Load the pretrained networks that unsupervised detectors use: encoders of timm, SAM and CLIP."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from semicdvl.detection.detectors.encoder_weights import require_encoder_weights
from semicdvl.errors import ConfigError, InputError, MissingExtraError

if TYPE_CHECKING:
    import torch

    from semicdvl.unsupervised.common.clip import ClipClassifier
    from semicdvl.unsupervised.common.sam import SamMaskGenerator


@dataclass(frozen=True)
class EncoderMaps:
    """The four feature maps of an encoder, as `unsupervised.common.features.FeatureNetwork`.

    Attributes:
        identity: name and hash of the weights.
        net: the encoder, in evaluation mode.
    """

    identity: str
    net: Any

    @property
    def channels(self) -> tuple[int, ...]:
        """Number of channels of the four maps."""
        found: tuple[int, ...] = self.net.channels
        return found

    @cached_property
    def _device(self) -> torch.device:
        found: torch.device = next(self.net.parameters()).device
        return found

    def extract_maps(self, image_HWC: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
        """Return the four maps DHW of a uint8 RGB image."""
        import torch

        from semicdvl.models.common.images import normalise_image

        with torch.inference_mode():
            found = self.net(normalise_image(image_HWC, device=self._device).contiguous())
        return [map_BDHW[0].float().cpu().numpy() for map_BDHW in found]


@dataclass
class NetworkOptions:
    """Options of the networks of a method, removed as they are used.

    Attributes:
        method: name of the method, for error texts.
        options: the options that are left.
        defaults: network to load where the options name none, per argument of the builder.
    """

    method: str
    options: dict[str, Any]
    defaults: Mapping[str, str]

    def pop(self, name: str, default: Any) -> Any:
        """Return an option and remove it."""
        return self.options.pop(name, default)

    @cached_property
    def device(self) -> Any:
        """Torch device of all networks."""
        from semicdvl.vlms.devices import pick_device

        return pick_device(str(self.pop("device", "auto")))

    @cached_property
    def dtype(self) -> Any:
        """Number format of the networks of transformers."""
        from semicdvl.vlms.devices import pick_dtype

        return pick_dtype(str(self.pop("dtype", "auto")), self.device)


def load_encoder(requested: NetworkOptions) -> EncoderMaps:
    """Build an encoder: options `backbone` (any encoder of timm) and `weights` ("imagenet", or a file)."""
    from semicdvl.ceg.features import build_backbone_extractor

    name = str(requested.pop("backbone", requested.defaults["features"]))
    weights = requested.pop("weights", None)
    if weights in (None, "imagenet"):
        chosen = name if name != requested.defaults["features"] else None
        require_encoder_weights(name, method=requested.method, chosen=chosen)
    source = build_backbone_extractor(name, weights=weights)
    return EncoderMaps(source.identity, source.net.to(requested.device))


def load_sam(requested: NetworkOptions) -> SamMaskGenerator:
    """Load a SAM or SAM 2: option `sam` (folder or hub name), and `grid`, `rating`, `stability` of its masks."""
    from semicdvl.reading.json_files import read_json
    from semicdvl.unsupervised.common.sam import SamMaskGenerator
    from semicdvl.vlms import weights as vlms_weights

    spec = vlms_weights.WeightsSpec(
        requested.method, requested.defaults["sam"], ("sam", "sam2", "sam2_video"), option="--method-set sam="
    )
    found = _load_naming_method_options(
        requested.method, lambda: vlms_weights.find_weights(requested.pop("sam", None), spec)
    )
    import transformers

    kind = "Sam" if read_json(found.folder / "config.json", remedy="")["model_type"] == "sam" else "Sam2"
    model = vlms_weights.load_transformers_model(
        getattr(transformers, f"{kind}Model"), found, device=requested.device, dtype=requested.dtype
    )
    processor = vlms_weights.load_processor(getattr(transformers, f"{kind}Processor"), found)
    chosen = {key: requested.pop(key, getattr(SamMaskGenerator, key)) for key in ("grid", "rating", "stability")}
    if not (isinstance(chosen["grid"], int) and 1 <= chosen["grid"] <= 128):
        raise ConfigError(f"grid = {chosen['grid']}: give a number of points per side, from 1 to 128.")
    return SamMaskGenerator(model, processor, f"{kind.lower()}-{found.compute_fingerprint()}", **chosen)


def load_clip_model(requested: NetworkOptions) -> ClipClassifier:
    """Load a CLIP or SigLIP: option `clip` (folder, hub name, or a file in OpenCLIP's form)."""
    from semicdvl.unsupervised.common.clip import ClipClassifier
    from semicdvl.vlms import weights as vlms_weights
    from semicdvl.vlms.models import clip_file

    source = requested.pop("clip", None) or requested.defaults["clip"]
    _load_naming_method_options(requested.method, lambda: vlms_weights.require_transformers(requested.method))
    parts = _load_naming_method_options(
        requested.method, lambda: clip_file.load_clip(source, device=requested.device, dtype=requested.dtype)
    )
    return ClipClassifier(parts.model, parts.tokenizer, parts.normalisation, f"clip-{parts.fingerprint}")


NETWORK_LOADERS: dict[str, Callable[[NetworkOptions], Any]] = {
    "features": load_encoder,
    "sam": load_sam,
    "clip": load_clip_model,
}
"""Argument of a builder -> function that loads the network."""
NETWORK_OPTIONS = {
    "features": ("backbone", "weights", "device"),
    "sam": ("sam", "grid", "rating", "stability", "device", "dtype"),
    "clip": ("clip", "device", "dtype"),
}
"""Argument of a builder -> options of that network."""


def _load_naming_method_options(method: str, load: Callable[[], Any]) -> Any:
    """Load a network; errors name the options of the method where the loader names those of a VLM."""
    try:
        return load()
    except InputError as error:
        remedy = error.remedy.replace("--vlm clip_dense --weights ", f"--method {method} --method-set clip=")
        problem = error.problem.replace("'clip_dense'", f"'{method}'")
        raise InputError(error.path, problem, remedy.replace("--vlm ", "--method ")) from error
    except MissingExtraError as error:
        raise MissingExtraError(f"{method} needs transformers: install semicdvl[vlm].") from error
