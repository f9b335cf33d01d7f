"""The synthetic city: same seed same bytes, truth equal to its polygons, nuisances that can be off, files that fit."""

from dataclasses import replace
from functools import cache

import cv2
import geopandas as gpd
import numpy as np
import pytest
import rasterio
import rasterio.features
from hypothesis import given, settings
from hypothesis import strategies as st

from semicdvl.errors import ConfigError, DataError, OutputError
from semicdvl.synthetic.city import SyntheticCity
from semicdvl.synthetic.config import NUISANCES, CitySpec
from semicdvl.synthetic.generate import generate_city
from semicdvl.synthetic.layout.blocks import fill_block
from semicdvl.synthetic.layout.buildings import BUILDING_MAKERS, make_terrace
from semicdvl.synthetic.layout.geometry import cut_polygon, inset_polygon, measure_area, measure_signed_area
from semicdvl.synthetic.layout.scene import ScenePlanner
from semicdvl.synthetic.layout.streets import WORLD_PADDING_M, plan_streets
from semicdvl.synthetic.materials import LAND_COVER_CLASSES
from semicdvl.synthetic.write import write_city, write_city_patches

BUILDING = LAND_COVER_CLASSES.index("building")
SEEDS = (0, 3, 5)
FIELD_SEED = 0
RARE = {"reroof", "repaint", "garden", "field_turnover"}  # too seldom at their default for a small picture

NO_NUISANCES = dict.fromkeys(NUISANCES, 0.0)


@cache
def city(seed: int = 3, size_px: tuple[int, int] = (300, 400)) -> SyntheticCity:
    return generate_city(CitySpec(size_px=size_px, seed=seed))


@cache
def calm_city(seed: int = 3, size_px: tuple[int, int] = (300, 400)) -> SyntheticCity:
    return generate_city(CitySpec(size_px=size_px, seed=seed, **NO_NUISANCES))


def burnt(frame: gpd.GeoDataFrame, like: SyntheticCity) -> np.ndarray:
    if frame.empty:
        return np.zeros(like.change_HW.shape, np.uint8)
    return rasterio.features.rasterize(
        frame.geometry, out_shape=like.change_HW.shape, transform=like.transform, dtype="uint8"
    )


def far_from(mask_HW: np.ndarray, distance_px: int) -> np.ndarray:
    return cv2.distanceTransform((mask_HW == 0).astype(np.uint8), cv2.DIST_L2, 5) > distance_px


# ------------------------------------------------------------------------------------------------ arrays
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
    np.testing.assert_array_equal(made.classes_t1_HW == BUILDING, burnt(made.buildings_t1, made) == 1)
    np.testing.assert_array_equal(made.classes_t2_HW == BUILDING, burnt(made.buildings_t2, made) == 1)
    changed = [frame[frame["kind"] != "unchanged"] for frame in (made.buildings_t1, made.buildings_t2)]
    np.testing.assert_array_equal(made.change_HW, burnt(changed[0], made) | burnt(changed[1], made))
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
        inside = old.intersection(made_view(made).buffer(-30)).equals(old)
        shared = old.intersection(new).area / old.union(new).area
        assert not inside or 0.05 < shared < 0.76, "a replaced building stands on the old one's place in another shape"


def made_view(made: SyntheticCity):
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


# ------------------------------------------------------------------------------------------------ plan
@pytest.mark.parametrize("seed", range(5))
def test_buildings_overlap_no_street_no_water_and_no_other_building(seed):
    rng = np.random.default_rng(seed)
    plan = plan_streets(rng, width_m=300, height_m=230)
    sketch = ScenePlanner(rng, plan)
    for number in range(len(plan.blocks)):
        fill_block(sketch, number)
    count = np.zeros(sketch.taken_HW.shape, np.uint8)
    streets = np.zeros_like(count)
    for site in sketch.sites:
        mask = np.zeros_like(count)
        cv2.fillPoly(mask, [np.round(site.building.rings[0] - 0.5).astype(np.int32)], 1)
        count += mask
    for street in [*plan.streets, *([plan.river] if plan.river else [])]:
        cv2.fillPoly(streets, [np.round(street.outline_N2 - 0.5).astype(np.int32)], 1)
    assert len(sketch.sites) > 5
    assert count.max() == 1
    assert not (streets & count).any()


