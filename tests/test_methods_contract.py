"""What every method owes to every network, over both tables."""

from copy import deepcopy
from dataclasses import FrozenInstanceError, fields, replace

import pytest
import torch

from semicdvl.methods import METHODS
from semicdvl.models import MODELS
from semicdvl.tables import lookup
from semicdvl.types import HEADS, IGNORE, Labelled, Progress, Unlabelled, VLMTargets

PAIRS = [(method, model) for method in METHODS for model in MODELS]
HEIGHT, WIDTH = 64, 96


def network(name: str) -> torch.nn.Module:
    torch.manual_seed(0)
    net = lookup("model", name, MODELS)(backbone="resnet18", pretrained=False, decoder_channels=8).train()
    for bn in (m for m in net.modules() if isinstance(m, torch.nn.BatchNorm2d)):
        torch.nn.init.ones_(bn.weight)  # a random ResNet starts with its residual branches switched off: no gradient
    return net


def method_called(name: str, **settings):
    return lookup("method", name, METHODS)(**settings)


def batches(*, labelled: int = 2, unlabelled: int = 3, seed: int = 1) -> tuple[Labelled, Unlabelled]:
    generator = torch.Generator().manual_seed(seed)

    def image(count: int) -> torch.Tensor:
        return torch.randn(count, 3, HEIGHT, WIDTH, generator=generator)

    def classes(count: int) -> torch.Tensor:
        label_BHW = torch.randint(0, 2, (count, HEIGHT, WIDTH), generator=generator)
        label_BHW[:, :7] = IGNORE
        return label_BHW

    def vlm(count: int) -> VLMTargets:
        return VLMTargets(classes(count), classes(count), classes(count))

    box_BHW = torch.zeros(unlabelled, HEIGHT, WIDTH, dtype=torch.bool)
    box_BHW[0, 10:30, 20:50] = True
    valid_BHW = torch.ones_like(box_BHW)
    valid_BHW[-1, :, -9:] = False
    with_labels = Labelled(image(labelled), image(labelled), classes(labelled), vlm(labelled))
    views = [image(unlabelled) for _ in range(4)]
    return with_labels, Unlabelled(*views, valid_BHW, box_BHW, vlm(unlabelled), classes(unlabelled))


@pytest.mark.parametrize(("method_name", "model_name"), PAIRS)
def test_a_step_gives_finite_terms_whose_gradient_reaches_the_encoder(method_name, model_name):
    method, model, progress = method_called(method_name), network(model_name), Progress(step=3, total=10)
    terms = method.step(model, model, *batches(), progress)
    assert terms
    for name, term in terms.items():
        assert term.ndim == 0 and term.dtype == torch.float32 and term.isfinite() and term >= 0, name
    sum(terms.values()).backward()
    for name, parameter in model.encoder.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name
    assert all(0 <= value <= 1 for value in progress.health.values())


@pytest.mark.parametrize(("method_name", "model_name"), PAIRS)
def test_a_step_is_finite_under_bfloat16(method_name, model_name):
    method, model = method_called(method_name), network(model_name)
    with torch.autocast("cpu", torch.bfloat16):
        terms = method.step(model, model, *batches(), Progress(step=0, total=10))
    loss = sum(terms.values())
    loss.backward()
    assert loss.dtype == torch.float32 and loss.isfinite()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


@pytest.mark.parametrize(("method_name", "model_name"), PAIRS)
def test_the_teacher_is_left_as_it_was(method_name, model_name):
    model = network(model_name)
    teacher = deepcopy(model)
    frozen = next(m for m in teacher.modules() if isinstance(m, torch.nn.BatchNorm2d)).eval()
    before = deepcopy(teacher.state_dict())
    method_called(method_name).step(model, teacher, *batches(), Progress(step=0, total=10))
    assert all(torch.equal(value, before[key]) for key, value in teacher.state_dict().items())
    assert not frozen.training and sum(not m.training for m in teacher.modules()) == 1
    assert all(m.training for m in model.modules())
    assert all(p.grad is None for p in teacher.parameters())


@pytest.mark.parametrize(("method_name", "model_name"), PAIRS)
def test_only_the_promised_heads_are_asked_for(method_name, model_name):
    method, model, asked = method_called(method_name), network(model_name), []
    model.register_forward_pre_hook(lambda _, args, kwargs: asked.append(kwargs["heads"]), with_kwargs=True)
    method.step(model, model, *batches(), Progress(step=0, total=10))
    assert asked and all(heads <= method.heads <= frozenset(HEADS) for heads in asked)


@pytest.mark.parametrize("method_name", METHODS)
def test_truth_of_unlabelled_pairs_is_never_learnt_from(method_name):
    method, model, (labelled, unlabelled) = method_called(method_name), network("siam_light"), batches()
    blind = replace(unlabelled, truth_BHW=None)
    with_truth = method.step(deepcopy(model), deepcopy(model), labelled, unlabelled, Progress(step=0, total=10))
    without = method.step(deepcopy(model), deepcopy(model), labelled, blind, Progress(step=0, total=10))
    assert with_truth.keys() == without.keys()
    assert all(torch.equal(with_truth[name], without[name]) for name in without)


@pytest.mark.parametrize("method_name", [name for name in METHODS if name != "supervised"])
def test_no_labelled_pair_is_no_trouble(method_name):
    method, model, (labelled, unlabelled) = method_called(method_name), network("siam_light"), batches()
    none = Labelled(labelled.t1_BCHW[:0], labelled.t2_BCHW[:0], labelled.label_BHW[:0])
    if getattr(method, "weak_in_batch", True):
        terms = method.step(model, model, none, unlabelled, Progress(step=0, total=10))
        assert terms["supervised"] == 0 and sum(terms.values()).isfinite()


@pytest.mark.parametrize("method_name", METHODS)
def test_settings_are_frozen_and_promises_are_kept(method_name):
    method = method_called(method_name)
    with pytest.raises(FrozenInstanceError):
        setattr(method, fields(method)[0].name, 1)
    assert isinstance(method.uses_unlabelled, bool) and isinstance(method.uses_vlm, bool)
    assert "change" in method.heads
    if not method.uses_unlabelled:
        model = network("siam_light")
        assert method.step(model, model, batches()[0], None, Progress(step=0, total=10))
