"""Heads: which outputs a network has, declared in its own file and read here.

A builder declares the heads that its network has by default, so that they are known without building it:

    @declare_heads("perturbed", "auxiliary")
    def build_my_network(*, width: int = 16) -> MyNetwork: ...

A network without a declaration has `change` alone. A built network has the same in its attribute `heads`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from semicdvl.errors import ConfigError
from semicdvl.models import MODELS
from semicdvl.registry import resolve_builder
from semicdvl.types import HEADS

if TYPE_CHECKING:
    from torch import nn

Builder = TypeVar("Builder", bound=Callable[..., Any])

CHANGE_ALONE = frozenset({"change"})
"""The heads of a network that declares none."""


def declare_heads(*heads: str) -> Callable[[Builder], Builder]:
    """Declare the heads that a builder's network has by default besides `change`.

    Args:
        heads: names of `types.HEADS`.
    """
    assert set(heads) <= set(HEADS), f"{heads}: heads are {HEADS}"

    def decorate(builder: Builder) -> Builder:
        builder.heads = CHANGE_ALONE | set(heads)  # type: ignore[attr-defined]
        return builder

    return decorate


def models_with_heads(heads: frozenset[str]) -> tuple[str, ...]:
    """Return the names of the registered networks that have all of these heads by default."""
    return tuple(name for name in MODELS if heads <= read_heads(resolve_builder("model", name, MODELS)))


def read_heads(network: nn.Module | Callable[..., Any]) -> frozenset[str]:
    """Return the heads of a network, or those that its builder declares; `change` alone where nothing is declared."""
    heads: frozenset[str] = getattr(network, "heads", CHANGE_ALONE)
    return heads


def resolve_heads(heads: frozenset[str] | None, *, has: frozenset[str]) -> frozenset[str]:
    """Return the heads to compute: those requested, or all but `complementary`, which is no output.

    Raises:
        ConfigError: a head that the network does not have.
    """
    if heads is None:
        return has - {"complementary"}
    if not heads <= has:
        others = ", ".join(models_with_heads(heads)) or "none of this package's"
        raise ConfigError(
            f"the network has no head {sorted(heads - has)}, only {sorted(has)}. Build it with train_heads=True, use a "
            f"network that has the head (by default: {others}), or a method that does not need it."
        )
    return heads
