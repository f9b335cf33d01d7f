"""Batches and a network for what methods owe: every head, tiny, without batch norm."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from tests.support.plain_network import PlainNetwork
from torch import Tensor, nn

from semicdvl.types import HEADS, IGNORE, LabelledBatch, Outputs, UnlabelledBatch, VLMTargets


class AllHeads(PlainNetwork):
    """PlainNetwork with the heads of the literature: dropped features, auxiliary maps of two sizes, a distance."""

    heads = frozenset(HEADS)

    def __init__(self) -> None:
        super().__init__()
        self.auxiliary = nn.ModuleList(nn.Conv2d(8, 2, 1) for _ in range(2))

    def forward(self, t1_BCHW: Tensor, t2_BCHW: Tensor, *, heads: frozenset[str] | None = None) -> Outputs:
        heads = self.heads if heads is None else heads
        out = super().forward(t1_BCHW, t2_BCHW, heads=heads)
        size = tuple(t1_BCHW.shape[-2:])
        f1, f2 = self.encoder(t1_BCHW), self.encoder(t2_BCHW)
        found = {name: value for name, value in vars(out).items() if value is not None}
        if "perturbed" in heads:
            dropped = F.dropout2d((f1 - f2).abs(), 0.5, training=self.training)
            found["perturbed_change_BKHW"] = F.interpolate(self.change(dropped), size=size)
        if "auxiliary" in heads:
            coarse, fine = (layer((f1 - f2).abs()) for layer in self.auxiliary)
            found["auxiliary_BKHW"] = (coarse, F.interpolate(fine, size=size))
        if "distance" in heads:
            distance_BHW = torch.linalg.vector_norm(f1 - f2, dim=1)
            found["distance_BHW"] = F.interpolate(distance_BHW[:, None], size=size)[:, 0]
        return Outputs(**found)


def random_batches(
    labelled: int = 2, unlabelled: int = 3, *, size_px: tuple[int, int] = (37, 45), seed: int = 1
) -> tuple[LabelledBatch, UnlabelledBatch]:
    """Noise with random labels, padding at a border, a box each view, VLM labels and truth."""
    generator = torch.Generator().manual_seed(seed)

    def image(count: int) -> Tensor:
        return torch.randn(count, 3, *size_px, generator=generator)

    def classes(count: int) -> Tensor:
        label_BHW = torch.randint(0, 2, (count, *size_px), generator=generator)
        label_BHW[:, :7] = IGNORE
        return label_BHW

    def vlm(count: int) -> VLMTargets:
        return VLMTargets(classes(count), classes(count), classes(count))

    boxes = torch.zeros(2, unlabelled, *size_px, dtype=torch.bool)
    boxes[0, 0, 10:30, 20:40] = True
    boxes[1, -1, 5:25, 3:30] = True
    valid_BHW = torch.ones(unlabelled, *size_px, dtype=torch.bool)
    valid_BHW[-1, :, -9:] = False
    with_labels = LabelledBatch(image(labelled), image(labelled), classes(labelled), vlm(labelled))
    views = [image(unlabelled) for _ in range(4)]
    second = {
        "second_strong_t1_BCHW": image(unlabelled),
        "second_strong_t2_BCHW": image(unlabelled),
        "second_cutmix_box_BHW": boxes[1],
    }
    return with_labels, UnlabelledBatch(*views, valid_BHW, boxes[0], vlm(unlabelled), classes(unlabelled), **second)


def squares(count: int, *, seed: int, size_px: int = 32) -> tuple[Tensor, Tensor, Tensor]:
    """Pairs in whose second date a bright square appears on noise: two dates and the label; a few lines to learn."""
    generator = torch.Generator().manual_seed(seed)
    before = torch.randn(count, 3, size_px, size_px, generator=generator) * 0.3
    label = torch.zeros(count, size_px, size_px, dtype=torch.int64)
    for place in label:
        row, col = torch.randint(0, size_px - 12, (2,), generator=generator).tolist()
        place[row : row + 12, col : col + 12] = 1
    noise = torch.randn(before.shape, generator=generator) * 0.3
    return before, before + noise + 1.5 * label[:, None], label


def square_batches(step: int, *, seed: int = 0) -> tuple[LabelledBatch, UnlabelledBatch]:
    """A training batch of `squares`: the same two labelled pairs always, other unlabelled ones at each step."""
    t1, t2, label = squares(2, seed=seed)
    u1, u2, truth = squares(4, seed=1000 + step)
    generator = torch.Generator().manual_seed(step)

    def strong(image: Tensor) -> Tensor:
        gain = 1 + 0.2 * torch.randn(len(image), 3, 1, 1, generator=generator)
        return image * gain + 0.2 * torch.randn(image.shape, generator=generator)

    box, valid = torch.zeros_like(truth, dtype=torch.bool), torch.ones_like(truth, dtype=torch.bool)
    box[::2, 4:20, 6:24] = True
    vlm = VLMTargets(truth.where(truth == 0, 1), torch.zeros_like(truth), truth)
    labelled = LabelledBatch(t1, t2, label, VLMTargets(label, torch.zeros_like(label), label))
    return labelled, UnlabelledBatch(
        u1, u2, strong(u1), strong(u2), valid, box, vlm, truth, strong(u1), strong(u2), box.roll(1, dims=0)
    )
