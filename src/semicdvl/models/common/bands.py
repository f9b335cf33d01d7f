"""Let a network that is written for RGB read any number of bands, from its pretrained weights on RGB.

The convolutions that read the image (of a transformer the patch embedding) get more inputs as timm gives them
(`timm.models.adapt_input_conv`): the weights of red, green and blue are repeated in turn until there are enough, and
all are multiplied by 3 / bands, so that the sums keep their size. Band 4 thus starts as red does, and training tells
them apart. A convolution that reads both dates at once gets the same for each date.
"""

from __future__ import annotations

import torch
from timm.models import adapt_input_conv
from torch import Tensor, nn

from semicdvl.errors import ConfigError
from semicdvl.models.encoders.timm import Backbone
from semicdvl.types.bands import MAX_BANDS, MIN_BANDS

RGB_BANDS = 3
PROBE_PX = 64
"""Side of the images with which a widened network is tried."""


def widen_input(network: nn.Module, bands: int, *, name: str) -> nn.Module:
    """Let a network read so many bands instead of three; with three it stays as it is.

    Args:
        network: built for RGB; it is changed.
        bands: how many.
        name: of the network, for the error message.

    Raises:
        ConfigError: a number out of range, or the network reads RGB in another way than by a convolution.
    """
    if not isinstance(bands, int) or not MIN_BANDS <= bands <= MAX_BANDS:
        raise ConfigError(f"model '{name}': bands = {bands} is out of range. Give {MIN_BANDS} to {MAX_BANDS}.")
    if bands == RGB_BANDS:
        return network
    for convolution in _find_image_convolutions(network):
        _widen_convolution(convolution, bands)
    for module in network.modules():
        if isinstance(module, Backbone):
            module.repeat_normalisation(bands)
    _try_network(network, bands, name=name)
    return network


def _find_image_convolutions(network: nn.Module) -> list[nn.Conv2d]:
    """Return the convolutions that read one date, or else the first one, which reads both as one image."""
    convolutions = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
    of_one_date = [one for one in convolutions if one.in_channels == RGB_BANDS and one.groups == 1]
    return of_one_date or [one for one in convolutions if one.in_channels == 2 * RGB_BANDS][:1]


def _widen_convolution(convolution: nn.Conv2d, bands: int) -> None:
    """Give a convolution more inputs, for each of the dates that it reads."""
    of_dates: tuple[Tensor, ...] = torch.split(convolution.weight.detach(), RGB_BANDS, dim=1)
    widened = torch.cat([adapt_input_conv(bands, weight) for weight in of_dates], dim=1)
    convolution.in_channels = widened.shape[1]
    convolution.weight = nn.Parameter(widened, requires_grad=convolution.weight.requires_grad)


def _try_network(network: nn.Module, bands: int, *, name: str) -> None:
    """Refuse a network that fails on images of so many bands."""
    parameter = next(network.parameters(), None)
    if parameter is None or parameter.device.type == "meta":
        return
    image_BCHW = torch.zeros(1, bands, PROBE_PX, PROBE_PX).to(parameter)
    was_training = network.training
    try:
        with torch.no_grad():
            network.eval()(image_BCHW, image_BCHW, heads=frozenset({"change"}))
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        raise ConfigError(
            f"model '{name}' reads red, green and blue alone, and data.bands names {bands} bands. Leave data.bands out,"
            " or take a network on an encoder of timm, such as siam_light, dpt or deeplab."
        ) from error
    finally:
        network.train(was_training)
