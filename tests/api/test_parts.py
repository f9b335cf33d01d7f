"""Parts by name: built, listed and registered; what is registered behaves like what is shipped."""

import numpy as np
import pytest
import torch
from tests.api.conftest import ExampleData
from torch import Tensor, nn

import semicdvl as cd
from semicdvl.types import Outputs

TABLES = {
    "model": "semicdvl.models:MODELS",
    "method": "semicdvl.methods:METHODS",
    "vlm": "semicdvl.vlms:VLMS",
    "detector": "semicdvl.unsupervised:UNSUPERVISED",
    "dataset": "semicdvl.data:DATASETS",
}
SHIPPED = {
    "model": "semicdvl.models.fc_siam:build_fc_ef",
    "method": "semicdvl.methods.supervised:Supervised",
    "vlm": "semicdvl.vlms.models.fake:build_fake",
    "detector": "semicdvl.unsupervised.cva:build_cva",
    "dataset": "semicdvl.data.readers.folder:read_folder",
}


class TwoPixelNet(nn.Module):
    """The smallest network: one convolution of both dates."""

    heads = frozenset({"change"})
    symmetric = False

    def __init__(self, *, scale: float = 1.0) -> None:
        super().__init__()
        self.layer, self.scale = nn.Conv2d(6, 2, 1), scale

    def forward(self, t1_BCHW: Tensor, t2_BCHW: Tensor, *, heads: frozenset[str] | None = None) -> Outputs:
        return Outputs(self.layer(torch.cat([t1_BCHW, t2_BCHW], dim=1)) * self.scale)


@pytest.fixture(autouse=True)
def _registries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the registries as they were."""
    from importlib import import_module

    for place in TABLES.values():
        module, _, attribute = place.partition(":")
        table = getattr(import_module(module), attribute)
        for name in ("mine", "own"):
            monkeypatch.setitem(table, name, "")
            monkeypatch.delitem(table, name)


@pytest.mark.parametrize("kind", TABLES)
def test_a_registered_part_is_listed_and_taken_once(kind: str) -> None:
    register, names = getattr(cd, f"register_{kind}"), getattr(cd, f"list_{kind}s")
    register("mine", SHIPPED[kind])
    assert names()[-1] == "mine"
    with pytest.raises(cd.ConfigError, match=r"'mine' is registered already, as semicdvl\..*Choose another name"):
        register("mine", SHIPPED[kind])
    with pytest.raises(cd.ConfigError, match="registered already"):
        register(names()[0], SHIPPED[kind])


@pytest.mark.parametrize("kind", TABLES)
def test_what_is_registered_must_be_found_by_other_code(kind: str) -> None:
    register = getattr(cd, f"register_{kind}")
    with pytest.raises(cd.ConfigError, match="not at the top level of its module"):
        register("own", lambda: None)
    with pytest.raises(cd.ConfigError, match="cannot be imported"):
        register("own", "no.such.module:build")
    with pytest.raises(cd.ConfigError, match="without ':'"):
        register("own:build", SHIPPED[kind])
    assert "own" not in getattr(cd, f"list_{kind}s")()


def test_a_registered_network_is_built_with_its_options(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, TwoPixelNet.__module__, sys.modules[__name__])
    cd.register_model("mine", TwoPixelNet)
    network = cd.create_model("mine", scale=2)
    assert isinstance(network, TwoPixelNet) and network.scale == 2.0
    with pytest.raises(cd.ConfigError, match=r"model .mine. has no option .scal.\. Did you mean .scale."):
        cd.create_model("mine", scal=2)


@pytest.mark.parametrize("kind", ["model", "method", "vlm", "detector"])
def test_an_unknown_name_is_refused_with_the_nearest_known(kind: str) -> None:
    name = {"model": "fc_siam_dif", "method": "fixmach", "vlm": "arial", "detector": "pca_kn"}[kind]
    with pytest.raises(cd.ConfigError, match=r"unknown .*Did you mean '.+'"):
        getattr(cd, f"create_{kind}")(name)


def test_names_of_modules_keep_working() -> None:
    assert cd.create_vlm(SHIPPED["vlm"]).identity == cd.create_vlm("fake").identity
    assert cd.create_detector(SHIPPED["detector"]).name == cd.create_detector("cva").name


def test_settings_of_change_events_are_completed_by_the_vlm(example_data: ExampleData) -> None:
    from semicdvl.detection.detectors.vlm_ceg import VLMDetector

    prompts = cd.Prompts(find=("building",), background=("grass",))
    detector = cd.create_vlm_detector("fake", prompts=prompts, ceg={"delta": 0.01})
    assert isinstance(detector, VLMDetector)
    assert detector.settings == cd.CEGSettings(level="instance", gamma=0.5, gamma_segmentation=0.5, delta=0.01)
    exact = cd.CEGSettings(level="pixel", gamma=0.9)
    assert cd.create_vlm_detector(cd.create_vlm("fake"), prompts=prompts, ceg=exact).settings == exact
    with pytest.raises(cd.ConfigError, match="unknown setting of change event generation"):
        cd.create_vlm_detector("fake", ceg={"dleta": 0.01})


def test_change_events_are_about_the_prompts_that_were_asked(example_data: ExampleData) -> None:
    prompts = cd.Prompts(find=("building",), background=("grass",))
    vlm = cd.create_vlm("fake")
    t1, t2 = (vlm.segment(image, prompts.words) for image in (example_data.before, example_data.after))
    labels = cd.change_events(t1, t2, prompts=prompts, ceg={"gamma": 0.5, "gamma_segmentation": 0.5})
    assert int((labels.change_HW == 1).sum()) == 1200
    assert set(np.unique(labels.t1_HW)) == {0, cd.IGNORE}  # the trees are neither
    assert set(np.unique(labels.t2_HW)) == {0, 1, cd.IGNORE}
    with pytest.raises(cd.DataError, match="the answer for date 1 is about building, grass; the prompts are house"):
        cd.change_events(t1, t2)
