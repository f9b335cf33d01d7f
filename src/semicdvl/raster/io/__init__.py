"""Rasters on disk to arrays and back: opening, mosaics, pairs on one grid, cloud-optimised GeoTIFFs.

`inputs` resolves what a user names into what GDAL opens, `open_dataset`, `mosaic` and `open_image` open it,
`image_reader` reads it as 8-bit windows with a mask (`nodata_border`), and `pair_reader` two images on one grid.
`fingerprint` identifies the files of a pair; `cog` writes.
"""
