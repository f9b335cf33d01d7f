"""Colours of classes, and maps drawn over images."""

import numpy as np

from semicdvl.reports import colours


def test_overlay_colours_objects_and_hatches_no_data():
    image = np.full((20, 30, 3), 100, np.uint8)
    labels = np.zeros((20, 30), np.int32)
    labels[5:10, 5:10], labels[12:15, 20:25] = 1, 2
    painted = colours.draw_overlay(image, labels, [(255, 0, 0), (0, 0, 255)])
    assert painted[7, 7, 0] > painted[7, 7, 2] + 100 and painted[13, 22, 2] > painted[13, 22, 0] + 100
    assert len(set(painted[0, 0].tolist())) == 1
    valid = np.ones((20, 30), bool)
    valid[:, 15:] = False
    shown = colours.hatch_no_data(painted, valid)
    assert (shown[:, :15] == painted[:, :15]).all() and len(np.unique(shown[:, 15:])) == 2


def test_outline_runs_around_the_mask():
    mask = np.zeros((40, 40), bool)
    mask[10:30, 10:30] = True
    drawn = colours.draw_outline(np.full((40, 40, 3), 90, np.uint8), mask, side_px=400)
    assert drawn.shape == (400, 400, 3)
    assert (
        (drawn[100, 200] == colours.OUTLINE_COLOUR).all()
        and (drawn[200, 200] == 90).all()
        and (drawn[20, 20] == 90).all()
    )


def test_class_colours_differ():
    names = ["building", "road", "tree", "water", "solar panel", "crane", "tent"]
    assert len(set(colours.choose_class_colours(names))) == len(names)
    classes = np.array([[0, 3, 255]], np.uint8)
    assert (
        colours.apply_palette(classes, colours.choose_class_colours(names))[0, 1]
        == colours.COMMON_CLASS_COLOURS["water"]
    ).all()


def test_outcomes_have_the_colours_of_the_legend():
    found, truth = np.zeros((2, 20, 30), bool)
    found[2:8, 2:20], truth[2:8, 10:28] = True, True
    drawn = colours.draw_outcomes(np.full((20, 30, 3), 100, np.uint8), found, truth)
    seen = {
        name: drawn[5, col].astype(int)
        for name, col in (("falsely detected", 5), ("correctly detected", 15), ("missed", 25))
    }
    for name, colour in colours.OUTCOME_COLOURS.items():
        nearest = min(
            colours.OUTCOME_COLOURS, key=lambda other: np.abs(seen[name] - colours.OUTCOME_COLOURS[other]).sum()
        )
        assert nearest == name and np.abs(seen[name] - colour).max() < 45
    assert len(set(drawn[15, 5].tolist())) == 1, "the rest is grey"
