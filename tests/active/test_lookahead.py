"""Look-ahead scores against a solve for every candidate, and queries that learn by updates."""

import pickle
import tracemalloc

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from scipy.special import softmax
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.validation import check_is_fitted
from skorch import NeuralNetClassifier
from skorch.helper import SliceDict
from torch import nn
from torch.utils.data import TensorDataset

from sklearn_lpntk.active import LookaheadQuery, lookahead_predict, lookahead_scores
from sklearn_lpntk.infinite import InfiniteWidthNTK
from sklearn_lpntk.kernels import empirical_ntk

rng = np.random.default_rng(0)
L, U, E = 9, 14, 6
X = rng.normal(size=(L + U + E, 4))
X_L, X_U, X_E = X[:L], X[L : L + U], X[L + U :]
KERNELS = "pntk", "pntk_first", "entk_trace", "entk"
OBJECTIVES = "change", "agreement", "expected_risk"


def module(n_outputs=3, width=20):
    torch.manual_seed(1)
    net = nn.Sequential(nn.Linear(4, width), nn.Tanh(), nn.Linear(width, n_outputs))
    return net.double()


def labels(n_outputs):
    return np.arange(L) % max(n_outputs, 2)


def outputs(net, X):
    with torch.no_grad():
        z = net(torch.as_tensor(X)).numpy()
    if FORM["form"] == "logits":
        return z
    return 2 / (1 + np.exp(-z)) - 1 if z.shape[1] == 1 else softmax(z, 1)


def matrix(net, kernel, X, X2):
    if callable(kernel):
        return kernel(X, X2)
    return empirical_ntk(net, X, X2=X2, kernel=kernel).toarray()


def targets(y, n_outputs):
    return 2.0 * y[:, None] - 1 if n_outputs == 1 else np.eye(n_outputs)[y]


FORM = {"form": "logits"}  # of the reference: what its outputs are


@pytest.fixture(params=["logits", "probabilities"])
def form(request, monkeypatch):
    monkeypatch.setitem(FORM, "form", request.param)
    return request.param


def directly(net, kernel, X_L, y_L, X_E, alpha, shift=None):
    """f + k (k + shift)^-1 (Y - f), solved once for these samples."""
    K = matrix(net, kernel, X_L, X_L)
    shift = alpha * np.trace(K) / len(K) if shift is None else shift
    f = outputs(net, X_L)
    rows = len(K) // len(X_L)
    residual = (targets(y_L, f.shape[1]) - f).reshape(len(X_L) * rows, -1)
    change = matrix(net, kernel, X_E, X_L) @ np.linalg.solve(K + shift * np.eye(len(K)), residual)
    return outputs(net, X_E) + change.reshape(len(X_E), -1), shift


def classes(f):
    return (f[:, 0] > 0).astype(int) if f.shape[1] == 1 else f.argmax(1)


def probabilities(f):
    if FORM["form"] == "probabilities":
        return np.clip(f if f.shape[1] > 1 else np.hstack([1 - f, 1 + f]) / 2, 0, 1)
    return softmax(np.hstack([-f, f]) / 2 if f.shape[1] == 1 else f, 1)


def score_directly(net, kernel, y_L, objective, how, alpha, X_E):
    """One solve a candidate and label."""
    _, shift = directly(net, kernel, X_L, y_L, X_E, alpha)
    by = outputs(net, X_U) if how == "net" else directly(net, kernel, X_L, y_L, X_U, alpha)[0]
    guess, f = classes(by), outputs(net, X_E)

    def after(j, label):
        x, y = np.vstack([X_L, X_U[j : j + 1]]), np.append(y_L, label)
        return directly(net, kernel, x, y, X_E, alpha, shift)[0]

    found = np.empty(U)
    for j in range(U):
        if objective == "change":
            found[j] = np.linalg.norm(after(j, guess[j]) - f, axis=1).sum()
        elif objective == "agreement":
            found[j] = (classes(after(j, guess[j])) != classes(f)).mean()
        else:
            p = probabilities(outputs(net, X_U[j : j + 1]))[0]
            risks = [1 - probabilities(after(j, k)).max(1).mean() for k in range(len(p))]
            found[j] = -(p @ risks)
    return found


