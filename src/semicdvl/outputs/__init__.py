"""Outputs that survive kills and have one writer: locks, and folders that change places at once."""
