import json
import struct
import warnings
from pathlib import Path

import cv2
import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.control import GroundControlPoint
from rasterio.errors import NotGeoreferencedWarning
from rich.console import Console
from tests.support.command import command
from tests.support.paths import SHARED
from tests.support.synthetic_town import paint, photograph

from semicdvl.ceg.prompts import resolve_prompts
from semicdvl.detection.config import GDAL_CACHE_BYTES, DetectionConfig
from semicdvl.detection.detectors.vlm_ceg import build_vlm_detector
from semicdvl.detection.output_folder import OUTPUT_FILES
from semicdvl.detection.pair_check.check import check_image_pair, measure_pair
from semicdvl.detection.pair_check.results import PairCheck
from semicdvl.detection.pipeline import write_detection
from semicdvl.errors import InputError
from semicdvl.pseudo_labels.generate import CEGSettings
from semicdvl.raster.io.open_pair import open_pair
from semicdvl.vlms.models.fake import FakeVLM

UTM = rasterio.CRS.from_epsg(32615)
PLACE = Affine(0.5, 0, 366676, 0, -0.5, 4104256)
SIZE = 230, 290
QUIET = Console(quiet=True)
FAKE = ["--vlm", "fake", "--find", "building", "--background", "grass"]
REAL = SHARED / "data"


def tif(path: Path, image_HWC: np.ndarray, *, crs=UTM, transform=PLACE, **extra) -> Path:
    profile = {"driver": "GTiff", "dtype": image_HWC.dtype, "count": image_HWC.shape[2], "crs": crs} | extra
    profile |= {"height": image_HWC.shape[0], "width": image_HWC.shape[1], "transform": transform}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(path, "w", **{key: value for key, value in profile.items() if value is not None}) as target:
            target.write(image_HWC.transpose(2, 0, 1))
    return path


@pytest.fixture(scope="module")
def town() -> np.ndarray:
    return paint(*SIZE, seed=4)


@pytest.fixture
def before(tmp_path, town) -> Path:
    return tif(tmp_path / "before.tif", photograph(town))


def kinds(checked, level: int) -> set[str]:
    return {finding.kind for finding in checked.findings if finding.level == level}


# ------------------------------------------------------------------------------------------------ verdicts
def test_fine(capsys, tmp_path, before, town):
    after = tif(tmp_path / "after.tif", photograph(paint(*SIZE, seed=4, gone=4)))
    code, text, complaint = command(capsys, "check", before, after, "-o", tmp_path / "out")
    assert code == 0 and not complaint and "verdict: fine" in text
    assert "EPSG:32615" in text and "290 x 230 px" in text and "0.5 m" in text and "1.67 ha" in text
    kept = json.loads((tmp_path / "out" / "check.json").read_text())
    assert kept["verdict"] == 0 and kept["overlap_before_frac"] == 1 and kept["shift"]["known"]
    assert kept["overlap_m2"] == pytest.approx(230 * 290 / 4) and kept["radiometry"]["common_frac"] == 1
    assert kept["radiometry"]["bands"][0]["correlation"] > 0.8 and kept["before"]["dtype"] == "uint8"


def test_the_page_stands_alone_and_says_what_was_found(tmp_path, before, town):
    after = tif(tmp_path / "after.tif", photograph(town, row_px=3))
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine.txt").write_text("stays")
    check_image_pair(before, after, out)
    assert sorted(path.name for path in out.iterdir()) == ["check.html", "check.json", "mine.txt"]
    html = (out / "check.html").read_text()
    assert html.count("<img ") == 2 + 2 + 1 + 2, "swipe, checkerboards, arrows, each date"
    assert html.count('src="') == html.count('src="data:image/') and "href=" not in html
    for words in (
        "usable, with warnings",
        "misregistered by about 3.0 px (1.5 m)",
        "--align",
        "EPSG:32615",
        "windows agree",
    ):
        assert words in html, words


def test_a_shift_is_a_warning_with_a_remedy(capsys, tmp_path, before, town):
    after = tif(tmp_path / "after.tif", photograph(town, row_px=3, col_px=-2.5))
    code, text, _ = command(capsys, "check", before, after, "-o", tmp_path / "out")
    assert (
        code == 1
        and "misregistered by about 3.9 px (2.0 m)" in text
        and "--align" in text
        and "+3.0" in text
        and "-2.5" in text
    )


