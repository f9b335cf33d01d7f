"""A method of `classic/` by its name and options, with the networks that it wants built and handed to it."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from semicdvl.detection.detectors.encoder_weights import require_encoder_weights
from semicdvl.errors import ConfigError, InputError, MissingExtraError
from semicdvl.registry import resolve_builder, suggest_nearest
from semicdvl.types import IMAGENET_MEAN, IMAGENET_STD, Detector
from semicdvl.unsupervised import UNSUPERVISED

if TYPE_CHECKING:
    from pathlib import Path

    import torch

    from semicdvl.unsupervised.common.clip import ClipClassifier
    from semicdvl.unsupervised.common.sam import SamMaskGenerator

METHOD_ENCODERS = {"dino_cva": "vit_small_patch14_dinov2"}
"""Method -> backbone, where it is not `DEFAULT_ENCODER`, whose weights come as a package."""
DEFAULT_ENCODER = "efficientnet_lite0"
METHOD_SAMS = {"any_change": "facebook/sam-vit-huge"}
"""Method -> SAM, where it is not `DEFAULT_SAM`."""
DEFAULT_SAM = "facebook/sam2.1-hiera-large"
DEFAULT_CLIP = "openai/clip-vit-base-patch32"


# ------------------------------------------------------------------------------------------------ networks
@dataclass(frozen=True)
class EncoderMaps:
    """All four maps of a backbone, as `unsupervised.common.features.FeatureNetwork`.

    Attributes:
        identity: name and hash of the weights.
        net: the backbone, in evaluation mode.
    """

    identity: str
    net: Any

    @property
    def channels(self) -> tuple[int, ...]:
        """Channels of the four maps."""
        found: tuple[int, ...] = self.net.channels
        return found

    @cached_property
    def _device(self) -> torch.device:
        found: torch.device = next(self.net.parameters()).device
        return found

    def extract_maps(self, image_HWC: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
        """Return the four maps DHW of a uint8 RGB image."""
        import torch

        mean, deviation = np.array(IMAGENET_MEAN, np.float32), np.array(IMAGENET_STD, np.float32)
        scaled_HWC = (image_HWC.astype(np.float32) / 255 - mean) / deviation
        with torch.inference_mode():
            found = self.net(torch.from_numpy(scaled_HWC).permute(2, 0, 1)[None].contiguous().to(self._device))
        return [map_BDHW[0].float().cpu().numpy() for map_BDHW in found]


@dataclass
class NetworkOptions:
    """Options of networks, taken out of a method's as they are used.

    Attributes:
        method: who wants the network.
        options: what is left of its options.
    """

    method: str
    options: dict[str, Any]

    def pop(self, name: str, default: Any) -> Any:
        """Return an option and take it out."""
        return self.options.pop(name, default)

    @cached_property
    def device(self) -> Any:
        """Torch device of all networks."""
        from semicdvl.vlms.weights import pick_device

        return pick_device(str(self.pop("device", "auto")))

    @cached_property
    def dtype(self) -> Any:
        """What networks of transformers compute with."""
        from semicdvl.vlms.weights import pick_dtype

        return pick_dtype(str(self.pop("dtype", "auto")), self.device)


def load_encoder(requested: NetworkOptions) -> EncoderMaps:
    """Build a backbone: options `backbone` (any of timm) and `weights` ("imagenet", or a file)."""
    from semicdvl.ceg.features import build_feature_extractor

    name = str(requested.pop("backbone", METHOD_ENCODERS.get(requested.method, DEFAULT_ENCODER)))
    weights = requested.pop("weights", None)
    if weights in (None, "imagenet"):
        chosen = name if name != METHOD_ENCODERS.get(requested.method, DEFAULT_ENCODER) else None
        require_encoder_weights(name, method=requested.method, chosen=chosen)
    source = build_feature_extractor(name, weights=weights)
    return EncoderMaps(source.identity, source.net.to(requested.device))


def load_sam(requested: NetworkOptions) -> SamMaskGenerator:
    """Load a SAM or SAM 2: option `sam` (folder or hub name), and `grid`, `rating`, `stability` of its masks."""
    from semicdvl.atomic_files import read_json
    from semicdvl.unsupervised.common.sam import SamMaskGenerator
    from semicdvl.vlms import weights as vlms_weights

    default = METHOD_SAMS.get(requested.method, DEFAULT_SAM)
    wanted = vlms_weights.WeightsSpec(
        requested.method, default, ("sam", "sam2", "sam2_video"), option="--method-set sam="
    )
    found = _load_naming_method_options(
        requested.method, lambda: vlms_weights.find_weights(requested.pop("sam", None), wanted)
    )
    import transformers

    kind = "Sam" if read_json(found.folder / "config.json", remedy="")["model_type"] == "sam" else "Sam2"
    model = vlms_weights.load_transformers_model(
        getattr(transformers, f"{kind}Model"), found, device=requested.device, dtype=requested.dtype
    )
    processor = vlms_weights.load_processor(getattr(transformers, f"{kind}Processor"), found)
    chosen = {key: requested.pop(key, getattr(SamMaskGenerator, key)) for key in ("grid", "rating", "stability")}
    if not (isinstance(chosen["grid"], int) and 1 <= chosen["grid"] <= 128):
        raise ConfigError(f"grid = {chosen['grid']}: wanted a number of points per side, from 1 to 128.")
    return SamMaskGenerator(model, processor, f"{kind.lower()}-{found.compute_fingerprint()}", **chosen)


def load_clip_model(requested: NetworkOptions) -> ClipClassifier:
    """Load a CLIP or SigLIP: option `clip` (folder, hub name, or a file in OpenCLIP's form)."""
    from semicdvl.unsupervised.common.clip import ClipClassifier
    from semicdvl.vlms import weights as vlms_weights
    from semicdvl.vlms.models import clip_file

    source = requested.pop("clip", None) or DEFAULT_CLIP
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
"""Argument of a builder -> what makes it."""
NETWORK_OPTIONS = {
    "features": ("backbone", "weights", "device"),
    "sam": ("sam", "grid", "rating", "stability", "device", "dtype"),
    "clip": ("clip", "device", "dtype"),
}
"""Argument of a builder -> the options that speak of it."""


def _load_naming_method_options(method: str, load: Callable[[], Any]) -> Any:
    """Load, and have errors name the options of a method, where the loader speaks of a VLM's."""
    try:
        return load()
    except InputError as error:
        remedy = error.remedy.replace("--vlm clip_dense --weights ", f"--method {method} --method-set clip=")
        problem = error.problem.replace("'clip_dense'", f"'{method}'")
        raise InputError(error.path, problem, remedy.replace("--vlm ", "--method ")) from error
    except MissingExtraError as error:
        raise MissingExtraError(f"{method} needs transformers: install semicdvl[vlm].") from error


# ------------------------------------------------------------------------------------------------ method
def build_unsupervised_detector(name: str, options: Mapping[str, Any] | None = None) -> Detector:
    """Return a method of `classic/`, or of one's own, ready to look at a pair.

    Args:
        name: a key of `UNSUPERVISED`, or `package.module:builder`.
        options: of the method, and of the networks that it wants (see `NETWORK_OPTIONS`).

    Raises:
        ConfigError: no such method or option, or a value out of range.
        InputError: weights that are missing or damaged; the text says how to get them.
        MissingExtraError: a package is missing that the method needs.
    """
    builder = resolve_builder("method", name, UNSUPERVISED)
    parameters = inspect.signature(builder).parameters
    wanted = [argument for argument in NETWORK_LOADERS if argument in parameters]
    own = [argument for argument in parameters if argument not in NETWORK_LOADERS]
    given = dict(options or {})
    open_ended = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values())
    known = {*own, *(option for argument in wanted for option in NETWORK_OPTIONS[argument])}
    if not open_ended and (unknown := sorted(set(given) - known)):
        raise ConfigError(
            f"{name} has no option '{unknown[0]}'.{suggest_nearest(unknown[0], known)} "
            f"Known: {', '.join(sorted(known))}."
        )
    types = _resolve_types(builder)
    checked = {key: _check_option(name, key, value, types) if key in own else value for key, value in given.items()}
    wishes = NetworkOptions(name, {key: value for key, value in checked.items() if key not in own})
    networks = {argument: NETWORK_LOADERS[argument](wishes) for argument in wanted}
    detector: Detector = builder(**networks, **{key: value for key, value in checked.items() if key in own})
    return detector


