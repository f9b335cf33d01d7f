"""Where weights come from: folders, hub names, OpenCLIP files; every way in which they can be wrong, said at once."""

from __future__ import annotations

import json
import logging
import shutil
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.support import small_hub
from tests.support import tiny_vlms as tiny

from semicdvl.errors import ConfigError, InputError, MissingExtraError
from semicdvl.registry import parse_assignments
from semicdvl.vlms import create_vlm, devices
from semicdvl.vlms import weights as vlms_weights
from semicdvl.vlms.models import clip_dense, clipseg, grounded_sam, sam3

pytest.importorskip("transformers", reason="needs semicdvl[vlm]")
huggingface_hub = pytest.importorskip("huggingface_hub", reason="needs semicdvl[vlm]")

IMAGE = np.random.default_rng(3).integers(0, 255, (45, 70, 3), dtype=np.uint8)
WORDS = ("building", "road", "tree")


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.clipseg(tmp_path_factory.mktemp("kept") / "clipseg")


@pytest.fixture
def folder(kept: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(kept, tmp_path / "clipseg"))


# ------------------------------------------------------------------------------------------------ folders
def test_paths_without_weights(tmp_path: Path) -> None:
    file = tmp_path / "weights.bin"
    file.write_text("x")
    for place in (tmp_path / "none", file, Path("../nowhere"), Path("./a/b/c")):
        with pytest.raises(InputError, match=r"no folder of weights for 'clipseg'.*hf download CIDAS"):
            clipseg.build_clipseg(weights=place)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"config\.json"):
        clipseg.build_clipseg(weights=tmp_path / "empty")


def test_weights_of_another_model(folder: Path) -> None:
    with pytest.raises(InputError, match="type 'clipseg', not of sam3"):
        sam3.build_sam3(weights=folder)
    (folder / "config.json").write_text("[]")
    with pytest.raises(InputError, match="type 'None'"):
        clipseg.build_clipseg(weights=folder)


def test_missing_and_damaged_files(folder: Path) -> None:
    weights = folder / "model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match="cannot be loaded as CLIPSegForImageSegmentation"):
        clipseg.build_clipseg(weights=folder)
    weights.write_bytes(content)
    tokenizer = folder / "tokenizer.json"
    tokenizer.write_text("{")
    with pytest.raises(InputError, match="no usable files for CLIPSegProcessor"):
        clipseg.build_clipseg(weights=folder)
    weights.unlink()
    with pytest.raises(InputError, match="has no weights"):
        clipseg.build_clipseg(weights=folder)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "model-1-of-2.safetensors"}}))
    with pytest.raises(InputError, match="not all of them"):
        clipseg.build_clipseg(weights=folder)


