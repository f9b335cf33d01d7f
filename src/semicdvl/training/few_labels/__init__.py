"""Learning from a few labels what a detector without labels gets wrong: a network that starts as that detector."""
