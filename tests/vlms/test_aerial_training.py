"""What the embedded model is trained on: label ids, our own outlines, the loss's weights and bags, drawn scenes."""

import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from tests.support.paths import ROOT


@pytest.fixture(scope="module")
def tools() -> Iterator[SimpleNamespace]:
    sys.path.insert(0, str(ROOT / "tools"))
    try:
        import aerial_clutter
        import aerial_data
        import aerial_loss
        import aerial_roofs
        import aerial_words

        yield SimpleNamespace(
            clutter=aerial_clutter, data=aerial_data, loss=aerial_loss, roofs=aerial_roofs, words=aerial_words
        )
    finally:
        sys.path.remove(str(ROOT / "tools"))


def test_every_label_allows_a_concept_and_open_scenes_no_building(tools: SimpleNamespace) -> None:
    words = tools.words
    allowed = words.allowed_matrix()
    assert allowed.shape == (words.LABEL_COUNT, len(words.CONCEPTS)) and allowed.any(1).all()
    building = words.CONCEPT_NAMES.index("building")
    assert not allowed[words.FIRST_OPEN :, building].any()
    dense = words.SCENE_NAMES.index("denseresidential")
    assert allowed[words.FIRST_SCENE + dense].sum() - allowed[words.FIRST_OPEN + dense].sum() == 1
    assert words.LABEL_COUNT < words.UNLABELLED


def test_own_outlines_become_label_ids_and_unknown_stays_unlabelled(tools: SimpleNamespace, tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), np.array([[0, 1, 2, 3], [4, 5, 6, 7], [255, 1, 1, 255]], np.uint8))
    label = tools.data.read_own_label(tmp_path / "a.png")
    names = tools.words.CONCEPT_NAMES
    assert label[0, 1] == names.index("building") and label[0, 3] == names.index("tree")
    assert label[1, 0] == names.index("water") and label[1, 1] == names.index("tank")
    assert label[1, 3] == names.index("court") and label[2].tolist() == [255, 0, 0, 255]
    allowed = tools.words.allowed_matrix()
    assert [names[k] for k in allowed[label[0, 2]].nonzero()[:, 0]] == ["road", "car"]
    assert not allowed[label[0, 0], names.index("building")]


def test_second_half_of_banepa_is_held_out(tools: SimpleNamespace) -> None:
    names = [f"OAM-{row}-{col}-19" for row in range(386690, 386696) for col in range(220241, 220249)]
    held_out = [tools.data.is_own_held_out(name) for name in sorted(names)]
    assert held_out == [False] * 24 + [True] * 24
    scenes = [tools.data.is_own_held_out(f"buildings{number:02d}") for number in range(100)]
    assert 5 <= sum(scenes) <= 25


def test_rims_of_drawn_buildings_weigh_twice(tools: SimpleNamespace) -> None:
    names, kinds = tools.words.CONCEPT_NAMES, tools.data.KIND_NAMES
    label_BHW = torch.full((2, 12, 12), names.index("grass"))
    label_BHW[:, :, 6:] = names.index("building")
    label_BHW[:, 0] = tools.words.UNLABELLED
    losses = tools.loss.Losses(SimpleNamespace())
    kind_B = torch.tensor([kinds.index("settlement"), kinds.index("dubai")])
    weight_BHW = losses._weigh_pixels(label_BHW, kind_B)
    assert weight_BHW[0, 6].tolist() == [1.0] * 4 + [2.0] * 4 + [1.0] * 4
    assert weight_BHW[1, 6].tolist() == [1.0] * 4 + [0.5] * 4 + [1.0] * 4


def test_bag_asks_for_the_certain_share_of_a_scene(tools: SimpleNamespace) -> None:
    words = tools.words
    scene_BHW = torch.full((1, 10, 10), words.FIRST_SCENE + words.SCENE_NAMES.index("forest"))
    p = torch.full((1, len(words.CONCEPTS), 10, 10), 1e-6)
    tree = words.CONCEPT_NAMES.index("tree")
    p[0, tree, :5] = 0.8  # half of the forest, as much as the bag asks for
    assert tools.loss.bag_term(p.log(), scene_BHW).item() == pytest.approx(-np.log(0.8), abs=1e-3)
    p[0, tree, :3] = 1e-6
    assert tools.loss.bag_term(p.log(), scene_BHW).item() == pytest.approx(-np.log(0.8 * 20 / 50), abs=1e-3)
    nowhere = torch.full_like(scene_BHW, words.UNLABELLED)
    assert tools.loss.bag_term(p.log(), nowhere).item() == 0.0


def test_drawn_buildings_are_where_the_mask_says(tools: SimpleNamespace) -> None:
    rng = np.random.default_rng(4)
    canvas = np.full((512, 512, 3), (60, 110, 50), np.uint8)
    light = tools.roofs.Light((0.0, 1.0), 0.0, 0.5)  # no length: no shadows
    mask = tools.roofs.draw_buildings(canvas, light, 0.3, rng)
    changed = np.abs(canvas.astype(int) - (60, 110, 50)).max(-1) > 3
    assert mask.max() == 255 and (mask > 127).mean() > 0.01
    assert not changed[mask == 0].any() and changed[mask == 255].mean() > 0.98


def test_clutter_never_allows_a_building(tools: SimpleNamespace) -> None:
    words = tools.words
    building = words.CONCEPT_NAMES.index("building")
    light = tools.roofs.Light((1.0, 0.0), 5.0, 0.5)
    seen: set[int] = set()
    for seed in range(12):
        canvas = np.full((256, 256, 3), 120, np.uint8)
        label = np.full((256, 256), words.CONCEPT_NAMES.index("grass"), np.uint8)
        tools.clutter.draw_clutter(canvas, label, light, 0.2, np.random.default_rng(seed), most=6)
        drawn, changed = label != words.CONCEPT_NAMES.index("grass"), (canvas != 120).any(-1)
        assert (drawn & changed).sum() >= 0.9 * drawn.sum()
        seen |= set(np.unique(label).tolist())
    assert len(seen) >= 5
    assert not words.allowed_matrix()[sorted(seen), building].any()
