"""Self-training from zero labels: a small network is trained on a pair of rasters with a VLM's pseudo-labels.

BEFORE, AFTER -> patches -> VLM + change event generation -> pseudo-label store -> training without a true label
"""

from semicdvl.training.self_training.config import AdaptConfig
from semicdvl.training.self_training.run import AdaptResult, adapt_to_pair

__all__ = ["AdaptConfig", "AdaptResult", "adapt_to_pair"]
