"""Every strategy against a literal transcription of its definition, on raw kernels."""

import numpy as np
import pytest
import torch
from sklearn import config_context
from sklearn.frozen import FrozenEstimator
from skorch import NeuralNetClassifier
from torch import nn

from sklearn_lpntk import RedundancyPruner
from sklearn_lpntk._engine.factors import Dense
from sklearn_lpntk._engine.features import Features, Spec
from sklearn_lpntk._engine.reductions import row_extremes
from sklearn_lpntk.kernels import KernelOperator, empirical_ntk, lpntk_kernel
from sklearn_lpntk.linearized import NTKClassifier
from sklearn_lpntk.pruning._orders import REDUNDANT_BY

from ..cluster.test_farthest_point import algorithm_3

N, K = 60, 3


def make_module():
    return nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, K))


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    y = np.repeat(np.arange(K), [30, 20, 10])[rng.permutation(N)]
    X = (rng.normal(size=(N, 5)) + y[:, None]).astype(np.float32)
    return X, y


@pytest.fixture(scope="module")
def net(data):
    torch.manual_seed(0)
    net = NeuralNetClassifier(
        make_module, criterion=nn.CrossEntropyLoss, max_epochs=5, train_split=None, verbose=0
    )
    return FrozenEstimator(net.fit(*data))


@pytest.fixture(scope="module")
def kernel(data, net):
    return lpntk_kernel(net, *data).astype(np.float64)


def order(net, data, **options):
    pruner = RedundancyPruner(net=net, random_state=0, **options)
    return pruner._select(*data, None).ordering


def interleaved(visits):
    keep = [(rank / len(v), i) for v in visits for rank, i in enumerate(v)]
    return [i for _, i in sorted(keep)]


def by_class(y, visit):
    visits = []
    for c in range(K):
        members = np.flatnonzero(y == c)
        visits.append([members[k] for k in visit(members)])
    return interleaved(visits)


def cover(S):
    """From the most central one on, always the least similar to those visited."""
    visited = [int(np.argmax(S.mean(axis=1)))]
    while len(visited) < len(S):
        best = [
            -max(S[i, j] for j in visited) if i not in visited else -np.inf for i in range(len(S))
        ]
        visited.append(int(np.argmax(best)))
    return visited


def cosine(K):
    norms = np.sqrt(np.diag(K))
    return K / np.outer(norms, norms)


@pytest.fixture(params=["array", "rows"])
def memory(request):
    """Enough for a class's kernel as an array, or so little that rows come on demand."""
    with config_context(working_memory=1024 if request.param == "array" else 1e-5):
        yield


def test_herding(data, net, kernel, memory):
    def herd(members):
        block = kernel[np.ix_(members, members)]
        chosen = []
        for t in range(len(members)):
            gain = block.mean(axis=1) - block[:, chosen].sum(axis=1) / (t + 1)
            gain[chosen] = -np.inf
            chosen.append(int(np.argmax(gain)))
        return chosen

    expected = by_class(data[1], herd)
    found = order(net, data, strategy="herding").prune_order
    np.testing.assert_array_equal(found[::-1], expected)


def test_coverage(data, net, kernel, memory):
    expected = by_class(data[1], lambda members: cover(cosine(kernel[np.ix_(members, members)])))
    found = order(net, data, strategy="coverage").prune_order
    np.testing.assert_array_equal(found[::-1], expected)


def medoids(S, n_medoids):
    chosen = []
    while len(chosen) < n_medoids:
        value = [
            -np.inf if j in chosen else S[:, [*chosen, j]].max(axis=1).sum() for j in range(len(S))
        ]
        chosen.append(int(np.argmax(value)))
    return chosen


def noisy(data):
    y, rng = data[1].copy(), np.random.default_rng(1)
    wrong = rng.choice(N, 9, replace=False)
    y[wrong] = (y[wrong] + 1) % K
    return data[0], y


def visited_from_medoids(S):
    visited = medoids(S, round(0.5 * len(S) ** 0.5))
    while len(visited) < len(S):
        nearest = S[:, visited].max(axis=1)
        nearest[visited] = np.inf
        visited.append(int(np.argmin(nearest)))
    return visited


def herded(S):
    visited = []
    while len(visited) < len(S):
        gain = S.mean(axis=1) - S[:, visited].sum(axis=1) / (len(visited) + 1)
        gain[visited] = -np.inf
        visited.append(int(np.argmax(gain)))
    return visited


