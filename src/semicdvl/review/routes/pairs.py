"""Pairs, their tiles and thumbnails."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, HTTPException, Path, Request, Response

from semicdvl.raster.io.pair_notes import describe_crs
from semicdvl.reports.colours import KIND_COLOURS, choose_class_colours
from semicdvl.review.schemas import ClassColour, Health, PairInfo, PairList, PairRow
from semicdvl.review.session import PairSession, Sessions
from semicdvl.review.tiles import TILE_PX, Layer, NoSuchTile, Picture, count_levels, render_thumbnail, render_tile
from semicdvl.version import __version__

Place = Annotated[int, Path(ge=0, lt=2**24)]
PairName = Annotated[str, Path(min_length=1, max_length=300)]
CACHING = "private, max-age=3600"
IMAGES: dict[int | str, dict[str, Any]] = {200: {"content": {"image/png": {}, "image/jpeg": {}}}}


async def find_sessions(request: Request) -> Sessions:
    """Return the pairs of the server that a request came to."""
    sessions: Sessions = request.app.state.sessions
    return sessions


Served = Annotated[Sessions, Depends(find_sessions)]
"""The pairs of the server, for a route."""
router = APIRouter(tags=["pairs"])


@router.get("/api/health", operation_id="health")
def answer_health() -> Health:
    """Tell that the server runs; needs no token."""
    return Health(version=__version__)


@router.get("/api/pairs", operation_id="list_pairs")
def list_pairs(sessions: Served, request: Request) -> PairList:
    """List the pairs that are served."""
    state, config = request.app.state, sessions.config
    return PairList(
        folder=state.folder,
        mode="label" if config.label else "review",
        labels=state.open_labelling is not None,
        reviewer=config.reviewer,
        version=__version__,
        pairs=[_make_row(sessions, name) for name in sessions.pairs],
    )


@router.get("/api/pairs/{pair}", operation_id="get_pair")
def get_pair(sessions: Served, pair: PairName) -> PairInfo:
    """Describe the map of a pair."""
    with sessions.use(pair) as session:
        return _describe(session)


@router.get(
    "/api/pairs/{pair}/tiles/{layer}/{level}/{row}/{col}",
    operation_id="get_tile",
    response_class=Response,
    responses=IMAGES,
)
def get_tile(
    sessions: Served, pair: PairName, layer: Layer, level: Annotated[int, Path(ge=0, le=40)], row: Place, col: Place
) -> Response:
    """Return a tile of 256 x 256 px of a date, the change map or the score; level 0 has the pixels of the map."""
    with sessions.use(pair) as session:
        try:
            return _send(render_tile(session.open_images(), layer, level, row, col))
        except NoSuchTile:
            raise HTTPException(404, "There is no such tile.") from None


@router.get(
    "/api/pairs/{pair}/thumbnails/{date}",
    operation_id="get_thumbnail",
    response_class=Response,
    responses=IMAGES,
)
def get_thumbnail(sessions: Served, pair: PairName, date: Literal["before", "after"]) -> Response:
    """Return the whole image of a date as a small JPEG."""
    with sessions.use(pair) as session:
        return _send(render_thumbnail(session.open_images(), date))


def _send(picture: Picture) -> Response:
    return Response(picture.content, media_type=picture.media_type, headers={"Cache-Control": CACHING})


def _make_row(sessions: Sessions, name: str) -> PairRow:
    """Return the line of a pair in the list."""
    pair = sessions.pairs[name]
    states, failure = None, pair.failure
    if failure is None:
        try:
            states = sessions.count_states(name)
        except Exception as error:
            failure = f"The review cannot be read: {error}"
    return PairRow(
        name=name,
        failure=failure,
        objects=None if pair.facts is None else pair.facts.result.objects,
        states=states,
        detector=None if pair.facts is None else pair.facts.detector.name,
    )


def _describe(session: PairSession) -> PairInfo:
    """Return what the map of a pair is."""
    grid, facts = session.grid, session.pair.facts
    assert facts is not None
    images = session.open_images()
    transform = grid.transform
    colours = zip(facts.classes, choose_class_colours(facts.classes), strict=True)
    score = ["score"] if (session.pair.folder / "score.tif").is_file() else []
    return PairInfo(
        name=session.pair.name,
        title=str(facts.settings.get("title") or session.pair.name)[:300],
        key=session.key[:16],
        width_px=grid.width,
        height_px=grid.height,
        transform=(transform.a, transform.b, transform.c, transform.d, transform.e, transform.f),
        crs=None if grid.crs is None else describe_crs(grid),
        crs_name=None if grid.crs is None else _name_crs(grid.crs.to_wkt()),
        gsd_m=facts.grid.gsd_m or grid.gsd_m,
        area_unit=session.area_unit,
        tile_px=TILE_PX,
        levels=count_levels(grid),
        layers=["before", "after", "change", *score],
        classes=[ClassColour(name=name, colour=_to_hex(colour)) for name, colour in colours],
        kinds=[ClassColour(name=name, colour=_to_hex(colour)) for name, colour in KIND_COLOURS.items()],
        detector=facts.detector.name,
        notes=[*facts.warnings, *images.notes],
    )


def _name_crs(wkt: str) -> str:
    """Return the name of a CRS."""
    first = wkt.partition('"')[2].partition('"')[0]
    return first[:200] or "unnamed"


def _to_hex(colour: tuple[int, int, int]) -> str:
    return "#{:02x}{:02x}{:02x}".format(*colour)
