"""From an order to kept rows."""

from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from sklearn_lpntk.pruning._selection import dropped_rows, interleave, kept_mask

labels = st.lists(st.integers(0, 4), min_size=2, max_size=40)


@given(y=labels, seed=st.integers(0, 1000), fraction=st.floats(0, 0.999))
def test_exactly_as_many_go_as_can(y, seed, fraction):
    y = np.array(y)
    order = np.random.default_rng(seed).permutation(len(y))
    n_drop = round(fraction * len(y))
    kept = kept_mask(order, y, n_drop)
    assert (~kept).sum() == min(n_drop, len(y) - len(np.unique(y)))
    assert set(y[kept]) == set(y)


@given(y=labels, seed=st.integers(0, 1000))
def test_larger_fractions_keep_subsets(y, seed):
    y = np.array(y)
    order = np.random.default_rng(seed).permutation(len(y))
    masks = [kept_mask(order, y, n) for n in range(len(y))]
    for smaller, larger in pairwise(masks):
        assert not (larger & ~smaller).any()


def test_a_class_keeps_its_last_of_the_order():
    y = np.array([0, 0, 1, 1, 1])
    np.testing.assert_array_equal(dropped_rows(np.array([1, 0, 4, 2, 3]), y, 4), [1, 4, 2])


def test_interleaving_by_rank_over_class_size():
    visits = [np.array([4, 1, 0, 5]), np.array([3, 2])]
    # ranks: 4:0, 1:1/4, 0:1/2, 5:3/4 and 3:0, 2:1/2
    assert interleave(visits, 6).tolist() == [3, 4, 1, 0, 2, 5]
