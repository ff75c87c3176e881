"""predict_forgetting against a plain training loop that is looked at from outside."""

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from sklearn_lpntk.dynamics import predict_forgetting
from sklearn_lpntk.dynamics._forgetting import label_margin


@pytest.fixture
def problem():
    """A net, and labels that contradict each other, so that much is forgotten."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 3)).double()
    return net, torch.randn(200, 6).double(), torch.arange(200) % 3


def replayed(net, X, y, batches, learning_rate, *, train_mode=False):
    """(step, sample) of every candidate, and which of them are forgotten."""
    net = copy.deepcopy(net).eval()
    optimizer = torch.optim.SGD(net.parameters(), lr=learning_rate)
    candidates, forgotten = [], []
    for step in range(1, len(batches)):
        previous, rows = batches[step - 1], batches[step]
        right = net(X[previous]).argmax(1) == y[previous]
        net.train(train_mode)
        optimizer.zero_grad()
        F.cross_entropy(net(X[rows]), y[rows]).backward()
        optimizer.step()
        net.eval()
        wrong = net(X[previous]).argmax(1) != y[previous]
        candidates += [(step - 1, row) for row in np.asarray(previous)[right]]
        forgotten += wrong[right].tolist()
    return candidates, forgotten, net


def drawn(n, size, n_batches):
    rng = np.random.default_rng(0)
    return [rng.permutation(n)[:size] for _ in range(n_batches)]


def test_candidates_and_events_are_those_of_a_training_loop(problem):
    net, X, y = problem
    batches = drawn(200, 30, 41)
    found = predict_forgetting(net, X, y, learning_rate=0.2, batches=batches)
    candidates, forgotten, after = replayed(net, X, y, batches, 0.2)
    assert list(zip(found.iterations, found.samples, strict=True)) == candidates
    assert found.actual.tolist() == forgotten
    assert sum(forgotten) > 20
    for key, value in after.state_dict().items():
        torch.testing.assert_close(found.state_dict[key], value)


def test_events_are_foreseen(problem):
    net, X, y = problem
    found = predict_forgetting(net, X, y, learning_rate=0.1, n_iterations=400, random_state=0)
    assert found.actual.sum() > 50
    hits = (found.actual & found.predicted).sum()
    assert found.precision == hits / found.predicted.sum()
    assert found.recall == hits / found.actual.sum()
    np.testing.assert_allclose(found.f1, 2 / (1 / found.precision + 1 / found.recall))
    assert found.f1 > 0.95
    # as many of the smallest margins know much less
    smallest = np.argsort(found.margins)[: found.predicted.sum()]
    assert found.actual[smallest].mean() < 0.8
    assert (found.margins >= 0).all()


def test_without_events_the_scores_are_nan(problem):
    net, X, y = problem
    found = predict_forgetting(net, X, y, learning_rate=1e-12, n_iterations=2, random_state=0)
    assert not found.actual.any()
    assert np.isnan([found.precision, found.recall, found.f1]).all()


def test_batches_come_epoch_by_epoch(problem):
    net, X, y = problem
    options = {"learning_rate": 1e-9, "n_iterations": 12, "batch_size": 50}
    found = predict_forgetting(net, X, y, **options, random_state=3)
    for epoch in range(3):
        seen = found.samples[found.iterations // 4 == epoch]
        assert len(set(seen)) == len(seen)
    assert found.iterations.max() == 11
    again = predict_forgetting(net, X, y, **options, random_state=3)
    np.testing.assert_array_equal(found.samples, again.samples)
    # a batch larger than the data is the data
    whole = predict_forgetting(net, X[:20], y[:20], learning_rate=0.1, n_iterations=3)
    assert whole.iterations.max() == 2


def test_real_steps_in_training_mode(problem):
    _, X, y = problem
    net = nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 3)).double()
    batches = drawn(200, 30, 31)
    before = copy.deepcopy(net.state_dict())
    found = {}
    for mode in (False, True):
        found[mode] = predict_forgetting(
            net, X, y, learning_rate=0.05, batches=batches, training_mode=mode
        )
        _, forgotten, after = replayed(net, X, y, batches, 0.05, train_mode=mode)
        assert found[mode].actual.tolist() == forgotten
        torch.testing.assert_close(found[mode].state_dict, dict(after.state_dict()))
    assert found[False].f1 > 0.9
    assert found[True].state_dict["1.num_batches_tracked"] == 30
    assert found[False].state_dict["1.num_batches_tracked"] == 0
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
    assert all(child.training for child in net.modules())


def test_large_batches_in_training_mode_are_not_cut():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.Tanh(), nn.Linear(5, 3)).double()
    X, y = torch.randn(600, 6).double(), torch.arange(600) % 3
    batches = [np.arange(300), np.arange(257, 557)]
    found = predict_forgetting(net, X, y, learning_rate=0.1, batches=batches, training_mode=True)
    after = replayed(net, X, y, batches, 0.1, train_mode=True)[2]
    torch.testing.assert_close(found.state_dict, dict(after.state_dict()))


def test_one_logit():
    torch.manual_seed(0)
    net, X = nn.Linear(4, 1), torch.randn(100, 4)
    y = torch.arange(100) % 2
    found = predict_forgetting(net, X, y, learning_rate=0.2, n_iterations=60, batch_size=20)
    assert found.actual.sum() > 5
    assert found.f1 > 0.9


def test_the_margin_is_negative_where_argmax_is_another():
    logits = torch.tensor([[1.0, 1.0, 0.0], [1.0, 1.0, 0.0], [0.0, 2.0, 1.0]])
    margin = label_margin(logits, torch.tensor([0, 1, 1]))
    assert margin.tolist()[::2] == [0, 1]
    assert margin[1] < 0


class TestErrors:
    def refused(self, problem, match, **options):
        net, X, y = problem
        options = {"learning_rate": 0.1, "n_iterations": 2} | options
        with pytest.raises(ValueError, match=match):
            predict_forgetting(net, options.pop("X", X), options.pop("y", y), **options)

    def test_each(self, problem):
        self.refused(problem, "learning_rate must be", learning_rate=0)
        self.refused(problem, "n_iterations must be an int of at least 1", n_iterations=0)
        self.refused(problem, "batch_size must be an int", batch_size=2.5)
        self.refused(problem, "two batches or more", batches=[[0, 1]])
        self.refused(problem, "two batches or more", batches=3)
        self.refused(problem, "rows of X, from 0 to 199", batches=[[0, 1], [200]])
        self.refused(problem, "rows of X, from 0 to 199", batches=[[0, 1], [-1]])
        self.refused(problem, "rows of X, from 0 to 199", batches=[[0, 1], []])
        self.refused(problem, "rows of X, from 0 to 199", batches=[[0.5], [1.0]])
        self.refused(problem, "y contains .3.", y=torch.arange(200) % 4)
        self.refused(problem, "y must have shape", y=torch.arange(9) % 3)
        self.refused(problem, "X has no samples", X=torch.empty(0, 6))
        self.refused(problem, "X contains NaN", X=torch.full((200, 6), torch.nan))
        self.refused(problem, "first layer is", X=torch.randn(200, 5))

    def test_the_net_comes_back_after_an_error(self, problem):
        net, X, y = problem
        before = copy.deepcopy(net.state_dict())
        X = X.clone()
        X[150:] = torch.inf  # found in the middle of training
        batches = [np.arange(k, k + 50) for k in (0, 50, 100, 150)]
        self.refused((net, X, y), "NaN or infinity", batches=batches)
        assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
