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

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, Field, FiniteFloat, ValidationError, model_validator

from semicdvl import models
from semicdvl.atomic_files import write_atomically
from semicdvl.config import ClassesConfig, DataConfig, PartConfig
from semicdvl.errors import CheckpointError, ConfigError, InputError
from semicdvl.models.common.contract import drop_train_heads
from semicdvl.raster.stored_values import Stretch
from semicdvl.reading.folder_kinds import describe_folder
from semicdvl.reading.json_files import describe_fault, read_json, shorten
from semicdvl.reading.regular_files import require_file_or_folder
from semicdvl.reading.tensor_files import read_tensors
from semicdvl.registry import USER, Origin, list_options, list_trusted
from semicdvl.types import InputBands
from semicdvl.types.bands import MAX_BANDS, MIN_BANDS

if TYPE_CHECKING:
    from torch import Tensor, nn

RUN_FORMAT = "semicdvl-run"
WITHOUT_WEIGHTS = {"pretrained": "none", "foundation_weights": "published"}
"""Options of networks that load weights -> their values when none are loaded (a foundation follows `pretrained`)."""
PLACE_MARKS = ("/", "\\", ":")
"""Characters of paths, addresses and names of model hubs."""


class _RecordedRecipe(BaseModel):
    """What is read of the recipe in a run's record; an imported run has no data."""

    model: PartConfig
    method: PartConfig | None = None
    data: DataConfig | None = None
    classes: ClassesConfig | None = None

    @model_validator(mode="after")
    def _require_as_many_classes(self) -> _RecordedRecipe:
        """Refuse names of another number of classes than the network tells apart."""
        count = self.read_size("segmentation_classes", 2)
        if self.classes is not None and len(self.classes.names) != count:
            raise ValueError(f"names {len(self.classes.names)} classes, and the network tells {count} apart")
        return self

    def read_size(self, option: str, usual: int) -> int:
        """Return a size of the network."""
        size = self.model.options.get(option)
        if size is not None and type(size) is not int:
            raise ValueError(f"model.{option} is {shorten(size)}, which is no whole number")
        return usual if size is None else size


class _RecordedStretch(BaseModel):
    """The limits of the grey values that a run was trained with, per band."""

    low: tuple[FiniteFloat, FiniteFloat, FiniteFloat]
    high: tuple[FiniteFloat, FiniteFloat, FiniteFloat]

    @model_validator(mode="after")
    def _require_order(self) -> _RecordedStretch:
        """Refuse limits that no training measured, with which images would be inverted or of one value."""
        if not all(0 < high - low < float("inf") for low, high in zip(self.low, self.high, strict=True)):
            raise ValueError("the low limits must be below the high ones")
        return self


class _RecordedBands(BaseModel):
    """The bands that a run was trained with, and their statistics."""

    numbers: tuple[Annotated[int, Field(ge=1)], ...] = Field(min_length=MIN_BANDS, max_length=MAX_BANDS)
    mean: tuple[FiniteFloat, ...]
    std: tuple[Annotated[FiniteFloat, Field(gt=0)], ...]
    source_numbers: tuple[Annotated[int, Field(ge=1)], ...] | None = None

    @model_validator(mode="after")
    def _require_distinct_bands(self) -> _RecordedBands:
        """Refuse bands that occur twice, and statistics of another number of bands."""
        try:
            self.to_bands()
        except ConfigError as error:
            raise ValueError(str(error)) from None
        return self

    def to_bands(self) -> InputBands:
        """Return the bands."""
        return InputBands(self.numbers, self.mean, self.std, self.source_numbers)


class _RecordedSplit(BaseModel):
    """What is read of the split in a run's record; early ones have fewer fields."""

    sha256: str | None = None
    labelled: int = Field(0, ge=0)
    unlabelled: int = Field(0, ge=0)
    val: int = Field(0, ge=0)
    test: int = Field(0, ge=0)
    leaking_pairs: int | None = Field(None, ge=0)
    leaks: dict[str, Any] | None = None


