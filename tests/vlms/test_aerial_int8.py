"""The embedded model in 8 bits: rounding, refusals, and how far its answers are from those in float32."""

import cv2
import numpy as np
import pytest
import torch

from semicdvl.errors import ConfigError
from semicdvl.vlms.aerial import int8_net
from semicdvl.vlms.aerial.build import build_aerial
from semicdvl.vlms.aerial.inference_net import choose_dtype
from semicdvl.vlms.aerial.int8_net import Steps, quantise_weight, read_measured

PROMPTS = ("building", "road", "grass", "tree")
needs_vnni = pytest.mark.skipif(not torch.cpu._is_vnni_supported(), reason="this processor does not multiply 8 bits")


def noise(height: int, width: int) -> np.ndarray:
    small = np.random.default_rng(0).integers(0, 255, (height // 8 + 2, width // 8 + 2, 3), dtype=np.uint8)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR)


def test_a_range_has_zero_among_its_steps() -> None:
    steps = Steps.over((-2.0, 3.1))
    assert steps.size == pytest.approx(0.02) and steps.zero == 100
    assert Steps.over((0.5, 6.0)) == Steps(6 / 255, 0)


def test_sums_are_rounded_to_steps_and_kept_within_them() -> None:
    steps = Steps.over((-1.0, 1.0))
    x_BDHW, y_BDHW = torch.randn(2, 1, 3, 5, 7, generator=torch.Generator().manual_seed(0)).unbind()
    found_BDHW = steps.dequantise(steps.quantise_sum(x_BDHW, y_BDHW))
    clipped_BDHW = (x_BDHW + y_BDHW).clamp(steps.size * -steps.zero, steps.size * (255 - steps.zero))
    assert found_BDHW.numpy() == pytest.approx(clipped_BDHW.numpy(), abs=steps.size * 0.51)


def test_weights_are_rounded_by_channel() -> None:
    weight_EDHW = (
        torch.randn(4, 3, 2, 2, generator=torch.Generator().manual_seed(0))
        * torch.tensor([1, 9, 0.1, 0])[:, None, None, None]
    )
    steps_EDHW, scales_E = quantise_weight(weight_EDHW)
    assert steps_EDHW.dtype == torch.int8 and steps_EDHW.abs().amax(dim=(1, 2, 3)).tolist() == [127, 127, 127, 0]
    error_EDHW = (steps_EDHW * scales_E[:, None, None, None] - weight_EDHW).abs()
    assert (error_EDHW <= 0.501 * scales_E[:, None, None, None]).all()


@needs_vnni
def test_answers_and_features_are_close_to_those_of_float32_and_have_a_name_of_their_own() -> None:
    exact, short = (build_aerial(views=1, dtype=dtype) for dtype in ("float32", "int8"))
    image_HWC = noise(97, 160)
    (exact_answer, exact_DHW), (answer, features_DHW) = (
        vlm.segment_with_features(image_HWC, PROMPTS) for vlm in (exact, short)
    )
    assert 0 < np.abs(exact_answer.scores_CHW - answer.scores_CHW).mean() < 0.02
    assert exact_DHW is not None and features_DHW is not None and features_DHW.shape == exact_DHW.shape
    norms_HW = np.linalg.norm(exact_DHW, axis=0) * np.linalg.norm(features_DHW, axis=0)
    assert ((exact_DHW * features_DHW).sum(axis=0) / norms_HW).mean() > 0.98
    assert short.identity == f"{exact.identity}-int8" and short.features_identity != exact.features_identity


@needs_vnni
def test_other_weights_were_not_measured() -> None:
    with pytest.raises(ConfigError, match="known for the shipped weights only"):
        read_measured("0" * 64)


def test_other_processors_and_devices_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "_is_vnni_supported", lambda: False)
    with pytest.raises(ConfigError, match="needs a processor with AVX512-VNNI"):
        read_measured("0" * 64)
    with pytest.raises(ConfigError, match="dtype 'int8' is for CPUs, and the device is 'cuda'"):
        choose_dtype("int8", torch.device("cuda"))


def test_ranges_and_corrections_are_those_of_the_shipped_network() -> None:
    measured, facts = int8_net.read_tensors(int8_net.MEASURED_PATH, remedy="")
    assert facts["weights"].startswith(build_aerial(views=1).identity.split("-")[1])
    assert measured["range.encoder.blocks.0.0"].shape == (2,) and measured["shift.narrow"].shape == (48,)
