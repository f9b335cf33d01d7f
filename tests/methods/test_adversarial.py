"""Adversarial methods: gradients that stay on one side, terms by hand, and faults of public code that are not ours."""

import math
from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from tests.support.method_batches import AllHeads, random_batches
from tests.support.tiny_models import tiny
from torch import Tensor, nn

from semicdvl import losses
from semicdvl.config import TrainConfig
from semicdvl.methods.advent import Advent
from semicdvl.methods.common.discriminators import (
    PatchDiscriminator,
    adversarial_loss,
    discriminate_detached,
    discriminate_frozen,
    discriminator_cross_entropy,
    discriminator_loss,
    mask_pixels,
    one_hot_label,
    self_information,
)
from semicdvl.methods.s4gan import S4GAN, MapDiscriminator
from semicdvl.methods.semicdnet import SemiCDNet
from semicdvl.training.optim import build_discriminator_optimizer, compute_lr_factor, set_lr
from semicdvl.types import IGNORE, LabelledBatch, Outputs, TrainingProgress, UnlabelledBatch

METHODS = [
    Advent(critic_channels=4),
    Advent(critic_channels=4, auxiliary=True),
    S4GAN(critic_channels=4),
    SemiCDNet(critic_channels=4),
]


def grads(module: nn.Module) -> dict[str, Tensor | None]:
    return {name: weight.grad for name, weight in module.named_parameters()}


# ------------------------------------------------------------------------------------------------ two sides
@pytest.mark.parametrize("method", METHODS, ids=lambda method: f"{type(method).__name__}-{len(method.heads)}")
def test_each_term_teaches_one_side_only(method) -> None:
    """One backward pass over the sum is the published two: each side's gradient is that of its own terms."""
    model, discriminators, batches = AllHeads(), method.build_discriminators(), random_batches()
    torch.manual_seed(1)
    terms = method.step(model, model, *batches, TrainingProgress(3, 10), discriminators)
    network_side = [term for name, term in terms.items() if not name.startswith("critic")]
    discriminator_side = [term for name, term in terms.items() if name.startswith("critic")]
    assert len(network_side) >= 2 and discriminator_side

    sum(network_side).backward(retain_graph=True)
    assert all(grad is None for grad in grads(discriminators).values())
    of_network = deepcopy(grads(model))
    model.zero_grad(set_to_none=True)
    sum(discriminator_side).backward(retain_graph=True)
    assert all(grad is None for grad in grads(model).values())
    of_discriminators = deepcopy(grads(discriminators))
    discriminators.zero_grad(set_to_none=True)
    sum(terms.values()).backward()
    for together, alone in ((grads(model), of_network), (grads(discriminators), of_discriminators)):
        assert any(grad is not None for grad in alone.values())
        for name, grad in alone.items():
            assert (grad is None) == (together[name] is None), name
            if grad is not None:
                torch.testing.assert_close(together[name], grad)


def test_constants_say_the_same_as_the_live_discriminator() -> None:
    discriminator, maps = PatchDiscriminator(2, channels=4), torch.rand(3, 2, 37, 45)
    torch.testing.assert_close(discriminate_frozen(discriminator, maps)[0], discriminator(maps))
    torch.testing.assert_close(discriminate_detached(discriminator, maps)[0], discriminator(maps))


def test_a_discriminator_learns_and_its_verdict_is_the_network_s_term() -> None:
    """The discriminator learns to tell two kinds of maps apart; the other side's term is small where it is taken in."""
    torch.manual_seed(0)
    discriminator = PatchDiscriminator(2, channels=4)
    true, false = torch.rand(4, 2, 37, 45), torch.rand(4, 2, 37, 45) * 0.5
    optimizer = torch.optim.Adam(discriminator.parameters(), lr=3e-3)
    losses = []
    for _ in range(60):
        loss, right = discriminator_loss(discriminator, true, false)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] == pytest.approx(math.log(2), abs=0.05) and losses[-1] < 0.1 and right == 1.0
    assert adversarial_loss(discriminator, false) > 2 > 0.2 > adversarial_loss(discriminator, true)


