"""A training with classes of each date: its heads, its scores by hand, and recipes and data that don't fit."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tests.support.dataset_files import save
from tests.support.tiny_training import GREEN, RED, ColourVLM, build_tiny_recipe
from torch import nn

from semicdvl.ceg.config import CEGSettings
from semicdvl.ceg.prompts import build_class_prompts
from semicdvl.checkpoint import load_network
from semicdvl.config import Recipe, parse_recipe
from semicdvl.data.readers.folder import read_folder
from semicdvl.detection.detectors.network import build_network_detector
from semicdvl.errors import ConfigError, DataError
from semicdvl.metrics.pair_sets import RunScores
from semicdvl.pseudo_labels.generate import generate_labels
from semicdvl.training.batches import normalise_images
from semicdvl.training.distributed import ProcessGroup
from semicdvl.training.evaluate import evaluate_network, evaluate_run
from semicdvl.training.parts import ShuffledLabels, build_method, make_split, open_label_source, teach_classes
from semicdvl.training.run import train_recipe
from semicdvl.types import Outputs

NAMES = ("house", "grass", "water")


@pytest.fixture(scope="module")
def classified(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pairs of the tests of training with classes: red is house, the rest grass; water is nowhere."""
    root = tmp_path_factory.mktemp("classes") / "data"
    shutil.copytree(data, root)
    for path in [*root.glob("A/*.png"), *root.glob("B/*.png")]:
        red_HW = np.asarray(Image.open(path))[..., 0] > 140
        save(root / f"label_{path.parent.name}" / path.name, np.where(red_HW, 0, 1).astype(np.uint8))
    (root / "classes.toml").write_text('names = ["house", "grass", "water"]\n')
    return root


def _recipe(root: Path, names: tuple[str, ...] = NAMES, **changes: object) -> Recipe:
    plain = build_tiny_recipe(root, None, method__name="supervised", **changes).model_dump(mode="json")
    return parse_recipe({**plain, "classes": {"names": list(names)}}, source="test")


def test_a_run_learns_classes_and_is_scored_by_them(classified: Path, tmp_path: Path) -> None:
    recipe = _recipe(classified, train__steps=40, train__lr=0.05, train__eval_every=40)
    train_recipe(recipe, tmp_path / "run", quiet=True)
    network = load_network(tmp_path / "run", train_heads=True)
    image_BCHW = torch.zeros(1, 3, 64, 64)
    out = network(image_BCHW, image_BCHW, heads=frozenset({"change", "segmentation"}))
    assert out.t1_BKHW.shape[1] == 3 and out.change_BKHW.shape[1] == 2
    scores = evaluate_run(tmp_path / "run", read_folder(classified), subset="all")
    assert isinstance(scores, RunScores) and scores.classes is not None and scores.classes.names == NAMES
    assert {"semantic_sek", "semantic_miou", "semantic_f_scd", "iou_before_grass", "iou_after_house"} <= set(scores)
    true_KK = scores.classes.counts.true_transitions_KK
    assert true_KK[1, 0] == true_KK.sum() > 0, "in the labels all change is from grass to house"


class _Oracle(nn.Module):
    """Finds the upper half changed, from class 0 to class 1; below classes 2 and 2, but for a column with 2 and 0."""

    def forward(self, t1_BCHW: torch.Tensor, t2_BCHW: torch.Tensor, *, heads: frozenset[str]) -> Outputs:
        def to_logits(map_HW: torch.Tensor, classes: int) -> torch.Tensor:
            return nn.functional.one_hot(map_HW, classes).permute(2, 0, 1)[None].float()

        change_HW = torch.tensor([[1, 1], [0, 0]])
        t1_HW, t2_HW = torch.tensor([[0, 0], [2, 2]]), torch.tensor([[1, 0], [2, 0]])
        return Outputs(to_logits(change_HW, 2), t1_BKHW=to_logits(t1_HW, 3), t2_BKHW=to_logits(t2_HW, 3))


