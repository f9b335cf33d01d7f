"""Make a trained network fast for inference.

Always, without a change of the result: only the change head is computed (and, where the method trained it, the
segmentation head, which says what kind of change it is), every batch norm that follows a convolution is
folded into it (in eval mode both are linear), and weights and images are channels-last. The result is compared with
the original network; where it differs by more than rounding, the network is left unfolded. Optionally:

    precision="bf16"   weights and activations in bfloat16 (logits in float32); faster on processors with AMX or
                       avx512_bf16 and on GPUs, slower elsewhere
    compiled=True      torch.compile with frozen weights; pays from a few hundred tiles of one size on, since compiling
                       takes a minute or two for every size

`benchmarks/inference.py` measures all of them, and their effect on the map.
"""

from __future__ import annotations

import copy
import os
import shutil
from typing import Any, Literal, cast, get_args

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from semicdvl.errors import ConfigError, MissingExtraError
from semicdvl.models.common import contract
from semicdvl.types import Outputs

Precision = Literal["fp32", "bf16"]
PRECISION_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
CHANGE_HEAD_ONLY = frozenset({"change"})
SEGMENTATION = frozenset({"change", "segmentation"})
"""With the class of both dates."""
FOLDING_TOLERANCE = 1e-4
"""Largest difference of a logit, relative to the largest logit (or to 1), that counts as rounding."""
FOLDABLE_CONVOLUTIONS = ("Conv2d", "Conv2dSame")
"""Convolutions that use their weight unchanged: that of torch, and that of timm with TensorFlow's padding."""
PROBE_PX = (64, 96)
"""Height and width of the random pair for the comparison."""


class InferenceNetwork(nn.Module):
    """A network's change head, maybe with its segmentation head, called like it; `prepare_for_inference` makes it.

    Attributes:
        logits: the folded copy, which returns tensors.
        folded_count: number of batch norms that were folded.
        precision: of weights and maps.
        compiled: whether `torch.compile` is used.
        heads: the change head alone, or with it the segmentation head.
    """

    heads: frozenset[str] = CHANGE_HEAD_ONLY

    def __init__(
        self,
        network: nn.Module,
        *,
        folded: int,
        precision: Precision,
        compiled: bool,
        heads: frozenset[str] = CHANGE_HEAD_ONLY,
    ) -> None:
        """Wrap a prepared network."""
        super().__init__()
        self.heads, self.logits = heads, ChangeLogits(network)
        self.folded_count, self.precision, self.compiled = folded, precision, compiled
        # a method of it, so that weights are not listed twice
        self._call = torch.compile(self.logits.forward, options={"freezing": True}) if compiled else self.logits.forward

    @property
    def network(self) -> nn.Module:
        """The folded copy."""
        return self.logits.network

    @property
    def description(self) -> str:
        """What was done to the network, for reports."""
        done = [self.precision, "channels-last", f"{self.folded_count} batch norms folded"]
        return ", ".join([*done, "compiled"] if self.compiled else done)

    def set_ground_sampling(self, gsd_m: float) -> None:
        """Tell the network how many metres a pixel of the next images has."""
        contract.set_ground_sampling(self.network, gsd_m)

    def forward(self, t1_BCHW: Tensor, t2_BCHW: Tensor, *, heads: frozenset[str] | None = None) -> Outputs:
        """Return the change logits, and those of both dates where the segmentation head was kept, in float32.

        Raises:
            ConfigError: another head is requested, or compiling failed.
        """
        wanted = self.heads if heads is None else heads
        if not wanted <= self.heads:
            kept = (
                "the change head alone" if self.heads == CHANGE_HEAD_ONLY else f"the heads {sorted(self.heads)} alone"
            )
            raise ConfigError(
                f"A network prepared for inference has {kept}, not {sorted(wanted)}. Use the original network."
            )
        dates = [
            date_BCHW.to(PRECISION_DTYPES[self.precision]).contiguous(memory_format=torch.channels_last)
            for date_BCHW in (t1_BCHW, t2_BCHW)
        ]
        if "segmentation" in wanted:
            with torch.no_grad():
                return _keep_float_heads(self.network(*dates, heads=SEGMENTATION))
        with torch.no_grad():  # without which the compiler would not freeze the weights
            return Outputs(change_BKHW=(self._call_compiled(*dates) if self.compiled else self._call(*dates)).float())

    def _call_compiled(self, t1_BCHW: Tensor, t2_BCHW: Tensor) -> Tensor:
        """Call the compiled network; it is compiled now if this size is new."""
        from torch._dynamo.exc import TorchDynamoException

        try:
            logits_BKHW: Tensor = self._call(t1_BCHW, t2_BCHW)
        except TorchDynamoException as error:
            reason = str(error).strip().splitlines()[0]
            raise ConfigError(f"The network cannot be compiled ({reason}). Leave out --compile.") from error
        return logits_BKHW