def test_judgements_by_hand() -> None:
    logits = torch.tensor([0.0, 2.0])
    assert discriminator_cross_entropy(logits, as_labelled=True).item() == pytest.approx(
        (math.log(2) + math.log1p(math.exp(-2))) / 2
    )
    assert discriminator_cross_entropy(logits, as_labelled=False).item() == pytest.approx(
        (math.log(2) + math.log1p(math.exp(2))) / 2
    )
    assert discriminator_cross_entropy(logits[:0], as_labelled=True) == 0


@pytest.mark.parametrize(
    ("discriminator", "weights"), [(PatchDiscriminator(2), 2_763_713), (MapDiscriminator(8), 2_762_177)]
)
def test_discriminators_have_the_published_size(discriminator: nn.Module, weights: int) -> None:
    assert sum(weight.numel() for weight in discriminator.parameters()) == weights


def losses_of_constant_logit(logit: float) -> tuple[float, float]:
    """Return the cross entropy of a constant logit to "labelled", and the discriminator's own term."""
    yes, no = math.log1p(math.exp(-logit)), math.log1p(math.exp(logit))
    return yes, (yes + no) / 2


def test_adversarial_terms_have_the_published_weights() -> None:
    """ADVENT: 0.001 on the main map, 0.0002 on the auxiliary one; SemiCDNet: ours, 0.001 each."""
    model, batches, opinions = AllHeads(), random_batches(), {"main": 0.5, "auxiliary": -1.0}
    discriminators = nn.ModuleDict({name: Seen(logit) for name, logit in opinions.items()})
    terms = Advent(auxiliary=True).step(model, model, *batches, TrainingProgress(0, 1), discriminators)
    for name, ending, weight in (("main", "", 0.001), ("auxiliary", "_auxiliary", 0.0002)):
        fooled, told = losses_of_constant_logit(opinions[name])
        assert terms[f"adversarial{ending}"].item() == pytest.approx(weight * fooled, rel=1e-5)
        assert terms[f"critic{ending}"].item() == pytest.approx(told, rel=1e-5)

    opinions = {"map": 0.5, "entropy": -1.0}
    discriminators = nn.ModuleDict({name: Seen(logit) for name, logit in opinions.items()})
    terms = SemiCDNet().step(model, model, *batches, TrainingProgress(0, 1), discriminators)
    for name, logit in opinions.items():
        fooled, told = losses_of_constant_logit(logit)
        assert terms[f"adversarial_{name}"].item() == pytest.approx(0.001 * fooled, rel=1e-5)
        assert terms[f"critic_{name}"].item() == pytest.approx(told, rel=1e-5)

    terms = S4GAN().step(model, model, *batches, TrainingProgress(0, 1), Seen(0.5))
    assert terms["critic"].item() == pytest.approx(losses_of_constant_logit(0.5)[1], rel=1e-5)


def test_the_supervised_terms_are_cross_entropy_and_in_semicdnet_dice_too() -> None:
    model, (labelled, unlabelled) = AllHeads(), random_batches()
    logits_BKHW = model(labelled.t1_BCHW, labelled.t2_BCHW).change_BKHW
    entropy, dice = (loss(logits_BKHW, labelled.label_BHW) for loss in (losses.label_cross_entropy, losses.dice_loss))
    for method, expected in ((Advent(), entropy), (S4GAN(), entropy), (SemiCDNet(), entropy + dice)):
        terms = method.step(model, model, labelled, unlabelled, TrainingProgress(0, 1), method.build_discriminators())
        torch.testing.assert_close(terms["supervised"], expected)


def test_discriminators_have_an_adam_of_their_own_whose_rate_decays_with_the_networks() -> None:
    """ADVENT's and s4GAN's: 1e-4, betas .9 and .99, the network's polynomial decay."""
    for method in METHODS:
        optimizer = build_discriminator_optimizer(method.build_discriminators(), lr=method.critic_lr)
        assert type(optimizer) is torch.optim.Adam and len(optimizer.param_groups) == 1
        assert optimizer.param_groups[0]["betas"] == (0.9, 0.99) and optimizer.param_groups[0]["lr"] == 1e-4
        set_lr(optimizer, compute_lr_factor(TrainConfig(power=0.9), 5, 10))
        assert optimizer.param_groups[0]["lr"] == pytest.approx(1e-4 * 0.5**0.9)


