"""Import a checkpoint of a public code as a run, which `load_model`, `detect` and `evaluate` accept.

The public codes save {"model": ..., "optimizer": ..., "epoch": ..., "previous_best": ...}, names with the prefix
`module.` where they trained on several GPUs; UniMatch V2 also "model_ema", the moving average that it validates
(`public_codes`). Tensors are read without unpickling anything else: a file with other Python objects is refused.
"""

from __future__ import annotations

import re
import sys
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
from semicdvl.errors import CheckpointError, ConfigError, InputError
from semicdvl.models.common.heads import read_heads
from semicdvl.public_codes import PUBLIC_CODES, WRAPPERS, PublicCode, to_unimatch_v2_giant_name
from semicdvl.raster.io.georeference_warnings import ignore_warnings
from semicdvl.reading.folder_kinds import describe_folder
from semicdvl.reading.json_files import shorten
from semicdvl.reading.regular_files import require_file_or_folder
from semicdvl.reading.tensor_files import check_torch_archive
from semicdvl.version import __version__

PREFIXES = ("module.", "_orig_mod.")
"""Prefixes that DistributedDataParallel and torch.compile add to every name."""

PLAIN_TYPES = (
    torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16, torch.uint8
)  # fmt: skip
"""Types of tensors that weights have."""

MAX_LISTED = 20
_REMEDY = "Give a .pth file that a public code saved, such as its best.pth"


@dataclass(frozen=True)
class ImportedCheckpoint:
    """An imported checkpoint.

    Attributes:
        run: the folder that was written.
        model: the `model` section of a recipe that builds its network.
        tensors: number of tensors.

    Examples:
        >>> import semicdvl as cd
        >>> imported = cd.import_official("best.pth", "runs/official")    # doctest: +SKIP
        >>> imported.run, imported.tensors                                # doctest: +SKIP
    """

    run: Path
    model: dict[str, Any]
    tensors: int


def import_public_checkpoint(
    checkpoint: Path, run: Path, *, public_code: str = "semicd_vl", weights: str | None = None
) -> ImportedCheckpoint:
    """Import a checkpoint of a public code as a run.

    The public codes select their best epoch on the *test* pairs, so the run is marked as selected on test.

    Args:
        checkpoint: file with the tensors of the public code: alone, or under a key; names with or without `module.`.
        run: folder to write; it must be empty or not exist.
        public_code: a name of `PUBLIC_CODES`.
        weights: key of the tensors in the file ("model", "model_ema"); None: those that the public code validates.

    Raises:
        ConfigError: no such public code.
        InputError: the file is missing, was not written by torch, or holds Python objects besides tensors and numbers.
        CheckpointError: tensors are missing, unexpected, of another shape or not finite, or `run` is not empty.
    """
    if public_code not in PUBLIC_CODES:
        raise ConfigError(f"no public code '{public_code}' can be imported; there are {', '.join(PUBLIC_CODES)}.")
    code = PUBLIC_CODES[public_code]
    if run.exists() and (not run.is_dir() or any(run.iterdir())):
        raise CheckpointError(f"{run}: exists and is not empty. Give another folder with -o.")
    content = read_tensors_safely(checkpoint)
    wrappers = code.wrappers if weights is None else (weights,)
    if weights is not None and not (isinstance(content, Mapping) and weights in content):
        raise CheckpointError(f"{checkpoint}: holds nothing under '{weights}'. Leave --weights out.")
    theirs = extract_tensors(content, source=checkpoint, wrappers=wrappers)
    part = code.infer_model(theirs)
    with torch.device("meta"):  # a small file may name a giant: its shapes are compared before memory is taken
        network = build_network(part)
    renamed = rename_public_tensors(theirs, network, source=checkpoint, code=code)
    with write_folder_atomically(run) as folder:
        save_weights(folder / "model.safetensors", renamed)
        write_json(folder / "run.json", _make_record(checkpoint, part, network, content, method=code.method))
    return ImportedCheckpoint(run, part, len(renamed))


def read_tensors_safely(path: Path) -> Any:
    """Read a file of `torch.save` that holds tensors, numbers, strings and containers of these; nothing is executed.

    Raises:
        InputError: missing, broken, or with other objects in it, the first of which is named.
    """
    require_file_or_folder(path, remedy=_REMEDY)
    if path.is_dir():
        raise InputError(path, f"is {describe_folder(path)}, not a checkpoint of a public code", _REMEDY)
    if not path.is_file():
        raise InputError(path, "does not exist", _REMEDY)
    check_torch_archive(path, remedy=_REMEDY)
    # The public code's best score is a NumPy number, which torch reads only where it is allowed.
    numbers = [type(np.dtype(kind)) for kind in ("f8", "f4", "i8", "i4")]
    names = (f"numpy.{core}.multiarray.scalar" for core in ("core", "_core"))  # of NumPy 1 and 2
    allowed: list[Any] = [np.dtype, *numbers, *((numpy_scalar, name) for name in names)]
    try:
        with torch.serialization.safe_globals(allowed), ignore_warnings(Warning):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever torch raises on a file that is not its own
        found = re.search(r"GLOBAL ([\w.]+)", str(error))
        if found is None:
            # The message of torch is not passed on: it advises to read the file without this protection.
            problem = "cannot be read as a checkpoint: it is broken, or was not written by torch.save"
            raise InputError(path, problem, _REMEDY) from error
        raise InputError(
            path,
            f"holds a Python object besides tensors ({found[1]}), which could run anything when it is read; none of it "
            "was run",
            'If you trust the file, save its tensors alone with torch.save({"model": state_dict}, NEW) and give NEW',
        ) from error


