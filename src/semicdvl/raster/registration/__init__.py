"""Co-registration and radiometric normalisation of image pairs."""