@pytest.mark.parametrize("method", METHODS, ids=lambda method: f"{type(method).__name__}-{len(method.heads)}")
def test_one_step_of_the_loop_is_the_published_two(method) -> None:
    """Two passes, first of the network, then of the discriminators, give the weights of one pass over the sum."""
    batches, start, opponents = (
        random_batches(),
        AllHeads(),
        method.build_discriminators().eval(),
    )  # no dropout: one draw for both
    results = []
    for published in (False, True):
        model, discriminators = deepcopy(start), deepcopy(opponents)
        optimizers = [
            torch.optim.SGD(model.parameters(), lr=0.1),
            build_discriminator_optimizer(discriminators, lr=0.01),
        ]
        terms = method.step(model, model, *batches, TrainingProgress(0, 1), discriminators)
        if published:
            discriminators.requires_grad_(False)
            sum(term for name, term in terms.items() if not name.startswith("critic")).backward()
            discriminators.requires_grad_(True)
            terms = method.step(model, model, *batches, TrainingProgress(0, 1), discriminators)
            sum(term for name, term in terms.items() if name.startswith("critic")).backward()
        else:
            sum(terms.values()).backward()
        for optimizer in optimizers:
            optimizer.step()
        results.append(
            {
                f"{side} {key}": value
                for side, net in (("model", model), ("critic", discriminators))
                for key, value in net.state_dict().items()
            }
        )
    ours, theirs = results
    assert all(torch.equal(theirs[key], value) for key, value in ours.items())
    for side, net in (("model", start), ("critic", opponents)):
        assert any(not torch.equal(ours[f"{side} {key}"], value) for key, value in net.state_dict().items())


