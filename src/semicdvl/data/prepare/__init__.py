"""Training patches from rasters and GIS labels: rasterise, divide by blocks of ground, cut, and check for leakage."""
