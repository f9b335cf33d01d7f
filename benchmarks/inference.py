"""Pairs per second of a trained network, in every mode in which `detect` can run it.

    python benchmarks/inference.py                  # ResNet50 at 256 px, one pair at a time, one thread
    python benchmarks/inference.py --compile        # also through torch.compile (minutes)
    python benchmarks/inference.py --threads 4 --px 512 --pairs 4

`plain` is the network as it was trained, fp32, eager, the change head alone: all else is compared with it. Rounds
alternate, so that other work on the machine disturbs all alike, and processor seconds are counted; the best round of
each mode is reported.

Then a small network is trained on synthetic pairs, and the map of each mode is compared, on pairs that it has not seen,
with the truth and with the plain mode: what a mode costs in IoU, and by how much the probability of change differs.
"""

from __future__ import annotations

import argparse
import os
import platform
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

Maps = NDArray[np.float32]
Way = Callable[[NDArray[np.float32], NDArray[np.float32]], Maps]
"""Two dates, normalised BCHW, to the probability of change BHW."""
MEAN, STD = (np.array(each, np.float32)[:, None, None] for each in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
ROUNDS = 5


# ------------------------------------------------------------------------------------------------ the ways
def torch_way(network: object) -> Way:
    """Run a network of torch."""
    import torch

    def run(t1_BCHW: NDArray[np.float32], t2_BCHW: NDArray[np.float32]) -> Maps:
        with torch.inference_mode():
            dates = [torch.from_numpy(date_BCHW) for date_BCHW in (t1_BCHW, t2_BCHW)]
            logits_BKHW = network(*dates, heads=frozenset({"change"})).change_BKHW  # type: ignore[operator]
            return logits_BKHW.float().softmax(dim=1)[:, 1].numpy()

    return run


def onnx_way(network: object, folder: Path) -> Way:
    """Run a network through ONNX Runtime."""
    from semicdvl.detection.detectors.onnx.detector import INPUT_NAMES
    from semicdvl.detection.detectors.onnx.export import export_network
    from semicdvl.detection.detectors.onnx.session import open_session

    done = export_network(network, folder / "network.onnx")  # type: ignore[arg-type]
    session = open_session(done.path, device="cpu")

    def run(t1_BCHW: NDArray[np.float32], t2_BCHW: NDArray[np.float32]) -> Maps:
        (logits_BKHW,) = session.run(None, dict(zip(INPUT_NAMES, (t1_BCHW, t2_BCHW), strict=True)))
        return 1 / (1 + np.exp(logits_BKHW[:, 0] - logits_BKHW[:, 1]))

    return run


def ways_of(network: object, folder: Path, *, compiled: bool) -> dict[str, Way]:
    """Return all modes, the one to compare with first."""
    from semicdvl.detection.detectors.inference import prepare_for_inference

    ways = {
        "plain fp32": torch_way(network),
        "ours fp32": torch_way(prepare_for_inference(network)),  # type: ignore[arg-type]
        "ours bf16": torch_way(prepare_for_inference(network, precision="bf16")),  # type: ignore[arg-type]
    }
    if compiled:
        ways["compiled fp32"] = torch_way(prepare_for_inference(network, compiled=True))  # type: ignore[arg-type]
        ways["compiled bf16"] = torch_way(prepare_for_inference(network, precision="bf16", compiled=True))  # type: ignore[arg-type]
    return ways | {"ONNX Runtime fp32": onnx_way(network, folder)}


# ------------------------------------------------------------------------------------------------ speed
def print_rates(ways: dict[str, Way], dates: tuple[NDArray[np.float32], NDArray[np.float32]]) -> None:
    """Print the rate of every mode and its ratio to the first."""
    for way in ways.values():
        way(*dates)  # compiles, and warms up
    best_s = dict.fromkeys(ways, float("inf"))
    for _ in range(ROUNDS):
        for name, way in ways.items():
            began = time.process_time()
            way(*dates)
            best_s[name] = min(best_s[name], time.process_time() - began)
    first = next(iter(ways))
    print(f"{'':20} {'pairs/CPU s':>12} {'ratio':>6}")
    for name, seconds in best_s.items():
        print(f"{name:20} {len(dates[0]) / seconds:12.2f} {best_s[first] / seconds:6.2f}", flush=True)


def big_network(backbone: str) -> object:
    """Return SemiCD-VL's network with statistics as if trained; its speed does not depend on what it learnt."""
    import torch

    from semicdvl.models.siam_light import build_siam_light

    torch.manual_seed(0)
    network = build_siam_light(backbone=backbone, pretrained=False).eval()
    for norm in network.modules():
        if isinstance(norm, torch.nn.BatchNorm2d):
            norm.running_mean.normal_(0, 0.1)
            norm.running_var.uniform_(0.5, 1.5)
    return network


# ------------------------------------------------------------------------------------------------ quality
@dataclass(frozen=True)
class Pairs:
    """Synthetic pairs: dates normalised, truth of 0 and 1."""

    t1_BCHW: NDArray[np.float32]
    t2_BCHW: NDArray[np.float32]
    truth_BHW: NDArray[np.uint8]


def generate_pairs(rng: np.random.Generator, *, count: int, px: int) -> Pairs:
    """Draw roofs on rough ground; some appear, some disappear, and illumination and noise differ between the dates."""
    drawn = [_draw_pair(rng, px) for _ in range(count)]
    first, second, truth = (np.stack(each) for each in zip(*drawn, strict=True))
    return Pairs(_normalise(first), _normalise(second), truth)


def _draw_pair(rng: np.random.Generator, px: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.uint8]]:
    """Draw one pair and its truth."""
    ground = cv2.resize(rng.integers(60, 150, (px // 8, px // 8, 3), dtype=np.uint8), (px, px)).astype(np.float32)
    dates, roofs = [ground.copy(), ground.copy()], np.zeros((2, px, px), np.uint8)
    for _ in range(8):
        corners = cv2.boxPoints((rng.uniform(0, px, 2), rng.uniform(6, px / 4, 2), rng.uniform(0, 90))).astype(np.int32)
        colour, fate = rng.uniform(90, 230, 3).tolist(), rng.random()
        for date in (0, 1):
            if (fate > 0.25 or date == 1) and (fate < 0.75 or date == 0):
                cv2.fillPoly(dates[date], [corners], colour)
                cv2.fillPoly(roofs[date], [corners], 1)
    lit = [rng.uniform(0.85, 1.15, 3) * date + rng.normal(0, 8, date.shape) for date in dates]
    first, second = (np.clip(date, 0, 255).astype(np.uint8) for date in lit)
    return first, second, roofs[0] ^ roofs[1]


def _normalise(images_BHWC: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return images as networks take them."""
    return (np.moveaxis(images_BHWC, -1, 1).astype(np.float32) / 255 - MEAN) / STD


def train_network(rng: np.random.Generator, *, steps: int, px: int) -> object:
    """Train a small network on synthetic pairs."""
    import torch
    from torch.nn.functional import cross_entropy

    from semicdvl.models.siam_light import build_siam_light

    torch.manual_seed(0)
    network = build_siam_light(backbone="resnet18", pretrained=False, decoder_channels=32, train_heads=False).train()
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-3)
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = 1e-3 * (1 - step / steps)
        batch = generate_pairs(rng, count=6, px=px)
        t1_BCHW, t2_BCHW = (torch.from_numpy(date) for date in (batch.t1_BCHW, batch.t2_BCHW))
        logits_BKHW = network(t1_BCHW, t2_BCHW).change_BKHW
        loss = cross_entropy(logits_BKHW, torch.from_numpy(batch.truth_BHW.astype(np.int64)))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return network.eval()


def compute_iou(maps: Iterable[Maps], pairs: Pairs) -> float:
    """Return the IoU of changed pixels over all pairs."""
    found, truth = np.concatenate(list(maps)) >= 0.5, pairs.truth_BHW == 1
    return float((found & truth).sum() / max((found | truth).sum(), 1))


def print_accuracy(ways: dict[str, Way], pairs: Pairs) -> None:
    """Print the IoU of every mode and its difference from the first."""
    first = None
    print(f"{'':20} {'IoU':>8} {'change':>9} {'largest':>9} {'mean':>9}  difference of the probability")
    for name, way in ways.items():
        maps = [way(pairs.t1_BCHW[at : at + 1], pairs.t2_BCHW[at : at + 1]) for at in range(len(pairs.truth_BHW))]
        found = np.concatenate(maps)
        first = (compute_iou(maps, pairs), found) if first is None else first
        off = np.abs(found - first[1])
        score = compute_iou(maps, pairs)
        print(f"{name:20} {score:8.4f} {score - first[0]:+9.4f} {off.max():9.1e} {off.mean():9.1e}", flush=True)


def list_bf16_features() -> str:
    """Return what the processor has for bf16."""
    flags = Path("/proc/cpuinfo").read_text().split() if Path("/proc/cpuinfo").exists() else []
    return ", ".join(each for each in ("avx512f", "avx512_bf16", "amx_bf16") if each in flags) or platform.processor()


def main() -> None:
    """Measure speed, then what it costs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="resnet50s")
    parser.add_argument("--px", type=int, default=256)
    parser.add_argument("--pairs", type=int, default=1, help="in a batch")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--steps", type=int, default=150, help="of the small network's training")
    parser.add_argument("--compile", action="store_true", help="also through torch.compile")
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = str(options.threads)  # before torch is imported
    rng = np.random.default_rng(0)
    dates = tuple(rng.normal(size=(options.pairs, 3, options.px, options.px)).astype(np.float32) for _ in range(2))
    print(f"{options.backbone}, {options.pairs} x {options.px} px, {options.threads} thread(s), {list_bf16_features()}")
    with tempfile.TemporaryDirectory() as folder:
        print_rates(ways_of(big_network(options.backbone), Path(folder), compiled=options.compile), dates)
        network = train_network(rng, steps=options.steps, px=96)
        pairs = generate_pairs(rng, count=60, px=96)
        print(f"\nresnet18, trained {options.steps} steps on synthetic pairs, {len(pairs.truth_BHW)} others")
        print_accuracy(ways_of(network, Path(folder), compiled=options.compile), pairs)


if __name__ == "__main__":
    main()
