"""Build the embedded VLM: its card, its weights file (checked before anything is made of it), and its two networks."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor

from semicdvl.atomic_files import hash_file
from semicdvl.errors import ConfigError, InputError
from semicdvl.reading.json_files import describe_fault, parse_json
from semicdvl.reading.regular_files import require_regular_file
from semicdvl.reading.tensor_files import read_tensors
from semicdvl.types import MeasuredRange
from semicdvl.vlms.aerial.features import AerialFeatureExtractor
from semicdvl.vlms.aerial.inference_net import Dtype, InferenceNet, choose_dtype, prepare_net
from semicdvl.vlms.aerial.model import TEST_TIME_VIEWS, AerialVLM
from semicdvl.vlms.aerial.net import AerialNet, project_embeddings
from semicdvl.vlms.aerial.text import load_word_table
from semicdvl.vlms.devices import pick_device
from semicdvl.vlms.model_cards import ModelCard

CARD = ModelCard(
    description="aerial images of 0.3-1 m, offline, on a CPU",
    licence="Apache-2.0",
    size="5 M, 10 MB",
    needs="nothing",
    gamma=0.5,
    measured_on="held-out Dubai tiles, French and xBD footprints (docs/models/aerial-vlm.md)",
    class_score=0.85,
    class_reliability=(
        "on two synthetic cities all of 459 words that are looked for, and 10 of 13 other words "
        "(docs/models/aerial-vlm.md)"
    ),
    measured_words=(
        "house", "building", "roof", "warehouse", "home", "apartment building", "rooftop", "factory", "shed",
        "residential building", "industrial building", "road", "street", "pavement", "asphalt", "highway",
        "parking lot", "runway", "driveway", "sidewalk", "tree", "forest", "woodland", "tree canopy", "woods",
        "grass", "lawn", "meadow", "golf course", "grassland", "park", "vegetation", "farmland", "crop field",
        "agricultural field", "plantation", "crops", "field", "bare soil", "soil", "dirt", "bare land", "desert",
        "bare ground", "ground", "land", "sand", "beach", "sandy ground", "dune", "shrub", "chaparral", "scrub",
        "bushes", "shrubland", "water", "river", "sea", "lake", "pond", "ocean", "car", "vehicle", "truck",
        "parked cars", "boat", "ship", "yacht", "airplane", "aircraft", "plane", "jet", "storage tank", "oil tank",
        "tank", "silo", "tennis court", "sports court", "basketball court",
    ),
    missed_words=(
        "swimming pool", "pool", "sailboat", "canal", "villa", "mobile home", "pasture", "seaplane", "bridge",
        "solar panel", "snow",
    ),
    measured_gsd_m=(0.2, 1.0),
)  # fmt: skip
WEIGHTS_PATH = Path(__file__).with_name("aerial.safetensors")
REMEDY = "Give a file written by tools/train_aerial_vlm.py, or none for the shipped weights"


def build_aerial(
    *, weights: Path | str | None = None, device: str = "cpu", views: int = 3, dtype: str = "auto"
) -> AerialVLM:
    """Load the embedded model.

    Args:
        weights: a `.safetensors` file written by `tools/train_aerial_vlm.py`; None for the shipped one.
        device: torch device; "auto" is the GPU if there is one.
        views: number of test-time views that are averaged: 1 (fastest), 2, 3, or 4 (3 and the plain view mirrored,
            which finds the same).
        dtype: number type of the network: "float32", "bfloat16", "int8" (processors with AVX512-VNNI), or "auto":
            bfloat16 on processors that multiply in it.

    Raises:
        ConfigError: `views` or `dtype` is none of these, or there is no such device or no such arithmetic on it.
        InputError: the file is missing, unreadable, or holds something else.
    """
    if views not in TEST_TIME_VIEWS:
        raise ConfigError(f"views must be one of {', '.join(map(str, TEST_TIME_VIEWS))}, got {views}.")
    path, target = WEIGHTS_PATH if weights is None else Path(weights), pick_device(device)
    require_regular_file(path, remedy=REMEDY)
    chosen, digest = choose_dtype(dtype, target), hash_file(path)
    net, inference_net, tensors, facts = _load_networks(path, digest, target, chosen)
    table = load_word_table()
    mean_D, projection_DE = tensors["words.mean_D"], tensors["words.projection_DE"]
    concepts = facts.concepts
    dimensions = table.embeddings_ND.shape[1]
    if mean_D.shape != (dimensions,) or projection_DE.shape != (dimensions, net.head.out_channels):
        raise InputError(path, "its projection of words has another size", "Give weights of this network")
    anchors = [
        project_embeddings(table.embed_words(words), mean_D=mean_D, projection_DE=projection_DE).mean(0)
        for words in concepts.values()
    ]
    name, suffix = f"aerial-{digest[:12]}", "" if chosen == "float32" else f"-{chosen}"
    return AerialVLM(
        identity=f"{name}-{views}{suffix}",
        net=net,
        inference_net=inference_net,
        table=table,
        mean_D=mean_D,
        projection_DE=projection_DE,
        concepts=concepts,
        anchors_KE=F.normalize(torch.stack(anchors), dim=1).to(target),
        slope=facts.slope,
        bias=facts.bias,
        test_time_views=TEST_TIME_VIEWS[views],
        device=target,
        features_identity=f"{name}-1{suffix}-encoder",
        gamma=CARD.gamma,
        measured=MeasuredRange(CARD.measured_words, CARD.missed_words, CARD.measured_gsd_m),
        class_score=CARD.class_score,
        class_reliability=CARD.class_reliability,
    )


def load_trained_net(weights: Path | None = None) -> AerialNet:
    """Return the network as it was trained, in evaluation mode: a new one at each call, to be trained further.

    Args:
        weights: as in `build_aerial`.

    Raises:
        InputError: the file is missing, unreadable, or holds something else.
    """
    path = WEIGHTS_PATH if weights is None else weights
    require_regular_file(path, remedy=REMEDY)
    return _build_net(*_read_weights(path), path)


def build_aerial_features() -> AerialFeatureExtractor:
    """Return the encoder of the shipped weights as a feature extractor."""
    vlm = build_aerial(views=1)
    return AerialFeatureExtractor(vlm.features_identity, vlm.inference_net)


@lru_cache(maxsize=1)
def _load_networks(
    path: Path, digest: str, target: torch.device, dtype: Dtype
) -> tuple[AerialNet, InferenceNet, dict[str, Tensor], WeightsFacts]:
    """Return the network of a weights file as it was trained and for inference, its further tensors, and its facts.

    The VLM and the feature extractor of a detection are built one after the other, of the same file. All share these
    networks, so nobody may train them; for that `load_trained_net` builds another one.
    """
    tensors, facts = _read_weights(path)
    net = _build_net(tensors, facts, path).requires_grad_(False).to(memory_format=torch.channels_last).to(target)
    return net, prepare_net(net, dtype=dtype, weights_hash=digest), tensors, facts


class WeightsFacts(BaseModel):
    """The notes of a weights file; the names are stored."""

    model_config = ConfigDict(allow_inf_nan=False)

    backbone: str
    concepts: dict[str, Annotated[tuple[str, ...], Field(min_length=1)]] = Field(min_length=1)
    slope: float
    bias: float


def _read_weights(path: Path) -> tuple[dict[str, Tensor], WeightsFacts]:
    """Read the tensors and the notes of a weights file."""
    tensors, facts = read_tensors(path, remedy=REMEDY)
    missing = {"backbone", "concepts", "slope", "bias"} - facts.keys()
    if missing or not {"words.mean_D", "words.projection_DE"} <= tensors.keys():
        raise InputError(path, "does not hold an aerial vision-language model", REMEDY)
    try:
        return tensors, WeightsFacts.model_validate(facts | {"concepts": parse_json(facts["concepts"])})
    except ValueError as error:
        reason = describe_fault(error) if isinstance(error, ValidationError) else str(error)
        raise InputError(path, f"its notes are damaged ({reason})", REMEDY) from error


def _build_net(tensors: dict[str, Tensor], facts: WeightsFacts, path: Path) -> AerialNet:
    """Build the float32 network in evaluation mode, with the fp16 weights of a file."""
    net = AerialNet(backbone=facts.backbone)
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
    return net.eval()
