"""What finds the change: a vision-language model with change event generation (no labels), or a trained network."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from semicdvl.errors import ConfigError
from semicdvl.predict.onnx_detector import onnx_detector
from semicdvl.pseudo import ceg
from semicdvl.pseudo.events import Events
from semicdvl.pseudo.objects import change_score
from semicdvl.pseudo.prompts import Prompts
from semicdvl.pseudo.settings import CEGSettings
from semicdvl.pseudo.strip_events import JudgedObjects, StripAnswers, judge
from semicdvl.types import IGNORE, IMAGENET_MEAN, IMAGENET_STD, VLM, ChangeMap, Detector, PlaneStrip, PlaneStrips

if TYPE_CHECKING:
    from torch import nn

    from semicdvl.predict.fast import Precision


@runtime_checkable
class Described(Protocol):
    """A detector that can tell a reader of the report what it is."""

    def description(self) -> dict[str, str]:
        """Return what the detector is made of, as label -> text."""
        ...


@runtime_checkable
class Identified(Protocol):
    """A detector that knows what its maps depend on."""

    @property
    def identity(self) -> str:
        """Equal identity means equal maps: name the weights by their hash."""
        ...


def identity_of(detector: Detector) -> dict[str, Any]:
    """Return what tells a detector from others whose maps would differ: its identity, or as much as it tells.

    For a detector without an identity that is its name, its description and its plain fields.
    """
    kind = f"{type(detector).__module__}.{type(detector).__qualname__}"
    if isinstance(detector, Identified):
        return {"kind": kind, "identity": detector.identity}
    told = detector.description() if isinstance(detector, Described) else {}
    names: list[str] = [each.name for each in fields(detector)] if is_dataclass(detector) else []
    own = {name: getattr(detector, name) for name in names}
    own = {name: value for name, value in own.items() if isinstance(value, str | int | float | None)}
    return {"kind": kind, "name": detector.name, "planes": detector.planes_count, "told": told, "own": own}


# ------------------------------------------------------------------------------------------------ no labels
@dataclass(frozen=True)
class VLMCEG:
    """Ask a VLM about both dates, tile by tile, and compare the answers over the whole raster.

    The planes are the score maps of all prompts at date 1, then at date 2. `decide` runs change event generation on the
    blended maps, so an object cut by tiles is one object. A VLM's own instances are not used here: they end at tile
    borders; objects are the 8-connected components of the blended maps.

    A map is not a training label: every pixel that shows ground gets an answer. Where mixed or pixel CEG calls a
    pixel unreliable (a best score below gamma), the map says unchanged.

    The change score is |q1 - q2| with q = foreground score / (foreground + background score), the VLM's belief at each
    date that the pixel is what was looked for. It is given everywhere: an object whose mean is high changed beyond
    doubt, one whose mean is low rests on a hair; high values outside of objects are what the rule left out.

    Attributes:
        vlm: the model that is asked.
        prompts: what to look for and what else there is.
        settings: level and thresholds of CEG. For a map without labels the instance level is the best in the paper (IoU
            46.3 on LEVIR-CD; pixel level at most 41.4; mixed, which is made for training, 32.3 over all pixels).
    """

    vlm: VLM
    prompts: Prompts
    settings: CEGSettings = field(default_factory=lambda: CEGSettings(level="instance"))

    def __post_init__(self) -> None:
        """Refuse the one option that needs more than score maps.

        Raises:
            ConfigError: `min_cosine` is set.
        """
        if self.settings.min_cosine is not None:
            raise ConfigError("min_cosine compares features, which a map of tiles has not; it works in `pseudo` only.")

    @property
    def name(self) -> str:
        """Short name for reports."""
        return f"{self.vlm.identity} + {self.settings.level} CEG"

    @property
    def identity(self) -> str:
        """What was asked of which model; change event generation comes after the maps."""
        return f"{self.vlm.identity}: {', '.join(self.prompts.words)}"

    @property
    def planes_count(self) -> int:
        """Number of maps: one per prompt and date."""
        return 2 * len(self.prompts.words)

    def description(self) -> dict[str, str]:
        """Return model, prompts and thresholds."""
        settings = self.settings
        return {
            "Detector": f"vision-language model, {settings.level}-level change event generation, no labels",
            "Model": self.vlm.identity,
            "Looked for": ", ".join(self.prompts.find),
            "Against": ", ".join(self.prompts.background),
            "Thresholds": f"gamma {settings.gamma:g}, delta {settings.delta:g}, "
            f"objects from score {settings.instance_score:g} and {settings.min_area_px} px",
        } | {f"Option {name}": f"{getattr(settings, name)}" for name in settings.options}

    def planes(
        self, t1_HWC: NDArray[np.uint8], t2_HWC: NDArray[np.uint8], *, gsd_m: float | None = None
    ) -> NDArray[np.float32]:
        """Return the score maps of both dates, PHW."""
        answers = [self.vlm.segment(image_HWC, self.prompts.words, gsd_m=gsd_m) for image_HWC in (t1_HWC, t2_HWC)]
        return np.concatenate([np.clip(answer.scores_CHW, 0, 1) for answer in answers]).astype(np.float32)

    def decide(self, strips: PlaneStrips) -> Iterator[ChangeMap]:
        """Give the change map strip by strip; goes through the strips once more before it where it looks at objects."""
        judged = None if self.settings.level == "pixel" else self._judged(strips)
        for strip in strips:
            answers = _answers(strip)
            yield self._map(answers, None if judged is None else judged.events(answers))

    def _judged(self, strips: PlaneStrips) -> JudgedObjects:
        """Find which objects are change events.

        The only place that says what an object is: here the components of the blended maps. A VLM's own instances,
        joined over the tiles, would be judged here too (`pseudo.events.event_maps`); what it returns must give the
        `events` of a strip.
        """
        return judge(map(_answers, strips), prompts=self.prompts, settings=self.settings)

    def _map(self, strip: StripAnswers, found: Events | None) -> ChangeMap:
        """Return the change map of one strip."""
        t1_CHW, t2_CHW, valid_HW, foreground = strip.t1_CHW, strip.t2_CHW, strip.valid_HW, self.prompts.foreground
        change_HW = np.where(valid_HW, self._changed(t1_CHW, t2_CHW, found), np.uint8(IGNORE)).astype(np.uint8)
        difference_HW = change_score(t1_CHW, t2_CHW, foreground=foreground)
        score_HW = np.where(valid_HW, difference_HW, np.float32(np.nan)).astype(np.float32)
        classes_HW = [np.where(valid_HW, scores.argmax(axis=0), IGNORE).astype(np.uint8) for scores in (t1_CHW, t2_CHW)]
        return ChangeMap(change_HW, score_HW, self.prompts.words, foreground, *classes_HW)

    def _changed(
        self, t1_CHW: NDArray[np.float32], t2_CHW: NDArray[np.float32], found: Events | None
    ) -> NDArray[np.bool_]:
        """Return where change event generation says changed, unreliable pixels counted as unchanged."""
        if found is not None and self.settings.level == "instance":
            return found.alone_HW | found.replaced_HW
        foreground = self.prompts.foreground
        pixel_HW, reliable_HW = ceg.pixel_level(t1_CHW, t2_CHW, foreground=foreground, gamma=self.settings.gamma)
        if found is None:
            return pixel_HW & reliable_HW
        changed_HW: NDArray[np.bool_] = ceg.mixed(pixel_HW, reliable_HW, found.alone_HW) == 1
        return changed_HW | (found.replaced_HW & reliable_HW)


def _answers(strip: PlaneStrip) -> StripAnswers:
    """Return the maps of a strip as the answers for date 1 and date 2: one map per prompt each."""
    count = len(strip.planes_PHW) // 2
    return StripAnswers(strip.row, strip.planes_PHW[:count], strip.planes_PHW[count:], strip.valid_HW)


# ------------------------------------------------------------------------------------------------ trained
@dataclass(frozen=True)
class NetworkDetector:
    """A trained network: the plane is its probability of change, and changed is from `threshold` on.

    Attributes:
        network: in eval mode, with the call of `semicdvl.types.Network`.
        name: for reports, such as the run's folder.
        threshold: least probability of a changed pixel; 0.5 is the argmax of the two classes.
        details: what else the report should say, label -> text.
    """

    network: nn.Module
    name: str = "network"
    threshold: float = 0.5
    details: dict[str, str] = field(default_factory=dict)
    planes_count: int = field(default=1, init=False)

    @property
    def identity(self) -> str:
        """Hash of the weights and buffers, whatever the run is called, and of how they are used."""
        import torch

        digest = hashlib.sha256(repr(sorted(self.details.items())).encode())
        for key, value in self.network.state_dict().items():
            raw = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
            digest.update(f"{key} {tuple(value.shape)} {value.dtype}".encode() + raw.tobytes())
        return digest.hexdigest()

    def description(self) -> dict[str, str]:
        """Return name, size and threshold."""
        count = sum(parameter.numel() for parameter in self.network.parameters())
        return {
            "Detector": f"trained network, {_kind(self.network)}, {count / 1e6:.1f} M parameters",
            "Run": self.name,
            "Threshold": f"{self.threshold:g}",
        } | self.details

    def planes(
        self, t1_HWC: NDArray[np.uint8], t2_HWC: NDArray[np.uint8], *, gsd_m: float | None = None
    ) -> NDArray[np.float32]:
        """Return P(changed) as 1HW; the network works at the images' own resolution, `gsd_m` is not used."""
        import torch

        device = next(self.network.parameters()).device
        with torch.inference_mode():
            dates_BCHW = [_normalised(image_HWC, device) for image_HWC in (t1_HWC, t2_HWC)]
            logits_BKHW = self.network(*dates_BCHW, heads=frozenset({"change"})).change_BKHW
            changed_BHW = logits_BKHW.float().softmax(dim=1)[:, 1]
        planes_PHW: NDArray[np.float32] = changed_BHW.cpu().numpy()
        return planes_PHW

    def decide(self, strips: PlaneStrips) -> Iterator[ChangeMap]:
        """Give where the probability reaches the threshold; the score is the probability."""
        for strip in strips:
            probability_HW, valid_HW = strip.planes_PHW[0], strip.valid_HW
            change_HW = np.where(valid_HW, probability_HW >= self.threshold, np.uint8(IGNORE)).astype(np.uint8)
            yield ChangeMap(change_HW, np.where(valid_HW, probability_HW, np.float32(np.nan)).astype(np.float32))


