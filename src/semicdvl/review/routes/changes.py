"""Changes of a map: list, decide, edit, undo."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, cast

import shapely
from fastapi import APIRouter, Path

from semicdvl.review import changes as decisions
from semicdvl.review.edits import Attributes
from semicdvl.review.estimate import rank_at_random
from semicdvl.review.geometry import MendedShape, mend_polygons
from semicdvl.review.routes.pairs import PairName, Served
from semicdvl.review.schemas import (
    Authored,
    ChangeList,
    ChangeOut,
    Decision,
    Division,
    Drawing,
    Edit,
    MultiPolygonShape,
    PolygonShape,
    State,
    Undo,
    Union,
    Written,
)
from semicdvl.review.session import PairSession, Sessions
from semicdvl.review.store import Author, Change

ChangeNumber = Annotated[int, Path(ge=1, lt=2**53)]


router = APIRouter(tags=["changes"], prefix="/api/pairs/{pair}")


@router.get("/changes", operation_id="list_changes")
def list_changes(sessions: Served, pair: PairName) -> ChangeList:
    """List all changes that are on the map, with the state of each."""
    with sessions.use(pair) as session:
        key = session.key
        return ChangeList.model_construct(changes=[_to_answer(one, key) for one in session.store.list_changes()])


@router.get("/changes/{number}", operation_id="get_change")
def get_change(sessions: Served, pair: PairName, number: ChangeNumber) -> ChangeOut:
    """Return one change."""
    with sessions.use(pair) as session:
        return _to_answer(session.store.get(number), session.key)


@router.post("/changes/{number}/decision", operation_id="decide")
def decide(sessions: Served, pair: PairName, number: ChangeNumber, request: Decision) -> Written:
    """Accept, reject, skip or reopen a change. When the answer comes, the decision is on disk."""
    with sessions.use(pair) as session:
        done = decisions.decide(
            session.store,
            number,
            version=request.version,
            state=request.state,
            comment=request.comment,
            author=_find_author(sessions, request),
        )
        return _report(session, request.state, [done])


@router.patch("/changes/{number}", operation_id="edit_change")
def edit_change(sessions: Served, pair: PairName, number: ChangeNumber, request: Edit) -> Written:
    """Give a change another outline (which accepts it) or other attributes."""
    with sessions.use(pair) as session:
        mended = None if request.geometry is None else _read_shape(session, request.geometry)
        done = session.editor.redraw(
            number,
            version=request.version,
            geometry=None if mended is None else mended.geometry,
            attributes=Attributes(request.kind, request.from_class, request.to_class, request.comment),
            author=_find_author(sessions, request),
        )
        return _report(session, "edit", [done], () if mended is None else mended.notes)


@router.post("/changes", operation_id="draw_change")
def draw_change(sessions: Served, pair: PairName, request: Drawing) -> Written:
    """Add a change that the detection missed; it counts as accepted."""
    with sessions.use(pair) as session:
        mended = _read_shape(session, request.geometry)
        attributes = Attributes(request.kind, request.from_class, request.to_class, request.comment)
        done = session.editor.draw(mended.geometry, attributes=attributes, author=_find_author(sessions, request))
        return _report(session, "draw", [done], mended.notes)


@router.post("/changes/{number}/split", operation_id="split_change")
def split_change(sessions: Served, pair: PairName, number: ChangeNumber, request: Division) -> Written:
    """Divide a change along a line."""
    with sessions.use(pair) as session:
        pieces = session.editor.split(
            number, version=request.version, line=request.line.coordinates, author=_find_author(sessions, request)
        )
        return _report(session, "split", [session.store.get(number), *pieces])


@router.post("/merge", operation_id="merge_changes")
def merge_changes(sessions: Served, pair: PairName, request: Union) -> Written:
    """Join two changes or more to one."""
    with sessions.use(pair) as session:
        members = [(member.id, member.version) for member in request.members]
        merged = session.editor.merge(members, author=_find_author(sessions, request))
        return _report(session, "merge", [*(session.store.get(number) for number, _ in members), merged])


@router.post("/undo", operation_id="undo")
def undo(sessions: Served, pair: PairName, request: Undo) -> Written:
    """Take back the last action of this window; without one, the answer lists no change."""
    with sessions.use(pair) as session:
        done = session.store.undo(_find_author(sessions, request))
        action, restored = ("nothing", []) if done is None else done
        return _report(session, action, restored)


def _find_author(sessions: Sessions, request: Authored) -> Author:
    """Return who acts, in which window."""
    return Author(request.reviewer or sessions.config.reviewer, request.window)


def _read_shape(session: PairSession, shape: PolygonShape | MultiPolygonShape) -> MendedShape:
    """Return the shape of a request, valid and on the map."""
    polygons = [shape.coordinates] if isinstance(shape, PolygonShape) else shape.coordinates
    return mend_polygons(polygons, session.grid)


def _report(session: PairSession, action: str, changes: Sequence[Change], notes: Sequence[str] = ()) -> Written:
    """Return what an action did."""
    key = session.key
    return Written(
        action=action,
        changes=[_to_answer(change, key) for change in changes],
        notes=list(notes),
        states=session.store.count_states(),
    )


def _to_answer(change: Change, key: str) -> ChangeOut:
    """Return a change as answers hold it."""
    return ChangeOut.model_construct(
        id=change.id,
        version=change.version,
        live=change.live,
        state=cast(State, change.state),
        source=change.source,
        parents=list(change.parents),
        kind=change.kind,
        from_class=change.from_class,
        to_class=change.to_class,
        score=change.score,
        uncertainty=change.uncertainty,
        random_rank=rank_at_random(change.id, key=key),
        area=change.area,
        edited=change.edited,
        comment=change.comment,
        reviewer=change.reviewer,
        decided=change.decided,
        geometry=dict(shapely.geometry.mapping(change.geometry)),
    )
