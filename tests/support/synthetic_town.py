"""A town of roofs on a lawn that is painted four times finer than it is photographed, so that shifts by quarter pixels
are exact: what a sensor a quarter of a pixel further on would have seen."""

import numpy as np
from scipy import ndimage

FINE = 4
ROOF, LAWN = (190, 80, 60), (110, 170, 80)


def paint(height: int, width: int, *, seed: int = 0, roofs: int = 60, gone: int = 0, room: int = 64) -> np.ndarray:
    """Return the fine canvas (float HWC), `room` px larger on each side, without the first `gone` roofs."""
    rng = np.random.default_rng(seed)
    tall, wide = (height + 2 * room) * FINE, (width + 2 * room) * FINE
    grain = ndimage.gaussian_filter(rng.normal(size=(tall // FINE, wide // FINE)), 2)
    grain = np.kron(grain / grain.std() * 6, np.ones((FINE, FINE)))
    canvas = np.array(LAWN, float) + grain[..., None]
    for number in range(roofs):
        size = rng.integers(8, 26, 2) * FINE
        row, col = (int(rng.integers(0, most - side)) for most, side in zip((tall, wide), size, strict=True))
        shade = rng.uniform(0.8, 1.2)
        if number >= gone:
            canvas[row : row + size[0], col : col + size[1]] = np.array(ROOF, float) * shade
    return canvas


def photograph(canvas: np.ndarray, *, row_px: float = 0.0, col_px: float = 0.0, room: int = 64) -> np.ndarray:
    """Return the picture (uint8 HWC) in which everything lies (row_px, col_px) further down and right."""
    top, left = (round((room - by) * FINE) for by in (row_px, col_px))
    assert abs(top / FINE - room + row_px) < 1e-9, "shifts come in quarters of a pixel"
    height, width = canvas.shape[0] // FINE - 2 * room, canvas.shape[1] // FINE - 2 * room
    part = canvas[top : top + height * FINE, left : left + width * FINE]
    blocks = part.reshape(height, FINE, width, FINE, 3).mean(axis=(1, 3))
    return np.clip(np.rint(blocks), 0, 255).astype(np.uint8)
