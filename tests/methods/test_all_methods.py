"""What every method owes to every network that it can work with, over both tables."""

from copy import deepcopy
from dataclasses import FrozenInstanceError, fields, replace
from functools import cache
from typing import Any

import pytest
import torch
from tests.support.method_batches import AllHeads, random_batches, square_batches
from tests.support.tiny_models import tiny
from torch import Tensor, nn

from semicdvl.methods import METHODS
from semicdvl.models import MODELS
from semicdvl.registry import resolve_builder
from semicdvl.types import HEADS, IGNORE, AdversarialMethod, LabelledBatch, Outputs, TrainingProgress, UnlabelledBatch

NARROW = {"critic_channels": 4}
"""Critics of a width that a test can afford."""


def method_called(name: str, **settings: Any) -> Any:
    """Build a method; one with discriminators gets narrow ones."""
    build = resolve_builder("method", name, METHODS)
    known = {field.name for field in fields(build)}
    return build(**{key: value for key, value in NARROW.items() if key in known} | settings)


@cache
def heads_of(model_name: str) -> frozenset[str]:
    return tiny(model_name).heads


PAIRS = [(method, model) for method in METHODS for model in MODELS if method_called(method).heads <= heads_of(model)]


def network(name: str) -> nn.Module:
    net = tiny(name).train()
    for bn in (m for m in net.modules() if isinstance(m, nn.BatchNorm2d) and m.affine):
        nn.init.ones_(bn.weight)  # a random ResNet starts with its residual branches switched off: no gradient
    return net


def build_discriminators_of(method: Any) -> nn.Module | None:
    torch.manual_seed(3)
    return method.build_discriminators() if isinstance(method, AdversarialMethod) else None


def step(
    method: Any,
    model: nn.Module,
    teacher: nn.Module,
    labelled: LabelledBatch,
    unlabelled: UnlabelledBatch | None,
    progress: TrainingProgress | None = None,
    *,
    discriminators: nn.Module | None = None,
    seed: int = 7,
) -> dict[str, Tensor]:
    """One step with a fixed seed; an adversarial method gets discriminators."""
    discriminators = build_discriminators_of(method) if discriminators is None else discriminators
    extra = {} if discriminators is None else {"discriminators": discriminators}
    torch.manual_seed(seed)
    return method.step(model, teacher, labelled, unlabelled, progress or TrainingProgress(step=3, total=10), **extra)


def tensors(out: Outputs) -> list[Tensor]:
    """All maps of some outputs."""
    found = []
    for value in vars(out).values():
        found += list(value) if isinstance(value, tuple) else [] if value is None else [value]
    return found


def reached_by_outputs(model: nn.Module, labelled: LabelledBatch, heads: frozenset[str]) -> set[str]:
    """Names of the weights that some heads depend on."""
    torch.manual_seed(7)
    out = model(labelled.t1_BCHW, labelled.t2_BCHW, heads=heads)
    sum(map_.float().square().sum() for map_ in tensors(out)).backward()
    names = {name for name, weight in model.named_parameters() if weight.grad is not None}
    model.zero_grad(set_to_none=True)
    return names


# ------------------------------------------------------------------------------------------------ every pair
@pytest.mark.parametrize(("method_name", "model_name"), PAIRS)
def test_a_step_is_finite_and_reaches_every_weight(method_name: str, model_name: str) -> None:
    """Odd sizes; the gradient comes to every weight that the asked heads depend on, and to the discriminators' too."""
    method, model, (labelled, unlabelled) = method_called(method_name), network(model_name), random_batches(2, 2)
    discriminators, progress = build_discriminators_of(method), TrainingProgress(step=3, total=10)
    wanted = reached_by_outputs(deepcopy(model), labelled, method.heads)
    terms = step(method, model, model, labelled, unlabelled, progress, discriminators=discriminators)
    assert terms
    for name, term in terms.items():
        assert term.ndim == 0 and term.dtype == torch.float32 and term.isfinite() and term >= 0, name
    assert all(0 <= value <= 1 for value in progress.diagnostics.values())

    sum(terms.values()).backward()
    weights = dict(model.named_parameters()) | {
        f"critic.{n}": p for n, p in (discriminators or nn.Module()).named_parameters()
    }
    for name, weight in weights.items():
        if name in wanted or name.startswith("critic."):
            assert weight.grad is not None, name
        assert weight.grad is None or weight.grad.isfinite().all(), name
    assert sum(bool(weights[name].grad.any()) for name in wanted) > 0.9 * len(wanted)  # some ReLUs are dead at birth


@pytest.mark.parametrize(("method_name", "model_name"), PAIRS)
def test_a_batch_of_one_is_no_trouble_and_a_step_can_be_repeated(method_name: str, model_name: str) -> None:
    method, model = method_called(method_name), network(model_name)
    again, batches = deepcopy(model), random_batches(1, 1, size_px=(45, 37))
    terms, repeated = (step(method, net, net, *batches) for net in (model, again))
    assert all(term.isfinite() and torch.equal(term, repeated[name]) for name, term in terms.items())
    sum(terms.values()).backward()
    gradients = [weight.grad for weight in model.parameters() if weight.grad is not None]
    assert gradients and all(gradient.isfinite().all() for gradient in gradients)


