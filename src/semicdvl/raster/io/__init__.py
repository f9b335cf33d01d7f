"""Rasters on disk to arrays and back: opening, mosaics, pairs on one grid, cloud-optimised GeoTIFFs.

`inputs` resolves what a user names into what GDAL opens, `open_dataset` and `mosaic` open it,
`image_reader` reads it as 8-bit windows with a mask (`nodata_border`), and `pair_reader` two images on one grid; `cog`
writes.
"""
