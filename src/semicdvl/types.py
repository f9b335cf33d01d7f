"""What the parts hand to each other: frozen dataclasses and the protocols of the four exchangeable parts.

Axes. A name ends in its axes wherever axes matter:

    B  pair of a batch      C  image band, or prompt of a VLM     K  class of an output (0 unchanged, 1 changed)
    D  feature channel      H  row, from the top                  W  column, from the left

Masks. Inside the program a class map is an integer map of 0, 1 and `IGNORE`; 255 always means "don't count this pixel".
In label *files* of the change-detection data sets 255 means *changed*: the reader converts, once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

IGNORE = 255
"""Value of a pixel that takes no part in a loss or a score."""

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
"""Networks of this package take RGB / 255 normalised with these; each backbone converts further where it must."""


# ------------------------------------------------------------------------------------------------ files and patches
@dataclass(frozen=True)
class PairFiles:
    """One pair of co-registered images of one place, with its label where there is one.

    Attributes:
        name: unique in its data set; the key of split lists and reports.
        before: image of date 1 (any format that GDAL reads).
        after: image of date 2, same size.
        label: change mask of 0 and 255 (or 0 and 1); None for an unlabelled pair.
        window_px: (row, col, height, width) of the part of the files that this pair means; None for all of it.
    """

    name: str
    before: Path
    after: Path
    label: Path | None = None
    window_px: tuple[int, int, int, int] | None = None


@dataclass(frozen=True)
class Split:
    """Which pair is used for what: training with label, training without, validation, test."""

    labelled: tuple[PairFiles, ...]
    unlabelled: tuple[PairFiles, ...]
    val: tuple[PairFiles, ...]
    test: tuple[PairFiles, ...]


# ------------------------------------------------------------------------------------------------ VLM side
@dataclass(frozen=True)
class Instance:
    """One object that a VLM found: a boolean HW mask or a COCO RLE dict, the prompt it answers, its score in [0, 1]."""

    mask: NDArray[np.bool_] | Mapping[str, Any]
    prompt: int
    score: float


@dataclass(frozen=True)
class Segments:
    """A VLM's answer for one image.

    Attributes:
        scores_CHW: float32 in [0, 1], one map per prompt, in the order of `prompts`.
        prompts: the words that were asked.
        instances: the objects found, or None from a VLM that gives maps only (CEG then takes connected components).
    """

    scores_CHW: NDArray[np.float32]
    prompts: tuple[str, ...]
    instances: tuple[Instance, ...] | None = None


@runtime_checkable
class VLM(Protocol):
    """Words and an image in, a score map per word out."""

    @property
    def identity(self) -> str:
        """Name and hash of the weights: equal identity means equal answers. Part of the key of the answer store."""
        ...

    @property
    def gamma(self) -> float:
        """Score from which this VLM's answers are worth believing: the default of CEG's reliability threshold."""
        ...

    def segment(self, image_HWC: NDArray[np.uint8], prompts: Sequence[str], *, gsd_m: float | None = None) -> Segments:
        """Return the answer for one uint8 RGB image; `gsd_m` is its ground sampling distance in metres, if known."""
        ...


@dataclass(frozen=True)
class VLMLabels:
    """Change label and single-date labels made from two answers: uint8 HW maps of 0, 1 and IGNORE (VLM unsure)."""

    change_HW: NDArray[np.uint8]
    t1_HW: NDArray[np.uint8]
    t2_HW: NDArray[np.uint8]


class LabelSource(Protocol):
    """Where the loader gets the VLM's labels of a pair from (the pseudo-label store implements it)."""

    def labels(self, pair: PairFiles) -> VLMLabels:
        """Return the labels of one pair, of the pair's size."""
        ...


# ------------------------------------------------------------------------------------------------ batches
@dataclass(frozen=True)
class VLMTargets:
    """`VLMLabels` of a batch: int64 BHW maps of 0, 1 and IGNORE, augmented like their images."""

    change_BHW: Tensor
    t1_BHW: Tensor
    t2_BHW: Tensor


@dataclass(frozen=True)
class Labelled:
    """Labelled pairs, weakly augmented.

    Images are uint8 RGB from the loader and normalised float once `train` has put them on the device.

    Attributes:
        t1_BCHW: date 1.
        t2_BCHW: date 2.
        label_BHW: int64 of 0, 1, IGNORE (padding).
        vlm: the VLM's labels of the same pairs, or None.
    """

    t1_BCHW: Tensor
    t2_BCHW: Tensor
    label_BHW: Tensor
    vlm: VLMTargets | None = None