@pytest.mark.filterwarnings("ignore:The other samples contradict")
@pytest.mark.parametrize(
    ("strategy", "visit"),
    [("clean_herding", herded), ("clean_coverage", lambda S: visited_from_medoids(cosine(S)))],
)
def test_what_is_contradicted_goes_first(data, net, strategy, visit, memory):
    """By the leave-one-out predictions of `NTKClassifier`, which are tested by deletion."""
    X, y = noisy(data)
    options = {"kernel": "pntk", "offset": "centred", "alpha": "loo"}
    outputs = NTKClassifier(net, **options).fit(X, y).loo_predictions_
    others = np.where(np.eye(K, dtype=bool)[y], -np.inf, outputs)
    margins = outputs[np.arange(N), y] - others.max(axis=1)
    assert 3 < (margins < 0).sum() < N / 2

    kernel, visits = lpntk_kernel(net, X, y).astype(np.float64), []
    for c in range(K):
        members = np.flatnonzero((y == c) & (margins >= 0))
        visits.append(members[visit(kernel[np.ix_(members, members)])])
    denied = np.flatnonzero(margins < 0)
    expected = [*denied[np.argsort(margins[denied])], *interleaved(visits)[::-1]]
    found = order(net, (X, y), strategy=strategy)
    np.testing.assert_allclose(found.scores, margins, rtol=1e-6, atol=1e-8)
    np.testing.assert_array_equal(found.contradicted, margins < 0)
    np.testing.assert_array_equal(found.prune_order, expected)


def test_ties_of_medoids_go_to_the_lowest_index():
    from sklearn_lpntk.pruning._clean import greedy_medoids

    class Rows:
        def __init__(self, S):
            self.S = S

        def __len__(self):
            return len(self.S)

        def row(self, i, priority):
            return self.S[i]

        def mean(self):
            return self.S.mean(axis=1)

    rng = np.random.default_rng(0)
    for _ in range(50):
        A = rng.normal(size=(2, 30))
        assert greedy_medoids(Rows(cosine(A @ A.T)), 1) == [0]
        twice = np.repeat(rng.normal(size=(5, 9)), 2, axis=0)
        assert all(i % 2 == 0 for i in greedy_medoids(Rows(cosine(twice @ twice.T)), 4))


def test_k_center(data, net):
    X, y = data
    with torch.no_grad():
        Z = torch.tanh(net.estimator.module_[0](torch.tensor(X))).double().numpy()

    def visit(members):
        return cover(-((Z[members][:, None] - Z[members]) ** 2).sum(axis=2))

    found = order(net, data, strategy="k_center").prune_order
    np.testing.assert_array_equal(found[::-1], by_class(y, visit))


def test_k_center_input(data, net):
    X, y = data
    X = X.astype(np.float64)
    found = order(None, data, strategy="k_center_input").prune_order
    expected = by_class(y, lambda members: cover(cosine(X[members] @ X[members].T)))
    np.testing.assert_array_equal(found[::-1], expected)


def test_el2n_and_grand(data, net):
    X, y = data
    error = net.predict_proba(X) - np.eye(K)[y]
    found = order(net, data, strategy="el2n").prune_order
    np.testing.assert_array_equal(found, np.argsort(np.linalg.norm(error, axis=1), kind="stable"))
    norms = empirical_ntk(net, X, y, kernel="loss_gradient").diag()
    found = order(net, data, strategy="grand").prune_order
    np.testing.assert_array_equal(found, np.argsort(norms, kind="stable"))


def test_random_is_stratified_and_seeded(data):
    first = order(None, data, strategy="random").prune_order
    np.testing.assert_array_equal(first, order(None, data, strategy="random").prune_order)
    assert np.bincount(data[1][first[:30]]).tolist() == [15, 10, 5]


@pytest.mark.parametrize("scope", ["all", "class"])
def test_redundancy(data, net, kernel, scope):
    y = data[1]
    allowed = ~np.eye(N, dtype=bool)
    if scope == "class":
        allowed &= np.equal.outer(y, y)
    best = np.where(allowed, kernel, -np.inf)
    rho = best.max(axis=1) / np.diag(kernel)
    redundant = best.max(axis=1) > np.diag(kernel) * (1 + 1e-5)
    assert 0 < redundant.sum() < N
    found = order(net, data, strategy="redundant", scope=scope)
    np.testing.assert_allclose(found.redundancy, rho, rtol=1e-5)
    np.testing.assert_array_equal(found.dominators, np.where(redundant, best.argmax(axis=1), -1))
    assert found.n_redundant == redundant.sum()
    np.testing.assert_array_equal(found.prune_order, np.argsort(-rho, kind="stable"))


