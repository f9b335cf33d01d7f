"""Predictions of VLMs that were computed elsewhere, read from files."""
