"""`detect` without labels judges a VLM's own instances over the whole raster, and what objects look like."""

import itertools
import json
import os
import pickle
import signal
import subprocess
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
from PIL import Image
from rich.console import Console
from scipy import ndimage
from tests.support.paths import ROOT

from semicdvl.ceg.config import CEGSettings
from semicdvl.ceg.instances.feature_similarity import PairFeatures
from semicdvl.ceg.instances.merging import crop_tile_instances
from semicdvl.ceg.labels import make_labels
from semicdvl.ceg.prompts import Prompts
from semicdvl.detection.config import DetectionConfig
from semicdvl.detection.detectors.vlm_ceg import VLMDetector, build_vlm_detector
from semicdvl.detection.pipeline import write_detection
from semicdvl.detection.tiles.score_store import ScoreStore
from semicdvl.detection.tiles.tile_runner import TileJob, detect_tile, run_tiles
from semicdvl.errors import ConfigError, DataError
from semicdvl.raster.io.open_pair import open_pair
from semicdvl.raster.tiling import plan_tiles
from semicdvl.types import IGNORE, Instance, Segments
from semicdvl.vlms.instance_stitching import decode_mask

QUIET = Console(quiet=True)
PROMPTS = Prompts(("house", "hall"), ("road",))
BITS = 32, 64, 128
"""Every bit of the red channel is a house of its own, so houses may overlap; those of the green channel are halls."""
OPTIONS = [
    {},
    {"delta": 0.3},
    {"shift_px": 2},
    {"replaced_iou": 0.5, "delta": 0.05},
    {"replaced_class": True},
    {"min_cosine": 0.4},
    {"shift_px": 3, "replaced_iou": 0.6, "replaced_class": True, "min_cosine": 0.4},
]


@dataclass
class BitVLM:
    """Finds an object in every patch of a bit; at the last tile it may stop or be killed."""

    identity: str = "bits-1"
    gamma: float = 0.5
    own: bool = True
    stop_at: int = -1
    kill: bool = False
    seen: list = field(default_factory=list)

    def segment(self, image_HWC, prompts, *, gsd_m=None):
        if len(self.seen) == self.stop_at:
            if self.kill:
                os.kill(os.getpid(), signal.SIGKILL)
            raise KeyboardInterrupt
        self.seen.append(1)
        objects = [self._objects(image_HWC[..., channel], channel) for channel in (0, 1)]
        maps = [(image_HWC[..., channel] >= BITS[0]) * np.float32(0.9) for channel in (0, 1)]
        road_HW = np.where(maps[0] + maps[1] > 0, np.float32(0.1), np.float32(0.7))
        instances = (*objects[0], *objects[1], Instance(np.ones(image_HWC.shape[:2], bool), 2, 0.7))
        return Segments(np.stack([*maps, road_HW]), tuple(prompts), instances if self.own else None)

    @staticmethod
    def _objects(channel_HW, prompt):
        for bit in BITS:
            labels_HW, count = ndimage.label(channel_HW & bit, structure=np.ones((3, 3)))
            yield from (Instance(labels_HW == label, prompt, 0.6) for label in range(1, count + 1))


