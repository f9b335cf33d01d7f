"""Tables from hand-made outcomes: means, sample deviations, paired differences, failures."""

import csv
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from semicdvl.suite.plot import write_plot
from semicdvl.suite.results import Spread, cells, markdown, paired, write_csv


def outcome(method: str, labelled: float, seed: int, iou: float | None, **other: Any) -> dict[str, Any]:
    """A run; without a score it diverged."""
    place = {"data": "city", "method": method, "model": "m", "labelled": labelled, "seed": seed, "select": "val"}
    if iou is None:
        return place | {"status": "diverged", "error": "the loss is not a number at step 7"} | other
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
    rows = {(cell.method, cell.labelled): cell for cell in cells(OUTCOMES)}
    spread = rows["B", 0.05].spread("test", "iou")
    assert spread is not None
    assert (spread.mean, spread.deviation, spread.count) == (pytest.approx(0.36), pytest.approx(0.06), 3)
    last = rows["B", 0.05].spread("test_last", "iou")
    assert last is not None and last.mean == pytest.approx(0.31)
    assert rows["A", 0.05].runs() == "2 of 3 (1 diverged)"
    one = rows["A", 1.0].spread("test", "iou")
    assert one is not None and one.deviation is None and one.text() == "0.500"


def test_differences_pair_seeds_that_both_finished() -> None:
    spread = paired(OUTCOMES, "B", "A", labelled=0.05, model="m")
    assert spread is not None
    assert (spread.mean, spread.count) == (pytest.approx(0.11), 2)
    assert spread.deviation == pytest.approx(0.0141421, rel=1e-4)
    assert paired(OUTCOMES, "B", "A", labelled=0.1, model="m") is None


def test_the_page_says_it_all() -> None:
    page = markdown(OUTCOMES, title="small", compared=[("B", "A")])
    assert (
        "| B | 5 % | 0.360 ± 0.060 | 0.527 ± 0.065 | 0.500 ± 0.000 | 0.250 ± 0.000 | 0.310 ± 0.060 | 11 ± 1 |" in page
    )
    assert "| B - A | 5 % | +0.110 ± 0.014 | 2 | yes |" in page
    assert "| B - A | 100 % | -0.050 | 1 | ? |" in page
    assert "- A, 5 %, seed 2: diverged. the loss is not a number at step 7" in page
    assert "chosen on test" not in page
    parity = markdown([*OUTCOMES, outcome("B", 1.0, 0, 0.9, select="test")], title="small", compared=[])
    assert "chosen on test" in parity
    assert "| B | 100 % | 0.450 |" in parity, "what test selected does not enter the other columns"


def test_the_csv_has_a_line_per_run(tmp_path: Path) -> None:
    write_csv(tmp_path / "results.csv", OUTCOMES)
    with (tmp_path / "results.csv").open(encoding="utf-8") as handle:
        rows = list(csv.DictReader(handle))
    assert [row["status"] for row in rows].count("diverged") == 1
    assert (rows[0]["iou_best"], rows[0]["iou_last"], rows[0]["test_pairs"]) == ("0.3", "0.25", "7")
    assert rows[5]["iou_best"] == "" and "not a number" in rows[5]["error"]


def test_the_plot_has_a_line_per_method(tmp_path: Path) -> None:
    svg, png = write_plot(tmp_path, OUTCOMES, title="small")
    text = svg.read_text(encoding="utf-8")
    assert all(f"<!-- {word} -->" in text for word in ("small", "city", "A", "B", "5 %", "100 %"))
    assert png.read_bytes().startswith(b"\x89PNG")
    assert write_plot(tmp_path / "none", [OUTCOMES[5]], title="small") == ()


@given(st.lists(st.floats(0, 1), min_size=2, max_size=6), st.floats(-1, 1))
def test_spread_follows_a_shift(values: list[float], shift: float) -> None:
    one, moved = Spread.of(values), Spread.of([value + shift for value in values])
    assert one is not None and moved is not None and one.deviation is not None and moved.deviation is not None
    assert moved.mean == pytest.approx(one.mean + shift, abs=1e-9)
    assert moved.deviation == pytest.approx(one.deviation, abs=1e-9)
    assert one.deviation >= 0