def _resolve_types(builder: Callable[..., Any]) -> dict[str, Any]:
    """Return the types of a builder's arguments; none where they can't be resolved (a builder from outside)."""
    try:
        return typing.get_type_hints(builder)
    except (NameError, TypeError):
        return {}


def _check_option(method: str, key: str, value: Any, types: Mapping[str, Any]) -> Any:
    """Return an option's value if it is of its type."""
    from pydantic import TypeAdapter, ValidationError

    if key not in types:
        return value
    try:
        return TypeAdapter(types[key]).validate_python(value, strict=not isinstance(value, int | list))
    except ValidationError as error:
        raise ConfigError(f"{method}: {key} = {value!r}: {error.errors()[0]['msg'].lower()}.") from None


def parse_method_options(texts: list[str] | None) -> dict[str, Any]:
    """Return `key=value` texts as options; a value is read as TOML, and as text where it is none.

    Raises:
        ConfigError: a text is no `key=value`, or says again what another says.
    """
    from semicdvl.vlms.options import parse_vlm_options as read

    try:
        return read(assignments=texts or ())
    except ConfigError as error:
        raise ConfigError(str(error).replace("--vlm-set", "--method-set")) from None


def refuse_model_with_method(*, model: Path | None, method: str | None, options: list[str] | None) -> None:
    """Refuse a trained network together with a method, or options without the method that they speak of.

    Raises:
        ConfigError: one of these.
    """
    if model is not None and method is not None:
        raise ConfigError(f"--model {model} and --method {method} both find change; give one of them.")
    if options and method is None:
        raise ConfigError(f"--method-set {options[0]} speaks of no method; give --method, see `semicdvl list classic`.")