@dataclass(frozen=True)
class Unlabelled:
    """Unlabelled pairs in two views that share all geometry; the strong one differs in colour, blur and CutMix.

    Attributes:
        weak_t1_BCHW, weak_t2_BCHW: weakly augmented images (as in `Labelled`).
        strong_t1_BCHW, strong_t2_BCHW: the same crops with colour jitter and blur, drawn for each date by itself.
            CutMix is *not* applied: the method does it, with `box_BHW`, on images and labels alike.
        valid_BHW: bool, False on padding.
        box_BHW: bool, the pixels that CutMix takes from the partner (pair b takes from pair b-1; all False: no CutMix).
        vlm: the VLM's labels of the weak view, or None.
        truth_BHW: true labels where the data set has them, for health numbers only; never part of a loss.
    """

    weak_t1_BCHW: Tensor
    weak_t2_BCHW: Tensor
    strong_t1_BCHW: Tensor
    strong_t2_BCHW: Tensor
    valid_BHW: Tensor
    box_BHW: Tensor
    vlm: VLMTargets | None = None
    truth_BHW: Tensor | None = None


# ------------------------------------------------------------------------------------------------ networks and methods
@dataclass(frozen=True)
class Outputs:
    """What a network says about a batch of pairs; maps have the input's size, absent heads are None.

    Attributes:
        change_BKHW: change logits of the consistency-regularised head, K = 2.
        vlm_change_BKHW: change logits of the head that learns from the VLM.
        t1_BKHW: class logits of date 1 (0 background, 1 foreground).
        t2_BKHW: class logits of date 2.
        features_t1_BDHW: features of date 1 for the contrastive term, at the decoder's stride.
        features_t2_BDHW: features of date 2.
        perturbed_change_BKHW: change logits from difference features of which half the channels, drawn anew each time,
            are dropped (UniMatch's feature perturbation). The decoder takes the whole and the dropped features as one
            batch, as published: they share its batch norm. Nothing is dropped in eval mode.
        auxiliary_BKHW: change logits that only training looks at, each a BKHW of its own size (a label is resized to it
            by nearest neighbour): the stages of deep supervision, coarse to fine, or auxiliary decoders, which are at
            the input's size and see perturbed features in training mode.
        distance_BHW: distance of the two dates' features, at the input's size, where the network decides by it.
    """

    change_BKHW: Tensor
    vlm_change_BKHW: Tensor | None = None
    t1_BKHW: Tensor | None = None
    t2_BKHW: Tensor | None = None
    features_t1_BDHW: Tensor | None = None
    features_t2_BDHW: Tensor | None = None
    perturbed_change_BKHW: Tensor | None = None
    auxiliary_BKHW: tuple[Tensor, ...] | None = None
    distance_BHW: Tensor | None = None

    def part(self, rows: slice) -> Outputs:
        """Return the outputs of some pairs of the batch."""
        cut: dict[str, Any] = {
            name: tuple(one[rows] for one in value) if isinstance(value, tuple) else value[rows]
            for name, value in vars(self).items()
            if value is not None
        }
        return replace(self, **cut)


HEADS = ("change", "vlm_change", "segmentation", "features", "perturbed", "auxiliary", "distance")
"""Names by which a method asks for outputs: `segmentation` is t1 and t2 together, `features` likewise."""


@dataclass(frozen=True)
class Progress:
    """Where training stands, handed to `Method.step`.

    Attributes:
        step: index of this step, from 0.
        total: steps in all.
        health: numbers worth logging that are no loss (confident fraction, its precision); the method writes them.
    """

    step: int
    total: int
    health: dict[str, float] = field(default_factory=dict)

    @property
    def frac(self) -> float:
        """Share of training that is done, in [0, 1)."""
        return self.step / max(self.total, 1)


class Network(Protocol):
    """A change-detection network: `nn.Module` whose forward takes two dates and the heads that are wanted."""

    heads: frozenset[str]
    """Which of `HEADS` the network has."""

    symmetric: bool
    """Whether the change logits in eval mode stay as they are when the dates are swapped."""

    def __call__(self, t1_BCHW: Tensor, t2_BCHW: Tensor, *, heads: frozenset[str] | None = None) -> Outputs:
        """Return the outputs of the named heads (None: all that the network has)."""
        ...


