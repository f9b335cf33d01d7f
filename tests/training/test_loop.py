"""The loop: exact resume, selection by validation, divergence, precision, moving average."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from semicdvl.checkpoint import load_weights
from semicdvl.config import DataConfig, PartConfig, Recipe, TrainConfig
from semicdvl.errors import DivergedError
from semicdvl.methods.common.discriminators import adversarial_loss, discriminator_loss, one_hot_label
from semicdvl.training.checkpoint import TrainingCheckpoint, make_moving_average
from semicdvl.training.length import TrainingLength
from semicdvl.training.log import TrainingLog
from semicdvl.training.loop import FitResult, run_training_loop
from semicdvl.types import AdversarialMethod, LabelledBatch, Method, Outputs

STEPS = 8


class Tiny(nn.Module):
    """Dropout, batch norm and a kernel of 3 x 3, so that randomness, buffers and the layout in memory matter."""

    heads = frozenset({"change"})

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.encoder = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Dropout(0.5))
        self.head = nn.Conv2d(4, 2, 3, padding=1)

    def forward(self, t1_BCHW: Tensor, t2_BCHW: Tensor, *, heads: frozenset[str] | None = None) -> Outputs:
        return Outputs(self.head((self.encoder(t1_BCHW) - self.encoder(t2_BCHW)).abs()))


class CrossEntropy(Method):
    """Supervised, with a noise of its own and a loss that breaks when told so."""

    def __init__(self, *, nan_at: int = -1) -> None:
        self.nan_at = nan_at

    def step(self, model, teacher, labelled, unlabelled, progress) -> dict[str, Tensor]:
        out = model(labelled.t1_BCHW, labelled.t2_BCHW)
        loss = nn.functional.cross_entropy(out.change_BKHW, labelled.label_BHW)
        progress.diagnostics["drawn"] = torch.rand(()).item()
        return {"fit": loss, "odd": loss * (float("nan") if progress.step == self.nan_at else 0.0)}


def _batches(start: int, *, stop_at: int = -1) -> Iterator[tuple[LabelledBatch, None]]:
    for step in range(start, STEPS):
        if step == stop_at:
            raise KeyboardInterrupt
        generator = torch.Generator().manual_seed(step)
        images = torch.randint(0, 256, (2, 2, 3, 5, 7), dtype=torch.uint8, generator=generator)
        label = (images[0, :, 0] > images[1, :, 0]).long()
        yield LabelledBatch(images[0], images[1], label), None


def _validate(model: nn.Module, device: torch.device) -> dict[str, float]:
    """A score that rises, then falls, so that the best step is not the last."""
    assert not model.training
    _validate.calls += 1  # type: ignore[attr-defined]
    return {"iou": [0.1, 0.5, 0.3, 0.2][_validate.calls - 1], "predicted_changed_frac": 0.1}  # type: ignore[attr-defined]


def make_recipe(**train: Any) -> Recipe:
    """A recipe of which the loop reads nothing but the section on training."""
    config = TrainConfig(device="cpu", **train)
    return Recipe(data=DataConfig(root=Path("unused")), method=PartConfig(name="unused"), train=config)


def _fit(run: Path, *, stop_at: int = -1, method: CrossEntropy | None = None, **train: Any) -> FitResult:
    return run_training_loop(
        Tiny(),
        method or CrossEntropy(),
        make_recipe(**train),
        length=TrainingLength(STEPS, STEPS, eval_every=2),
        batches=lambda start: _batches(start, stop_at=stop_at),
        validate=_validate,
        run=run,
        quiet=True,
    )


@pytest.fixture(autouse=True)
def _fresh_scores() -> None:
    _validate.calls = 0  # type: ignore[attr-defined]


def _losses(run: Path) -> list[dict]:
    events = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [{key: event[key] for key in ("step", "loss", "drawn")} for event in events if "loss" in event]


@pytest.mark.parametrize(("ema", "ramp"), [(0.0, False), (0.9, False), (0.9, True)])
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_a_killed_run_resumes_exactly(tmp_path: Path, ema: float, ramp: bool, optimizer: str) -> None:
    train = {"optimizer": optimizer, "lr": 0.05, "ema": ema, "ema_ramp": ramp}
    whole = _fit(tmp_path / "whole", **train)
    _validate.calls = 0  # type: ignore[attr-defined]
    with pytest.raises(KeyboardInterrupt):
        _fit(tmp_path / "killed", **train, stop_at=5)
    _validate.calls = 2  # type: ignore[attr-defined]
    assert _fit(tmp_path / "killed", **train) == whole
    assert _losses(tmp_path / "killed") == _losses(tmp_path / "whole")
    assert [event["step"] for event in _losses(tmp_path / "killed")] == list(range(1, STEPS + 1))
    for name in ("model.safetensors", f"state/{STEPS:08d}/model.safetensors"):
        first, second = (load_weights(tmp_path / run / name) for run in ("whole", "killed"))
        assert all(torch.equal(first[key], second[key]) for key in first)


def test_a_ramped_average_follows_closely_at_first() -> None:
    """Decays 1/2, 2/3, 3/4, then 0.75 for good, after a first update that copies."""
    net = torch.nn.Linear(1, 1, bias=False)
    averaged = AveragedModel(net, multi_avg_fn=make_moving_average(0.75, ramp=True), use_buffers=True)
    expected, seen = 0.0, []
    for update, value in enumerate([8.0, 4.0, 1.0, 0.0, 2.0, 6.0]):
        torch.nn.init.constant_(net.weight, value)
        averaged.update_parameters(net)
        decay = min(1 - 1 / (update + 1), 0.75)
        expected = decay * expected + (1 - decay) * value
        seen.append((averaged.module.weight.item(), expected))
    assert [round(ours, 4) for ours, _ in seen] == [round(theirs, 4) for _, theirs in seen]
    assert seen[:3] == [(8.0, 8.0), (6.0, 6.0), (pytest.approx(13 / 3), pytest.approx(13 / 3))]


@pytest.mark.parametrize(("ema", "ramp"), [(0.9, False), (0.996, False), (0.996, True)])
def test_an_average_keeps_whole_numbers(ema: float, ramp: bool) -> None:
    """Tables of relative positions, as Swin has them, index weights: 3 * 0.996 + 3 * 0.004 must not become 2."""
    net = torch.nn.Linear(1, 1)
    net.register_buffer("places", torch.arange(300), persistent=False)
    net.register_buffer("shown", torch.tensor([True, False]))
    averaged = AveragedModel(net, multi_avg_fn=make_moving_average(ema, ramp=ramp), use_buffers=True)
    for _ in range(20):
        averaged.update_parameters(net)
    assert torch.equal(averaged.module.places, net.places) and torch.equal(averaged.module.shown, net.shown)


def _events(run: Path) -> list[dict]:
    events = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [{key: value for key, value in event.items() if key != "pairs_per_s"} for event in events]


def test_a_run_killed_after_its_checkpoint_has_the_events_of_that_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only what comes after the state is written again: its own validation, and TensorBoard's numbers, come before."""
    save, flush, flushed = TrainingCheckpoint.save, TrainingLog.flush, list[str]()

    def killed(self: TrainingCheckpoint, step: int) -> None:
        save(self, step)
        assert flushed, "TensorBoard's numbers were held back"
        if step == 4:
            raise KeyboardInterrupt

    _fit(tmp_path / "whole")
    _validate.calls = 0  # type: ignore[attr-defined]
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(TrainingCheckpoint, "save", killed)
        patched.setattr(TrainingLog, "flush", lambda self: (flushed.append("all"), flush(self)))
        _fit(tmp_path / "killed")
    _validate.calls = 2  # type: ignore[attr-defined]
    _fit(tmp_path / "killed")
    assert _events(tmp_path / "killed") == _events(tmp_path / "whole")
    assert [event["step"] for event in _events(tmp_path / "killed") if "validation" in event] == [2, 4, 6, 8]


