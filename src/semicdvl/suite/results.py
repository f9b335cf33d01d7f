"""Outcomes of runs -> results.csv (a line per run) and table.md (mean and spread over seeds, paired differences)."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from semicdvl.files import whole

SCORES = ("iou", "f1", "precision", "recall")
TITLES = {"iou": "IoU^c", "f1": "F1", "precision": "precision", "recall": "recall"}
Outcome = dict[str, Any]
"""What `suite.work` wrote: place in the suite, status, scores, cost."""


@dataclass(frozen=True)
class Spread:
    """Mean and sample standard deviation of some values; the deviation of one value is unknown (None)."""

    mean: float
    deviation: float | None
    count: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread | None:
        """Return the spread, None of no value."""
        if not values:
            return None
        return cls(mean(values), stdev(values) if len(values) > 1 else None, len(values))

    def text(self, digits: int = 3, *, sign: bool = False) -> str:
        """Return `0.412 ± 0.013`."""
        number = f"{self.mean:+.{digits}f}" if sign else f"{self.mean:.{digits}f}"
        return number if self.deviation is None else f"{number} ± {self.deviation:.{digits}f}"


@dataclass(frozen=True)
class Cell:
    """All seeds of one method, network and label fraction on one data set."""

    data: str
    method: str
    model: str
    labelled: float
    outcomes: tuple[Outcome, ...]

    def spread(self, which: str, score: str, *, select: str = "val") -> Spread | None:
        """Return the spread of a score over the finished seeds; `which` is test or test_last."""
        return Spread.of([outcome[which][score] for outcome in self._finished(select)])

    def cost(self, key: str) -> Spread | None:
        """Return the spread of seconds or memory."""
        return Spread.of([outcome[key] for outcome in self._finished("val") if outcome[key] is not None])

    def runs(self) -> str:
        """Say how many runs ended well, and what became of the others."""
        own = [outcome for outcome in self.outcomes if outcome["select"] == "val"]
        bad = [outcome["status"] for outcome in own if outcome["status"] != "finished"]
        ended = ", ".join(f"{bad.count(status)} {status}" for status in dict.fromkeys(bad))
        return f"{len(own) - len(bad)} of {len(own)}" + (f" ({ended})" if ended else "")

    def _finished(self, select: str) -> list[Outcome]:
        """Return the finished runs whose best step was chosen on a side."""
        return [one for one in self.outcomes if one["status"] == "finished" and one["select"] == select]


def cells(outcomes: Iterable[Outcome]) -> list[Cell]:
    """Group outcomes over seeds, in the order in which they come."""
    groups: dict[tuple[str, str, str, float], list[Outcome]] = {}
    for one in outcomes:
        groups.setdefault((one["data"], one["method"], one["model"], one["labelled"]), []).append(one)
    return [Cell(*key, tuple(group)) for key, group in groups.items()]


# ------------------------------------------------------------------------------------------------ CSV
PLACE = ("data", "method", "model", "labelled", "seed", "select", "status")
COST = ("best_step", "seconds", "peak_mib", "peak_gpu_mib")


def write_csv(path: Path, outcomes: Sequence[Outcome]) -> None:
    """Write one line per run; `*_val_best` is test at the step that `select` chose, `*_last` test at the last step."""
    sides = ("labelled", "unlabelled", "val", "test")
    scores = [f"{score}_{step}" for step in ("best", "last") for score in SCORES]
    header = [*PLACE, *(f"{side}_pairs" for side in sides), *scores, *COST, "error"]
    with whole(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as handle:
        writer = csv.writer(handle)
        writer.writerow(header)
        for one in outcomes:
            pairs, best, last = one.get("pairs", {}), one.get("test", {}), one.get("test_last", {})
            line = [one[key] for key in PLACE] + [pairs.get(side, "") for side in sides]
            line += [_number(scores.get(score)) for scores in (best, last) for score in SCORES]
            writer.writerow([*line, *(_number(one.get(key)) for key in COST), one.get("error", "")])


def _number(value: float | None) -> str:
    """Return a number for a CSV cell; empty where there is none."""
    return "" if value is None else f"{value:.6g}"


# ------------------------------------------------------------------------------------------------ Markdown
def markdown(
    outcomes: Sequence[Outcome], *, title: str, compared: Sequence[tuple[str, str]], notes: Sequence[str] = ()
) -> str:
    """Return all tables as Markdown.

    Args:
        outcomes: of all runs, failed ones too.
        title: of the page.
        compared: pairs of methods (a, b) whose difference a - b is shown, seed by seed.
        notes: sentences for the end.
    """
    lines = [f"# {title}", ""]
    for data in dict.fromkeys(one["data"] for one in outcomes):
        own = [one for one in outcomes if one["data"] == data]
        lines += [f"## {data}", "", *_table(cells(own)), "", *_differences(own, compared), *_failures(own)]
    lines += [
        "Scores of the changed class on the test side, counts pooled over all pixels; mean ± sample standard deviation "
        "over seeds. The step is chosen on validation; *last* is the last step of the same runs.",
        *notes,
    ]
    return "\n".join(lines) + "\n"


def _table(rows: Sequence[Cell]) -> list[str]:
    """Return the table of a data set."""
    several = len({row.model for row in rows}) > 1
    parity = any(one["select"] == "test" for row in rows for one in row.outcomes)
    head = ["method", *(["network"] if several else []), "labels", *(TITLES[score] for score in SCORES), "IoU^c, last"]
    head += [*(["IoU^c, chosen on test"] if parity else []), "seconds", "memory MiB", "runs"]
    lines = [_line(head), _line(["---"] * len(head))]
    for row in sorted(rows, key=lambda row: row.labelled):
        cells_ = [
            row.method,
            *([row.model] if several else []),
            _percent(row.labelled),
        ]
        cells_ += [_text(row.spread("test", score)) for score in SCORES] + [_text(row.spread("test_last", "iou"))]
        cells_ += [_text(row.spread("test", "iou", select="test"))] if parity else []
        cells_ += [_text(row.cost("seconds"), 0), _text(row.cost("peak_mib"), 0), row.runs()]
        lines.append(_line(cells_))
    return lines


def paired(outcomes: Sequence[Outcome], better: str, other: str, *, labelled: float, model: str) -> Spread | None:
    """Return the spread of IoU^c of one method minus that of another, over the seeds that both finished."""
    found: dict[str, dict[int, float]] = {better: {}, other: {}}
    for one in outcomes:
        place = (one["labelled"], one["model"], one["select"], one["status"])
        if one["method"] in found and place == (labelled, model, "val", "finished"):
            found[one["method"]][one["seed"]] = one["test"]["iou"]
    return Spread.of([found[better][seed] - found[other][seed] for seed in found[better] if seed in found[other]])


def _differences(outcomes: Sequence[Outcome], compared: Sequence[tuple[str, str]]) -> list[str]:
    """Return the table of paired differences."""
    head = ["difference in IoU^c, seed by seed", "labels", "mean ± spread", "seeds", "more than the spread"]
    lines = [_line(head), _line(["---"] * len(head))]
    models = list(dict.fromkeys(one["model"] for one in outcomes))
    for better, other in compared:
        for labelled in sorted({one["labelled"] for one in outcomes}):
            for model in models:
                spread = paired(outcomes, better, other, labelled=labelled, model=model)
                if spread is None:
                    continue
                more = "?" if spread.deviation is None else "yes" if spread.mean > spread.deviation else "no"
                name = f"{better} - {other}" + (f", {model}" if len(models) > 1 else "")
                lines.append(_line([name, _percent(labelled), spread.text(sign=True), str(spread.count), more]))
    return [*lines, ""] if len(lines) > 2 else []


def _failures(outcomes: Sequence[Outcome]) -> list[str]:
    """Return what became of the runs that did not finish."""
    bad = [one for one in outcomes if one["status"] != "finished"]
    lines = [
        f"- {one['method']}, {_percent(one['labelled'])}, seed {one['seed']}: {one['status']}. {one['error']}"
        for one in bad
    ]
    return [*lines, ""] if lines else []


def _text(spread: Spread | None, digits: int = 3) -> str:
    """Return a spread, or a dash."""
    return "-" if spread is None else spread.text(digits)


def _percent(share: float) -> str:
    """Return `5 %`."""
    return f"{100 * share:.4g} %"


def _line(cells: Sequence[str]) -> str:
    """Return a line of a Markdown table."""
    return "| " + " | ".join(cells) + " |"
