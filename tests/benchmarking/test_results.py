"""Tables from hand-made outcomes: means, sample deviations, paired differences, failures."""

import csv
from itertools import product
from pathlib import Path
from statistics import mean, stdev
from typing import Any
from unittest.mock import MagicMock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from semicdvl.benchmarking.cost_plot import _draw_cost_panel, write_cost_plot
from semicdvl.benchmarking.plot import write_plot
from semicdvl.benchmarking.report import write_report
from semicdvl.benchmarking.results import Spread, compare_methods, group_over_seeds, render_markdown, write_csv
from semicdvl.benchmarking.significance import PairedTests


def outcome(method: str, labelled: float, seed: int, iou: float | None, **other: Any) -> dict[str, Any]:
    """A run; without a score it diverged."""
    place = {"data": "city", "method": method, "model": "m", "labelled": labelled, "seed": seed, "steps": 300}
    if iou is None:
        return place | {"status": "diverged", "error": "the loss is not a number", "step": 7} | other
    scores = {"iou": iou, "f1": 2 * iou / (1 + iou), "precision": 0.5, "recall": 0.25}
    cost = {"seconds": 10.0 + seed, "peak_mib": 500.0, "peak_gpu_mib": None, "best_step": 4}
    pairs = {"labelled": 3, "unlabelled": 5, "val": 2, "test": 7}
    last = scores | {"iou": iou - 0.05}
    return place | {"status": "finished", "error": "", "test": scores, "test_last": last, "pairs": pairs} | cost | other


OUTCOMES = [
    outcome("B", 0.05, 0, 0.30),
    outcome("A", 0.05, 0, 0.20),
    outcome("B", 0.05, 1, 0.36),
    outcome("A", 0.05, 1, 0.24),
    outcome("B", 0.05, 2, 0.42),
    outcome("A", 0.05, 2, None),
    outcome("A", 1.0, 0, 0.50),
    outcome("B", 1.0, 0, 0.45),
]


def test_mean_and_sample_deviation() -> None:
    rows = {(cell.method, cell.labelled): cell for cell in group_over_seeds(OUTCOMES)}
    spread = rows["B", 0.05].compute_score_spread("test", "iou")
    assert spread is not None
    assert (spread.mean, spread.deviation, spread.count) == (pytest.approx(0.36), pytest.approx(0.06), 3)
    last = rows["B", 0.05].compute_score_spread("test_last", "iou")
    assert last is not None and last.mean == pytest.approx(0.31)
    assert rows["A", 0.05].describe_runs() == "2 of 3 (1 diverged at step 7)"
    one = rows["A", 1.0].compute_score_spread("test", "iou")
    assert one is not None and one.deviation is None and one.format() == "0.500"


def test_differences_pair_seeds_that_both_finished() -> None:
    spread = compare_methods(OUTCOMES, "B", "A", labelled=0.05, model="m")
    assert spread is not None
    assert (spread.mean, spread.count) == (pytest.approx(0.11), 2)
    assert spread.deviation == pytest.approx(0.0141421, rel=1e-4)
    assert compare_methods(OUTCOMES, "B", "A", labelled=0.1, model="m") is None


def test_a_detector_counts_for_every_share_of_labels_and_a_run_without_labels_for_its_own() -> None:
    detector = [outcome("VLM", 0.0, seed, 0.10, steps=None) for seed in (0, 1)]
    spread = compare_methods([*OUTCOMES, *detector], "B", "VLM", labelled=0.05, model="m")
    assert spread is not None and (spread.mean, spread.count) == (pytest.approx(0.23), 2)
    trained = [outcome("B", 0.0, seed, 0.90) for seed in (0, 1)]
    spread = compare_methods([*OUTCOMES, *trained], "B", "A", labelled=0.05, model="m")
    assert spread is not None and spread.mean == pytest.approx(0.11)


