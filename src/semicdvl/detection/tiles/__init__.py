"""Tile by tile through a detector: reading, predicting, blending and keeping the score maps."""
