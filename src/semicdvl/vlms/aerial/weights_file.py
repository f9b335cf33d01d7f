"""Read the weights file of the embedded VLM: tensors, and notes that are checked before anything is built from them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor

from semicdvl.errors import InputError
from semicdvl.reading.json_files import describe_fault, parse_json
from semicdvl.reading.regular_files import require_file_or_folder
from semicdvl.reading.tensor_files import read_tensors
from semicdvl.vlms.aerial.net import AerialNet


class WeightsFacts(BaseModel):
    """The notes of a weights file; the names are stored."""

    model_config = ConfigDict(allow_inf_nan=False)

    backbone: str
    concepts: dict[str, Annotated[tuple[str, ...], Field(min_length=1)]] = Field(min_length=1)
    slope: float
    bias: float


def read_weights_file(path: Path) -> tuple[dict[str, Tensor], WeightsFacts]:
    """Read tensors and metadata of a weights file."""
    remedy = "Give a file written by tools/train_aerial_vlm.py, or none for the shipped weights"
    require_file_or_folder(path, remedy=remedy)
    if not path.is_file():
        raise InputError(path, "no such weights file", remedy)
    tensors, facts = read_tensors(path, remedy=remedy)
    missing = {"backbone", "concepts", "slope", "bias"} - facts.keys()
    if missing or not {"words.mean_D", "words.projection_DE"} <= tensors.keys():
        raise InputError(path, "does not hold an aerial vision-language model", remedy)
    try:
        return tensors, WeightsFacts.model_validate(facts | {"concepts": parse_json(facts["concepts"])})
    except ValueError as error:
        reason = describe_fault(error) if isinstance(error, ValidationError) else str(error)
        raise InputError(path, f"its notes are damaged ({reason})", remedy) from error


def load_net_weights(net: AerialNet, tensors: dict[str, Tensor], path: Path) -> None:
    """Load fp16 weights into the float32 network."""
    own = {name.removeprefix("net."): value.float() for name, value in tensors.items() if name.startswith("net.")}
    expected = {name for name in net.state_dict() if not name.endswith("num_batches_tracked")}
    try:
        if own.keys() != expected:
            raise RuntimeError(f"{len(own.keys() ^ expected)} tensors are missing or too many")
        net.load_state_dict(own, strict=False)
    except RuntimeError as error:
        raise InputError(
            path, f"its tensors don't fit {net.backbone} ({error})", "Give weights of this network"
        ) from error
