"""Image sheets: inputs, targets and predictions of a batch, drawn without changing the training."""

import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tests.support.dataset_files import folder_of_pairs
from torch import Tensor, nn

from semicdvl.config import parse_recipe
from semicdvl.methods.fixmatch import FixMatch
from semicdvl.methods.supervised import Supervised
from semicdvl.training import image_sheets
from semicdvl.training.batches import normalise_images
from semicdvl.training.image_sheets import CLASS_COLORS, PADDING, build_sheet, write_sheet
from semicdvl.training.run import train_recipe
from semicdvl.types import IGNORE, LabelledBatch, Outputs, UnlabelledBatch, VLMTargets

HEIGHT, WIDTH = 24, 40


class Brighter(nn.Module):
    """Changed where date 2 is brighter, the surer the greater the difference; dropout that must not be on."""

    heads = frozenset({"change"})

    def __init__(self) -> None:
        super().__init__()
        self.drop = nn.Dropout(0.5)

    def forward(self, t1_BCHW: Tensor, t2_BCHW: Tensor, *, heads: frozenset[str] | None = None) -> Outputs:
        more_BHW = self.drop(t2_BCHW - t1_BCHW).mean(dim=1)
        return Outputs(torch.stack([-more_BHW, more_BHW], dim=1))


def _images(count: int, value: int) -> Tensor:
    return torch.full((count, 3, HEIGHT, WIDTH), value, dtype=torch.uint8)


def _batches() -> tuple[LabelledBatch, UnlabelledBatch]:
    """Date 2 is much brighter in the left third, a little in the middle, and darker on the right."""
    count, third = 4, WIDTH // 4
    t1, t2 = _images(count, 100), _images(count, 100)
    t2[..., :third], t2[..., third : 2 * third], t2[..., 2 * third :] = 240, 110, 0
    label_BHW = torch.zeros(count, HEIGHT, WIDTH, dtype=torch.long)
    label_BHW[:, 6:12, 5:9] = 1
    vlm_BHW = label_BHW.clone()
    vlm_BHW[:, :3] = IGNORE
    vlm = VLMTargets(vlm_BHW, vlm_BHW, vlm_BHW)
    box_BHW, valid_BHW = torch.zeros(2, count, HEIGHT, WIDTH, dtype=torch.bool)
    box_BHW[0, 8:20, 10:30] = True
    valid_BHW[..., :-4] = True
    views = [normalise_images(image) for image in (t1, t2, t1, t2)]
    views[2][1] = 0  # the strong view of pair 1 differs, so that pasting shows
    labelled = LabelledBatch(
        views[0][:2], views[1][:2], label_BHW[:2], VLMTargets(*(m[:2] for m in vars(vlm).values()))
    )
    return labelled, UnlabelledBatch(*views, valid_BHW, box_BHW, vlm, label_BHW)


def test_a_sheet_shows_inputs_targets_and_predictions() -> None:
    model, (labelled, unlabelled) = Brighter().train(), _batches()
    state = torch.get_rng_state()
    rows = build_sheet(model, model, FixMatch(confidence_min=0.95), labelled=labelled, unlabelled=unlabelled)
    assert torch.equal(state, torch.get_rng_state()) and model.drop.training
    assert [row.name for row in rows] == ["labelled"] * 2 + ["unlabelled"] * 3

    third = WIDTH // 4
    cells = rows[2].cells
    assert cells[image_sheets.WEAK_T2][0, :, 0].tolist() == [240] * third + [110] * third + [0] * (2 * third)
    prediction, pseudo = cells[image_sheets.PREDICTION][0], cells[image_sheets.PSEUDO][0]
    assert set(prediction[: 2 * third]) == {1} and set(prediction[2 * third : -4]) == {0}
    assert (
        set(pseudo[:third]) == {1} and set(pseudo[third : 2 * third]) == {IGNORE} and set(pseudo[2 * third : -4]) == {0}
    )
    for column in (image_sheets.PREDICTION, image_sheets.PSEUDO, image_sheets.VLM, image_sheets.TRUTH):
        assert set(cells[column][0, -4:]) == {PADDING}
    assert set(cells[image_sheets.VLM][0, :-4]) == {IGNORE} and cells[image_sheets.TRUTH][8, 6] == 1
    assert rows[2].note == f"{(3 * third - 4) / (WIDTH - 4):.0%} confident"