def _kind(network: nn.Module) -> str:
    """Return the name of a network's class; one made fast is called as it was before."""
    return type(getattr(network, "network", network)).__name__


def _normalised(image_HWC: NDArray[np.uint8], device: Any) -> Any:
    """Return an image as the networks take it: float BCHW, RGB / 255, ImageNet mean and deviation."""
    import torch

    image_CHW = torch.from_numpy(np.ascontiguousarray(image_HWC)).to(device).permute(2, 0, 1).float() / 255
    mean_C11, std_C11 = (torch.tensor(values, device=device)[:, None, None] for values in (IMAGENET_MEAN, IMAGENET_STD))
    return ((image_CHW - mean_C11) / std_C11)[None].contiguous(memory_format=torch.channels_last)


def vlm_detector(vlm: VLM, *, prompts: Prompts, settings: CEGSettings | None = None) -> VLMCEG:
    """Return the detector that needs no labels; without `settings` at instance level."""
    return VLMCEG(vlm, prompts) if settings is None else VLMCEG(vlm, prompts, settings)


def network_detector(
    run: Path, *, device: str = "auto", threshold: float = 0.5, precision: Precision = "fp32", compiled: bool = False
) -> Detector:
    """Return the detector of a trained run.

    Args:
        run: a folder that `semicdvl train` wrote, or a file that `semicdvl export` wrote, which brings its threshold.
        device: "auto" takes a GPU where there is one.
        threshold: least probability of a changed pixel.
        precision: "fp32" is exact to rounding, "bf16" is not; see `predict.fast`.
        compiled: compile the network at its first tile.

    Raises:
        CheckpointError: `run` is no such folder or file.
        ConfigError: an ONNX file with another precision, or to be compiled.
        MissingExtraError: there is nothing to compile with, or no onnxruntime.
    """
    if run.suffix == ".onnx":
        if precision != "fp32" or compiled:
            raise ConfigError(
                f"{run}: an ONNX file runs as it is; leave out --precision and --compile or give the run."
            )
        return onnx_detector(run, device=device)
    import torch

    from semicdvl.checkpoint import load_network, read_run
    from semicdvl.predict.fast import fast

    chosen = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    recipe = read_run(run).get("recipe", {})
    details = {key.capitalize(): str(recipe[key]["name"]) for key in ("method", "model") if key in recipe}
    network = fast(load_network(run, device=chosen), precision=precision, compiled=compiled)
    return NetworkDetector(network, str(run), threshold, details | {"Inference": network.words})
