"""Samples per second and core of the training augmentation, against the usual chain of Pillow calls doing the same.

    python benchmarks/loader.py

One sample is an unlabelled pair as SemiCD-VL trains on it: two images and four masks (truth, the VLM's change label and
both single-date labels) through one resize, crop and flip; colour jitter (p 0.8) and blur (p 0.5) for each date by
itself; a CutMix box. Both ways get the same drawn numbers for every sample, and their images are compared. Pillow's
chain is the one of the public change-detection code: resize the whole image, paste it onto a padded canvas, crop,
flip, `ImageEnhance` and HSV steps, `ImageFilter.GaussianBlur`, then a tensor. The public code also builds a second
strong view, which nothing reads, and normalises in the loader; the third row has that, too. Decoding is left out of
all rows: both keep decoded images.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from semicdvl.data.augment import (
    CropTransform,
    CutMixSettings,
    PhotometricTransform,
    StrongAugmentation,
    WeakAugmentation,
    draw_crop,
    draw_cutmix_box,
    draw_photometric,
)
from semicdvl.data.samples import stack_images
from semicdvl.synthetic.config import CitySpec
from semicdvl.synthetic.generate import generate_city
from semicdvl.types import IGNORE, IMAGENET_MEAN, IMAGENET_STD

Bytes = NDArray[np.uint8]


@dataclass(frozen=True)
class Source:
    """A decoded pair: two images and four masks."""

    images: tuple[Bytes, Bytes]
    masks: tuple[Bytes, Bytes, Bytes, Bytes]


@dataclass(frozen=True)
class Drawn:
    """What was drawn for one sample."""

    crop: CropTransform
    looks: tuple[PhotometricTransform, ...]
    box_HW: NDArray[np.bool_]


Sample = tuple[list[torch.Tensor], list[torch.Tensor]]
"""Weak and strong images, then masks."""


def draw_sample(size_px: tuple[int, int], *, crop_px: int, looks: int, rng: np.random.Generator) -> Drawn:
    """Draw the numbers of one sample, in the proportions of the public recipe."""
    crop = draw_crop(size_px, WeakAugmentation(), crop_px=crop_px, rng=rng)
    return Drawn(
        crop,
        tuple(draw_photometric(StrongAugmentation(), rng=rng) for _ in range(looks)),
        draw_cutmix_box(CutMixSettings(), crop_px=crop_px, rng=rng),
    )


# ------------------------------------------------------------------------------------------------ ours
def augment(source: Source, drawn: Drawn) -> Sample:
    """Make a sample as `data.samples` does."""
    weak = [drawn.crop.apply_to_image(image) for image in source.images]
    strong = [look.apply(image) for look, image in zip(drawn.looks, weak, strict=False)]
    masks_HWC = drawn.crop.apply_to_masks(np.dstack(source.masks))
    images = [stack_images([image]) for image in weak + strong]
    return images, [torch.from_numpy(np.moveaxis(masks_HWC, -1, 0).astype(np.int64))]


# ------------------------------------------------------------------------------------------------ Pillow
def augment_with_pillow(source: Source, drawn: Drawn, *, normalise: bool = False) -> Sample:
    """Make a sample with Pillow, image by image."""
    images = [Image.fromarray(image) for image in source.images]
    masks = [Image.fromarray(mask) for mask in source.masks]
    weak = [_apply_geometry(image, drawn.crop, Image.Resampling.BILINEAR, 0) for image in images]
    cut = [_apply_geometry(mask, drawn.crop, Image.Resampling.NEAREST, IGNORE) for mask in masks]
    strong = [_apply_colour(weak[at % 2], look) for at, look in enumerate(drawn.looks)]
    tensors = [_to_tensor(image, normalise=normalise) for image in weak + strong]
    return tensors, [torch.from_numpy(np.array(mask)).long() for mask in cut]


def _apply_geometry(picture: Image.Image, crop: CropTransform, how: Image.Resampling, padding: int) -> Image.Image:
    """Resize the whole image, pad it to the crop, cut and flip."""
    scale = crop.resized_px[0] / crop.window_px[2], crop.resized_px[1] / crop.window_px[3]
    width, height = max(1, round(picture.width * scale[1])), max(1, round(picture.height * scale[0]))
    picture = picture.resize((width, height), how)
    pad = max(0, crop.size_px - width), max(0, crop.size_px - height)
    fill = padding if picture.mode == "L" else (padding,) * 3
    picture = ImageOps.expand(picture, border=(0, 0, *pad), fill=fill)
    col, row = round(crop.window_px[1] * scale[1]), round(crop.window_px[0] * scale[0])
    picture = picture.crop((col, row, col + crop.size_px, row + crop.size_px))
    return picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if crop.hflip else picture


def _apply_colour(picture: Image.Image, look: PhotometricTransform) -> Image.Image:
    """Change colours and blur."""
    for name, amount in look.colors:
        if name == "hue":
            hue, saturation, value = picture.convert("HSV").split()
            turned = (np.asarray(hue).astype(np.int16) + round(amount * 255)).astype(np.uint8)
            picture = Image.merge("HSV", (Image.fromarray(turned), saturation, value)).convert("RGB")
        else:
            kind = {"brightness": "Brightness", "contrast": "Contrast", "saturation": "Color"}[name]
            picture = getattr(ImageEnhance, kind)(picture).enhance(amount)
    if look.blur_sigma_px is not None:
        picture = picture.filter(ImageFilter.GaussianBlur(radius=look.blur_sigma_px))
    return picture


def _to_tensor(picture: Image.Image, *, normalise: bool) -> torch.Tensor:
    """Return the image as uint8 CHW, or normalised float."""
    tensor = torch.from_numpy(np.array(picture)).permute(2, 0, 1).contiguous()
    if not normalise:
        return tensor
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    return (tensor.float() / 255 - mean) / std


# ------------------------------------------------------------------------------------------------ measuring
def render_sources(count: int, size_px: int) -> list[Source]:
    """Return decoded pairs of a synthetic city."""
    city = generate_city(CitySpec(size_px=(size_px, size_px * count), seed=0))
    built = [(classes == 0).astype(np.uint8) for classes in (city.classes_t1_HW, city.classes_t2_HW)]
    result = []
    for at in range(count):
        part = (slice(None), slice(at * size_px, (at + 1) * size_px))
        images = [np.ascontiguousarray(image[part]) for image in (city.t1_HWC, city.t2_HWC)]
        masks = [np.ascontiguousarray(mask[part]) for mask in (city.change_HW, city.change_HW, *built)]
        result.append(Source((images[0], images[1]), (masks[0], masks[1], masks[2], masks[3])))
    return result


def measure_rate(
    make: Callable[[Source, Drawn], Sample], pairs: list[Source], options: argparse.Namespace, looks: int
) -> float:
    """Return samples per second of CPU time, the best of three rounds of the same samples."""
    best = 0.0
    for _ in range(3):
        rng = np.random.default_rng(0)
        began = time.process_time()
        for at in range(options.samples):
            source = pairs[at % len(pairs)]
            make(source, draw_sample(source.images[0].shape[:2], crop_px=options.crop, looks=looks, rng=rng))
        best = max(best, options.samples / (time.process_time() - began))
    return best


def compare_samples(pairs: list[Source], options: argparse.Namespace) -> tuple[float, float]:
    """Return the mean difference of both ways' images in grey values, and the share of mask pixels that differ."""
    rng, grey, masks = np.random.default_rng(0), [], []
    for at in range(64):
        source = pairs[at % len(pairs)]
        drawn = draw_sample(source.images[0].shape[:2], crop_px=options.crop, looks=2, rng=rng)
        (mine, my_masks), (theirs, their_masks) = augment(source, drawn), augment_with_pillow(source, drawn)
        grey += [(a[0].float() - b.float()).abs().mean().item() for a, b in zip(mine, theirs, strict=True)]
        masks.append((my_masks[0] != torch.stack(their_masks)).float().mean().item())
    return float(np.mean(grey)), float(np.mean(masks))


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--image", type=int, default=256, help="side of the images in pixels")
    parser.add_argument("--crop", type=int, default=256, help="side of the crops in pixels")
    parser.add_argument("--samples", type=int, default=200)
    options = parser.parse_args()
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    pairs = render_sources(4, options.image)
    grey, masks = compare_samples(pairs, options)
    print(f"same samples: images differ by {grey:.2f} of 255 on average, masks in {masks:.2%} of the pixels")
    rates = {
        "ours": measure_rate(augment, pairs, options, 2),
        "Pillow, the same work": measure_rate(augment_with_pillow, pairs, options, 2),
        "Pillow, all that the public code does": measure_rate(
            lambda s, d: augment_with_pillow(s, d, normalise=True), pairs, options, 4
        ),
    }
    print(f"\n| {options.image} px images, {options.crop} px crops | samples/s per core | ours is |\n|---|---|---|")
    for name, value in rates.items():
        print(f"| {name} | {value:.0f} | {rates['ours'] / value:.1f}x |")


if __name__ == "__main__":
    main()
