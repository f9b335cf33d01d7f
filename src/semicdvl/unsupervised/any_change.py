"""AnyChange: objects found by SAM whose embeddings differ by more than an angle between the dates.

Source: Zheng et al., "Segment Any Change", NeurIPS 2024 (bitemporal latent matching), and its public code (Apache-2.0).
SAM proposes objects of both dates; for each, the mean embedding under its mask is compared between the dates, whichever
date it was found in; an angle of more than 25 degrees is change. With point queries, only objects remain that are like
the objects pointed at: of a quarter to four times their mean area, and on more than half of their pixels within 60
degrees of their mean embedding, at the date at which they were found.

Differences from the source: masks are averaged onto the embedding's grid, instead of the embedding being enlarged to
the image (the same mean, up to the enlargement); SAM 2 is supported as well: its embeddings have no last norm to undo,
so their mean over the raster is subtracted instead, and the 25 degrees, which were found with SAM ViT-H, are untested
there; objects that two tiles share are blended in the map of angles. A fixed angle needs no no-change guard;
`threshold="otsu"` has it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from semicdvl.errors import ConfigError
from semicdvl.types import Detector, PairTiles
from semicdvl.unsupervised.common.detector import ThresholdDetector
from semicdvl.unsupervised.common.networks import default_networks
from semicdvl.unsupervised.common.sam import SamEmbedding, SamInstances, SamMaskGenerator
from semicdvl.unsupervised.common.statistics import Moments, count_valid_pixels, locate_tiles
from semicdvl.unsupervised.common.thresholds import ThresholdRule

MAX_AREA_RATIO, MIN_AGREEING_FRAC = 4.0, 0.5
"""How much larger or smaller an object may be than the query objects, and on what share of it they must agree."""


@dataclass(frozen=True)
class QueryObject:
    """What the objects at the query points are like.

    Attributes:
        embedding_D: SAM's own mean embedding, with scale and shift of its last norm.
        area_px: in pixels of the raster.
    """

    embedding_D: Tensor
    area_px: float

    @classmethod
    def average(cls, objects: Sequence[QueryObject]) -> QueryObject:
        """Return the mean of several."""
        embedding_D = torch.stack([one.embedding_D for one in objects]).mean(dim=0)
        return cls(embedding_D, sum(one.area_px for one in objects) / len(objects))


@dataclass(frozen=True)
class AnyChange(ThresholdDetector):
    """AnyChange; see the module.

    Attributes:
        sam: the mask generator, which also gives the embeddings.
        rule: least angle of change, in degrees.
        points: (row, col) in the raster of the query objects; empty: any object.
        point_date: 1 or 2, the date of the query points.
        query_angle: greatest angle, in degrees, between the embedding of a pixel and that of the query objects.
        mean_embedding_D: mean embedding of the raster, for SAM 2, known after `prepare`.
        query: what is asked for, known after `prepare`; None: any object.
    """

    name, map_count = "any_change", 1
    stored_kind = "semicdvl.classic.any_change.AnyChange"

    sam: SamMaskGenerator
    rule: ThresholdRule = field(default_factory=lambda: ThresholdRule(25.0))
    points: tuple[tuple[int, int], ...] = ()
    point_date: int = 1
    query_angle: float = 60.0
    mean_embedding_D: Tensor | None = None
    query: QueryObject | None = None

    def description(self) -> dict[str, str]:
        """Return what the detector does, and its network."""
        return {
            "Detector": "objects whose description turns between the dates (AnyChange), no labels, no training",
            "Network": self.sam.identity,
            "Angle in degrees": str(self.rule),
            "Objects pointed at": ", ".join(f"row {row}, col {col}" for row, col in self.points) or "none: any object",
        }

    def prepare(self, tiles: PairTiles) -> Detector:
        """Measure the mean embedding (SAM 2), and the embeddings of the query objects.

        Raises:
            DataError: no data, one colour, or fewer than three bands.
            ConfigError: a point lies outside of the raster.
        """
        known = replace(self, rule=self.fit_rule(tiles))
        known = replace(known, mean_embedding_D=self._measure_mean_embedding(tiles)) if self.sam.is_sam2 else known
        return replace(known, query=self._describe_queries(tiles)) if self.points else known

    def _measure_mean_embedding(self, tiles: PairTiles) -> Tensor:
        """Return the mean embedding over both dates of the whole raster."""
        moments: Moments | None = None
        for tile in tiles:
            for image_HWC in (tile.t1_HWC, tile.t2_HWC):
                embedding_DHW = self.sam.embed_image(image_HWC).embedding_DHW
                moments = moments or Moments(len(embedding_DHW))
                weight_N = count_valid_pixels(tile.valid_HW, (embedding_DHW.shape[1], embedding_DHW.shape[2]))
                moments.add(embedding_DHW.flatten(1).T.numpy(), weight_N)
        assert moments is not None, "a pair has tiles"
        return torch.from_numpy(moments.mean_V).float()

    def _describe_queries(self, tiles: PairTiles) -> QueryObject:
        """Return the mean embedding and area of the objects at the points."""
        found: dict[tuple[int, int], QueryObject] = {}
        for at in locate_tiles(tiles):
            height, width = at.tile.valid_HW.shape
            inside = [p for p in self.points if 0 <= p[0] - at.row < height and 0 <= p[1] - at.col < width]
            if not inside:
                continue
            seen = self.sam.embed_image(at.tile.t1_HWC if self.point_date == 1 else at.tile.t2_HWC)
            for row, col in inside:
                place = {"x_frac": (col - at.col + 0.5) / width, "y_frac": (row - at.row + 0.5) / height}
                mask = self.sam.mask_at_point(seen, **place)
                embedding_D = mask.mean_embeddings(self.sam.embedding_levels(seen)[-1])[0]
                found[row, col] = QueryObject(embedding_D, float(mask.area_frac_N[0]) * height * width)
        if outside := [point for point in self.points if point not in found]:
            raise ConfigError(
                f"the point row {outside[0][0]}, col {outside[0][1]} lies outside of the raster of {tiles.shape_hw[0]} "
                f"rows and {tiles.shape_hw[1]} columns; give points as [[row, col]], counted from 0."
            )
        return QueryObject.average([found[point] for point in self.points])

    def _select_like_query(self, seen: SamEmbedding, masks: SamInstances, *, image_px: int) -> SamInstances:
        """Return the objects of one date that are like the query objects."""
        if self.query is None or not len(masks):
            return masks
        area_N = masks.area_frac_N * image_px
        raw_DHW = self.sam.embedding_levels(seen)[-1].float()
        angle_HW = _angle_degrees(F.cosine_similarity(raw_DHW, self.query.embedding_D[:, None, None], dim=0))
        agreeing_N = masks.mean_embeddings((angle_HW < self.query_angle).float()[None])[:, 0]
        alike_N = (area_N > self.query.area_px / MAX_AREA_RATIO) & (area_N < self.query.area_px * MAX_AREA_RATIO)
        return masks.select(alike_N & (agreeing_N > MIN_AGREEING_FRAC))

    def _embed_masks(self, seen: SamEmbedding, masks: SamInstances) -> Tensor:
        """Return the mean embedding under each mask."""
        means_ND = masks.mean_embeddings(seen.embedding_DHW)
        return means_ND if self.mean_embedding_D is None else means_ND - self.mean_embedding_D

    def predict_scores(
        self, t1_HWC: NDArray[np.uint8], t2_HWC: NDArray[np.uint8], *, gsd_m: float | None = None
    ) -> NDArray[np.float32]:
        """Return for each pixel the greatest angle, in degrees, of the objects that cover it, 1HW."""
        seen = [self.sam.embed_image(image_HWC) for image_HWC in (t1_HWC, t2_HWC)]
        image_px = t1_HWC.shape[0] * t1_HWC.shape[1]
        of_dates = [self._select_like_query(one, self.sam.generate_masks(one), image_px=image_px) for one in seen]
        masks = of_dates[0].concatenate(of_dates[1])
        if not len(masks):
            return np.zeros((1, *t1_HWC.shape[:2]), np.float32)
        t1_ND, t2_ND = (self._embed_masks(one, masks) for one in seen)
        angle_N = _angle_degrees(F.cosine_similarity(t1_ND, t2_ND, dim=1))
        return masks.paint_maximum(angle_N, (t1_HWC.shape[0], t1_HWC.shape[1]))[None]


def _angle_degrees(cosine_N: Tensor) -> Tensor:
    return torch.rad2deg(torch.arccos(cosine_N.clamp(-1, 1)))


@default_networks(sam="facebook/sam-vit-huge")
def build_any_change(
    sam: SamMaskGenerator,
    *,
    threshold: float | str = 25.0,
    points: Sequence[Sequence[int]] = (),
    point_date: int = 1,
    query_angle: float = 60.0,
) -> AnyChange:
    """Return AnyChange.

    Args:
        sam: the mask generator, which also gives the embeddings.
        threshold: least angle of change in degrees, or "otsu".
        points: [[row, col], ...] in the raster, counted from 0: only changes of objects that resemble those there.
        point_date: 1 or 2, the date of the query points.
        query_angle: greatest angle in degrees between the embedding of a pixel and that of the query objects.

    Raises:
        ConfigError: an option out of range.
    """
    if any(len(point) != 2 or min(point) < 0 for point in points):
        raise ConfigError(f"points = {list(points)}: give [[row, col], ...], counted from 0.")
    if point_date not in (1, 2) or not 0 < query_angle <= 180:
        raise ConfigError(
            f"point_date = {point_date}, query_angle = {query_angle:g}: give 1 or 2, and an angle of at most 180."
        )
    asked = tuple((int(row), int(col)) for row, col in points)
    return AnyChange(sam, ThresholdRule(threshold), asked, point_date, query_angle)