def test_the_page_says_it_all() -> None:
    page = render_markdown(OUTCOMES, title="small", compared=[("B", "A")])
    assert (
        "| B | 5 % | 0.360 ± 0.060 | 0.527 ± 0.065 | 0.500 ± 0.000 | 0.250 ± 0.000 | 0.310 ± 0.060 | 300 | 11 ± 1 |"
        in page
    )
    assert "| B - A | 5 % | +0.110 ± 0.014 | -0.017 to +0.237 | 2 | 0.058 | 0.500 (0.5) |" in page
    assert "| B - A | 100 % | -0.050 | ? | 1 | ? | 1.000 (1) |" in page
    assert "- A, 5 %, seed 2: diverged at step 7. the loss is not a number" in page
    assert "IoU^c, val-best | F1, val-best" in page and "IoU^c, last |" in page and "IoU^c, test-best |" not in page
    picked = outcome("B", 1.0, 0, 0.4, test_best={"iou": 0.9, "f1": 0.95, "precision": 1.0, "recall": 1.0, "step": 2})
    parity = render_markdown([*OUTCOMES[:-1], picked], title="small", compared=[])
    assert "| IoU^c, last | IoU^c, test-best |" in parity
    assert "| B | 100 % | 0.400 | 0.571 | 0.500 | 0.250 | 0.350 | 0.900 |" in parity


def test_the_csv_has_a_line_per_run(tmp_path: Path) -> None:
    write_csv(tmp_path / "results.csv", OUTCOMES)
    with (tmp_path / "results.csv").open(encoding="utf-8") as handle:
        rows = list(csv.DictReader(handle))
    assert [row["status"] for row in rows].count("diverged at step 7") == 1
    assert (rows[0]["iou_val_best"], rows[0]["iou_last"], rows[0]["test_pairs"]) == ("0.3", "0.25", "7")
    assert rows[0]["iou_test_best"] == "" and rows[0]["steps"] == "300"
    assert rows[5]["iou_val_best"] == "" and "not a number" in rows[5]["error"]


def test_a_name_that_begins_as_a_formula_is_a_text_in_a_spreadsheet(tmp_path: Path) -> None:
    write_csv(
        tmp_path / "results.csv", [outcome('=HYPERLINK("http://x")', 0.1, 0, -0.25), outcome("@SUM(A1)", 0.1, 0, 0.5)]
    )
    with (tmp_path / "results.csv").open(encoding="utf-8") as handle:
        rows = list(csv.DictReader(handle))
    assert [row["method"] for row in rows] == ['\'=HYPERLINK("http://x")', "'@SUM(A1)"]
    assert rows[0]["iou_val_best"] == "-0.25", "numbers stay numbers"


def test_the_page_stands_alone(tmp_path: Path) -> None:
    svg = write_plot(tmp_path, OUTCOMES, title="small")[0]
    path = tmp_path / "report.html"
    write_report(path, OUTCOMES, title="<small>", compared=[("B", "A")], plot=svg, notes=["Left out: C."])
    page = path.read_text(encoding="utf-8")
    assert "<svg" in page and "&lt;small&gt;" in page and "Left out: C." in page and "<?xml" not in page
    assert page.count("diverged at step 7") == 3  # the cell, the note, the line of the run
    assert "0.360 ± 0.060" in page and "+0.110 ± 0.014" in page and "7 of 8 runs finished" in page
    assert page.count("<tr") == 3 + (1 + 4) + (1 + 2) + (1 + 8) - 3
    write_report(path, [OUTCOMES[5]], title="none", compared=[], plot=None)
    assert "0 of 1 runs finished" in path.read_text(encoding="utf-8")


