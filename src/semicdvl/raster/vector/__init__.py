"""Change maps to polygons: connected components, polygonising, simplifying, vector files and their styles.

`object_stats` measures and classifies objects, `polygonise`, `regularise` and `simplify` draw their
outlines, `object_table` makes a row of each, `streaming_objects` does all of it for a map that comes strip by strip,
`qgis_style`, `formats` and `files` write them.
"""
