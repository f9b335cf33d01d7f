"""Options of the commands, each declared once: a group is a dataclass that a command takes as one parameter.

groups.py    lets a command take groups, and reads lists of values
images.py    the two images, their bands, grid and grey values; a data set
vlm.py       the vision-language model and its prompts
ceg.py       change event generation, and the features that it compares
detector.py  what detects the change, and which options it does not use
running.py   where the work is computed, and which code it may load
"""

from semicdvl.cli.options.ceg import CEGOptions, FeatureOptions, Level
from semicdvl.cli.options.detector import Combination, DetectorOptions
from semicdvl.cli.options.groups import expand_option_groups, list_given_options, list_values, split_words
from semicdvl.cli.options.images import (
    BandOptions,
    DatasetOptions,
    OptionalPairArguments,
    PairArguments,
    ReadingOptions,
    RegistrationOptions,
)
from semicdvl.cli.options.running import Executor, TrustOptions
from semicdvl.cli.options.vlm import PromptOptions, VLMOptions

__all__ = [
    "BandOptions",
    "CEGOptions",
    "Combination",
    "DatasetOptions",
    "DetectorOptions",
    "Executor",
    "FeatureOptions",
    "Level",
    "OptionalPairArguments",
    "PairArguments",
    "PromptOptions",
    "ReadingOptions",
    "RegistrationOptions",
    "TrustOptions",
    "VLMOptions",
    "expand_option_groups",
    "list_given_options",
    "list_values",
    "split_words",
]
