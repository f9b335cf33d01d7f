"""Outcomes of runs -> results.csv (a line per run) and table.md (mean and spread over seeds, paired differences).

Three columns of test scores, by the step whose weights they are of: `val-best` is chosen on validation (the one to
quote), `last` is the last step, `test-best` is picked on the test pairs themselves, as many papers do.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from semicdvl.atomic_files import write_atomically
from semicdvl.benchmarking.significance import PairedTests

SCORE_COLUMNS = ("iou", "f1", "precision", "recall")
SCORE_TITLES = {"iou": "IoU^c", "f1": "F1", "precision": "precision", "recall": "recall"}
SEMANTIC_TITLES = {"semantic_sek": "SeK", "semantic_f_scd": "F_scd", "semantic_miou": "mIoU"}
"""Scores of runs that know classes of each date; on data without classes there are no such columns."""
SELECTED_STEPS = {"test": "val-best", "test_last": "last", "test_best": "test-best"}
"""Key of an outcome's test scores -> which step they are of."""
Outcome = dict[str, Any]
"""What `benchmarking.worker` wrote: place in the suite, status, scores, cost."""


@dataclass(frozen=True)
class Spread:
    """Mean and sample standard deviation of some values; the deviation of one value is unknown (None)."""

    mean: float
    deviation: float | None
    count: int

    @classmethod
    def from_values(cls, values: Sequence[float]) -> Spread | None:
        """Return the spread, None of no value."""
        if not values:
            return None
        return cls(mean(values), stdev(values) if len(values) > 1 else None, len(values))

    def format(self, digits: int = 3, *, sign: bool = False) -> str:
        """Return `0.412 ± 0.013`."""
        number = f"{self.mean:+.{digits}f}" if sign else f"{self.mean:.{digits}f}"
        return number if self.deviation is None else f"{number} ± {self.deviation:.{digits}f}"


@dataclass(frozen=True)
class ResultGroup:
    """All seeds of one method, network and label fraction on one data set."""

    data: str
    method: str
    model: str
    labelled: float
    outcomes: tuple[Outcome, ...]

    def compute_score_spread(self, which: str, score: str) -> Spread | None:
        """Return the spread of a score over the finished seeds; `which` is a key of `SELECTED_STEPS`."""
        return Spread.from_values(
            [one[which][score] for one in self._list_finished() if one.get(which) and one[which].get(score) is not None]
        )

    def compute_cost_spread(self, key: str) -> Spread | None:
        """Return the spread of steps, seconds or memory."""
        return Spread.from_values([one[key] for one in self._list_finished() if one.get(key) is not None])

    def describe_runs(self) -> str:
        """Return in words how many runs finished, and how the others ended."""
        bad = [describe_status(one) for one in self.outcomes if one["status"] != "finished"]
        ended = ", ".join(f"{bad.count(status)} {status}" for status in dict.fromkeys(bad))
        return f"{len(self.outcomes) - len(bad)} of {len(self.outcomes)}" + (f" ({ended})" if ended else "")

    def _list_finished(self) -> list[Outcome]:
        """Return the finished runs."""
        return [one for one in self.outcomes if one["status"] == "finished"]


def describe_status(one: Outcome) -> str:
    """Return the status of a run; of one that diverged also where."""
    return f"diverged at step {one['step']}" if one["status"] == "diverged" and one.get("step") else str(one["status"])


def group_over_seeds(outcomes: Iterable[Outcome]) -> list[ResultGroup]:
    """Group outcomes over seeds, in the order in which they come."""
    groups: dict[tuple[str, str, str, float], list[Outcome]] = {}
    for one in outcomes:
        groups.setdefault((one["data"], one["method"], one["model"], one["labelled"]), []).append(one)
    return [ResultGroup(*key, tuple(group)) for key, group in groups.items()]


# ------------------------------------------------------------------------------------------------ CSV
PLACE_COLUMNS = ("data", "method", "model", "labelled", "seed", "steps")
FORMULA_MARKS = ("=", "+", "-", "@", "\t", "\r")
"""What a spreadsheet takes for the beginning of a formula, also in a cell of a CSV file."""
COST_COLUMNS = ("best_step", "seconds", "peak_mib", "peak_gpu_mib")


