"""SemiCD's perturbations: what each does to features, and that virtual adversarial training finds a direction."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from tests.support.tiny_models import tiny
from torch import Tensor

from semicdvl.models.cct import CCT, CCTDecoder
from semicdvl.models.common import perturbations as ways
from semicdvl.models.common.perturbations import AUXILIARY_DECODERS, PerturbationContext

CHANGED_ROWS, CHANGED_COLUMNS = slice(8, 40), slice(16, 64)


def features(*, channels: int = 6, seed: int = 0) -> Tensor:
    """Non-negative, as differences behind a ReLU are."""
    return torch.rand(2, channels, 8, 10, generator=torch.Generator().manual_seed(seed)) + 0.1


def seen(*, decode: CCTDecoder | None = None) -> PerturbationContext:
    """One region of 32 x 48 px predicted as changed in the first pair, a speck in the second, at 8 px per feature."""
    change_BHW = torch.zeros(2, 64, 80, dtype=torch.bool)
    change_BHW[0, CHANGED_ROWS, CHANGED_COLUMNS] = True
    change_BHW[1, 3:6, 3:6] = True
    return PerturbationContext(change_BHW=change_BHW, decode=decode or CCTDecoder(6, 2))


def test_there_are_26_decoders_as_published() -> None:
    assert [count for _, count in AUXILIARY_DECODERS] == [2, 5, 5, 2, 2, 5, 5]


def test_the_adversarial_direction_is_the_one_that_float64_finds() -> None:
    """The published probing step of 1e-6 is lost in float32: its direction is noise."""
    torch.manual_seed(0)
    decoder, features_BDHW = CCTDecoder(64, 2), torch.rand(2, 64, 16, 16)
    start_BDHW = torch.rand_like(features_BDHW) - 0.5
    exact_BDHW = _direction(decoder.double(), features_BDHW.double(), start_BDHW.double(), probe=1e-6)
    decoder.float()

    def agreement(probe: float) -> Tensor:
        found_BDHW = _direction(decoder, features_BDHW, start_BDHW, probe=probe)
        return (found_BDHW.double() * exact_BDHW).flatten(1).sum(dim=1)

    assert agreement(ways.VAT_PROBE).min() > 0.99
    assert agreement(1e-6).max() < 0.5


def _direction(decoder: CCTDecoder, still_BDHW: Tensor, start_BDHW: Tensor, *, probe: float) -> Tensor:
    way_BDHW = ways._scale_to_unit_length(start_BDHW).requires_grad_()
    wanted_BKHW = decoder(still_BDHW).detach().softmax(dim=1)
    moved_BKHW = decoder(still_BDHW + probe * way_BDHW).log_softmax(dim=1)
    (gradient_BDHW,) = torch.autograd.grad(F.kl_div(moved_BKHW, wanted_BKHW, reduction="batchmean"), way_BDHW)
    return ways._scale_to_unit_length(gradient_BDHW)


def test_adversarial_features_change_the_answer_more_than_random_ones_and_leave_no_gradient() -> None:
    torch.manual_seed(0)
    decoder = CCTDecoder(6, 2)
    features_BDHW = features().requires_grad_()
    moved_BDHW = ways.virtual_adversarial(features_BDHW, seen(decode=decoder))
    step_BDHW = (moved_BDHW - features_BDHW).detach()
    torch.testing.assert_close(step_BDHW.flatten(1).norm(dim=1), torch.full((2,), ways.VAT_RADIUS), rtol=1e-4, atol=0)
    assert all(parameter.grad is None for parameter in decoder.parameters()) and features_BDHW.grad is None

    def effect(moved: Tensor) -> Tensor:
        wanted_BKHW = decoder(features_BDHW).softmax(dim=1)
        return F.kl_div(decoder(moved).log_softmax(dim=1), wanted_BKHW, reduction="batchmean").detach()

    others = [ways.VAT_RADIUS * ways._scale_to_unit_length(torch.randn_like(step_BDHW)) for _ in range(20)]
    assert effect(moved_BDHW) > 3 * max(effect(features_BDHW + other) for other in others)
    with torch.no_grad():
        assert not torch.equal(ways.virtual_adversarial(features_BDHW, seen(decode=decoder)), features_BDHW)


def test_cutout_erases_four_tenths_of_each_side_inside_a_large_region_alone() -> None:
    torch.manual_seed(0)
    places = set()
    for _ in range(10):
        ratio_BDHW = ways.guided_cutout(features(), seen()) / features()
        assert set(ratio_BDHW.unique().tolist()) == {0.0, 1.0}
        assert ratio_BDHW[1].all()  # a speck's outline is too short
        erased_HW = ratio_BDHW[0, 0] == 0
        assert not erased_HW[:1].any() and not erased_HW[5:].any()
        assert not erased_HW[:, :2].any() and not erased_HW[:, 8:].any()
        rows, columns = erased_HW.any(dim=1).sum(), erased_HW.any(dim=0).sum()
        assert erased_HW.sum() == rows * columns  # 12 x 19 of 32 x 48 px, at 8 px per feature
        assert 1 <= rows <= 2 and 2 <= columns <= 3
        places.add(tuple(erased_HW.nonzero()[0].tolist()))
    assert len(places) > 1


def test_keeping_and_dropping_predicted_change_are_each_others_rest() -> None:
    kept, dropped = ways.keep_predicted_change(features(), seen()), ways.drop_predicted_change(features(), seen())
    assert torch.equal(kept + dropped, features())
    assert kept[0, :, 1:5, 2:8].all() and not kept[0, :, 5:].any() and not dropped[0, :, 1:5, 2:8].any()


def test_the_strongest_pixels_are_dropped_pair_by_pair() -> None:
    torch.manual_seed(0)
    features_BDHW = features()
    features_BDHW[1] *= 5
    for _ in range(5):
        found_BDHW = ways.drop_strongest(features_BDHW, seen())
        mean_BHW = features_BDHW.mean(dim=1)
        share_BHW = mean_BHW / mean_BHW.amax(dim=(1, 2), keepdim=True)
        kept_BHW = found_BDHW.any(dim=1)
        assert kept_BHW[share_BHW < 0.7].all() and not kept_BHW[share_BHW >= 0.9].any()
        assert torch.equal(found_BDHW, features_BDHW * kept_BHW[:, None])


def test_noise_is_one_for_the_whole_batch() -> None:
    torch.manual_seed(0)
    ratio_BDHW = ways.multiplicative_noise(features(), seen()) / features()
    torch.testing.assert_close(ratio_BDHW[0], ratio_BDHW[1])
    assert 0.7 <= ratio_BDHW.min() < 0.75 and 1.25 < ratio_BDHW.max() <= 1.3


def test_spatial_dropout_takes_whole_channels() -> None:
    torch.manual_seed(0)
    ratio_BD = (ways.spatial_dropout(features(channels=40), seen()) / features(channels=40)).flatten(2)
    assert (ratio_BD.std(dim=-1) < 1e-6).all() and {0, 2} == set(ratio_BD[..., 0].round().int().unique().tolist())


# ---------------------------------------------------------------------------------------- the network
def pair() -> tuple[Tensor, Tensor]:
    t1_BCHW, t2_BCHW = torch.randn(2, 2, 3, 48, 64, generator=torch.Generator().manual_seed(3))
    return t1_BCHW, t2_BCHW


def network() -> CCT:
    net = tiny("cct")
    assert isinstance(net, CCT)
    for norm in (m for m in net.modules() if isinstance(m, torch.nn.BatchNorm2d)):
        torch.nn.init.ones_(norm.weight)
    return net


def test_auxiliary_maps_teach_the_encoder_and_not_the_main_decoder() -> None:
    net = network().train()
    out = net(*pair(), heads=frozenset({"change", "auxiliary"}))
    assert out.auxiliary_BKHW is not None and len(out.auxiliary_BKHW) == 26
    target_BKHW = out.change_BKHW.detach().softmax(dim=1)
    sum(F.mse_loss(one.softmax(dim=1), target_BKHW) for one in out.auxiliary_BKHW).backward()
    assert all(parameter.grad is not None for parameter in net.encoder.parameters())
    assert all(parameter.grad is None for parameter in net.decoder.parameters())


def test_the_same_decoder_sees_something_else_each_time_but_in_eval_mode_the_plain_features() -> None:
    net = network()
    for decoder in net.auxiliary:
        decoder.load_state_dict(net.decoder.state_dict())
    with torch.no_grad():
        training, again = net.train()(*pair()), net(*pair())
        evaluated = net.eval()(*pair())
    assert all(torch.equal(one, evaluated.change_BKHW) for one in evaluated.auxiliary_BKHW)
    for index in (*range(7), *range(16, 26)):  # masks may find nothing to cut or keep
        assert not torch.equal(training.auxiliary_BKHW[index], training.change_BKHW), index
    for index in (*range(2, 7), *range(21, 26)):  # of these the random part is no threshold
        assert not torch.equal(training.auxiliary_BKHW[index], again.auxiliary_BKHW[index]), index


def test_the_1x1_layer_before_resizing_is_the_published_order() -> None:
    torch.manual_seed(0)
    decoder, features_BDHW = CCTDecoder(6, 2), features()
    middle_BDHW = F.interpolate(F.relu(decoder.conv(features_BDHW)), scale_factor=8, mode="bilinear")
    ours_BKHW = F.interpolate(decoder(features_BDHW), scale_factor=8, mode="bilinear")
    torch.testing.assert_close(ours_BKHW, decoder.classify(middle_BDHW), atol=1e-6, rtol=1e-5)
