"""Training crops of the embedded model: Dubai (dense masks), UC Merced (a word or two per scene), drawn settlements."""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from aerial_cities import draw_spec
from aerial_clutter import label_of
from aerial_words import (
    COARSE_NAMES,
    DUBAI_COLOURS,
    FIRST_COARSE,
    FIRST_SCENE,
    SCENE_NAMES,
    SCENES,
    UNLABELLED,
)  # fmt: skip

Image = NDArray[np.uint8]

CROP_PX, BATCH = 224, 6
HELD_OUT_TILES = (2, 8)
"""Whole Dubai tiles that training never sees."""
TILE_SHARES = {1: 1.0, 2: 1.0, 3: 1.0, 4: 1.5, 5: 1.0, 6: 1.5, 7: 6.0, 8: 4.0}
"""How often a tile is drawn: by area and care of its masks (tile 4 outlines whole blocks as one building)."""
DUBAI_ZOOM = (0.75, 2.3)
SCENE_ZOOM = (0.3, 1.0)
TARGET_GSD_M = (0.28, 0.95)
"""Ground sampling of the crops of densely labelled images."""
"""Range of magnification to the model's native 0.5 m. UC Merced has 0.3 m. Dubai's folder says about 0.3 m, but its
villas and roads measure like 0.7 to 1 m per pixel, hence the magnification."""
SCENE_PX = 256
SCENE_GSD_M, BANEPA_GSD_M = 0.3, 0.13
BANEPA_FIRST_HELD_OUT = 386_693
"""Row of the map tiles from which Banepa is held out: the second half of the tiles by name."""
OWN_CLASSES = ("ground", "building", "paved or parked", "tree", "water", "tank", "object", "court")
"""Concept or set of each class of our own outlines; 255 is unknown."""
OWN_HELD_OUT = 7
"""One in so many of our own outlines, by its name, is kept for choosing between trainings."""


@dataclass(frozen=True)
class Dubai:
    """Images and label-id maps of the Dubai folder, with the tile number of each."""

    images: list[Image]
    labels: list[Image]
    tiles: list[int]


def read_rgb(path: Path) -> Image:
    """Return an image file as RGB uint8."""
    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if image is None:
        raise FileNotFoundError(path)
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def read_dubai(folder: Path) -> Dubai:
    """Read all images; label ids start at FIRST_COARSE in the order of COARSE."""
    images, labels, tiles = [], [], []
    for path in sorted((folder / "image").glob("*.jpg")):
        mask = read_rgb(folder / "mask" / f"{path.stem}.png")
        label = np.full(mask.shape[:2], UNLABELLED, np.uint8)
        for colour, name in DUBAI_COLOURS.items():
            label[(mask == colour).all(-1)] = FIRST_COARSE + COARSE_NAMES.index(name)
        images.append(read_rgb(path))
        labels.append(label)
        tiles.append(int(path.stem[1]))
    return Dubai(images, labels, tiles)


@dataclass(frozen=True)
class Dense:
    """One image with labels for its pixels.

    Attributes:
        image: RGB.
        label: label ids.
        scene: scene id of each pixel, for what a scene certainly shows; UNLABELLED if none.
        gsd_m: metres per pixel.
    """

    image: Image
    label: Image
    scene: Image
    gsd_m: float


class DenseImages(list[Dense]):
    """Images with labels; `shares` says how often each is drawn."""

    @property
    def shares(self) -> NDArray[np.float64]:
        """Draw by the square root of the area on the ground."""
        edges_m = np.array([dense.gsd_m * dense.image.shape[0] for dense in self])
        return edges_m / edges_m.sum()