def test_unfinished_files_of_a_killed_process_are_removed(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        _fit(tmp_path / "run", stop_at=5)
    folder = tmp_path / "run" / "state" / ".part-00000006-abc"
    folder.mkdir()
    files = [folder / "model.safetensors", tmp_path / "run" / ".part-xyz.safetensors"]
    for path in files:
        path.write_bytes(b"half")
    _fit(tmp_path / "run")
    assert not any(path.exists() for path in (folder, *files))
    assert [path.name for path in (tmp_path / "run" / "state").iterdir()] == [f"{STEPS:08d}"]


def test_a_checkpoint_that_a_killed_process_was_removing_is_removed(tmp_path: Path) -> None:
    state = tmp_path / "run" / "state"
    _fit(tmp_path / "run")
    shutil.copytree(state / f"{STEPS:08d}", state / f"{STEPS - 2:08d}")
    _fit(tmp_path / "run")
    assert [path.name for path in state.iterdir()] == [f"{STEPS:08d}"]


class Plays(CrossEntropy, AdversarialMethod):
    """A supervised method with a discriminator that has dropout and an optimiser with momentum."""

    critic_lr = 0.01

    def build_discriminators(self) -> nn.Module:
        return nn.Sequential(nn.Conv2d(2, 4, 1), nn.Dropout(0.5), nn.Conv2d(4, 1, 1))

    def step(self, model, teacher, labelled, unlabelled, progress, discriminators=None) -> dict[str, Tensor]:
        maps_BKHW = model(labelled.t1_BCHW, labelled.t2_BCHW).change_BKHW.softmax(dim=1)
        fit_one = nn.functional.nll_loss(maps_BKHW.log(), labelled.label_BHW)
        return {
            "fit": fit_one,
            "adversarial": adversarial_loss(discriminators, maps_BKHW),
            "critic": discriminator_loss(discriminators, one_hot_label(labelled.label_BHW), maps_BKHW)[0],
        }


def test_a_killed_adversarial_run_resumes_exactly(tmp_path: Path) -> None:
    """Discriminators, their optimiser's moments and its rate are part of the state."""
    _fit(tmp_path / "whole", method=Plays())
    _validate.calls = 0  # type: ignore[attr-defined]
    with pytest.raises(KeyboardInterrupt):
        _fit(tmp_path / "killed", method=Plays(), stop_at=5)
    _validate.calls = 2  # type: ignore[attr-defined]
    _fit(tmp_path / "killed", method=Plays())
    states = [tmp_path / run / "state" / f"{STEPS:08d}" for run in ("whole", "killed")]
    for name in ("model", "critics", "optimizer", "critic_optimizer"):
        first, second = (load_weights(state / f"{name}.safetensors") for state in states)
        assert first.keys() == second.keys() and len(first) >= 4, name
        assert all(torch.equal(first[key], second[key]) for key in first), name
    moved = load_weights(states[0] / "critics.safetensors")
    torch.manual_seed(0)
    assert not torch.equal(moved["0.weight"], Plays().build_discriminators()[0].weight)


def test_discriminators_start_the_same_whatever_came_before(tmp_path: Path) -> None:
    weights = []
    for name, seed in (("one", 5), ("two", 6)):
        torch.manual_seed(seed)
        _validate.calls = 0  # type: ignore[attr-defined]
        _fit(tmp_path / name, method=Plays())
        weights.append(load_weights(tmp_path / name / "state" / f"{STEPS:08d}" / "critics.safetensors"))
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])


