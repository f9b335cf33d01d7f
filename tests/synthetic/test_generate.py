"""The synthetic city: a seed gives the same bytes, the truth equals its polygons, nuisances can be off."""

from dataclasses import replace

import cv2
import geopandas as gpd
import numpy as np
import pytest
from tests.support.synthetic_cities import NO_NUISANCES, city, city_without_nuisances, rasterize_footprints

from semicdvl.errors import ConfigError
from semicdvl.synthetic.city import SyntheticCity
from semicdvl.synthetic.config import NUISANCES, CitySpec
from semicdvl.synthetic.generate import generate_city
from semicdvl.synthetic.materials import LAND_COVER_CLASSES

BUILDING = LAND_COVER_CLASSES.index("building")
SEEDS = (0, 3, 5)
FIELD_SEED = 0
RARE = {"reroof", "repaint", "garden", "field_turnover"}  # too seldom at their default for a small image


def far_from(mask_HW: np.ndarray, distance_px: int) -> np.ndarray:
    return cv2.distanceTransform((mask_HW == 0).astype(np.uint8), cv2.DIST_L2, 5) > distance_px


def test_a_seed_gives_the_same_bytes_and_another_seed_another_city():
    again = generate_city(CitySpec(size_px=(300, 400), seed=3))
    for name in ("t1_HWC", "t2_HWC", "change_HW", "classes_t1_HW", "classes_t2_HW"):
        np.testing.assert_array_equal(getattr(again, name), getattr(city(), name))
    assert again.buildings_t1.equals(city().buildings_t1)
    assert not np.array_equal(city(0).t1_HWC, city(3).t1_HWC)


@pytest.mark.parametrize("size_px", [64, (64, 203), (331, 97), (16, 40)])
def test_any_size(size_px):
    made = generate_city(CitySpec(size_px=size_px, seed=1))
    height, width = (size_px, size_px) if isinstance(size_px, int) else size_px
    assert made.t1_HWC.shape == made.t2_HWC.shape == (height, width, 3)
    assert made.change_HW.shape == made.classes_t1_HW.shape == made.classes_t2_HW.shape == (height, width)
    for array in (made.t1_HWC, made.t2_HWC, made.change_HW, made.classes_t1_HW, made.classes_t2_HW):
        assert array.dtype == np.uint8
    assert made.t1_HWC.std() > 5  # something is drawn up to the corners
    assert made.t1_HWC[-8:, -8:].std() > 1


def test_resolution_scales_the_same_place():
    fine = generate_city(CitySpec(size_px=(400, 320), seed=2, gsd_m=0.5, **NO_NUISANCES))
    coarse = generate_city(CitySpec(size_px=(200, 160), seed=2, gsd_m=1.0, **NO_NUISANCES))
    shrunk = (
        cv2.resize((fine.classes_t1_HW == BUILDING).astype(np.float32), (160, 200), interpolation=cv2.INTER_AREA)
    ) > 0.5
    built = coarse.classes_t1_HW == BUILDING
    assert built.sum() > 300
    assert (shrunk & built).sum() / (shrunk | built).sum() > 0.9  # they differ along outlines only


# ------------------------------------------------------------------------------------------------ truth
@pytest.mark.parametrize("seed", SEEDS)
def test_truth_rasters_equal_the_polygons(seed):
    made = city(seed)
    np.testing.assert_array_equal(made.classes_t1_HW == BUILDING, rasterize_footprints(made.buildings_t1, made) == 1)
    np.testing.assert_array_equal(made.classes_t2_HW == BUILDING, rasterize_footprints(made.buildings_t2, made) == 1)
    changed = [frame[frame["kind"] != "unchanged"] for frame in (made.buildings_t1, made.buildings_t2)]
    np.testing.assert_array_equal(
        made.change_HW, rasterize_footprints(changed[0], made) | rasterize_footprints(changed[1], made)
    )
    assert set(np.unique(made.change_HW)) == {0, 1}


@pytest.mark.parametrize("seed", SEEDS)
def test_kinds_agree_with_the_dates_of_a_building(seed):
    made = city(seed)
    one, two = made.buildings_t1, made.buildings_t2
    assert set(one["kind"]) <= {"unchanged", "disappeared", "replaced"}
    assert set(two["kind"]) <= {"unchanged", "appeared", "replaced"}
    same_one, same_two = (f[f["kind"] == "unchanged"].dissolve("id").geometry for f in (one, two))
    assert list(same_one.index) == list(same_two.index)
    assert same_one.geom_equals(same_two).all()
    replaced_one, replaced_two = (f[f["kind"] == "replaced"].dissolve("id").geometry for f in (one, two))
    both = replaced_one.index.intersection(replaced_two.index)
    for i in both:
        old, new = replaced_one[i], replaced_two[i]
        inside = old.intersection(view_of(made).buffer(-30)).equals(old)
        shared = old.intersection(new).area / old.union(new).area
        assert not inside or 0.05 < shared < 0.76, "a replaced building stands on the old one's place in another shape"


