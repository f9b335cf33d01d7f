"""VLM answers computed elsewhere and read from files."""
