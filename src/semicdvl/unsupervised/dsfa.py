"""DSFA: deep slow feature analysis: two small networks learn equal outputs for unchanged pixels.

Source: Du, Ru, Wu and Zhang, TGRS 2019, and the authors' public code (MIT). Standardised pixels that changed least by
change vector analysis train two unshared networks (bands -> 128 -> 128 -> 6, softsign) on tr((B^-1 A)^2), A the second
moment of the difference of their centred outputs, B the mean of their covariances. Linear slow feature analysis of all
outputs then gives the components of the difference, whose squares, divided by their variance, are summed and split by
two-means.

Differences from the source: training pixels are drawn from the least changed tenth of a sample of the raster (the
source takes the 2,000 smallest change vectors, which are ties in 8-bit images); Adam with few steps instead of 2,000
steps of plain gradient descent, which hardly converge at the source's rate; both networks start from the same weights,
so that equal dates stay equal; covariances of the outputs are gathered tile by tile; B uses both dates (the public
helper uses the second twice) and change is the cluster with the larger sum, not the one that scores better. Two-means
of one number is Otsu's threshold (the same criterion); it is taken on the square root of the sum, with the no-change
guard of `thresholds`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from semicdvl.errors import ConfigError
from semicdvl.types import Detector, PairTiles
from semicdvl.unsupervised.common.detector import ThresholdDetector
from semicdvl.unsupervised.common.statistics import (
    FloatArray,
    HashedSample,
    Moments,
    PairMoments,
    locate_tiles,
    measure_moments,
    number_pixels,
)
from semicdvl.unsupervised.common.thresholds import ThresholdRule
from semicdvl.unsupervised.cva import compute_change_magnitude

if TYPE_CHECKING:
    from torch import Tensor, nn

HIDDEN, OUTPUTS = 128, 6
RIDGE = 1e-4
"""Added to B's diagonal, as in the source."""
MIN_EIGENVALUE = 1e-12
SAMPLE_SIZE = 100_000
UNCHANGED_FRAC = 0.1
PIXELS_AT_ONCE = 2**16


