"""The open pairs of a server: images, review and map of each, opened when the first request asks for it."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from semicdvl.detection.config import list_reading_words
from semicdvl.errors import InputError
from semicdvl.evaluation.map_vs_truth import DetectedMap
from semicdvl.raster.grid import Grid, measure_map_unit_m
from semicdvl.review.changes import get_area_unit, open_review
from semicdvl.review.edits import Editor
from semicdvl.review.estimate import (
    answer_places,
    describe_precision,
    draw_places,
    estimate_area,
    estimate_precision,
)
from semicdvl.review.export import (
    RECORD_FILE,
    REVIEWED_FILE,
    as_plain,
    list_next_commands,
    write_record,
    write_reviewed,
)
from semicdvl.review.folder import ServedPair
from semicdvl.review.images import PairImages, read_reading_settings, read_result_grid
from semicdvl.review.settings import ServeConfig
from semicdvl.review.store import REVIEW_FILE, ReviewStore

MAX_OPEN_PAIRS = 6


class NoSuchPair(Exception):
    """A request names a pair that is not served."""


class PairSession:
    """One pair that is open."""

    def __init__(self, pair: ServedPair, config: ServeConfig) -> None:
        """Open the review of a pair; its images are opened when a tile is asked for.

        Raises:
            InputError, OutputError: see `changes.open_review`.
        """
        self.pair, self.config = pair, config
        self.grid: Grid = read_result_grid(pair.folder)
        self.store: ReviewStore = open_review(pair, pair.folder / REVIEW_FILE, grid=self.grid)
        self.editor = Editor(self.store, self.grid, pair)
        self._images: PairImages | None = None
        self._lock = threading.Lock()

    @property
    def key(self) -> str:
        """What names this map: random ranks follow from it."""
        return self.store.read_meta("changes_sha256") or ""

    @property
    def area_unit(self) -> str:
        """Unit of areas."""
        return get_area_unit(self.grid, self.pair)

    def open_images(self) -> PairImages:
        """Return the images, opened at the first call.

        Raises:
            InputError, ConfigError: see `PairImages`.
        """
        with self._lock:
            if self._images is None:
                self._images = PairImages(self.pair, self.config)
            return self._images

    def get_detected_map(self) -> DetectedMap:
        """Return the map for the drawing of a sample; its polygons are not needed for that."""
        facts = self.pair.facts
        return DetectedMap(self.pair.folder, self.grid, facts.grid.gsd_m if facts else None, None)

    def get_pixel_area(self) -> float:
        """Return the area of a pixel in the unit of the map."""
        facts = self.pair.facts
        x_m, y_m = measure_map_unit_m(self.grid, gsd_m=facts.grid.gsd_m if facts else None)
        return x_m * y_m * abs(self.grid.transform.a * self.grid.transform.e)

    def estimate(self) -> dict[str, Any]:
        """Return what the review says of the whole map so far."""
        changes = self.store.list_changes(all_rows=True)
        objects = estimate_precision(changes, key=self.key)
        found: dict[str, Any] = {
            "text": describe_precision(objects),
            "unit": self.area_unit,
            "objects": as_plain(objects),
        }
        sizes = self.store.read_class_px()
        if sizes is None:
            return found | {"area": None}
        places = self.store.list_places()
        truth = answer_places(places, changes, self.grid)
        area = estimate_area(places, truth, class_px=sizes, pixel_area=self.get_pixel_area())
        return found | {"area": as_plain(area)}

    def list_open_places(self) -> list[dict[str, Any]]:
        """Return the places of unchanged ground in their random order, drawn at the first call, with their answers."""
        draw_places(self.store, self.get_detected_map(), key=self.key)
        places = self.store.list_places()
        truth = answer_places(places, self.store.list_changes(all_rows=True), self.grid)
        found = []
        for place, answer in zip(places, truth, strict=True):
            if place["mapped"] == 0:
                x, y = self.grid.transform @ (place["col"] + 0.5, place["row"] + 0.5)
                found.append({**place, "truth": answer, "given": place["truth"], "x": x, "y": y})
        return found

    def list_commands(self) -> list[str]:
        """Return what to do with the reviewed map."""
        facts = self.pair.facts
        assert facts is not None
        before = self.config.before or facts.inputs.before.path
        after = self.config.after or facts.inputs.after.path
        reading = list_reading_words(read_reading_settings(facts))
        return list_next_commands(self.pair.folder, before=before, after=after, reading=reading)

    def export(self) -> dict[str, Any]:
        """Write reviewed.gpkg and review.json; return their paths and what comes next.

        Raises:
            OutputError: they cannot be written.
        """
        folder, commands = self.pair.folder, self.list_commands()
        write_reviewed(
            folder / REVIEWED_FILE, self.store.list_changes(all_rows=True), grid=self.grid, area_unit=self.area_unit
        )
        write_record(
            folder / RECORD_FILE,
            name=self.pair.name,
            counts=self.store.count_states(),
            reviewers=self.store.list_reviewers(),
            estimate=self.estimate(),
            commands=commands,
        )
        return {"files": [str(folder / REVIEWED_FILE), str(folder / RECORD_FILE)], "commands": commands}

    def close(self) -> None:
        """Close all files."""
        self.store.close()
        if self._images is not None:
            self._images.close()


class Sessions:
    """The pairs of a server by name; the least recently used ones are closed again."""

    def __init__(self, pairs: Mapping[str, ServedPair], config: ServeConfig) -> None:
        """Know the pairs; none is opened yet."""
        self.pairs, self.config = pairs, config
        self._open: OrderedDict[str, PairSession] = OrderedDict()
        self._users: dict[str, int] = {}
        self._lock = threading.RLock()

    @contextmanager
    def use(self, name: str) -> Iterator[PairSession]:
        """Give an open pair; it is not closed while it is used.

        Raises:
            NoSuchPair: there is no such pair.
            InputError: it cannot be shown.
        """
        with self._lock:
            session = self._get(name)
            self._users[name] = self._users.get(name, 0) + 1
        try:
            yield session
        finally:
            with self._lock:
                self._users[name] -= 1

    def _get(self, name: str) -> PairSession:
        """Return an open pair, opened now if it is not yet."""
        pair = self.pairs.get(name)
        if pair is None:
            raise NoSuchPair("There is no such pair.")
        if pair.failure is not None:
            raise InputError(pair.name, f"cannot be shown: {pair.failure.rstrip('.')}", "Run `semicdvl detect` again")
        if name not in self._open:
            self._close_unused()
            self._open[name] = PairSession(pair, self.config)
        self._open.move_to_end(name)
        return self._open[name]

    def _close_unused(self) -> None:
        """Close pairs that nobody used for the longest time, so that there is room for one more."""
        for name in list(self._open):
            if len(self._open) < MAX_OPEN_PAIRS:
                return
            if not self._users.get(name):
                self._open.pop(name).close()

    def open_only_pair(self) -> None:
        """Open the pair, where there is just one, before somebody asks for it; a fault is told to whoever asks."""
        with suppress(Exception):
            (name,) = self.pairs
            with self.use(name) as session:
                session.open_images()

    def count_states(self, name: str) -> dict[str, int] | None:
        """Return how far the review of a pair is; None where it has not begun."""
        pair = self.pairs[name]
        with self._lock:
            if name in self._open:
                return self._open[name].store.count_states()
        path: Path = pair.folder / REVIEW_FILE
        if pair.failure is not None or not path.is_file():
            return None
        store = ReviewStore(path)
        try:
            return store.count_states()
        finally:
            store.close()

    def close(self) -> None:
        """Write what was reviewed, and close everything."""
        with self._lock:
            for session in self._open.values():
                session.close()
            self._open.clear()
