"""Images of a synthetic city: materials, roofs, trees, shadows, haze and sensor noise."""