class ChangeLogits(nn.Module):
    """Two dates in, change logits out, as plain tensors, for compilers and exporters."""

    def __init__(self, network: nn.Module) -> None:
        """Wrap a network."""
        super().__init__()
        self.network = network

    def forward(self, t1_BCHW: Tensor, t2_BCHW: Tensor) -> Tensor:
        """Return the change logits BKHW."""
        return cast(Outputs, self.network(t1_BCHW, t2_BCHW, heads=CHANGE_HEAD_ONLY)).change_BKHW


class HeadLogits(nn.Module):
    """Two dates in, the logits of change in a tuple, with those of both dates where they are wanted, for exporters."""

    def __init__(self, network: nn.Module, heads: frozenset[str]) -> None:
        """Wrap a network; `heads` is `CHANGE_HEAD_ONLY` or `SEGMENTATION`."""
        super().__init__()
        self.network, self.heads = network, heads

    def forward(self, t1_BCHW: Tensor, t2_BCHW: Tensor) -> tuple[Tensor, ...]:
        """Return the logits BKHW of each head."""
        found = cast(Outputs, self.network(t1_BCHW, t2_BCHW, heads=self.heads))
        wanted = (
            (found.change_BKHW, found.t1_BKHW, found.t2_BKHW) if self.heads == SEGMENTATION else (found.change_BKHW,)
        )
        return tuple(each_BKHW for each_BKHW in wanted if each_BKHW is not None)


def prepare_for_inference(
    network: nn.Module,
    *,
    precision: Precision = "fp32",
    compiled: bool = False,
    heads: frozenset[str] = CHANGE_HEAD_ONLY,
    bands: int = 3,
) -> InferenceNetwork:
    """Return a copy of a network that is fast at inference; the network itself is not changed.

    Args:
        network: with the call of `semicdvl.types.Network`.
        precision: "fp32" is exact to rounding; "bf16" is not.
        compiled: compile it at its first call; the change head alone is.
        heads: what is kept: `CHANGE_HEAD_ONLY` or `SEGMENTATION`.
        bands: of its images.

    Raises:
        ConfigError: an unknown precision.
        MissingExtraError: no C++ compiler to compile with.
    """
    if precision not in PRECISION_DTYPES:
        raise ConfigError(f"precision '{precision}' is unknown. Known: {', '.join(get_args(Precision))}.")
    if compiled:
        refuse_untraceable(network, remedy="Leave out --compile")
        _check_compiler()
    kept = CHANGE_HEAD_ONLY if compiled else heads
    ready, count = fold_batch_norms(keep_heads(network, kept), heads=kept, bands=bands)
    ready = ready.to(dtype=PRECISION_DTYPES[precision], memory_format=torch.channels_last)  # type: ignore[call-overload]
    return InferenceNetwork(ready, folded=count, precision=precision, compiled=compiled, heads=kept).eval()


def refuse_untraceable(network: nn.Module, *, remedy: str) -> None:
    """Refuse a network that does more than its layers compute.

    Raises:
        ConfigError: its attribute `untraceable` says why.
    """
    reason = contract.get_untraceable_reason(network)
    if reason is not None:
        raise ConfigError(f"This network can be neither compiled nor exported: {reason}. {remedy}.")


def keep_heads(network: nn.Module, heads: frozenset[str]) -> nn.Module:
    """Return a copy in eval mode that has these heads; for the change head alone, without what only training needs."""
    ready = copy.deepcopy(network).eval().requires_grad_(False)
    if heads == CHANGE_HEAD_ONLY:
        contract.drop_train_heads(ready)
    return ready


def _keep_float_heads(outputs: Outputs) -> Outputs:
    """Return the logits of change and of both dates, in float32."""
    assert outputs.t1_BKHW is not None and outputs.t2_BKHW is not None, "the network has a segmentation head"
    return Outputs(outputs.change_BKHW.float(), t1_BKHW=outputs.t1_BKHW.float(), t2_BKHW=outputs.t2_BKHW.float())


