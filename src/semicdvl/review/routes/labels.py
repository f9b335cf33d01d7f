"""Patches, their images and segments, and the labels that are painted."""

from __future__ import annotations

import io
from typing import Annotated, Any, Literal

import numpy as np
from fastapi import APIRouter, Body, Depends, Path, Query, Request, Response
from numpy.typing import NDArray
from PIL import Image

from semicdvl.review.labels.session import BadMask, LabelSession
from semicdvl.review.labels.sources import MAX_PATCH_PX
from semicdvl.review.labels.superpixels import Detail, encode_segments
from semicdvl.review.schemas import LabelFolder, PatchInfo

PatchName = Annotated[str, Path(min_length=1, max_length=300)]
Date = Literal["before", "after"]
PNG: dict[int | str, dict[str, Any]] = {200: {"content": {"image/png": {}}}}


def open_labelling(request: Request) -> LabelSession:
    """Return the labelling of the server that a request came to; it is opened at the first call."""
    session: LabelSession = request.app.state.open_labelling()
    return session


Labelling = Annotated[LabelSession, Depends(open_labelling)]
"""The labelling of the server, for a route."""
router = APIRouter(tags=["labels"], prefix="/api/labels")


@router.get("", operation_id="list_patches")
def list_patches(session: Labelling) -> LabelFolder:
    """List the patches, the first to label first, and the command that trains on what is labelled so far."""
    return LabelFolder.model_validate(session.describe())


@router.get("/{name}", operation_id="get_patch")
def get_patch(session: Labelling, name: PatchName) -> PatchInfo:
    """Describe a patch; its version names the present label."""
    return _describe(session, name)


@router.get("/{name}/images/{date}", operation_id="get_patch_image", response_class=Response, responses=PNG)
def get_image(session: Labelling, name: PatchName, date: Date) -> Response:
    """Return a date of a patch as PNG."""
    images = session.read_images(name)
    return _send_png(images.t1_HWC if date == "before" else images.t2_HWC)


@router.get("/{name}/segments/{date}", operation_id="get_segments", response_class=Response, responses=PNG)
def get_segments(session: Labelling, name: PatchName, date: Date, detail: Detail = "medium") -> Response:
    """Return the segments of a date as PNG: number of the segment = red + 256 green + 65536 blue."""
    return _send_png(encode_segments(session.segment(name, date, detail)))


@router.get("/{name}/mask", operation_id="get_mask", response_class=Response, responses=PNG)
def get_mask(session: Labelling, name: PatchName, source: Literal["stored", "proposal"] = "stored") -> Response:
    """Return the stored label, or where there is none the proposal, as grey PNG: 0, 128 not known, 255 changed."""
    stored_HW = session.read_label(name) if source == "stored" else None
    return _send_png(session.propose(name) if stored_HW is None else stored_HW)


@router.put("/{name}", operation_id="put_label")
def put_label(
    session: Labelling,
    name: PatchName,
    version: Annotated[str, Query(max_length=64)],
    content: Annotated[bytes, Body(media_type="image/png")],
) -> PatchInfo:
    """Store the label of a patch: a PNG of its size of 0, 128 (not known) and 255 (changed)."""
    session.write(name, _decode_mask(content), version=version)
    return _describe(session, name)


def _describe(session: LabelSession, name: str) -> PatchInfo:
    """Return what a patch is."""
    height, width = session.read_images(name).valid_HW.shape
    version = session.get_version(name)
    return PatchInfo(name=name, width_px=width, height_px=height, labelled=version != "none", version=version)


def _send_png(image: NDArray[np.uint8]) -> Response:
    """Return an image as PNG."""
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "PNG", compress_level=1)
    return Response(stream.getvalue(), media_type="image/png", headers={"Cache-Control": "no-store"})


def _decode_mask(content: bytes) -> NDArray[np.uint8]:
    """Return the grey values of a PNG; size and format are looked at before a pixel is decoded.

    Raises:
        BadMask: it is no such PNG.
    """
    try:
        with Image.open(io.BytesIO(content), formats=["PNG"]) as picture:
            if max(picture.size) > MAX_PATCH_PX or picture.mode not in ("L", "RGB", "RGBA"):
                raise BadMask(f"The mask is no grey PNG of at most {MAX_PATCH_PX} px ({picture.mode}, {picture.size}).")
            bands_HWC = np.atleast_3d(np.array(picture))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise BadMask(f"The mask is no PNG that can be read ({error}).") from error
    grey = bands_HWC.shape[2] == 1 or (bands_HWC[..., :3] == bands_HWC[..., :1]).all()
    opaque = bands_HWC.shape[2] < 4 or (bands_HWC[..., 3] == 255).all()
    if not grey or not opaque:
        raise BadMask("The mask has colours or is transparent: give 0, 128 and 255 in all bands.")
    return np.ascontiguousarray(bands_HWC[..., 0])
