"""Readers of data sets on disk: one file per layout, one line per reader in `semicdvl.data.DATASETS`."""
