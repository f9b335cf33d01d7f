"""What the review says of the whole map, the places of unchanged ground, and the files that come out."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path

from semicdvl.review.labels.reviewed import write_reviewed_patches
from semicdvl.review.routes.pairs import PairName, Served
from semicdvl.review.schemas import EstimateOut, Exported, PlaceAnswer, PlaceList, PlaceOut, TrainingSet

router = APIRouter(tags=["estimates"], prefix="/api/pairs/{pair}")


@router.get("/estimate", operation_id="get_estimate")
def get_estimate(sessions: Served, pair: PairName) -> EstimateOut:
    """Return precision, recall and changed area with 95 % confidence intervals, as far as the review allows."""
    with sessions.use(pair) as session:
        return EstimateOut.model_validate(session.estimate())


@router.get("/places", operation_id="list_places")
def list_places(sessions: Served, pair: PairName) -> PlaceList:
    """List random places of the unchanged ground; they are drawn at the first call."""
    with sessions.use(pair) as session:
        return PlaceList(places=[PlaceOut.model_validate(place) for place in session.list_open_places()])


@router.post("/places/{rank}", operation_id="answer_place")
def answer_place(
    sessions: Served, pair: PairName, rank: Annotated[int, Path(ge=0, lt=2**31)], request: PlaceAnswer
) -> EstimateOut:
    """Say whether a place of the unchanged ground did change."""
    with sessions.use(pair) as session:
        truth = None if request.changed is None else int(request.changed)
        reviewer = request.reviewer or sessions.config.reviewer
        session.store.answer_place(rank, truth, version=request.version, reviewer=reviewer)
        return EstimateOut.model_validate(session.estimate())


@router.post("/export", operation_id="export_review")
def export_review(sessions: Served, pair: PairName) -> Exported:
    """Write reviewed.gpkg and review.json into the folder of the result."""
    with sessions.use(pair) as session:
        return Exported.model_validate(session.export())


@router.post("/training-set", operation_id="make_training_set")
def make_training_set(sessions: Served, pair: PairName) -> TrainingSet:
    """Cut training patches around the decided changes: accepted is change, rejected is not."""
    with sessions.use(pair) as session:
        made = write_reviewed_patches(session)
        return TrainingSet(
            folder=str(made.root),
            patches=made.patches,
            accepted=made.accepted,
            rejected=made.rejected,
            corrected=made.corrected,
            painted=made.painted,
            commands=made.commands,
        )
