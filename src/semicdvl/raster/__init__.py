"""Disk <-> arrays: georeferenced pairs in, cloud-optimised rasters and polygons out. Knows rasterio, never torch."""