VLM_OPTIONS = (
    *("find", "background", "prompts", "vlm", "vlm_from", "dtype", "vlm_set", "level", "gamma", "delta"),
    *("shift_px", "replaced_iou", "replaced_class", "min_cosine", "features", "calibrate"),
)
"""Options of a VLM and of change event generation."""
TRAINED_NETWORK_OPTIONS = ("precision", "compiled")
"""Options of a trained network."""


def refuse_unused_options(given: Mapping[str, str], *, model: Path | None, method: str | None) -> None:
    """Refuse an option that the chosen detector does not look at, rather than leave it without effect.

    Args:
        given: what the user gave: name of the argument -> the option as it is written.
        model: a trained network, if it was chosen.
        method: a method of `classic/`, if it was chosen; neither: a VLM.

    Raises:
        ConfigError: there is such an option.
    """
    of_networks, of_vlms = (
        next((given[name] for name in names if name in given), None) for names in (TRAINED_NETWORK_OPTIONS, VLM_OPTIONS)
    )
    if of_networks is not None and model is None:
        raise ConfigError(f"{of_networks} is for trained networks; give --model, or leave {of_networks} out.")
    if model is None and method is None:
        return
    chosen = f"--model {model}" if model is not None else f"--method {method}"
    if of_vlms is not None:
        raise ConfigError(
            f"{of_vlms} is for detection by a vision-language model, and {chosen} asks none; leave out one of the two."
        )
    if method is not None and "device" in given:
        raise ConfigError(f"--device does not reach {chosen}; give --method-set device=cuda where it runs a network.")
