"""torch data sets and loaders: their items, their labels, and what is refused."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import (
    DataLoader,
    Dataset,
    IterableDataset,
    SequentialSampler,
    Subset,
    TensorDataset,
)

from sklearn_lpntk.dynamics import train_test_similarity
from sklearn_lpntk.kernels import empirical_ntk, lpntk_kernel, pntk_kernel

torch.manual_seed(0)
X, y = torch.randn(12, 4), torch.arange(12) % 3
PAIRS = TensorDataset(X, y)


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))


class Items(Dataset):
    """Items by a function of their index, counted."""

    def __init__(self, item):
        self.item, self.read = item, 0

    def __len__(self):
        return 12

    def __getitem__(self, i):
        if not 0 <= i < 12:
            raise IndexError(i)
        self.read += 1
        return self.item(i)


def test_the_labels_are_its_own_where_none_are_given(net):
    expected = lpntk_kernel(net, X, y)
    np.testing.assert_array_equal(lpntk_kernel(net, PAIRS, None), expected)
    np.testing.assert_array_equal(lpntk_kernel(net, PAIRS, y), expected)
    other = lpntk_kernel(net, PAIRS, (y + 1) % 3)
    np.testing.assert_array_equal(other, lpntk_kernel(net, X, (y + 1) % 3))
    both = empirical_ntk(net, PAIRS, None, Subset(PAIRS, [7, 2])).toarray()
    np.testing.assert_allclose(both, expected[:, [7, 2]], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "given",
    [
        Subset(PAIRS, range(12)),
        DataLoader(PAIRS, batch_size=5),
        TensorDataset(X),
        Items(lambda i: X[i]),
        Items(lambda i: (X[i].numpy(), int(y[i]))),
    ],
    ids=["subset", "loader", "without labels", "inputs alone", "numpy"],
)
@pytest.mark.parametrize("batch_size", ["auto", 5])
def test_every_kind_of_data_set(given, batch_size, net):
    found = pntk_kernel(net, given, batch_size=batch_size)
    np.testing.assert_allclose(found, pntk_kernel(net, X, batch_size=batch_size), rtol=1e-6)


def test_items_that_are_dicts():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(4, 3), nn.Linear(2, 3)

        def forward(self, left, right):
            return self.a(left) * self.b(right)

    torch.manual_seed(0)
    net, Z = Two(), torch.randn(12, 2)
    items = Items(lambda i: ({"left": X[i], "right": Z[i]}, y[i]))
    expected = lpntk_kernel(net, {"left": X, "right": Z}, y, batch_size=5)
    np.testing.assert_array_equal(lpntk_kernel(net, items, y, batch_size=5), expected)
    items.read = 0
    lpntk_kernel(net, items, y, batch_size=12)
    assert items.read < 4 * 12  # an input by itself is not read again


def test_a_store_and_the_dynamics_take_one(net, tmp_path):
    stored = empirical_ntk(net, PAIRS, store=tmp_path).toarray()
    np.testing.assert_array_equal(stored, lpntk_kernel(net, X, y))
    again = train_test_similarity(net, PAIRS, y, X[:3], y[:3])
    direct = train_test_similarity(net, X, y, X[:3], y[:3])
    np.testing.assert_equal(dict(again), dict(direct))


class Stream(IterableDataset):
    def __iter__(self):
        raise AssertionError("nothing is read before it is refused")


@pytest.mark.parametrize(
    ("given", "match"),
    [
        (Stream(), "without a length.*map-style"),
        (DataLoader(PAIRS, shuffle=True), r"pass its data set, X\.dataset"),
        (DataLoader(PAIRS, batch_sampler=[[3, 2, 1], [0]]), r"pass its data set, X\.dataset"),
        (DataLoader(PAIRS, sampler=SequentialSampler(range(5))), r"X\.dataset"),
        (DataLoader(PAIRS, batch_size=5, drop_last=True), r"X\.dataset"),
        (Items(lambda i: (X[i, : 1 + i % 2], y[i])), r"Items 0 to 7 of the data set can't be put"),
        (Items(lambda i: (X[i], torch.eye(3)[y[i]])), "labels of several numbers"),
        (TensorDataset(X, y, y), "got 3 parts"),
        (TensorDataset(X[:0], y[:0]), "no samples"),
    ],
    ids=[
        "stream",
        "shuffled",
        "batches",
        "a part",
        "drop last",
        "shapes",
        "one-hot",
        "three parts",
        "empty",
    ],
)
def test_what_is_refused(given, match, net):
    with pytest.raises(ValueError, match=match):
        lpntk_kernel(net, given, None)


def test_labels_are_missing(net):
    with pytest.raises(ValueError, match="pass y"):
        lpntk_kernel(net, TensorDataset(X), None)
