"""The members that a network may have beside its heads; read here alone, so that each has one default.

    member                       where the network has none
    encoder                      nothing starts from pretrained weights: all of it learns at the rate of the heads
    untraceable                  it can be compiled and exported
    drop_train_heads()           training needs no parts that inference does not
    set_ground_sampling(gsd_m)   it works in pixels, whatever their size

A network need not derive from any class of this package, so these are functions and no base class.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn


def get_encoder(network: nn.Module) -> nn.Module | None:
    """Return the part of a network that starts from pretrained weights; None where nothing does."""
    encoder: nn.Module | None = getattr(network, "encoder", None)
    return encoder


def get_untraceable_reason(network: nn.Module) -> str | None:
    """Return why a network can be neither compiled nor exported; None where it can be."""
    reason: str | None = getattr(network, "untraceable", None)
    return reason


def drop_train_heads(network: nn.Module) -> None:
    """Remove the parts of a network that only training needs, if it has any."""
    drop = getattr(network, "drop_train_heads", None)
    if drop is not None:
        drop()


def set_ground_sampling(network: nn.Module, gsd_m: float) -> None:
    """Tell a network that measures in metres how many a pixel of the next images has."""
    tell = getattr(network, "set_ground_sampling", None)
    if tell is not None:
        tell(gsd_m)
