"""What finds the change: a vision-language model with change event generation (no labels), or a trained network."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from semicdvl.errors import ConfigError
from semicdvl.pseudo import ceg
from semicdvl.pseudo.labels import component_events
from semicdvl.pseudo.objects import change_score
from semicdvl.pseudo.prompts import Prompts
from semicdvl.pseudo.settings import CEGSettings
from semicdvl.types import IGNORE, IMAGENET_MEAN, IMAGENET_STD, VLM, ChangeMap

if TYPE_CHECKING:
    from torch import nn


@runtime_checkable
class Described(Protocol):
    """A detector that can tell a reader of the report what it is."""

    def description(self) -> dict[str, str]:
        """Return what the detector is made of, as label -> text."""
        ...


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

    def decide(self, planes_PHW: NDArray[np.float32], valid_HW: NDArray[np.bool_]) -> ChangeMap:
        """Return the change map of the whole raster."""
        count = len(self.prompts.words)
        t1_CHW, t2_CHW = planes_PHW[:count], planes_PHW[count:]
        foreground = self.prompts.foreground
        change_HW = np.where(valid_HW, self._changed(t1_CHW, t2_CHW, valid_HW), np.uint8(IGNORE)).astype(np.uint8)
        difference_HW = change_score(t1_CHW, t2_CHW, foreground=foreground)
        score_HW = np.where(valid_HW, difference_HW, np.float32(np.nan)).astype(np.float32)
        classes_HW = [np.where(valid_HW, scores.argmax(axis=0), IGNORE).astype(np.uint8) for scores in (t1_CHW, t2_CHW)]
        return ChangeMap(change_HW, score_HW, self.prompts.words, foreground, *classes_HW)

    def _changed(
        self, t1_CHW: NDArray[np.float32], t2_CHW: NDArray[np.float32], valid_HW: NDArray[np.bool_]
    ) -> NDArray[np.bool_]:
        """Return where change event generation says changed, unreliable pixels counted as unchanged."""
        foreground, settings = self.prompts.foreground, self.settings
        pixel_HW, reliable_HW = ceg.pixel_level(t1_CHW, t2_CHW, foreground=foreground, gamma=settings.gamma)
        if settings.level == "pixel":
            return pixel_HW & reliable_HW
        labels_t1_HW, labels_t2_HW = (self._objects(scores, valid_HW) for scores in (t1_CHW, t2_CHW))
        found = component_events(labels_t1_HW, labels_t2_HW, t1_CHW, t2_CHW, prompts=self.prompts, settings=settings)
        if settings.level == "instance":
            return found.alone_HW | found.replaced_HW
        changed_HW: NDArray[np.bool_] = ceg.mixed(pixel_HW, reliable_HW, found.alone_HW) == 1
        return changed_HW | (found.replaced_HW & reliable_HW)

    def _objects(self, scores_CHW: NDArray[np.float32], valid_HW: NDArray[np.bool_]) -> NDArray[np.int32]:
        """Return the foreground objects on valid ground as a label image."""
        labels_HW = ceg.components(
            np.where(valid_HW, scores_CHW, np.float32(0)),
            foreground=self.prompts.foreground,
            threshold=self.settings.instance_score,
            min_area_px=self.settings.min_area_px,
        )
        return np.where(valid_HW, labels_HW, 0).astype(np.int32)


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

    def description(self) -> dict[str, str]:
        """Return name, size and threshold."""
        count = sum(parameter.numel() for parameter in self.network.parameters())
        return {
            "Detector": f"trained network, {type(self.network).__name__}, {count / 1e6:.1f} M parameters",
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

    def decide(self, planes_PHW: NDArray[np.float32], valid_HW: NDArray[np.bool_]) -> ChangeMap:
        """Return where the probability reaches the threshold; the score is the probability."""
        probability_HW = planes_PHW[0]
        change_HW = np.where(valid_HW, probability_HW >= self.threshold, np.uint8(IGNORE)).astype(np.uint8)
        return ChangeMap(change_HW, np.where(valid_HW, probability_HW, np.float32(np.nan)).astype(np.float32))


def _normalised(image_HWC: NDArray[np.uint8], device: Any) -> Any:
    """Return an image as the networks take it: float BCHW, RGB / 255, ImageNet mean and deviation."""
    import torch

    image_CHW = torch.from_numpy(np.ascontiguousarray(image_HWC)).to(device).permute(2, 0, 1).float() / 255
    mean_C11, std_C11 = (torch.tensor(values, device=device)[:, None, None] for values in (IMAGENET_MEAN, IMAGENET_STD))
    return ((image_CHW - mean_C11) / std_C11)[None].contiguous(memory_format=torch.channels_last)


def vlm_detector(vlm: VLM, *, prompts: Prompts, settings: CEGSettings | None = None) -> VLMCEG:
    """Return the detector that needs no labels; without `settings` at instance level."""
    return VLMCEG(vlm, prompts) if settings is None else VLMCEG(vlm, prompts, settings)


def network_detector(run: Path, *, device: str = "auto", threshold: float = 0.5) -> NetworkDetector:
    """Return the detector of a trained run.

    Args:
        run: a folder that `semicdvl train` wrote.
        device: "auto" takes a GPU where there is one.
        threshold: least probability of a changed pixel.

    Raises:
        CheckpointError: `run` is no such folder.
    """
    import torch

    from semicdvl.checkpoint import load_network, read_run

    chosen = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    recipe = read_run(run).get("recipe", {})
    details = {key.capitalize(): str(recipe[key]["name"]) for key in ("method", "model") if key in recipe}
    return NetworkDetector(load_network(run, device=chosen), str(run), threshold, details)
