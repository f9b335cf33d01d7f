"""A trained network as a typed torch module, with a `predict` for images as they are on disk."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from semicdvl.detection.detectors.date_classes import DateClasses
from semicdvl.errors import ConfigError
from semicdvl.models.common.finite import check_finite_scores
from semicdvl.models.common.heads import read_heads
from semicdvl.models.common.images import normalise_image
from semicdvl.raster.stored_values import Stretch
from semicdvl.types import ChangeMap, InputBands, Outputs

if TYPE_CHECKING:
    from torch import Tensor


class TrainedNetwork(nn.Module):
    """A network of a run: an `nn.Module` that is called with normalised batches, and predicts from plain images.

    It is the network itself, whatever its class: that class is a base of its own, beside this one.
    """

    heads: frozenset[str]
    """Which of `semicdvl.types.HEADS` it has; `run.json` names those that were trained."""
    stretch: Stretch | None = None
    """How images of more than 8 bits become the grey values that it was trained with; None: it saw 8-bit images."""

    input_bands: InputBands | None = None
    """The bands that it was trained with, whose values are standardised; None: RGB."""
    date_classes: DateClasses | None = None
    """The classes that its segmentation heads tell apart; None: background and foreground."""

    if TYPE_CHECKING:

        def __call__(self, t1_BCHW: Tensor, t2_BCHW: Tensor, *, heads: frozenset[str] | None = None) -> Outputs:
            """Return the outputs of the named heads for two batches of normalised images."""
            ...

    @torch.inference_mode()
    def predict(self, t1_HWC: NDArray[Any], t2_HWC: NDArray[Any]) -> ChangeMap:
        """Return what changed between two images; they are normalised here, and the network's mode stays as it was.

        Args:
            t1_HWC: date 1, uint8 RGB with values from 0 to 255; for a network that was trained with images of more bits
                also the values of such an image, which get the stretch of the training; for one that was trained with
                other bands their values, in the order of `input_bands`.
            t2_HWC: date 2, of the same size.

        Returns:
            `change_HW` (1 changed, 0 unchanged) and `score_HW` (probability of change); where the network has a
            segmentation head also `t1_HW` and `t2_HW`, indices into `classes` (0 background, 1 foreground, or the
            classes of the run's recipe), and `t1_score_HW` and `t2_score_HW`, their probabilities.

        Raises:
            ConfigError: an image is not uint8 RGB, and not of more bits for a network that knows a stretch; it holds
                no value above 1; or it is of another size than the other.
            CheckpointError: the network gives scores that are not numbers.
        """
        images = [self._check_image(image_HWC, name) for image_HWC, name in ((t1_HWC, "t1"), (t2_HWC, "t2"))]
        if images[0].shape != images[1].shape:
            raise ConfigError(f"predict: t1 is {images[0].shape}, t2 is {images[1].shape}. Give images of one size.")
        dates_BCHW = [self._normalise(image_HWC) for image_HWC in images]
        wanted = frozenset({"change", "segmentation"}) & read_heads(self)
        was_training = self.training
        try:
            found = self.eval()(*dates_BCHW, heads=wanted)
        finally:
            self.train(was_training)
        probability_HW = _get_probabilities(found.change_BKHW)[1]
        change_HW = (probability_HW >= 0.5).astype(np.uint8)
        if found.t1_BKHW is None or found.t2_BKHW is None:
            return ChangeMap(change_HW, probability_HW)
        classes = self.date_classes or DateClasses()
        valid_HW = np.ones(change_HW.shape, bool)
        maps = [
            classes.choose_classes(classes.select_maps(_get_probabilities(logits_BKHW)), valid_HW)
            for logits_BKHW in (found.t1_BKHW, found.t2_BKHW)
        ]
        (t1_HW, t1_score_HW), (t2_HW, t2_score_HW) = maps
        return ChangeMap(
            change_HW, probability_HW, classes.names, classes.foreground, t1_HW, t2_HW,
            t1_score_HW=t1_score_HW, t2_score_HW=t2_score_HW,
        )  # fmt: skip

    def _check_image(self, image_HWC: object, name: str) -> NDArray[Any]:
        """Return an image that the network can be shown."""
        if self.input_bands is None:
            return check_rgb_image(_stretch_values(image_HWC, self.stretch), name)
        return check_band_image(image_HWC, name, self.input_bands)

    def _normalise(self, image_HWC: NDArray[Any]) -> Tensor:
        """Return an image as a batch of one of the weights' number type."""
        weight = next(self.parameters())
        return normalise_image(image_HWC, device=weight.device, bands=self.input_bands).to(weight.dtype)

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        """Copy and pickle by the network's own class, which has an import path."""
        return _make_instance, (type(self).__bases__[1],), self.__dict__


def _stretch_values(image_HWC: object, stretch: Stretch | None) -> object:
    """Return an image of more than 8 bits in the grey values of a training; any other one as it is."""
    found = np.asarray(image_HWC)
    if stretch is None or found.dtype == np.uint8 or found.dtype.kind not in "iuf" or found.ndim != 3:
        return image_HWC
    return stretch(found.transpose(2, 0, 1)).transpose(1, 2, 0) if found.shape[2] == len(stretch.low_C) else image_HWC


def check_rgb_image(image_HWC: object, name: str) -> NDArray[np.uint8]:
    """Return an image that is uint8 RGB.

    Raises:
        ConfigError: it is not, or its values look scaled to 0..1.
    """
    found = np.asarray(image_HWC)
    if found.dtype != np.uint8:
        raise ConfigError(
            f"predict: {name} holds {found.dtype}, but uint8 with values from 0 to 255 is needed. Convert it, such as "
            "(255 * image).round().astype('uint8') for values from 0 to 1."
        )
    if found.ndim != 3 or found.shape[2] != 3 or 0 in found.shape:
        raise ConfigError(f"predict: {name} has the shape {found.shape}, but height x width x 3 (RGB) is needed.")
    if found.max() <= 1:
        raise ConfigError(
            f"predict: {name} holds no value above 1, so it is empty or was scaled to 0..1 before it became uint8. "
            "Give values from 0 to 255."
        )
    return found


def check_band_image(image_HWC: object, name: str, bands: InputBands) -> NDArray[Any]:
    """Return an image that has the bands of a network.

    Raises:
        ConfigError: it has not, or holds no numbers.
    """
    found = np.asarray(image_HWC)
    if found.ndim != 3 or found.shape[2] != bands.count or 0 in found.shape or found.dtype.kind not in "iuf":
        raise ConfigError(
            f"predict: {name} is an array of shape {found.shape} and type {found.dtype}, but height x width x"
            f" {bands.describe()} of numbers are needed."
        )
    return found


def _get_probabilities(logits_BKHW: Tensor) -> NDArray[np.float32]:
    """Return the probabilities KHW of the only image of a batch."""
    probability_KHW: NDArray[np.float32] = logits_BKHW.float().softmax(dim=1)[0].cpu().numpy()
    check_finite_scores(probability_KHW, "predict: the network")
    return probability_KHW


def add_predict(
    network: nn.Module,
    *,
    stretch: Stretch | None = None,
    bands: InputBands | None = None,
    date_classes: DateClasses | None = None,
) -> TrainedNetwork:
    """Let a network predict from plain images; it stays the same object, of a class with the same name.

    Args:
        network: the network.
        stretch: as `TrainedNetwork.stretch`.
        bands: as `TrainedNetwork.input_bands`.
        date_classes: the classes of its segmentation heads; None: background and foreground.
    """
    if not isinstance(network, TrainedNetwork):
        network.__class__ = _extend_class(type(network))
    extended = cast(TrainedNetwork, network)
    extended.stretch, extended.input_bands, extended.date_classes = stretch, bands, date_classes
    return extended


_EXTENDED: dict[str, type[nn.Module]] = {}
"""Import path and number of a network's class -> the class with `predict`, made once."""


def _extend_class(own: type[nn.Module]) -> type[nn.Module]:
    """Return the class of a network with `predict`."""
    key = f"{own.__module__}.{own.__qualname__} {id(own)}"
    if key not in _EXTENDED:
        named = {"__module__": own.__module__, "__qualname__": own.__qualname__, "__doc__": own.__doc__}
        _EXTENDED[key] = type(own.__name__, (TrainedNetwork, own), named)
    return _EXTENDED[key]


def _make_instance(own: type[nn.Module]) -> nn.Module:
    """Make an empty network for its state, which copy and pickle set."""
    extended = _extend_class(own)
    return extended.__new__(extended)
