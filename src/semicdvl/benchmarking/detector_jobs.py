"""Jobs of detectors that are not trained: which detector, on which test pairs, for which seeds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from semicdvl.atomic_files import hash_values, write_json
from semicdvl.benchmarking.config import CityEntry, DetectorEntry, RealEntry, Suite
from semicdvl.benchmarking.data import PreparedData
from semicdvl.benchmarking.job_files import JobFiles, build_file_name
from semicdvl.config import DataConfig, parse_section
from semicdvl.data.readers import real_pairs
from semicdvl.data.split_file import read_split
from semicdvl.registry import list_options
from semicdvl.synthetic.config import CitySpec
from semicdvl.unsupervised import UNSUPERVISED

NO_LABELS = 0.0
"""Share of labels of a run that is not trained."""
NO_NETWORK = "-"
"""Name of the network of such a run, where the suite names networks."""


@dataclass(frozen=True)
class DetectorJob(JobFiles):
    """One detector on the test pairs of a data set; `run` treats it like a `jobs.TrainingJob`.

    Attributes:
        data, method, model, seed: its place in the suite; `method` is the detector's name.
        seeds: all for which test pairs and options are the same, so that one run counts for each.
        detector: what is run, with the seed among its options where it has one.
        split: the file that lists the test pairs.
        pairs: how many these are.
        gsd_m: metres per pixel; None: as in the files, if there.
        label_values: as in `data.labels.files.read_mask`.
        out: folder of the suite.
    """

    data: str
    method: str
    model: str
    seed: int
    seeds: tuple[int, ...]
    detector: DetectorEntry
    split: Path
    pairs: int
    gsd_m: float | None
    label_values: dict[int, int] | None
    out: Path
    labelled: float = NO_LABELS
    steps: int = 0

    @property
    def name(self) -> str:
        """Name of its files; the end changes with what determines it."""
        return build_file_name((self.data, self.method, f"s{self.seed}"), self._describe_inputs(), out=self.out)

    @property
    def cost(self) -> float:
        """Relative cost: every pair is read about twice."""
        return 2.0 * self.pairs

    @property
    def place(self) -> dict[str, Any]:
        """Its place in the suite, as outcomes have it; a detector makes no steps."""
        place = {name: getattr(self, name) for name in ("data", "method", "model", "labelled", "seed")}
        return place | {"seeds": list(self.seeds), "steps": None}

    def _describe_inputs(self) -> dict[str, Any]:
        """Return all that determines the outcome."""
        detector = self.detector.model_dump(mode="json")
        values = None if self.label_values is None else {str(key): value for key, value in self.label_values.items()}
        described = {"detector": detector, "split": str(self.split), "gsd_m": self.gsd_m, "label_values": values}
        ceg = self.detector.zero_label
        return described if ceg is None else described | {"level": ceg.choose_level()}

    def write(self) -> Path:
        """Write the file that `benchmarking.worker` starts from, and return it."""
        path = self.out / "jobs" / f"{self.name}.json"
        write_json(
            path, {"job": self.place, **self._describe_inputs(), "run": str(self.run), "result": str(self.result)}
        )
        return path


def plan_detector_jobs(
    suite: Suite, entry: Any, place: PreparedData, out: Path, *, network: str
) -> Iterator[DetectorJob]:
    """Yield the detectors' jobs on one data set: one per seed, or one for all seeds that give the same.

    Args:
        suite: what to compare.
        entry: the data set in the suite.
        place: the data set, ready.
        out: folder of the suite.
        network: shown in place of a network's name.

    Raises:
        ConfigError: a detector cannot be imported, or the suite's `label_values` cannot be read.
        DataError: a split cannot be made.
    """
    fractions = [fraction for method in suite.methods for fraction in suite.list_fractions(method)]
    fraction = min(fractions or suite.labelled or (1.0,))  # the test pairs are those of all fractions
    label_values = _read_label_values(suite)
    for detector in suite.detectors:
        groups: dict[str, tuple[DetectorEntry, Path, int, list[int]]] = {}
        for seed in suite.seeds:
            split = place.write_split_file(fraction, seed if entry.draw_seed is None else entry.draw_seed)
            test, seeded = read_split(split).test, _add_seed(detector, seed)
            key = hash_values([pair.name for pair in test], seeded.model_dump(mode="json"))
            groups.setdefault(key, (seeded, split, len(test), []))[3].append(seed)
        gsd_m = detector.gsd_m if detector.gsd_m is not None else _find_gsd_m(entry)
        for seeded, split, pairs, seeds in groups.values():
            yield DetectorJob(
                data=entry.name,
                method=detector.name,
                model=network,
                seed=seeds[0],
                seeds=tuple(seeds),
                detector=seeded,
                split=split,
                pairs=pairs,
                gsd_m=gsd_m,
                label_values=label_values,
                out=out,
            )


def _read_label_values(suite: Suite) -> dict[int, int] | None:
    """Return the meaning of label values that the suite sets for every recipe, in numbers or in words."""
    changes = suite.set.get("data")
    values = changes.get("label_values") if isinstance(changes, dict) else None
    content = {"root": ".", "label_values": values}
    return parse_section(DataConfig, content, source=f"suite '{suite.name}', set.data").label_values


def _add_seed(entry: DetectorEntry, seed: int) -> DetectorEntry:
    """Return a detector with the run's seed, where its method takes one and the suite does not give another."""
    if entry.method is None or "seed" in entry.options:
        return entry
    if "seed" not in list_options("method", entry.method, UNSUPERVISED):
        return entry
    return entry.model_copy(update={"options": entry.options | {"seed": seed}})


def _find_gsd_m(entry: Any) -> float | None:
    """Return metres per pixel of a data set, if the suite knows."""
    if isinstance(entry, CityEntry):
        return entry.city.get("gsd_m", CitySpec().gsd_m)
    return real_pairs.REAL_PAIRS_GSD_M if isinstance(entry, RealEntry) else None
