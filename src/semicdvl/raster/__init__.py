"""Disk <-> arrays: image pairs in, cloud-optimised rasters and polygons out. Knows rasterio, never torch.

`grid`, `tiling`, `warp`, `connected_components` and `radiometric_normalisation` compute on arrays; `io` reads and
writes with them; `registration` and `vector` stand on both. Imports go in this direction only.
"""