def test_scores_counted_by_hand(tmp_path: Path) -> None:
    for folder, array in {
        "A": np.zeros((2, 2, 3)),
        "B": np.zeros((2, 2, 3)),
        "label": np.array([[255, 255], [0, 0]]),
        "label_A": np.array([[0, 0], [2, 2]]),
        "label_B": np.array([[1, 1], [2, 2]]),
    }.items():
        save(tmp_path / folder / "x.png", array.astype(np.uint8))
    (tmp_path / "classes.toml").write_text('names = ["house", "grass", "water"]\n')
    processes = ProcessGroup(0, 1, torch.device("cpu"))
    found = evaluate_network(_Oracle(), read_folder(tmp_path).pairs, processes=processes, classes=NAMES).classes
    assert found is not None
    scores = found.compute_scores()
    assert scores["semantic_miou"] == 1 and scores["semantic_f_scd"] == pytest.approx(3 / 4)
    assert scores["iou_before_house"] == 1 and scores["iou_after_grass"] == pytest.approx(1 / 2)
    assert scores["right_transitions_frac"] == 1 / 2 and scores["object_right_transitions_frac"] == 0
    assert scores["changed_same_class_frac"] == 1 / 2 and scores["unchanged_other_class_frac"] == 1 / 2
    assert found.counts.transitions_KK.tolist() == [[1, 1, 0], [0, 0, 0], [0, 0, 0]]
    with pytest.raises(DataError, match=r"has the classes house, grass, water, but the run knows house, grass\."):
        evaluate_network(_Oracle(), read_folder(tmp_path).pairs, processes=processes, classes=NAMES[:2])


def test_the_weight_is_1_where_labels_teach_the_classes(classified: Path) -> None:
    recipe = _recipe(classified)
    assert recipe.model.options["segmentation_classes"] == 3
    method = teach_classes(recipe, build_method(recipe), make_split(recipe.data))
    assert method.semantic_weight == 1 and "segmentation" in method.heads
    given = _recipe(classified, method__semantic_weight=0.3)
    assert teach_classes(given, build_method(given), make_split(given.data)).semantic_weight == 0.3


def test_recipes_and_data_that_do_not_fit_are_refused(classified: Path, data: Path) -> None:
    def teach(recipe: Recipe) -> None:
        teach_classes(recipe, build_method(recipe), make_split(recipe.data))

    with pytest.raises(ConfigError, match=r"the class name 'house' occurs twice"):
        _recipe(classified, ("house", "house"))
    with pytest.raises(ConfigError, match=r"segmentation_classes = 4, but 3 classes are named"):
        _recipe(classified, model__segmentation_classes=4)
    with pytest.raises(ConfigError, match=r"names the classes grass, house, water, but the labels of 'p\d+' have"):
        teach(_recipe(classified, ("grass", "house", "water")))
    with pytest.raises(DataError, match="no labelled pair has a label of either date"):
        teach(_recipe(data))
    with pytest.raises(ConfigError, match="but the recipe names no classes"):
        teach(build_tiny_recipe(classified, None, method__name="supervised", method__semantic_weight=1.0))
    with pytest.raises(ConfigError, match="method 'mean_teacher' cannot learn"):
        plain = _recipe(classified).model_dump(mode="json") | {"method": {"name": "mean_teacher"}}
        teach(parse_recipe(plain, source="test"))


# ------------------------------------------------------------------------------------------------ classes of a VLM
GAMMA = CEGSettings(gamma=0.5, gamma_segmentation=0.5)
PROMPTS = {"house": ["house"], "grass": ["grass"]}


