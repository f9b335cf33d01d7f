"""Batches on their way to the device."""

import torch

from semicdvl.training.batches import normalise_images


def test_images_are_normalised_as_imagenet() -> None:
    images = torch.full((2, 3, 5, 7), 255, dtype=torch.uint8)
    assert torch.allclose(normalise_images(images)[0, 0, 0, 0], torch.tensor((1 - 0.485) / 0.229))
