"""The synthetic city: image pairs with exact truth, and VLM answers with controlled errors."""
