"""Views of an open raster file that say of its bands what its tags do not: colours, no data, transparency, north up."""
