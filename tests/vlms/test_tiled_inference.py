"""Large images in tiles: scores as if seen whole, cut objects made whole, whatever the VLM."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as rle

from semicdvl.errors import ConfigError
from semicdvl.types import VLM, Instance, Segments
from semicdvl.vlms.instance_stitching import decode_mask, encode_mask
from semicdvl.vlms.models.fake import FakeVLM
from semicdvl.vlms.tiled_inference import TiledVLM, segment_in_tiles

WORDS = ("building", "tree", "water")
RED, GREEN = (190, 80, 60), (40, 90, 40)


@dataclass(frozen=True)
class Components:
    """A pixel-wise VLM with instances: one per 8-connected component of a colour."""

    identity: str = "components"
    gamma: float = 0.5
    as_rle: bool = False

    def segment(self, image_HWC: np.ndarray, prompts: Sequence[str], *, gsd_m: float | None = None) -> Segments:
        scores_CHW = FakeVLM().segment(image_HWC, prompts).scores_CHW
        found = []
        for prompt, scores_HW in enumerate(scores_CHW):
            count, labels_HW = cv2.connectedComponents((scores_HW > 0.99).astype(np.uint8), connectivity=8)
            for number in range(1, count):
                mask_HW = labels_HW == number
                mask = rle.encode(np.asfortranarray(mask_HW, np.uint8)) if self.as_rle else mask_HW
                found.append(Instance(mask, prompt, 0.5 + mask_HW.mean() / 2))
        return Segments(scores_CHW, tuple(prompts), tuple(found))


def scene(height: int = 150, width: int = 210, boxes: Sequence[tuple[int, int, int, int]] = ()) -> np.ndarray:
    """Green noise with red boxes (row, column, row to, column to)."""
    noise = np.random.default_rng(7).integers(0, 5, (height, width, 3))
    image = (np.array((110, 170, 80)) + noise).astype(np.uint8)
    for top, left, bottom, right in boxes:
        image[top:bottom, left:right] = RED
    return image


def as_set(segments: Segments) -> set[tuple[int, bytes]]:
    assert segments.instances is not None
    return {(one.prompt, decode_mask(one.mask).tobytes()) for one in segments.instances}


def test_scores_are_those_of_the_whole_image() -> None:
    image = scene(boxes=[(20, 30, 70, 90), (100, 150, 149, 209)])
    vlm = TiledVLM(FakeVLM(), tile_px=64, overlap_px=16)
    assert isinstance(vlm, VLM) and vlm.identity != FakeVLM().identity
    whole, tiled = FakeVLM().segment(image, WORDS), vlm.segment(image, WORDS)
    np.testing.assert_allclose(tiled.scores_CHW, whole.scores_CHW, atol=1e-6)
    assert tiled.scores_CHW.dtype == np.float32 and tiled.instances is None and tiled.prompts == WORDS


def test_a_narrow_image_is_not_cut_at_every_pixel() -> None:
    """960 tiles of 129 px were made of 64 x 1088 px, each 1 px further than the last."""
    asked = []

    def segment_tiles(tiles: Sequence[np.ndarray]) -> list[Segments]:
        asked.extend(tile.shape for tile in tiles)
        return [FakeVLM().segment(tile, WORDS) for tile in tiles]

    image = scene(height=64, width=1088, boxes=[(10, 200, 40, 420)])
    found = segment_in_tiles(image, WORDS, segment_tiles, tile_px=1024, overlap_px=128)
    assert asked == [(64, 248, 3)] * 8
    np.testing.assert_allclose(found.scores_CHW, FakeVLM().segment(image, WORDS).scores_CHW, atol=1e-6)


@pytest.mark.parametrize("as_rle", [False, True])
def test_an_object_on_four_tiles_is_one(as_rle: bool) -> None:
    # tiles of 64 px with 16 px overlap: the long box meets many, the square sits on a corner of four
    image = scene(boxes=[(40, 40, 62, 70), (5, 3, 12, 205), (100, 100, 101, 101)])
    vlm = Components(as_rle=as_rle)
    tiled = TiledVLM(vlm, tile_px=64, overlap_px=16).segment(image, WORDS)
    assert as_set(tiled) == as_set(vlm.segment(image, WORDS))
    assert tiled.instances is not None and len(tiled.instances) == 3
    assert all(one.mask["size"] == [150, 210] for one in tiled.instances)


def test_neighbours_and_other_words_stay_apart() -> None:
    image = scene(boxes=[(40, 40, 62, 50), (40, 52, 62, 70)])
    image[40:62, 72:90] = GREEN
    tiled = TiledVLM(Components(), tile_px=64, overlap_px=16).segment(image, WORDS)
    assert as_set(tiled) == as_set(Components().segment(image, WORDS)) and len(as_set(tiled)) == 3


def test_a_joined_object_has_the_best_score_of_its_finds() -> None:
    def segment_tiles(tiles: Sequence[np.ndarray]) -> list[Segments]:
        full = np.ones(tiles[0].shape[:2], bool)
        return [
            Segments(np.zeros((1, *full.shape), np.float32), ("a",), (Instance(full, 0, float(tile[0, 0, 0]) / 100),))
            for tile in tiles
        ]

    image = np.zeros((40, 100, 3), np.uint8)
    image[:, 40:] = 90
    answer = segment_in_tiles(image, ("a",), segment_tiles, tile_px=60, overlap_px=10, batch=2)
    assert answer.instances is not None
    assert [one.score for one in answer.instances] == [0.9] and decode_mask(answer.instances[0].mask).all()


def test_a_sliver_joins_the_object_that_holds_it() -> None:
    """The left tile sees two columns of an object, and badly; the right one sees it whole."""

    def segment_tiles(tiles: Sequence[np.ndarray]) -> list[Segments]:
        answers = []
        for number, tile in enumerate(tiles):
            mask = np.zeros(tile.shape[:2], bool)
            mask[10:13, -2:] = number == 0
            mask[5:25, 8:30] = number == 1
            maps = np.zeros((1, *mask.shape), np.float32)
            answers.append(Segments(maps, ("a",), (Instance(mask, 0, 0.4 + number / 10),)))
        return answers

    image = np.zeros((40, 70, 3), np.uint8)
    found = segment_in_tiles(image, ("a",), segment_tiles, tile_px=40, overlap_px=10, batch=2).instances
    assert found is not None and len(found) == 1 and found[0].score == 0.5
    assert decode_mask(found[0].mask).sum() == 20 * 22


def test_tiles_go_in_batches_and_small_images_as_they_are() -> None:
    sizes: list[list[tuple[int, ...]]] = []

    def segment_tiles(tiles: Sequence[np.ndarray]) -> list[Segments]:
        sizes.append([tile.shape[:2] for tile in tiles])
        return [Segments(np.full((1, *tile.shape[:2]), 0.25, np.float32), ("a",)) for tile in tiles]

    answer = segment_in_tiles(scene(90, 130), ("a",), segment_tiles, tile_px=64, overlap_px=8, batch=4)
    assert [len(group) for group in sizes] == [4, 2] and len({size for group in sizes for size in group}) == 1
    assert np.allclose(answer.scores_CHW, 0.25)
    sizes.clear()
    segment_in_tiles(scene(40, 64), ("a",), segment_tiles, tile_px=64, overlap_px=8)
    assert sizes == [[(40, 64)]]
    sizes.clear()
    segment_in_tiles(
        scene(30, 200), ("a",), segment_tiles, tile_px=400, overlap_px=8
    )  # no tile longer than twice its height
    assert all(size[1] <= 60 for group in sizes for size in group)
    with pytest.raises(ConfigError, match="overlap"):
        segment_in_tiles(scene(90, 130), ("a",), segment_tiles, tile_px=64, overlap_px=64)


def test_many_objects_of_a_large_image() -> None:
    boxes = [(row, col, row + 9, col + 11) for row in range(3, 300, 22) for col in range(2, 400, 25)]
    image = scene(320, 420, boxes)
    tiled = TiledVLM(Components(), tile_px=128, overlap_px=32).segment(image, ("building",))
    assert as_set(tiled) == as_set(Components().segment(image, ("building",))) and len(as_set(tiled)) == len(boxes)


@settings(max_examples=80, deadline=None)
@given(st.integers(1, 12), st.integers(1, 15), st.integers(0, 9), st.integers(0, 8), st.integers(0, 10**6))
def test_encoding_from_a_part_equals_encoding_the_whole(
    height: int, width: int, top: int, left: int, seed: int
) -> None:
    part_HW = np.random.default_rng(seed).random((height, width)) < 0.5
    whole_HW = np.zeros((22, 25), np.uint8)
    whole_HW[top : top + height, left : left + width] = part_HW
    code = encode_mask(part_HW, top=top, left=left, shape_hw=(22, 25))
    assert code["counts"] == rle.encode(np.asfortranarray(whole_HW))["counts"].decode()
    np.testing.assert_array_equal(decode_mask(code), whole_HW)


@settings(max_examples=30, deadline=None)
@given(st.integers(70, 160), st.integers(70, 160), st.integers(0, 10**6))
def test_any_scene_of_blocks_comes_back_whole(height: int, width: int, seed: int) -> None:
    """Blocks up to the overlap's size: every one is seen whole by some tile, so tiling changes nothing."""
    rng = np.random.default_rng(seed)
    corners = [(int(rng.integers(0, height - 20)), int(rng.integers(0, width - 20))) for _ in range(6)]
    image = scene(height, width, [(row, col, row + int(rng.integers(1, 20)), col + 15) for row, col in corners])
    tiled = TiledVLM(Components(), tile_px=64, overlap_px=24).segment(image, ("building",))
    whole = Components().segment(image, ("building",))
    together = lambda answer: np.any([decode_mask(one.mask) for one in answer.instances], axis=0)  # noqa: E731
    np.testing.assert_array_equal(together(tiled), together(whole))
    assert len(as_set(tiled)) == len(as_set(whole))
