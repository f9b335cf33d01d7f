"""A suite: all that determines a benchmark, as one frozen object.

suite.py         the suite's TOML file, checked as a whole
rows.py          its rows: methods, networks, detectors
data_entries.py  its data sets
"""

from semicdvl.benchmarking.config.data_entries import CEGConfig, CityEntry, FolderEntry, RealEntry
from semicdvl.benchmarking.config.rows import DetectorEntry, MethodEntry, ModelEntry, ZeroLabelConfig
from semicdvl.benchmarking.config.suite import Suite, load_suite

__all__ = [
    "CEGConfig",
    "CityEntry",
    "DetectorEntry",
    "FolderEntry",
    "MethodEntry",
    "ModelEntry",
    "RealEntry",
    "Suite",
    "ZeroLabelConfig",
    "load_suite",
]
