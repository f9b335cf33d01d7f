"""Checkpoints of the public SemiCD-VL code: the same logits as an independent network, and clear refusals."""

import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.support.command import command
from tests.support.dataset_files import folder_of_pairs
from tests.support.public_network import PublicNetwork, with_statistics
from torch import Tensor

from semicdvl import load, official
from semicdvl.checkpoint import build_network, load_weights
from semicdvl.data.readers import folder
from semicdvl.detection.detectors.network import build_network_detector
from semicdvl.errors import CheckpointError, InputError
from semicdvl.official import extract_tensors, import_public_checkpoint
from semicdvl.training.evaluate import evaluate_run
from semicdvl.training.run_record import name_score_column

State = dict[str, Tensor]


@pytest.fixture(scope="module")
def public() -> PublicNetwork:
    torch.manual_seed(0)
    network = with_statistics(PublicNetwork())
    assert isinstance(network, PublicNetwork)
    return network


@pytest.fixture(scope="module")
def imported(public: PublicNetwork, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint as the public code saves it on several GPUs, its best score a NumPy number."""
    root = tmp_path_factory.mktemp("official")
    state = {f"module.{name}": value for name, value in public.state_dict().items()}
    optimizer = torch.optim.SGD(public.parameters(), lr=0.1).state_dict()
    content = {"model": state, "optimizer": optimizer, "epoch": 77, "previous_best": np.float64(81.94)}
    torch.save(content, root / "best.pth")
    assert import_public_checkpoint(root / "best.pth", root / "run").tensors == 396
    (root / "best.pth").unlink()
    return root / "run"


def test_an_imported_network_gives_the_outputs_of_the_public_one(public: PublicNetwork, imported: Path) -> None:
    t1_BCHW, t2_BCHW = torch.randn(2, 2, 3, 64, 96, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        ours, theirs = load(imported)(t1_BCHW, t2_BCHW), public(t1_BCHW, t2_BCHW)
    for name, value in theirs.items():
        assert value.std() > 0.02, f"{name} is too flat to tell networks apart"
        torch.testing.assert_close(getattr(ours, name), value, atol=1e-4, rtol=0)


def test_the_command_takes_a_state_dict_alone_and_says_what_its_scores_are(
    public: PublicNetwork, imported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save(public.state_dict(), tmp_path / "latest.pth")
    code, text, complaint = command(capsys, "import-official", tmp_path / "latest.pth", "-o", tmp_path / "run")
    assert code == 0, complaint
    assert "396 tensors, encoder resnet50s" in text and "test-selected" in text
    first, second = (load_weights(run / "model.safetensors") for run in (imported, tmp_path / "run"))
    assert first.keys() == second.keys() and all(torch.equal(value, second[name]) for name, value in first.items())
    assert name_score_column(tmp_path / "run", "test") == "test (test-selected)"
    code, _, complaint = command(capsys, "import-official", tmp_path / "latest.pth", "-o", tmp_path / "run")
    assert code == 2 and "not empty" in complaint


@pytest.mark.parametrize("prefix", ["module._orig_mod.", "_orig_mod.module.", "_orig_mod."])
def test_prefixes_of_any_wrapping_are_taken_off(public: PublicNetwork, prefix: str) -> None:
    state = _small(public)
    found = extract_tensors({"model": {prefix + name: value for name, value in state.items()}}, source=Path("x.pth"))
    assert found.keys() == state.keys()


def test_an_imported_run_can_be_detected_with_and_evaluated(imported: Path, tmp_path: Path) -> None:
    record = json.loads((imported / "run.json").read_text())
    assert record["imported"] | {"epoch": 77.0, "previous_best": 81.94} == record["imported"]
    assert record["selected_on"] == "test"
    detector = build_network_detector(imported, device="cpu")
    images = np.random.default_rng(0).integers(0, 256, (2, 48, 64, 3), dtype=np.uint8)
    assert detector.predict_scores(*images).shape == (3, 48, 64)  # change, and the foreground of either date
    assert detector.description()["Method"] == "semicd_vl"
    pairs = folder.read_folder(folder_of_pairs(tmp_path / "data", ["one", "two"]))
    assert 0 <= evaluate_run(imported, pairs, subset="all")["iou"] <= 1


class Runs:
    """What a malicious pickle does."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Callable[..., None], tuple[str]]:
        return os.mkdir, (str(self.target),)


def _small(public: PublicNetwork) -> State:
    """The public names with tensors of one element: enough for every check of names."""
    return {name: torch.zeros(1) for name in public.state_dict()}


def test_missing_and_unexpected_names_are_listed(public: PublicNetwork, tmp_path: Path) -> None:
    state = dict(public.state_dict())
    lost = state.pop("decode_head.conv_seg_for_vl.bias")
    state |= {
        "decode_head.conv_seg_for_text.bias": lost,
        "auxiliary_seg_head.conv_seg.weight": torch.zeros(6, 256, 1, 1),
    }
    state["backbone.bn1.running_var"] = torch.full((64,), torch.nan)
    torch.save(state, tmp_path / "odd.pth")
    with pytest.raises(CheckpointError) as refused:
        import_public_checkpoint(tmp_path / "odd.pth", tmp_path / "run")
    for words in (
        "1 missing: decode_head.conv_seg_for_vl.bias",
        "1 unexpected: decode_head.conv_seg_for_text.bias",
        "auxiliary_seg_head.conv_seg.weight is 6 x 256 x 1 x 1 where 2 x 256 x 1 x 1 is expected",
        "1 with values that are not finite: backbone.bn1.running_var",
    ):
        assert words in str(refused.value)
    assert not (tmp_path / "run").exists()


def test_another_model_is_refused_with_a_short_list(tmp_path: Path) -> None:
    torch.save({"state_dict": {f"layer{n}.weight": torch.zeros(2) for n in range(50)}}, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match=r"396 missing: .*and 376 more; 50 unexpected: .*and 30 more"):
        import_public_checkpoint(tmp_path / "other.pth", tmp_path / "run")


@pytest.mark.parametrize("where", ["beside", "inside"])
@pytest.mark.parametrize("zipped", [True, False])
def test_objects_are_refused_and_nothing_is_run(
    public: PublicNetwork, tmp_path: Path, where: str, zipped: bool
) -> None:
    trap, state = Runs(tmp_path / "trapped"), _small(public)
    content = {"model": state, "args": trap} if where == "beside" else {"model": {**state, "args": trap}}
    torch.save(content, tmp_path / "trap.pth", _use_new_zipfile_serialization=zipped)
    with pytest.raises(InputError, match=r"a Python object besides tensors \(\w+\.mkdir\).*none of it was run"):
        import_public_checkpoint(tmp_path / "trap.pth", tmp_path / "run")
    assert not (tmp_path / "trapped").exists() and not (tmp_path / "run").exists()


def test_other_files_are_refused_as_checkpoints(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        import_public_checkpoint(tmp_path / "none.pth", tmp_path / "run")
    (tmp_path / "text.pth").write_text("hello there")
    with pytest.raises(InputError, match="cannot be read as a checkpoint") as refused:
        import_public_checkpoint(tmp_path / "text.pth", tmp_path / "run")
    assert "weights_only" not in str(refused.value)  # torch's advice to switch its protection off
    torch.save([torch.zeros(2)], tmp_path / "list.pth")
    with pytest.raises(CheckpointError, match="no tensors by name"):
        import_public_checkpoint(tmp_path / "list.pth", tmp_path / "run")
    torch.save({"model": {"a": torch.zeros(2)}}, tmp_path / "whole.pth")
    (tmp_path / "cut.pth").write_bytes((tmp_path / "whole.pth").read_bytes()[:700])
    with pytest.raises(InputError, match="cannot be read as a checkpoint"):
        import_public_checkpoint(tmp_path / "cut.pth", tmp_path / "run")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.doc").write_text("mine")
    with pytest.raises(CheckpointError, match="not empty"):
        import_public_checkpoint(tmp_path / "whole.pth", tmp_path / "run")


STRANGE = {
    "sparse": lambda tensor: tensor.to_sparse(),
    "without storage": lambda tensor: tensor.to("meta"),
    "complex": lambda tensor: tensor.to(torch.complex64),
    "float8": lambda tensor: tensor.to(torch.float8_e4m3fn),
    "bool": lambda tensor: tensor.to(torch.bool),
}


@pytest.mark.parametrize("kind", STRANGE)
def test_tensors_that_are_no_weights_are_refused(kind: str, tmp_path: Path) -> None:
    torch.save({"model": {"decode_head.conv_seg.bias": STRANGE[kind](torch.ones(2))}}, tmp_path / "odd.pth")
    with pytest.raises(CheckpointError, match=r"1 of a type or layout that weights do not have: decode_head\.conv"):
        import_public_checkpoint(tmp_path / "odd.pth", tmp_path / "run")


def test_a_small_file_takes_no_memory_for_a_giant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    built = []
    monkeypatch.setattr(official, "build_network", lambda part: built.append(build_network(part)) or built[0])
    torch.save({"model": {"decode_head.fusion_conv.conv.weight": torch.zeros(16_384, 1)}}, tmp_path / "odd.pth")
    with pytest.raises(CheckpointError, match=r"conv.weight is 16384 x 1 where 16384 x "):
        import_public_checkpoint(tmp_path / "odd.pth", tmp_path / "run")
    assert all(tensor.is_meta for tensor in built[0].state_dict().values())


def test_one_number_that_is_repeated_without_end_is_of_another_shape(tmp_path: Path) -> None:
    torch.save({"backbone.bn1.running_var": torch.zeros(1).expand(10**15)}, tmp_path / "odd.pth")
    with pytest.raises(
        CheckpointError, match=r"1 of another shape: backbone\.bn1\.running_var is 1000000000000000 where"
    ):
        import_public_checkpoint(tmp_path / "odd.pth", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_values_beyond_the_type_of_the_network_and_names_of_many_lines(public: PublicNetwork, tmp_path: Path) -> None:
    state = dict(public.state_dict())
    state["backbone.bn1.running_var"] = torch.full((64,), 1e300, dtype=torch.float64)
    torch.save({**state, "\x1b[31m\nline": torch.zeros(1), "x" * 10_000: torch.zeros(1)}, tmp_path / "odd.pth")
    with pytest.raises(CheckpointError) as refused:
        import_public_checkpoint(tmp_path / "odd.pth", tmp_path / "run")
    text = str(refused.value)
    assert "1 with values that are not finite: backbone.bn1.running_var" in text
    assert text.isprintable() and len(text) < 1_000


def test_a_packed_archive_that_unpacks_to_much_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "odd.pth", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x/data.pkl", bytes(300 * 2**20))
    with pytest.raises(InputError, match="it would unpack to 300 MiB, and 256 MiB are possible"):
        import_public_checkpoint(tmp_path / "odd.pth", tmp_path / "run")
