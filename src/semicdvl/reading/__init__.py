"""Read files that come from anywhere: one reader for each kind, with limits, and errors that name file and remedy."""
