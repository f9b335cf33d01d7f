"""Seconds and memory of one training step of SemiCD-VL, against a plain version of the public code's loop body.

    python benchmarks/train_step.py                      # ResNet50, 128 px and 256 px, 2 + 2 pairs; CPU or GPU
    python benchmarks/train_step.py --px 256 --batch 8 --device cuda

`plain` is the step of the public code, re-written: an eval-mode pass of a second weak batch, a train-mode
pass of labelled and weak pairs, a train-mode pass of the strong view, every head in every pass, each decoder map
resized to full size and concatenated before the fusing convolution, fp32, contiguous tensors, SGD parameter by
parameter. `ours` is the package's own training loop (`training.loop.run_training_loop`), given the same pairs. Both
compute what docs/benchmarks/reproduce.md describes; before anything is timed, their losses are compared by name, at
the first step and at the second one, which depends on the first one's gradients. Every variant runs in its own process:
its peak memory is that of the whole process (CPU), or the most that was allocated (GPU). On a shared machine compare
the CPU seconds.
"""

from __future__ import annotations

import argparse
import itertools
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from semicdvl.config import DataConfig, PartConfig, Recipe, TrainConfig
from semicdvl.methods.semicd_vl import SemiCDVL
from semicdvl.models import siam_light
from semicdvl.training.length import TrainingLength
from semicdvl.training.loop import run_training_loop
from semicdvl.types import IGNORE, IMAGENET_MEAN, IMAGENET_STD, LabelledBatch, UnlabelledBatch, VLMTargets

METHOD = SemiCDVL(confidence_min=0.5)  # an untrained network is not surer; at 0.95 no pixel would count
TOLERANCE = {"fp32": (2e-4, 5e-3), "bf16": (3e-2, 1e-1)}
"""Largest relative difference of the summed loss from plain at the first and at the second step."""
Losses = list[dict[str, float]]