@dataclass(frozen=True)
class SlowFeatures:
    """The two trained networks and the linear analysis of their outputs.

    Attributes:
        networks: one per date, on standardised pixels.
        mean_V: mean output of date 1, then of date 2.
        axes_SO: rows are the components of the difference, divided by their standard deviation.
    """

    networks: tuple[nn.Module, nn.Module]
    mean_V: FloatArray
    axes_SO: FloatArray

    def compute_magnitude(self, t1_NC: NDArray[np.float32], t2_NC: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the root of the sum of squared components of standardised pixels."""
        parts = [
            np.sqrt(np.square((_compute_outputs(self.networks, a, b) - self.mean_V) @ self._difference_VS).sum(axis=1))
            for a, b in _iterate_chunks(t1_NC, t2_NC)
        ]
        return np.concatenate(parts).astype(np.float32)

    @property
    def _difference_VS(self) -> FloatArray:
        """Matrix that maps both outputs to the components of their difference."""
        return np.concatenate([self.axes_SO, -self.axes_SO], axis=1).T


def _iterate_chunks(
    t1_NC: NDArray[np.float32], t2_NC: NDArray[np.float32]
) -> Iterator[tuple[NDArray[np.float32], NDArray[np.float32]]]:
    """Yield some pixels at a time: the hidden layers of all pixels would not fit into memory."""
    for at in range(0, max(len(t1_NC), 1), PIXELS_AT_ONCE):
        yield t1_NC[at : at + PIXELS_AT_ONCE], t2_NC[at : at + PIXELS_AT_ONCE]


def _compute_outputs(
    networks: tuple[nn.Module, nn.Module], t1_NC: NDArray[np.float32], t2_NC: NDArray[np.float32]
) -> FloatArray:
    """Return the outputs of both networks side by side, N by 2 OUTPUTS."""
    import torch

    with torch.inference_mode():
        dates = [
            net(torch.from_numpy(np.ascontiguousarray(x))) for net, x in zip(networks, (t1_NC, t2_NC), strict=True)
        ]
        outputs_NV: FloatArray = torch.cat(dates, dim=1).double().numpy()
    return outputs_NV


@dataclass(frozen=True)
class DSFA(ThresholdDetector):
    """DSFA; see the module.

    Attributes:
        rule: how the threshold is found, in deviations of the components.
        pixels: number of training pixels.
        steps: number of training steps.
        rate: learning rate of Adam.
        seed: seed of the sample and the networks.
        moments: moments of the pair, known after `prepare`.
        slow: the trained networks, known after `prepare`.
    """

    name, map_count = "dsfa", 1
    stored_kind = "semicdvl.classic.dsfa.DSFA"

    rule: ThresholdRule = field(default_factory=ThresholdRule)
    pixels: int = 2000
    steps: int = 200
    rate: float = 1e-3
    seed: int = 0
    moments: PairMoments | None = None
    slow: SlowFeatures | None = None

    def description(self) -> dict[str, str]:
        """Return what the detector does."""
        return {"Detector": "deep slow feature analysis, learned on this pair, no labels", "Threshold": str(self.rule)}

    def prepare(self, tiles: PairTiles) -> Detector:
        """Train on the least changed pixels, then analyse the outputs, in three passes over the pair.

        Raises:
            DataError: no data, one colour, or fewer than two different bands.
        """
        moments = measure_moments(tiles, method=self.name, bands=2, different=2)
        networks = self._train(*self._select_unchanged(tiles, moments))
        outputs = Moments(2 * OUTPUTS)
        for tile in tiles:
            for part in _iterate_chunks(*_standardise(moments, tile.t1_HWC[tile.valid_HW], tile.t2_HWC[tile.valid_HW])):
                outputs.add(_compute_outputs(networks, *part))
        slow = SlowFeatures(networks, outputs.mean_V, compute_slow_axes(outputs.cov_VV))
        return replace(self, moments=moments, slow=slow, rule=self.rule.for_pair(moments))

    def _select_unchanged(
        self, tiles: PairTiles, moments: PairMoments
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return training pixels: some of the least changed tenth of a sample of the raster."""
        sample = HashedSample(share=SAMPLE_SIZE / moments.count, seed=self.seed)
        for at in locate_tiles(tiles):
            valid_HW = at.tile.valid_HW
            both_NV = np.hstack([at.tile.t1_HWC[valid_HW], at.tile.t2_HWC[valid_HW]])
            sample.add(number_pixels(at, raster_width=tiles.shape_hw[1])[valid_HW], both_NV)
        t1_NC, t2_NC = np.split(sample.values_NV, 2, axis=1)
        length_N = compute_change_magnitude(t1_NC, t2_NC, moments)
        unchanged = np.argsort(length_N, kind="stable")[
            : max(int(UNCHANGED_FRAC * len(length_N)), min(self.pixels, len(length_N)))
        ]
        chosen = np.random.default_rng(self.seed).permutation(unchanged)[: self.pixels]
        return _standardise(moments, t1_NC[chosen], t2_NC[chosen])

    def _train(self, t1_NC: NDArray[np.float32], t2_NC: NDArray[np.float32]) -> tuple[nn.Module, nn.Module]:
        """Train the two networks on these pixels."""
        import torch

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            networks = _build_network(t1_NC.shape[1]), _build_network(t1_NC.shape[1])
        networks[1].load_state_dict(networks[0].state_dict())
        weights = [weight for net in networks for weight in net.parameters()]
        optimiser = torch.optim.Adam(weights, lr=self.rate)
        dates = [torch.from_numpy(np.ascontiguousarray(x)) for x in (t1_NC, t2_NC)]
        for _ in range(self.steps):
            loss = slow_feature_loss(*(net(x) for net, x in zip(networks, dates, strict=True)))
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
        return networks[0].eval(), networks[1].eval()

    def predict_scores(
        self, t1_HWC: NDArray[np.uint8], t2_HWC: NDArray[np.uint8], *, gsd_m: float | None = None
    ) -> NDArray[np.float32]:
        """Return the length of the slow features' difference, 1HW."""
        assert self.slow is not None and self.moments is not None, "prepare() comes first"
        bands = t1_HWC.shape[2]
        t1_NC, t2_NC = _standardise(self.moments, t1_HWC.reshape(-1, bands), t2_HWC.reshape(-1, bands))
        return self.slow.compute_magnitude(t1_NC, t2_NC).reshape(1, *t1_HWC.shape[:2])


def _standardise(
    moments: PairMoments, t1_NC: NDArray[np.uint8], t2_NC: NDArray[np.uint8]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    return moments.standardise(t1_NC, date=0), moments.standardise(t2_NC, date=1)


def _build_network(bands: int) -> nn.Module:
    """Return one date's network."""
    from torch import nn

    layers = [nn.Linear(bands, HIDDEN), nn.Softsign(), nn.Linear(HIDDEN, HIDDEN), nn.Softsign()]
    return nn.Sequential(*layers, nn.Linear(HIDDEN, OUTPUTS), nn.Softsign())


def slow_feature_loss(t1_NO: Tensor, t2_NO: Tensor) -> Tensor:
    """Return tr((B^-1 A)^2) of outputs for the same pixels: 0 if those of the dates are equal up to a constant."""
    import torch

    t1_NO, t2_NO = t1_NO - t1_NO.mean(dim=0), t2_NO - t2_NO.mean(dim=0)
    count = len(t1_NO)
    difference_NO = t1_NO - t2_NO
    differing_OO = difference_NO.T @ difference_NO / count
    varying_OO = (t1_NO.T @ t1_NO + t2_NO.T @ t2_NO) / (2 * count)
    ratio_OO = torch.linalg.solve(varying_OO + RIDGE * torch.eye(len(varying_OO)), differing_OO)
    return torch.trace(ratio_OO @ ratio_OO)


def compute_slow_axes(cov_VV: FloatArray) -> FloatArray:
    """Return components of the difference (rows), slowest first, divided by their standard deviation.

    Args:
        cov_VV: joint covariance of both dates' outputs.
    """
    from scipy.linalg import eigh

    size = len(cov_VV) // 2
    first_OO, second_OO, across_OO = cov_VV[:size, :size], cov_VV[size:, size:], cov_VV[:size, size:]
    differing_OO = first_OO + second_OO - across_OO - across_OO.T
    varying_OO = (first_OO + second_OO) / 2 + RIDGE * np.eye(size)
    eigenvalue_S, vectors_OS = eigh((differing_OO + differing_OO.T) / 2, varying_OO)
    kept_S = eigenvalue_S > MIN_EIGENVALUE
    axes_SO: FloatArray = (vectors_OS[:, kept_S] / np.sqrt(eigenvalue_S[kept_S])).T
    return axes_SO


def build_dsfa(
    *,
    threshold: float | str = "otsu",
    guard: bool = True,
    pixels: int = 2000,
    steps: int = 200,
    rate: float = 1e-3,
    seed: int = 0,
) -> DSFA:
    """Return DSFA.

    Args:
        threshold: "otsu" (two-means), or a number of deviations.
        guard: whether the no-change guard is applied to the threshold.
        pixels: number of training pixels.
        steps: number of training steps.
        rate: learning rate of Adam.
        seed: seed of the sample and the networks.

    Raises:
        ConfigError: an option out of range.
    """
    if pixels < 2 * OUTPUTS or steps < 0 or rate <= 0:
        raise ConfigError(
            f"pixels = {pixels}, steps = {steps}, rate = {rate:g}: give at least {2 * OUTPUTS} pixels, 0 or more "
            "steps, and a positive rate."
        )
    return DSFA(ThresholdRule(threshold, guard), pixels, steps, rate, seed)
