"""FixMatch, and what it shares with all methods that learn from their own labels."""

import math

import pytest
import torch

from semicdvl import losses
from semicdvl.errors import DataError
from semicdvl.methods.common.weak_to_strong import (
    PseudoLabelMaps,
    compute_pseudo_label_diagnostics,
    cutmix,
    cutmix_strong_view,
    eval_mode,
)
from semicdvl.methods.fixmatch import FixMatch
from semicdvl.methods.supervised import Supervised
from semicdvl.types import IGNORE, LabelledBatch, Outputs, TrainingProgress, UnlabelledBatch, VLMTargets


class PixelNetwork(torch.nn.Module):
    """Change logits = scale * (0, difference of the first channels): every pixel can be worked out by hand."""

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        self.scale = torch.nn.Parameter(torch.tensor(scale))

    def forward(self, t1_BCHW, t2_BCHW, *, heads=None) -> Outputs:
        difference_BHW = self.scale * (t2_BCHW - t1_BCHW)[:, 0]
        return Outputs(change_BKHW=torch.stack([torch.zeros_like(difference_BHW), difference_BHW], dim=1))


def unlabelled_of(weak_BHW: torch.Tensor, strong_BHW: torch.Tensor, **changes) -> UnlabelledBatch:
    """Pairs whose first date is black and whose second is the given map in every band."""

    def image(map_BHW: torch.Tensor) -> torch.Tensor:
        return map_BHW[:, None].expand(-1, 3, -1, -1)

    defaults = {
        "weak_t1_BCHW": image(torch.zeros_like(weak_BHW)),
        "weak_t2_BCHW": image(weak_BHW),
        "strong_t1_BCHW": image(torch.zeros_like(strong_BHW)),
        "strong_t2_BCHW": image(strong_BHW),
        "valid_BHW": torch.ones(weak_BHW.shape, dtype=torch.bool),
        "cutmix_box_BHW": torch.zeros(weak_BHW.shape, dtype=torch.bool),
    }
    return UnlabelledBatch(**defaults | changes)


LABELLED = LabelledBatch(torch.zeros(1, 3, 1, 3), torch.zeros(1, 3, 1, 3), torch.tensor([[[0, 1, IGNORE]]]))
SURE, UNSURE = 4.0, 1.0  # logits: sigmoid(4) = 0.982, sigmoid(1) = 0.731


def test_step_by_hand():
    weak_BHW = torch.tensor([[[SURE, -SURE, UNSURE]]])
    strong_BHW = torch.zeros(1, 1, 3)  # the student says 0.5 everywhere
    progress = TrainingProgress(step=0, total=1)
    terms = FixMatch().step(PixelNetwork(), PixelNetwork(), LABELLED, unlabelled_of(weak_BHW, strong_BHW), progress)
    assert terms["supervised"].item() == pytest.approx(math.log(2) / 2)
    assert terms["consistency"].item() == pytest.approx(math.log(2) * 2 / 3 / 2)  # two of three are confident
    assert progress.diagnostics == pytest.approx({"confident_frac": 2 / 3, "pseudo_changed_frac": 2 / 3})


def test_pseudo_labels_come_from_the_teacher():
    weak_BHW, strong_BHW = torch.tensor([[[SURE, SURE, SURE]]]), torch.zeros(1, 1, 3)
    backwards = PixelNetwork(scale=-1.0)  # says "unchanged" where the student says "changed"
    strong_BHW[...] = 2.0
    batch = unlabelled_of(weak_BHW, strong_BHW)
    own = FixMatch().step(PixelNetwork(), PixelNetwork(), LABELLED, batch, TrainingProgress(0, 1))["consistency"]
    taught = FixMatch().step(PixelNetwork(), backwards, LABELLED, batch, TrainingProgress(0, 1))["consistency"]
    assert own.item() == pytest.approx(math.log1p(math.exp(-2)) / 2)
    assert taught.item() == pytest.approx(math.log1p(math.exp(2)) / 2)


