"""Change event generation: the segments of two dates become change events."""