# ------------------------------------------------------------------------------------------------ every method
@pytest.mark.parametrize("method_name", METHODS)
def test_a_step_is_finite_under_bfloat16(method_name: str) -> None:
    method, model = method_called(method_name), AllHeads()
    with torch.autocast("cpu", torch.bfloat16):
        terms = step(method, model, model, *random_batches())
    loss = sum(terms.values())
    loss.backward()
    assert loss.dtype == torch.float32 and loss.isfinite()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


@pytest.mark.parametrize("method_name", METHODS)
def test_the_teacher_is_left_as_it_was(method_name: str) -> None:
    model = AllHeads()
    model.encoder.append(nn.BatchNorm2d(8))  # whose statistics could move
    teacher = deepcopy(model)
    before = deepcopy(teacher.state_dict())
    step(method_called(method_name), model, teacher, *random_batches())
    assert all(torch.equal(value, before[key]) for key, value in teacher.state_dict().items())
    assert all(m.training for net in (teacher, model) for m in net.modules())
    assert all(p.grad is None for p in teacher.parameters())


@pytest.mark.parametrize("method_name", METHODS)
def test_only_the_promised_heads_are_asked_for(method_name: str) -> None:
    method, model, asked = method_called(method_name), AllHeads(), []
    model.register_forward_pre_hook(lambda _, args, kwargs: asked.append(kwargs["heads"]), with_kwargs=True)
    step(method, model, model, *random_batches())
    assert asked and all(heads <= method.heads <= frozenset(HEADS) for heads in asked)
    assert frozenset().union(*asked) == method.heads


@pytest.mark.parametrize("method_name", METHODS)
def test_truth_of_unlabelled_pairs_is_never_learnt_from(method_name: str) -> None:
    method, model, (labelled, unlabelled) = method_called(method_name), AllHeads(), random_batches()
    blind = replace(unlabelled, truth_BHW=None)
    with_truth = step(method, deepcopy(model), deepcopy(model), labelled, unlabelled)
    without = step(method, deepcopy(model), deepcopy(model), labelled, blind)
    assert with_truth.keys() == without.keys()
    assert all(torch.equal(with_truth[name], without[name]) for name in without)


@pytest.mark.parametrize("method_name", METHODS)
def test_nothing_that_counts_is_no_trouble(method_name: str) -> None:
    """Public code divides by the number of valid pixels, which can be 0."""
    method, model, (labelled, unlabelled) = method_called(method_name), AllHeads(), random_batches()
    labelled = replace(labelled, label_BHW=torch.full_like(labelled.label_BHW, IGNORE))
    unlabelled = replace(unlabelled, valid_BHW=torch.zeros_like(unlabelled.valid_BHW))
    terms = step(method, model, model, labelled, unlabelled)
    assert all(term.isfinite() for term in terms.values())
    sum(terms.values()).backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


@pytest.mark.parametrize("method_name", [name for name in METHODS if method_called(name).uses_unlabelled])
def test_no_labelled_pair_is_no_trouble(method_name: str) -> None:
    method, model, (labelled, unlabelled) = method_called(method_name), AllHeads(), random_batches()
    none = LabelledBatch(labelled.t1_BCHW[:0], labelled.t2_BCHW[:0], labelled.label_BHW[:0])
    terms = step(method, model, model, none, unlabelled)
    assert all(term.isfinite() for term in terms.values())
    assert terms["supervised"] == 0 or method.dice_weight


@pytest.mark.parametrize("method_name", METHODS)
def test_a_handful_of_steps_learns_squares(method_name: str) -> None:
    """On two labelled pairs and unlabelled ones of the same kind the supervised term falls by half."""
    torch.manual_seed(0)
    model, method = AllHeads().train(), method_called(method_name)
    discriminators = build_discriminators_of(method)
    optimizers = [torch.optim.AdamW(model.parameters(), lr=0.02)]
    optimizers += [] if discriminators is None else [torch.optim.Adam(discriminators.parameters(), lr=1e-3)]
    curve = []
    for at in range(30):
        terms = step(
            method, model, model, *square_batches(at), TrainingProgress(at, 30), discriminators=discriminators, seed=at
        )
        for optimizer in optimizers:
            optimizer.zero_grad()
        sum(terms.values()).backward()
        for optimizer in optimizers:
            optimizer.step()
        curve.append(terms["supervised"].item())
    assert sum(curve[-3:]) < 0.5 * sum(curve[:3])


@pytest.mark.parametrize("method_name", METHODS)
def test_settings_are_frozen_and_promises_are_kept(method_name: str) -> None:
    method = method_called(method_name)
    with pytest.raises(FrozenInstanceError):
        setattr(method, fields(method)[0].name, 1)
    assert isinstance(method.uses_unlabelled, bool) and isinstance(method.uses_vlm, bool)
    assert "change" in method.heads
    assert getattr(method, "strong_views", 1) in (1, 2)
    if not method.uses_unlabelled:
        model = AllHeads()
        assert step(method, model, model, random_batches()[0], None)
