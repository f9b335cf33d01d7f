"""Write a checkpoint as the shipped weights file: fp16, with the words it knows and the calibration of its scores."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import save_file

from aerial_words import CONCEPTS

TRAINED_ON = (
    "Dubai (CC0-1.0), UC Merced (public domain), our own outlines on it and on Banepa (CC0-1.0; images of Banepa CC BY "
    "4.0, HOTOSM via OpenAerialMap), synthetic cities and settlements"
)


def publish_weights(checkpoint: Path, out: Path, *, slope: float = 1.0, bias: float = 0.0) -> None:
    """Copy the tensors of `checkpoint` to `out`, whole or not at all, with everything that the adapter needs."""
    with safe_open(checkpoint, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}
        facts = dict(file.metadata())
    facts |= {"concepts": json.dumps(CONCEPTS), "slope": repr(slope), "bias": repr(bias)}
    facts |= {"licence": "Apache-2.0", "trained_on": TRAINED_ON}
    beside = out.with_suffix(".part")
    save_file(tensors, beside, metadata=facts)
    beside.chmod(0o644)
    beside.replace(out)


if __name__ == "__main__":
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("checkpoint", type=Path)
    p.add_argument("out", type=Path)
    p.add_argument("--slope", type=float, default=1.0)
    p.add_argument("--bias", type=float, default=0.0)
    a = p.parse_args()
    publish_weights(a.checkpoint, a.out, slope=a.slope, bias=a.bias)
