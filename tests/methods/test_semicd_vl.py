"""SemiCD-VL: the whole loss against an independent calculation, where gradients go, and every switch."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from semicdvl.errors import ConfigError, DataError
from semicdvl.methods.semicd_vl import SemiCDVL
from semicdvl.models.siam_light import build_siam_light
from semicdvl.types import IGNORE, LabelledBatch, Outputs, TrainingProgress, UnlabelledBatch, VLMTargets

B_X, B_U, H, W = 2, 3, 6, 8


class PixelNetwork(torch.nn.Module):
    """All heads, each a linear map of the pixel: no neighbour, no batch statistics; features at half the size."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(4)
        self.weight_OC = torch.nn.Parameter(2 * torch.randn(8, 3, generator=generator))
        self.passes: list[tuple[bool, int]] = []

    def forward(self, t1_BCHW, t2_BCHW, *, heads=None) -> Outputs:
        self.passes.append((self.training, len(t1_BCHW)))
        one, two = (torch.einsum("oc,bchw->bohw", self.weight_OC, t) for t in (t1_BCHW, t2_BCHW))
        difference = (one - two).abs() * (1.0 if self.training else 1.5)  # so that the mode can be seen in the output
        return Outputs(
            change_BKHW=difference[:, :2],
            vlm_change_BKHW=difference[:, 2:4],
            t1_BKHW=one[:, 4:6],
            t2_BKHW=two[:, 4:6],
            features_t1_BDHW=F.avg_pool2d(one[:, 5:], 2),
            features_t2_BDHW=F.avg_pool2d(two[:, 5:], 2),
        )


def batches(seed: int = 0) -> tuple[LabelledBatch, UnlabelledBatch]:
    generator = torch.Generator().manual_seed(seed)

    def image(count: int) -> torch.Tensor:
        return torch.randn(count, 3, H, W, generator=generator)

    def classes(count: int) -> torch.Tensor:
        choice = torch.randint(0, 3, (count, H, W), generator=generator)
        return torch.where(choice == 2, IGNORE, choice)

    def vlm(count: int) -> VLMTargets:
        return VLMTargets(classes(count), classes(count), classes(count))

    box_BHW = torch.zeros(B_U, H, W, dtype=torch.bool)
    box_BHW[0, 1:4, 2:6] = box_BHW[2, 3:, :4] = True
    valid_BHW = torch.ones(B_U, H, W, dtype=torch.bool)
    valid_BHW[1, :, 6:] = False
    labelled = LabelledBatch(image(B_X), image(B_X), classes(B_X), vlm(B_X))
    return labelled, UnlabelledBatch(*(image(B_U) for _ in range(4)), valid_BHW, box_BHW, vlm(B_U))


def step(method: SemiCDVL, *, at: int = 0, total: int = 10, seed: int = 0) -> dict[str, torch.Tensor]:
    net = PixelNetwork()
    return method.step(net, net, *batches(seed), TrainingProgress(step=at, total=total))


# ---------------------------------------------------------------------------------------- the loss, calculated again
def entropy(logits_BKHW: torch.Tensor, target_BHW: torch.Tensor) -> torch.Tensor:
    """Cross entropy per pixel, 0 at IGNORE, written out."""
    target = target_BHW.clamp(max=1)
    right = logits_BKHW.gather(1, target[:, None])[:, 0] - logits_BKHW.logsumexp(1)
    return -right * (target_BHW != IGNORE)


def pasted(own: torch.Tensor, other: torch.Tensor, box_BHW: torch.Tensor, *, mirrored: bool) -> torch.Tensor:
    result = own.clone()
    for b in range(B_U):
        source = other[b].flip(-1) if mirrored else other[b - 1]
        result[b][..., box_BHW[b]] = source[..., box_BHW[b]]
    return result