@pytest.mark.parametrize("seed", SEEDS)
def test_blocks_and_streets_tile_the_world(seed):
    plan = plan_streets(np.random.default_rng(seed), width_m=400, height_m=310)
    covered = np.zeros([int(v * 2) for v in plan.size_m[::-1]], np.uint8)
    outlines = [s.outline_N2 for s in plan.streets] + [b.kerb_N2 for b in plan.blocks]
    for outline in [*outlines, *([plan.banks.outline_N2] if plan.banks else [])]:
        cv2.fillPoly(covered, [np.round(outline * 2).astype(np.int32)], 1)
    margin = int(WORLD_PADDING_M * 2)
    seen = covered[margin:-margin, margin:-margin]
    assert seen.mean() > 0.97  # the rest are rounded corners and slivers left as tarmac


@pytest.mark.parametrize("maker", [*BUILDING_MAKERS, "terrace"])
def test_building_outlines(maker):
    rng = np.random.default_rng(5)
    forms = set()
    for _ in range(60):
        built = make_terrace(rng, "tile_red", 4) if maker == "terrace" else BUILDING_MAKERS[maker](rng, "tile_red")
        built = built.move_to(40.0, 30.0, 0.7)
        shape = built.to_polygon()
        union = sum((u1 - u0) * (v1 - v0) for u0, v0, u1, v1 in built.wings)
        assert shape.is_valid
        assert 20 < shape.area <= union + 1e-6
        assert 2.5 < built.height_m < 31
        forms.add((len(shape.exterior.coords), len(shape.interiors)))
    assert len(forms) >= {"apartments": 4, "terrace": 1}.get(maker, 2)


@given(
    angle=st.floats(0, np.pi),
    offset=st.floats(-30, 30),
    gap=st.floats(0.5, 12),
    corners=st.integers(3, 9),
)
@settings(max_examples=60, deadline=None)
def test_cut_loses_only_the_gap(angle, offset, gap, corners):
    turn = np.linspace(0, 2 * np.pi, corners + 1)[:-1]
    outline = np.stack([np.cos(turn) * 60, np.sin(turn) * 45], 1)
    point = offset * np.array([-np.sin(angle), np.cos(angle)])
    parts = cut_polygon(outline, point, angle, gap)
    lost = measure_area(outline) - sum(measure_area(part) for part in parts)
    assert -1e-6 <= lost <= gap * 121
    assert all(measure_signed_area(part) * measure_signed_area(outline) > -1e-9 for part in parts)


def test_inset_of_a_rectangle():
    box = np.array([[0.0, 0], [40, 0], [40, 30], [0, 30]])
    for ring in (box, box[::-1]):
        assert measure_area(inset_polygon(ring, 5.0)) == pytest.approx(30 * 20)
    assert len(inset_polygon(box, 16.0)) == 0


# ------------------------------------------------------------------------------------------------ nuisances
@pytest.mark.parametrize("seed", SEEDS)
def test_without_nuisances_only_the_change_and_its_surroundings_differ(seed):
    made = calm_city(seed)
    far = far_from(made.change_HW, 110)  # plot, shadow and cleared ground reach no further than 55 m
    assert far.mean() > 0.02
    np.testing.assert_array_equal(made.t1_HWC[far], made.t2_HWC[far])
    np.testing.assert_array_equal(made.classes_t1_HW[far], made.classes_t2_HW[far])
    differs = (made.t1_HWC != made.t2_HWC).any(axis=2)
    assert differs[made.change_HW == 1].mean() > 0.95
    assert differs.mean() < 0.6