@dataclass(frozen=True)
class Blueness:
    """Looks: one cell of 16 px holds its mean blue, and what is missing to it."""

    identity: str = "blueness-1"

    def extract_features(self, image_HWC):
        height, width = image_HWC.shape[:2]
        blue_HW = image_HWC[..., 2].reshape(height // 16, 16, width // 16, 16).mean(axis=(1, 3)) / 255
        return np.stack([blue_HW, 1 - blue_HW]).astype(np.float32)


def detector_of(vlm=None, *, level="instance", **options) -> VLMDetector:
    features = Blueness() if options.get("min_cosine") is not None else None
    settings = CEGSettings(level=level, gamma=0.5, **options)
    return build_vlm_detector(vlm or BitVLM(), prompts=PROMPTS, settings=settings, features=features)


def save(folder: Path, *dates: np.ndarray) -> tuple[Path, Path]:
    folder.mkdir(exist_ok=True)
    paths = folder / "A.png", folder / "B.png"
    for path, image in zip(paths, dates, strict=True):
        Image.fromarray(image).save(path)
    return paths


def decided(folder: Path, dates, detector, *, tile_px: int, overlap_px: int = 32, strip_bytes: int = 30_000):
    """What `detect` decides, before it is made into files; the strips are of a few rows."""
    with open_pair(*map(str, save(folder, *dates))) as pair:
        cut = plan_tiles(*pair.shape_hw, tile_px=tile_px, overlap_px=overlap_px)
        (folder / f"{tile_px}").mkdir()
        store = ScoreStore(folder / f"{tile_px}", cut, map_count=detector.map_count, strip_bytes=strip_bytes)
        run_tiles(store, pair, detector, gsd_m=None, console=QUIET)
        assert store.tile_instances is not None
        return np.concatenate([part.change_HW for part in detector.decide(store)])


def blank(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    dates = np.full((2, height, width, 3), 9, np.uint8)  # black ground at the border would be no data
    return dates[0], dates[1]


def town(seed: int, height: int, width: int, *, most_px: int = 45, count: int = 25) -> tuple[np.ndarray, np.ndarray]:
    """Houses that don't meet houses and halls that don't meet halls, many of both at one place; half of all stay."""
    rng = np.random.default_rng(seed)
    t1, t2 = blank(height, width)
    for image, channel in itertools.product((t1, t2), (0, 1)):
        for _ in range(count):
            size, bit = rng.integers(2, most_px, 2), BITS[rng.integers(3)]
            row, col = rng.integers(0, height - 1), rng.integers(0, width - 1)
            place = slice(row, row + size[0]), slice(col, col + size[1])
            around = slice(max(0, row - 1), row + size[0] + 1), slice(max(0, col - 1), col + size[1] + 1)
            if image[(*around, channel)].max() < BITS[0]:
                image[(*place, channel)] = bit
    t2[:, : width // 2] = t1[:, : width // 2]
    for image in (t1, t2):
        image[..., 2] = (
            rng.integers(0, 2, (height // 16 + 1, width // 16 + 1), dtype=np.uint8)
            .repeat(16, 0)
            .repeat(16, 1)[:height, :width]
            * 255
        )
    return t1, t2


def as_pseudo(dates, detector: VLMDetector) -> np.ndarray:
    """The label of `semicdvl pseudo` for the whole picture."""
    answers = [detector.vlm.segment(image, PROMPTS.words) for image in dates]
    features = None if detector.features is None else PairFeatures(*(map(detector.features.extract_features, dates)))
    return make_labels(*answers, prompts=PROMPTS, settings=detector.settings, features=features).change_HW == 1


@pytest.mark.parametrize("own", [True, False], ids=["own instances", "components"])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_one_tile_is_what_pseudo_says(tmp_path, options, own):
    detector = detector_of(BitVLM(own=own), **options)
    for seed in (0, 1):
        dates = town(seed, 96, 128, most_px=20, count=15)
        found = decided(tmp_path / str(seed), dates, detector, tile_px=128)
        assert 0.005 < (found == 1).mean() < 0.7
        np.testing.assert_array_equal(found == 1, as_pseudo(dates, detector))


@pytest.mark.parametrize("level", ["instance", "mixed"])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_tiles_make_no_difference(tmp_path, options, level):
    detector = detector_of(level=level, **options)
    dates = town(len(options), 160, 224)
    one = decided(tmp_path, dates, detector, tile_px=224)
    assert 0.005 < (one == 1).mean() < 0.7
    np.testing.assert_array_equal(one == 1, as_pseudo(dates, detector))
    for tile_px in (64, 96):
        np.testing.assert_array_equal(decided(tmp_path, dates, detector, tile_px=tile_px), one)


def test_components_of_tiles_have_looks_too(tmp_path):
    detector = detector_of(BitVLM(own=False), min_cosine=0.4, shift_px=1)
    dates = town(3, 160, 224)
    one = decided(tmp_path, dates, detector, tile_px=224)
    plain = decided(tmp_path / "plain", dates, detector_of(BitVLM(own=False), shift_px=1), tile_px=224)
    assert ((one == 1) > (plain == 1)).any() and not ((plain == 1) > (one == 1)).any()
    for tile_px in (64, 96):
        np.testing.assert_array_equal(decided(tmp_path, dates, detector, tile_px=tile_px), one)


def test_overlapping_objects_are_judged_one_by_one(tmp_path):
    """Two houses lie half over each other; one of them meets a house of the other date, and only the other went."""
    t1, t2 = blank(128, 128)
    t1[20:40, 20:60, 0] |= 32
    t1[20:40, 50:90, 0] |= 64
    t2[20:40, 20:30, 0] = 32
    wanted = np.zeros((128, 128), bool)
    wanted[20:40, 50:90] = True
    for tile_px in (128, 64):
        found = decided(tmp_path, (t1, t2), detector_of(), tile_px=tile_px)
        np.testing.assert_array_equal(found == 1, wanted)
    components = decided(tmp_path / "maps", (t1, t2), detector_of(BitVLM(own=False)), tile_px=128)
    assert not (components == 1).any(), "as one component they meet"


@pytest.mark.parametrize("corner", [None, (12, 14), (148, 16), (14, 148), (150, 150)])
def test_an_object_over_many_tiles_is_one(tmp_path, corner):
    """What lies over 4 x 4 tiles is no event, in none of them, if it meets something in any of them."""
    t1, t2 = blank(160, 170)
    t1[10:152, 12:155, 0] = 32
    if corner is not None:
        t2[corner[0], corner[1], 0] = 64
    found = decided(tmp_path, (t1, t2), detector_of(), tile_px=64)
    assert int((found == 1).sum()) == (142 * 143 if corner is None else 0)


def test_objects_end_where_there_is_no_data(tmp_path):
    """A house reaches from ground that both dates show to ground of one date: there it neither meets nor counts."""
    t1, t2 = (np.concatenate([image, np.full((96, 96, 1), 255, np.uint8)], axis=2) for image in blank(96, 96))
    t1[10:30, 10:60, 0] = 32
    t2[10:30, 40:80, 0] = 32
    t2[:, 35:, 3] = 0
    for tile_px in (96, 64):
        found = decided(tmp_path, (t1, t2), detector_of(), tile_px=tile_px)
        wanted = np.zeros((96, 96), np.uint8)
        wanted[10:30, 10:35] = 1
        wanted[:, 35:] = IGNORE
        np.testing.assert_array_equal(found, wanted)


def test_what_a_vlm_paints_over_no_data_is_cut_off():
    """A mask that reaches over ground without data, or into a tile's padding, ends there; what is left has its box."""
    scores_CHW = np.full((3, 10, 14), 0.5, np.float32)
    disc, outside = np.zeros((10, 14), bool), np.zeros((10, 14), bool)
    disc[2:9, 3:13], outside[:, 12:] = True, True
    found = tuple(Instance(mask, prompt, 0.7) for mask, prompt in ((disc, 1), (outside, 0), (disc, 2)))
    valid_HW = np.ones((8, 12), bool)
    valid_HW[:, :6] = valid_HW[7] = False
    told = crop_tile_instances(
        Segments(scores_CHW, PROMPTS.words, found), Segments(scores_CHW, PROMPTS.words, ()),
        foreground=PROMPTS.foreground, valid_HW=valid_HW,
    )  # fmt: skip
    assert told is not None and [(one.date, one.row, one.col, one.prompt) for one in told] == [(0, 2, 6, 1)]
    assert decode_mask(told[0].mask).shape == (5, 6) and decode_mask(told[0].mask).all()


def test_what_a_tile_tells_can_travel():
    t1, t2 = town(0, 64, 96)
    valid_HW = np.ones((60, 90), bool)
    detector = detector_of(min_cosine=0.4)
    told = detect_tile(detector, pickle.loads(pickle.dumps(TileJob((t1, t2), valid_HW))), gsd_m=None)
    again = pickle.loads(pickle.dumps(told))
    assert again.instances == told.instances and len(told.instances) > 10
    assert all(one.row + one.mask["size"][0] <= 60 and one.col + one.mask["size"][1] <= 90 for one in told.instances)
    assert told.features_2DHW.shape == (2, 2, 4, 6) and told.scores_PHW.shape == (6, 64, 96)
    assert {one.prompt for one in told.instances} == {0, 1}, "the road is background"
    nothing = detect_tile(detector, TileJob(None, np.zeros((60, 90), bool)), gsd_m=None)
    assert nothing.scores_PHW is None and nothing.instances == ()


# ------------------------------------------------------------------------------------------------ as people see it
def street(shift_px: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """One house of 24 x 32 px that is there at both dates, on a raster of several tiles, over their borders."""
    t1, t2 = blank(128, 160)
    t1[48:72, 50:82, 0], t2[48:72, 50 + shift_px : 82 + shift_px, 0] = 32, 32
    return t1, t2


@pytest.mark.parametrize("own", [True, False], ids=["own instances", "components"])
def test_rebuilt_merged_split_and_shifted_houses(tmp_path, own):
    """The cases an analyst asks for: which are changes, and under which option."""

    def changed(name, dates, **options):
        return bool((decided(tmp_path / name, dates, detector_of(BitVLM(own=own), **options), tile_px=64) == 1).any())

    t1, t2 = street()
    t2[48:72, 50:82, 2] = 255  # the same outline, another roof
    assert not changed("rebuilt", (t1, t2)) and changed("rebuilt with looks", (t1, t2), min_cosine=0.5)
    assert not changed("the same with looks", street(), min_cosine=0.5)
    t1, t2 = street()
    t1[48:72, 64:67, 0] = 9  # seen as two houses before, as one after: merged, and, the other way round, split
    for name, dates in (("merged", (t1, t2)), ("split", (t2, t1))):
        assert not changed(name, dates) and not changed(f"{name} with looks", dates, min_cosine=0.5)
        assert changed(f"{name} with a bound", dates, replaced_iou=0.7), "the halves are poor matches of the whole"
    shifted = street(shift_px=2)  # the same house, 2 px further: an IoU of 0.88, and of 1 once it may move
    assert not changed("shifted", shifted) and changed("with a bound", shifted, replaced_iou=0.95)
    assert not changed("with both", shifted, replaced_iou=0.95, shift_px=2)
    beside = street(shift_px=33)  # one empty column in between
    assert changed("beside", beside) and not changed("beside, tolerant", beside, shift_px=2)
    assert changed("further off", street(shift_px=35), shift_px=2)


def test_min_cosine_and_features_belong_together():
    with pytest.raises(ConfigError, match="min_cosine and features belong together"):
        VLMDetector(BitVLM(), PROMPTS, CEGSettings(level="instance", min_cosine=0.5))
    with pytest.raises(ConfigError, match="--features"):
        VLMDetector(BitVLM(), PROMPTS, CEGSettings(level="instance"), Blueness())


def test_answers_that_do_not_fit_each_other_are_refused(tmp_path):
    class OneDate(BitVLM):
        def segment(self, image_HWC, prompts, *, gsd_m=None):
            self.own = not self.own
            return super().segment(image_HWC, prompts)

    class NoNumbers(Blueness):
        def extract_features(self, image_HWC):
            return super().extract_features(image_HWC) * np.float32(np.nan)

    with pytest.raises(ConfigError, match="one date has instances"):
        decided(tmp_path, street(), detector_of(OneDate()), tile_px=64)
    with pytest.raises(DataError, match="NaN"):
        decided(tmp_path, street(), replace(detector_of(min_cosine=0.4), features=NoNumbers()), tile_px=96)


# ------------------------------------------------------------------------------------------------ interrupted
TILES = DetectionConfig(tile_px=64, overlap_px=32)


def result_of(out: Path) -> dict:
    rows = gpd.read_file(out / "changes.gpkg", layer="changes").to_json(drop_id=True)
    return {name: (out / name).read_bytes() for name in ("change.tif", "score.tif", "t1.tif")} | {"changes": rows}


def test_goes_on_after_a_kill_with_the_objects_and_looks_it_had(tmp_path):
    paths, options = save(tmp_path, *town(5, 160, 120)), {"min_cosine": 0.4, "shift_px": 1}
    write_detection(*paths, tmp_path / "whole", detector=detector_of(**options), config=TILES, progress=QUIET)
    script = (
        "import sys; sys.path.insert(0, sys.argv[1]); import tests.detection.tiles.test_instance_store as t;"
        "from pathlib import Path;"
        "killed = t.detector_of(t.BitVLM(stop_at=20, kill=True), min_cosine=0.4, shift_px=1);"
        "t.write_detection(*map(Path, sys.argv[2:5]), detector=killed, config=t.TILES)"
    )
    where = [str(ROOT), *map(str, paths), str(tmp_path / "out")]
    killed = subprocess.run([sys.executable, "-c", script, *where], capture_output=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    kept = tmp_path / ".out.partial" / "tiles"
    assert (kept / "00000.objects").is_file() and (kept / "00000.features").is_file()
    vlm = BitVLM()
    write_detection(*paths, tmp_path / "out", detector=detector_of(vlm, **options), config=TILES, progress=QUIET)
    tiles = json.loads((tmp_path / "out" / "run.json").read_text())["tiles"]
    assert tiles["from_an_interrupted_run"] > 0 and len(vlm.seen) < 2 * tiles["all"]
    assert result_of(tmp_path / "out") == result_of(tmp_path / "whole")


@pytest.mark.parametrize("kind", ["objects", "features"])
def test_damaged_objects_are_found_again(tmp_path, kind):
    with open_pair(*map(str, save(tmp_path, *town(6, 160, 120)))) as pair:
        cut, detector = plan_tiles(160, 120, tile_px=64, overlap_px=32), detector_of(min_cosine=0.4)
        (tmp_path / "store").mkdir()
        store = ScoreStore(tmp_path / "store", cut, map_count=detector.map_count)
        run_tiles(store, pair, detector, gsd_m=None, console=QUIET)
        assert store.count_finished_rows() == len(cut.rows) == 4
        path = tmp_path / "store" / f"00002.{kind}"
        whole = path.read_bytes()
        path.write_bytes(whole[:-3])
        again = ScoreStore(tmp_path / "store", cut, map_count=detector.map_count)
        assert again.count_finished_rows() == 2
        run_tiles(again, pair, detector, gsd_m=None, console=QUIET)
        assert path.read_bytes() == whole and again.count_finished_rows() == 4
