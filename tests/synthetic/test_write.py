"""Files of a synthetic city: rasters and polygons agree, patches hold the windows of their names."""

import cv2
import geopandas as gpd
import numpy as np
import pytest
import rasterio
import rasterio.features
from tests.support.synthetic_cities import city, rasterize_footprints

from semicdvl.data.images.cache import ImageCache
from semicdvl.data.pairs import read_class_maps
from semicdvl.data.readers.folder import read_folder
from semicdvl.errors import DataError, OutputError
from semicdvl.synthetic.config import CitySpec
from semicdvl.synthetic.generate import generate_city
from semicdvl.synthetic.materials import LAND_COVER_CLASSES
from semicdvl.synthetic.write import PATCH_CLASSES, write_city, write_city_patches
from semicdvl.types import IGNORE


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
        np.testing.assert_array_equal(rasterize_footprints(read, made), rasterize_footprints(frame, made))
    np.testing.assert_array_equal(
        rasterize_footprints(gpd.read_file(files.buildings, layer="change"), made), made.change_HW
    )
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


def test_patches_carry_the_classes_of_both_dates_on_request(tmp_path):
    made = city()
    plain = write_city_patches(made, tmp_path / "plain", size_px=128)
    assert all(pair.classes is None for pair in plain)
    assert sorted(path.name for path in (tmp_path / "plain").iterdir()) == ["A", "B", "label"]
    written = write_city_patches(made, tmp_path / "classes", size_px=128, classes=PATCH_CLASSES)
    read = read_folder(tmp_path / "classes").pairs
    assert read == tuple(sorted(written, key=lambda pair: pair.name))
    maps = read_class_maps(read[1], cache=ImageCache(0))  # r00000_c00128
    for class_HW, cover_HW in zip(maps, (made.classes_t1_HW, made.classes_t2_HW), strict=True):
        part_HW = cover_HW[:128, 128:256]
        np.testing.assert_array_equal(class_HW == 0, part_HW == LAND_COVER_CLASSES.index("building"))
        sealed = [LAND_COVER_CLASSES.index(name) for name in ("road", "pavement", "car")]
        np.testing.assert_array_equal(class_HW == 1, np.isin(part_HW, sealed))
        assert class_HW.max() <= 4, "every land cover is in one of the five classes"
    only = write_city_patches(made, tmp_path / "two", size_px=128, classes=PATCH_CLASSES[:2])
    unknown_HW = read_class_maps(only[1], cache=ImageCache(0)).t1_HW == IGNORE
    np.testing.assert_array_equal(unknown_HW, maps.t1_HW >= 2)


def test_classes_of_patches_can_be_known_on_changed_ground_alone(tmp_path):
    made = city()
    everywhere = write_city_patches(made, tmp_path / "all", size_px=128, classes=PATCH_CLASSES)
    changed = write_city_patches(made, tmp_path / "some", size_px=128, classes=PATCH_CLASSES, classes_known="changed")
    assert made.change_HW[:128, 128:256].any()
    known = zip(
        read_class_maps(everywhere[1], cache=ImageCache(0)),
        read_class_maps(changed[1], cache=ImageCache(0)),
        strict=True,
    )
    for all_HW, some_HW in known:
        np.testing.assert_array_equal(some_HW, np.where(made.change_HW[:128, 128:256] == 1, all_HW, IGNORE))