def test_redundancy_is_acyclic_and_spares_the_largest_norm(data, net, kernel):
    found = order(net, data, strategy="redundant")
    assert found.dominators[np.argmax(np.diag(kernel))] == -1
    dominated = found.dominators >= 0
    norms = np.diag(kernel)
    assert (norms[found.dominators[dominated]] > norms[dominated]).all()


def test_nothing_is_redundant_under_a_cosine_kernel(data, net):
    features = empirical_ntk(net, *data).kernel.left.materialise()
    unit = Dense(nn.functional.normalize(features), 1)
    spec = Spec(N, 1, 1, features.dtype, features.device)
    operator = KernelOperator(Features({"unit": unit}, spec))
    maxima = row_extremes(operator.kernel).values[:, 0]
    assert (maxima.numpy() <= operator.diag() * (1 + REDUNDANT_BY)).all()


def test_plain_duplicates_are_redundant(data, net):
    X, y = data
    twice = np.concatenate([X, X[:10]]), np.concatenate([y, y[:10]])
    found = order(net, twice, strategy="redundant")
    single = order(net, data, strategy="redundant")
    assert found.n_redundant == single.n_redundant + 10
    assert (found.dominators[N:] >= 0).all()
    only_twins = [i for i in range(10) if single.dominators[i] == -1]
    assert (found.dominators[[N + i for i in only_twins]] == only_twins).all()
    assert (found.dominators[only_twins] == -1).all()


@pytest.mark.parametrize("scope", ["all", "class"])
def test_head_and_keep_head(data, net, kernel, scope):
    y = data[1]
    found = order(net, data, strategy="head", n_clusters=0.1, scope=scope)
    groups = [np.arange(N)] if scope == "all" else [np.flatnonzero(y == c) for c in range(K)]
    labels, centers = np.empty(N, dtype=int), []
    for members in groups:
        m = max(1, round(0.1 * len(members)))
        c, own = algorithm_3(kernel[np.ix_(members, members)], m)
        labels[members] = own + len(centers)
        centers.extend(members[c])
    np.testing.assert_array_equal(found.labels, labels)
    np.testing.assert_array_equal(found.centers, centers)
    sizes = np.bincount(labels)
    along = sizes[labels[found.prune_order]]
    assert (np.diff(along) <= 0).all()
    assert found.head_size == sizes.max()
    kept_head = order(net, data, strategy="keep_head", n_clusters=0.1, scope=scope)
    along = sizes[labels[kept_head.prune_order]]
    assert (np.diff(along) >= 0).all()


def test_redundant_head(data, net):
    found = order(net, data, strategy="redundant+head", n_clusters=3)
    scores = order(net, data, strategy="redundant")
    np.testing.assert_array_equal(
        found.prune_order[: scores.n_redundant], scores.prune_order[: scores.n_redundant]
    )
    rest = found.prune_order[scores.n_redundant :]
    assert (found.labels[rest] >= 0).all()
    assert (found.labels[found.prune_order[: scores.n_redundant]] == -1).all()
    assert sorted(found.prune_order) == list(range(N))


def test_a_sample_without_gradient_has_infinite_redundancy():
    """A net without biases sees nothing of a row of zeros."""
    torch.manual_seed(0)
    X = np.random.default_rng(0).normal(size=(20, 5)).astype(np.float32)
    X[4] = 0
    y = np.arange(20) % 2
    module = nn.Sequential(nn.Linear(5, 4, bias=False), nn.Tanh(), nn.Linear(4, 2, bias=False))
    net = NeuralNetClassifier(
        module, criterion=nn.CrossEntropyLoss, max_epochs=1, train_split=None, verbose=0
    )
    net = FrozenEstimator(net.fit(X, y))
    found = order(net, (X, y), strategy="redundant")
    assert np.isinf(found.redundancy[4])
    assert np.isfinite(np.delete(found.redundancy, 4)).all()
    assert order(net, (X, y), strategy="coverage").prune_order.shape == (20,)