class _RunRecord(BaseModel):
    """What is read of a run's record; further fields are kept as they are."""

    recipe: _RecordedRecipe
    status: Literal["started", "finished", "imported"] = "finished"
    heads: list[str] = Field(default_factory=list)
    split: _RecordedSplit | None = None
    processes: int = Field(1, ge=1)
    best_step: int = Field(0, ge=0)
    selected_on: str | None = None
    stretch: _RecordedStretch | None = None
    bands: _RecordedBands | None = None

    @model_validator(mode="after")
    def _require_one_meaning(self) -> _RunRecord:
        """Refuse two ways to read the values of images."""
        if self.bands is not None and self.stretch is not None:
            raise ValueError("there are both statistics of bands and limits of grey values")
        return self


def build_network(part: dict[str, Any], *, origin: Origin = USER, **overrides: Any) -> nn.Module:
    """Build the network that a recipe's `model` section describes; `origin` says whose recipe it is."""
    options = {key: value for key, value in part.items() if key != "name"} | overrides
    network = models.build_model(part["name"], options, origin=origin)
    if not callable(getattr(network, "state_dict", None)):
        raise ConfigError(f"model '{part['name']}' builds {type(network).__name__}, which is not a network of torch.")
    built: nn.Module = network
    return built


def build_untrained_network(part: dict[str, Any], *, origin: Origin = USER) -> nn.Module:
    """Build the network of a recipe's `model` section without pretrained weights, which are about to be replaced."""
    try:
        return _build_without_weights(part, origin)
    except ConfigError as error:
        if origin.file is None or str(error).startswith(str(origin.file)):
            raise
        raise ConfigError(f"{origin.file}: {error}") from error


def _build_without_weights(part: dict[str, Any], origin: Origin) -> nn.Module:
    """Build a network as `build_untrained_network`, whose errors name the file."""
    takes = list_options("model", part["name"], models.MODELS, origin=origin)
    kept = {key: value for key, value in part.items() if key not in WITHOUT_WEIGHTS}
    replaced = {key: value for key, value in WITHOUT_WEIGHTS.items() if key in takes}
    _refuse_foreign_places(kept, origin)
    return build_network(kept, origin=origin, **replaced)


def _refuse_foreign_places(part: dict[str, Any], origin: Origin) -> None:
    """Refuse options of a stored network that name a file, a folder, an address or a model of a hub.

    Raises:
        ConfigError: an option does, and the user does not trust that very place.
    """
    if origin.file is None:
        return
    for key, text in _list_texts({key: value for key, value in part.items() if key != "name"}):
        if any(mark in text for mark in PLACE_MARKS) and text not in origin.trust:
            raise ConfigError(
                f"{origin.file}: the network's option {key} = '{text}' leads outside the run: to a file, an address or "
                f"a model hub. If you know and trust that place, give --trust {text} (in Python: trust=('{text}',))."
            )


