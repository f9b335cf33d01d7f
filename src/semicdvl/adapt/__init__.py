"""Self-training from zero labels: a small network learns a pair of rasters from what a VLM says about its tiles.

BEFORE, AFTER -> patches -> VLM + change event generation -> store of labels -> the training engine, without a label
"""

from semicdvl.adapt.run import Adapted, adapt
from semicdvl.adapt.settings import AdaptSettings

__all__ = ["AdaptSettings", "Adapted", "adapt"]