@dataclass(frozen=True)
class Scenes:
    """UC Merced: images, scene index of each, and label-id maps (the scene's id everywhere)."""

    images: Image
    scene: NDArray[np.int64]
    labels: Image

    def canvas(self, scene_ids: list[int], rng: np.random.Generator) -> tuple[Image, Image]:
        """Return scenes side by side (4 or 9), each turned at random, and their labels HW2."""
        tiles, labels = [], []
        for scene in scene_ids:
            i = rng.choice(np.flatnonzero(self.scene == scene))
            turns = int(rng.integers(4))
            tiles.append(np.rot90(self.images[i], turns))
            label = np.rot90(self.labels[i], turns)
            labels.append(np.stack([label, np.full_like(label, FIRST_SCENE + scene)], axis=-1))
        side = math.isqrt(len(scene_ids))
        rows = range(0, len(scene_ids), side)
        image, both = (np.vstack([np.hstack(parts[r : r + side]) for r in rows]) for parts in (tiles, labels))
        return np.ascontiguousarray(image), np.ascontiguousarray(both)


def read_scenes(folder: Path, labels: tuple[Path, ...] = ()) -> Scenes:
    """Read all scenes; the few that are not 256 px get resized.

    Args:
        folder: one folder of images per class.
        labels: our own outlines, and the labels of an earlier model; where none has a scene it carries its scene's id.
    """
    own = {path.stem for path in list_own(labels[0].parent)} if labels else set()
    images, scene, maps = [], [], []
    for index, name in enumerate(SCENE_NAMES):
        for path in sorted((folder / name).glob("*.jpg")):
            images.append(cv2.resize(read_rgb(path), (SCENE_PX, SCENE_PX), interpolation=cv2.INTER_AREA))
            scene.append(index)
            label = np.full((SCENE_PX, SCENE_PX), FIRST_SCENE + index, np.uint8)
            if path.stem in own:
                label = read_own_label(labels[0] / f"{path.stem}.png")
            elif labels and (labels[1] / f"{path.stem}.png").exists():
                label = cv2.imread(str(labels[1] / f"{path.stem}.png"), cv2.IMREAD_UNCHANGED)
            maps.append(cv2.resize(label, (SCENE_PX, SCENE_PX), interpolation=cv2.INTER_NEAREST))
    return Scenes(np.stack(images), np.array(scene), np.stack(maps))


def is_own_held_out(name: str) -> bool:
    """Say whether an own outline is kept out of training: one in seven scenes, and the second half of Banepa."""
    if name.startswith("OAM"):
        return int(name.split("-")[1]) >= BANEPA_FIRST_HELD_OUT
    return zlib.crc32(name.encode()) % OWN_HELD_OUT == 0


def read_own_label(path: Path) -> Image:
    """Return the label ids of one of our own outlines."""
    classes = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    table = np.full(256, UNLABELLED, np.uint8)
    table[: len(OWN_CLASSES)] = [label_of(name) for name in OWN_CLASSES]
    return table[classes]


def list_own(folder: Path) -> list[Path]:
    """Return the label files of our own outlines that are trained on."""
    return [path for path in sorted(folder.glob("*/*.png")) if not is_own_held_out(path.stem)]


def read_own(data: Path, labels: Path) -> DenseImages:
    """Read our own outlines of UC Merced scenes and Banepa tiles with their images."""
    result = DenseImages()
    for path in list_own(labels):
        label = read_own_label(path)
        if path.parent.name == "banepa":
            image = read_rgb(data / "banepa" / "image" / f"{path.stem}.jpg")
            result.append(_dense(image, label, BANEPA_GSD_M))
            continue
        scene = path.stem.rstrip("0123456789")
        image = cv2.resize(read_rgb(data / "ucmerced" / scene / f"{path.stem}.jpg"), label.shape[::-1])
        shown = np.full_like(label, FIRST_SCENE + SCENE_NAMES.index(scene))
        result.append(Dense(image, label, shown, SCENE_GSD_M))
    return result


CITY_LABELS = (
    "building", "road", "paved or parked", "grass", "tree", "water", "bare or paved", "field", "paved or parked",
)  # fmt: skip
"""Concept or set of each class of the synthetic city."""


def _dense(image: Image, label: Image, gsd_m: float) -> Dense:
    return Dense(image, label, np.full_like(label, UNLABELLED), gsd_m)


