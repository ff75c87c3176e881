"""Published criteria against literal transcriptions of their papers."""

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from skorch import NeuralNetClassifier
from torch import nn

from sklearn_lpntk import RedundancyPruner
from sklearn_lpntk.dynamics import TrainingDynamics
from sklearn_lpntk.pruning import _published

N, K = 90, 3
OURS = "sklearn_lpntk_recorded"


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    y = np.arange(N) % K
    return (rng.normal(size=(N, 5)) + 1.5 * np.eye(5)[y]).astype(np.float32), y


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    return NeuralNetClassifier(
        nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, K)),
        criterion=nn.CrossEntropyLoss,
        max_epochs=6,
        lr=0.3,
        iterator_train__shuffle=True,
        train_split=None,
        batch_size=16,
        verbose=0,
    )


def selected(strategy, net, data):
    pruner = RedundancyPruner(net=net, strategy=strategy, random_state=0)
    pruner.fit_resample(*data)
    recorded = [c for _, c in pruner.net_.callbacks_ if isinstance(c, TrainingDynamics)]
    return pruner, recorded[0] if recorded else None


def test_aum(data, net):
    pruner, recorded = selected("aum", net, data)
    np.testing.assert_array_equal(pruner.prune_order_, np.argsort(recorded.aum_, kind="stable"))
    np.testing.assert_array_equal(pruner.to_frame()["score"], recorded.aum_)


def test_small_loss(data, net):
    pruner, recorded = selected("small_loss", net, data)
    expected = np.argsort(-recorded.losses_.mean(0), kind="stable")
    np.testing.assert_array_equal(pruner.prune_order_, expected)


def test_forgetting(data, net):
    pruner, recorded = selected("forgetting", net, data)
    counts = np.where(recorded.never_learned_, 1000, recorded.forgetting_counts_)
    assert len(set(counts)) > 2
    assert (np.diff(counts[pruner.prune_order_]) >= 0).all()


def test_ccs(data, net):
    """At every size: the hardest are cut off, and all strata give as many as they can."""
    pruner, recorded = selected("ccs", net, data)
    order, scores = pruner.prune_order_, recorded.aum_
    n_cut = round(_published.CCS_CUTOFF * N)
    np.testing.assert_array_equal(order[:n_cut], np.argsort(scores, kind="stable")[:n_cut])
    rest = np.setdiff1d(np.arange(N), order[:n_cut])
    edges = np.linspace(scores[rest].min(), scores[rest].max(), _published.CCS_STRATA + 1)
    stratum = np.clip(np.searchsorted(edges, scores, "right") - 1, 0, _published.CCS_STRATA - 1)
    for n_kept in (5, 20, 40, len(rest)):
        budget, sizes = n_kept, np.bincount(stratum[rest], minlength=_published.CCS_STRATA)
        expected = np.zeros(_published.CCS_STRATA)
        open_ = [s for s in np.argsort(sizes, kind="stable") if sizes[s]]
        while open_:  # algorithm 1: the smallest stratum first, an equal share of what is left
            s = open_.pop(0)
            expected[s] = min(sizes[s], budget / (len(open_) + 1))
            budget -= expected[s]
        given = np.bincount(stratum[order[-n_kept:]], minlength=_published.CCS_STRATA)
        assert np.abs(given - expected).max() < 1


def test_moderate(data, net):
    pruner, _ = selected("moderate", net, data)
    Z, y = embeddings(pruner, data[0]), data[1]
    distances = np.array([np.linalg.norm(Z[i] - Z[y == y[i]].mean(0)) for i in range(N)])
    for n_kept in (10, 30, 60):
        low = (N - n_kept) // 2
        middle = np.argsort(distances)[low : low + n_kept]
        assert set(pruner.prune_order_[-n_kept:]) == set(middle)


def embeddings(pruner, X):
    with torch.no_grad():
        return pruner.net_.module_[:2](torch.from_numpy(X)).double().numpy()


