"""Metrics: pixel and object scores of change maps, and area-adjusted accuracy with confidence intervals."""