def read_cities(folder: Path) -> DenseImages:
    """Read the rendered cities."""
    table = np.array([label_of(name) for name in CITY_LABELS], np.uint8)
    result = DenseImages()
    for path in sorted(folder.glob("*_classes.png")):
        spec = draw_spec(int(path.name.split("_")[0]))
        classes = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        image = read_rgb(path.with_name(path.name.replace("classes", "image")))
        result.append(_dense(image, table[classes], spec.gsd_m))
    return result


def read_settlements(folder: Path) -> DenseImages:
    """Read the drawn settlements."""
    result = DenseImages()
    for path in sorted(folder.glob("*_labels.png")):
        image = read_rgb(path.with_name(path.name.replace("labels", "image")))
        result.append(_dense(image, cv2.imread(str(path), cv2.IMREAD_UNCHANGED), SCENE_GSD_M))
    return result


@dataclass(frozen=True)
class Sources:
    """All that is trained on."""

    dubai: Dubai
    scenes: Scenes
    settlements: DenseImages
    cities: DenseImages
    own: DenseImages


def read_sources(data: Path, work: Path, labels: Path) -> Sources:
    """Read all sources; what was not prepared in `work` is left out."""
    own = read_own(data, labels)
    scenes = read_scenes(data / "ucmerced", (labels / "ucmerced", work / "pseudo"))
    drawn, cities = read_settlements(work / "settlements"), read_cities(work / "cities")
    return Sources(read_dubai(data / "dubai"), scenes, drawn, cities, own)


# ------------------------------------------------------------------------------------------------ geometry
def cut_crop(
    image: Image, label: Image, *, centre: tuple[float, float], zoom: float, angle: float
) -> tuple[Image, Image]:
    """Return a crop of CROP_PX around `centre` (row, col), turned by `angle` and magnified by `zoom`.

    Args:
        image: HWC, RGB.
        label: HW2, label ids and scene ids; UNLABELLED outside of the image.
        centre: row and column of the middle, in pixels of `image`.
        zoom: magnification.
        angle: rotation in radians.
    """
    if zoom < 0.8:  # warpAffine does not average, so shrink properly first
        factor = zoom / 0.9 if zoom < 0.6 else zoom
        size = (round(image.shape[1] * factor), round(image.shape[0] * factor))
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        label = cv2.resize(label, size, interpolation=cv2.INTER_NEAREST)
        centre, zoom = (centre[0] * factor, centre[1] * factor), zoom / factor
    matrix = cv2.getRotationMatrix2D((centre[1], centre[0]), np.degrees(angle), zoom)
    matrix[:, 2] += (CROP_PX / 2 - centre[1], CROP_PX / 2 - centre[0])
    size = (CROP_PX, CROP_PX)
    turned = cv2.warpAffine(image, matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
    outside = (UNLABELLED, UNLABELLED)
    marks = cv2.warpAffine(label, matrix, size, flags=cv2.INTER_NEAREST, borderValue=outside)
    return turned, marks


def _angle(rng: np.random.Generator) -> float:
    quarter = rng.integers(4) * np.pi / 2
    return float(quarter + (rng.uniform(-0.8, 0.8) if rng.random() < 0.5 else 0.0))


def _log_uniform(bounds: tuple[float, float], rng: np.random.Generator) -> float:
    return float(np.exp(rng.uniform(np.log(bounds[0]), np.log(bounds[1]))))


def _flip(image: Image, label: Image, rng: np.random.Generator) -> tuple[Image, Image]:
    return (image[:, ::-1], label[:, ::-1]) if rng.random() < 0.5 else (image, label)


# ------------------------------------------------------------------------------------------------ colour
def vary_radiometry(image: Image, rng: np.random.Generator) -> Image:
    """Return the crop under another sensor, season and sky: gain, gamma, saturation, haze, blur, noise, JPEG."""
    x = image.astype(np.float32) / 255
    x = x ** np.float32(np.exp(rng.normal(0, 0.25)))
    x *= (np.exp(rng.normal(0, 0.25)) * np.exp(rng.normal(0, 0.07, 3))).astype(np.float32)
    grey = x @ np.array((0.3, 0.59, 0.11), np.float32)
    saturation = rng.uniform(0.0, 0.4) if rng.random() < 0.1 else rng.uniform(0.5, 1.5)
    x = grey[..., None] + (x - grey[..., None]) * np.float32(saturation)
    x = (x - x.mean()) * np.float32(rng.uniform(0.6, 1.35)) + x.mean() + np.float32(rng.normal(0, 0.06))
    if rng.random() < 0.25:
        sky = np.array((0.75, 0.8, 0.85), np.float32) + rng.normal(0, 0.05, 3).astype(np.float32)
        haze = np.float32(rng.uniform(0.05, 0.45))
        x = x * (1 - haze) + sky * haze
    if rng.random() < 0.4:
        x = cv2.GaussianBlur(x, (0, 0), rng.uniform(0.3, 1.3))
    if rng.random() < 0.3:
        x = x + rng.normal(0, rng.uniform(0.005, 0.04), x.shape).astype(np.float32)
    out = np.clip(x * 255, 0, 255).astype(np.uint8)
    if rng.random() < 0.3:
        _, code = cv2.imencode(".jpg", out, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(35, 92))])
        out = cv2.imdecode(code, cv2.IMREAD_COLOR)
    return out


