"""Write and read a run directory: the weights of a network and the recipe that it was trained with.

    RUN/run.json             the resolved recipe, versions, what was selected on what and how it scored
    RUN/model.safetensors    weights of the selected step
    RUN/split.json           which pair was for what
    RUN/log.jsonl            one line per logged step and per validation
    RUN/state/<step>/        the latest state, to resume from: weights, optimiser, teacher, step
    RUN/sheets/, tensorboard/    picture sheets and TensorBoard's files, where the recipe asks for them

Nothing is ever unpickled: tensors are safetensors, the rest is JSON.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from semicdvl import models
from semicdvl.atomic_files import read_json, write_atomically
from semicdvl.errors import CheckpointError
from semicdvl.models.heads import drop_train_heads
from semicdvl.registry import Origin, build_part, list_options

if TYPE_CHECKING:
    from torch import Tensor, nn

RUN_FORMAT = "semicdvl-run"


def build_network(part: dict[str, Any], *, origin: Origin = Origin.USER, **overrides: Any) -> nn.Module:
    """Build the network that a recipe's `model` section describes; `origin` says whose recipe it is."""
    options = {key: value for key, value in part.items() if key != "name"} | overrides
    network: nn.Module = build_part("model", part["name"], models.MODELS, options, origin=origin)
    return network


def build_untrained_network(part: dict[str, Any], *, origin: Origin = Origin.USER) -> nn.Module:
    """Build the network of a recipe's `model` section without pretrained weights, which are about to be replaced."""
    takes = list_options("model", part["name"], models.MODELS, origin=origin)
    return build_network(part, origin=origin, **({"pretrained": "none"} if "pretrained" in takes else {}))


def save_weights(path: Path, tensors: dict[str, Tensor], *, metadata: dict[str, str] | None = None) -> None:
    """Write tensors as safetensors; the file appears complete or not at all.

    Args:
        path: file to write.
        tensors: by name.
        metadata: strings for the header of the file.

    Raises:
        OutputError: the file cannot be written.
    """
    from safetensors.torch import save_file

    contiguous = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    with write_atomically(path) as temporary:
        save_file(contiguous, temporary, metadata=metadata)


def load_weights(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a safetensors file by name.

    Raises:
        CheckpointError: the file is missing or not a safetensors file.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"{path}: holds no weights that can be read ({error}). Give a folder that `semicdvl train` wrote."
        ) from error


def read_run(run: Path) -> dict[str, Any]:
    """Return the content of RUN/run.json.

    Raises:
        CheckpointError: `run` is not a run directory.
    """
    path = run / "run.json"
    if not path.is_file():
        raise CheckpointError(
            f"{run}: is not a trained run (it has no run.json). Give a folder that `semicdvl train` wrote."
        )
    content = read_json(path, remedy="Train again, or take the file from a backup")
    if not isinstance(content, dict) or content.get("format") != RUN_FORMAT:
        raise CheckpointError(f"{path}: is not the record of a trained run. Give a folder that `semicdvl train` wrote.")
    return content


def load_network(run: Path, *, device: str = "cpu", train_heads: bool = False) -> nn.Module:
    """Return the trained network of a run, in eval mode.

    Args:
        run: a folder that `semicdvl train` wrote.
        device: where to put it, such as `cuda`.
        train_heads: also keep what only training needs (VLM head, segmentation decoder).

    Raises:
        CheckpointError: `run` is not a run directory, or its weights are of another model.
    """
    content = read_run(run)
    network = build_untrained_network(content["recipe"]["model"], origin=Origin.STORED)
    load_weights_into(network, load_weights(run / "model.safetensors"), source=run / "model.safetensors")
    if not train_heads:
        drop_train_heads(network)
    return network.eval().to(device)


def load_weights_into(network: nn.Module, weights: dict[str, Tensor], *, source: Path) -> None:
    """Load weights into a network that must have exactly these.

    Args:
        network: gets the weights.
        weights: tensors by name.
        source: the file that they come from, for the error message.

    Raises:
        CheckpointError: names or shapes differ; the first few are listed.
    """
    own = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    given = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    if own != given:
        differing = sorted(name for name in own.keys() | given.keys() if own.get(name) != given.get(name))
        number = f"{len(differing)} tensors don't" if len(differing) > 1 else "1 tensor doesn't"
        raise CheckpointError(
            f"{source}: holds weights of another model: {number} fit, such as {', '.join(differing[:3])}. "
            "Give the recipe that it was trained with."
        )
    network.load_state_dict(weights)
