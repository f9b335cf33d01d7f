"""semicdvl: what changed between two images of one place, with 0 to 100 % of labels.

From Python, a trained run in three lines:

    from semicdvl import load
    net = load("runs/my-run")
    out = net(t1_BCHW, t2_BCHW)      # out.change_BKHW, out.vlm_change_BKHW, out.t1_BKHW, out.t2_BKHW, features
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from semicdvl.version import __version__

if TYPE_CHECKING:
    from torch import nn

__all__ = ["__version__", "load"]


def load(run: str | Path, *, train_heads: bool = True, device: str = "cpu") -> nn.Module:
    """Return the trained network of a run, in eval mode; `torch` is imported only now.

    Call it with two dates, float RGB / 255 normalised with the ImageNet mean and deviation (`types.IMAGENET_MEAN`,
    `types.IMAGENET_STD`), BCHW of any size; it returns `types.Outputs`: logits at the size of the input, class 1
    changed or foreground, and the features of both dates at the decoder's stride. `run.json` names, as `heads`, the
    outputs that the method trained; the others say nothing.

    Args:
        run: a folder that `semicdvl train` or `semicdvl import-official` wrote.
        train_heads: False drops what finding change does not need (VLM head, segmentation decoder): only `change_BKHW`
            comes out, the same to the bit.
        device: where to put it, such as `cuda`.

    Raises:
        CheckpointError: no run, or weights of another model.
    """
    from semicdvl.checkpoint import load_network

    return load_network(Path(run), device=device, train_heads=train_heads)