def test_d2(data, net):
    pruner, recorded = selected("d2", net, data)
    Z = embeddings(pruner, data[0])
    Z = Z / np.linalg.norm(Z, axis=1, keepdims=True)
    D = np.linalg.norm(Z[:, None] - Z, axis=2)
    near = [sorted((j for j in range(N) if j != i), key=lambda j: D[i, j])[:10] for i in range(N)]
    difficulty = recorded.el2n_.astype(float)
    value = {
        i: difficulty[i] + sum(np.exp(-D[i, j]) * difficulty[j] for j in near[i]) for i in range(N)
    }
    kept = []
    while value:
        best = max(value, key=value.get)
        taken = value.pop(best)
        kept.append(best)
        for j in near[best]:
            if j in value:
                value[j] -= np.exp(-D[best, j]) * taken
    np.testing.assert_array_equal(pruner.prune_order_[::-1], kept)


def test_net_clean_random(data, net):
    pruner, _ = selected("net_clean_random", net, data)
    logits = pruner.net_.forward(data[0]).double().numpy()
    wrong = logits.argmax(1) != data[1]
    n = wrong.sum()
    assert 0 < n < N / 2
    assert set(pruner.prune_order_[:n]) == set(np.flatnonzero(wrong))
    rest = pruner.prune_order_[n:]
    assert (np.bincount(data[1][rest[-30:]], minlength=K) >= 8).all()  # by class


DYNAMIC = ["aum", "ccs", "d2", "forgetting", "small_loss"]


@pytest.mark.parametrize("strategy", DYNAMIC)
def test_a_frozen_net_needs_what_it_recorded(strategy, data, net):
    X, y = data
    plain = FrozenEstimator(selected("el2n", net, data)[0].net_)
    with pytest.raises(ValueError, match=r"put TrainingDynamics\(\) into its callbacks"):
        RedundancyPruner(net=plain, strategy=strategy).fit_resample(X, y)
    watched = FrozenEstimator(selected("aum", net, data)[0].net_)
    RedundancyPruner(net=watched, strategy=strategy).fit_resample(X, y)
    with pytest.raises(ValueError, match="recorded 90 samples, and X has 60"):
        RedundancyPruner(net=watched, strategy=strategy).fit_resample(X[:60], y[:60])


@pytest.mark.parametrize("callbacks", [None, [], "disable", [("mine", TrainingDynamics())]])
def test_callbacks_of_the_caller(callbacks, data, net):
    net = clone(net)
    net.callbacks = callbacks
    pruner, recorded = selected("aum", net, data)
    names = [name for name, c in pruner.net_.callbacks_ if isinstance(c, TrainingDynamics)]
    assert names == (["mine"] if callbacks and callbacks != "disable" else [OURS])
    assert recorded.aum_.shape == (N,)
    assert net.callbacks is callbacks


@pytest.mark.filterwarnings("ignore:The other samples contradict")
@pytest.mark.parametrize("change", [lambda X: X.astype(np.float16), lambda X: X + 1e6])
def test_an_rbf_kernel_of_any_numbers(change):
    X, y = load_breast_cancer(return_X_y=True)
    X = X[:, :4]
    same = change(X.copy()).astype(np.float64)
    denied = []
    for given in (change(X), same - same.mean(axis=0)):
        pruner = RedundancyPruner(LogisticRegression(), strategy="loo_rbf", random_state=0)
        pruner.fit_resample(given, y)
        denied.append(pruner.contradicted_)
    assert denied[0].sum() > 10
    assert (denied[0] != denied[1]).mean() < 0.01


def test_an_infinite_network_far_from_the_origin():
    X, y = load_breast_cancer(return_X_y=True)
    pruner = RedundancyPruner(LogisticRegression(), strategy="loo_infinite")
    with pytest.raises(ValueError, match="centre or standardise X first"):
        pruner.fit_resample(X[:, :4] / 100 + 1e7, y)


def test_many_samples_by_nystrom():
    """Above the number of landmarks the margins are those of the whole kernel, nearly."""
    rng = np.random.default_rng(0)
    y = np.arange(1500) % K
    X = (rng.normal(size=(1500, 4)) + np.eye(4)[y]).astype(np.float32)
    found = {}
    for n in (1024, 2000):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("sklearn_lpntk.pruning._samples.COMPONENTS", n)
            pruner = RedundancyPruner(strategy="loo_rbf", random_state=0)
            pruner.fit_resample(X, y)
            found[n] = pruner.to_frame()["score"]
    assert np.corrcoef(found[1024], found[2000])[0, 1] > 0.999
