"""Recipe -> run directory -> evaluation, on small pairs; and everything that must be refused before training."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.support.dataset_files import folder_of_pairs
from tests.support.tiny_training import build_tiny_recipe

from semicdvl.checkpoint import load_network
from semicdvl.config import DataConfig
from semicdvl.data.readers import folder
from semicdvl.errors import CheckpointError, ConfigError, DataError, StoreError
from semicdvl.methods.supervised import Supervised
from semicdvl.training.distributed import join_process_group
from semicdvl.training.evaluate import evaluate_run
from semicdvl.training.parts import build_loader_options, make_split
from semicdvl.training.run import train_recipe


@pytest.mark.parametrize("method", ["supervised", "fixmatch", "semicd_vl"])
def test_a_recipe_becomes_a_run_that_can_be_loaded_and_evaluated(
    data: Path, store: Path, tmp_path: Path, method: str
) -> None:
    recipe = build_tiny_recipe(data, store, method__name=method)
    result = train_recipe(recipe, tmp_path / "run", quiet=True)
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert (record["status"], record["selected_on"]) == ("finished", "val")
    split = record["split"]  # the names tell no picture of any pair, and no image is found twice: leaks are not known
    assert split["labelled"] == 2 and split["leaking_pairs"] is None
    assert (split["leaks"]["by_name"], split["leaks"]["by_content"]) == (0, 0)
    assert "nothing tells of which picture" in split["leaks"]["reason"]
    assert 0 <= result.test["iou"] <= 1
    again = evaluate_run(tmp_path / "run", folder.read_folder(data), subset="test")
    assert again == pytest.approx(result.test, abs=1e-6, nan_ok=True)  # precision, where nothing is detected
    network = load_network(tmp_path / "run")
    image = torch.zeros(1, 3, 64, 96)
    assert network(image, image).change_BKHW.shape == (1, 2, 64, 96)
    first = json.loads((tmp_path / "run" / "log.jsonl").read_text().splitlines()[0])
    kinds = ("superv", "consis", "contra", "vlm")
    total = sum(value for name, value in first.items() if name.startswith(kinds))
    assert first["loss"] == pytest.approx(total, rel=1e-5)


def test_a_network_without_numbers_has_no_score(data: Path, store: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    train_recipe(build_tiny_recipe(data, store, method__name="supervised"), run, quiet=True)
    weights = load_file(run / "model.safetensors")
    huge = {
        name: torch.full_like(one, 3e38)
        for name, one in weights.items()
        if one.is_floating_point() and "running_var" not in name
    }
    save_file(weights | huge, run / "model.safetensors")
    with pytest.raises(CheckpointError, match="run: its network gives scores that are not numbers"):
        evaluate_run(run, folder.read_folder(data), subset="all")


def test_a_network_learns_what_changed(data: Path, tmp_path: Path) -> None:
    recipe = build_tiny_recipe(
        data, None, method__name="supervised", train__steps=60, train__eval_every=20, train__lr=0.02
    )
    assert train_recipe(recipe, tmp_path / "run", quiet=True).test["iou"] > 0.5


def test_a_finished_run_is_read_not_trained_again_and_another_recipe_is_refused(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = build_tiny_recipe(data, None, method__name="supervised")
    first = train_recipe(recipe, tmp_path / "run", quiet=True)
    stamp = (tmp_path / "run" / "model.safetensors").stat().st_mtime_ns
    assert train_recipe(recipe, tmp_path / "run", quiet=True) == first
    assert (tmp_path / "run" / "model.safetensors").stat().st_mtime_ns == stamp
    assert capsys.readouterr().err == ""
    train_recipe(recipe, tmp_path / "run")
    assert "run: is finished already, so nothing is trained." in capsys.readouterr().err
    changed = {"train__steps": 5, "data__hflip": 0.25, "method__dice_weight": 1.0, "train__power": 1.0}
    for count, words in (
        (1, r"another recipe \(train\.steps is 4 there and 5 here\)\. Give another folder with -o"),
        (4, r"\(data\.hflip .*, method\.dice_weight is null there and 1\.0 here, .*, 1 further key differs\)"),
    ):
        given = build_tiny_recipe(data, None, method__name="supervised", **dict(list(changed.items())[:count]))
        with pytest.raises(CheckpointError, match=words):
            train_recipe(given, tmp_path / "run", quiet=True)


def test_what_cannot_work_is_refused_before_training(data: Path, store: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    with pytest.raises(ConfigError, match="Did you mean 'semicd_vl'"):
        train_recipe(build_tiny_recipe(data, store, method__name="semicdvl"), run, quiet=True)
    with pytest.raises(ConfigError, match=r"no option 'confidence'.*Did you mean 'confidence_min'"):
        train_recipe(build_tiny_recipe(data, store, method__confidence=0.9), run, quiet=True)
    with pytest.raises(ConfigError, match=r"add pseudo\.store"):
        train_recipe(build_tiny_recipe(data, None), run, quiet=True)
    with pytest.raises(DataError, match="less than one pair"):
        train_recipe(build_tiny_recipe(data, store, data__labelled=0.01), run, quiet=True)
    with pytest.raises(StoreError, match="holds no labels for 6 of 6 training pairs"):
        (tmp_path / "empty").mkdir()
        (tmp_path / "empty" / "manifest.json").write_text((store / "manifest.json").read_text())
        train_recipe(build_tiny_recipe(data, tmp_path / "empty"), run, quiet=True)
    assert not run.exists()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.doc").write_text("mine")
    with pytest.raises(CheckpointError, match="not a run directory"):
        train_recipe(build_tiny_recipe(data, store), tmp_path / "full", quiet=True)


@pytest.mark.parametrize("paired", [False, True])
def test_the_recipe_says_whether_both_dates_share_colour_and_blur(data: Path, paired: bool) -> None:
    recipe = build_tiny_recipe(data, None, data__paired_looks=paired)
    assert build_loader_options(recipe, Supervised(), join_process_group("cpu")).strong.paired is paired


def test_a_run_killed_before_its_record_can_be_started(data: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".part-0123456789abcdef.json").write_text('{"form')
    train_recipe(build_tiny_recipe(data, None, method__name="supervised", train__steps=1), tmp_path / "run", quiet=True)
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert {"run.json", "model.safetensors"} <= names and not any(name.startswith(".") for name in names)


def test_the_time_of_a_resumed_training_counts_its_earlier_sessions(data: Path, tmp_path: Path) -> None:
    """Else tables of costs would show what the last session took; a state of an older version has no time."""
    recipe = build_tiny_recipe(data, None, method__name="supervised")
    first = train_recipe(recipe, tmp_path / "run", quiet=True)
    record, state = tmp_path / "run" / "run.json", tmp_path / "run" / "state" / "00000004" / "state.json"
    kept = json.loads(state.read_text())
    assert 0 < kept["seconds"] <= first.seconds
    for seconds, expected in (({"seconds": 1000.0}, 1000), ({}, 0)):
        record.write_text(json.dumps(json.loads(record.read_text()) | {"status": "started"}))
        state.write_text(json.dumps({name: kept[name] for name in kept if name != "seconds"} | seconds))
        assert expected < train_recipe(recipe, tmp_path / "run", quiet=True).seconds < expected + 500


def test_a_damaged_checkpoint_is_refused(data: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="not a trained run"):
        load_network(tmp_path)
    train_recipe(build_tiny_recipe(data, None, method__name="supervised"), tmp_path / "run", quiet=True)
    (tmp_path / "run" / "model.safetensors").write_bytes(b"\x80\x04pickle")
    with pytest.raises(CheckpointError, match="no weights that can be read"):
        load_network(tmp_path / "run")


def test_published_lists_of_one_set_with_the_pairs_of_another(tmp_path: Path) -> None:
    own = folder_of_pairs(tmp_path / "own", [f"own{number}" for number in range(5)])
    other = folder_of_pairs(tmp_path / "other", [f"other{number}" for number in range(4)])
    lists = tmp_path / "lists"
    (lists / "half").mkdir(parents=True)
    for name, pairs in {"half/labeled": "0", "half/unlabeled": "12", "val": "3", "test": "4"}.items():
        (lists / f"{name}.txt").write_text("".join(f"own{number}.png\n" for number in pairs))
    (other / "train.txt").write_text("other0.png\nother2.png\n")
    (other / "val.txt").write_text("other1.png\n")
    (other / "test.txt").write_text("other3.png\n")
    division = make_split(DataConfig(root=own, labelled=lists / "half", unlabelled=other))
    names = {side: sorted(pair.name for pair in pairs) for side, pairs in vars(division).items()}
    assert names == {"labelled": ["own0"], "unlabelled": ["other0", "other2"], "val": ["own3"], "test": ["own4"]}
