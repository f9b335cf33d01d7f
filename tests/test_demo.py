"""The demonstration end to end, at a size that only shows that the parts fit."""

import json
from pathlib import Path

from rich.console import Console

from semicdvl.demo import DemoConfig, run_demonstration

TINY = DemoConfig(height_px=256, width_px=768, patch_px=128, labelled=0.4, steps=2, batch=2)


def test_the_whole_pipeline(tmp_path: Path) -> None:
    with (tmp_path / "printed.txt").open("w") as printed:
        rows = run_demonstration(tmp_path / "demo", console=Console(file=printed, width=160), config=TINY)
    assert [row.title for row in rows] == ["No labels (VLM + CEG)", "Sup-only", "SemiCD-VL"]
    pixels = {row.counts.tp + row.counts.fp + row.counts.fn + row.counts.tn for row in rows}
    assert pixels == {256 * 384}  # the held-out part, and nothing else
    assert json.loads((tmp_path / "demo" / "table.json").read_text())[0]["tp"] == rows[0].counts.tp
    page = (tmp_path / "demo" / "report.html").read_text()
    assert page.count("data:image/jpeg") >= 5 and "SemiCD-VL" in page
    assert (tmp_path / "demo" / "semicd-vl" / "changes.gpkg").exists()
    text = (tmp_path / "printed.txt").read_text()
    assert "report.html" in text and "On the held-out part" in text
    assert f"semicdvl serve {tmp_path}/demo/no-labels\n" in text and f"{tmp_path}/demo/no-labels --label" in text
    records = [
        json.loads((tmp_path / "demo" / "runs" / name / "run.json").read_text()) for name in ("supervised", "semicd_vl")
    ]
    assert records[0]["split"]["sha256"] == records[1]["split"]["sha256"]  # the same labelled patches
    assert records[0]["split"]["leaking_pairs"] == 0
