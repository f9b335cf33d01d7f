"""Self-training from zero labels: a small network learns a pair of rasters from what a VLM says about its tiles.

BEFORE, AFTER -> patches -> VLM + change event generation -> pseudo-label store -> training without a true label
"""

from semicdvl.training.self_training.config import AdaptConfig
from semicdvl.training.self_training.run import AdaptResult, adapt

__all__ = ["AdaptConfig", "AdaptResult", "adapt"]