def contrast(out: Outputs, target_BHW: torch.Tensor, *, official: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Loss per pixel if unchanged and if changed."""
    gap = out.features_t1_BDHW - out.features_t2_BDHW
    distance = gap.square().sum(3 if official else 1).sqrt()
    distance = F.interpolate(distance[:, None], size=(H, W), mode="bilinear")[:, 0]
    power = 2 if official else 1
    return distance**power * (target_BHW == 0), (2 - distance).clamp(min=0) ** power * (target_BHW == 1)


def expected_terms(*, official: bool, tau: float, frac_done: float) -> dict[str, torch.Tensor]:
    """The six lines of the paper and of the public code, without the functions under test."""
    net, (x, u) = PixelNetwork(), batches()
    teacher = PixelNetwork().eval()(u.weak_t1_BCHW, u.weak_t2_BCHW).change_BKHW.detach().softmax(1)
    out_x, out_w = net(x.t1_BCHW, x.t2_BCHW), net(u.weak_t1_BCHW, u.weak_t2_BCHW)
    own = out_w.change_BKHW.detach().softmax(1) if official else teacher

    def mix(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return pasted(a, b, u.cutmix_box_BHW, mirrored=official)

    confidence, pseudo = (mix(a, b) for a, b in zip(own.max(1), teacher.max(1), strict=True))
    valid = mix(u.valid_BHW, u.valid_BHW)
    out_s = net(mix(u.strong_t1_BCHW, u.strong_t1_BCHW), mix(u.strong_t2_BCHW, u.strong_t2_BCHW))
    counted = valid & (confidence >= tau)
    pull_x, push_x = contrast(out_x, x.label_BHW, official=official)
    pull_s, push_s = contrast(out_s, pseudo, official=official)
    balanced_x = pull_x.sum() / (x.label_BHW == 0).sum() + push_x.sum() / (x.label_BHW == 1).sum()
    balanced_s = (pull_s * counted).sum() / (counted & (pseudo == 0)).sum()
    balanced_s = balanced_s + (push_s * counted).sum() / (counted & (pseudo == 1)).sum()
    if official:
        balanced_s = ((pull_s + push_s) * counted).sum() / valid.sum()
    terms = {
        "supervised": entropy(out_x.change_BKHW, x.label_BHW).sum() / (x.label_BHW != IGNORE).sum() / 2,
        "consistency": (entropy(out_s.change_BKHW, pseudo) * counted).sum() / valid.sum() / 2,
        "contrastive_labelled": 0.1 * balanced_x / 2,
        "contrastive_unlabelled": 0.1 * balanced_s / 2,
    }
    vlm_s = {name: mix(value, value) for name, value in vars(u.vlm).items()}
    for rows, out, vlm in (("labelled", out_x, vars(x.vlm)), ("weak", out_w, vars(u.vlm)), ("strong", out_s, vlm_s)):
        means = []
        for logits, name in (
            (out.vlm_change_BKHW, "change_BHW"),
            (out.t1_BKHW, "t1_BHW"),
            (out.t2_BKHW, "t2_BHW"),
        ):
            by_valid = official and rows == "labelled"
            pixels = (vlm[name] != IGNORE).sum() if by_valid else vlm[name].numel()
            means.append(entropy(logits, vlm[name]).sum() / pixels)
        weight = 0.1 * (1 - frac_done) / 6
        terms[f"vlm_change_{rows}"] = weight * means[0]
        terms[f"vlm_segmentation_{rows}"] = weight * (means[1] + means[2]) / 2
    return terms


@pytest.mark.parametrize("official", [False, True])
def test_whole_loss_against_an_independent_calculation(official):
    make = SemiCDVL.official if official else SemiCDVL
    terms = step(make(confidence_min=0.8), at=3, total=10)
    expected = expected_terms(official=official, tau=0.8, frac_done=0.3)
    assert terms.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(terms[name], value, msg=lambda text, name=name: f"{name}: {text}")
        assert value > 0


def test_official_choices_change_every_term_they_should():
    ours, public = step(SemiCDVL(confidence_min=0.8)), step(SemiCDVL.official(confidence_min=0.8))
    same = {name for name in ours if torch.equal(ours[name], public[name])}
    assert same == {"supervised", "vlm_change_weak", "vlm_segmentation_weak"}


# ---------------------------------------------------------------------------------------- where gradients go
PARTS = {
    "encoder": "encoder.",
    "fuse": "change_decoder.convs",
    "cr": "change_decoder.classify.",
    "vl": "change_decoder.classify_vlm.",
    "date": "segmentation_decoder.convs",
    "seg": "segmentation_decoder.classify.",
}
CHANGE, VLM, DATE, SEG = (
    {"encoder", "fuse", "cr"},
    {"encoder", "fuse", "vl"},
    {"encoder", "date"},
    {"encoder", "date", "seg"},
)
REACHES = {
    "supervised": CHANGE,
    "consistency": CHANGE,
    "contrastive_labelled": DATE,
    "contrastive_unlabelled": DATE,
    **{f"vlm_change_{rows}": VLM for rows in ("labelled", "weak", "strong")},
    **{f"vlm_segmentation_{rows}": SEG for rows in ("labelled", "weak", "strong")},
}


def reached(method: SemiCDVL) -> dict[str, set[str]]:
    """For each term, the parts of the real network that its gradient reaches."""
    torch.manual_seed(0)
    net = build_siam_light(backbone="resnet18", pretrained=False, decoder_channels=8)
    x, u = batches()

    def large(value: torch.Tensor) -> torch.Tensor:
        return value.repeat_interleave(8, -1).repeat_interleave(8, -2)

    def enlarge(batch):
        grown = {k: large(v) for k, v in vars(batch).items() if isinstance(v, torch.Tensor)}
        return replace(batch, **grown, vlm=VLMTargets(*(large(v) for v in vars(batch.vlm).values())))

    terms = method.step(net, net, enlarge(x), enlarge(u), TrainingProgress(0, 10))
    names, parameters = zip(*net.named_parameters(), strict=True)
    result = {}
    for term, value in terms.items():
        grads = torch.autograd.grad(value, parameters, retain_graph=True, allow_unused=True)
        moved = [name for name, grad in zip(names, grads, strict=True) if grad is not None and grad.any()]
        result[term] = {part for part, prefix in PARTS.items() if any(name.startswith(prefix) for name in moved)}
    return result


def test_gradients_reach_exactly_the_parts_they_should():
    assert reached(SemiCDVL(confidence_min=0.0)) == REACHES


def test_with_one_head_the_vlm_teaches_the_head_that_is_used():
    found = reached(SemiCDVL(confidence_min=0.0, dual_head=False))
    assert found == REACHES | {f"vlm_change_{rows}": CHANGE for rows in ("labelled", "weak", "strong")}


def test_no_gradient_flows_through_pseudo_labels():
    for method in (SemiCDVL(confidence_min=0.0), SemiCDVL.official(confidence_min=0.0)):
        net = PixelNetwork()
        x, u = batches()
        u = replace(u, weak_t1_BCHW=u.weak_t1_BCHW.requires_grad_())
        terms = method.step(net, net, x, u, TrainingProgress(0, 10))
        (grad,) = torch.autograd.grad(terms["consistency"], u.weak_t1_BCHW, allow_unused=True)
        assert grad is None or not grad.any()


# ---------------------------------------------------------------------------------------- switches
@pytest.mark.parametrize(
    ("settings", "gone", "heads"),
    [
        ({}, set(), {"change", "vlm_change", "segmentation", "features"}),
        ({"dual_head": False}, set(), {"change", "segmentation", "features"}),
        (
            {"decoupled": False},
            {f"vlm_segmentation_{rows}" for rows in ("labelled", "weak", "strong")},
            {"change", "vlm_change", "features"},
        ),
        (
            {"lambda_c": 0.0},
            {"contrastive_labelled", "contrastive_unlabelled"},
            {"change", "vlm_change", "segmentation"},
        ),
        ({"vlm_on_labelled": False}, {"vlm_change_labelled"}, {"change", "vlm_change", "segmentation", "features"}),
        ({"vlm_guidance": False}, {name for name in REACHES if name.startswith("vlm")}, {"change", "features"}),
        ({"vlm_guidance": False, "lambda_c": 0.0}, set(REACHES) - {"supervised", "consistency"}, {"change"}),
    ],
)
def test_switches_remove_terms_and_leave_the_others_alone(settings, gone, heads):
    method = SemiCDVL(confidence_min=0.8, **settings)
    every, left = step(SemiCDVL(confidence_min=0.8)), step(method)
    assert set(every) - set(left) == gone
    assert method.heads == heads
    assert method.uses_vlm == settings.get("vlm_guidance", True)
    moved = {name for name in left if not torch.equal(left[name], every[name])}
    assert moved == ({f"vlm_change_{r}" for r in ("labelled", "weak", "strong")} if "dual_head" in settings else set())


def test_without_vlm_and_contrast_it_is_fixmatch():
    from semicdvl.methods.fixmatch import FixMatch

    net = PixelNetwork()
    plain = FixMatch(confidence_min=0.8).step(net, net, *batches(), TrainingProgress(0, 10))
    ours = step(SemiCDVL(confidence_min=0.8, vlm_guidance=False, lambda_c=0.0))
    assert ours.keys() == plain.keys() and all(torch.equal(ours[name], plain[name]) for name in plain)


@pytest.mark.parametrize(("at", "weight"), [(0, 0.1), (5, 0.05), (9, 0.01)])
def test_vlm_weight_falls_linearly(at, weight):
    first, now = step(SemiCDVL(), at=0), step(SemiCDVL(), at=at)
    for name in first:
        factor = weight / 0.1 if name.startswith("vlm") else 1.0
        torch.testing.assert_close(now[name], first[name] * factor)
    constant = step(SemiCDVL(lambda_vl_end=0.1), at=at)
    torch.testing.assert_close(constant["vlm_change_weak"], first["vlm_change_weak"])


def test_pseudo_labels_may_start_later():
    early = step(SemiCDVL(confidence_min=0.8, pseudo_start_frac=0.4), at=3)
    assert {name for name, term in early.items() if term == 0} == {"consistency", "contrastive_unlabelled"}
    now, always = (
        step(SemiCDVL(confidence_min=0.8, pseudo_start_frac=0.4), at=4),
        step(SemiCDVL(confidence_min=0.8), at=4),
    )
    assert all(torch.equal(now[name], always[name]) for name in always)


def test_a_vlm_that_is_sure_of_nothing():
    net, (x, u) = PixelNetwork(), batches()

    def unsure(batch):
        return replace(batch, vlm=VLMTargets(*(torch.full_like(v, IGNORE) for v in vars(batch.vlm).values())))

    for over in ("all", "valid", "official"):
        terms = SemiCDVL(vlm_over=over).step(net, net, unsure(x), unsure(u), TrainingProgress(0, 10))
        assert all(term.item() == 0 for name, term in terms.items() if name.startswith("vlm"))


def test_normalised_contrast_has_margin_one():
    terms = step(SemiCDVL(confidence_min=0.8, contrastive_form="normalised"))
    explicit = step(SemiCDVL(confidence_min=0.8, contrastive_form="normalised", contrastive_margin=1.0))
    two = step(SemiCDVL(confidence_min=0.8, contrastive_form="normalised", contrastive_margin=2.0))
    assert torch.equal(terms["contrastive_labelled"], explicit["contrastive_labelled"])
    assert terms["contrastive_labelled"] < two["contrastive_labelled"]


def test_passes_are_teacher_then_labelled_with_weak_then_strong():
    net = PixelNetwork().train()
    SemiCDVL().step(net, net, *batches(), TrainingProgress(0, 10))
    assert net.passes == [(False, B_U), (True, B_X + B_U), (True, B_U)]


def test_labelled_pairs_may_lack_vlm_labels_but_unlabelled_ones_may_not():
    net, (x, u) = PixelNetwork(), batches()
    terms = SemiCDVL().step(net, net, replace(x, vlm=None), u, TrainingProgress(0, 10))
    assert not any(name.startswith("vlm") and name.endswith("labelled") for name in terms)
    with pytest.raises(DataError, match=r"unlabelled pairs have none.* vlm_guidance = false"):
        SemiCDVL().step(net, net, x, replace(u, vlm=None), TrainingProgress(0, 10))
    SemiCDVL(vlm_guidance=False).step(net, net, x, replace(u, vlm=None), TrainingProgress(0, 10))


@pytest.mark.parametrize("field", ["vlm_over", "contrastive_form", "contrastive_axis", "pseudo_from", "cutmix_partner"])
def test_unknown_words_are_refused(field):
    with pytest.raises(ConfigError, match=f"{field} has no choice 'wrong'"):
        SemiCDVL(**{field: "wrong"})


@pytest.mark.parametrize(
    ("field", "value", "wanted"),
    [
        ("confidence_min", 1.5, "must be a number from 0 to 1"),
        ("confidence_min", "0.95", "must be a number from 0 to 1"),
        ("hard_frac", 2, "must be a number from 0 to 1"),
        ("lambda_c", -0.1, "must be a finite number of 0 or more"),
        ("lambda_vl", float("nan"), "finite"),
        ("contrastive_margin", True, "a finite number"),
        ("dual_head", "yes", "must be true or false"),
    ],
)
def test_values_out_of_range_are_refused(field, value, wanted):
    with pytest.raises(ConfigError, match=f"{field} {wanted}" if "must" in wanted else wanted):
        SemiCDVL(**{field: value})


def test_health_is_of_the_labels_in_use():
    net, (x, u) = PixelNetwork(), batches()
    ours, public = TrainingProgress(0, 10), TrainingProgress(0, 10)
    SemiCDVL(confidence_min=0.8).step(net, net, x, u, ours)
    SemiCDVL.official(confidence_min=0.8).step(net, net, x, u, public)
    assert (
        ours.diagnostics["confident_frac"] > public.diagnostics["confident_frac"]
    )  # this network's eval pass is the bolder one


def test_without_the_strong_view_the_other_terms_stay_as_they_are():
    """Batch norm sees the same batch, labelled pairs with weak views, so these terms are equal to the bit."""
    whole, part = step(SemiCDVL()), step(SemiCDVL(strong_view=False))
    gone = {name for name in whole if name.endswith("_strong")} | {"consistency", "contrastive_unlabelled"}
    assert gone == whole.keys() - part.keys() and part.keys() < whole.keys()
    assert all(torch.equal(part[name], whole[name]) for name in part)


def test_guidance_weighs_less_the_more_pairs_are_labelled_where_that_is_asked_for():
    method = SemiCDVL(lambda_vl=6.0, lambda_vl_end=3.0, full_guidance_labels=4)
    assert [method.weigh_by_labels(count) for count in (1, 4)] == [method, method]
    assert (method.weigh_by_labels(16).lambda_vl, method.weigh_by_labels(16).lambda_vl_end) == (1.5, 0.75)
    assert SemiCDVL().weigh_by_labels(1000) == SemiCDVL()
    with pytest.raises(ConfigError, match="full_guidance_labels must be"):
        SemiCDVL(full_guidance_labels=-1)