# ------------------------------------------------------------------------------------------------ crops
KINDS = {"dubai": 0.2, "scene": 0.12, "built": 0.2, "settlement": 0.22, "city": 0.14, "own": 0.3}
"""How often a crop of each kind is drawn, among the kinds that there are."""
OWN_SHARE_OF_ONE = 0.006
"""At most this share for each of our own outlines: few images are not shown over and over."""
KIND_NAMES = tuple(KINDS)


class Crops:
    """Draws training crops; every kind gives an image and a label (label ids, scene ids) of CROP_PX."""

    def __init__(self, sources: Sources, *, held_out: tuple[int, ...] = HELD_OUT_TILES) -> None:
        """Index what can be drawn; the held-out tiles stay out."""
        dubai, scenes = sources.dubai, sources.scenes
        self.dubai, self.scenes = dubai, scenes
        self.dense = {"settlement": sources.settlements, "city": sources.cities, "own": sources.own}
        self.usable = [i for i, tile in enumerate(dubai.tiles) if tile not in held_out]
        shares = np.array([TILE_SHARES[dubai.tiles[i]] for i in self.usable])
        self.shares = shares / shares.sum()
        building = FIRST_COARSE + COARSE_NAMES.index("building")
        self.spots = {i: np.argwhere(dubai.labels[i][::8, ::8] == building) * 8 for i in self.usable}
        self.built = [SCENE_NAMES.index(name) for name, (_, shares) in SCENES.items() if "building" in shares]
        self.built += [SCENE_NAMES.index("storagetanks")]
        there = {kind: share for kind, share in KINDS.items() if self.dense.get(kind, True)}
        if sources.own:
            there["own"] = min(KINDS["own"], OWN_SHARE_OF_ONE * len(sources.own))
        self.kinds = tuple(there)
        self.kind_shares = np.array(list(there.values())) / sum(there.values())

    def dubai_crop(self, rng: np.random.Generator) -> tuple[Image, Image]:
        """Return a Dubai crop; two of three are centred near a building."""
        i = self.usable[rng.choice(len(self.usable), p=self.shares)]
        image, label = self.dubai.images[i], self.dubai.labels[i]
        if len(self.spots[i]) and rng.random() < 0.67:
            row, col = self.spots[i][rng.integers(len(self.spots[i]))] + rng.uniform(-60, 60, 2)
        else:
            row, col = rng.uniform(0, image.shape[0]), rng.uniform(0, image.shape[1])
        zoom = _log_uniform(DUBAI_ZOOM, rng)
        edge = int(CROP_PX / zoom) + 8
        row, col = np.clip(row, 0, image.shape[0] - 1), np.clip(col, 0, image.shape[1] - 1)
        window = tuple(slice(max(0, int(p) - edge), int(p) + edge) for p in (row, col))
        centre = (row - window[0].start, col - window[1].start)
        both = np.stack([label[window], np.full_like(label[window], UNLABELLED)], axis=-1)
        return _flip(*cut_crop(image[window], both, centre=centre, zoom=zoom, angle=_angle(rng)), rng)

    def scene_crop(self, rng: np.random.Generator) -> tuple[Image, Image]:
        """Return a crop of real scenes as they are."""
        first = int(rng.integers(len(SCENE_NAMES)))
        zoom = _log_uniform(SCENE_ZOOM, rng)
        count = _scene_count(zoom)
        others = (
            [first] * (count - 1) if rng.random() < 0.6 else rng.integers(len(SCENE_NAMES), size=count - 1).tolist()
        )
        return _cut_canvas(*self.scenes.canvas([first, *others], rng), zoom, rng)

    def built_crop(self, rng: np.random.Generator) -> tuple[Image, Image]:
        """Return a crop of real scenes of one class that certainly shows buildings."""
        zoom = _log_uniform(SCENE_ZOOM, rng)
        return _cut_canvas(*self.scenes.canvas([int(rng.choice(self.built))] * _scene_count(zoom), rng), zoom, rng)

    def dense_crop(self, kind: str, rng: np.random.Generator) -> tuple[Image, Image]:
        """Return a crop of an image with dense labels: a city, a tile of Banepa, a scene with own outlines."""
        images = self.dense[kind]
        chosen = images[rng.choice(len(images), p=images.shares)]
        zoom = chosen.gsd_m / _log_uniform(TARGET_GSD_M, rng)
        image, both = chosen.image, np.stack([chosen.label, chosen.scene], axis=-1)
        room = CROP_PX / zoom / image.shape[0]
        if room > 1:  # a small image: four of them, turned, or mirrored at the borders
            image, both = _mirror_around(image), _mirror_around(both)
        height, width = image.shape[:2]
        reach = min(0.5, 0.5 * CROP_PX / zoom / height)
        row, col = height * rng.uniform(reach, 1 - reach), width * rng.uniform(reach, 1 - reach)
        return _flip(*cut_crop(image, both, centre=(row, col), zoom=zoom, angle=_angle(rng)), rng)

    def draw_kinds(self, rng: np.random.Generator) -> list[str]:
        """Return the kinds of one batch; at least one has buildings outlined densely outside the desert."""
        return [str(kind) for kind in rng.choice(self.kinds, size=BATCH - 1, p=self.kind_shares)] + ["settlement"]

    def batch(self, seed: int) -> tuple[Image, Image, NDArray[np.int64]]:
        """Return images BHWC, labels BHW2 and the index of each kind; the same seed gives the same batch."""
        rng = np.random.default_rng(seed)
        draw = {"dubai": self.dubai_crop, "scene": self.scene_crop, "built": self.built_crop}
        kinds = self.draw_kinds(rng)
        pairs = [draw[kind](rng) if kind in draw else self.dense_crop(kind, rng) for kind in kinds]
        images = np.stack([vary_radiometry(image, rng) for image, _ in pairs])
        return images, np.stack([label for _, label in pairs]), np.array([KIND_NAMES.index(kind) for kind in kinds])


def _scene_count(zoom: float) -> int:
    """Return how many scenes a canvas needs at this magnification."""
    return 4 if CROP_PX / zoom <= 2 * SCENE_PX else 9


def _cut_canvas(image: Image, label: Image, zoom: float, rng: np.random.Generator) -> tuple[Image, Image]:
    reach = min(0.5, 0.5 * CROP_PX / zoom / image.shape[0])
    row, col = (image.shape[0] * rng.uniform(reach, 1 - reach, 2)).tolist()
    return _flip(*cut_crop(image, label, centre=(row, col), zoom=zoom, angle=_angle(rng)), rng)


def _mirror_around(values: Image) -> Image:
    """Return an image with mirrored copies on all sides (half of its size each)."""
    half = values.shape[0] // 2
    return cv2.copyMakeBorder(values, half, half, half, half, cv2.BORDER_REFLECT_101)
