"""A checkpoint of the public SemiCD-VL code -> a run of ours, which `load`, `detect` and `evaluate` take.

The public code saves {"model": ..., "optimizer": ..., "epoch": ..., "previous_best": ...}, its names with `module.` in
front where it trained on several GPUs. Its network has 396 tensors, and each has one place in `siam_light`
(`OFFICIAL_PREFIXES`). Tensors are read without unpickling anything else: a file with other Python objects is refused.
"""

from __future__ import annotations

import re
import sys
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy._core.multiarray import scalar as numpy_scalar
from torch import Tensor, nn

from semicdvl.atomic_files import hash_file, write_folder_atomically, write_json
from semicdvl.checkpoint import RUN_FORMAT, build_network, save_weights
from semicdvl.errors import CheckpointError, InputError
from semicdvl.models.heads import read_heads
from semicdvl.models.siam_light import OFFICIAL_PREFIXES
from semicdvl.version import __version__

WRAPPERS = ("model", "state_dict")
"""Keys under which a checkpoint may keep its tensors, beside an optimiser and the like."""

PREFIXES = ("module.", "_orig_mod.")
"""What DistributedDataParallel and torch.compile put in front of every name."""

BACKBONE_BY_BLOCKS = {6: "resnet50s", 23: "resnet101s"}
"""Blocks of the third stage -> backbone."""

MAX_LISTED = 20
_REMEDY = "Give a .pth file of the public SemiCD-VL code, such as its best.pth"


@dataclass(frozen=True)
class ImportedCheckpoint:
    """What was imported: the run, its network's part of the recipe, and how many tensors it took."""

    run: Path
    model: dict[str, Any]
    tensors: int


def import_official(checkpoint: Path, run: Path) -> ImportedCheckpoint:
    """Turn a checkpoint of the public SemiCD-VL code into a run.

    The public code picks its best epoch on the *test* pairs, so the run is marked as selected on test.

    Args:
        checkpoint: file with the public code's tensors: alone, or under "model"; names with or without `module.`.
        run: folder to write; it must not hold anything.

    Raises:
        InputError: the file is missing, none of torch's, or holds Python objects besides tensors and numbers.
        CheckpointError: tensors are missing, surplus, of another shape or no numbers (named), or `run` is not empty.
    """
    if run.exists() and (not run.is_dir() or any(run.iterdir())):
        raise CheckpointError(f"{run}: exists and is not empty. Give another folder with -o.")
    content = read_tensors_safely(checkpoint)
    theirs = extract_tensors(content, source=checkpoint)
    part = infer_model_section(theirs)
    network = build_network(part)
    weights = rename_tensors(theirs, network, source=checkpoint)
    with write_folder_atomically(run) as folder:
        save_weights(folder / "model.safetensors", weights)
        write_json(folder / "run.json", _make_record(checkpoint, part, network, content))
    return ImportedCheckpoint(run, part, len(weights))


def read_tensors_safely(path: Path) -> Any:
    """Read a file of `torch.save` that holds tensors, numbers, strings and containers of these; nothing is executed.

    Raises:
        InputError: missing, broken, or with other objects in it, the first of which is named.
    """
    if not path.is_file():
        raise InputError(path, "there is no such file", _REMEDY)
    # The public code's best score is a NumPy number, which torch reads only when told that it may.
    numbers = [type(np.dtype(kind)) for kind in ("f8", "f4", "i8", "i4")]
    names = (f"numpy.{core}.multiarray.scalar" for core in ("core", "_core"))  # of NumPy 1 and 2
    allowed: list[Any] = [np.dtype, *numbers, *((numpy_scalar, name) for name in names)]
    try:
        with torch.serialization.safe_globals(allowed), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever torch raises on a file that is not its own
        found = re.search(r"GLOBAL ([\w.]+)", str(error))
        if found is None:
            # torch's own words are not passed on: they advise to read the file without this protection
            problem = "cannot be read as a checkpoint: it is broken, or was not written by torch.save"
            raise InputError(path, problem, _REMEDY) from error
        raise InputError(
            path,
            f"holds a Python object besides tensors ({found[1]}), which could run anything when it is read; none of it "
            "was run",
            'If you trust the file, save its tensors alone with torch.save({"model": state_dict}, NEW) and give NEW',
        ) from error


