"""Types that the rooms exchange: frozen dataclasses, and the base classes and protocols of the exchangeable parts.

Axes. A name ends in its axes wherever axes matter:

    B  pair of a batch      C  image band, or prompt of a VLM     K  class of an output (0 unchanged, 1 changed)
    D  feature channel      H  row, from the top                  W  column, from the left

Masks. Inside the program a class map is an integer map of 0, 1 and `IGNORE`; 255 always means "ignore this pixel".
In label *files* of the change-detection data sets 255 means *changed*: the reader converts, once.
"""

from semicdvl.types.bands import InputBands
from semicdvl.types.batches import ClassTargets, LabelledBatch, UnlabelledBatch, VLMTargets
from semicdvl.types.detectors import Detector
from semicdvl.types.methods import AdversarialMethod, CutMixPartner, Method, TrainingProgress
from semicdvl.types.networks import HEADS, HEADS_WITHOUT_WEIGHTS, Network, Outputs
from semicdvl.types.pairs import IGNORE, IMAGENET_MEAN, IMAGENET_STD, ClassFiles, ClassLegend, PairFiles, Split
from semicdvl.types.reliability import MeasuredRange, Reliability, SourceFacts
from semicdvl.types.settings import ReadingSettings
from semicdvl.types.tiles import (
    ChangeMap,
    PairTile,
    PairTiles,
    ScoreStrip,
    ScoreStrips,
    TileInstance,
    TileInstanceReader,
    TilePrediction,
)
from semicdvl.types.vlm import VLM, DescribedVLM, Instance, Segments, VLMLabels, VLMLabelSource

__all__ = [
    "HEADS",
    "HEADS_WITHOUT_WEIGHTS",
    "IGNORE",
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "VLM",
    "AdversarialMethod",
    "ChangeMap",
    "ClassFiles",
    "ClassLegend",
    "ClassTargets",
    "CutMixPartner",
    "DescribedVLM",
    "Detector",
    "InputBands",
    "Instance",
    "LabelledBatch",
    "MeasuredRange",
    "Method",
    "Network",
    "Outputs",
    "PairFiles",
    "PairTile",
    "PairTiles",
    "ReadingSettings",
    "Reliability",
    "ScoreStrip",
    "ScoreStrips",
    "Segments",
    "SourceFacts",
    "Split",
    "TileInstance",
    "TileInstanceReader",
    "TilePrediction",
    "TrainingProgress",
    "UnlabelledBatch",
    "VLMLabelSource",
    "VLMLabels",
    "VLMTargets",
]
