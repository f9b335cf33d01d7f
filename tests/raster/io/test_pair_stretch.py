"""The stretch of 16-bit data to grey values: robust, and the same at both dates."""

import json

import numpy as np
import pytest
from tests.support.command import command
from tests.support.synthetic_rasters import at, city, tif

from semicdvl.errors import ConfigError
from semicdvl.raster.io.pair_reader import open_pair

CLOUD = np.s_[:, 10:28, 20:70]  # 3 % of the image
GROUND = np.s_[50:, :, :]


def write_deep_pair(folder, *, cloud=None, gain=1.0):
    """Write ground of 500 to 2,950 at both dates, and a cloud at the first."""
    ground = city(150, 200).astype(np.uint16) * 10 + 450
    first = ground.copy()
    if cloud is not None:
        first[CLOUD] = cloud
    second = (ground * gain).astype(np.uint16)
    return tif(folder / "t1.tif", first, at(0, 90)), tif(folder / "t2.tif", second, at(0, 90))


@pytest.mark.parametrize("cloud", [65535, 30000, "varied"])
def test_cloud_leaves_the_ground_its_contrast(tmp_path, cloud):
    if cloud == "varied":
        cloud = np.random.default_rng(0).integers(20000, 60000, (3, 18, 50))
    with open_pair(*write_deep_pair(tmp_path, cloud=cloud)) as pair:
        window = pair.read(0, 0, 150, 200)
    for image_HWC in (window.t1_HWC, window.t2_HWC):
        low, high = np.percentile(image_HWC[GROUND], (1, 99))
        assert high - low > 150
    assert (window.t1_HWC[GROUND] == window.t2_HWC[GROUND]).all(), "unchanged ground is equal at both dates"
    assert (window.t1_HWC[10:28, 20:70] == 255).all()


def test_dates_in_other_units_get_a_stretch_each(tmp_path):
    with open_pair(*write_deep_pair(tmp_path, gain=20)) as pair:
        window = pair.read(0, 0, 150, 200)
    assert np.abs(window.t1_HWC.astype(int) - window.t2_HWC).max() <= 1


def test_brighter_date_stays_brighter_with_one_stretch_and_not_with_one_each(tmp_path):
    pair = write_deep_pair(tmp_path, gain=1.2)
    for stretch, brighter in (("auto", True), ("each", False)):
        with open_pair(*pair, stretch=stretch) as opened:
            window = opened.read(0, 0, 150, 200)
            means = window.t1_HWC.mean(), window.t2_HWC.mean()
        assert (means[1] > means[0] + 15) == brighter


def test_given_values_are_black_and_white(tmp_path, capsys):
    pair = write_deep_pair(tmp_path)
    with open_pair(*pair, stretch="1000,2000") as opened:
        window = opened.read(0, 0, 150, 200)
        data = city(150, 200).transpose(1, 2, 0).astype(float) * 10 + 450
        assert (window.t1_HWC == np.rint(np.clip((data - 1000) / 1000, 0, 1) * 255)).all()
    command(capsys, "check", *pair, "-o", tmp_path / "check", "--stretch", "1000,2000")
    record = json.loads((tmp_path / "check" / "check.json").read_text())
    assert record["after"]["stretch"] == "1000-2000 1000-2000 1000-2000"
    for wrong in ("2000,1000", "many"):
        with pytest.raises(ConfigError, match="auto, each, or two data values"):
            open_pair(*pair, stretch=wrong)