def test_plain_images_say_no_crs(capsys, tmp_path, town):
    for name, by in (("a.png", 0), ("b.png", 0.25)):
        cv2.imwrite(str(tmp_path / name), photograph(town, col_px=by)[..., ::-1])
    code, text, _ = command(capsys, "check", tmp_path / "a.png", tmp_path / "b.png", "-o", tmp_path / "out")
    assert code == 0 and "no CRS" in text and "none" in text and "unknown" in text
    assert json.loads((tmp_path / "out" / "check.json").read_text())["overlap_m2"] is None


def test_light_border_saturation_and_resolution_are_named(tmp_path, before, town):
    image = photograph(town)
    image = np.clip(image * 1.9 + 30, 0, 255).astype(np.uint8)
    image[:, :70] = 0
    after = tif(tmp_path / "after.tif", image[::2, ::2].copy(), transform=PLACE @ Affine.scale(2))
    checked = check_image_pair(before, after, tmp_path / "out")
    assert {"border", "saturated", "resolution"} <= kinds(checked, 1) and "grid" in kinds(checked, 0)
    assert kinds(checked, 1) & {"light", "unlike"} and checked.radiometry.after.black_border_frac == pytest.approx(
        70 / 290, abs=0.02
    )
    assert any(band.saturated_frac > 0.05 for band in checked.radiometry.after.bands)
    assert all(finding.remedy for finding in checked.findings if finding.level)


def test_no_data_is_counted_as_the_file_tells_it(tmp_path, town):
    image = photograph(town).astype(np.float32)
    image[:115] = np.nan
    first = tif(tmp_path / "a.tif", image)
    tagged = photograph(town)
    tagged[:, :145] = 7
    with open_pair(first, tif(tmp_path / "b.tif", tagged, nodata=7)) as pair:
        checked = measure_pair(pair)
    assert checked.radiometry.before.data_frac == pytest.approx(0.5, abs=0.01)
    assert checked.radiometry.after.data_frac == pytest.approx(0.5, abs=0.02) and checked.after.no_data == "value 7"
    assert checked.radiometry.common_frac == pytest.approx(0.25, abs=0.02) and "data" in kinds(checked, 1)


def test_gain_and_offset_are_those_that_were_applied(tmp_path, before, town):
    dim = np.rint(photograph(town) * 0.5 + 40).astype(np.uint8)
    with open_pair(before, tif(tmp_path / "after.tif", dim)) as pair:
        bands = measure_pair(pair).radiometry.bands
    for band in bands:
        assert band.gain == pytest.approx(0.5, abs=0.06) and band.offset == pytest.approx(40, abs=8)
        assert band.correlation > 0.99 and band.residual < 3


# ------------------------------------------------------------------------------------------------ --align
def _truth(town: np.ndarray, later: np.ndarray) -> np.ndarray:
    return (np.abs(photograph(town).astype(int) - photograph(later)).max(axis=2) > 30).astype(bool)


def _detector():
    return build_vlm_detector(
        FakeVLM(),
        prompts=resolve_prompts(find="building", background="grass"),
        settings=CEGSettings(level="pixel", gamma=0.3),
    )


def _changed(out: Path) -> np.ndarray:
    with rasterio.open(out / "change.tif") as source:
        return source.read(1)


def test_align_takes_away_the_change_that_is_none(tmp_path, before, town):
    later = paint(*SIZE, seed=4, gone=16)
    after = tif(tmp_path / "after.tif", photograph(later, row_px=4.25, col_px=-5.5))
    truth, ious = _truth(town, later)[10:-10, 10:-10], {}
    for align in (False, True):
        out = tmp_path / f"out{align}"
        result = write_detection(
            before, after, out, detector=_detector(), config=DetectionConfig(align=align), progress=QUIET
        )
        with rasterio.open(out / "change.tif") as source:
            top, left = (round(at) for at in (~PLACE @ (source.transform.c, source.transform.f))[::-1])
            whole = np.zeros(SIZE, bool)
            whole[top : top + source.height, left : left + source.width] = source.read(1) == 1
        found = whole[10:-10, 10:-10]
        ious[align] = (found & truth).sum() / (found | truth).sum()
        kept = json.loads((out / "run.json").read_text())["alignment"]
        assert kept["measured_px"] == pytest.approx([4.25, -5.5], abs=0.2) and kept["shift_known"]
        assert (kept["moved_px"] is not None) == align == (kept["left_px"] is not None)
        assert any("misregistered by about" in line for line in result.warnings) != align
    assert kept["left_px"] == pytest.approx([0, 0], abs=0.15) and any("co-registered" in w for w in result.warnings)
    assert ious[True] > 0.85 and ious[False] < 0.6, ious