def test_missing_tensors_are_not_made_up_silently(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = folder / "model.safetensors"
    tensors = load_file(path)
    save_file({name: value for name, value in tensors.items() if "decoder" not in name}, path, {"format": "pt"})
    with pytest.raises(InputError, match=r"lacks \d+ of the \d+ tensors"):
        clipseg.build_clipseg(weights=folder)
    save_file({name: value for name, value in tensors.items() if name != "clip.logit_scale"}, path, {"format": "pt"})
    with caplog.at_level(logging.WARNING, "semicdvl"):
        clipseg.build_clipseg(weights=folder)
    assert "clip.logit_scale" in caplog.text


class Evil:
    """What a pickle with code in it looks like."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.mark,)


def test_pickled_weights_are_read_without_running_code(folder: Path, kept: Path, tmp_path: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(tensors, folder / "pytorch_model.bin")
    expected = clipseg.build_clipseg(weights=kept).segment(IMAGE, WORDS).scores_CHW
    np.testing.assert_array_equal(clipseg.build_clipseg(weights=folder).segment(IMAGE, WORDS).scores_CHW, expected)
    mark = tmp_path / "mark"
    for name, build in (("pytorch_model.bin", clipseg.build_clipseg), ("clip.pt", clip_dense.build_clip_dense)):
        torch.save({**tensors, "evil": Evil(mark)}, folder / name)
        with pytest.raises(InputError) as refused:
            build(weights=folder if name == "pytorch_model.bin" else folder / name)
        assert "weights_only" not in str(refused.value)  # torch's advice to switch its protection off
    assert not mark.exists()


def test_fingerprint_is_of_what_is_loaded(folder: Path) -> None:
    before = vlms_weights.WeightsFolder(folder).compute_fingerprint()
    (folder / "README.md").write_text("hello")
    (folder / "model.fp16.safetensors").write_text("another copy")
    assert vlms_weights.WeightsFolder(folder).compute_fingerprint() == before
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "reduce_dim": 4}))
    assert vlms_weights.WeightsFolder(folder).compute_fingerprint() != before


# ------------------------------------------------------------------------------------------------ the hub
@pytest.fixture
def empty_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing was downloaded before."""

    def absent(*_: Any, **__: Any) -> str:
        raise huggingface_hub.errors.LocalEntryNotFoundError("nothing here")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", absent)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)


def _hub_says(monkeypatch: pytest.MonkeyPatch, answer: Any) -> None:
    def model_info(_: Any, name: str, *, timeout: float) -> Any:
        assert timeout <= 10
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", model_info)


def test_without_a_network_one_sentence_at_once(empty_cache: None, monkeypatch: pytest.MonkeyPatch) -> None:
    _hub_says(monkeypatch, ConnectionError("Name or service not known"))
    start = time.monotonic()
    for build, name, option in (
        (sam3.build_sam3, "facebook/sam3", "--vlm sam3 --weights sam3"),
        (
            clip_dense.build_clip_dense,
            "openai/clip-vit-base-patch16",
            "--vlm clip_dense --weights clip-vit-base-patch16",
        ),
    ):
        with pytest.raises(InputError) as caught:
            build()
        text = str(caught.value)
        assert "can't be reached (Name or service not known)" in text and "\n" not in text
        assert f"hf download {name}" in text and option in text
        assert ("accept the licence" in text) == (name == "facebook/sam3")
    assert time.monotonic() - start < 5


def test_offline_is_obeyed(empty_cache: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    _hub_says(monkeypatch, AssertionError("must not be asked"))
    with pytest.raises(InputError, match="HF_HUB_OFFLINE forbids"):
        grounded_sam.build_grounded_sam()


def test_the_second_model_is_asked_for_by_its_own_option(
    empty_cache: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    _hub_says(monkeypatch, ConnectionError("no route"))
    with pytest.raises(InputError, match=r"--vlm grounded_sam --vlm-set sam=sam2\.1-hiera-large"):
        grounded_sam.build_grounded_sam(weights=tiny.grounding_dino(tmp_path / "dino"))


def test_names_that_do_not_exist_and_licences_not_accepted(empty_cache: None, monkeypatch: pytest.MonkeyPatch) -> None:
    errors = huggingface_hub.errors
    response = SimpleNamespace(headers={}, request=None, status_code=404, text="")
    _hub_says(monkeypatch, errors.RepositoryNotFoundError("404", response=response))
    with pytest.raises(InputError, match="neither a folder here nor a public model"):
        clipseg.build_clipseg(weights="nobody/nothing")
    _hub_says(monkeypatch, errors.GatedRepoError("403 Forbidden", response=response))
    with pytest.raises(InputError, match=r"licence accepted first on the model hub \(403 Forbidden\).*hf auth login"):
        sam3.build_sam3()


@pytest.fixture
def hub_here(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """A hub on this machine that holds `nice/clipseg`, with files beside it that nobody needs; what it was asked."""
    for name in ("README.md", "pytorch_model.bin", "original.pt", "run_me.py"):
        (folder / name).write_text("not needed")
    with small_hub.serving("nice/clipseg", folder) as (address, asked):
        constants = huggingface_hub.constants
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "ENDPOINT", address)
        template = address + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        yield asked


def test_a_name_is_downloaded_once(
    hub_here: list[str], folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = clipseg.build_clipseg(weights="nice/clipseg")
    fetched = sorted(path.name for path in (tmp_path / "cache").rglob("snapshots/*/*"))
    needed = ["config.json", "model.safetensors", "processor_config.json", "tokenizer.json", "tokenizer_config.json"]
    assert fetched == needed and not any("README" in line or ".pt" in line for line in hub_here)
    count = len(hub_here)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert clipseg.build_clipseg(weights="nice/clipseg").identity == first.identity
    assert len(hub_here) == count  # not even asked whether there is something newer
    next((tmp_path / "cache").rglob("snapshots/*/model.safetensors")).unlink()
    with pytest.raises(InputError, match="HF_HUB_OFFLINE forbids"):
        clipseg.build_clipseg(weights="nice/clipseg")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    assert (
        clipseg.build_clipseg(weights="nice/clipseg").identity == first.identity
    )  # the missing file was fetched again


def test_a_hub_that_does_not_answer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(vlms_weights, "HUB_TIMEOUT_S", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        start = time.monotonic()
        with pytest.raises(InputError, match="can't be reached"):
            clipseg.build_clipseg()
    assert time.monotonic() - start < 5


def test_without_transformers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    for name in ("sam3", "grounded_sam", "owl_sam", "clipseg", "clip_dense"):
        with pytest.raises(MissingExtraError, match=rf"'{name}' needs transformers: install semicdvl\[vlm\]"):
            create_vlm(name)


# ------------------------------------------------------------------------------------------------ options
def test_devices_and_precisions(kept: Path) -> None:
    assert devices.pick_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    assert devices.pick_dtype("auto", torch.device("cpu")) is torch.float32
    assert devices.pick_dtype("auto", torch.device("cuda")) is torch.bfloat16
    for device in ("cuda:99", "gpu"):
        with pytest.raises(ConfigError, match=f"no device '{device}'"):
            clipseg.build_clipseg(weights=kept, device=device)
    with pytest.raises(ConfigError, match="unknown dtype 'int8'"):
        clipseg.build_clipseg(weights=kept, dtype="int8")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_a_gpu_answers_as_the_cpu_does(kept: Path) -> None:
    answers = [
        clipseg.build_clipseg(weights=kept, device=device, dtype="float32").segment(IMAGE, WORDS)
        for device in ("cpu", "cuda")
    ]
    np.testing.assert_allclose(answers[0].scores_CHW, answers[1].scores_CHW, atol=1e-3)


def test_options_of_the_command_line() -> None:
    more = ["threshold=0.4", "sam = some/dir", 'template="a {} from above"', "views=2"]
    options = parse_assignments(more, option="--vlm-set", named={"weights": Path("w"), "device": "cpu", "dtype": None})
    assert options == {
        "weights": Path("w"), "device": "cpu", "threshold": 0.4, "sam": "some/dir", "template": "a {} from above",
        "views": 2,
    }  # fmt: skip
    assert parse_assignments((), option="--vlm-set") == {}
    for text in ("threshold", "=3", "device=cpu"):
        with pytest.raises(ConfigError, match="--vlm-set"):
            parse_assignments([text], option="--vlm-set", named={"device": "cpu"})


# ------------------------------------------------------------------------------------------------ OpenCLIP's form
def _openai_names(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return a CLIP of transformers as OpenCLIP would save it: written apart from the code that reads it."""
    out = {}
    for tower, prefix in (("text_model", ""), ("vision_model", "visual.")):
        layers = 1 + max(int(name.split(".")[3]) for name in tensors if name.startswith(f"{tower}.encoder.layers"))
        for layer in range(layers):
            theirs, ours = f"{prefix}transformer.resblocks.{layer}", f"{tower}.encoder.layers.{layer}"
            for kind in ("weight", "bias"):
                packed = [tensors[f"{ours}.self_attn.{part}_proj.{kind}"] for part in ("q", "k", "v")]
                out[f"{theirs}.attn.in_proj_{kind}"] = torch.cat(packed)
                out[f"{theirs}.attn.out_proj.{kind}"] = tensors[f"{ours}.self_attn.out_proj.{kind}"]
                out[f"{theirs}.ln_1.{kind}"] = tensors[f"{ours}.layer_norm1.{kind}"]
                out[f"{theirs}.ln_2.{kind}"] = tensors[f"{ours}.layer_norm2.{kind}"]
                out[f"{theirs}.mlp.c_fc.{kind}"] = tensors[f"{ours}.mlp.fc1.{kind}"]
                out[f"{theirs}.mlp.c_proj.{kind}"] = tensors[f"{ours}.mlp.fc2.{kind}"]
    for kind in ("weight", "bias"):
        out[f"ln_final.{kind}"] = tensors[f"text_model.final_layer_norm.{kind}"]
        out[f"visual.ln_pre.{kind}"] = tensors[f"vision_model.pre_layrnorm.{kind}"]
        out[f"visual.ln_post.{kind}"] = tensors[f"vision_model.post_layernorm.{kind}"]
    out["positional_embedding"] = tensors["text_model.embeddings.position_embedding.weight"]
    out["token_embedding.weight"] = tensors["text_model.embeddings.token_embedding.weight"]
    out["visual.positional_embedding"] = tensors["vision_model.embeddings.position_embedding.weight"]
    out["visual.class_embedding"] = tensors["vision_model.embeddings.class_embedding"]
    out["visual.conv1.weight"] = tensors["vision_model.embeddings.patch_embedding.weight"]
    out["text_projection"], out["visual.proj"] = (
        tensors[f"{name}_projection.weight"].T.contiguous() for name in ("text", "visual")
    )
    out["logit_scale"] = tensors["logit_scale"]
    return out


@pytest.fixture(scope="module")
def open_clip(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A CLIP in both forms, with heads as wide as OpenAI's."""
    root = tmp_path_factory.mktemp("openclip")
    folder = tiny.clip(root / "folder", one_head=True)
    file = root / "file" / "RemoteCLIP-tiny.pt"
    file.parent.mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(folder / name, file.parent / name)
    torch.save(_openai_names(load_file(folder / "model.safetensors")), file)
    return folder, file


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_an_openclip_file_answers_as_the_folder_does(open_clip: tuple[Path, Path], suffix: str) -> None:
    folder, file = open_clip
    if suffix == ".safetensors":
        save_file(torch.load(file, weights_only=True), file.with_suffix(suffix))
    vlm = clip_dense.build_clip_dense(weights=file.with_suffix(suffix))
    expected = clip_dense.build_clip_dense(weights=folder)
    np.testing.assert_allclose(
        vlm.segment(IMAGE, WORDS).scores_CHW, expected.segment(IMAGE, WORDS).scores_CHW, atol=1e-5
    )
    assert vlm.identity != expected.identity


def test_files_that_are_no_clip(open_clip: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    tensors = torch.load(open_clip[1], weights_only=True)
    text = tmp_path / "text.pt"
    text.write_text("hello")
    for name, content, why in (
        ("list.pt", [1, 2], "no file of tensors"),
        ("resnet.pt", {"visual.layer1.0.conv1.weight": torch.zeros(2)}, "no ViT CLIP"),
        ("cut.pt", {name: value for name, value in tensors.items() if "ln_2" not in name}, "does not fit"),
    ):
        torch.save(content, tmp_path / name)
        with pytest.raises(InputError, match=why):
            clip_dense.build_clip_dense(weights=tmp_path / name)
    with pytest.raises(InputError, match="no file of tensors"):
        clip_dense.build_clip_dense(weights=text)

    def absent(*_: Any, **__: Any) -> str:
        raise ConnectionError("no route")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", absent)
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", absent)
    torch.save({"state_dict": {f"module.{name}": value for name, value in tensors.items()}}, tmp_path / "alone.pt")
    with pytest.raises(InputError, match=r"holds no vocabulary.*beside the file"):
        clip_dense.build_clip_dense(weights=tmp_path / "alone.pt")
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: str(open_clip[1].parent))
    fetched = clip_dense.build_clip_dense(weights=tmp_path / "alone.pt").segment(IMAGE, WORDS)
    expected = clip_dense.build_clip_dense(weights=open_clip[1]).segment(IMAGE, WORDS)
    np.testing.assert_array_equal(fetched.scores_CHW, expected.scores_CHW)


# ------------------------------------------------------------------------------------------------ the command line
def _main(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    from semicdvl.__main__ import main

    monkeypatch.setattr(sys, "argv", ["semicdvl", *map(str, arguments)])
    with pytest.raises(SystemExit) as stop:
        main()
    return stop.value.code if isinstance(stop.value.code, int) else 0


def test_pseudo_with_weights_by_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from PIL import Image

    for date in ("A", "B"):
        (tmp_path / "data" / date).mkdir(parents=True)
        Image.fromarray(IMAGE if date == "A" else IMAGE[::-1]).save(tmp_path / "data" / date / "one.png")
    weights = tiny.sam3(tmp_path / "sam3")
    base = ("pseudo", tmp_path / "data", "-o", tmp_path / "store", "--vlm", "sam3", "--dtype", "bfloat16")
    options = ("--weights", weights, "--device", "cpu", "--vlm-set", "threshold=0.2", "--vlm-set", "tile_px=64")
    assert _main(monkeypatch, *base, *options) == 0
    manifest = json.loads((tmp_path / "store" / "manifest.json").read_text())
    expected = sam3.build_sam3(weights=weights, dtype="bfloat16", threshold=0.2, tile_px=64).identity
    assert manifest["vlm"] == expected and expected.startswith("sam3-")
    capsys.readouterr()
    assert _main(monkeypatch, *base, "--weights", tmp_path / "none") == 2
    assert "no folder of weights for 'sam3'" in capsys.readouterr().err
    assert _main(monkeypatch, *base, "--weights", weights, "--vlm-set", "treshold=0.2") == 2
    assert "Did you mean 'threshold'?" in capsys.readouterr().err
