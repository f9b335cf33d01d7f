"""Metrics of change maps: by pixel, by object, by class of both dates, over sets of pairs, and from a sample."""

from semicdvl.metrics.semantic import SemanticScores, semantic_scores

__all__ = ["SemanticScores", "semantic_scores"]
