"""VLM answers -> change labels."""
