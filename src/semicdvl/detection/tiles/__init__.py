"""Run a detector tile by tile: read, predict, blend and store the score maps."""