# ------------------------------------------------------------------------------------------------ maps
def test_self_information_is_over_classes() -> None:
    """Public code takes the softmax without saying over which axis."""
    logits_BKHW = torch.randn(3, 2, 5, 7)
    information_BKHW = self_information(logits_BKHW)
    probability_BHW = logits_BKHW.softmax(dim=1)[:, 1]
    entropy_BHW = torch.distributions.Bernoulli(probs=probability_BHW).entropy() / math.log(2)
    torch.testing.assert_close(information_BKHW.sum(dim=1), entropy_BHW, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(self_information(torch.zeros(1, 2, 1, 1)), torch.full((1, 2, 1, 1), 0.5))


def test_self_information_has_a_gradient_at_certainty() -> None:
    logits = torch.tensor([[[[200.0]], [[-200.0]]]], requires_grad=True)
    information = self_information(logits).sum()
    information.backward()
    assert information == 0 and logits.grad is not None and logits.grad.isfinite().all()


def test_the_truth_is_two_maps_smoothed_and_blank_where_ignored() -> None:
    label_BHW = torch.tensor([[[0, 1, IGNORE]]])
    torch.testing.assert_close(one_hot_label(label_BHW)[0, :, 0], torch.tensor([[1.0, 0, 0], [0, 1, 0]]))
    smooth = one_hot_label(label_BHW, smoothing=0.1)[0, :, 0]
    torch.testing.assert_close(smooth, torch.tensor([[0.9, 0.1, 0], [0.1, 0.9, 0]]))


class Seen(nn.Module):
    """A discriminator that notes what it is shown and believes everything it is told to."""

    def __init__(self, logit: float = 0.0) -> None:
        super().__init__()
        self.weight, self.shown = nn.Parameter(torch.tensor(logit)), []

    def forward(self, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        self.shown.append(torch.cat(inputs, dim=1).detach())
        flat_BD = torch.cat(inputs, dim=1).mean(dim=(2, 3))
        return self.weight + 0 * flat_BD[:, 0], flat_BD


def test_padding_is_blank_to_discriminators() -> None:
    labelled, unlabelled = random_batches()
    for method, names in ((Advent(), ("main",)), (SemiCDNet(), ("map", "entropy")), (S4GAN(), ())):
        discriminators: nn.Module = nn.ModuleDict({name: Seen() for name in names}) if names else Seen()
        method.step(AllHeads(), AllHeads(), labelled, unlabelled, TrainingProgress(0, 1), discriminators)
        for discriminator in discriminators.children() if names else (discriminators,):
            for shown_BDHW in discriminator.shown:
                hidden_BHW = labelled.label_BHW == IGNORE if len(shown_BDHW) == 2 else ~unlabelled.valid_BHW
                assert hidden_BHW.any() and not (shown_BDHW * hidden_BHW[:, None]).any()
                assert shown_BDHW.any()
    assert torch.equal(
        mask_pixels(torch.ones(1, 2, 1, 2), torch.tensor([[[True, False]]]))[0, 0], torch.tensor([[1.0, 0]])
    )


# ------------------------------------------------------------------------------------------------ ADVENT
def test_min_entropy_needs_no_discriminator() -> None:
    method, model, (labelled, unlabelled) = Advent(form="min_entropy"), AllHeads(), random_batches()
    assert method.build_discriminators() is None
    terms = method.step(model, model, labelled, unlabelled, TrainingProgress(0, 1))
    assert set(terms) == {"supervised", "entropy"}
    logits = model(unlabelled.weak_t1_BCHW, unlabelled.weak_t2_BCHW).change_BKHW
    expected = self_information(logits).sum(dim=1)[unlabelled.valid_BHW].mean()
    torch.testing.assert_close(terms["entropy"], 0.001 * expected)


def test_the_second_classifier_has_the_published_weights() -> None:
    model, batches = AllHeads(), random_batches()
    terms, other = (
        Advent(auxiliary=True, critic_channels=4, **weights).step(
            model,
            model,
            *batches,
            TrainingProgress(0, 1),
            Advent(auxiliary=True, critic_channels=4).build_discriminators(),
        )
        for weights in ({}, {"auxiliary_weight": 1.0})
    )
    assert set(terms) == {f"{a}{b}" for a in ("supervised", "adversarial", "critic") for b in ("", "_auxiliary")}
    torch.testing.assert_close(terms["supervised_auxiliary"], 0.1 * other["supervised_auxiliary"])


def test_the_second_classifier_of_deeplab_is_taught_and_judged() -> None:
    """The network of the recipe, small: gradients come to both classifiers and to every discriminator."""
    model, method = tiny("deeplab", auxiliary=True).train(), Advent(auxiliary=True, critic_channels=4)
    discriminators = method.build_discriminators()
    assert discriminators is not None and method.heads == {"change", "auxiliary"}
    terms = method.step(model, model, *random_batches(2, 2), TrainingProgress(0, 1), discriminators)
    assert all(term.isfinite() for term in terms.values())
    sum(terms.values()).backward()
    for part in (model.classify, model.auxiliary, discriminators):
        assert all(weight.grad is not None and weight.grad.isfinite().all() for weight in part.parameters())
        assert any(weight.grad.any() for weight in part.parameters())


# ------------------------------------------------------------------------------------------------ s4GAN
class Says(nn.Module):
    """A network whose change logit is a given map for all pairs."""

    heads = frozenset({"change"})

    def __init__(self, logits_BHW: Tensor) -> None:
        super().__init__()
        self.logits_BHW = nn.Parameter(logits_BHW)

    def forward(self, t1_BCHW: Tensor, t2_BCHW: Tensor, *, heads=None) -> Outputs:
        logits_BHW = self.logits_BHW.expand(len(t1_BCHW), -1, -1)
        return Outputs(torch.stack([torch.zeros_like(logits_BHW), logits_BHW], dim=1))


def still_batches(count: int = 2) -> tuple[LabelledBatch, UnlabelledBatch]:
    """Random images of 37 x 45 px without padding."""
    labelled, unlabelled = random_batches(count, count)
    return (
        replace(labelled, label_BHW=labelled.label_BHW.clamp(max=1)),
        replace(unlabelled, valid_BHW=torch.ones_like(unlabelled.valid_BHW)),
    )


@pytest.mark.parametrize("strict", [False, True])
def test_a_map_without_change_is_not_learnt_from_unless_strict(strict: bool) -> None:
    """The published collapse: the discriminator believes "unchanged everywhere" and self-training makes it surer."""
    silent, method, believing = Says(torch.full((37, 45), -1.0)), S4GAN(strict=strict), Seen(logit=3.0)
    progress = TrainingProgress(0, 1)
    terms = method.step(silent, silent, *still_batches(), progress, believing)
    assert progress.diagnostics["self_training_frac"] == float(strict)
    assert (terms["self_training"] > 0) == strict
    if strict:  # the gradient pushes further down
        terms["self_training"].backward()
        assert silent.logits_BHW.grad is not None and (silent.logits_BHW.grad >= 0).all()


def test_a_map_with_change_is_learnt_from_if_the_discriminator_believes_it() -> None:
    some = torch.full((37, 45), -1.0)
    some[:10, :10] = 2.0
    for logit, taken in ((3.0, 1.0), (0.3, 0.0)):  # probabilities .95 and .57 against .6
        progress = TrainingProgress(0, 1)
        terms = S4GAN().step(Says(some), Says(some), *still_batches(), progress, Seen(logit))
        assert progress.diagnostics["self_training_frac"] == taken
        expected = (100 * math.log1p(math.exp(-2)) + (37 * 45 - 100) * math.log1p(math.exp(-1))) / (37 * 45)
        assert terms["self_training"].item() == pytest.approx(taken * expected, rel=1e-4)


def test_whole_images_are_gated_not_pixels() -> None:
    maps_BKHW, valid_BHW = torch.zeros(3, 2, 10, 10), torch.ones(3, 10, 10, dtype=torch.bool)
    maps_BKHW[:, 0], maps_BKHW[1:, 1, 0, :2] = 0.5, 1.0  # no change, 2 %, 2 %
    believed_B = torch.tensor([0.9, 0.9, 0.5])
    assert S4GAN().select_self_training(believed_B, maps_BKHW, valid_BHW).tolist() == [False, True, False]
    assert S4GAN(strict=True).select_self_training(believed_B, maps_BKHW, valid_BHW).tolist() == [True, True, False]
    assert S4GAN(changed_min_frac=0.03).select_self_training(believed_B, maps_BKHW, valid_BHW).tolist() == [
        False,
        False,
        False,
    ]


def test_the_discriminator_gets_no_cue_from_how_images_are_scaled() -> None:
    """Public code divides the labelled images by the range of another batch."""
    labelled, unlabelled = still_batches()
    same = replace(unlabelled, weak_t1_BCHW=labelled.t1_BCHW, weak_t2_BCHW=labelled.t2_BCHW)
    discriminator = Seen()
    S4GAN().step(AllHeads(), AllHeads(), labelled, same, TrainingProgress(0, 1), discriminator)
    true, false, also_false = discriminator.shown
    assert true.shape[1] == 8 and torch.equal(true[:, 2:], false[:, 2:]) and torch.equal(false, also_false)
    assert torch.equal(true[:, 2:], torch.cat([labelled.t1_BCHW, labelled.t2_BCHW], dim=1))


def test_any_size_fits_the_map_discriminator() -> None:
    """Public code pools 20 x 20 px."""
    discriminator = MapDiscriminator(8, channels=4).eval()
    for size_px in ((37, 45), (64, 32)):
        logits_B, features_BD = discriminator(torch.rand(3, 2, *size_px), torch.rand(3, 6, *size_px))
        assert logits_B.shape == (3,) and features_BD.shape == (3, 32)


def test_feature_matching_by_hand() -> None:
    labelled, unlabelled = still_batches()
    model = Says(torch.zeros(37, 45))
    terms = S4GAN().step(model, model, labelled, unlabelled, TrainingProgress(0, 1), Seen())
    changed = (labelled.label_BHW == 1).float().mean()
    images = [
        torch.cat(pair, dim=1).mean(dim=(0, 2, 3))
        for pair in ((labelled.t1_BCHW, labelled.t2_BCHW), (unlabelled.weak_t1_BCHW, unlabelled.weak_t2_BCHW))
    ]
    gaps = torch.cat([torch.stack([1 - changed - 0.5, changed - 0.5]), images[0] - images[1]])
    torch.testing.assert_close(terms["feature_matching"], 0.1 * gaps.abs().mean())


# ------------------------------------------------------------------------------------------------ SemiCDNet
def test_the_map_discriminator_sees_a_smoothed_truth() -> None:
    """Zeros and ones against a soft map are told apart by anything."""
    labelled, unlabelled = still_batches()
    discriminators = nn.ModuleDict({"map": Seen(), "entropy": Seen()})
    SemiCDNet().step(AllHeads(), AllHeads(), labelled, unlabelled, TrainingProgress(0, 1), discriminators)
    expected = one_hot_label(labelled.label_BHW, smoothing=0.1)
    assert sum(torch.equal(shown, expected) for shown in discriminators["map"].shown) == 1
    assert 0.0999 < expected.min() < expected.max() < 0.9001
