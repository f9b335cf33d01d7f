"""A pair of rasters -> a change map, polygons and a report."""
