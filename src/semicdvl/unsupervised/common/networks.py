"""How an unsupervised detector declares the pretrained networks that it uses by default."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

Builder = TypeVar("Builder", bound=Callable[..., Any])

DEFAULT_NETWORKS: Mapping[str, str] = {
    "features": "efficientnet_lite0",  # its weights come as a package, so it works offline
    "sam": "facebook/sam2.1-hiera-large",
    "clip": "openai/clip-vit-base-patch32",
}
"""Argument of a builder -> network that is passed unless its detector declares another: any encoder of timm for
`features`, a folder or name on the model hub for the others."""


def default_networks(
    *, features: str | None = None, sam: str | None = None, clip: str | None = None
) -> Callable[[Builder], Builder]:
    """Declare which networks a builder gets by default, in place of `DEFAULT_NETWORKS`.

    Args:
        features: encoder of timm for the builder's argument `features`.
        sam: SAM or SAM 2 for its argument `sam`.
        clip: CLIP or SigLIP for its argument `clip`.

    Example:
        >>> @default_networks(features="resnet18")
        ... def build_my_detector(features, *, threshold="otsu"): ...
        >>> read_default_networks(build_my_detector)["features"]
        'resnet18'
    """
    declared = {name: value for name, value in (("features", features), ("sam", sam), ("clip", clip)) if value}

    def declare(builder: Builder) -> Builder:
        builder.default_networks = declared  # type: ignore[attr-defined]
        return builder

    return declare


def read_default_networks(builder: Callable[..., Any]) -> dict[str, str]:
    """Return the network that a builder gets by default for each argument of `DEFAULT_NETWORKS`."""
    return {**DEFAULT_NETWORKS, **getattr(builder, "default_networks", {})}