def test_align_changes_nothing_where_there_is_no_shift(tmp_path, before):
    for name, align in (("plain", False), ("aligned", True)):
        settings = DetectionConfig(align=align)
        write_detection(before, before, tmp_path / name, detector=_detector(), config=settings, progress=QUIET)
    for name in set(OUTPUT_FILES) & {"change.tif", "score.tif", "t1.tif", "t2.tif"}:
        assert (tmp_path / "plain" / name).read_bytes() == (tmp_path / "aligned" / name).read_bytes(), name
    assert json.loads((tmp_path / "aligned" / "run.json").read_text())["alignment"]["moved_px"] is None


def test_detect_shows_the_warnings_of_check(tmp_path, before, town):
    after = tif(tmp_path / "after.tif", photograph(town, row_px=3))
    result = write_detection(before, after, tmp_path / "out", detector=_detector(), progress=QUIET)
    assert any("3.0 px" in line and "--align" in line for line in result.warnings)
    assert "--align" in (tmp_path / "out" / "report.html").read_text()


# ------------------------------------------------------------------------------------------------ bad input
def _header_only(path: Path) -> Path:
    """A TIFF of 134 bytes that says it holds 500,000 x 500,000 px in one strip."""
    entries = [(256, 4, 500_000), (257, 4, 500_000), (258, 3, 8), (259, 3, 1), (262, 3, 2), (273, 4, 134), (277, 3, 3)]
    entries += [(278, 4, 500_000), (279, 4, 2**32 - 1), (284, 3, 1)]
    head = struct.pack("<2sHIH", b"II", 42, 8, len(entries))
    body = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in entries)
    path.write_bytes(head + body + b"\0" * 4)
    return path


def _sparse(path: Path) -> Path:
    blocks = {"tiled": True, "blockxsize": 8192, "blockysize": 8192, "sparse_ok": True, "bigtiff": True}
    size = {"width": 500_000, "height": 500_000, "count": 3, "dtype": "uint8"}
    with rasterio.open(path, "w", driver="GTiff", crs=UTM, transform=PLACE, **size, **blocks):
        return path


def _bad(root: Path, case: str) -> Path:
    """Make the after image of a case."""
    path, image = root / "bad.tif", photograph(paint(*SIZE, seed=4))
    match case:
        case "no overlap":
            return tif(path, image, transform=Affine(0.5, 0, 466676, 0, -0.5, 4104256))
        case "no crs":
            return tif(path, image, crs=None, transform=None)
        case "rotated":
            return tif(path, image, crs=None, transform=PLACE @ Affine.rotation(20))
        case "gcps":
            return _with_gcps(path, image)
        case "truncated":
            tif(path, np.random.default_rng(0).integers(1, 255, (*SIZE, 3), dtype=np.uint8))
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 3])
            return path
        case "no data":
            return tif(path, np.full_like(image, 9), nodata=9)
        case "black":
            return tif(path, image * 0)
        case "nan":
            return tif(path, np.full(image.shape, np.nan, np.float32))
        case "header":
            return _header_only(path)
        case "sparse":
            return _sparse(path)
        case "vrt":
            bands = "".join(f'<VRTRasterBand dataType="Byte" band="{band}"/>' for band in (1, 2, 3))
            path.with_suffix(".vrt").write_text(
                f'<VRTDataset rasterXSize="500000" rasterYSize="500000"><SRS>EPSG:32615</SRS>'
                f"<GeoTransform>366676, 0.5, 0, 4104256, 0, -0.5</GeoTransform>{bands}</VRTDataset>"
            )
            return path.with_suffix(".vrt")
    raise AssertionError(case)


