"""Detection over a table of many image pairs, with an index of the results."""