def write_csv(path: Path, outcomes: Sequence[Outcome]) -> None:
    """Write one line per run; all scores are of test pairs; the suffix names the step."""
    sides = ("labelled", "unlabelled", "val", "test")
    columns = (*SCORE_COLUMNS, *list_semantic_scores(outcomes))
    scores = [f"{score}_{step.replace('-', '_')}" for step in SELECTED_STEPS.values() for score in columns]
    header = [*PLACE_COLUMNS, "status", *(f"{side}_pairs" for side in sides), *scores, *COST_COLUMNS, "error"]
    with write_atomically(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as handle:
        writer = csv.writer(handle)
        writer.writerow(header)
        for one in outcomes:
            pairs = one.get("pairs", {})
            line = [
                *(_keep_text(one.get(key, "")) for key in PLACE_COLUMNS),
                describe_status(one),
                *(pairs.get(side, "") for side in sides),
            ]
            line += [_format_number((one.get(step) or {}).get(score)) for step in SELECTED_STEPS for score in columns]
            writer.writerow(
                [*line, *(_format_number(one.get(key)) for key in COST_COLUMNS), _keep_text(one.get("error", ""))]
            )


def _keep_text(value: Any) -> Any:
    """Return a text that a spreadsheet shows: a name of a suite that begins as a formula would be computed."""
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA_MARKS) else value


def list_semantic_scores(outcomes: Iterable[Outcome]) -> list[str]:
    """Return the scores of classes that some run has."""
    having = [one.get("test") or {} for one in outcomes]
    return [score for score in SEMANTIC_TITLES if any(score in scores for scores in having)]


def _format_number(value: float | None) -> str:
    """Return a number for a CSV cell; empty where there is none."""
    return "" if value is None else f"{value:.6g}"


# ------------------------------------------------------------------------------------------------ tables
@dataclass(frozen=True)
class TextTable:
    """Headings and lines of text."""

    head: tuple[str, ...]
    lines: tuple[tuple[str, ...], ...]


SCORES_NOTE = (
    "Scores of the changed class on the test pairs, counts pooled over all pixels; mean ± sample standard deviation "
    "over seeds. *val-best*: the step selected on validation, or the last one where the recipe selects none; *last*: "
    "the last step; *test-best*: the step selected on the test pairs themselves, which is optimistic and given only to "
    "compare with papers that do so. A score that is not defined, such as the precision without any detection, counts "
    "as 0. Seconds and memory are per run, evaluation included."
)
DIFFERENCES_NOTE = (
    "Differences are of IoU^c, val-best, within each seed that both methods finished, with a 95 % interval by "
    "Student's t; p (t) is the paired t test, p (signs) the exact sign-permutation test, two-sided and not corrected "
    "for the number of comparisons. The smallest p (signs) possible with so many seeds is given in brackets."
)


def build_score_table(rows: Sequence[ResultGroup]) -> TextTable:
    """Return the table of a data set: a line per method, network and fraction."""
    several = len({row.model for row in rows}) > 1
    watched = any(row.compute_score_spread("test_best", "iou") for row in rows)
    semantic = list_semantic_scores(one for row in rows for one in row.outcomes)
    on_gpu = any(row.compute_cost_spread("peak_gpu_mib") for row in rows)
    head = [
        "method",
        *(["network"] if several else []),
        "labels",
        *(f"{SCORE_TITLES[score]}, val-best" for score in SCORE_COLUMNS),
        *(f"{SEMANTIC_TITLES[score]}, val-best" for score in semantic),
    ]
    head += ["IoU^c, last", *(["IoU^c, test-best"] if watched else []), "steps", "seconds", "memory MiB"]
    head += [*(["GPU memory MiB"] if on_gpu else []), "runs"]
    lines = []
    for row in sorted(rows, key=lambda row: row.labelled):
        line = [row.method, *([row.model] if several else []), format_percent(row.labelled)]
        line += [_format_spread(row.compute_score_spread("test", score)) for score in (*SCORE_COLUMNS, *semantic)] + [
            _format_spread(row.compute_score_spread("test_last", "iou"))
        ]
        line += [_format_spread(row.compute_score_spread("test_best", "iou"))] if watched else []
        line += [_format_spread(row.compute_cost_spread(key), 0) for key in ("steps", "seconds", "peak_mib")]
        line += [_format_spread(row.compute_cost_spread("peak_gpu_mib"), 0)] if on_gpu else []
        lines.append((*line, row.describe_runs()))
    return TextTable(tuple(head), tuple(lines))