def view_of(made: SyntheticCity):
    height, width = made.change_HW.shape
    return gpd.GeoSeries.from_wkt(
        [
            f"POLYGON(({made.transform.c} {made.transform.f}, {made.transform.c + width / 2} {made.transform.f}, "
            f"{made.transform.c + width / 2} {made.transform.f - height / 2}, "
            f"{made.transform.c} {made.transform.f - height / 2}, {made.transform.c} {made.transform.f}))"
        ]
    )[0]


def test_all_kinds_of_change_and_all_classes_occur():
    kinds, classes = set(), set()
    for seed in range(4):
        made = city(seed, (512, 512))
        kinds |= set(made.buildings_t1["kind"]) | set(made.buildings_t2["kind"])
        classes |= set(np.unique(made.classes_t1_HW)) | set(np.unique(made.classes_t2_HW))
    assert kinds == {"unchanged", "appeared", "disappeared", "replaced"}
    assert classes == set(range(len(LAND_COVER_CLASSES)))


@pytest.mark.parametrize("seed", range(4))
def test_default_change_rate(seed):
    assert 0.03 <= city(seed, (512, 512)).change_HW.mean() <= 0.06


def test_change_rate_follows_the_setting():
    rates = [
        generate_city(CitySpec(size_px=512, seed=4, change_frac=frac)).change_HW.mean() for frac in (0.0, 0.02, 0.06)
    ]
    assert rates[0] == 0
    np.testing.assert_allclose(rates[1:], [0.02, 0.06], rtol=0.2)


def test_without_change_buildings_are_equal():
    made = generate_city(CitySpec(size_px=(300, 420), seed=6, change_frac=0.0))
    assert made.buildings_t1.geometry.geom_equals(made.buildings_t2.geometry).all()
    assert not made.change_HW.any()
    assert not np.array_equal(made.t1_HWC, made.t2_HWC)


# ------------------------------------------------------------------------------------------------ nuisances
@pytest.mark.parametrize("seed", SEEDS)
def test_without_nuisances_only_the_change_and_its_surroundings_differ(seed):
    made = city_without_nuisances(seed)
    far = far_from(made.change_HW, 110)  # plot, shadow and cleared ground reach no further than 55 m
    assert far.mean() > 0.02
    np.testing.assert_array_equal(made.t1_HWC[far], made.t2_HWC[far])
    np.testing.assert_array_equal(made.classes_t1_HW[far], made.classes_t2_HW[far])
    differs = (made.t1_HWC != made.t2_HWC).any(axis=2)
    assert differs[made.change_HW == 1].mean() > 0.95
    assert differs.mean() < 0.6


@pytest.mark.parametrize("name", NUISANCES)
def test_each_nuisance_alone_changes_the_image_but_not_the_truth(name):
    calm = city_without_nuisances(3 if name == "garden" else FIELD_SEED)
    strength = 1.0 if name in RARE else getattr(CitySpec(), name)
    stirred = generate_city(replace(calm.spec, **{name: strength}))
    np.testing.assert_array_equal(stirred.change_HW, calm.change_HW)
    assert stirred.buildings_t2.geometry.geom_equals(calm.buildings_t2.geometry).all()
    pictures = ((stirred.t1_HWC, calm.t1_HWC), (stirred.t2_HWC, calm.t2_HWC))
    assert any((a != b).any() for a, b in pictures)


def test_shift_moves_date_2_by_its_length():
    calm = city_without_nuisances()
    moved = generate_city(replace(calm.spec, shift_px=3.0))
    np.testing.assert_array_equal(moved.t1_HWC, calm.t1_HWC)
    grey = [cv2.cvtColor(c.t2_HWC, cv2.COLOR_RGB2GRAY).astype(np.float32) for c in (calm, moved)]
    (dx, dy), _ = cv2.phaseCorrelate(*grey, cv2.createHanningWindow(grey[0].shape[::-1], cv2.CV_32F))
    assert np.hypot(dx, dy) == pytest.approx(3.0, abs=0.25)


def test_noise_has_the_given_deviation():
    calm = city_without_nuisances()
    noisy = generate_city(replace(calm.spec, noise_dn=5.0))
    difference = noisy.t1_HWC.astype(float) - calm.t1_HWC
    assert difference.std() == pytest.approx(5.0, rel=0.12)


@pytest.mark.parametrize(
    ("settings_", "word"),
    [
        ({"size_px": 8}, "size_px"),
        ({"haze": 1.5}, "haze"),
        ({"change_frac": -0.1}, "change_frac"),
        ({"gsd_m": 0}, "gsd_m"),
        ({"seed": -1}, "seed"),
        ({"epsg": 4326}, "epsg is no number of a projected"),
        ({"epsg": 10**300}, "epsg is no number of a projected"),
    ],
)
def test_impossible_settings_are_refused(settings_, word):
    with pytest.raises(ConfigError, match=word):
        CitySpec(**settings_)