def _list_texts(options: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Yield the texts in options, however deep, each with the name of its option."""
    if isinstance(options, str):
        yield key, options
    elif isinstance(options, dict):
        for name, value in options.items():
            yield from _list_texts(value, key or str(name))
    elif isinstance(options, list):
        for value in options:
            yield from _list_texts(value, key)


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
        CheckpointError: the file is missing, not a safetensors file, or holds numbers that are not finite.
    """
    try:
        weights, _ = read_tensors(path, remedy="Train again, or take the file from a backup")
    except InputError as error:
        raise CheckpointError(str(error)) from error
    return weights


def read_run(run: Path) -> dict[str, Any]:
    """Return the content of RUN/run.json.

    Raises:
        CheckpointError: `run` is not a run directory, or its record was changed.
    """
    path = run / "run.json"
    require_file_or_folder(path, remedy="Give a folder that `semicdvl train` wrote")
    if not path.is_file():
        raise CheckpointError(
            f"{run}: is {describe_folder(run)}, not a trained run (it has no run.json). Give a folder that `semicdvl "
            "train` wrote."
        )
    content = read_json(path, remedy="Train again, or take the file from a backup")
    if not isinstance(content, dict) or content.get("format") != RUN_FORMAT:
        raise CheckpointError(
            f"{path}: is not the record of a trained run; the folder is {describe_folder(run)}. Give a folder that "
            "`semicdvl train` wrote."
        )
    try:
        _RunRecord.model_validate(content)
    except ValidationError as error:
        raise CheckpointError(
            f"{path}: {describe_fault(error)}. Train again, or take the file from a backup."
        ) from None
    return content


def record_stretch(stretch: Stretch | None) -> dict[str, Any]:
    """Return what the record of a run says of the stretch of its images; nothing for 8-bit images."""
    if stretch is None:
        return {}
    return {"stretch": {"low": stretch.low_C.tolist(), "high": stretch.high_C.tolist()}}


def read_run_stretch(record: dict[str, Any]) -> Stretch | None:
    """Return how images of more than 8 bits become the grey values that a run was trained with; None: it knows none."""
    recorded = _RunRecord.model_validate(record).stretch
    return None if recorded is None else Stretch(np.array(recorded.low), np.array(recorded.high))


def record_bands(bands: InputBands | None) -> dict[str, Any]:
    """Return what the record of a run says of its bands and their statistics; nothing for RGB."""
    if bands is None:
        return {}
    source = {} if bands.source_numbers is None else {"source_numbers": list(bands.source_numbers)}
    return {"bands": {"numbers": list(bands.numbers), "mean": list(bands.mean), "std": list(bands.std), **source}}


def read_run_bands(record: dict[str, Any]) -> InputBands | None:
    """Return the bands that a run was trained with, and how they are standardised; None: RGB."""
    recorded = _RunRecord.model_validate(record).bands
    return None if recorded is None else recorded.to_bands()


def load_network(run: Path, *, device: str = "cpu", train_heads: bool = False, trust: Sequence[str] = ()) -> nn.Module:
    """Return the trained network of a run, in eval mode.

    Args:
        run: a folder that `semicdvl train` wrote.
        device: where to put it, such as `cuda`.
        train_heads: also keep what only training needs (VLM head, segmentation decoder).
        trust: modules whose networks the run may name, see `registry.Origin`.

    Raises:
        CheckpointError: `run` is not a run directory, or its weights are of another model.
        ConfigError: the run names code, or a place, that the user does not trust.
    """
    content = read_run(run)
    _require_as_many_bands(run / "run.json", _RunRecord.model_validate(content))
    origin = Origin(run / "run.json", list_trusted(trust))
    network = build_untrained_network(content["recipe"]["model"], origin=origin)
    load_weights_into(network, load_weights(run / "model.safetensors"), source=run / "model.safetensors")
    if not train_heads:
        drop_train_heads(network)
    return network.eval().to(device)


def _require_as_many_bands(path: Path, record: _RunRecord) -> None:
    """Refuse statistics of another number of bands than the network reads; a training that begins has none yet.

    Raises:
        CheckpointError: they are.
    """
    reads, known = record.recipe.read_size("bands", 3), 3 if record.bands is None else len(record.bands.numbers)
    if reads != known:
        raise CheckpointError(
            f"{path}: the network reads {reads} bands, and the record has the statistics of {known}. Train again, or "
            "take the file from a backup."
        )


def load_weights_into(network: nn.Module, weights: dict[str, Tensor], *, source: Path) -> None:
    """Load weights into a network that must have exactly these.

    Args:
        network: gets the weights.
        weights: tensors by name.
        source: the file that they come from, for the error message.

    Raises:
        CheckpointError: names, shapes or kinds of numbers differ; the first few are listed.
    """
    own, given = (
        {name: (tuple(tensor.shape), tensor.is_floating_point()) for name, tensor in tensors.items()}
        for tensors in (network.state_dict(), weights)
    )
    if own != given:
        differing = sorted(name for name in own.keys() | given.keys() if own.get(name) != given.get(name))
        number = f"{len(differing)} tensors don't" if len(differing) > 1 else "1 tensor doesn't"
        raise CheckpointError(
            f"{source}: holds weights of another model: {number} fit, such as {', '.join(differing[:3])}. "
            "Give the recipe that it was trained with."
        )
    network.load_state_dict(weights)