def test_the_best_validation_decides_which_weights_are_kept(tmp_path: Path) -> None:
    fitted = _fit(tmp_path / "run")
    assert (fitted.best_step, fitted.best["iou"], fitted.last["iou"]) == (4, 0.5, 0.2)
    best = load_weights(tmp_path / "run" / "model.safetensors")
    last = load_weights(tmp_path / "run" / "state" / f"{STEPS:08d}" / "model.safetensors")
    assert not torch.equal(best["head.weight"], last["head.weight"])
    assert len(list((tmp_path / "run" / "state").iterdir())) == 1


def test_a_nan_loss_stops_and_keeps_the_last_good_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(DivergedError, match=r"step 6 \(odd\)\. The last good checkpoint, of step 4, is kept"):
        _fit(tmp_path / "run", method=CrossEntropy(nan_at=5))
    weights = load_weights(tmp_path / "run" / "state" / "00000004" / "model.safetensors")
    assert all(torch.isfinite(value).all() for value in weights.values())


def test_a_nan_loss_before_the_first_checkpoint_is_reported(tmp_path: Path) -> None:
    with pytest.raises(DivergedError, match=r"step 2 \(odd\)\. No checkpoint was saved before"):
        _fit(tmp_path / "run", method=CrossEntropy(nan_at=1))


