"""Checks of an image pair: overlap, no-data, radiometry, and the shift between the acquisitions."""
