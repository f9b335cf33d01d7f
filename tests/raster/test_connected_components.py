"""Groups of labels that touch are the connected components of the graph of their pairs."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from semicdvl.raster.connected_components import group_labels


@given(count=st.integers(1, 40), links=st.integers(0, 60), seed=st.integers(0, 999))
def test_groups_are_those_of_scipy(count: int, links: int, seed: int) -> None:
    pairs_2N = np.random.default_rng(seed).integers(0, count, (2, links))
    table = coo_array((np.ones(links, bool), (pairs_2N[0], pairs_2N[1])), shape=(count, count))
    assert group_labels(pairs_2N, count=count).tolist() == connected_components(table, directed=False)[1].tolist()


def test_a_long_chain_in_any_order_is_one_group() -> None:
    order_N = np.random.default_rng(0).permutation(5000)
    assert not group_labels(np.stack([order_N[:-1], order_N[1:]]), count=5000).any()


def test_no_labels_are_no_groups() -> None:
    assert group_labels(np.zeros((2, 0), np.int64), count=0).tolist() == []
