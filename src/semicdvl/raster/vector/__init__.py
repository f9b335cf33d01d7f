"""Change maps to polygons: connected components, polygonising, simplifying, vector files and their styles."""