def extract_tensors(content: Any, *, source: Path, wrappers: tuple[str, ...] = WRAPPERS) -> dict[str, Tensor]:
    """Return the tensors of a checkpoint's network by their public names, without wrappers and prefixes.

    Args:
        content: what the file holds.
        source: the file, for the error message.
        wrappers: keys under which the tensors may be; the first that is there counts.

    Raises:
        CheckpointError: it holds no tensors by name.
    """
    wrapped = isinstance(content, Mapping)
    wrapper = next((key for key in wrappers if wrapped and isinstance(content.get(key), Mapping)), None)
    state = content[wrapper] if wrapper else content
    if not isinstance(state, Mapping) or not any(isinstance(value, Tensor) for value in state.values()):
        raise CheckpointError(f"{source}: holds no tensors by name, alone or under 'model'. {_REMEDY}.")
    tensors = {str(name): value for name, value in state.items() if isinstance(value, Tensor)}
    # Prefixes come in either order, as the network was wrapped; no name of the network begins with one.
    while prefix := next((one for one in PREFIXES if all(name.startswith(one) for name in tensors)), None):
        tensors = {name.removeprefix(prefix): value for name, value in tensors.items()}
    return tensors


def rename_public_tensors(
    theirs: Mapping[str, Tensor], network: nn.Module, *, source: Path, code: PublicCode = PUBLIC_CODES["semicd_vl"]
) -> dict[str, Tensor]:
    """Return the public tensors under the names of our network, in its data types.

    Args:
        theirs: tensors by public names.
        network: the network that gets them.
        source: the file, for the error message.
        code: the public code that saved them.

    Raises:
        CheckpointError: some are missing, unexpected, of another shape or not finite; they are listed by public names.
    """
    ours = network.state_dict()
    has_swiglu = any(name.endswith(".mlp.w12.weight") for name in theirs)
    to_public = to_unimatch_v2_giant_name if has_swiglu else code.to_public_name
    expected = {to_public(name): tensor for name, tensor in ours.items()}
    theirs = {name: tensor for name, tensor in theirs.items() if name not in code.unused}
    faults = _find_faults(theirs, expected)
    if faults:
        listed = "; ".join(f"{len(names)} {what}: {_format_names(names)}" for what, names in faults.items())
        raise CheckpointError(
            f"{source}: does not hold the weights of {code.title}'s network, which has {len(expected)} tensors. "
            f"{listed}. {code.remedy}."
        )
    return {name: theirs[to_public(name)].to(tensor.dtype) for name, tensor in ours.items()}


def _find_faults(theirs: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> dict[str, list[str]]:
    """Return kind of fault -> the tensors that have it; empty if all are as expected."""
    common = [name for name in expected if name in theirs]
    plain = [name for name in common if _is_plain(theirs[name])]
    # One stored number may stand for any count of them: what is larger than the file is not looked through.
    bounded = [name for name in plain if theirs[name].shape == expected[name].shape or theirs[name].is_contiguous()]
    faults = {
        "missing": [name for name in expected if name not in theirs],
        "unexpected": [shorten(name) for name in theirs if name not in expected],
        "of another shape": [
            f"{name} is {_format_shape(theirs[name])} where {_format_shape(expected[name])} is expected"
            for name in common
            if theirs[name].shape != expected[name].shape
        ],
        "of a type or layout that weights do not have": [name for name in common if not _is_plain(theirs[name])],
        "with values that are not finite": [
            name for name in bounded if not theirs[name].to(expected[name].dtype).isfinite().all()
        ],
    }
    return {what: names for what, names in faults.items() if names}


def _is_plain(tensor: Tensor) -> bool:
    """Tell whether a tensor holds numbers one by one: none is sparse, without storage, complex or of 8 bits."""
    return tensor.layout == torch.strided and not tensor.is_meta and tensor.dtype in PLAIN_TYPES


def _format_shape(tensor: Tensor) -> str:
    """Format a shape as 256 x 64 x 1 x 1."""
    return " x ".join(str(side) for side in tensor.shape) or "a single number"


def _format_names(names: Iterable[str]) -> str:
    """List names, at most `MAX_LISTED` of them."""
    names = list(names)
    return ", ".join(names[:MAX_LISTED]) + (f", and {len(names) - MAX_LISTED} more" if len(names) > MAX_LISTED else "")


def _make_record(
    checkpoint: Path, part: dict[str, Any], network: nn.Module, content: Any, *, method: str
) -> dict[str, Any]:
    """Return the record of the run, without a data section: the file says nothing of the data."""
    extras = content if isinstance(content, Mapping) else {}
    known = {key: extras[key] for key in ("epoch", "previous_best") if key in extras}
    numbers = {key: float(value) for key, value in known.items() if isinstance(value, (int, float, np.number))}
    return {
        "format": RUN_FORMAT,
        "status": "imported",
        "recipe": {"name": checkpoint.stem, "model": part, "method": {"name": method}},
        "versions": {"semicdvl": __version__, "torch": torch.__version__, "python": sys.version.split()[0]},
        "imported": {"file": checkpoint.name, "sha256": hash_file(checkpoint), **numbers},
        "heads": sorted(read_heads(network)),
        "selected_on": "test",
    }
