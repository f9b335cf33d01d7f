"""The store's page and the numbers on it, and the command's options that lead there."""

import re
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from semicdvl.__main__ import main
from semicdvl.ceg.config import CEGSettings
from semicdvl.ceg.prompts import resolve_prompts
from semicdvl.data.readers import folder
from semicdvl.errors import StoreError
from semicdvl.pseudo_labels.generate import generate_labels
from semicdvl.pseudo_labels.quality import fill_store, measure_quality, select_evenly
from semicdvl.pseudo_labels.report import write_store_report
from semicdvl.pseudo_labels.store import PseudoLabelStore
from semicdvl.pseudo_labels.workers import WorkerSettings
from semicdvl.types import PairFiles
from semicdvl.vlms.models.fake import build_fake

SETTINGS = CEGSettings(gamma=0.5, gamma_segmentation=0.5)
GRASS, ROOF, PALE_ROOF = (110, 170, 80), (220, 220, 220), (205, 195, 200)
SHAPE = (34, 45)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Three pairs on grass: a new house, a new house that the VLM is less sure of, and nothing new."""
    root = tmp_path / "data"
    for number, roof in enumerate((ROOF, PALE_ROOF, None)):
        for date in ("A", "B"):
            image = np.full((*SHAPE, 3), GRASS, np.uint8)
            if roof is not None and date == "B":
                image[5:17, 8:22] = roof
            _write(root / date / f"p{number}.png", image[..., ::-1])
        label = np.zeros(SHAPE, np.uint8)
        if roof is not None:
            label[5:17, 8:22] = 255
        _write(root / "label" / f"p{number}.png", label)
    return root


def _write(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), image)


def _filled(data: Path, root: Path, settings: CEGSettings = SETTINGS) -> tuple[PairFiles, ...]:
    pairs = folder.read_folder(data).pairs
    list(generate_labels(pairs, vlm=build_fake(), prompts=resolve_prompts(), settings=settings, root=root))
    return pairs


def test_quality_is_counted_over_valid_and_over_all_pixels(tmp_path: Path, data: Path) -> None:
    pairs = _filled(data, tmp_path / "store")
    store = PseudoLabelStore.open(tmp_path / "store")
    seen: list[str] = []
    rows = measure_quality(
        pairs, store, settings=SETTINGS, gammas=(0.5, 0.9), on_pair=lambda kept: seen.append(kept.pair.name)
    )
    assert [row.gamma for row in rows] == [0.5, 0.9] and seen == ["p0", "p1", "p2"]
    house, whole = 12 * 14, SHAPE[0] * SHAPE[1]
    low, high = rows
    assert (low.reliable_frac, low.valid.tp, low.total.fn) == (1.0, 2 * house, 0)  # the pale roof scores 0.5 to 0.9
    assert high.reliable_frac == pytest.approx(1 - house / (3 * whole))
    assert (high.valid.tp, high.valid.fn, high.valid.total) == (house, 0, 3 * whole - house)
    assert (high.total.tp, high.total.fn, high.total.total) == (house, house, 3 * whole)
    assert high.changed_frac == pytest.approx(house / (3 * whole))
    assert [pair.name for pair in select_evenly(pairs, 2)] == ["p0", "p2"] and select_evenly([], 4) == []


def test_fractions_are_of_the_pixels_where_images_differ_in_size(tmp_path: Path, data: Path) -> None:
    """A new house fills all of a small fourth pair, which then counts as little as it is."""
    for date, colour in (("A", GRASS), ("B", ROOF)):
        _write(data / date / "p3.png", np.full((6, 10, 3), colour, np.uint8)[..., ::-1])
    _write(data / "label" / "p3.png", np.full((6, 10), 255, np.uint8))
    pairs, store, whole = folder.read_folder(data).pairs, tmp_path / "store", 3 * SHAPE[0] * SHAPE[1] + 60
    asked = {"vlm": build_fake(), "prompts": resolve_prompts(), "settings": SETTINGS, "root": store}
    filled = fill_store(pairs, workers=WorkerSettings(build_fake, quiet=True), **asked)
    (row,) = (row for row in filled.quality if row.gamma == SETTINGS.gamma)
    assert row.changed_frac == pytest.approx((2 * 12 * 14 + 60) / whole)
    assert f"{row.changed_frac:.2%} are labelled as changed" in filled.summary


def test_the_page_says_of_which_pairs_its_fractions_are(tmp_path: Path, data: Path) -> None:
    for name in ("p1", "p2"):
        (data / "label" / f"{name}.png").unlink()
    pairs = _filled(data, tmp_path / "store")
    html = write_store_report(tmp_path / "store", pairs, settings=SETTINGS).read_text()
    assert "<b>3</b>" in html and "of the pixels of 1 measured pair have a label" in html


def test_ground_without_label_does_not_count(tmp_path: Path, data: Path) -> None:
    label = np.zeros(SHAPE, np.uint8)
    label[5:17, 8:22], label[20:] = 255, 128  # as `semicdvl prepare` writes a patch that is labelled in part
    _write(data / "label" / "p0.png", label)
    pairs = _filled(data, tmp_path / "store")
    (row,) = measure_quality(
        pairs[:1], PseudoLabelStore.open(tmp_path / "store"), settings=SETTINGS, gammas=(SETTINGS.gamma,)
    )
    assert (row.total.tp, row.total.total) == (12 * 14, 20 * SHAPE[1])
    assert (
        "comparison with the true label" in write_store_report(tmp_path / "store", pairs, settings=SETTINGS).read_text()
    )


def test_the_page_shows_pairs_numbers_and_transitions_and_loads_nothing(tmp_path: Path, data: Path) -> None:
    pairs = _filled(data, tmp_path / "store")
    html = write_store_report(tmp_path / "store", pairs, settings=SETTINGS).read_text()
    assert html.count("data:image/") == 3 * 6  # per pair: two dates, the label, two answers, the truth
    assert "gamma 0.5 (in force)" in html and "IoU (total)" in html and html.count("<svg") == 1
    assert "grass → house" in html and "comparison with the true label" in html
    assert not re.search(r"(src|href)=\"(?!data:|#)", html) and "http" not in html.split("</style>")[1]
    assert PseudoLabelStore.open(tmp_path / "store").verify() == []


def test_without_truth_and_without_change_the_page_says_so(tmp_path: Path, data: Path) -> None:
    for label in (data / "label").iterdir():
        label.unlink()
    (data / "label").rmdir()
    pairs = _filled(data, tmp_path / "store")[2:]
    html = write_store_report(tmp_path / "store", pairs, settings=SETTINGS).read_text()
    assert (
        "IoU" not in html.split("</style>")[1]
        and "No object changed." in html
        and "No pixel is labelled as changed" in html
    )
    with pytest.raises(StoreError, match="no pseudo-label store here"):
        write_store_report(tmp_path / "none", pairs, settings=SETTINGS)
    for answer in (tmp_path / "store").glob("answers/*/*.npz"):
        answer.unlink()
    with pytest.raises(StoreError, match="holds no answer for the pair 'p2'"):
        write_store_report(tmp_path / "store", pairs, settings=SETTINGS)


def _run(monkeypatch: pytest.MonkeyPatch, *words: str | Path) -> int:
    monkeypatch.setattr(sys, "argv", ["semicdvl", *map(str, words)])
    with pytest.raises(SystemExit) as stop:
        main()
    return int(stop.value.code or 0)


def test_the_command_writes_store_and_page_and_takes_the_options(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    store = tmp_path / "store"
    assert _run(monkeypatch, "pseudo", data, "-o", store, "--vlm", "fake", "--report") == 0
    assert (store / "report.html").is_file() and "report: " in capsys.readouterr().out
    labels = len(list(store.glob("labels/*/*.json")))
    options = ("--shift-px", "2", "--replaced-iou", "0.3", "--replaced-class")
    assert _run(monkeypatch, "pseudo", data, "-o", store, "--vlm", "fake", *options) == 0
    assert "shift_px 2, replaced_iou 0.3, replaced_class True" in capsys.readouterr().out
    assert len(list(store.glob("labels/*/*.json"))) == 2 * labels  # other settings, other labels
    assert _run(monkeypatch, "pseudo", data, "-o", store, "--verify") == 0
    next(store.glob("labels/*/*.png")).write_bytes(b"")
    assert _run(monkeypatch, "pseudo", data, "-o", store, "--verify") == 2
    assert "1 damaged file" in capsys.readouterr().err
    assert _run(monkeypatch, "pseudo", data, "-o", store, "--vlm", "fake", "--min-cosine", "0.5") == 2
    assert "--features" in capsys.readouterr().err


def test_detect_takes_the_options_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before, after = tmp_path / "before.png", tmp_path / "after.png"
    for path, cols in ((before, slice(5, 15)), (after, slice(18, 28))):  # a house, and one 4 steps beside it
        image = np.full((64, 72, 3), GRASS, np.uint8)
        image[20:32, cols] = ROOF
        cv2.imwrite(str(path), image[..., ::-1])
    for shift_px, found in ((0, "2 changed objects"), (4, "0 changed objects")):
        out = tmp_path / f"out{shift_px}"
        options = ("--level", "instance", "--shift-px", str(shift_px))
        assert _run(monkeypatch, "detect", before, after, "-o", out, "--vlm", "fake", *options) == 0
        assert found in capsys.readouterr().out
    assert "shift_px" in (tmp_path / "out4" / "run.json").read_text()
