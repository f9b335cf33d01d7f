"""Every method on one hand-made pair: what changed is found, noise is not, tiles and no data leave no trace."""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
import pytest
import torch
from scipy.linalg import subspace_angles
from sklearn.decomposition import PCA
from tests.support.pairs_in_memory import detect, fitted, pair, planes

from semicdvl.errors import ConfigError, DataError
from semicdvl.types import IGNORE, Detector
from semicdvl.unsupervised import (
    UNSUPERVISED,
    any_change,
    cnn_cd,
    cva,
    dcva,
    dino_cva,
    dsfa,
    gmcd,
    irmad,
    log_ratio,
    pca_km,
    scm,
)
from semicdvl.unsupervised.common.features import iterate_feature_cells
from semicdvl.unsupervised.common.sam import SamEmbedding, SamInstances

SHAPE = 96, 160
BOX = slice(24, 56), slice(64, 104)


# ------------------------------------------------------------------------------------------------ stand-ins
@dataclass(frozen=True)
class Pointwise:
    """Features that look at single pixels: colours, their products, and both halved in size three times."""

    identity: str = "pointwise"
    channels: tuple[int, ...] = (6, 6, 6, 6)

    def extract_maps(self, image_HWC):
        colour_HWC = image_HWC.astype(np.float32) / 255
        products_HWC = colour_HWC * np.roll(colour_HWC, 1, axis=2)
        maps_DHW = np.concatenate([colour_HWC, products_HWC], axis=2).transpose(2, 0, 1)
        half = [(maps_DHW.shape[2] // 2**k, maps_DHW.shape[1] // 2**k) for k in range(4)]
        return [np.stack([cv2.resize(m, size, interpolation=cv2.INTER_AREA) for m in maps_DHW]) for size in half]


@dataclass(frozen=True)
class SquareMasks:
    """A SAM that knows the box by heart, and a second object; places are described by their mean colour."""

    identity: str = "squares"
    is_sam2: bool = False

    def embed_image(self, image_HWC):
        colour_DHW = torch.from_numpy(image_HWC[..., :3].astype(np.float32).transpose(2, 0, 1)) / 255 - 0.5
        return SamEmbedding([colour_DHW[None]], (1.0, 1.0), colour_DHW)

    def embedding_levels(self, seen):
        return [seen.embedding_DHW, seen.embedding_DHW[:, ::2, ::2]]

    def generate_masks(self, seen):
        logits_NHW = torch.full((2, *seen.embedding_DHW.shape[1:]), -4.0)
        logits_NHW[0, BOX[0], BOX[1]] = 4.0
        logits_NHW[1, 72:92, 8:40] = 4.0
        return SamInstances(logits_NHW, torch.tensor([0.9, 0.8]))

    def mask_at_point(self, seen, *, x_frac, y_frac):
        masks = self.generate_masks(seen)
        rows, cols = masks.logits_NHW.shape[1:]
        hit = masks.logits_NHW[:, int(y_frac * rows), int(x_frac * cols)].argmax()[None]
        return SamInstances(masks.logits_NHW[hit], masks.rating_N[hit])


@dataclass(frozen=True)
class BlueIsBuilding:
    """A CLIP to which blue things are buildings."""

    identity: str = "blue"

    def classify(self, pictures, sentences):
        assert sentences[0] == "satellite image of building" and len(pictures) == 2
        blue_N = np.array([p.reshape(-1, 3).mean(axis=0).argmax() == 2 for p in pictures], np.float32)
        rest_N = (1 - blue_N) / (len(sentences) - 1)
        return np.column_stack([blue_N, *[rest_N] * (len(sentences) - 1)])


BUILT = {
    "cva": lambda: cva.build_cva(),
    "log_ratio": lambda: log_ratio.build_log_ratio(),
    "irmad": lambda: irmad.build_irmad(),
    "pca_km": lambda: pca_km.build_pca_km(),
    "dsfa": lambda: dsfa.build_dsfa(steps=30),
    "cnn_cd": lambda: cnn_cd.build_cnn_cd(Pointwise(), layers=[0, 1]),
    "dcva": lambda: dcva.build_dcva(Pointwise(), layers=[0, 1], kept_frac=0.5),
    "gmcd": lambda: gmcd.build_gmcd(Pointwise(), layer=2, nodes=128, steps=60),
    "dino_cva": lambda: dino_cva.build_dino_cva(replace(Pointwise(), channels=(6,) * 4)),
    "any_change": lambda: any_change.build_any_change(SquareMasks()),
    "scm": lambda: scm.build_scm(SquareMasks(), BlueIsBuilding()),
}
EVERY = pytest.mark.parametrize("name", BUILT)


def _noise(seed):
    return np.random.default_rng(seed).normal(size=(*SHAPE, 3)) * 3


def _bytes(image):
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def images():
    """Date 1, date 2 with a box of another colour, and date 2 without it: three noisy looks at one scene."""
    rough = np.random.default_rng(0).normal(size=(*SHAPE, 3)).astype(np.float32)
    scene = cv2.GaussianBlur(rough, (0, 0), 5)
    scene = scene / scene.std() * 25 + np.array([130, 120, 90])
    built = scene.copy()
    built[BOX] += np.array([-70, -45, 90])
    return _bytes(scene + _noise(1)), _bytes(built + _noise(2)), _bytes(scene + _noise(3))


@pytest.fixture(scope="module")
def truth_HW():
    truth_HW = np.zeros(SHAPE, bool)
    truth_HW[BOX] = True
    return truth_HW


def _iou(change_HW, truth_HW):
    return ((change_HW == 1) & truth_HW).sum() / ((change_HW == 1) | truth_HW).sum()


# ------------------------------------------------------------------------------------------------ all of them
def test_every_method_is_tested_here():
    assert set(BUILT) == set(UNSUPERVISED)


@EVERY
def test_a_new_building_is_found(name, images, truth_HW):
    t1_HWC, t2_HWC, _ = images
    assert _iou(detect(BUILT[name](), pair(t1_HWC, t2_HWC)).change_HW, truth_HW) > 0.6


@EVERY
def test_two_noisy_looks_at_one_scene_are_no_change(name, images):
    t1_HWC, _, same_HWC = images
    assert (detect(BUILT[name](), pair(t1_HWC, same_HWC)).change_HW == 1).mean() < 0.005


@EVERY
def test_equal_images_are_no_change(name, images):
    t1_HWC, _, _ = images
    found = detect(BUILT[name](), pair(t1_HWC, t1_HWC))
    assert not (found.change_HW == 1).any()


@EVERY
def test_no_data_is_left_out_and_does_not_shift_the_rest(name, images, truth_HW):
    t1_HWC, t2_HWC, _ = images
    valid_HW = np.ones(SHAPE, bool)
    valid_HW[:, 120:] = False
    t1_HWC, t2_HWC = t1_HWC.copy(), t2_HWC.copy()
    t1_HWC[~valid_HW] = 255  # whatever lies there
    found = detect(BUILT[name](), pair(t1_HWC, t2_HWC, valid_HW))
    assert (found.change_HW[~valid_HW] == IGNORE).all()
    assert _iou(np.where(valid_HW, found.change_HW, 0), truth_HW) > 0.6


@EVERY
def test_the_same_again_gives_the_same(name, images):
    t1_HWC, t2_HWC, _ = images
    first, second = (detect(BUILT[name](), pair(t1_HWC, t2_HWC)).score_HW for _ in range(2))
    assert np.array_equal(first, second)


@EVERY
def test_what_is_learned_tile_by_tile_is_what_is_learned_in_memory(name, images):
    t1_HWC, t2_HWC, _ = images
    valid_HW = np.ones(SHAPE, bool)
    valid_HW[:20, :30] = False
    by_tiles, whole = (pair(t1_HWC, t2_HWC, valid_HW, tile_px=px) for px in (32, 160))
    found = [planes(fitted(BUILT[name](), tiles), whole)[:, valid_HW] for tiles in (by_tiles, whole)]
    scale = np.abs(found[1]).max(axis=1, keepdims=True)
    np.testing.assert_allclose(found[0] / scale, found[1] / scale, atol=1e-6)


@EVERY
def test_every_method_describes_itself(name, images):
    t1_HWC, t2_HWC, _ = images
    detector = fitted(BUILT[name](), pair(t1_HWC, t2_HWC))
    assert detector.name == name and all(isinstance(text, str) and text for text in detector.description().values())


@pytest.mark.parametrize(
    ("name", "least"), [("cva", 0.6), ("log_ratio", 0.6), ("irmad", 0.6), ("pca_km", 0.6), ("dsfa", 0.4)]
)
def test_four_bands_are_used(name, least, images, truth_HW):
    t1_HWC, _, same_HWC = images
    ground = cv2.GaussianBlur(np.random.default_rng(3).normal(size=(*SHAPE, 1)), (0, 0), 5)[..., None]
    fourth = [ground / ground.std() * 25 + 90 + _noise(seed)[..., :1] for seed in (8, 9)]
    fourth[1][BOX] += 100  # only the fourth band changed
    dates = [np.concatenate([x, _bytes(band)], axis=2) for x, band in zip((t1_HWC, same_HWC), fourth, strict=True)]
    assert _iou(detect(BUILT[name](), pair(*dates)).change_HW, truth_HW) > least


@pytest.mark.parametrize("name", ["cnn_cd", "dcva", "gmcd", "dino_cva", "any_change", "scm"])
def test_networks_look_at_the_first_three_bands(name, images):
    t1_HWC, t2_HWC, _ = images
    fourth_HW1 = np.random.default_rng(3).integers(0, 255, (*SHAPE, 1)).astype(np.uint8)
    pairs = [pair(t1_HWC, t2_HWC), pair(*(np.concatenate([x, fourth_HW1], axis=2) for x in (t1_HWC, t2_HWC)))]
    three, four = (planes(fitted(BUILT[name](), tiles), tiles) for tiles in pairs)
    assert np.array_equal(three, four)


# ------------------------------------------------------------------------------------------------ bad input
@EVERY
def test_bad_pairs_get_one_clear_error(name, images):
    t1_HWC, t2_HWC, _ = images
    assert isinstance(BUILT[name](), Detector)
    with pytest.raises(DataError, match="no pixel has data"):
        BUILT[name]().prepare(pair(t1_HWC, t2_HWC, np.zeros(SHAPE, bool)))
    with pytest.raises(DataError, match="date 2 has the same colour everywhere"):
        BUILT[name]().prepare(pair(t1_HWC, np.full_like(t2_HWC, 77)))


@pytest.mark.parametrize("name", sorted(set(BUILT) - {"cva", "log_ratio", "pca_km"}))
def test_one_band_is_refused_where_more_are_needed(name, images):
    t1_HWC, t2_HWC, _ = images
    with pytest.raises(DataError, match=r"needs [23] bands, the pair has 1"):
        BUILT[name]().prepare(pair(t1_HWC[..., :1], t2_HWC[..., :1]))


@pytest.mark.parametrize("name", ["irmad", "dsfa"])
def test_a_grey_image_in_three_bands_is_seen_through(name, images):
    grey = [np.repeat(image[..., :1], 3, axis=2) for image in images[:2]]
    with pytest.raises(DataError, match="a grey image"):
        BUILT[name]().prepare(pair(*grey))


@pytest.mark.parametrize("name", ["cva", "log_ratio", "pca_km"])
def test_one_band_is_enough_for_others(name, images, truth_HW):
    t1_HWC, t2_HWC, _ = images
    assert _iou(detect(BUILT[name](), pair(t1_HWC[..., :1], t2_HWC[..., :1])).change_HW, truth_HW) > 0.6


@pytest.mark.parametrize(
    "build",
    [
        lambda: pca_km.build_pca_km(components=17),
        lambda: pca_km.build_pca_km(sample=3),
        lambda: irmad.build_irmad(rounds=-1),
        lambda: log_ratio.build_log_ratio(offset=0),
        lambda: dsfa.build_dsfa(pixels=3),
        lambda: cnn_cd.build_cnn_cd(Pointwise(), layers=[4]),
        lambda: dcva.build_dcva(Pointwise(), kept_frac=0),
        lambda: gmcd.build_gmcd(Pointwise(), nodes=3),
        lambda: any_change.build_any_change(SquareMasks(), point_date=3),
        lambda: any_change.build_any_change(SquareMasks(), points=[[1, 2, 3]]),
        lambda: scm.build_scm(SquareMasks(), BlueIsBuilding(), find=[]),
    ],
)
def test_options_out_of_range_are_refused(build):
    with pytest.raises(ConfigError, match=r": give |: choose from|is undefined; give|must both hold"):
        build()


# ------------------------------------------------------------------------------------------------ what is special
def test_components_of_blocks_are_those_of_scikit_learn(images):
    t1_HWC, t2_HWC, _ = images
    grey_t1_HW, grey_t2_HW = (image.mean(axis=2) for image in (t1_HWC, t2_HWC))
    blocks_NV = np.abs(grey_t2_HW - grey_t1_HW).reshape(24, 4, 40, 4).swapaxes(1, 2).reshape(-1, 16)
    theirs = PCA(n_components=3).fit(blocks_NV)
    found = fitted(pca_km.build_pca_km(matched=False), pair(t1_HWC, t2_HWC, tile_px=40)).clusters
    np.testing.assert_allclose(found.mean_V, theirs.mean_, rtol=1e-5)
    np.testing.assert_allclose(np.abs((found.axes_SV * theirs.components_).sum(axis=1)), 1, atol=1e-6)


def test_each_pixel_is_described_by_its_own_neighbourhood(images):
    t1_HWC, t2_HWC, _ = images
    tiles = pair(t1_HWC, t2_HWC)
    ready = fitted(pca_km.build_pca_km(matched=False), tiles)
    difference_HW = np.abs(t2_HWC.mean(axis=2) - t1_HWC.mean(axis=2))
    row, col = 31, 66
    around_V = difference_HW[row - 2 : row + 2, col - 2 : col + 2].ravel()
    seen_S = ready.clusters.axes_SV @ (around_V - ready.clusters.mean_V)
    away, near = (np.linalg.norm(seen_S - c) for c in (ready.clusters.unchanged_S, ready.clusters.changed_S))
    belongs, level = planes(ready, tiles)[:, row, col]
    assert belongs == pytest.approx(away / (away + near), rel=1e-4) and level == pytest.approx(
        around_V.mean(), rel=1e-4
    )


MIX = np.array([[0.6, 0.2, 0.1], [0.1, 0.5, 0.2], [0.0, 0.3, 0.6]])


@pytest.mark.parametrize(
    ("name", "mix"), [("irmad", MIX), ("irmad", np.diag([0.5, 0.8, 1.2])), ("dsfa", np.diag([0.5, 0.8, 1.2]))]
)
def test_an_affine_change_of_colours_is_no_change(name, mix, images, truth_HW):
    t1_HWC, t2_HWC, same_HWC = images
    seen = [_bytes(image.astype(float) @ mix.T + np.array([20, 5, -30])) for image in (t2_HWC, same_HWC)]
    assert _iou(detect(BUILT[name](), pair(t1_HWC, seen[0])).change_HW, truth_HW) > 0.8
    assert (detect(BUILT[name](), pair(t1_HWC, seen[1])).change_HW == 1).mean() < 0.01


def test_mad_does_not_depend_on_linear_mixing_at_all():
    rng = np.random.default_rng(5)
    shared_NC = rng.normal(size=(4000, 3))
    both_NV = np.hstack([shared_NC @ MIX, shared_NC + rng.normal(size=(4000, 3)) * 0.3])
    mixed_NV = np.hstack([both_NV[:, :3] @ rng.normal(size=(3, 3)) + 5, both_NV[:, 3:] @ rng.normal(size=(3, 3))])
    sums = []
    for values_NV in (both_NV, mixed_NV):
        found = irmad.compute_canonical_variates(values_NV.mean(axis=0), np.cov(values_NV.T, bias=True))
        sums.append(found.sum_of_squares(*np.hsplit(values_NV, 2)))
    np.testing.assert_allclose(sums[0], sums[1], rtol=1e-6)
    assert sums[0].mean() == pytest.approx(3, rel=1e-6)  # one per variate, by construction


def test_mad_variates_do_not_correlate_with_each_other():
    rng = np.random.default_rng(6)
    first_NC = rng.normal(size=(3000, 3)) @ MIX
    second_NC = first_NC @ rng.normal(size=(3, 3)) + rng.normal(size=(3000, 3))
    both_NV = np.hstack([first_NC, second_NC])
    found = irmad.compute_canonical_variates(both_NV.mean(axis=0), np.cov(both_NV.T, bias=True))
    mad_NK = (first_NC - found.mean_V[:3]) @ found.mix_t1_CK - (second_NC - found.mean_V[3:]) @ found.mix_t2_CK
    np.testing.assert_allclose(np.cov(mad_NK.T, bias=True), np.diag(2 * (1 - found.correlation_K)), atol=1e-8)


def test_more_rounds_of_irmad_sharpen_it(images, truth_HW):
    t1_HWC, t2_HWC, _ = images
    tiles = pair(t1_HWC, t2_HWC)
    contrast = []
    for rounds in (0, 20):
        total_HW = planes(fitted(irmad.build_irmad(rounds=rounds), tiles), tiles)[0]
        contrast.append(np.median(total_HW[truth_HW]) / np.median(total_HW[~truth_HW]))
    assert contrast[1] > 2 * contrast[0]


@pytest.mark.parametrize("white_frac", [0.005, 0.6])
def test_irmad_ends_where_only_one_colour_is_left_as_unchanged(white_frac):
    """The rounds drift towards saturated pixels, the only ones that are alike at both dates."""
    rng = np.random.default_rng(2)
    t1_HWC, t2_HWC = rng.integers(0, 250, (2, *SHAPE, 3)).astype(np.uint8)
    white_HW = rng.random(SHAPE) < white_frac
    t1_HWC[white_HW] = t2_HWC[white_HW] = 255
    found = detect(irmad.build_irmad(tolerance=1e-12), pair(t1_HWC, t2_HWC))
    assert not (found.change_HW[white_HW] == 1).any()


def test_slowness_is_zero_where_the_dates_say_the_same():
    said_NO = torch.randn(50, 6, generator=torch.Generator().manual_seed(0))
    other_NO = torch.randn(50, 6, generator=torch.Generator().manual_seed(1))
    assert dsfa.slow_feature_loss(said_NO, said_NO + 3) < 1e-6 < 1 < dsfa.slow_feature_loss(said_NO, other_NO)


def test_slow_axes_make_the_difference_white():
    rng = np.random.default_rng(4)
    first_NO = rng.normal(size=(2000, 4)) @ rng.normal(size=(4, 4))
    both_NV = np.hstack([first_NO, first_NO + rng.normal(size=(2000, 4)) * [0.1, 0.5, 1, 2]])
    axes_SO = dsfa.compute_slow_axes(np.cov(both_NV.T, bias=True))
    difference_NO = both_NV[:, :4] - both_NV[:, 4:]
    np.testing.assert_allclose(np.cov((difference_NO @ axes_SO.T).T, bias=True), np.eye(4), atol=1e-8)
    assert max(subspace_angles(axes_SO.T, np.eye(4))) < 1e-6


def test_the_length_of_a_change_vector_counts_in_deviations(images):
    t1_HWC, _, _ = images
    moved_HWC = t1_HWC.copy()
    moved_HWC[5, 7] = np.clip(t1_HWC[5, 7].astype(int) + 30, 0, 255)
    ready = fitted(cva.build_cva(), pair(t1_HWC, t1_HWC))
    step_C = (moved_HWC[5, 7].astype(float) - t1_HWC[5, 7]) / t1_HWC.reshape(-1, 3).std(axis=0)
    found_HW = planes(ready, pair(t1_HWC, moved_HWC))[0]
    assert found_HW[5, 7] == pytest.approx(np.sqrt((step_C**2).mean()), rel=1e-4) and found_HW.sum() == found_HW[5, 7]


def test_log_ratio_does_not_see_a_gain(images):
    dark_HWC = np.maximum(images[0] // 2, 1)
    tiles = pair(dark_HWC, dark_HWC * 2)
    assert planes(fitted(log_ratio.build_log_ratio(offset=1e-6), tiles), tiles).max() < 1e-4


def test_dcva_keeps_what_varies_most_in_any_quarter():
    class Colours(Pointwise):
        def extract_maps(self, image_HWC):
            return [image_HWC.astype(np.float32).transpose(2, 0, 1)]

    rng = np.random.default_rng(1)
    t1_HWC = rng.integers(100, 120, (64, 96, 3)).astype(np.uint8)
    t2_HWC = t1_HWC.copy()
    quarters = [(rows, cols) for rows in (slice(32), slice(32, 64)) for cols in (slice(48), slice(48, 96))]
    for wanted, bands in (({0, 1, 2}, (0, 1, 2, 0)), ({1}, (1, 1, 1, 1))):
        for (rows, cols), band in zip(quarters, bands, strict=True):
            t2_HWC[rows, cols] = t1_HWC[rows, cols]
            t2_HWC[rows, cols, band] += rng.integers(0, 90, (32, 48)).astype(np.uint8)
        detector = dcva.build_dcva(Colours(channels=(3,)), layers=[0], kept_frac=1 / 3)
        assert set(fitted(detector, pair(t1_HWC, t2_HWC, tile_px=32)).learned[0].channel_S.tolist()) == wanted


def test_cells_that_touch_no_data_are_left_out():
    valid_HW = np.ones((50, 70), bool)
    valid_HW[9, 17] = False
    t1_HWC, t2_HWC = np.random.default_rng(0).integers(0, 255, (2, 50, 70, 3)).astype(np.uint8)
    places = set()
    for tile in iterate_feature_cells(pair(t1_HWC, t2_HWC, valid_HW, tile_px=32), Pointwise(), layers=[2]):
        places |= set(zip(tile[0].row_N.tolist(), tile[0].col_N.tolist(), strict=True))
    every = {(row, col) for row in range(2, 50, 4) for col in range(2, 70, 4)}
    wanted = {(row, col) for row, col in every if row + 2 <= 50 and col + 2 <= 70 and (row, col) != (10, 18)}
    assert places == wanted


def test_features_of_another_length_only_are_no_change_for_cnn_cd():
    class Scaled(Pointwise):
        def extract_maps(self, image_HWC):
            return [np.full((6, *image_HWC.shape[:2]), image_HWC.mean() / 255, np.float32)]

    detector = cnn_cd.build_cnn_cd(Scaled(), layers=[0])
    assert detector.predict_scores(*(np.full((32, 64, 3), value, np.uint8) for value in (40, 200))).max() < 1e-5


def test_an_object_turns_by_the_angle_of_its_embeddings(images, truth_HW):
    t1_HWC, t2_HWC, _ = images
    found_HW = any_change.build_any_change(SquareMasks()).predict_scores(t1_HWC, t2_HWC)[0]
    means = [(image[BOX].reshape(-1, 3) / 255 - 0.5).mean(axis=0) for image in (t1_HWC, t2_HWC)]
    cosine = means[0] @ means[1] / np.linalg.norm(means[0]) / np.linalg.norm(means[1])
    assert found_HW[truth_HW] == pytest.approx(np.degrees(np.arccos(cosine)), abs=0.01) and found_HW[0, 0] == 0


def test_a_point_asks_for_objects_like_the_one_below_it(images, truth_HW):
    t1_HWC, t2_HWC, _ = images
    tiles = pair(t1_HWC, t2_HWC, tile_px=160)
    asked = {"point_date": 2, "query_angle": 30}
    like = detect(any_change.build_any_change(SquareMasks(), points=[[40, 90]], **asked), tiles)
    other = detect(any_change.build_any_change(SquareMasks(), points=[[80, 20]], **asked), tiles)
    assert _iou(like.change_HW, truth_HW) == 1 and not (other.change_HW == 1).any()
    with pytest.raises(ConfigError, match="row 200, col 3 lies outside"):
        any_change.build_any_change(SquareMasks(), points=[[200, 3]]).prepare(tiles)


def test_objects_much_larger_or_smaller_than_the_query_are_left_out(images):
    t1_HWC, t2_HWC, _ = images
    tiles = pair(t1_HWC, t2_HWC, tile_px=160)
    known = any_change.build_any_change(SquareMasks(), points=[[40, 90]], point_date=2, query_angle=30).prepare(tiles)
    assert known.query.area_px == pytest.approx(np.zeros(t1_HWC.shape[:2])[BOX].size)
    assert known.predict_scores(t1_HWC, t2_HWC).any()
    for factor in (0.24, 4.1):
        other = replace(known, query=replace(known.query, area_px=known.query.area_px * factor))
        assert not other.predict_scores(t1_HWC, t2_HWC).any()


def test_an_object_must_agree_with_the_query_on_more_than_half_of_it():
    query = any_change.QueryObject(torch.tensor([0.5, -0.5, -0.5]), 20.0 * 32)
    detector = replace(any_change.build_any_change(SquareMasks(), query_angle=30), query=query)
    image_HWC = np.zeros((100, 160, 3), np.uint8)  # the object that SquareMasks knows: rows 72-92, columns 8-40
    image_HWC[72:92, 8:40, 0] = 255
    seen = SquareMasks().embed_image(image_HWC)
    masks = SquareMasks().generate_masks(seen)
    assert len(detector._select_like_query(seen, masks, image_px=16_000)) == 1
    image_HWC[72:92, 8:25] = (0, 0, 255)  # 17 of 32 columns
    seen = SquareMasks().embed_image(image_HWC)
    assert len(detector._select_like_query(seen, masks, image_px=16_000)) == 0


def test_scm_turns_down_what_is_not_looked_for(images, truth_HW):
    t1_HWC, t2_HWC, _ = images

    class NothingIsBuilding(BlueIsBuilding):
        def classify(self, pictures, sentences):
            return np.tile(np.eye(len(sentences), dtype=np.float32)[-1], (len(pictures), 1))

    tiles = pair(t1_HWC, t2_HWC)
    assert _iou(detect(scm.build_scm(SquareMasks(), BlueIsBuilding()), tiles).change_HW, truth_HW) > 0.9
    assert not (detect(scm.build_scm(SquareMasks(), NothingIsBuilding()), tiles).change_HW == 1).any()


def test_scm_shows_each_object_on_white(images):
    found = list(scm.crop_objects(images[1], SquareMasks().generate_masks(SquareMasks().embed_image(images[1]))))
    assert [crop.shape for crop in found] == [(32, 40, 3), (20, 32, 3)]
    assert np.array_equal(found[0], images[1][BOX])