@dataclass(frozen=True)
class Setup:
    """What is measured: network, size and number of the pairs (labelled, and as many unlabelled), steps, device."""

    backbone: str
    channels: int
    px: int
    batch: int
    steps: int
    device: str

    def network(self) -> siam_light.SiamLight:
        """Return the network; every call gives the same weights."""
        torch.manual_seed(0)
        return siam_light.build_siam_light(backbone=self.backbone, pretrained=False, decoder_channels=self.channels)

    def pairs(self) -> tuple[LabelledBatch, UnlabelledBatch]:
        """Return synthetic pairs as the loader gives them; every call gives the same."""
        draw = torch.Generator().manual_seed(0)
        maps = (self.batch, self.px, self.px)

        def image() -> Tensor:
            coarse = torch.rand((self.batch, 3, self.px // 8, self.px // 8), generator=draw)
            return (F.interpolate(coarse, size=(self.px, self.px), mode="bilinear") * 255).to(torch.uint8)

        def classes(ignored: float) -> Tensor:
            label = (torch.rand(maps, generator=draw) < 0.2).long()
            return label.masked_fill(torch.rand(maps, generator=draw) < ignored, IGNORE)

        def vlm() -> VLMTargets:
            return VLMTargets(classes(0.5), classes(0.5), classes(0.5))

        labelled = LabelledBatch(image(), image(), classes(0.05), vlm())
        valid = torch.rand(maps, generator=draw) > 0.05
        box = torch.zeros(maps, dtype=torch.bool)
        box[:, self.px // 4 : self.px // 2, self.px // 8 : self.px // 2] = True
        return labelled, UnlabelledBatch(image(), image(), image(), image(), valid, box, vlm())


TRAIN = TrainConfig(lr=0.002)


# ------------------------------------------------------------------------------------------------ the public code's way
@dataclass(frozen=True)
class Streams:
    """Every output of the public network for a batch, at the size of the input."""

    change: Tensor
    vlm_change: Tensor
    t1: Tensor
    t2: Tensor
    distance: Tensor

    def rows(self, part: slice) -> Streams:
        """Return some pairs."""
        return Streams(*(value[part] for value in vars(self).values()))


def public_forward(net: siam_light.SiamLight, t1_BCHW: Tensor, t2_BCHW: Tensor) -> Streams:
    """Run every head on a batch."""
    size, seg = t1_BCHW.shape[-2:], net.segmentation_decoder
    assert seg is not None and net.change_decoder.classify_vlm is not None
    maps_t1, maps_t2 = net.encoder(t1_BCHW), net.encoder(t2_BCHW)
    fused = _decode(net.change_decoder, [(a - b).abs() for a, b in zip(maps_t1, maps_t2, strict=True)])
    date_1, date_2 = _decode(seg, maps_t1), _decode(seg, maps_t2)
    distance = (date_1 - date_2).norm(dim=1, keepdim=True)
    heads = (net.change_decoder.classify, net.change_decoder.classify_vlm)
    logits = [head(fused) for head in heads] + [seg.classify(date_1), seg.classify(date_2)]
    full = [F.interpolate(one, size=size, mode="bilinear", align_corners=False) for one in (*logits, distance)]
    return Streams(full[0], full[1], full[2], full[3], full[4][:, 0])


def _decode(decoder: siam_light.LightDecoder, maps: list[Tensor]) -> Tensor:
    """Resize every map to the first one's size, concatenate, fuse."""
    size = maps[0].shape[-2:]
    parts = [conv(one) for conv, one in zip(decoder.convs, maps, strict=True)]
    parts = [F.interpolate(one, size=size, mode="bilinear", align_corners=False) for one in parts]
    fused: Tensor = decoder.fusion_conv(torch.cat(parts, dim=1))
    return fused


def compute_plain_terms(
    net: siam_light.SiamLight, x: LabelledBatch, u: UnlabelledBatch, *, lambda_vl: float
) -> dict[str, Tensor]:
    """Return the loss terms of one step by the names of the method."""
    count, box = len(x.label_BHW), u.cutmix_box_BHW
    assert x.vlm is not None and u.vlm is not None
    with torch.no_grad():  # the partner's batch: here the same pairs in another order
        net.eval()
        partner = public_forward(net, u.weak_t1_BCHW.roll(1, 0), u.weak_t2_BCHW.roll(1, 0)).change.softmax(1).max(1)
    net.train()
    both = public_forward(net, torch.cat([x.t1_BCHW, u.weak_t1_BCHW]), torch.cat([x.t2_BCHW, u.weak_t2_BCHW]))
    labelled, weak = both.rows(slice(count)), both.rows(slice(count, None))
    mixed = [torch.where(box[:, None], im.roll(1, 0), im) for im in (u.strong_t1_BCHW, u.strong_t2_BCHW)]
    strong = public_forward(net, mixed[0], mixed[1])

    sure = torch.where(box, partner.values, partner.values.roll(-1, 0))
    pseudo = torch.where(box, partner.indices, partner.indices.roll(-1, 0))
    valid = torch.where(box, u.valid_BHW.roll(1, 0), u.valid_BHW)
    vlm_s = [torch.where(box, one.roll(1, 0), one) for one in vars(u.vlm).values()]
    counted = valid & (sure >= METHOD.confidence_min)
    agreement = (F.cross_entropy(strong.change, pseudo, reduction="none") * counted).sum() / valid.sum()
    terms = {
        "supervised": F.cross_entropy(labelled.change, x.label_BHW, ignore_index=IGNORE) / 2,
        "consistency": agreement / 2,
        "contrastive_labelled": METHOD.lambda_c
        / 2
        * _compute_contrastive_loss(labelled.distance, x.label_BHW, x.label_BHW != IGNORE),
        "contrastive_unlabelled": METHOD.lambda_c / 2 * _compute_contrastive_loss(strong.distance, pseudo, counted),
    }
    for name, out, maps in (
        ("labelled", labelled, list(vars(x.vlm).values())),
        ("weak", weak, list(vars(u.vlm).values())),
        ("strong", strong, vlm_s),
    ):
        terms[f"vlm_change_{name}"] = lambda_vl / 6 * _over_all(out.vlm_change, maps[0])
        both_dates = _over_all(out.t1, maps[1]) + _over_all(out.t2, maps[2])
        terms[f"vlm_segmentation_{name}"] = lambda_vl / 6 * both_dates / 2
    return terms


def _compute_contrastive_loss(distance: Tensor, label: Tensor, counted: Tensor) -> Tensor:
    """Return mean distance of unchanged pixels + mean lack of distance of changed ones."""
    unchanged, changed = counted & (label == 0), counted & (label == 1)
    pull = (distance * unchanged).sum() / unchanged.sum().clamp(min=1)
    return pull + ((2 - distance).clamp(min=0) * changed).sum() / changed.sum().clamp(min=1)


def _over_all(logits: Tensor, label: Tensor) -> Tensor:
    """Return the cross entropy summed over the pixels with a label, divided by all."""
    return F.cross_entropy(logits, label, ignore_index=IGNORE, reduction="sum") / label.numel()


# ------------------------------------------------------------------------------------------------ measuring
@dataclass(frozen=True)
class Measured:
    """One variant: losses of its first steps by name, seconds and CPU seconds per step, peak memory."""

    losses: Losses
    step_s: float
    cpu_s: float
    peak_mib: float


class Meter:
    """Notes time and memory at the beginning of every step."""

    def __init__(self, device: str) -> None:
        """Measure on a device."""
        self.cuda, self.peak_mib = device == "cuda", 0.0
        self.times_s, self.cpu_s = list[float](), list[float]()

    def mark(self) -> None:
        """Record the current time and memory."""
        if self.cuda:
            torch.cuda.synchronize()
        self.times_s.append(time.perf_counter())
        self.cpu_s.append(time.process_time())
        kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        self.peak_mib = torch.cuda.max_memory_allocated() / 2**20 if self.cuda else kib / 1024

    def measured(self, losses: Losses) -> Measured:
        """Return the result; the fastest step counts, but for the first, which warms up."""
        return Measured(losses, _find_fastest(self.times_s), _find_fastest(self.cpu_s), self.peak_mib)


def _find_fastest(times_s: list[float]) -> float:
    """Return the smallest gap but for the first."""
    gaps = [later - earlier for earlier, later in itertools.pairwise(times_s)]
    return min(gaps[1:] or gaps)


def measure_plain(setup: Setup) -> Measured:
    """Run the plain steps."""
    net = setup.network().to(setup.device)
    encoder = list(net.encoder.parameters())
    known = {id(parameter) for parameter in encoder}
    rest = [parameter for parameter in net.parameters() if id(parameter) not in known]
    heads_lr = TRAIN.lr * TRAIN.head_lr_multiplier
    groups = [{"params": encoder, "lr": TRAIN.lr}, {"params": rest, "lr": heads_lr}]
    optimizer = torch.optim.SGD(groups, momentum=TRAIN.momentum, weight_decay=TRAIN.weight_decay, foreach=False)
    base = [group["lr"] for group in optimizer.param_groups]
    x, u = (_move_to_device(part, setup.device) for part in setup.pairs())
    meter, losses = Meter(setup.device), Losses()
    for step in range(setup.steps + 1):
        meter.mark()
        frac = step / (setup.steps + 1)
        for group, lr in zip(optimizer.param_groups, base, strict=True):
            group["lr"] = lr * (1 - frac) ** TRAIN.power
        terms = compute_plain_terms(net, x, u, lambda_vl=METHOD.lambda_vl * (1 - frac))
        optimizer.zero_grad()
        torch.stack(list(terms.values())).sum().backward()
        optimizer.step()
        losses.append({name: term.item() for name, term in terms.items()})
    return meter.measured(losses)


def _move_to_device(part: LabelledBatch | UnlabelledBatch, device: str) -> LabelledBatch | UnlabelledBatch:
    """Put pairs on the device, images as normalised float in the ordinary layout."""
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    moved = {}
    for name, value in vars(part).items():
        if isinstance(value, VLMTargets):
            moved[name] = VLMTargets(*(one.to(device) for one in vars(value).values()))
        elif isinstance(value, Tensor):
            image = value.dtype == torch.uint8
            moved[name] = (((value.float() / 255 - mean) / std).contiguous() if image else value).to(device)
    return type(part)(**moved)


def measure_ours(setup: Setup, precision: str) -> Measured:
    """Run the package's loop; time and memory are noted whenever it asks for a batch."""
    meter = Meter(setup.device)

    def batches(start: int) -> Iterator[tuple[LabelledBatch, UnlabelledBatch]]:
        pair = setup.pairs()
        for _ in range(start, setup.steps + 1):
            meter.mark()
            yield pair

    def no_validation(model: nn.Module, device: torch.device) -> Mapping[str, float]:
        return {"iou": 0.0}

    steps = setup.steps + 1  # the last one is not timed: weights are saved after it
    config = TRAIN.model_copy(update={"precision": precision, "device": setup.device})
    recipe = Recipe(data=DataConfig(root=Path("unused")), method=PartConfig(name="semicd_vl"), train=config)
    with tempfile.TemporaryDirectory() as folder:
        run_training_loop(
            setup.network(),
            METHOD,
            recipe,
            length=TrainingLength(steps, steps, eval_every=steps),
            batches=batches,
            validate=no_validation,
            run=Path(folder) / "run",
            quiet=True,
        )
        lines = [json.loads(line) for line in (Path(folder) / "run" / "log.jsonl").read_text().splitlines()]
    known = list_plain_names()
    losses = [{name: line[name] for name in known} for line in lines if "supervised" in line]
    return meter.measured(losses)


def list_plain_names() -> list[str]:
    """Return the names of the terms."""
    rows = ("labelled", "weak", "strong")
    vlm = [f"vlm_{kind}_{row}" for row in rows for kind in ("change", "segmentation")]
    return ["supervised", "consistency", "contrastive_labelled", "contrastive_unlabelled", *vlm]


def require_same_losses(plain: Measured, own: Measured, precision: str) -> float:
    """Return the largest relative difference of a term at the first step; refuse losses that differ.

    Raises:
        SystemExit: the two don't do the same maths.
    """
    for at, tolerance in enumerate(TOLERANCE[precision]):
        one, other = plain.losses[at], own.losses[at]
        total = sum(one.values())
        if abs(sum(other.values()) - total) > tolerance * abs(total):
            sys.exit(f"step {at + 1}: plain {one}\n{precision} {other}\ndiffer by more than {tolerance:g}")
    first, second = plain.losses[0], own.losses[0]
    return max(abs(first[name] - second[name]) / max(abs(first[name]), 1e-9) for name in first)


def in_own_process(setup: Setup, variant: str) -> Measured:
    """Measure a variant in a process of its own."""
    command = [sys.executable, __file__, "--variant", variant, "--setup", json.dumps(vars(setup))]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return Measured(**json.loads(done.stdout.splitlines()[-1]))


def compare_variants(setup: Setup, precisions: list[str]) -> None:
    """Measure all variants at one size and print the table."""
    plain = in_own_process(setup, "plain")
    name = torch.cuda.get_device_name() if setup.device == "cuda" else f"{torch.get_num_threads()} CPU threads"
    print(f"\n{setup.backbone}, {setup.px} px, {setup.batch} + {setup.batch} pairs, {name}")
    print("| | s/step | ratio | CPU s/step | ratio | peak MiB | of plain | largest difference of a loss term |")
    print("|---|---|---|---|---|---|---|---|")
    print(f"| plain fp32 | {plain.step_s:.3f} | | {plain.cpu_s:.3f} | | {plain.peak_mib:.0f} | | |", flush=True)
    for precision in precisions:
        own = in_own_process(setup, precision)
        differ = require_same_losses(plain, own, precision)
        cells = [f"ours {precision}", f"{own.step_s:.3f}", f"{plain.step_s / own.step_s:.2f}"]
        cells += [f"{own.cpu_s:.3f}", f"{plain.cpu_s / own.cpu_s:.2f}", f"{own.peak_mib:.0f}"]
        print("| " + " | ".join([*cells, f"{own.peak_mib / plain.peak_mib:.0%}", f"{differ:.1e}"]) + " |", flush=True)


def main() -> None:
    """Read the options and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="resnet50s")
    parser.add_argument("--channels", type=int, default=256, help="of the decoders")
    parser.add_argument("--px", type=int, nargs="+", default=[128, 256])
    parser.add_argument("--batch", type=int, default=2, help="labelled pairs, and as many unlabelled ones")
    parser.add_argument("--steps", type=int, default=3, help="the fastest after the first counts")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--precision", choices=("fp32", "bf16"), nargs="+", default=["fp32", "bf16"])
    parser.add_argument("--variant", help=argparse.SUPPRESS)
    parser.add_argument("--setup", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.variant:
        setup = Setup(**json.loads(options.setup))
        measured = measure_plain(setup) if options.variant == "plain" else measure_ours(setup, options.variant)
        print(json.dumps(vars(measured)))
        return
    for px in options.px:
        setup = Setup(options.backbone, options.channels, px, options.batch, options.steps, options.device)
        compare_variants(setup, options.precision)


if __name__ == "__main__":
    main()