@pytest.mark.parametrize("name", NUISANCES)
def test_each_nuisance_alone_changes_the_image_but_not_the_truth(name):
    calm = calm_city(3 if name == "garden" else FIELD_SEED)
    strength = 1.0 if name in RARE else getattr(CitySpec(), name)
    stirred = generate_city(replace(calm.spec, **{name: strength}))
    np.testing.assert_array_equal(stirred.change_HW, calm.change_HW)
    assert stirred.buildings_t2.geometry.geom_equals(calm.buildings_t2.geometry).all()
    pictures = ((stirred.t1_HWC, calm.t1_HWC), (stirred.t2_HWC, calm.t2_HWC))
    assert any((a != b).any() for a, b in pictures)


def test_shift_moves_date_2_by_its_length():
    calm = calm_city()
    moved = generate_city(replace(calm.spec, shift_px=3.0))
    np.testing.assert_array_equal(moved.t1_HWC, calm.t1_HWC)
    grey = [cv2.cvtColor(c.t2_HWC, cv2.COLOR_RGB2GRAY).astype(np.float32) for c in (calm, moved)]
    (dx, dy), _ = cv2.phaseCorrelate(*grey, cv2.createHanningWindow(grey[0].shape[::-1], cv2.CV_32F))
    assert np.hypot(dx, dy) == pytest.approx(3.0, abs=0.25)


def test_noise_has_the_given_deviation():
    calm = calm_city()
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
    ],
)
def test_impossible_settings_are_refused(settings_, word):
    with pytest.raises(ConfigError, match=word):
        CitySpec(**settings_)


# ------------------------------------------------------------------------------------------------ files
def test_files_carry_the_grid_and_the_truth(tmp_path):
    made = city()
    files = write_city(made, tmp_path / "new" / "city")
    expected = {
        "before": made.t1_HWC,
        "after": made.t2_HWC,
        "change": made.change_HW,
        "classes_after": made.classes_t2_HW,
    }
    for name, array in expected.items():
        with rasterio.open(getattr(files, name)) as raster:
            assert raster.crs.to_epsg() == 32633
            assert raster.crs.is_projected
            assert raster.transform == made.transform
            assert raster.res == (0.5, 0.5)
            np.testing.assert_array_equal(np.moveaxis(raster.read(), 0, -1).squeeze(), array)
    for layer, frame in (("before", made.buildings_t1), ("after", made.buildings_t2)):
        read = gpd.read_file(files.buildings, layer=layer)
        assert read.crs.to_epsg() == 32633
        np.testing.assert_array_equal(burnt(read, made), burnt(frame, made))
    np.testing.assert_array_equal(burnt(gpd.read_file(files.buildings, layer="change"), made), made.change_HW)
    assert sorted(p.name for p in files.before.parent.iterdir()) == sorted(p.name for p in vars(files).values())


def test_writing_twice_gives_the_same_raster_bytes(tmp_path):
    first, second = (write_city(city(), tmp_path / name) for name in ("one", "two"))
    assert first.before.read_bytes() == second.before.read_bytes()
    again = write_city(city(), tmp_path / "one")
    assert again.change.read_bytes() == second.change.read_bytes()


def test_a_city_without_change_can_be_written(tmp_path):
    files = write_city(generate_city(CitySpec(size_px=(120, 90), change_frac=0.0)), tmp_path)
    assert gpd.read_file(files.buildings, layer="change").empty


def test_unwritable_folder(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match="file"):
        write_city(city(), tmp_path / "file" / "city")


def test_patches_hold_the_windows_of_their_names(tmp_path):
    made = city()
    pairs = write_city_patches(made, tmp_path, size_px=140)
    assert [p.name for p in pairs] == [f"city00003_r{r:05d}_c{c:05d}" for r in (0, 140) for c in (0, 140)]
    assert {p.parent.name for p in tmp_path.glob("*/*.png")} == {"A", "B", "label"}
    last = pairs[-1]
    assert last.label is not None
    np.testing.assert_array_equal(cv2.imread(str(last.before))[..., ::-1], made.t1_HWC[140:280, 140:280])
    np.testing.assert_array_equal(cv2.imread(str(last.after))[..., ::-1], made.t2_HWC[140:280, 140:280])
    label = cv2.imread(str(last.label), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(label, made.change_HW[140:280, 140:280] * 255)
    with pytest.raises(DataError, match="500 px"):
        write_city_patches(made, tmp_path, size_px=500)
