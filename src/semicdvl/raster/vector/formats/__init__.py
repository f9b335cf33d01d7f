"""Vector formats, one file each. A new one is a file and a line here.

A builder returns a `base.VectorFormat`; it raises a `MissingExtraError` if a package that the format needs is missing.
"""

VECTOR_FORMATS: dict[str, str] = {
    "gpkg": "semicdvl.raster.vector.formats.geopackage:build_geopackage",
    "geojson": "semicdvl.raster.vector.formats.geojson:build_geojson",
    "fgb": "semicdvl.raster.vector.formats.flatgeobuf:build_flatgeobuf",
    "parquet": "semicdvl.raster.vector.formats.geoparquet:build_geoparquet",
}
"""Name of a format, which is also the suffix of its files -> builder."""