def _with_gcps(path: Path, image: np.ndarray) -> Path:
    corners = (0, 0), (230, 290)
    points = [GroundControlPoint(row, col, 366676 + col / 2, 4104256 - row / 2) for row, col in corners]
    tif(path, image, crs=None, transform=None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(path, "r+") as target:
            target.gcps = points, UTM
    return path


CASES = {
    "no overlap": "does not overlap",
    "no crs": "has no CRS",
    "rotated": "rotated",
    "gcps": "2 ground control points",
    "truncated": "truncated",
    "no data": "data",
    "black": "has no data where",
    "nan": "data",
    "header": "contains no pixels",
    "sparse": "contains no pixels",
    "vrt": "has no data where",
}


@pytest.mark.parametrize("case", CASES)
def test_bad_input_is_one_error_and_nothing_is_left(capsys, tmp_path, before, case):
    bad = _bad(tmp_path, case)
    was = sorted(tmp_path.rglob("*"))
    code, text, complaint = command(capsys, "detect", before, bad, "-o", tmp_path / "out", *FAKE)
    assert code == 2 and complaint.count("error:") == 1 and "Traceback" not in complaint + text
    assert bad.name in complaint and CASES[case] in complaint
    assert sorted(tmp_path.rglob("*")) == was
    code, text, complaint = command(capsys, "check", before, bad, "-o", tmp_path / "seen")
    assert code == 2 and "Traceback" not in complaint + text and CASES[case] in complaint + text
    assert (complaint == "") == ("verdict: not usable" in text), "either an error or a verdict"
    new = {path.name for path in tmp_path.rglob("*")} - {path.name for path in was}
    assert new == (set() if complaint else {"seen", "check.json", "check.html"})


def test_images_far_apart_are_refused_with_a_remedy(capsys, tmp_path):
    wide = photograph(paint(420, 460, seed=5, roofs=200))
    files = [tif(tmp_path / name, part) for name, part in (("a.tif", wide[115:]), ("b.tif", wide[:-115]))]
    code, text, _ = command(capsys, "check", *files, "-o", tmp_path / "seen")
    assert code == 2 and "115.0 px" in text and "Georeference" in text
    with pytest.raises(InputError, match=r"b\.tif.*115\.0 px.*Georeference"):
        write_detection(
            *files, tmp_path / "out", detector=_detector(), config=DetectionConfig(align=True), progress=QUIET
        )
    assert not (tmp_path / "out").exists()


# ------------------------------------------------------------------------------------------------ real files
@pytest.mark.skipif(not (REAL / "joplin").is_dir(), reason="../shared/data/joplin is not here")
def test_joplin_chips(tmp_path):
    chips = REAL / "joplin" / "chips"
    checked = check_image_pair(chips / "pre" / "0_pre.tif", chips / "post" / "0_post.tif", tmp_path)
    assert checked.shift.is_known and 0.7 < checked.shift.length_px < 2.2 and checked.verdict == 1
    assert "border" in kinds(checked, 1) and "shift" not in kinds(checked, 1)  # too few windows agree to claim one
    assert checked.overlap_m2 == pytest.approx(423_000, rel=0.01)


# ------------------------------------------------------------------------------------------------ what may be claimed
def _noisy_pair(folder: Path, by: tuple[float, float], noise_dn: float) -> PairCheck:
    """Check a town against itself, shifted, with the noise of two bad sensors."""
    town, rng = paint(*SIZE, seed=0), np.random.default_rng(0)
    paths = []
    for name, (row_px, col_px) in (("a", (0.0, 0.0)), ("b", by)):
        image = photograph(town, row_px=row_px, col_px=col_px)
        noisy = np.clip(image + rng.normal(0, noise_dn, image.shape), 1, 254).astype(np.uint8)
        paths.append(tif(folder / f"{name}.tif", noisy))
    return check_image_pair(*paths)


@pytest.mark.parametrize(
    ("by", "noise_dn", "told"),
    [
        ((0.0, 0.0), 36, "cannot be told"),
        ((1.0, 0.5), 36, "cannot be told"),
        ((0.0, 0.0), 0, None),
        ((0.5, 0.25), 20, None),
        ((1.5, 1.0), 20, "misregistered by about 1.8 px"),
        ((6.0, -3.0), 40, "misregistered by about 6."),
    ],
)
def test_shift_is_claimed_only_where_windows_agree_or_it_is_larger_than_its_error(tmp_path, by, noise_dn, told):
    checked = _noisy_pair(tmp_path, by, noise_dn)
    found = [finding for finding in checked.findings if finding.kind == "shift"]
    assert checked.shift.is_known and checked.shift.length_px == pytest.approx(np.hypot(*by), abs=0.7)
    if told is None:
        assert found == []
        return
    assert len(found) == 1 and told in found[0].text
    advised, claimed = "--align" in found[0].remedy, "misregistered" in told
    assert advised == claimed == checked.shift.is_certain == (found[0].level == 1)
    if not claimed:
        assert f"{checked.shift.agree_frac:.0%} of the windows agree" in found[0].text
        assert not any("--align" in text for text in checked.warnings)


def test_the_cache_of_gdal_is_bounded(before, monkeypatch):
    """By default it is a twentieth of the machine's memory."""
    seen = []

    def measure(pair):
        seen.append(rasterio.env.getenv()["GDAL_CACHEMAX"])
        return measure_pair(pair)

    monkeypatch.setattr("semicdvl.detection.pair_check.check.measure_pair", measure)
    check_image_pair(before, before)
    assert seen == [GDAL_CACHE_BYTES]
