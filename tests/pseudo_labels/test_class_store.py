"""Stores whose single-date labels are of several classes: by hand, equal to two classes, and readable as before."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.support.dataset_files import save

import semicdvl as cd
from semicdvl.ceg import rules
from semicdvl.ceg.config import CEGLevel, CEGSettings
from semicdvl.ceg.labels import make_labels
from semicdvl.ceg.prompts import ClassPrompts, Prompts, build_class_prompts
from semicdvl.errors import ConfigError, StoreError
from semicdvl.pseudo_labels.generate import build_store_spec, find_pair_events, generate_labels, make_pair_labels
from semicdvl.pseudo_labels.label_png import encode_labels, read_label_png
from semicdvl.pseudo_labels.quality import read_answered_pair
from semicdvl.pseudo_labels.report import write_store_report
from semicdvl.pseudo_labels.store import PseudoLabelStore
from semicdvl.types import IGNORE, Instance, PairFiles, Segments, VLMLabels

RED, GREEN, BLUE, WHITE = (250, 0, 0), (0, 250, 0), (0, 0, 250), (250, 250, 250)
NAMES = ("grass", "building", "water")
CLASSES = build_class_prompts(NAMES, {"grass": ["meadow"], "building": ["house", "roof"], "water": ["lake"]})


class Bands:
    """A VLM for tests: red is house, green meadow, blue lake; it never finds a roof."""

    identity, gamma = "bands-1", 0.8

    def segment(self, image_HWC: np.ndarray, prompts: Sequence[str], *, gsd_m: float | None = None) -> Segments:
        bands = {"house": 0, "meadow": 1, "lake": 2}
        scores = [image_HWC[..., bands[word]] if word in bands else 0 * image_HWC[..., 0] for word in prompts]
        return Segments(np.stack(scores).astype(np.float32) / 255, tuple(prompts))


@pytest.fixture
def pair(tmp_path: Path) -> PairFiles:
    """Grass; a house becomes grass, grass becomes a lake, and a corner shows nothing that a prompt names."""
    before, after = np.full((2, 24, 30, 3), GREEN, np.uint8)
    before[2:9, 3:10], after[14:20, 15:25] = RED, BLUE
    before[20:, :6] = (90, 90, 90)
    for folder, image in (("A", before), ("B", after)):
        save(tmp_path / "data" / folder / "one.png", image)
    return PairFiles("one", tmp_path / "data/A/one.png", tmp_path / "data/B/one.png")


def _fill(pair: PairFiles, root: Path, prompts: Prompts | ClassPrompts, **settings: object) -> PseudoLabelStore:
    list(generate_labels([pair], vlm=Bands(), prompts=prompts, settings=CEGSettings(**settings), root=root))
    return PseudoLabelStore.open(root)


def test_labels_by_hand(tmp_path: Path, pair: PairFiles) -> None:
    store = _fill(pair, tmp_path / "store", CLASSES)
    assert store.spec.classes == CLASSES and store.spec.class_count == 3
    labels = store.read_labels(pair)
    t1_HW, t2_HW, change_HW = np.zeros((3, 24, 30), np.uint8)
    t1_HW[2:9, 3:10], t1_HW[20:, :6], t2_HW[14:20, 15:25] = 1, IGNORE, 2
    change_HW[2:9, 3:10], change_HW[14:20, 15:25], change_HW[20:, :6] = 1, 1, IGNORE
    assert (labels.t1_HW == t1_HW).all() and (labels.t2_HW == t2_HW).all() and (labels.change_HW == change_HW).all()
    assert not store.verify()
    again = read_answered_pair(pair, store, settings=CEGSettings()).make_labels(store.spec, CEGSettings())
    assert all((own_HW == vars(labels)[name]).all() for name, own_HW in vars(again).items())


def test_only_changing_classes_count_as_change(tmp_path: Path, pair: PairFiles) -> None:
    wet = ClassPrompts(CLASSES.names, CLASSES.words, ("water",))
    labels = _fill(pair, tmp_path / "store", wet).read_labels(pair)
    assert (labels.change_HW == 1).sum() == 60 and (labels.change_HW[14:20, 15:25] == 1).all()
    assert (labels.t1_HW[2:9, 3:10] == 1).all(), "the classes stay"


@pytest.mark.parametrize("level", ["pixel", "instance", "mixed", "residual"])
@pytest.mark.parametrize("instances", [False, True])
def test_background_and_foreground_are_the_two_classes_of_the_paper_to_the_bit(
    level: CEGLevel, instances: bool
) -> None:
    rng = np.random.default_rng(0)
    paper = Prompts(("house", "building"), ("road", "grass", "tree", "water"))
    two = build_class_prompts(("background", "building"), {"building": paper.find, "background": paper.background})
    assert two.prompts == paper and two.changing == ("building",)
    settings = CEGSettings(level=level, gamma=0.7, gamma_segmentation=0.6)
    spec = build_store_spec(Bands(), prompts=two, settings=settings)
    for _ in range(5):
        coarse = [np.kron(rng.integers(0, 5, (6, 5, 7)), np.ones((1, 6, 6))) / 4 for _ in range(2)]  # with many ties
        found = [Instance(coarse[at][0] > 0.5, 0, 0.9) for at in (0, 1)]
        t1, t2 = (
            Segments(scores.astype(np.float32), paper.words, (one,) if instances else None)
            for scores, one in zip(coarse, found, strict=True)
        )
        events = find_pair_events(t1, t2, spec=spec, settings=settings, features=None)
        own = make_pair_labels(events, t1, t2, spec=spec, settings=settings)
        known = make_labels(t1, t2, prompts=paper, settings=settings)
        assert all((own_HW == vars(known)[name]).all() for name, own_HW in vars(own).items())


def test_stores_of_two_classes_are_written_as_before(tmp_path: Path, pair: PairFiles) -> None:
    store = _fill(pair, tmp_path / "store", Prompts(("house",), ("meadow", "lake")))
    assert "classes" not in json.loads((tmp_path / "store/manifest.json").read_text())
    assert store.spec.classes is None and "classes" not in store.spec.to_plain_dict()
    with Image.open(next((tmp_path / "store/labels").glob("*/*.png"))) as picture:
        assert picture.mode == "P"


def test_a_store_keeps_answers_when_classes_are_added(tmp_path: Path, pair: PairFiles) -> None:
    root = tmp_path / "store"
    _fill(pair, root, CLASSES.prompts)
    answers = sorted(path.name for path in root.glob("answers/*/*"))
    _fill(pair, root, CLASSES)
    assert sorted(path.name for path in root.glob("answers/*/*")) == answers
    assert len(list(root.glob("labels/*/*.json"))) == 2, "labels of other classes have other keys"


def test_every_class_index_survives_the_file(tmp_path: Path) -> None:
    t1_HW = np.arange(256, dtype=np.uint8).reshape(8, 32)
    labels = VLMLabels(np.where(t1_HW > 200, IGNORE, t1_HW % 2).astype(np.uint8), t1_HW, np.flipud(t1_HW))
    path = tmp_path / "labels.png"
    path.write_bytes(encode_labels(labels))
    found = read_label_png(path)
    assert found is not None
    assert all((own_HW == vars(labels)[name]).all() for name, own_HW in vars(found).items())


def test_a_class_beyond_those_of_the_store_is_a_damaged_file(tmp_path: Path, pair: PairFiles) -> None:
    store = _fill(pair, tmp_path / "store", CLASSES)
    path = next((tmp_path / "store/labels").glob("*/*.png"))
    wrong = store.read_labels(pair)
    path.write_bytes(
        encode_labels(VLMLabels(wrong.change_HW, wrong.t1_HW + np.uint8(2) * (wrong.t1_HW == 1), wrong.t2_HW))
    )
    assert any("not a picture of 0 to 2 and 255" in line for line in store.verify())


def test_a_manifest_whose_prompts_are_not_those_of_its_classes_is_refused(tmp_path: Path, pair: PairFiles) -> None:
    _fill(pair, tmp_path / "store", CLASSES)
    path = tmp_path / "store/manifest.json"
    manifest = json.loads(path.read_text())
    for changes in ({"prompts": {"find": ["lake"], "background": ["meadow"]}}, {"classes": {"names": [], "words": []}}):
        path.write_text(json.dumps(manifest | changes))
        with pytest.raises(StoreError, match="Make the store anew"):
            PseudoLabelStore.open(tmp_path / "store")


def test_the_first_class_wins_a_tie() -> None:
    scores_CHW = np.full((2, 3, 4), 0.5, np.float32)
    assert (rules.segment_classes(scores_CHW, classes=[(3, [1]), (1, [0])], gamma=0.5) == 3).all()


def test_from_python_and_the_report(tmp_path: Path, pair: PairFiles) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(
        '[classes]\nnames = ["grass", "building", "water"]\nchanging = ["building"]\n'
        '[classes.prompts]\ngrass = ["meadow"]\nbuilding = ["house", "roof"]\nwater = ["lake"]\n'
    )
    cd.pseudo_label(tmp_path / "data", tmp_path / "store", vlm=Bands(), classes=recipe, progress=False)
    store = PseudoLabelStore.open(tmp_path / "store")
    assert store.spec.classes is not None and store.spec.classes.changing == ("building",)
    text = write_store_report(tmp_path / "store", [pair], settings=CEGSettings(), quiet=True).read_text()
    assert "Classes: grass, building, water; change is that of building." in text
    by_name = {"grass": ["meadow"], "building": ["house"], "water": ["lake"]}
    cd.pseudo_label(tmp_path / "data", tmp_path / "other", vlm=Bands(), classes=by_name, progress=False)
    assert (PseudoLabelStore.open(tmp_path / "other").read_labels(pair).t2_HW == 2).sum() == 60


@pytest.mark.parametrize(
    ("names", "prompts", "changing", "message"),
    [
        (("a", "a"), {"a": ["x"]}, None, "the class name 'a' occurs twice"),
        (("house", "water"), {"house": ["x"], "watre": ["y"]}, None, "prompts for 'watre', which is no class. Did you"),
        (("a", "b"), {"a": ["x"]}, None, "fewer than two classes have prompts"),
        (("a", "b"), {"a": ["x"], "b": ["x"]}, None, "the prompt 'x' is of both 'a' and 'b'"),
        (("a", "b"), {"a": ["x", "x"], "b": ["y"]}, None, "prompts given twice: x"),
        (("a", "b", "c"), {"a": ["x"], "b": ["y"]}, ("c",), "'c' is `changing` and has no prompts"),
        (("a", "b"), {"a": ["x"], "b": ["y"]}, ("z",), "`changing` names 'z', which is no class"),
        (("background", "other"), {"background": ["x"], "other": ["y"]}, None, "no class is named whose change counts"),
    ],
)
def test_classes_that_cannot_be_told_apart_are_refused(
    names: tuple[str, ...], prompts: dict[str, list[str]], changing: tuple[str, ...] | None, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        build_class_prompts(names, prompts, changing)


def test_a_recipe_without_prompts_makes_no_labels(tmp_path: Path, pair: PairFiles) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text('[classes]\nnames = ["grass", "water"]\n')
    with pytest.raises(ConfigError, match="names no classes with prompts"):
        cd.pseudo_label(tmp_path / "data", tmp_path / "store", vlm=Bands(), classes=recipe, progress=False)
    assert not (tmp_path / "store").exists()
