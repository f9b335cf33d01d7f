"""Parts that several unsupervised methods share: features, streaming statistics, thresholds."""
