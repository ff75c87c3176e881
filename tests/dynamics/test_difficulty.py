"""difficulty_correlation against a loop of plain training runs."""

import copy

import numpy as np
import pytest
import torch
from scipy.stats import pearsonr
from torch import nn
from torch.nn import functional as F

from sklearn_lpntk.dynamics import _stacked, difficulty_correlation

from ..nets import TRAPS, Wrap


def problem(n=24):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Dropout(), nn.Linear(6, 3)).double()
    return net, torch.randn(n, 4).double(), torch.arange(n) % 3


def by_hand(net, X, y, n_epochs, learning_rate):
    """Algorithm 1 for one set: the loss of each sample summed over the epochs."""
    net = copy.deepcopy(net).eval()
    optimizer = torch.optim.SGD(net.parameters(), lr=learning_rate)
    total = np.zeros(len(y))
    for _ in range(n_epochs):
        losses = F.cross_entropy(net(X), y, reduction="none")
        total += losses.detach().numpy()
        optimizer.zero_grad()
        losses.mean().backward()
        optimizer.step()
    return total


@pytest.mark.parametrize("numbers", [1, 200, 2**22])
def test_every_subset_is_trained_as_if_alone(numbers, monkeypatch):
    monkeypatch.setitem(_stacked.STACK_NUMBERS, "cpu", numbers)  # one copy, a few, all
    net, X, y = problem()
    sizes = [1, 5, 24]  # 5: four subsets, and one of the four that are left
    found = difficulty_correlation(
        net, X, y, subset_sizes=sizes, n_epochs=7, learning_rate=0.3, random_state=0
    )
    whole = by_hand(net, X, y, 7, 0.3)
    np.testing.assert_allclose(found.difficulty, whole, rtol=1e-10)
    rng = np.random.RandomState(0)
    for size, own, rho in zip(sizes, found.subset_difficulty, found.correlation, strict=True):
        order, expected = rng.permutation(24), np.empty(24)
        for start in range(0, 24, size):
            rows = order[start : start + size]
            expected[rows] = by_hand(net, X[rows], y[rows], 7, 0.3)
        np.testing.assert_allclose(own, expected, rtol=1e-10)
        np.testing.assert_allclose(rho, pearsonr(whole, expected).statistic)
    np.testing.assert_allclose(found.correlation[2], 1)


@pytest.mark.parametrize("name", ["lstm", "normalisations", "layer_called_twice", "bag_of_words"])
def test_other_networks(name):
    """Recurrent ones, which vmap does not know, too."""
    net, X, _ = TRAPS[name]()
    X, y = X[:4], torch.arange(4) % 3
    before = copy.deepcopy(net.state_dict())
    found = difficulty_correlation(
        net, X, y, subset_sizes=[2], n_epochs=3, learning_rate=0.05, random_state=0
    )
    np.testing.assert_allclose(found.difficulty, by_hand(net, X, y, 3, 0.05), rtol=1e-9)
    rows = np.random.RandomState(0).permutation(4)
    for pair in (rows[:2], rows[2:]):
        expected = by_hand(net, X[pair], y[pair], 3, 0.05)
        np.testing.assert_allclose(found.subset_difficulty[0, pair], expected, rtol=1e-9)
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())


def test_frozen_parameters_stay():
    net, X, y = problem()
    net[0].requires_grad_(False)
    found = difficulty_correlation(net, X, y, subset_sizes=[24], n_epochs=5, learning_rate=0.3)
    frozen = copy.deepcopy(net)
    np.testing.assert_allclose(found.difficulty, by_hand(frozen, X, y, 5, 0.3), rtol=1e-10)


def test_weights_that_are_not_where_a_stack_puts_them():
    net = Wrap(
        lambda self, x: self.b(torch.tanh(F.linear(x, *self.ws))),
        a=nn.Linear(4, 6),
        b=nn.Linear(6, 3),
    ).double()
    net.ws = [net.a.weight, net.a.bias]
    _, X, y = problem()
    found = difficulty_correlation(net, X, y, subset_sizes=[12], n_epochs=5, random_state=0)
    rows = np.random.RandomState(0).permutation(24)
    for part in (rows[:12], rows[12:]):
        copied = copy.deepcopy(net)  # the list goes along
        expected = by_hand(copied, X[part], y[part], 5, 0.1)
        np.testing.assert_allclose(found.subset_difficulty[0, part], expected, rtol=1e-9)


def test_one_logit():
    torch.manual_seed(0)
    net, X, y = nn.Linear(4, 1), torch.randn(10, 4), torch.arange(10) % 2
    found = difficulty_correlation(net, X, y, subset_sizes=[5], n_epochs=1)
    with torch.no_grad():
        expected = F.binary_cross_entropy_with_logits(net(X)[:, 0], y.float(), reduction="none")
    np.testing.assert_allclose(found.difficulty, expected.numpy(), rtol=1e-6)


class TestErrors:
    @pytest.mark.parametrize(
        ("options", "match"),
        [
            ({"subset_sizes": [0]}, "Each of subset_sizes must be an int of at least 1"),
            ({"subset_sizes": [25]}, "subset_sizes has 25, but there are only 24 samples"),
            ({"subset_sizes": []}, "subset_sizes is empty"),
            ({"learning_rate": -1}, "learning_rate must be"),
            ({"n_epochs": 0}, "n_epochs must be an int"),
            ({"y": torch.arange(24)}, "y contains"),
            ({"X": torch.randn(24, 5)}, "first layer is"),
            ({"learning_rate": 1e200, "n_epochs": 5}, "diverged.*Lower"),
        ],
    )
    def test_each(self, options, match):
        net, X, y = problem()
        options = {"X": X, "y": y, "subset_sizes": [6]} | options
        with pytest.raises(ValueError, match=match):
            difficulty_correlation(net, options.pop("X"), options.pop("y"), **options)

    def test_dicts(self):
        net = Wrap(lambda self, a: self.out(a), out=nn.Linear(4, 3))
        with pytest.raises(ValueError, match="one array"):
            difficulty_correlation(net, {"a": torch.randn(6, 4)}, [0, 1, 2, 0, 1, 2])
