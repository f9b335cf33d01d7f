"""Metrics of change maps: by pixel (change.py), by object (objects.py), and area-adjusted accuracy from a sample."""
