"""Seconds, memory and operations of one training step of every network.

    python benchmarks/zoo.py                                # all networks, 256 px, batches of 8; CPU or GPU
    python benchmarks/zoo.py --models fc_ef bit --batch 2
    python benchmarks/zoo.py --device cuda --precision bf16

A step is forward and backward of a cross entropy on `change`, in training mode, without an optimiser; no pretrained
weights are fetched. `forward` is inference: eval mode, no gradient. Operations are those of one pair's inference, from
`torch.utils.flop_counter` (a multiplication and an addition are two; attention included). Every network runs in a
process of its own, so that its peak memory is its own: of the whole process (CPU), or what was allocated at most (GPU).
The fastest of the steps after the first counts. On a machine that others use, compare the CPU seconds.
"""

from __future__ import annotations

import argparse
import inspect
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from semicdvl.checkpoint import build_network
from semicdvl.models import MODELS
from semicdvl.registry import resolve_builder

CHANGE = frozenset({"change"})


@dataclass(frozen=True)
class Setup:
    """What is measured, of which size and how often."""

    model: str
    px: int
    batch: int
    steps: int
    device: str
    precision: str


@dataclass(frozen=True)
class Measured:
    """One network's numbers; seconds of a whole batch, memory in MiB, operations of one pair."""

    parameters: int
    step_s: float
    step_cpu_s: float
    forward_s: float
    forward_cpu_s: float
    peak_mib: float
    base_mib: float
    gflop: float


def build_setup_network(setup: Setup) -> nn.Module:
    """Build a network as it is by default, with random weights."""
    takes = inspect.signature(resolve_builder("model", setup.model, MODELS)).parameters
    torch.manual_seed(0)
    built = build_network({"name": setup.model}, **({"pretrained": "none"} if "pretrained" in takes else {}))
    return built.to(setup.device)


def find_fastest(run: Callable[[], None], setup: Setup) -> tuple[float, float]:
    """Return seconds and CPU seconds of the fastest run but for the first, which warms up."""
    times = []
    for _ in range(setup.steps + 1):
        _wait(setup)
        wall_s, cpu_s = time.perf_counter(), time.process_time()
        run()
        _wait(setup)
        times.append((time.perf_counter() - wall_s, time.process_time() - cpu_s))
    return min(wall for wall, _ in times[1:]), min(cpu for _, cpu in times[1:])


def _wait(setup: Setup) -> None:
    """Let a GPU finish."""
    if setup.device == "cuda":
        torch.cuda.synchronize()


def measure_network(setup: Setup) -> Measured:
    """Measure one network in this process."""
    base_mib = _peak_mib(setup)
    net = build_setup_network(setup)
    draw = torch.Generator().manual_seed(0)
    t1_BCHW, t2_BCHW = torch.randn((2, setup.batch, 3, setup.px, setup.px), generator=draw).to(setup.device)
    label_BHW = torch.randint(0, 2, (setup.batch, setup.px, setup.px), generator=draw).to(setup.device)

    def logits() -> Tensor:
        with torch.autocast(setup.device, torch.bfloat16, enabled=setup.precision == "bf16"):
            found: Tensor = net(t1_BCHW, t2_BCHW, heads=CHANGE).change_BKHW
        return found

    def step() -> None:
        net.zero_grad(set_to_none=True)
        F.cross_entropy(logits(), label_BHW).backward()

    @torch.no_grad()
    def forward() -> None:
        logits()

    net.train()
    step_s, step_cpu_s = find_fastest(step, setup)
    peak_mib = _peak_mib(setup)
    net.zero_grad(set_to_none=True)
    net.eval()
    forward_s, forward_cpu_s = find_fastest(forward, setup)
    return Measured(
        parameters=sum(parameter.numel() for parameter in net.parameters()),
        step_s=step_s,
        step_cpu_s=step_cpu_s,
        forward_s=forward_s,
        forward_cpu_s=forward_cpu_s,
        peak_mib=peak_mib,
        base_mib=base_mib,
        gflop=count_operations(setup) / 1e9,
    )


def count_operations(setup: Setup) -> int:
    """Count the operations of one pair's inference, without doing them: shapes decide, so no memory is needed.

    Attention is asked to be done by plain products: the counter of torch does not know the fused kernels of the CPU.
    """
    with torch.device("meta"):
        net = build_setup_network(Setup(**{**asdict(setup), "device": "meta"})).eval()
        pair = torch.empty(2, 1, 3, setup.px, setup.px).unbind()
        counter = FlopCounterMode(display=False)
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), counter:
            net(*pair, heads=CHANGE)
    return int(counter.get_total_flops())


def _peak_mib(setup: Setup) -> float:
    """Return the most memory that was taken until now."""
    if setup.device == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def in_own_process(setup: Setup) -> Measured:
    """Measure a network in a process of its own."""
    command = [sys.executable, __file__, "--setup", json.dumps(asdict(setup))]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return Measured(**json.loads(done.stdout.splitlines()[-1]))


def main() -> None:
    """Read the options, measure, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--px", type=int, default=256)
    parser.add_argument("--batch", type=int, default=8, help="pairs")
    parser.add_argument("--steps", type=int, default=3, help="after the first; the fastest counts")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--setup", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.setup:
        print(json.dumps(asdict(measure_network(Setup(**json.loads(options.setup))))))
        return
    where = torch.cuda.get_device_name() if options.device == "cuda" else f"{torch.get_num_threads()} CPU threads"
    print(f"{options.px} px, {options.batch} pairs, {options.precision}, {where}, torch {torch.__version__}\n")
    print("| network | parameters | GFLOP a pair | step s | step CPU s | forward s | forward CPU s | peak MiB |")
    print("|---|---|---|---|---|---|---|---|")
    for model in options.models:
        setup = Setup(model, options.px, options.batch, options.steps, options.device, options.precision)
        try:
            found = in_own_process(setup)
        except subprocess.CalledProcessError as error:  # most likely out of memory: the others are still of interest
            print(f"| {model} | ended with code {error.returncode} | | | | | | |", flush=True)
            continue
        cells = [model, f"{found.parameters:,}", f"{found.gflop:.1f}", f"{found.step_s:.3f}", f"{found.step_cpu_s:.3f}"]
        cells += [f"{found.forward_s:.3f}", f"{found.forward_cpu_s:.3f}", f"{found.peak_mib:.0f}"]
        print("| " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