def test_pseudo_labels_may_start_later():
    weak_BHW, strong_BHW = torch.full((1, 1, 3), SURE), torch.zeros(1, 1, 3)
    for at, expected in ((1, 0.0), (2, math.log(2) / 2)):
        method, batch = FixMatch(pseudo_start_frac=0.2), unlabelled_of(weak_BHW, strong_BHW)
        terms = method.step(PixelNetwork(), PixelNetwork(), LABELLED, batch, TrainingProgress(at, 10))
        assert terms["consistency"].item() == pytest.approx(expected)


def test_changed_pseudo_labels_can_count_sooner_and_more():
    weak_BHW, strong_BHW = torch.tensor([[[-SURE, 1.0, -1.0]]]), torch.zeros(1, 1, 3)  # sure unchanged, 0.73 each
    batch, progress = unlabelled_of(weak_BHW, strong_BHW), TrainingProgress(0, 1)
    method = FixMatch(confidence_min_changed=0.7, change_weight=4.0)
    terms = method.step(PixelNetwork(), PixelNetwork(), LABELLED, batch, progress)
    assert terms["consistency"].item() == pytest.approx((1 + 4) / (1 + 4 + 1) * math.log(2) / 2)
    assert progress.diagnostics["confident_frac"] == pytest.approx(2 / 3)


def test_padding_does_not_count():
    weak_BHW, strong_BHW = torch.full((1, 1, 3), SURE), torch.zeros(1, 1, 3)
    valid_BHW = torch.tensor([[[True, False, False]]])
    progress = TrainingProgress(0, 1)
    batch = unlabelled_of(weak_BHW, strong_BHW, valid_BHW=valid_BHW)
    terms = FixMatch().step(PixelNetwork(), PixelNetwork(), LABELLED, batch, progress)
    assert terms["consistency"].item() == pytest.approx(math.log(2) / 2)
    assert progress.diagnostics["confident_frac"] == 1.0


def test_nothing_valid_gives_zero_and_no_health():
    batch = unlabelled_of(torch.zeros(1, 1, 3), torch.zeros(1, 1, 3), valid_BHW=torch.zeros(1, 1, 3, dtype=torch.bool))
    progress = TrainingProgress(0, 1)
    terms = FixMatch().step(PixelNetwork(), PixelNetwork(), LABELLED, batch, progress)
    assert terms["consistency"].item() == 0 and progress.diagnostics == {}


def test_weak_views_share_the_batch_norm_statistics_only_if_asked():
    class Counting(PixelNetwork):
        def forward(self, t1_BCHW, t2_BCHW, *, heads=None) -> Outputs:
            sizes.append(len(t1_BCHW))
            return super().forward(t1_BCHW, t2_BCHW)

    batch = unlabelled_of(torch.zeros(2, 1, 3), torch.zeros(2, 1, 3))
    for weak_in_batch, expected in ((True, [2, 3, 2]), (False, [2, 1, 2])):  # teacher, labelled (+ weak), strong
        sizes: list[int] = []
        net = Counting()
        FixMatch(weak_in_batch=weak_in_batch).step(net, net, LABELLED, batch, TrainingProgress(0, 1))
        assert sizes == expected


def test_unlabelled_pairs_are_needed():
    with pytest.raises(DataError, match="'fixmatch' learns from unlabelled pairs"):
        FixMatch().step(PixelNetwork(), PixelNetwork(), LABELLED, None, TrainingProgress(0, 1))


def test_supervised_options_reach_the_loss():
    net = PixelNetwork()
    labelled = LabelledBatch(torch.zeros(1, 3, 2, 2), torch.randn(1, 3, 2, 2), torch.tensor([[[0, 1], [1, 0]]]))
    logits = net(labelled.t1_BCHW, labelled.t2_BCHW).change_BKHW
    for options in ({"change_weight": 5.0}, {"dice_weight": 0.5}, {"hard_frac": 0.5}):
        expected = losses.supervised_loss(logits, labelled.label_BHW, **options)
        assert expected != losses.supervised_loss(logits, labelled.label_BHW)
        terms = Supervised(**options).step(net, net, labelled, None, TrainingProgress(0, 1))
        assert torch.equal(terms["supervised"], expected)
        batch = unlabelled_of(torch.zeros(1, 2, 2), torch.zeros(1, 2, 2))
        terms = FixMatch(**options).step(net, net, labelled, batch, TrainingProgress(0, 1))
        assert torch.equal(terms["supervised"], expected / 2)


