"""What requests carry and answers hold, as OpenAPI documents it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from semicdvl.review.changes import KINDS, MAX_TEXT_CHARS
from semicdvl.review.geometry import MAX_VERTICES
from semicdvl.review.settings import MAX_REVIEWER_CHARS

MAX_COMMENT_CHARS = 2000
PLAIN = r"^[^\x00-\x08\x0b\x0c\x0e-\x1f\x7f]*$"
"""Text without control characters, which a GeoPackage could not hold."""

Coordinate = Annotated[float, Field(allow_inf_nan=False, ge=-1e12, le=1e12)]
Position = tuple[Coordinate, Coordinate]
Ring = Annotated[list[Position], Field(min_length=4, max_length=MAX_VERTICES)]
PolygonRings = Annotated[list[Ring], Field(min_length=1, max_length=1000)]
Number = Annotated[int, Field(ge=1, lt=2**53)]
Version = Annotated[int, Field(ge=1, lt=2**53)]
State = Literal["open", "accepted", "rejected", "skipped"]
Comment = Annotated[str, StringConstraints(max_length=MAX_COMMENT_CHARS, pattern=PLAIN)]
ClassName = Annotated[str, StringConstraints(max_length=MAX_TEXT_CHARS, pattern=PLAIN)]
Kind = Literal["appeared", "disappeared", "replaced", "changed"]
assert set(Kind.__args__) == set(KINDS), "the kinds of change are those of the map"  # type: ignore[attr-defined]


class Request(BaseModel):
    """A request knows all its fields."""

    model_config = ConfigDict(extra="forbid")


class Authored(Request):
    """Who writes: the window's own name is what undo goes by."""

    window: Annotated[str, StringConstraints(max_length=64, pattern=r"^[A-Za-z0-9_-]*$")] = ""
    reviewer: Annotated[str, StringConstraints(max_length=MAX_REVIEWER_CHARS, pattern=PLAIN)] | None = None


class PolygonShape(Request):
    """A GeoJSON polygon in the coordinates of the map."""

    type: Literal["Polygon"]
    coordinates: PolygonRings


class MultiPolygonShape(Request):
    """A GeoJSON multi-polygon in the coordinates of the map."""

    type: Literal["MultiPolygon"]
    coordinates: Annotated[list[PolygonRings], Field(min_length=1, max_length=1000)]


Shape = Annotated[PolygonShape | MultiPolygonShape, Field(discriminator="type")]


class LineShape(Request):
    """A GeoJSON line in the coordinates of the map."""

    type: Literal["LineString"]
    coordinates: Annotated[list[Position], Field(min_length=2, max_length=MAX_VERTICES)]


class Decision(Authored):
    """A decision on a change."""

    version: Version
    state: State
    comment: Comment | None = None


class Edit(Authored):
    """Another outline, or other attributes; what is left out stays."""

    version: Version
    geometry: Shape | None = None
    kind: Kind | None = None
    from_class: ClassName | None = None
    to_class: ClassName | None = None
    comment: Comment | None = None


class Drawing(Authored):
    """A change that the detection missed."""

    geometry: Shape
    kind: Kind = "changed"
    from_class: ClassName | None = None
    to_class: ClassName | None = None
    comment: Comment = ""


class Division(Authored):
    """A line that divides a change."""

    version: Version
    line: LineShape


class Member(Request):
    """A change that is to be merged."""

    id: Number
    version: Version


class Union(Authored):
    """Changes that are one."""

    members: Annotated[list[Member], Field(min_length=2, max_length=100)]


class Undo(Authored):
    """Take back the last action of this window."""


class PlaceAnswer(Authored):
    """Whether a place of the unchanged ground did change; None takes the answer back."""

    version: Version
    changed: bool | None


# ------------------------------------------------------------------------------------------------ answers
class Health(BaseModel):
    """That the server runs."""

    status: Literal["ok"] = "ok"
    version: str


class Problem(BaseModel):
    """Why a request was refused."""

    detail: Any


class PairRow(BaseModel):
    """A pair of the list."""

    name: str
    failure: str | None
    objects: int | None
    states: dict[str, int] | None
    detector: str | None


class PairList(BaseModel):
    """All pairs that are served, what the page begins with, and whether labels can be painted here."""

    folder: str
    mode: Literal["review", "label"]
    labels: bool
    reviewer: str
    version: str
    pairs: list[PairRow]


class ClassColour(BaseModel):
    """A class and its colour (#rrggbb)."""

    name: str
    colour: str


class PairInfo(BaseModel):
    """What the map of a pair is."""

    name: str
    title: str
    key: str
    width_px: int
    height_px: int
    transform: tuple[float, float, float, float, float, float]
    crs: str | None
    crs_name: str | None
    gsd_m: float | None
    area_unit: str
    tile_px: int
    levels: int
    layers: list[str]
    classes: list[ClassColour]
    kinds: list[ClassColour]
    detector: str
    notes: list[str]


class ChangeOut(BaseModel):
    """A change; geometry is GeoJSON in the coordinates of the map."""

    id: int
    version: int
    live: bool
    state: State
    source: str
    parents: list[int]
    kind: str | None
    from_class: str | None
    to_class: str | None
    score: float | None
    uncertainty: float | None
    random_rank: float
    area: float
    edited: bool
    comment: str
    reviewer: str
    decided: str
    geometry: dict[str, Any]


class ChangeList(BaseModel):
    """All changes of a map."""

    changes: list[ChangeOut]


class Written(BaseModel):
    """What an action did: the objects as they are now, what was mended, and the counts of all states."""

    action: str
    changes: list[ChangeOut]
    notes: list[str] = []
    states: dict[str, int]


class PlaceOut(BaseModel):
    """A place of the unchanged ground: `truth` as it counts, `given` as a person said."""

    rank: int
    row: int
    col: int
    x: float
    y: float
    truth: int | None
    given: int | None
    version: int


class PlaceList(BaseModel):
    """The places in their random order."""

    places: list[PlaceOut]


class IntervalOut(BaseModel):
    """A value with its 95 % confidence interval."""

    value: float
    low: float
    high: float


class ObjectEstimateOut(BaseModel):
    """Precision by objects."""

    total: int
    decided: int
    sampled: int
    right: int
    precision: IntervalOut | None
    waits_for: int | None


class AreaEstimateOut(BaseModel):
    """Precision, recall and changed area by area."""

    places: int
    checked: int
    open_places: int
    precision: IntervalOut | None
    recall: IntervalOut | None
    changed_area: IntervalOut | None
    mapped_area: float


class EstimateOut(BaseModel):
    """What the review says of the whole map."""

    text: str
    unit: str
    objects: ObjectEstimateOut
    area: AreaEstimateOut | None


class Exported(BaseModel):
    """The files that were written, and what comes next."""

    files: list[str]
    commands: list[str]


class TrainingSet(BaseModel):
    """The training set that was made of a review, and the commands that learn from it, in their order."""

    folder: str
    patches: int
    accepted: int
    rejected: int
    corrected: int
    painted: int
    commands: list[str]


class PatchRow(BaseModel):
    """A patch of the list."""

    name: str
    labelled: bool
    note: str


class LabelFolder(BaseModel):
    """The patches, and what trains on them."""

    folder: str
    labelled: int
    patches: list[PatchRow]
    commands: list[str]
    message: str


class PatchInfo(BaseModel):
    """A patch; `version` names its present label."""

    name: str
    width_px: int
    height_px: int
    labelled: bool
    version: str