class Method(Protocol):
    """How a batch becomes a loss. A frozen dataclass of hyper-parameters with one `step`."""

    @property
    def uses_unlabelled(self) -> bool:
        """Whether `step` wants unlabelled pairs."""
        ...

    @property
    def uses_vlm(self) -> bool:
        """Whether batches must bring the VLM's labels."""
        ...

    @property
    def heads(self) -> frozenset[str]:
        """Heads that the method needs of the network."""
        ...

    def step(
        self,
        model: nn.Module,
        teacher: nn.Module,
        labelled: Labelled,
        unlabelled: Unlabelled | None,
        progress: Progress,
    ) -> dict[str, torch.Tensor]:
        """Return named, already weighted loss terms; their sum is the loss and the dict is the log.

        `model` is trained; `teacher` gives pseudo labels (the same module, or its moving average).
        """
        ...


# ------------------------------------------------------------------------------------------------ detectors
@dataclass(frozen=True)
class ChangeMap:
    """What a detector says about a pair, or about some rows of it.

    Attributes:
        change_HW: uint8 of 0 (unchanged), 1 (changed) and IGNORE (no data in either date).
        score_HW: float32 change score in [0, 1]; NaN where there is no data.
        classes: names of the single-date classes, index = value in t1_HW and t2_HW; empty when the route has none.
        foreground: index of the classes that were looked for (the others are background).
        t1_HW: uint8 class of date 1, IGNORE where there is no data; None when the route has no classes.
        t2_HW: the same of date 2.
    """

    change_HW: NDArray[np.uint8]
    score_HW: NDArray[np.float32]
    classes: tuple[str, ...] = ()
    foreground: tuple[int, ...] = ()
    t1_HW: NDArray[np.uint8] | None = None
    t2_HW: NDArray[np.uint8] | None = None


@dataclass(frozen=True)
class PairTile:
    """A piece of both dates at full resolution, without padding.

    Attributes:
        t1_HWC: uint8 of date 1 (C is 3 unless more bands were asked for); black where not valid.
        t2_HWC: the same of date 2.
        valid_HW: False where either date has no data.
    """

    t1_HWC: NDArray[np.uint8]
    t2_HWC: NDArray[np.uint8]
    valid_HW: NDArray[np.bool_]


class PairTiles(Protocol):
    """A whole pair as tiles that do not overlap, row by row; it can be gone through as often as one likes."""

    shape_hw: tuple[int, int]
    gsd_m: float | None

    def __iter__(self) -> Iterator[PairTile]:
        """Give the tiles."""
        ...


@dataclass(frozen=True)
class PlaneStrip:
    """Some rows of a detector's blended maps, over the raster's whole width.

    Attributes:
        row: the raster's row that the strip begins with.
        planes_PHW: float32, finite; of no meaning where not valid.
        valid_HW: False where either date has no data.
    """

    row: int
    planes_PHW: NDArray[np.float32]
    valid_HW: NDArray[np.bool_]


class PlaneStrips(Protocol):
    """A detector's maps of the whole raster as strips from the top; it can be gone through as often as one likes."""

    shape_hw: tuple[int, int]

    def __iter__(self) -> Iterator[PlaneStrip]:
        """Give the strips."""
        ...


class Detector(Protocol):
    """Trained network, classic method and VLM + CEG all look the same to `predict/run.py`.

    `planes` is called tile by tile; its maps are blended over overlapping tiles; `decide` goes through the blended maps
    of the whole raster, so that an object cut by a tile border is one object again. Neither ever holds a whole raster:
    memory does not grow with its size.
    """

    @property
    def name(self) -> str:
        """What the report calls it."""
        ...

    @property
    def planes_count(self) -> int:
        """Number of maps P that `planes` gives."""
        ...

    def planes(
        self, t1_HWC: NDArray[np.uint8], t2_HWC: NDArray[np.uint8], *, gsd_m: float | None = None
    ) -> NDArray[np.float32]:
        """Return float32 maps PHW for one pair of tiles (uint8, padded to the tile's full size by reflection)."""
        ...

    def decide(self, strips: PlaneStrips) -> Iterator[ChangeMap]:
        """Give the result, a `ChangeMap` for every strip, of its rows; all of them have the same `classes`."""
        ...


@runtime_checkable
class Fits(Protocol):
    """A detector that must see the whole pair before it can judge a tile (means, principal components, clusters)."""

    def fitted(self, tiles: PairTiles) -> Detector:
        """Return the detector with its statistics of this pair; called once, before the first `planes`."""
        ...