def test_a_network_that_predicts_no_change_is_warned_of_once_per_series(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Validations after steps 2 to 16: no change in the first, then a spell of three, then one of two."""
    found, steps = iter([0.0, 0.1, 0.0, 0.0, 0.0, 0.1, 0.0, 0.0]), 16
    monkeypatch.setitem(globals(), "STEPS", steps)
    run_training_loop(
        Tiny(),
        CrossEntropy(),
        make_recipe(),
        length=TrainingLength(steps, steps, eval_every=2),
        batches=_batches,
        validate=lambda model, device: {"iou": 0.0, "predicted_changed_frac": next(found)},
        run=tmp_path / "run",
    )
    told = {event["step"]: event["warning"] for event in _events(tmp_path / "run") if "warning" in event}
    assert list(told) == [8, 16]
    for word in ("'unchanged' everywhere", "more labelled pairs", "method.dice_weight", "method.confidence_min"):
        assert word in told[8]
    assert capsys.readouterr().err.count("'unchanged' everywhere") == 2


class Overflows(CrossEntropy):
    """A loss that is a number, with a gradient that is none."""

    def step(self, model, teacher, labelled, unlabelled, progress) -> dict[str, Tensor]:
        terms = super().step(model, teacher, labelled, unlabelled, progress)
        if progress.step == 5:
            terms["flat"] = (0 * model.head.weight).sum().sqrt()
        return terms


def test_nan_weights_are_not_kept(tmp_path: Path) -> None:
    with pytest.raises(DivergedError, match=r"step 6 \(a weight after it\)"):
        _fit(tmp_path / "run", method=Overflows())
    assert [path.name for path in (tmp_path / "run" / "state").iterdir()] == ["00000004"]


class Inflates(CrossEntropy):
    """Weights and loss stay numbers; the running variance, which eval mode divides by, does not."""

    def step(self, model, teacher, labelled, unlabelled, progress) -> dict[str, Tensor]:
        terms = super().step(model, teacher, labelled, unlabelled, progress)
        if progress.step == 5:
            model.encoder[1].running_var.data.fill_(torch.inf)
        return terms


def test_nan_running_statistics_are_not_kept(tmp_path: Path) -> None:
    with pytest.raises(DivergedError, match=r"step 6 \(a weight after it\)"):
        _fit(tmp_path / "run", method=Inflates())
    assert [path.name for path in (tmp_path / "run" / "state").iterdir()] == ["00000004"]


def test_bf16_trains(tmp_path: Path) -> None:
    _fit(tmp_path / "run", precision="bf16")
    assert all(event["loss"] == event["loss"] for event in _losses(tmp_path / "run"))
    _validate.calls = 0  # type: ignore[attr-defined]
    _fit(tmp_path / "fp32")  # one process, another precision
    assert _losses(tmp_path / "fp32") != _losses(tmp_path / "run")
