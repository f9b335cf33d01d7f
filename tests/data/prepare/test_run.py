"""Training patches from two rasters and polygons: labels, subsets, resuming, and what cannot be prepared."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.enums import ColorInterp
from rich.console import Console
from shapely.geometry import Polygon, box
from tests.support.command import command

from semicdvl.config import parse_recipe
from semicdvl.data.images.cache import ImageCache
from semicdvl.data.images.reading import read_rgb
from semicdvl.data.labels.files import read_mask
from semicdvl.data.name_lists import read_name_list
from semicdvl.data.pairs import read_class_maps
from semicdvl.data.prepare import patch_cutter
from semicdvl.data.prepare.config import PrepareSettings
from semicdvl.data.prepare.results import PreparedPatches
from semicdvl.data.prepare.run import prepare_patches
from semicdvl.data.prepare.spatial_split import (
    CutPatch,
)
from semicdvl.data.readers import folder
from semicdvl.errors import ConfigError, DataError, InputError, OutputError
from semicdvl.training.run import train_recipe
from semicdvl.types import IGNORE

QUIET = Console(quiet=True)
UTM, CORNER = "EPSG:32633", (400_000.0, 5_600_000.0)
HEIGHT, WIDTH = 330, 400
VALUES = {0: 0, 128: IGNORE, 255: 1}


def on_map(row: float, col: float, height: float, width: float) -> Polygon:
    """A rectangle of pixels (0.5 m) in map units."""
    x, y = CORNER[0] + col * 0.5, CORNER[1] - row * 0.5
    return box(x, y - height * 0.5, x + width * 0.5, y)


def raster(path: Path, image_HWC: np.ndarray, *, row: float = 0, col: float = 0) -> Path:
    profile = {"driver": "GTiff", "dtype": "uint8", "count": 3, "height": len(image_HWC), "width": image_HWC.shape[1]}
    transform = Affine(0.5, 0, CORNER[0] + col * 0.5, 0, -0.5, CORNER[1] - row * 0.5)
    with rasterio.open(path, "w", crs=UTM, transform=transform, photometric="RGB", **profile) as target:
        target.write(np.moveaxis(image_HWC, 2, 0))
    return path


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two dates of noise in which roofs appear, and what a GIS knows of it; the roofs lie on a grid of 41 x 43 px."""
    root = tmp_path_factory.mktemp("town")
    rng = np.random.default_rng(0)
    t1 = rng.integers(60, 120, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    t2 = rng.integers(60, 120, (HEIGHT + 8, WIDTH + 4, 3), dtype=np.uint8)
    roofs = [(row, col, 14, 17) for row in range(5, HEIGHT - 20, 41) for col in range(9, WIDTH - 20, 43)]
    for row, col, height, width in roofs:
        t2[row + 8 : row + 8 + height, col + 4 : col + 4 + width] = 230
    frame = gpd.GeoDataFrame(geometry=[on_map(*roof) for roof in roofs], crs=UTM)
    frame.to_crs(4326).to_file(root / "changes.gpkg")
    area = gpd.GeoDataFrame(geometry=[on_map(-10, -10, HEIGHT + 20, 268)], crs=UTM)
    area.to_file(root / "aoi.gpkg")
    return {
        "before": raster(root / "before.tif", t1),
        "after": raster(root / "after.tif", t2, row=-8, col=-4),  # another extent, the same pixels
        "labels": root / "changes.gpkg",
        "labelled_area": root / "aoi.gpkg",
    }


SMALL = PrepareSettings(size_px=32, buffer_px=8, block_m=48, seed=1, min_known_frac=0.5)


def run(town: dict[str, Path], out: Path, settings: PrepareSettings = SMALL, **changes: Any) -> PreparedPatches:
    files = {**town, **changes}
    before, after = files.pop("before"), files.pop("after")
    return prepare_patches(before, after, out, settings=settings, console=QUIET, **files)


@pytest.fixture(scope="module")
def made(town: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> PreparedPatches:
    return run(town, tmp_path_factory.mktemp("made") / "DATA")


def test_patches_equal_the_windows_of_rasters_and_polygons(made: PreparedPatches, town: dict[str, Path]) -> None:
    data = folder.read_folder(made.out)
    with rasterio.open(town["before"]) as before, rasterio.open(town["after"]) as after:
        t1_HWC, t2_HWC = np.moveaxis(before.read(), 0, 2), np.moveaxis(after.read(), 0, 2)[8:, 4:]
    for pair in data.pairs:
        row, col = int(pair.name[1:7]), int(pair.name[9:15])
        here = slice(row, row + 32), slice(col, col + 32)
        np.testing.assert_array_equal(read_rgb(pair.before), t1_HWC[here])
        np.testing.assert_array_equal(read_rgb(pair.after), t2_HWC[here])
        if pair.label is not None:
            label_HW = read_mask(pair.label, label_values=VALUES)
            known_HW = np.broadcast_to(np.arange(col, col + 32) < 258, (32, 32))
            np.testing.assert_array_equal(label_HW != IGNORE, known_HW)
            np.testing.assert_array_equal(label_HW[known_HW] == 1, (t2_HWC[here] == 230).all(axis=2)[known_HW])
    assert {pair.label is None for pair in data.pairs} == {True, False}
    assert any((read_mask(pair.label, label_values=VALUES) == IGNORE).any() for pair in data.pairs if pair.label)


def test_subsets_are_blocks_of_ground_with_gaps(made: PreparedPatches) -> None:
    assert made.leakage.touching == {"val": 0, "test": 0}
    assert all(gap is not None and gap >= 8 for gap in made.leakage.nearest_px.values())
    rows = {stats.subset: (stats.labelled, stats.unlabelled) for stats in made.subset_stats}
    assert rows["train"][1] > 0 and rows["val"][1] == rows["test"][1] == 0
    total = sum(labelled for labelled, _ in rows.values())
    assert rows["test"][0] == pytest.approx(0.25 * total, abs=0.12 * total) and rows["val"][0] > 0
    listed = {side: read_name_list(made.out / "list" / f"{side}.txt") for side in ("train", "val", "test")}
    names = [name for side in listed.values() for name in side]
    assert sorted(names) == sorted(pair.name for pair in folder.read_folder(made.out).pairs) and len(set(names)) == len(
        names
    )
    outlines = gpd.read_file(made.out / "patches.gpkg")
    by_side = {side: frame.union_all() for side, frame in outlines[outlines.side != "left_out"].groupby("side")}
    assert by_side["train"].distance(by_side["test"]) >= 4 and by_side["val"].distance(by_side["test"]) >= 4  # 8 px
    assert made.split.left_out and set(outlines.crs.to_authority()) == {"EPSG", "32633"}


def test_touching_patches_are_counted_where_there_is_no_gap(town: dict[str, Path], tmp_path: Path) -> None:
    tight = run(town, tmp_path / "DATA", PrepareSettings(size_px=32, buffer_px=0, block_m=32))
    assert tight.block_patches == 2 and tight.leakage.nearest_px == {"val": 0, "test": 0}
    assert tight.leakage.touching["test"] > 0 and "touch a training patch" in tight.summary


def test_labels_hold_no_unknown_pixels_by_default(town: dict[str, Path], tmp_path: Path) -> None:
    plain = run(town, tmp_path / "DATA", PrepareSettings(size_px=32, buffer_px=8, seed=1))
    labelled = [pair for pair in folder.read_folder(plain.out).pairs if pair.label is not None]
    assert labelled and all(set(np.unique(read_mask(pair.label))) <= {0, 1} for pair in labelled if pair.label)
    assert all(int(pair.name[9:15]) + 32 <= 258 for pair in labelled) and "label_values" not in plain.summary


def test_an_interrupted_run_resumes(
    town: dict[str, Path], made: PreparedPatches, tmp_path: Path, monkeypatch: Any
) -> None:
    real, calls = patch_cutter._cut_patch, []

    def stopped_at(last: int) -> Callable[..., CutPatch]:
        def cut_one(*args: Any, **options: Any) -> CutPatch:
            calls.append(args[1].name)
            if len(calls) == last:
                raise KeyboardInterrupt
            return real(*args, **options)

        return cut_one

    out = tmp_path / "DATA"
    monkeypatch.setattr(patch_cutter, "_cut_patch", stopped_at(20))
    with pytest.raises(KeyboardInterrupt):
        run(town, out)
    assert json.loads((out / "prepare.json").read_text())["status"] == "started" and not (out / "list").exists()
    journal = out / "patches.jsonl"
    journal.write_text(journal.read_text() + '{"row": 3, "co')  # killed while writing a line
    monkeypatch.setattr(patch_cutter, "_cut_patch", stopped_at(10**6))
    again = run(town, out)
    assert len(calls) == len(set(calls)) + 1  # only the interrupted one twice
    assert again.split == made.split and "finished" in (out / "prepare.json").read_text()
    for file in sorted(made.out.rglob("*.png")) + sorted(made.out.rglob("*.txt")):
        assert (out / file.relative_to(made.out)).read_bytes() == file.read_bytes()
    with pytest.raises(OutputError, match="other inputs or settings"):
        run(town, out, PrepareSettings(size_px=48))


def test_a_mosaic_whose_tiles_were_replaced_is_another_input(town: dict[str, Path], tmp_path: Path) -> None:
    tiles = tmp_path / "tiles"
    tiles.mkdir()
    for name, start in (("left.tif", 0), ("right.tif", 200)):
        with rasterio.open(town["before"]) as source:
            raster(tiles / name, np.moveaxis(source.read(), 0, 2)[:, start : start + 200], col=start)
    assert run(town, tmp_path / "DATA", before=tiles).split == run(town, tmp_path / "DATA", before=tiles).split
    raster(tiles / "left.tif", np.full((HEIGHT, 200, 3), 200, np.uint8))
    with pytest.raises(OutputError, match="holds patches of other inputs or settings"):
        run(town, tmp_path / "DATA", before=tiles)


def test_patches_without_data_are_skipped_and_counted(town: dict[str, Path], tmp_path: Path) -> None:
    with rasterio.open(town["before"]) as source:
        image_HWC = np.moveaxis(source.read(), 0, 2)
    image_HWC[:, 300:] = 0  # a black border without a tag
    dark = run(town, tmp_path / "DATA", before=raster(tmp_path / "dark.tif", image_HWC), labelled_area=None)
    assert dark.skipped > 10 and any("black border" in note for note in dark.notes)
    assert all(patch.cell.col < 300 for patch in (*dark.split.train, *dark.split.test))
    assert any("counts as unchanged" in note for note in dark.notes)
    assert not any(stats.unlabelled for stats in dark.subset_stats) and "small-supervised" in dark.summary


def test_a_network_trains_on_the_patches(made: PreparedPatches, tmp_path: Path) -> None:
    command_line = made.summary.splitlines()[-1]
    assert "semicdvl train recipes/small-semicd_vl.toml" in command_line and "data.label_values" in command_line
    recipe = {
        "data": {"root": str(made.out), "crop_px": 32, "label_values": {"0": 0, "128": 255, "255": 1}},
        "model": {"name": "tests.support.plain_network:build"},
        "method": {"name": "fixmatch"},
        "train": {"steps": 2, "labelled_batch": 2, "unlabelled_batch": 2, "eval_every": 2, "device": "cpu"},
    }
    trained = train_recipe(parse_recipe(recipe, source="test"), tmp_path / "run", quiet=True)
    assert any("iou" in scores for scores in trained.list_score_columns().values())


def test_command_prepares_and_names_missing_options(
    town: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = [f"--{name.replace('_', '-')}={path}" for name, path in town.items()]
    code, printed, _ = command(capsys, "prepare", *options, "-o", tmp_path / "DATA", "--size-px", 48)
    assert code == 0 and "0 of" in printed and f"semicdvl pseudo {tmp_path / 'DATA'}" in printed
    code, _, complained = command(capsys, "prepare", *options[:2])
    assert code == 2 and "--labels, --output missing" in complained and "Traceback" not in complained


def test_unusable_inputs_are_refused_and_nothing_is_written(town: dict[str, Path], tmp_path: Path) -> None:
    far = tmp_path / "far.gpkg"
    gpd.GeoDataFrame(geometry=[on_map(9000, 0, 10, 10)], crs=UTM).to_file(far)
    beside = tmp_path / "beside.gpkg"
    gpd.GeoDataFrame(geometry=[on_map(0, 0, 3, 3)], crs=UTM).to_file(beside)
    out = tmp_path / "DATA"
    with pytest.raises(InputError, match=r"far\.gpkg.*touches the images"):
        run(town, out, labels=far)
    with pytest.raises(InputError, match=r"lies in the labelled area of beside\.gpkg"):
        run(town, out, labelled_area=beside)
    with pytest.raises(DataError, match="no patch of 512 px fits"):
        run(town, out, PrepareSettings(size_px=512))
    with pytest.raises(ConfigError, match="leave nothing to train"):
        PrepareSettings(val_frac=0.5, test_frac=0.5)
    with pytest.raises(ConfigError, match=r"min_known_frac is 1\.5"):
        PrepareSettings(min_known_frac=1.5)
    with pytest.raises(DataError, match=r"1 of 1 blocks of ground hold a labelled change, but 3 or more"):
        run(town, out, PrepareSettings(size_px=160, block_m=1000))
    assert not out.exists()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep")
    with pytest.raises(OutputError, match="not made by"):
        run(town, tmp_path / "mine")


# ------------------------------------------------------------------------------------------------ alpha band
def test_band_that_is_tagged_as_alpha_hides_what_it_is_told_to(town: dict[str, Path], tmp_path: Path) -> None:
    with rasterio.open(town["after"]) as source:
        data_CHW, profile = source.read(), source.profile
    infrared_HW = np.where(np.arange(data_CHW.shape[2])[None] < 100, 0, 200).astype(np.uint8)
    infrared_HW = np.broadcast_to(infrared_HW, data_CHW.shape[1:])
    four = tmp_path / "after.tif"
    with rasterio.open(four, "w", **{**profile, "count": 4}) as target:
        target.write(np.concatenate([data_CHW, infrared_HW[None]]))
        target.colorinterp = [*(ColorInterp.red, ColorInterp.green, ColorInterp.blue), ColorInterp.alpha]
    hidden, shown = (
        run(town, tmp_path / alpha, replace(SMALL, alpha=alpha), after=four).skipped for alpha in ("auto", "none")
    )
    assert hidden > shown


def test_defaults_of_newer_settings_leave_the_key_of_a_folder_as_it_was() -> None:
    parts = PrepareSettings().list_key_parts()
    assert not {"alpha", "stretch", "collar"} & parts.keys() and parts["size_px"] == 256
    assert PrepareSettings(alpha="none").list_key_parts()["alpha"] == "none"


# ------------------------------------------------------------------------------------------------ classes of both dates
@pytest.fixture(scope="module")
def classified(town: dict[str, Path]) -> dict[str, Path]:
    """The roofs of the town with classes: grass or (every third) 2 becomes house; one is not said, one stays house."""
    frame = gpd.read_file(town["labels"])
    frame["was"] = ["2" if row % 3 == 0 else "grass" for row in range(len(frame))]
    frame["is"] = "house "
    frame.loc[1, "was"], frame.loc[2, "was"] = None, "house"
    frame.to_file(town["labels"].with_name("classes.gpkg"))
    return town | {"labels": town["labels"].with_name("classes.gpkg")}


def test_columns_become_class_maps(classified: dict[str, Path], made: PreparedPatches, tmp_path: Path) -> None:
    settings = replace(SMALL, class_columns=("was", "is"))
    prepared = run(classified, tmp_path / "DATA", settings)
    assert prepared.classes == ("2", "grass", "house")
    pairs = folder.read_folder(tmp_path / "DATA").pairs
    classified_pairs = [pair for pair in pairs if pair.classes is not None and pair.classes.files]
    assert {pair.name for pair in classified_pairs} == {pair.name for pair in pairs if pair.label is not None}
    seen = set()
    for pair in classified_pairs:
        assert pair.label is not None
        label_HW = read_mask(pair.label, label_values=VALUES)
        t1_HW, t2_HW = read_class_maps(pair, cache=ImageCache(0))
        assert (t2_HW[label_HW == 1] == 2).all() and (t2_HW[label_HW != 1] == IGNORE).all()
        assert (t1_HW[label_HW != 1] == IGNORE).all()
        seen |= set(np.unique(t1_HW[label_HW == 1]).tolist())
        assert (label_HW == read_mask(made.out / "label" / f"{pair.name}.png", label_values=VALUES)).all()
    assert {0, 1} <= seen <= {0, 1, 2, IGNORE}
    assert any("1 polygon has no class before, or none after" in note for note in prepared.notes)
    assert any("1 polygon has the same class before and after, and counts as changed" in one for one in prepared.notes)
    assert """classes.names=["2", "grass", "house"]""" in prepared.summary
    again = run(classified, tmp_path / "DATA", settings)
    assert again.split == prepared.split, "a second run changes nothing"


def test_without_columns_a_preparation_has_the_key_that_it_had() -> None:
    assert not {"class_columns", "class_names"} & SMALL.list_key_parts().keys()


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"class_columns": ("wsa", "is")}, InputError, r"has no column 'wsa' \(known: was, is\)\. Did you mean 'was'"),
        ({"class_columns": ("is", "is")}, InputError, "cannot give classes from 'is' and 'is' .1 class names are"),
        (
            {"class_columns": ("was", "is"), "class_names": ("2", "gras", "house")},
            InputError,
            "names the class 'grass' in 'was' and 'is', which is not among 2, gras, house. Did you mean 'gras'",
        ),
    ],
)
def test_columns_and_classes_that_do_not_fit_are_refused(
    classified: dict[str, Path], tmp_path: Path, settings: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        run(classified, tmp_path / "DATA", replace(SMALL, **settings))
    assert not (tmp_path / "DATA").exists()


def test_classes_need_columns_and_names_that_differ(capsys: pytest.CaptureFixture[str], town: dict[str, Path]) -> None:
    with pytest.raises(ConfigError, match="not the columns that hold them"):
        replace(SMALL, class_names=("a", "b"))
    with pytest.raises(ConfigError, match="the class name 'a' occurs twice"):
        replace(SMALL, class_columns=("was", "is"), class_names=("a", "a"))
    files = [item for name in ("before", "after", "labels") for item in (f"--{name}", town[name])]
    code, _, complained = command(capsys, "prepare", *files, "-o", "x", "--class-columns", "from")
    assert code == 2 and "give the columns of the class before and after" in complained


# ------------------------------------------------------------------------------------------------ reading options
def test_bands_are_read_in_the_order_that_is_named(town, tmp_path, capsys):
    """Of two images whose bands are blue, green, red."""
    out, dates = tmp_path / "data", {}
    for name in ("before", "after"):
        with rasterio.open(town[name]) as source:
            data_CHW, profile = source.read(), source.profile | {"photometric": "MINISBLACK"}
        data_CHW[0] //= 2  # red is told from blue
        dates[name] = tmp_path / f"{name}.tif"
        with rasterio.open(dates[name], "w", **profile) as target:
            target.write(data_CHW[::-1])
    given = ["--before", dates["before"], "--after", dates["after"], "--labels", town["labels"], "--size-px", 32]
    code, _, error = command(capsys, "prepare", *given, "--block-m", 48, "--bands", "3,2,1", "-o", out)
    assert code == 0, error
    red, _, blue = (read_rgb(next((out / "A").iterdir()))[..., band].mean() for band in range(3))
    assert red < 0.6 * blue


def test_folder_of_a_new_project_takes_the_patches(town, tmp_path):
    """`semicdvl init` makes data/A, data/B and data/label, and advises to prepare patches into data/."""
    for name in ("A", "B", "label"):
        (tmp_path / "data" / name).mkdir(parents=True)
    labels = {"labels": town["labels"], "labelled_area": town["labelled_area"]}
    call = {"settings": SMALL, "console": QUIET, **labels}
    prepare_patches(town["before"], town["after"], tmp_path / "data", **call)
    assert any((tmp_path / "data" / "A").iterdir())
    (tmp_path / "used" / "A").mkdir(parents=True)
    (tmp_path / "used" / "A" / "mine.png").write_bytes(b"x")
    with pytest.raises(OutputError, match="exists and was not made by `semicdvl prepare`"):
        prepare_patches(town["before"], town["after"], tmp_path / "used", **call)
    assert [path.name for path in (tmp_path / "used").rglob("*.*")] == ["mine.png"]
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "A").symlink_to(tmp_path / "used" / "A")
    with pytest.raises(OutputError, match="exists and was not made by `semicdvl prepare`"):
        prepare_patches(town["before"], town["after"], tmp_path / "linked", **call)
    assert [path.name for path in (tmp_path / "used" / "A").iterdir()] == ["mine.png"]


