"""The semantic term: its value, where it is masked, on every method that has it, and no trace of it at weight 0."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from tests.support.method_batches import AllHeads, random_batches

from semicdvl.methods import create_method
from semicdvl.types import IGNORE, ClassTargets, LabelledBatch, Outputs, TrainingProgress

METHODS = ["supervised", "fixmatch", "semicd_vl", "unimatch", "unimatch_v2", "unimatch_vl", "unimatch_v2_vl"]


def _with_classes(labelled: LabelledBatch) -> LabelledBatch:
    t1_BHW = torch.ones_like(labelled.label_BHW)
    t1_BHW[:, :, :9] = IGNORE
    return replace(labelled, classes=ClassTargets(t1_BHW, torch.zeros_like(t1_BHW)))


def test_value_of_known_logits() -> None:
    method = create_method("supervised", semantic_weight=0.5)
    t1_BKHW = torch.zeros(1, 3, 1, 2)
    t2_BKHW = torch.tensor([0.0, 0.0, math.log(2.0)]).view(1, 3, 1, 1).expand(1, 3, 1, 2)
    classes = ClassTargets(torch.tensor([[[2, IGNORE]]]), torch.tensor([[[2, 0]]]))
    image_BCHW = torch.zeros(1, 3, 1, 2)
    labelled = LabelledBatch(image_BCHW, image_BCHW, torch.zeros(1, 1, 2, dtype=torch.long), classes=classes)
    out = Outputs(torch.zeros(1, 2, 1, 2), t1_BKHW=t1_BKHW, t2_BKHW=t2_BKHW)
    terms = method.semantic_terms(out, labelled)
    # date 1: ln 3 on the one known pixel; date 2: probabilities 1/4, 1/4, 1/2, so ln 2 and ln 4
    expected = 0.5 * (math.log(3) + (math.log(2) + math.log(4)) / 2) / 2
    assert set(terms) == {"semantic"} and terms["semantic"].item() == pytest.approx(expected)
    unknown = ClassTargets(torch.full((1, 1, 2), IGNORE), torch.full((1, 1, 2), IGNORE))
    assert method.semantic_terms(out, replace(labelled, classes=unknown))["semantic"].item() == 0


@pytest.mark.parametrize("name", METHODS)
def test_every_method_has_the_same_term_and_none_at_weight_0(name: str) -> None:
    torch.manual_seed(0)
    network = AllHeads().eval()  # in eval mode nothing is dropped: all methods see the same logits
    labelled, unlabelled = random_batches()
    labelled = _with_classes(labelled)
    plain, with_term = create_method(name), create_method(name, semantic_weight=0.7)
    assert plain.heads <= with_term.heads and with_term.heads - plain.heads <= {"segmentation"}
    found = []
    for method in (plain, with_term):
        torch.manual_seed(1)
        found.append(method.step(network, network, labelled, unlabelled, TrainingProgress(2, 10)))
    without, terms = found
    assert set(terms) - set(without) == {"semantic"}
    for term, value in without.items():
        assert torch.equal(value, terms[term]), term
    out = network(labelled.t1_BCHW, labelled.t2_BCHW, heads=frozenset({"change", "segmentation"}))
    assert out.t1_BKHW is not None and out.t2_BKHW is not None and labelled.classes is not None
    known = labelled.classes.t1_BHW != IGNORE
    loss_1 = -out.t1_BKHW.log_softmax(1)[:, 1][known].mean()
    loss_2 = -out.t2_BKHW.log_softmax(1)[:, 0].mean()
    assert terms["semantic"].item() == pytest.approx(0.7 * (loss_1 + loss_2).item() / 2, rel=1e-5)
