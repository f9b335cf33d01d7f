"""Rasters on disk to arrays and back: opening, mosaics, pairs on one grid, cloud-optimised GeoTIFFs."""
