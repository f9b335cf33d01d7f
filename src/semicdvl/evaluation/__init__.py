"""Scores of change maps and of trained runs against reference data."""
