"""Self-training from zero labels: a small network learns a pair of rasters from what a VLM says about its tiles.

BEFORE, AFTER -> patches -> VLM + change event generation -> store of labels -> the training engine, without a label
"""

from semicdvl.training.self_training.config import AdaptSettings
from semicdvl.training.self_training.run import AdaptResult, adapt

__all__ = ["AdaptResult", "AdaptSettings", "adapt"]