@pytest.mark.parametrize("n_outputs", [1, 3])
@pytest.mark.parametrize("kernel", [*KERNELS, InfiniteWidthNTK()], ids=str)
@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("how", ["net", "linearized"])
@pytest.mark.parametrize("elsewhere", [False, True])
def test_scores_by_a_solve_for_every_candidate(n_outputs, kernel, objective, how, elsewhere, form):
    net, y, alpha = module(n_outputs), labels(n_outputs), 1e-3
    seen = X_E if elsewhere else X_U
    expected = score_directly(net, kernel, y, objective, how, alpha, seen)
    found = lookahead_scores(
        net,
        X_L,
        y,
        X_U,
        objective=objective,
        pseudo_labels=how,
        kernel=kernel,
        alpha=alpha,
        X_eval=X_E if elsewhere else None,
        outputs=form,
    )
    assert_allclose(found, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("kernel", [*KERNELS, InfiniteWidthNTK()], ids=str)
@pytest.mark.parametrize("n_new", [1, 3])
def test_predictions_after_new_labels(kernel, n_new, form):
    net, y, y_new = module(), labels(3), np.arange(n_new) % 3
    found = lookahead_predict(
        net, X_L, y, X_U[:n_new], y_new, X_E, kernel=kernel, alpha=1e-3, outputs=form
    )
    _, shift = directly(net, kernel, X_L, y, X_E, 1e-3)
    x, all_y = np.vstack([X_L, X_U[:n_new]]), np.append(y, y_new)
    expected, _ = directly(net, kernel, x, all_y, X_E, 1e-3, shift)
    assert_allclose(found, expected, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("kernel", [*KERNELS, InfiniteWidthNTK()], ids=str)
@pytest.mark.parametrize("elsewhere", [False, True])
def test_a_sequential_batch_is_queries_one_by_one(kernel, elsewhere):
    """Each pick gets its pseudo label, and the next one is scored by solves with it."""
    net, y = module(), labels(3)
    query = LookaheadQuery(
        net,
        kernel=kernel,
        alpha=1e-3,
        batch="sequential",
        max_candidates=10 if elsewhere else None,
        preselection="uncertainty",
        random_state=0,
    )
    batch, utilities = query.fit(X_L, y)._steps(X_U, 4)
    guess = outputs(net, X_U).argmax(1)
    one = LookaheadQuery(net, kernel=kernel, alpha=1e-3).fit(X_L, y)
    for step, j in enumerate(batch):
        if not elsewhere:
            scores = one.query(X_U, return_utilities=True)[1]
            left = np.setdiff1d(np.arange(U), batch[:step])
            assert_allclose(utilities[step, left], scores[left], rtol=1e-9)
            assert j == left[np.argmax(scores[left])]
        one.update(X_U[[j]], guess[[j]])
    assert len(set(batch)) == 4
    assert_array_equal(np.isnan(utilities[3, batch]), [True] * 3 + [False])


@pytest.mark.parametrize("kernel", [*KERNELS, InfiniteWidthNTK()], ids=str)
def test_updates_are_bordered_factors(kernel):
    net, y = module(), labels(3)
    query = LookaheadQuery(net, kernel=kernel, alpha=1e-3).fit(X_L[:4], y[:4])
    query.update(X_L[4:5], y[4:5]).update(X_L[5:], y[5:])
    _, shift = directly(net, kernel, X_L[:4], y[:4], X_E, 1e-3)
    K = matrix(net, kernel, X_L, X_L)
    expected = np.linalg.cholesky(K + shift * np.eye(len(K)))
    assert_allclose(query._known.labelled.factor, expected, rtol=1e-10, atol=1e-10)
    found = query.query(X_U, 3, return_utilities=True)[1]
    alpha = shift / (np.trace(K) / len(K))
    direct = score_directly(net, kernel, y, "change", "net", alpha, X_U)
    assert_allclose(found, direct, rtol=1e-9)


def test_a_duplicate_of_a_labelled_sample_teaches_nothing():
    net = module(width=100)
    guess = outputs(net, X_L).argmax(1)
    scores = lookahead_scores(net, X_L, guess, np.vstack([X_L[:1], X_U]))
    base, _ = directly(net, "pntk", X_L, guess, np.vstack([X_L[:1], X_U]), 1e-6)
    f = outputs(net, np.vstack([X_L[:1], X_U]))
    assert_allclose(scores[0], np.linalg.norm(base - f, axis=1).sum(), rtol=1e-4)
    assert np.isfinite(scores).all()


class TestQueries:
    def test_the_highest_scores_come_first(self):
        net, y = module(), labels(3)
        query = LookaheadQuery(net).fit(X_L, y)
        indices, utilities = query.query(X_U, 5, return_utilities=True)
        assert_array_equal(indices, np.argsort(-utilities, kind="stable")[:5])
        assert_allclose(utilities, lookahead_scores(net, X_L, y, X_U))
        assert_array_equal(query.query(X_U, 5), indices)

    @pytest.mark.parametrize("preselection", ["random", "uncertainty"])
    def test_a_pool_of_more_than_max_candidates(self, preselection):
        net, y = module(), labels(3)
        options = {"max_candidates": 8, "preselection": preselection, "random_state": 0}
        query = LookaheadQuery(net, **options).fit(X_L, y)
        indices, utilities = query.query(X_U, 3, return_utilities=True)
        candidates = np.flatnonzero(~np.isnan(utilities))
        assert len(candidates) == 8
        assert set(indices) <= set(candidates)
        if preselection == "uncertainty":
            f = np.sort(outputs(net, X_U), 1)
            least = np.argsort(f[:, -1] - f[:, -2])[:8]
            assert_array_equal(candidates, np.sort(least))
        with pytest.raises(ValueError, match="from 1 to 8, the number of candidates"):
            query.query(X_U, 9)

    def test_kinds_of_samples_and_nets(self):
        net = NeuralNetClassifier(
            module().float(), criterion=nn.CrossEntropyLoss, train_split=None, verbose=0, lr=1e-6
        )
        names = np.array(["a", "b", "c"])
        net.set_params(classes=[0, 1, 2])
        net.fit(X_L.astype(np.float32), labels(3))
        plain = LookaheadQuery(net.module_).fit(X_L.astype(np.float32), labels(3))
        expected = plain.query(X_U.astype(np.float32), 4)
        for form in (
            lambda X: X.astype(np.float32),
            lambda X: X,
            lambda X: X.tolist(),
            lambda X: torch.as_tensor(X),
            lambda X: TensorDataset(torch.as_tensor(X, dtype=torch.float32)),
        ):
            query = LookaheadQuery(net).fit(form(X_L), labels(3))
            assert_array_equal(query.query(form(X_U), 4), expected)
        net.classes = names
        named = LookaheadQuery(net).fit(X_L, names[labels(3)])
        assert_array_equal(named.query(X_U, 4), expected)
        named.update(X_E[:1], ["c"])

    def test_several_inputs(self):
        class Two(nn.Module):
            def __init__(self):
                super().__init__()
                self.net = module()

            def forward(self, a, b):
                return self.net(torch.cat([a, b], 1))

        def cut(X):
            return SliceDict(a=X[:, :1], b=X[:, 1:])

        query = LookaheadQuery(Two(), max_candidates=9, random_state=0).fit(cut(X_L), labels(3))
        whole = LookaheadQuery(module(), max_candidates=9, random_state=0).fit(X_L, labels(3))
        assert_array_equal(query.query(cut(X_U), 3), whole.query(X_U, 3))
        query.update(cut(X_E[:1]), [1])

    def test_the_network_comes_back_as_it_was(self):
        net = module().train()
        before = pickle.dumps(net.state_dict())
        LookaheadQuery(net).fit(X_L, labels(3)).query(X_U, 2)
        assert net.training
        assert pickle.dumps(net.state_dict()) == before

    def test_memory_of_a_block(self):
        """No array of pool x pool x classes: for 700 candidates and 20 classes that were 78 MB."""
        from sklearn_lpntk.active import _objectives

        net, n = module(20), 700
        pool = rng.normal(size=(n, 4))
        before = _objectives.BLOCK
        _objectives.BLOCK = 2**18
        try:
            tracemalloc.start()
            lookahead_scores(net, X_L, labels(3), pool)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
            _objectives.BLOCK = before
        assert peak < 4 * 8 * n**2


CASES = {
    "an empty pool": (lambda q: q.query(X_U[:0]), "X_pool is empty"),
    "more queries than samples": (lambda q: q.query(X_U, U + 1), f"from 1 to {U}, the number"),
    "no query": (lambda q: q.query(X_U, 0), "n_queries must be an int"),
    "half a query": (lambda q: q.query(X_U, 1.5), "n_queries must be an int"),
    "a pool with nan": (lambda q: q.query(np.where(X_U > 1, np.nan, X_U)), "NaN"),
    "a pool of another shape": (lambda q: q.query(X_U[:, :2]), "batch of X"),
    "labels that are no columns": (lambda q: q.update(X_U[:1], [3]), "columns from 0 to 2"),
    "labels below zero": (lambda q: q.update(X_U[:1], [-1]), "labels"),
    "missing labels": (lambda q: q.update(X_U[:1], [np.nan]), "labels|NaN"),
    "too few labels": (lambda q: q.update(X_U[:3], [1]), "a label a sample"),
    "an unknown objective": (
        lambda q: lookahead_scores(q.net, X_L, labels(3), X_U, objective="best"),
        "'objective' parameter",
    ),
    "an unknown kernel": (
        lambda q: LookaheadQuery(q.net, kernel="lpntk").fit(X_L, labels(3)),
        "'kernel' parameter",
    ),
    "alpha below zero": (
        lambda q: lookahead_predict(q.net, X_L, labels(3), X_U, labels(3), X_E, alpha=-1),
        "'alpha' parameter",
    ),
    "no network": (lambda q: LookaheadQuery("net").fit(X_L, labels(3)), "Expected a torch"),
    "an unfitted net": (
        lambda q: LookaheadQuery(NeuralNetClassifier(module(), criterion=nn.CrossEntropyLoss)).fit(
            X_L, labels(3)
        ),
        "not fitted",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_refused_with_a_reason(case):
    run, message = CASES[case]
    query = LookaheadQuery(module()).fit(X_L, labels(3))
    with pytest.raises((ValueError, TypeError), match=message):
        run(query)


def test_before_fit():
    with pytest.raises(NotFittedError, match="call fit first"):
        LookaheadQuery(module()).query(X_U)
    with pytest.raises(NotFittedError, match="call fit first"):
        LookaheadQuery(module()).update(X_U, labels(3))


def test_a_pool_with_labels_is_told_that_they_are_not_looked_at():
    pool = TensorDataset(torch.as_tensor(X_U), torch.zeros(U))
    with pytest.warns(UserWarning, match="which are not looked at"):
        found = LookaheadQuery(module()).fit(X_L, labels(3)).query(pool, 3)
    assert_array_equal(found, LookaheadQuery(module()).fit(X_L, labels(3)).query(X_U, 3))


def test_samples_that_are_labelled_already_without_a_ridge():
    """Nothing is left of the kernel there, and nothing is divided by nothing."""
    net, y = module(width=100), labels(3)
    pool = np.vstack([X_L, X_U, X_U])
    for options in ({}, {"pseudo_labels": "linearized"}, {"objective": "expected_risk"}):
        exact, near = (
            lookahead_scores(net, X_L, y, pool, alpha=alpha, **options) for alpha in (0, 1e-9)
        )
        assert_allclose(exact, near, rtol=1e-3)
    twice = np.vstack([X_L, X_L])
    scores = lookahead_scores(net, twice, np.tile(y, 2), X_U, alpha=0)
    assert_allclose(scores, lookahead_scores(net, X_L, y, X_U, alpha=0), rtol=1e-3)
    query = LookaheadQuery(net, alpha=0, batch="sequential").fit(X_L, y)
    assert len(set(query.query(pool, 20))) == 20
    before = query.query(X_U, return_utilities=True)[1]
    after = query.update(X_L[:3], y[:3]).query(X_U, return_utilities=True)[1]
    assert_allclose(after, before, rtol=1e-2)


class TestWhatChanges:
    def test_columns_in_another_order_are_refused(self):
        names = list("abcd")
        frame, pool = (pd.DataFrame(A, columns=names) for A in (X_L, X_U))
        query = LookaheadQuery(module()).fit(frame, labels(3))
        query.query(pool)
        for run in (
            lambda: query.query(pool[names[::-1]]),
            lambda: query.update(pool[names[::-1]][:1], [0]),
            lambda: lookahead_scores(module(), frame, labels(3), pool[names[::-1]]),
        ):
            with pytest.raises(ValueError, match=r"has the columns \['d', 'c', 'b', 'a'\]"):
                run()

    def test_a_network_that_was_trained_further_is_refused(self):
        net = module()
        query = LookaheadQuery(net).fit(X_L, labels(3))
        with torch.no_grad():
            net[0].weight.add_(0.1)
        for run in (lambda: query.query(X_U), lambda: query.update(X_U[:1], [0])):
            with pytest.raises(ValueError, match="has changed since fit"):
                run()

    @pytest.mark.parametrize("kernel", ["pntk", InfiniteWidthNTK()], ids=str)
    @pytest.mark.parametrize("in_memory", [False, True])
    def test_arrays_that_change_afterwards(self, kernel, in_memory, monkeypatch):
        if not in_memory:
            monkeypatch.setattr("sklearn_lpntk._features.limit_of", lambda device: 1)
        x = X_L.copy()
        query = LookaheadQuery(module(), kernel=kernel).fit(x, labels(3))
        expected = query.query(X_U, return_utilities=True)[1]
        x *= 5
        assert_allclose(query.query(X_U, return_utilities=True)[1], expected)

    @pytest.mark.filterwarnings("ignore:No rule covers")
    def test_a_refused_pool_leaves_the_query_as_it_was(self):
        class Branching(nn.Module):
            """Uses a weight in another way where a sample is far off."""

            def __init__(self):
                super().__init__()
                self.hidden, self.out = nn.Linear(4, 5).double(), nn.Linear(5, 3).double()

            def forward(self, x):
                h = self.hidden(x)
                if (x[:, 0] > 10).any():
                    h = h + (self.hidden.weight**2).sum() * 1e-2 * x[:, :1]
                return self.out(torch.tanh(h))

        query = LookaheadQuery(Branching()).fit(X_L, labels(3))
        expected = query.query(X_U, return_utilities=True)[1]
        far = X_U.copy()
        far[:, 0] = 11
        for _ in range(2):
            with pytest.raises(ValueError, match="take a path through the network"):
                query.query(far)
        assert_allclose(query.query(X_U, return_utilities=True)[1], expected)

    def test_parameters_that_are_set_afterwards_are_checked(self):
        query = LookaheadQuery(module()).fit(X_L, labels(3))
        with pytest.raises(ValueError, match="'batch' parameter"):
            query.set_params(batch="foo").query(X_U)
        check_is_fitted(query)

    def test_labels_of_a_net_in_a_pipeline(self):
        net = NeuralNetClassifier(
            module().float(),
            criterion=nn.CrossEntropyLoss,
            train_split=None,
            verbose=0,
            lr=1e-6,
        )
        pipe = make_pipeline(StandardScaler(), net).fit(X_L.astype(np.float32), labels(3))
        net.classes = np.array(["a", "b", "c"])
        names = net.classes[labels(3)]
        found = lookahead_scores(pipe, X_L.astype(np.float32), names, X_U.astype(np.float32))
        scaled = [pipe[0].transform(A.astype(np.float32)) for A in (X_L, X_U)]
        expected = lookahead_scores(net.module_, scaled[0], labels(3), scaled[1])
        assert_allclose(found, expected, rtol=1e-4)