def test_a_sheet_uses_the_threshold_of_the_changed_class() -> None:
    model, (labelled, unlabelled) = Brighter(), _batches()
    method = FixMatch(confidence_min=0.95, confidence_min_changed=0.5)
    row = build_sheet(model, model, method, labelled=labelled, unlabelled=unlabelled)[2]
    assert (row.cells[image_sheets.PSEUDO] == row.cells[image_sheets.PREDICTION]).all() and row.note == "100% confident"


def test_the_strong_view_is_shown_as_it_was_pasted() -> None:
    labelled, unlabelled = _batches()
    rows = build_sheet(Brighter(), Brighter(), FixMatch(), labelled=labelled, unlabelled=unlabelled)
    strong = [row.cells[image_sheets.STRONG_T1] for row in rows[2:]]
    assert (strong[0][9, 11] == 100).all() and (strong[0][0, 0] == 100).all()
    assert (strong[1][9, 11] != 100).all()  # pair 1 as it is, without a box
    unlabelled.cutmix_box_BHW[2, 8:20, 10:30] = True  # pair 2 takes from pair 1
    rows = build_sheet(Brighter(), Brighter(), FixMatch(), labelled=labelled, unlabelled=unlabelled)
    pasted = rows[4].cells[image_sheets.STRONG_T1]
    assert (pasted[9, 11] == strong[1][9, 11]).all() and (pasted[0, 0] == 100).all()


def test_a_sheet_has_all_columns_and_the_colours_of_the_legend(tmp_path: Path) -> None:
    labelled, unlabelled = _batches()
    rows = build_sheet(Brighter(), Brighter(), FixMatch(), labelled=labelled, unlabelled=unlabelled)
    write_sheet(tmp_path / "sheets" / "step-000200.png", rows, title="run, step 200")
    with Image.open(tmp_path / "sheets" / "step-000200.png") as picture:
        pixels = np.asarray(picture)
    for colour in (*CLASS_COLORS.values(), image_sheets.CUTMIX_COLOR):
        assert (pixels == colour).all(axis=-1).sum() > 100
    assert (
        pixels.shape[1] > len(image_sheets.COLUMNS) * image_sheets.CELL_PX
        and pixels.shape[0] > 5 * image_sheets.CELL_PX
    )

    few = build_sheet(Brighter(), Brighter(), Supervised(), labelled=labelled, unlabelled=None)
    write_sheet(tmp_path / "few.png", few, title="labels alone")
    with Image.open(tmp_path / "few.png") as picture:
        assert picture.width < pixels.shape[1]  # columns that nothing fills are left out


def test_no_truth_and_no_vlm_leave_their_columns_empty() -> None:
    labelled, unlabelled = _batches()
    bare = UnlabelledBatch(*list(vars(unlabelled).values())[:6])
    rows = build_sheet(Brighter(), Brighter(), FixMatch(), labelled=labelled, unlabelled=bare)
    assert image_sheets.TRUTH not in rows[-1].cells and image_sheets.VLM not in rows[-1].cells
    assert image_sheets.TRUTH in rows[0].cells


def test_drawing_a_sheet_does_not_change_the_training(tmp_path: Path) -> None:
    data = folder_of_pairs(tmp_path / "data", [f"p{number}" for number in range(9)])
    curves = []
    for sheet_every in (0, 2):
        model = {"name": "siam_light", "backbone": "test_resnet", "pretrained": "none", "decoder_channels": 8}
        length = {"steps": 4, "eval_every": 4, "labelled_batch": 2, "unlabelled_batch": 2, "device": "cpu"}
        content = {
            "data": {"root": str(data), "labelled": 0.5, "crop_px": 32},
            "model": model,
            "method": {"name": "fixmatch", "confidence_min": 0.5},
            "train": length | {"sheet_every": sheet_every, "ema": 0.9},
        }
        run = tmp_path / f"run{sheet_every}"
        train_recipe(parse_recipe(content, source="test"), run, quiet=True)
        events = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
        curves.append([event.get("loss") for event in events])
        assert sorted(path.name for path in run.glob("sheets/*")) == (
            ["step-000002.png", "step-000004.png"] if sheet_every else []
        )
    assert curves[0] == curves[1]