def test_patches_are_cut_on_the_grid_of_the_result(tmp_path: Path) -> None:
    degrees = Affine(1e-5, 0, 14.999, 0, -1e-5, 60.001)  # 0.558 m wide, 1.114 m high
    rng = np.random.default_rng(0)
    profile = {"driver": "GTiff", "dtype": "uint8", "count": 3, "height": 160, "width": 320, "crs": "EPSG:4326"}
    for name in "ab":
        with rasterio.open(tmp_path / f"{name}.tif", "w", transform=degrees, **profile) as target:
            target.write(rng.integers(60, 120, (3, 160, 320), np.uint8))
    change = gpd.GeoDataFrame(geometry=[box(14.9995, 60.0, 14.9997, 60.0001)], crs="EPSG:4326")
    change.to_file(tmp_path / "changes.gpkg")
    outlines = {}
    for grid in ("before", "utm"):
        settings = PrepareSettings(size_px=64, buffer_px=0, val_frac=0, test_frac=0, grid=grid)
        files = {"labels": tmp_path / "changes.gpkg", "settings": settings, "console": QUIET}
        made = prepare_patches(tmp_path / "a.tif", tmp_path / "b.tif", tmp_path / grid, **files)
        left, bottom, right, top = gpd.read_file(made.out / "patches.gpkg").to_crs(32633).geometry.iloc[0].bounds
        outlines[grid] = (right - left) / (top - bottom)
    assert outlines["before"] == pytest.approx(0.5, abs=0.02), "as the files are"
    assert outlines["utm"] == pytest.approx(1, abs=1e-6), "square, as `detect --grid utm` has it"
