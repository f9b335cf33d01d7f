"""The embedded VLM: an open-vocabulary segmenter of aerial images whose weights ship with the package."""