# ------------------------------------------------------------------------------------------------ significance
def test_paired_tests_by_hand() -> None:
    """scipy's own paired t test, and the eight choices of three signs."""
    from scipy.stats import ttest_rel

    first, second = [0.30, 0.36, 0.42], [0.20, 0.33, 0.35]
    tests = PairedTests.from_differences([a - b for a, b in zip(first, second, strict=True)])
    expected = ttest_rel(first, second)
    assert tests is not None and tests.p_t == pytest.approx(expected.pvalue)
    assert (tests.low, tests.high) == pytest.approx(expected.confidence_interval(0.95))
    assert tests.p_signs == tests.min_p_signs == 0.25
    mixed = PairedTests.from_differences([3.0, -1.0, 0.5])
    assert mixed is not None and mixed.p_signs == 0.75  # of four sums 4.5, 3.5, 2.5 and 1.5, and as many below 0
    alike = PairedTests.from_differences([0.1, 0.1, 0.1, 0.1, 0.1])
    assert alike is not None and alike.p_t is None and alike.p_signs == 0.0625
    one = PairedTests.from_differences([0.2])
    assert one is not None and (one.p_t, one.low, one.p_signs) == (None, None, 1.0)
    assert PairedTests.from_differences([]) is None


differences_of_scores = st.lists(st.integers(-1000, 1000).map(lambda value: value / 1000), min_size=2, max_size=7)


@given(differences_of_scores)
def test_tests_agree_with_their_definitions(differences: list[float]) -> None:
    """Every choice of signs counted one by one, and Student's t from mean and deviation."""
    from scipy.stats import t as student

    tests = PairedTests.from_differences(differences)
    assert tests is not None
    sums = [
        sum(a * b for a, b in zip(signs, differences, strict=True))
        for signs in product((-1, 1), repeat=len(differences))
    ]
    observed = abs(sum(differences)) - 1e-9
    assert tests.p_signs == pytest.approx(sum(abs(one) >= observed for one in sums) / len(sums), abs=1e-12)
    deviation = stdev(differences)
    if deviation == 0:
        assert tests.p_t is None and tests.low == tests.high == mean(differences)
        return
    error, freedom = deviation / len(differences) ** 0.5, len(differences) - 1
    assert tests.p_t == pytest.approx(2 * student.sf(abs(mean(differences)) / error, freedom), abs=1e-9)
    reach = student.ppf(0.975, freedom) * error
    assert (tests.low, tests.high) == pytest.approx((mean(differences) - reach, mean(differences) + reach), abs=1e-9)


@given(st.lists(st.floats(-1, 1), min_size=2, max_size=7))
def test_p_does_not_depend_on_which_method_comes_first(differences: list[float]) -> None:
    one, other = (PairedTests.from_differences(values) for values in (differences, [-value for value in differences]))
    assert one is not None and other is not None
    assert one.p_signs == other.p_signs and one.min_p_signs - 1e-12 <= one.p_signs <= 1


def test_many_seeds_are_drawn_and_come_near_the_exact_answer() -> None:
    differences = [0.02 * (-1) ** at + 0.01 for at in range(18)]
    drawn, exact = PairedTests.from_differences(differences), PairedTests.from_differences(differences[:16])
    assert drawn is not None and exact is not None
    assert drawn.p_signs == pytest.approx(exact.p_signs, abs=0.06)


def test_a_title_is_no_formula(tmp_path: Path) -> None:
    """Between dollars matplotlib reads formulas, and what is none was a traceback."""
    plain = write_plot(tmp_path, OUTCOMES, title="from 3 $ to 5 $ \\frac{")[0].read_text(encoding="utf-8")
    assert write_cost_plot(tmp_path, OUTCOMES, title="$\\frac{$") is not None
    assert "from 3 $ to 5 $ \\frac{" in plain


def test_the_plot_has_a_line_per_method(tmp_path: Path) -> None:
    svg, png = write_plot(tmp_path, OUTCOMES, title="small")
    text = svg.read_text(encoding="utf-8")
    assert all(f"<!-- {word} -->" in text for word in ("small", "city", "A", "B", "5 %", "100 %"))
    assert png.read_bytes().startswith(b"\x89PNG")
    assert write_plot(tmp_path / "none", [OUTCOMES[5]], title="small") == ()


def test_one_share_of_labels_makes_a_list_of_methods(tmp_path: Path) -> None:
    svg, _ = write_plot(tmp_path, [outcome(f"M{at}", 0.05, 0, 0.1 + at / 50) for at in range(20)], title="zoo")
    text = svg.read_text(encoding="utf-8")
    assert all(f"<!-- M{at} -->" in text for at in range(20)) and "val-best; 5 % labels" in text


