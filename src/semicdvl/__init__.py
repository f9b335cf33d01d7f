"""semicdvl: what changed between two images of one place, with 0 to 100 % of labels."""

__version__ = "0.1.0"