@torch.no_grad()
def fold_batch_norms(
    network: nn.Module, *, heads: frozenset[str] = CHANGE_HEAD_ONLY, bands: int = 3
) -> tuple[nn.Module, int]:
    """Return a network with its batch norms folded into the convolutions before them, and their number.

    Hooks on a forward pass of a random pair show which norm follows which convolution. A norm is folded where every
    call of it gets the output of one convolution and that output goes to no other norm. What hooks do not see, such as
    an output that is also added elsewhere, is found by a comparison at the end: then nothing is folded.

    Args:
        network: in eval mode; it is not changed.
        heads: the heads whose logits must stay as they are.
        bands: of its images.
    """
    dates = _make_probe_pair(network, bands)
    before_BKHW = _compute_logits(network, dates, heads)
    result = copy.deepcopy(network)
    pairs = _find_foldable_pairs(result, dates)
    for norm_name, convolution_name in pairs.items():
        norm = result.get_submodule(norm_name)
        fused = fuse_conv_bn_eval(result.get_submodule(convolution_name), norm)  # type: ignore[type-var, arg-type]
        result.set_submodule(convolution_name, fused.requires_grad_(False))
        result.set_submodule(norm_name, _keep_activation(norm))
    after_BKHW = _compute_logits(result, dates, heads)
    largest = max(1.0, float(before_BKHW.abs().max()))
    if not float((after_BKHW - before_BKHW).abs().max()) <= FOLDING_TOLERANCE * largest:
        return network, 0
    return result, len(pairs)


def _compute_logits(network: nn.Module, dates: list[Tensor], heads: frozenset[str]) -> Tensor:
    """Return the logits of change and of the dates, where these are kept, side by side."""
    if "segmentation" not in heads:
        logits_BKHW: Tensor = ChangeLogits(network)(*dates)
        return logits_BKHW
    found = _keep_float_heads(network(*dates, heads=SEGMENTATION))
    parts = [one for one in (found.change_BKHW, found.t1_BKHW, found.t2_BKHW) if one is not None]
    return torch.cat(parts, dim=1)


def _make_probe_pair(network: nn.Module, bands: int) -> list[Tensor]:
    """Return a random pair on the network's device."""
    parameter = next(network.parameters())
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(1, bands, *PROBE_PX, generator=generator).to(parameter) for _ in range(2)]


def _find_foldable_pairs(network: nn.Module, dates: list[Tensor]) -> dict[str, str]:
    """Return the names of norms and of the convolutions that they can be folded into."""
    names = {module: name for name, module in network.named_modules()}
    results: dict[int, tuple[nn.Module, Tensor]] = {}  # the tensors are kept, so that no other gets the same id
    sources: dict[nn.Module, set[nn.Module | None]] = {}
    norms: dict[nn.Module | None, set[nn.Module]] = {}

    def convolved(module: nn.Module, _: Any, result: Tensor) -> None:
        results[id(result)] = module, result

    def normed(module: nn.Module, given: tuple[Tensor, ...], _: Any) -> None:
        source = results[id(given[0])][0] if id(given[0]) in results else None
        sources.setdefault(module, set()).add(source)
        norms.setdefault(source, set()).add(module)

    hooks = [
        module.register_forward_hook(normed if _has_own_statistics(module) else convolved)
        for module in names
        if _has_own_statistics(module) or type(module).__name__ in FOLDABLE_CONVOLUTIONS
    ]
    try:
        ChangeLogits(network)(*dates)
    finally:
        for hook in hooks:
            hook.remove()
    return {
        names[norm]: names[source]
        for norm, before in sources.items()
        if len(before) == 1 and (source := next(iter(before))) is not None and norms[source] == {norm}
    }


def _has_own_statistics(module: nn.Module) -> bool:
    """Tell whether a module is a batch norm with running statistics."""
    return isinstance(module, nn.BatchNorm2d) and module.running_mean is not None


def _keep_activation(norm: nn.Module) -> nn.Module:
    """Return the activation of a norm, which those of timm include, or the identity."""
    activation = getattr(norm, "act", None)
    return activation if isinstance(activation, nn.Module) else nn.Identity()


def _check_compiler() -> None:
    """Refuse to compile without a compiler.

    Raises:
        MissingExtraError: there is no C++ compiler.
    """
    compilers = [name for name in (os.environ.get("CXX"), "g++", "clang++", "c++", "cl") if name]
    if not any(shutil.which(name) for name in compilers):
        raise MissingExtraError(
            f"--compile needs a C++ compiler, and none of {', '.join(compilers)} is on the PATH. Install one (Debian "
            "and Ubuntu: apt install g++), leave out --compile, or use `semicdvl export RUN --to onnx`."
        )
