"""Image files -> arrays: files.py opens and decodes, reading.py reads bands and what is hidden, cache.py keeps them."""
