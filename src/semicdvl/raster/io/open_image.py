"""Open one image of a pair: a file, or several files that make a mosaic, and the bands of it that are read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from rasterio._err import CPLE_BaseError

from semicdvl.errors import InputError
from semicdvl.raster.io.image_reader import ImageReader
from semicdvl.raster.io.inputs import ImageInput, ResolvedInput, network_access, resolve_input
from semicdvl.raster.io.mosaic import OpenedImage, open_mosaic
from semicdvl.raster.io.open_dataset import list_files, note_unused_overviews, open_dataset, read_grid
from semicdvl.raster.io.views.tagged_view import open_tagged_view
from semicdvl.raster.io.views.upright_view import open_upright_view
from semicdvl.raster.stored_values import BandScaling, select_bands


def open_image_reader(
    image: ImageInput | ResolvedInput, *, bands: Sequence[int] | None = None, alpha: str = "auto", collar: str = "auto"
) -> ImageReader:
    """Open one image for reading.

    Args:
        image: a file, folder, address, ... or several of them, which make a mosaic (`raster.io.mosaic`): see
            `raster.io.inputs.resolve_input`.
        bands: 1-based numbers of the bands to read, three or more; None: red, green and blue by the names or colour
            tags of the bands, or the first three (`raster.stored_values`).
        alpha: which band says where there is data: see `raster.io.views.alpha_band.choose_alpha_band`.
        collar: which collars without a no-data tag count as no data: see `raster.io.collar`.

    Raises:
        InputError: a file is missing, unreachable, no image, damaged, has fewer than 3 bands or cannot be located; or
            the files of a mosaic do not fit together.
    """
    resolved = image if isinstance(image, ResolvedInput) else resolve_input(image)
    with network_access(resolved), _name_damage(resolved):
        is_mosaic = len(resolved.gdal_names) > 1
        opened = open_mosaic(resolved, alpha=alpha) if is_mosaic else _open_file(resolved, alpha=alpha)
        with opened.views as views:  # closes everything where the image cannot be used after all
            views.callback(opened.dataset.close)
            upright = open_upright_view(opened.dataset, views, display_name=resolved.display_name)
            views.callback(upright.dataset.close)
            grid = read_grid(upright.dataset)
            selected = select_bands(opened.dataset, bands, display_name=resolved.display_name)
            return ImageReader(
                resolved,
                upright.dataset,
                selected.numbers,
                grid,
                file_grid=grid,
                files=opened.files,
                views=views.pop_all(),
                notes=(*opened.notes, *filter(None, (upright.note, selected.note))),
                collar=collar,
                scaling=BandScaling.read(opened.dataset, selected.numbers),
                never_measured=opened.never_measured,
                colours_told=selected.is_told,
            )


@contextmanager
def _name_damage(resolved: ResolvedInput) -> Iterator[None]:
    """Name the image where GDAL itself fails, as it does where rasterio asks for what it finds in no header.

    Raises:
        InputError: it does.
    """
    try:
        yield
    except CPLE_BaseError as error:
        remedy = "Copy it with gdal_translate, or take it from its source again"
        raise InputError(resolved.display_name, f"The file is damaged ({error})", remedy) from error


def _open_file(resolved: ResolvedInput, *, alpha: str) -> OpenedImage:
    """Open an image of a single file, with the tags that its pixels call for."""
    name = resolved.gdal_names[0]
    with ExitStack() as views:
        dataset = open_dataset(name, display_name=resolved.display_name, allow_outside=resolved.allow_outside)
        views.callback(dataset.close)
        files = list_files(dataset, name)
        view = open_tagged_view(dataset, name, views, alpha=alpha)
        notes = (*_describe_pages(dataset), *note_unused_overviews(name), *view.notes)
        return OpenedImage(view.dataset, views.pop_all(), files, notes, view.never_measured)


def _describe_pages(dataset: Any) -> tuple[str, ...]:
    """Say that a TIFF holds further images."""
    pages = len(dataset.subdatasets)
    if dataset.driver not in ("GTiff", "VRT") or pages < 2:
        return ()
    return (
        f"The file holds {pages} images (pages), of which the first is read. Write another one to a file of its own: "
        "`gdal_translate GTIFF_DIR:2:IN OUT`.",
    )
