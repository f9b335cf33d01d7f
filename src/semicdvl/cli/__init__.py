"""The command line: parses options, calls the public functions of `semicdvl`, prints what they return.

app.py            the application and its console
options/          groups of options, which commands share
tables.py         tables that commands print
detection.py, serve.py, labels.py, prepare.py, starting.py, training.py, self_training.py, evaluation.py, listing.py:
                  by topic
"""

# isort: off
# `semicdvl --help` lists the commands in this order.
from semicdvl.cli.app import app
from semicdvl.cli import detection, serve, labels, prepare, starting, training, self_training, evaluation, listing
# isort: on

__all__ = [
    "app",
    "detection",
    "evaluation",
    "labels",
    "listing",
    "prepare",
    "self_training",
    "serve",
    "starting",
    "training",
]