def extract_tensors(content: Any, *, source: Path) -> dict[str, Tensor]:
    """Return the tensors of a checkpoint's network by their public names, wrappers and prefixes taken off.

    Raises:
        CheckpointError: there is no tensor by name in it.
    """
    wrapped = isinstance(content, Mapping)
    wrapper = next((key for key in WRAPPERS if wrapped and isinstance(content.get(key), Mapping)), None)
    state = content[wrapper] if wrapper else content
    if not isinstance(state, Mapping) or not any(isinstance(value, Tensor) for value in state.values()):
        raise CheckpointError(f"{source}: holds no tensors by name, alone or under 'model'. {_REMEDY}.")
    tensors = {str(name): value for name, value in state.items() if isinstance(value, Tensor)}
    # Prefixes stand in either order, as the network was wrapped; no name of the network begins with one.
    while prefix := next((one for one in PREFIXES if all(name.startswith(one) for name in tensors)), None):
        tensors = {name.removeprefix(prefix): value for name, value in tensors.items()}
    return tensors


def infer_model_section(theirs: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return the `model` section of a recipe that builds the network of these tensors, as far as they tell.

    Backbone, decoder width and number of classes are read off; the output stride is the public code's 16, which no
    tensor shows.
    """
    blocks = {name.split(".")[2] for name in theirs if name.startswith("backbone.layer3.")}
    fusing, classify = (theirs.get(f"decode_head.{name}.weight") for name in ("fusion_conv.conv", "conv_seg"))
    return {
        "name": "siam_light",
        "backbone": BACKBONE_BY_BLOCKS.get(len(blocks), "resnet50s"),
        "pretrained": "none",
        "output_stride": 16,
        "decoder_channels": 256 if fusing is None else len(fusing),
        "classes": 2 if classify is None else len(classify),
    }


def to_public_name(name: str) -> str:
    """Return the public code's name of a tensor of `siam_light`."""
    ours, theirs = next((ours, theirs) for ours, theirs in OFFICIAL_PREFIXES.items() if name.startswith(ours))
    return theirs + name.removeprefix(ours)


def rename_tensors(theirs: Mapping[str, Tensor], network: nn.Module, *, source: Path) -> dict[str, Tensor]:
    """Return the public tensors under our names, in our types.

    Raises:
        CheckpointError: some are missing, surplus, of another shape or no numbers; all are listed by public names.
    """
    ours = network.state_dict()
    wanted = {to_public_name(name): tensor for name, tensor in ours.items()}
    unfit = [
        f"{name} is {_format_shape(theirs[name])} where {_format_shape(tensor)} is wanted"
        for name, tensor in wanted.items()
        if name in theirs and theirs[name].shape != tensor.shape
    ]
    faults = {
        "missing": [name for name in wanted if name not in theirs],
        "surplus": [name for name in theirs if name not in wanted],
        "of another shape": unfit,
        "with values that are no numbers": [
            name for name in wanted if name in theirs and not _all_finite(theirs[name])
        ],
    }
    if any(faults.values()):
        listed = "; ".join(f"{len(names)} {what}: {_format_names(names)}" for what, names in faults.items() if names)
        raise CheckpointError(
            f"{source}: not weights of SemiCD-VL's network, which has {len(wanted)} tensors. {listed}. {_REMEDY}."
        )
    return {name: theirs[to_public_name(name)].to(tensor.dtype) for name, tensor in ours.items()}


def _all_finite(tensor: Tensor) -> bool:
    """Tell whether all values are numbers: a run that diverged saves its weights like any other."""
    return bool(tensor.isfinite().all())


def _format_shape(tensor: Tensor) -> str:
    """Write a shape as 256 x 64 x 1 x 1."""
    return " x ".join(str(side) for side in tensor.shape) or "a single number"


def _format_names(names: Iterable[str]) -> str:
    """List names, at most `SHOWN` of them."""
    names = list(names)
    return ", ".join(names[:MAX_LISTED]) + (f", and {len(names) - MAX_LISTED} more" if len(names) > MAX_LISTED else "")


def _make_record(checkpoint: Path, part: dict[str, Any], network: nn.Module, content: Any) -> dict[str, Any]:
    """Return the run's record; it has no data section, for the file says nothing of the data."""
    told = {key: content[key] for key in ("epoch", "previous_best") if isinstance(content, Mapping) and key in content}
    numbers = {key: float(value) for key, value in told.items() if isinstance(value, (int, float, np.number))}
    return {
        "format": RUN_FORMAT,
        "status": "imported",
        "recipe": {"name": checkpoint.stem, "model": part, "method": {"name": "semicd_vl"}},
        "versions": {"semicdvl": __version__, "torch": torch.__version__, "python": sys.version.split()[0]},
        "imported": {"file": checkpoint.name, "sha256": hash_file(checkpoint), **numbers},
        "heads": sorted(read_heads(network)),
        "selected_on": "test",
    }
