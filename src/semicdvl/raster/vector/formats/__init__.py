"""Vector formats, one file each. A new one is a file and a line here.

A builder (a class, or a function) returns a `files.VectorFormat`; it raises a `MissingExtraError` if a package that the
format needs is missing.
"""

VECTOR_FORMATS: dict[str, str] = {
    "gpkg": "semicdvl.raster.vector.formats.geopackage:GeoPackage",
    "geojson": "semicdvl.raster.vector.formats.geojson:GeoJson",
    "fgb": "semicdvl.raster.vector.formats.flatgeobuf:FlatGeobuf",
    "parquet": "semicdvl.raster.vector.formats.geoparquet:build_geoparquet",
}
"""Name of a format, which is also the suffix of its files -> builder."""
