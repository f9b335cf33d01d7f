"""Training crops of the embedded model: Dubai (dense masks), UC Merced (a word or two per scene), drawn settlements."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from aerial_roofs import draw_settlement
from aerial_words import (
    COARSE_NAMES,
    CONCEPT_NAMES,
    DUBAI_COLOURS,
    FIRST_COARSE,
    FIRST_SCENE,
    SCENE_NAMES,
    SCENES,
    UNLABELLED,
)  # fmt: skip

Image = NDArray[np.uint8]

CROP_PX = 192
HELD_OUT_TILES = (2, 8)
"""Whole Dubai tiles that training never sees."""
TILE_SHARES = {1: 1.0, 2: 1.0, 3: 1.0, 4: 1.5, 5: 1.0, 6: 1.5, 7: 6.0, 8: 4.0}
"""How often a tile is drawn: by area and care of its masks (tile 4 outlines whole blocks as one building)."""
DUBAI_ZOOM = (0.9, 2.3)
SCENE_ZOOM = (0.38, 1.0)
"""Range of magnification to the model's native 0.5 m. UC Merced has 0.3 m. Dubai's folder says about 0.3 m, but its
villas and roads measure like 0.7 to 1 m per pixel, hence the magnification."""
NO_BUILDING = tuple(name for name, (words, _) in SCENES.items() if "building" not in words.split())
SCENE_PX = 256


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
class Scenes:
    """UC Merced: images, scene index of each, and label-id maps (the scene's id everywhere)."""

    images: Image
    scene: NDArray[np.int64]
    labels: Image


def read_scenes(folder: Path) -> Scenes:
    """Read all scenes; the few that are not 256 px get resized."""
    images, scene = [], []
    for index, name in enumerate(SCENE_NAMES):
        for path in sorted((folder / name).glob("*.jpg")):
            images.append(cv2.resize(read_rgb(path), (SCENE_PX, SCENE_PX), interpolation=cv2.INTER_AREA))
            scene.append(index)
    scene_N = np.array(scene)
    labels = np.broadcast_to((FIRST_SCENE + scene_N).astype(np.uint8)[:, None, None], (len(scene), SCENE_PX, SCENE_PX))
    return Scenes(np.stack(images), scene_N, labels.copy())


# ------------------------------------------------------------------------------------------------ geometry
def cut_crop(
    image: Image, label: Image, *, centre: tuple[float, float], zoom: float, angle: float
) -> tuple[Image, Image]:
    """Return a crop of CROP_PX around `centre` (row, col), turned by `angle` and magnified by `zoom`."""
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
    marks = cv2.warpAffine(label, matrix, size, flags=cv2.INTER_NEAREST, borderValue=UNLABELLED)
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
    x *= (np.exp(rng.normal(0, 0.18)) * np.exp(rng.normal(0, 0.07, 3))).astype(np.float32)
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
class Crops:
    """Draws training crops; `crop(kind)` returns (image, label ids) of CROP_PX."""

    def __init__(self, dubai: Dubai, scenes: Scenes, *, held_out: tuple[int, ...] = HELD_OUT_TILES) -> None:
        """Index what can be drawn; the held-out tiles stay out."""
        self.dubai, self.scenes = dubai, scenes
        self.usable = [i for i, tile in enumerate(dubai.tiles) if tile not in held_out]
        shares = np.array([TILE_SHARES[dubai.tiles[i]] for i in self.usable])
        self.shares = shares / shares.sum()
        building = FIRST_COARSE + COARSE_NAMES.index("building")
        self.spots = {i: np.argwhere(dubai.labels[i][::8, ::8] == building) * 8 for i in self.usable}
        self.by_scene = [np.flatnonzero(scenes.scene == s) for s in range(len(SCENE_NAMES))]
        self.bare = [SCENE_NAMES.index(name) for name in NO_BUILDING]
        self.built = [SCENE_NAMES.index(name) for name, (_, shares) in SCENES.items() if "building" in shares]
        self.forest = SCENE_NAMES.index("forest")

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
        return _flip(*cut_crop(image[window], label[window], centre=centre, zoom=zoom, angle=_angle(rng)), rng)

    def canvas(self, scene_ids: list[int], rng: np.random.Generator) -> tuple[Image, Image]:
        """Return four scenes side by side, 512 px, each turned at random."""
        tiles = []
        for scene in scene_ids:
            i = self.by_scene[scene][rng.integers(len(self.by_scene[scene]))]
            turns = int(rng.integers(4))
            tiles.append((np.rot90(self.scenes.images[i], turns), np.rot90(self.scenes.labels[i], turns)))
        upper, lower = zip(*tiles[:2], strict=True), zip(*tiles[2:], strict=True)
        parts = [np.vstack([np.hstack(a), np.hstack(b)]) for a, b in zip(upper, lower, strict=True)]
        return np.ascontiguousarray(parts[0]), np.ascontiguousarray(parts[1])

    def scene_crop(self, rng: np.random.Generator) -> tuple[Image, Image]:
        """Return a crop of real scenes as they are."""
        first = int(rng.integers(len(SCENE_NAMES)))
        same = rng.random() < 0.6
        ids = [first] * 4 if same else [first, *rng.integers(len(SCENE_NAMES), size=3)]
        return self._cut_canvas(*self.canvas(ids, rng), rng)

    def built_crop(self, rng: np.random.Generator) -> tuple[Image, Image]:
        """Return a crop of real scenes of one class that certainly shows buildings."""
        return self._cut_canvas(*self.canvas([int(rng.choice(self.built))] * 4, rng), rng)

    def settlement_crop(self, rng: np.random.Generator) -> tuple[Image, Image]:
        """Return a crop of scenes without buildings into which a settlement was drawn."""
        first = int(rng.choice(self.bare))
        ids = [first] * 4 if rng.random() < 0.5 else [first, *rng.choice(self.bare, size=3)]
        image, label = self.canvas(ids, rng)
        foliage, _ = self.canvas([self.forest] * 4, rng)
        footprint, trees, slabs = draw_settlement(image, foliage, rng)
        for mask, name in ((slabs, "road"), (footprint, "building"), (trees, "tree")):
            label[mask > 127] = CONCEPT_NAMES.index(name)
        if rng.random() < 0.5:
            image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.4, 1.0))  # drawn edges are sharper than real ones
        return self._cut_canvas(image, label, rng)

    def _cut_canvas(self, image: Image, label: Image, rng: np.random.Generator) -> tuple[Image, Image]:
        zoom = _log_uniform(SCENE_ZOOM, rng)
        reach = min(0.5, 0.5 * CROP_PX / zoom / image.shape[0])
        row, col = (image.shape[0] * rng.uniform(reach, 1 - reach, 2)).tolist()
        return _flip(*cut_crop(image, label, centre=(row, col), zoom=zoom, angle=_angle(rng)), rng)

    def batch(self, kinds: tuple[str, ...], seed: int) -> tuple[Image, Image]:
        """Return (images BHWC, label ids BHW); the same seed gives the same batch."""
        rng = np.random.default_rng(seed)
        draw = {"dubai": self.dubai_crop, "scene": self.scene_crop, "built": self.built_crop,
                "settlement": self.settlement_crop}  # fmt: skip
        pairs = [draw[kind](rng) for kind in kinds]
        return np.stack([vary_radiometry(image, rng) for image, _ in pairs]), np.stack([label for _, label in pairs])