@pytest.fixture(scope="module")
def class_store(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The VLM's labels of the pairs, of the three classes; it is not asked for water."""
    root = tmp_path_factory.mktemp("pseudo") / "store"
    asked = {"vlm": ColourVLM(), "prompts": build_class_prompts(NAMES, PROMPTS), "settings": GAMMA}
    list(generate_labels(read_folder(data).pairs, **asked, root=root))
    return root


def _guided(root: Path, store: Path, classes: dict[str, object] | None, **changes: object) -> Recipe:
    plain = build_tiny_recipe(root, store, **changes).model_dump(mode="json")
    return parse_recipe(plain if classes is None else plain | {"classes": classes}, source="test")


def _open(recipe: Recipe) -> object:
    split = make_split(recipe.data)
    return open_label_source(recipe, teach_classes(recipe, build_method(recipe), split), split)


def test_a_vlm_teaches_classes_that_no_label_has(data: Path, class_store: Path, tmp_path: Path) -> None:
    changes = {"train__steps": 30, "train__lr": 0.05, "train__eval_every": 30, "method__lambda_vl": 1.0}
    recipe = _guided(data, class_store, {"names": list(NAMES), "prompts": PROMPTS}, **changes)
    train_recipe(recipe, tmp_path / "run", quiet=True)
    network = load_network(tmp_path / "run", train_heads=True)
    green_HWC, red_HWC = (np.full((64, 64, 3), colour, np.uint8) for colour in (GREEN, RED))
    t1_BCHW, t2_BCHW = (normalise_images(torch.from_numpy(one).permute(2, 0, 1)[None]) for one in (green_HWC, red_HWC))
    out = network(t1_BCHW, t2_BCHW, heads=frozenset({"change", "segmentation"}))
    assert out.t1_BKHW.shape[1] == 3
    assert (out.t1_BKHW[:, 1] > out.t1_BKHW[:, 2]).all(), "grass, rather than water, of which the VLM says nothing"


def test_stores_that_do_not_fit_the_recipe_are_refused(data: Path, store: Path, class_store: Path) -> None:
    named = {"names": list(NAMES)}
    with pytest.raises(ConfigError, match=r"foreground and background, and the recipe names 3 classes\. Make them"):
        _open(_guided(data, store, named))
    with pytest.raises(ConfigError, match=r'names none\. Add \[classes\] names = \["house", "grass", "water"\]'):
        _open(_guided(data, class_store, None))
    with pytest.raises(ConfigError, match="labels are of the classes house, grass, water, but the recipe names house"):
        _open(_guided(data, class_store, {"names": ["house", "water"]}))
    with pytest.raises(ConfigError, match="was made with other prompts"):
        _open(_guided(data, class_store, named | {"prompts": {"house": ["roof"], "grass": ["grass"]}}))
    assert _open(_guided(data, class_store, named | {"prompts": PROMPTS})) is not None
    with pytest.raises(DataError, match="no labelled pair has a label of either date"):
        _open(_guided(data, class_store, named, method__decoupled=False))
    with pytest.raises(ConfigError, match=r"prompts names 'hose', which is no class\. Did you mean 'house'\?"):
        _guided(data, class_store, named | {"prompts": {"hose": ["roof"]}})


def test_validation_and_the_record_have_the_scores_of_classes(classified: Path, tmp_path: Path) -> None:
    trained = train_recipe(_recipe(classified, train__steps=2, train__eval_every=2), tmp_path / "run", quiet=True)
    assert {"semantic_sek", "semantic_f_scd", "semantic_miou"} < set(trained.val)
    assert {"semantic_sek", "iou_before_house", "right_transitions_frac"} < set(trained.test)
    again = train_recipe(_recipe(classified, train__steps=2, train__eval_every=2), tmp_path / "run", quiet=True)
    assert again.test.keys() == trained.test.keys(), "read from the record"


def test_shuffled_labels_are_those_of_another_pair(data: Path, class_store: Path) -> None:
    plain = _guided(data, class_store, {"names": list(NAMES)}).model_dump(mode="json")
    plain["pseudo"]["shuffled"] = True
    source, again = (_open(parse_recipe(plain, source="test")) for _ in range(2))
    assert isinstance(source, ShuffledLabels) and source.other == again.other
    split = make_split(parse_recipe(plain, source="test").data)
    pairs = split.labelled + split.unlabelled
    others = [source.other[pair.before, pair.after, pair.window_px] for pair in pairs]
    assert {pair.name for pair in others} == {pair.name for pair in pairs}, "each is given away once"
    assert all(pair != other for pair, other in zip(pairs, others, strict=True))
    read = source.read_labels(pairs[0])
    assert (read.t2_HW == source.source.read_labels(others[0]).t2_HW).all()


def test_classes_are_learnt_without_any_label(data: Path, class_store: Path, tmp_path: Path) -> None:
    changes = {"data__labelled": 0.0, "method__dual_head": False, "train__steps": 2, "train__eval_every": 2}
    recipe = _guided(data, class_store, {"names": list(NAMES), "prompts": PROMPTS}, **changes)
    train_recipe(recipe, tmp_path / "run", quiet=True)
    found = build_network_detector(tmp_path / "run", device="cpu")
    assert found.map_count == 7 and found.tells_transitions