# ---------------------------------------------------------------------------------------- CutMix
def test_pair_b_takes_from_pair_b_minus_1():
    own_BHW = torch.arange(3)[:, None, None].expand(3, 5, 7)
    box_BHW = torch.zeros(3, 5, 7, dtype=torch.bool)
    box_BHW[1, 2, 3] = box_BHW[0, 4, 6] = True
    mixed_BHW = cutmix(own_BHW, own_BHW + 10, box_BHW, partner="other")
    expected_BHW = own_BHW.clone()
    expected_BHW[1, 2, 3], expected_BHW[0, 4, 6] = 10, 12
    assert torch.equal(mixed_BHW, expected_BHW)


def test_official_partner_is_the_same_pair():
    own_BHW = torch.arange(2 * 5 * 7).view(2, 5, 7)
    box_BHW = torch.zeros(2, 5, 7, dtype=torch.bool)
    box_BHW[1, 2, 0] = True
    mixed_BHW = cutmix(own_BHW, own_BHW, box_BHW, partner="official_self")
    assert mixed_BHW[1, 2, 0] == own_BHW[1, 2, 6]


def test_one_box_mixes_images_labels_padding_and_vlm_alike():
    generator = torch.Generator().manual_seed(2)
    tag_BHW = torch.arange(3.0)[:, None, None] * torch.ones(3, 5, 7)  # every map carries the number of its pair
    box_BHW = torch.rand(3, 5, 7, generator=generator) < 0.4
    whole = tag_BHW.long()
    batch = unlabelled_of(
        tag_BHW, tag_BHW, cutmix_box_BHW=box_BHW, valid_BHW=whole == 0, vlm=VLMTargets(whole, whole + 10, whole + 20)
    )
    strong = cutmix_strong_view(batch, own=PseudoLabelMaps(whole, tag_BHW), pasted=PseudoLabelMaps(whole + 5, tag_BHW))
    source_BHW = torch.where(box_BHW, (whole - 1) % 3, whole)
    assert torch.equal(strong.t2_BCHW, source_BHW[:, None].expand(-1, 3, -1, -1).float())
    assert torch.equal(strong.pseudo.confidence_BHW, source_BHW.float())
    assert torch.equal(strong.pseudo.label_BHW, source_BHW + 5 * box_BHW)  # pasted pixels bring the pasted labels
    assert torch.equal(strong.valid_BHW, source_BHW == 0)
    for mixed_BHW, offset in ((strong.vlm.change_BHW, 0), (strong.vlm.t1_BHW, 10), (strong.vlm.t2_BHW, 20)):
        assert torch.equal(mixed_BHW, source_BHW + offset)


# ---------------------------------------------------------------------------------------- health, eval mode
def test_health_against_truth():
    pseudo = PseudoLabelMaps(
        torch.tensor([[[1, 1, 0, 0, 1, 1]]]), torch.tensor([[[0.99, 0.96, 0.99, 0.5, 0.99, 0.99]]])
    )
    images = torch.zeros(1, 1, 6)
    truth_BHW = torch.tensor([[[1, 0, 0, 0, IGNORE, 1]]])
    valid_BHW = torch.tensor([[[True, True, True, True, True, False]]])
    numbers = compute_pseudo_label_diagnostics(
        pseudo, unlabelled_of(images, images, truth_BHW=truth_BHW, valid_BHW=valid_BHW), confidence_min=0.95
    )
    assert numbers == pytest.approx(
        {
            "confident_frac": 4 / 5,
            "pseudo_changed_frac": 3 / 5,
            "confident_precision": 2 / 3,
            "confident_changed_precision": 1 / 2,
        }
    )


def test_evaluating_restores_every_module_even_after_an_error():
    net = torch.nn.Sequential(torch.nn.BatchNorm2d(3), torch.nn.Sequential(torch.nn.Dropout())).train()
    net[0].eval()
    with pytest.raises(ZeroDivisionError), eval_mode(net):
        assert not any(m.training for m in net.modules())
        raise ZeroDivisionError
    assert [m.training for m in net.modules()] == [True, False, True, True]