def compare_methods(
    outcomes: Sequence[Outcome], better: str, other: str, *, labelled: float, model: str, score: str = "iou"
) -> PairedTests | None:
    """Return the tests of a score of one method minus that of another, over the seeds that both finished.

    A detector that is not trained (no steps) has no share of labels (0): it is compared with methods of any share, and
    one run may count for several seeds.
    """
    found: dict[str, dict[int, float]] = {better: {}, other: {}}
    places = set()
    for one in outcomes:
        here = one["steps"] is None or (one["labelled"], one["model"]) == (labelled, model)
        has_score = one["status"] == "finished" and one["test"].get(score) is not None
        if one["method"] in found and here and has_score:
            found[one["method"]] |= dict.fromkeys(one.get("seeds", [one["seed"]]), one["test"][score])
            places.add((one["labelled"], one["model"]))
    if (labelled, model) not in places:
        return None  # two detectors are compared once, at 0
    return PairedTests.from_differences(
        [found[better][seed] - found[other][seed] for seed in found[better] if seed in found[other]]
    )


def list_difference_tables(outcomes: Sequence[Outcome], compared: Sequence[tuple[str, str]]) -> list[TextTable]:
    """Return the tables of paired differences: in IoU^c, and in SeK where runs know classes."""
    scores = {"iou": "IoU^c"} | {name: SEMANTIC_TITLES[name] for name in list_semantic_scores(outcomes)[:1]}
    tables = [build_difference_table(outcomes, compared, score=score, title=title) for score, title in scores.items()]
    return [table for table in tables if table is not None]


def build_difference_table(
    outcomes: Sequence[Outcome], compared: Sequence[tuple[str, str]], *, score: str = "iou", title: str = "IoU^c"
) -> TextTable | None:
    """Return the table of paired differences of a score; None without one."""
    models = list(dict.fromkeys(one["model"] for one in outcomes))
    lines = []
    for better, other in compared:
        for labelled in sorted({one["labelled"] for one in outcomes}):
            for model in models:
                tests = compare_methods(outcomes, better, other, labelled=labelled, model=model, score=score)
                if tests is None:
                    continue
                name = f"{better} - {other}" + (f", {model}" if len(models) > 1 else "")
                lines.append((name, format_percent(labelled), *_format_tests(tests)))
    head = (
        f"difference in {title}, seed by seed",
        "labels",
        "mean ± spread",
        "95 % interval",
        "seeds",
        "p (t)",
        "p (signs)",
    )
    return TextTable(head, tuple(lines)) if lines else None


def _format_tests(tests: PairedTests) -> tuple[str, ...]:
    """Return the cells of a comparison."""
    spread = Spread(tests.mean, tests.deviation, tests.count).format(sign=True)
    interval = "?" if tests.low is None or tests.high is None else f"{tests.low:+.3f} to {tests.high:+.3f}"
    p_t = "?" if tests.p_t is None else f"{tests.p_t:.3f}"
    return spread, interval, str(tests.count), p_t, f"{tests.p_signs:.3f} ({tests.min_p_signs:.3g})"


def list_failures(outcomes: Sequence[Outcome]) -> list[str]:
    """Return a sentence for each run that did not finish."""
    return [
        f"{one['method']}, {format_percent(one['labelled'])}, seed {one['seed']}: "
        f"{describe_status(one)}. {one['error']}"
        for one in outcomes
        if one["status"] != "finished"
    ]


def _format_spread(spread: Spread | None, digits: int = 3) -> str:
    """Return a spread, or a dash; no deviation where all are alike and whole."""
    if spread is not None and digits == 0 and spread.deviation == 0:
        return f"{spread.mean:.0f}"
    return "-" if spread is None else spread.format(digits)


def format_percent(share: float) -> str:
    """Return `5 %`."""
    return f"{100 * share:.4g} %"


# ------------------------------------------------------------------------------------------------ Markdown
def render_markdown(
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
        differences, bad = list_difference_tables(own, compared), list_failures(own)
        lines += [f"## {data}", "", *_render_markdown_table(build_score_table(group_over_seeds(own))), ""]
        lines += [line for table in differences for line in (*_render_markdown_table(table), "")]
        lines += [*(f"- {one}" for one in bad), ""] if bad else []
    return "\n".join([*lines, SCORES_NOTE, "", DIFFERENCES_NOTE, *notes]) + "\n"


def _render_markdown_table(table: TextTable) -> list[str]:
    """Return the lines of a Markdown table."""
    rows = [table.head, tuple("---" for _ in table.head), *table.lines]
    return ["| " + " | ".join(row) + " |" for row in rows]
