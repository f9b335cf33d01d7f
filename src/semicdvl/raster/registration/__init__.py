"""Measurements on an open pair: how the images are misregistered, and how their radiometry differs.

`phase_correlation` finds the shift between two windows, `estimate` that of a pair (a `shift.Shift`, which gives the
alignment that co-registers it), `co_registration` moves the after image by it, and `radiometry` compares the bands.
"""
