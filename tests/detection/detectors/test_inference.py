"""Networks prepared for inference give the results they gave before; what is not exact is an option."""

import inspect
import shutil

import pytest
import torch
from tests.support.plain_network import PlainNetwork
from torch import Tensor, nn

from semicdvl import models
from semicdvl.checkpoint import build_network
from semicdvl.detection.detectors.inference import InferenceNetwork, fold_batch_norms, prepare_for_inference
from semicdvl.errors import ConfigError, MissingExtraError
from semicdvl.registry import resolve_builder
from semicdvl.types import Outputs

DATES = tuple(torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(seed)) for seed in (1, 2))
SMALL = {"backbone": "resnet18", "pretrained": "none"}


def lived(network: nn.Module) -> nn.Module:
    """Give batch norms the statistics and weights of a trained network: those of a new one fold into nothing."""
    generator = torch.Generator().manual_seed(0)
    for norm in network.modules():
        if isinstance(norm, nn.BatchNorm2d):
            for tensor, low, high in (
                (norm.running_mean, -0.2, 0.2),
                (norm.running_var, 0.5, 2),
                (norm.weight, 0.6, 1.4),
                (norm.bias, -0.2, 0.2),
            ):
                tensor.data.uniform_(low, high, generator=generator)
    return network.eval()


def differ(network: nn.Module, ready: nn.Module) -> float:
    """Return the largest difference of a logit, as a share of the largest one."""
    with torch.no_grad():
        before, after = (each(*DATES, heads=frozenset({"change"})).change_BKHW for each in (network, ready))
    assert after.dtype == torch.float32 and after.shape == before.shape
    return float((after - before).abs().max() / before.abs().max())


@pytest.mark.parametrize(("name", "norms"), [("resnet18", 24), ("tf_efficientnet_lite0", 52)])
def test_norms_are_folded_and_change_nothing(name: str, norms: int) -> None:
    network = lived(
        build_network({"name": "siam_light", "backbone": name, "pretrained": "none", "decoder_channels": 24})
    )
    weights = {key: value.clone() for key, value in network.state_dict().items()}
    ready = prepare_for_inference(network)
    assert ready.folded_count == norms  # all but the decoder's last, which comes after a sum
    assert sum(isinstance(module, nn.BatchNorm2d) for module in ready.modules()) == 1
    assert differ(network, ready) < 1e-4
    assert (ready.heads == {"change"} and "53" in ready.description) or norms != 53
    assert all(torch.equal(value, weights[key]) for key, value in network.state_dict().items()), "the original is kept"


@pytest.mark.parametrize("name", [name for name in models.MODELS if name not in {"siam_light", "ban", "dpt"}])
def test_every_network_can_be_made_fast(name: str) -> None:
    takes = inspect.signature(resolve_builder("model", name, models.MODELS)).parameters
    given = {key: value for key, value in SMALL.items() if key in takes}
    network = lived(build_network({"name": name, **given}))
    assert differ(network, prepare_for_inference(network)) < 1e-4
    assert differ(network, prepare_for_inference(network, precision="bf16")) < 0.2


class TwiceUsed(nn.Module):
    """A convolution whose result is also added behind its norm, which hooks on modules don't see."""

    heads = frozenset({"change"})

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 2, 3, padding=1), nn.BatchNorm2d(2)

    def forward(self, t1_BCHW: Tensor, t2_BCHW: Tensor, *, heads: frozenset[str] | None = None) -> Outputs:
        result = self.conv(t1_BCHW - t2_BCHW)
        return Outputs(self.norm(result) + result)


class Shared(TwiceUsed):
    """One norm behind two convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.other = nn.Conv2d(3, 2, 1)

    def forward(self, t1_BCHW: Tensor, t2_BCHW: Tensor, *, heads: frozenset[str] | None = None) -> Outputs:
        return Outputs(self.norm(self.conv(t1_BCHW)) - self.norm(self.other(t2_BCHW)))


@pytest.mark.parametrize("build", [TwiceUsed, Shared, PlainNetwork])
def test_what_cannot_be_folded_stays(build: type[nn.Module]) -> None:
    network = lived(build())
    assert fold_batch_norms(network)[1] == 0
    assert differ(network, prepare_for_inference(network)) < 1e-6


def test_bf16_is_near_and_other_words_are_refused() -> None:
    torch.manual_seed(0)
    network = lived(build_network({"name": "siam_light", **SMALL}))
    ready = prepare_for_inference(network, precision="bf16")
    assert {parameter.dtype for parameter in ready.parameters()} == {torch.bfloat16}
    assert 0 < differ(network, ready) < 0.05
    with pytest.raises(ConfigError, match=r"fp16.*Known: fp32, bf16"):
        prepare_for_inference(network, precision="fp16")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="change head alone"):
        ready(*DATES, heads=frozenset({"change", "features"}))


def test_compiling_needs_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(MissingExtraError, match=r"C\+\+ compiler.*apt install"):
        prepare_for_inference(PlainNetwork(), compiled=True)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler")
def test_a_compiled_network_says_the_same() -> None:
    network = lived(build_network({"name": "siam_light", **SMALL}))
    ready = prepare_for_inference(network, compiled=True)
    assert isinstance(ready, InferenceNetwork) and "compiled" in ready.description
    assert differ(network, ready) < 1e-4
