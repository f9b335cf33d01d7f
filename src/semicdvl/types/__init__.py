"""What the parts hand to each other: frozen dataclasses and the protocols of the four exchangeable parts.

Axes. A name ends in its axes wherever axes matter:

    B  pair of a batch      C  image band, or prompt of a VLM     K  class of an output (0 unchanged, 1 changed)
    D  feature channel      H  row, from the top                  W  column, from the left

Masks. Inside the program a class map is an integer map of 0, 1 and `IGNORE`; 255 always means "don't count this pixel".
In label *files* of the change-detection data sets 255 means *changed*: the reader converts, once.
"""

from semicdvl.types.batches import Labelled, Unlabelled, VLMTargets
from semicdvl.types.detectors import (
    ChangeMap,
    Detector,
    Finds,
    Fits,
    LookedStrips,
    Looks,
    PairTile,
    PairTiles,
    PlaneStrip,
    PlaneStrips,
    TileAnswer,
    TileObject,
)
from semicdvl.types.networks import HEADS, WITHOUT_WEIGHTS, Adversarial, Method, Network, Outputs, Progress
from semicdvl.types.pairs import IGNORE, IMAGENET_MEAN, IMAGENET_STD, PairFiles, Split
from semicdvl.types.vlm import VLM, Instance, LabelSource, Segments, VLMLabels

__all__ = [
    "HEADS",
    "IGNORE",
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "VLM",
    "WITHOUT_WEIGHTS",
    "Adversarial",
    "ChangeMap",
    "Detector",
    "Finds",
    "Fits",
    "Instance",
    "LabelSource",
    "Labelled",
    "LookedStrips",
    "Looks",
    "Method",
    "Network",
    "Outputs",
    "PairFiles",
    "PairTile",
    "PairTiles",
    "PlaneStrip",
    "PlaneStrips",
    "Progress",
    "Segments",
    "Split",
    "TileAnswer",
    "TileObject",
    "Unlabelled",
    "VLMLabels",
    "VLMTargets",
]