def test_costs_are_drawn_for_each_method_and_share(tmp_path: Path) -> None:
    axes = MagicMock()
    _draw_cost_panel(axes, group_over_seeds(OUTCOMES), "seconds", "seconds")
    drawn = [(*call.args, call.kwargs["xerr"], call.kwargs["label"]) for call in axes.errorbar.call_args_list]
    assert drawn == [  # mean seconds, line, spread; the run that diverged counts nowhere
        (11.0, 0, 1.0, "5 %"),
        (10.5, 1, pytest.approx(0.5**0.5), "_"),
        (10.0, 0, 0.0, "100 %"),
        (10.0, 1, 0.0, "_"),
    ]
    costs = write_cost_plot(tmp_path, OUTCOMES, title="small")
    assert costs == tmp_path / "costs.svg"
    text = costs.read_text(encoding="utf-8")
    words = (
        "city",
        "A",
        "B",
        "5 %",
        "100 %",
        "seconds per run, evaluation included",
        "peak memory of the process, MiB",
    )
    assert all(f"<!-- {word} -->" in text for word in words)
    on_gpu = [one | {"peak_gpu_mib": 700.0} for one in OUTCOMES]
    assert "peak memory of the GPU, MiB" in write_cost_plot(tmp_path, on_gpu, title="gpu").read_text(encoding="utf-8")
    assert write_cost_plot(tmp_path, [OUTCOMES[5]], title="none") is None
    write_report(tmp_path / "report.html", OUTCOMES, title="small", compared=[], plot=costs, costs=costs)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "Time and memory of each method" in page and page.count("<svg") == 2


def test_a_run_without_labels_is_not_called_untrained() -> None:
    """A VLM teaches methods without any label, too: beside detectors they share the colour of no labels."""
    axes = MagicMock()
    rows = group_over_seeds([outcome("B", 0.0, 0, 0.5), outcome("VLM", 0.0, 0, 0.1, steps=None)])
    _draw_cost_panel(axes, rows, "seconds", "seconds")
    assert [call.kwargs["label"] for call in axes.errorbar.call_args_list] == ["none", "_"]


@given(st.lists(st.floats(0, 1), min_size=2, max_size=6), st.floats(-1, 1))
def test_spread_follows_a_shift(values: list[float], shift: float) -> None:
    one, moved = Spread.from_values(values), Spread.from_values([value + shift for value in values])
    assert one is not None and moved is not None and one.deviation is not None and moved.deviation is not None
    assert moved.mean == pytest.approx(one.mean + shift, abs=1e-9)
    assert moved.deviation == pytest.approx(one.deviation, abs=1e-9)
    assert one.deviation >= 0


def test_runs_with_classes_have_columns_of_semantic_change(tmp_path: Path) -> None:
    def add_classes(one: dict[str, Any], sek: float) -> dict[str, Any]:
        semantic = {"semantic_sek": sek, "semantic_f_scd": 0.75, "semantic_miou": 0.5}
        return one | {"test": one["test"] | semantic}

    known = [add_classes(one, 0.1 if one["method"] == "A" else 0.3) for one in OUTCOMES if one["status"] == "finished"]
    text = render_markdown(known, title="t", compared=[("B", "A")])
    assert "| SeK, val-best | F_scd, val-best | mIoU, val-best |" in text
    assert "0.100 ± 0.000 | 0.750 ± 0.000" in text
    assert "difference in SeK, seed by seed" in text and "| B - A | 5 % | +0.200 ± 0.000 |" in text
    write_csv(tmp_path / "results.csv", known)
    with (tmp_path / "results.csv").open(encoding="utf-8") as handle:
        rows = list(csv.DictReader(handle))
    assert {row["semantic_sek_val_best"] for row in rows} == {"0.1", "0.3"}
    assert {row["semantic_sek_last"] for row in rows} == {""}, "the last step was not scored by classes here"
    assert "SeK" not in render_markdown(OUTCOMES, title="t", compared=[("B", "A")])
