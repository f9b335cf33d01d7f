"""What a person draws: a new outline, a missed change, a division, a union, another class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from shapely import MultiPolygon

from semicdvl.raster.grid import Grid
from semicdvl.review.changes import measure_area
from semicdvl.review.folder import ServedPair
from semicdvl.review.geometry import BadShape, merge_shapes, split_shape
from semicdvl.review.store import Author, Change, ReviewStore, now


@dataclass(frozen=True)
class Attributes:
    """What a person says of a change; None leaves it as it is, "" clears it."""

    kind: str | None = None
    from_class: str | None = None
    to_class: str | None = None
    comment: str | None = None

    def apply(self, change: Change) -> Change:
        """Return the object with these attributes."""
        return replace(
            change,
            kind=change.kind if self.kind is None else self.kind or None,
            from_class=change.from_class if self.from_class is None else self.from_class or None,
            to_class=change.to_class if self.to_class is None else self.to_class or None,
            comment=change.comment if self.comment is None else self.comment,
        )


@dataclass(frozen=True)
class Editor:
    """Edits the objects of one map.

    Every method raises `Conflict` where somebody else wrote the object in between, and `NoSuchChange` where it is gone.
    """

    store: ReviewStore
    grid: Grid
    pair: ServedPair

    def redraw(
        self, number: int, *, version: int, geometry: MultiPolygon | None, attributes: Attributes, author: Author
    ) -> Change:
        """Give an object another outline or other attributes. A new outline accepts it: who redraws it has seen it."""
        changed = attributes.apply(self.store.get(number))
        if geometry is not None:
            changed = replace(
                changed, geometry=geometry, area=self._measure(geometry), edited=True, state="accepted", decided=now()
            )
        changed = replace(changed, reviewer=author.reviewer)
        return self.store.act("edit", author, old=[(number, version)], new=[changed])[0]

    def draw(self, geometry: MultiPolygon, *, attributes: Attributes, author: Author) -> Change:
        """Add a change that the detection missed."""
        drawn = Change(
            id=0,
            version=1,
            live=True,
            state="accepted",
            source="drawn",
            parents=(),
            kind="changed",
            from_class=None,
            to_class=None,
            score=None,
            uncertainty=None,
            area=self._measure(geometry),
            original=None,
            geometry=geometry,
            edited=True,
            reviewer=author.reviewer,
            decided=now(),
        )
        return self.store.act("draw", author, old=[], new=[], created=[attributes.apply(drawn)])[0]

    def split(self, number: int, *, version: int, line: Sequence[Sequence[float]], author: Author) -> list[Change]:
        """Divide an object along a line; the pieces take its state and its attributes.

        Raises:
            BadShape: the line does not divide it.
        """
        whole = self.store.get(number)
        pieces = [
            self._make_part(whole, shape, "split", (number,))
            for shape in split_shape(whole.geometry, line, grid=self.grid)
        ]
        gone = replace(whole, live=False, reviewer=author.reviewer)
        return self.store.act("split", author, old=[(number, version)], new=[gone], created=pieces)[1:]

    def merge(self, members: Sequence[tuple[int, int]], *, author: Author) -> Change:
        """Join objects (number, version) to one, with the attributes of the largest.

        Raises:
            BadShape: fewer than two different objects.
        """
        if len({number for number, _ in members}) < 2 or len({number for number, _ in members}) < len(members):
            raise BadShape("Choose two changes or more to merge.")
        parts = [self.store.get(number) for number, _ in members]
        largest = max(parts, key=lambda part: part.area)
        union = merge_shapes([part.geometry for part in parts])
        merged = self._make_part(largest, union, "merged", tuple(part.id for part in parts))
        if len({part.state for part in parts}) > 1:
            merged = replace(merged, state="open", decided="")
        gone = [replace(part, live=False, reviewer=author.reviewer) for part in parts]
        return self.store.act("merge", author, old=list(members), new=gone, created=[merged])[-1]

    def _make_part(self, source: Change, shape: MultiPolygon, how: str, parents: tuple[int, ...]) -> Change:
        """Return a new object with the attributes of an old one."""
        return replace(
            source,
            id=0,
            version=1,
            source=how,
            parents=parents,
            original=None,
            geometry=shape,
            area=self._measure(shape),
            edited=True,
        )

    def _measure(self, shape: MultiPolygon) -> float:
        return measure_area([shape], self.grid, self.pair)[0]
