"""The command line: one function per command; the work is done in the rooms.

One file per topic. `--help` shows the commands in the order of the imports here.
"""

from semicdvl.cli import detection, labels, self_training, training
from semicdvl.cli.app import app

__all__ = ["app", "detection", "labels", "self_training", "training"]
