"""Scores of a run: the VLM that guides a training is scored alone, beside the network."""

from dataclasses import replace
from pathlib import Path

from tests.support.tiny_training import HOUSE_PROMPTS, ColourVLM, build_tiny_recipe

from semicdvl.ceg.labels import make_labels
from semicdvl.data.pairs import read_pair
from semicdvl.data.readers import folder
from semicdvl.metrics.change import ConfusionCounts
from semicdvl.pseudo_labels.generate import CEGSettings, generate_labels
from semicdvl.pseudo_labels.store import PseudoLabelStore
from semicdvl.training.run import train_recipe
from semicdvl.training.validation import score_vlm_alone
from semicdvl.types import Segments


def test_the_vlm_alone_is_scored_from_its_stored_answers(data: Path, store: Path) -> None:
    pairs, words, counts = folder.read_folder(data).pairs[:5], HOUSE_PROMPTS, ConfusionCounts()
    for pair in pairs:
        read = read_pair(pair)
        dates = (ColourVLM().segment(image_HWC, words.words) for image_HWC in (read.t1_HWC, read.t2_HWC))
        change_HW = make_labels(*dates, prompts=words, settings=CEGSettings(level="instance")).change_HW
        assert read.label_HW is not None
        counts += ConfusionCounts.from_maps(change_HW, read.label_HW)
    found = score_vlm_alone(PseudoLabelStore.open(store), pairs, quiet=True)
    assert found is not None and found["iou"] == counts.iou and counts.iou > 0.5


def test_a_vlm_without_answers_or_pairs_has_no_scores(data: Path, tmp_path: Path) -> None:
    pairs, words = folder.read_folder(data).pairs, HOUSE_PROMPTS
    list(generate_labels(pairs[:2], vlm=ColourVLM(), prompts=words, settings=CEGSettings(), root=tmp_path / "store"))
    store = PseudoLabelStore.open(tmp_path / "store")
    assert score_vlm_alone(store, pairs[:2], quiet=True) is not None
    assert score_vlm_alone(store, pairs[:3], quiet=True) is None
    assert score_vlm_alone(store, (), quiet=True) is None


class Halves(ColourVLM):
    """A VLM that gives instances of every second image: enough for the pixel level, and for no other."""

    def __init__(self) -> None:
        self.calls = 0

    def segment(self, image_HWC, prompts, *, gsd_m=None) -> Segments:
        self.calls += 1
        found = super().segment(image_HWC, prompts)
        return replace(found, instances=()) if self.calls % 2 else found


def test_a_vlm_without_instances_has_no_scores(data: Path, tmp_path: Path) -> None:
    pairs, words, settings = (
        folder.read_folder(data).pairs[:2],
        HOUSE_PROMPTS,
        CEGSettings(level="pixel"),
    )
    list(generate_labels(pairs, vlm=Halves(), prompts=words, settings=settings, root=tmp_path / "store"))
    assert score_vlm_alone(PseudoLabelStore.open(tmp_path / "store"), pairs, quiet=True) is None


def test_a_network_worse_than_the_vlm_alone_gives_advice(data: Path, store: Path, tmp_path: Path) -> None:
    recipe = build_tiny_recipe(data, store, train__steps=1)
    result = train_recipe(recipe, tmp_path / "run", quiet=True)
    assert result.vlm_scores is not None and result.vlm_scores["iou"] > 0.5 > result.val["iou"]
    assert result.list_score_columns()["VLM alone (validation)"] == result.vlm_scores
    assert "try `semicdvl detect` without --model" in (result.give_advice() or "")
    again = train_recipe(recipe, tmp_path / "run", quiet=True)
    assert again.vlm_scores == result.vlm_scores, "a finished run has it in its record"
    assert replace(result, val={"iou": 1.0}).give_advice() is None and replace(result, val={}).give_advice() is None
    supervised = build_tiny_recipe(data, None, method__name="supervised", train__steps=1)
    alone = train_recipe(supervised, tmp_path / "alone", quiet=True)
    assert alone.vlm_scores is None and alone.give_advice() is None
    assert list(alone.list_score_columns()) == ["validation (selected)", "test"]
