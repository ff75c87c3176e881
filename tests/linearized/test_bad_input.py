"""What can't be answered is refused by name, or warned of."""

import numpy as np
import pytest
import torch
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from skorch import NeuralNetClassifier, NeuralNetRegressor
from torch import nn

from sklearn_lpntk.infinite import InfiniteWidthNTK
from sklearn_lpntk.linearized import NTKClassifier, NTKRegressor, gcv_score, rank_networks

rng = np.random.default_rng(0)
X, y = rng.normal(size=(30, 4)), np.arange(30) % 3
K = X @ X.T + np.eye(30)


def module(n_outputs=3):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, n_outputs)).double()


def trained(labels):
    net = NeuralNetClassifier(
        nn.Linear(4, 3), criterion=nn.CrossEntropyLoss, train_split=None, verbose=0, max_epochs=1
    )
    return net.fit(X.astype(np.float32), labels)


CASES = {
    "alpha below zero": (lambda: NTKClassifier(module(), alpha=-1).fit(X, y), "'alpha' parameter"),
    "alpha of nan": (
        lambda: NTKClassifier(module(), alpha=np.nan).fit(X, y),
        "'alpha' parameter|positive semidefinite",
    ),
    "alphas below zero": (
        lambda: NTKClassifier(module(), alpha="gcv", alphas=[-1.0]).fit(X, y),
        "alphas must be a list",
    ),
    "no alphas": (
        lambda: NTKClassifier(module(), alpha="gcv", alphas=[]).fit(X, y),
        "alphas must be a list",
    ),
    "time of zero": (lambda: NTKClassifier(module(), time=0).fit(X, y), "'time' parameter"),
    "leave-one-out in finite time": (
        lambda: NTKClassifier(module(), time=1.0, alpha="loo").fit(X, y),
        'Use alpha="gcv"',
    ),
    "nan in X": (lambda: NTKClassifier(module()).fit(np.where(X > 2, np.nan, X), y), "NaN"),
    "nan in y": (lambda: NTKRegressor(module(1)).fit(X, np.where(y > 1, np.nan, y)), "NaN"),
    "infinite y": (lambda: NTKRegressor(module(1)).fit(X, np.where(y > 1, np.inf, y)), "infinity"),
    "nan at predict": (
        lambda: NTKClassifier(module()).fit(X, y).predict(np.full((2, 4), np.nan)),
        "NaN",
    ),
    "y of another length": (lambda: NTKRegressor(module(1)).fit(X, y[:-1]), "inconsistent"),
    "y of words for regression": (
        lambda: NTKRegressor(module(1)).fit(X, np.array(["a", "b"])[y % 2]),
        "use NTKClassifier",
    ),
    "numbers for a classifier": (lambda: NTKClassifier(module()).fit(X, X[:, 0]), "continuous"),
    "one class": (lambda: NTKClassifier(module()).fit(X, 0 * y), "one class only"),
    "weights below zero": (
        lambda: NTKClassifier(module()).fit(X, y, sample_weight=-np.ones(30)),
        "[Nn]egative",
    ),
    "weights of zero": (
        lambda: NTKClassifier(module()).fit(X, y, sample_weight=np.zeros(30)),
        "at least one must be positive|at least one non-zero",
    ),
    "too few weights": (
        lambda: NTKClassifier(module()).fit(X, y, sample_weight=np.ones(5)),
        "sample_weight.shape",
    ),
    "a class that a frozen net has not seen": (
        lambda: NTKClassifier(FrozenEstimator(trained(y % 2))).fit(X, y),
        r"labels \[2\], and the frozen net was trained on \[0, 1\]",
    ),
    "other classes than a frozen net's": (
        lambda: NTKClassifier(FrozenEstimator(trained(y)), offset="net").fit(X, y + 5),
        r"labels \[5, 6, 7\], and the frozen net was trained on \[0, 1, 2\]",
    ),
    "more classes than columns": (
        lambda: NTKClassifier(module(2), offset="net").fit(X, y),
        "each label needs one",
    ),
    "other outputs than the net's": (
        lambda: NTKRegressor(module(2), kernel="entk").fit(X, X),
        "need as many",
    ),
    "other outputs than a net that is trained": (
        lambda: NTKRegressor(NeuralNetRegressor(nn.Linear(4, 2), train_split=None, verbose=0)).fit(
            X, X
        ),
        "training needs as many",
    ),
    "a net's offset without a net": (
        lambda: NTKClassifier(InfiniteWidthNTK(), offset="net").fit(X, y),
        "net is a kernel",
    ),
    "a precomputed kernel that is not square": (
        lambda: NTKClassifier("precomputed").fit(X, y),
        "must be square",
    ),
    "a precomputed kernel that is not symmetric": (
        lambda: NTKClassifier("precomputed").fit(K + np.triu(K, 1), y),
        "must be symmetric",
    ),
    "a precomputed kernel of another shape at predict": (
        lambda: NTKClassifier("precomputed").fit(K, y).predict(K[:, :7]),
        "7 features, but NTKClassifier is expecting 30",
    ),
    "a kernel with nan": (
        lambda: NTKClassifier(lambda A, B=None: np.full((30, 30), np.nan)).fit(X, y),
        "NaN",
    ),
    "a kernel of another shape": (
        lambda: NTKClassifier(lambda A, B=None: K if B is None else K[:, :3]).fit(X, y).predict(X),
        "column for each of the 30 training samples",
    ),
    "no kernel": (
        lambda: NTKClassifier("precomputed").fit(K - 3 * np.eye(30), y),
        "not positive semidefinite",
    ),
    "no kernel, by eigenvalues": (
        lambda: NTKClassifier("precomputed", alpha="gcv").fit(K - 3 * np.eye(30), y),
        "not positive semidefinite",
    ),
    "a kernel of zero": (
        lambda: NTKClassifier("precomputed").fit(0 * K, y),
        "must be positive",
    ),
    "conjugate gradients on a matrix": (
        lambda: NTKClassifier("precomputed", solver="cg").fit(K, y),
        "net is a kernel",
    ),
    "conjugate gradients for GCV": (
        lambda: NTKClassifier(module(), solver="cg", alpha="gcv").fit(X, y),
        "pass n_components=",
    ),
    "another estimator": (
        lambda: NTKClassifier(LogisticRegression()).fit(X, y),
        "net must be a skorch net",
    ),
    "a regressor for a classifier": (
        lambda: NTKClassifier(NeuralNetRegressor(nn.Linear(4, 3))).fit(X, y),
        "net must be a skorch classifier",
    ),
    "a classifier for a regressor": (
        lambda: NTKRegressor(NeuralNetClassifier(nn.Linear(4, 3))).fit(X, y),
        "net must be a skorch regressor|criterion is NLLLoss",
    ),
    "frozen parameters": (
        lambda: NTKClassifier(module().requires_grad_(False)).fit(X, y),
        "are frozen",
    ),
    "parameters that are not there": (
        lambda: NTKClassifier(module(), parameters="layer4").fit(X, y),
        "layer4",
    ),
    "predict before fit": (lambda: NTKClassifier(module()).predict(X), "not fitted"),
    "GCV of other samples": (lambda: gcv_score(K, y[:4], [1.0]), "inconsistent"),
    "GCV of no kernel": (lambda: gcv_score(X, y, [1.0]), "must be a Gram matrix"),
    "GCV with alphas below zero": (lambda: gcv_score(K, y, [-1.0]), "alphas must be"),
    "ranking a list": (lambda: rank_networks([module()], X, y), "must be a dict"),
    "ranking nothing": (lambda: rank_networks({}, X, y), "at least one"),
}


@pytest.mark.parametrize("case", CASES)
def test_refused_with_a_reason(case):
    run, message = CASES[case]
    with pytest.raises((ValueError, TypeError), match=message):
        run()


@pytest.mark.parametrize("solver", ["cholesky", "eigh"])
def test_a_singular_kernel_takes_a_larger_alpha(solver):
    """Two equal rows and alpha = 0: no inverse, but the limit of small ridges."""
    twice = np.vstack([X, X])
    with pytest.warns(UserWarning, match="not positive definite with alpha=0"):
        model = NTKClassifier("precomputed", alpha=0, solver=solver, offset="zero").fit(
            twice @ twice.T, np.concatenate([y, y])
        )
    assert model.alpha_ > 0
    assert np.isfinite(model.decision_function(X @ twice.T)).all()


def test_a_sketch_smaller_than_its_rank_takes_a_larger_alpha():
    net = nn.Linear(4, 3).double()
    model = NTKClassifier(net, alpha=0, n_components=20, random_state=0)
    with pytest.warns(UserWarning, match="not positive definite with alpha=0"):
        model.fit(X, y)
    assert model.alpha_ > 0


def test_a_failed_fit_leaves_nothing():
    model = NTKClassifier(module()).fit(X, y)
    with pytest.raises(ValueError, match="NaN"):
        model.fit(np.full_like(X, np.nan), y)
    assert not [name for name in vars(model) if name.endswith("_")]
    assert not hasattr(model, "_predictor")


@pytest.mark.parametrize("seed", range(20))
def test_singular_kernels_never_pass_for_regular_ones(seed):
    """Six samples and five parameters: rounding makes some factors succeed."""
    draw = np.random.default_rng(seed)
    x, t = draw.normal(size=(6, 4)), draw.normal(size=6)
    torch.manual_seed(seed)
    with pytest.warns(UserWarning, match="not positive definite with alpha=0"):
        model = NTKRegressor(nn.Linear(4, 1).double(), alpha=0, offset="zero").fit(x, t)
    A = np.hstack([x, np.ones((6, 1))])
    assert np.allclose(model.predict(x), A @ np.linalg.lstsq(A, t, rcond=None)[0], atol=1e-4)


def test_outputs_that_add_up_to_a_constant():
    """Their sum has no gradient but for rounding."""
    net = nn.Sequential(nn.Linear(4, 8), nn.LayerNorm(8), nn.Linear(8, 3), nn.Softmax(1))

    class Centred(nn.Module):
        def __init__(self, dtype):
            super().__init__()
            self.net = net[:3].to(dtype)

        def forward(self, x):
            z = self.net(x)
            return z - z.mean(1, keepdim=True)

    for dtype in (torch.float32, torch.float64):
        with pytest.raises(ValueError, match="add up to a constant"):
            NTKClassifier(Centred(dtype)).fit(X, y)
    assert NTKClassifier(Centred(torch.float64), kernel="entk_trace").fit(X, y).score(X, y) > 0.9


def test_no_ridge_and_no_gradient_for_conjugate_gradients():
    Z = np.zeros((40, 10))
    Z[0], Z[1] = 1, np.arange(10)
    net, t = nn.Linear(10, 1, bias=False).double(), np.arange(40.0)
    expected = NTKRegressor(net, offset="zero").fit(Z, t).predict(Z)
    for seed in range(4):
        model = NTKRegressor(net, offset="zero", solver="cg", random_state=seed).fit(Z, t)
        assert np.allclose(model.predict(Z), expected, atol=1e-3)
    with pytest.warns(UserWarning, match="with alpha=0; 1e-10 was taken"):
        NTKClassifier(module(), solver="cg", alpha=0, random_state=0).fit(X, y)


def test_gcv_without_a_ridge_is_its_limit():
    K, t = np.diag(np.linspace(1, 2, 30)) + 0.1, rng.normal(size=30)
    limit = gcv_score(K, t, [1e-12]).gcv
    assert np.allclose(gcv_score(K, t, [0]).gcv, limit)
    for solver in ("cholesky", "eigh"):
        model = NTKRegressor("precomputed", alpha=0, offset="zero", solver=solver).fit(K, t)
        assert np.allclose(model.gcv_values_, limit)


def test_one_sample_with_weight_has_no_leave_one_out():
    w = np.zeros(30)
    w[3] = 2
    model = NTKRegressor(module(1)).fit(X, y, sample_weight=w)
    assert np.isnan(model.loo_predictions_[3]).all()
    assert np.allclose(model.predict(X), y[3])


def test_parameters_set_after_fit_wait_for_the_next():
    model = NTKRegressor(module(), alpha=0.1).fit(X, np.eye(3)[y])
    before = model.predict(X)
    for name, value in {"kernel": "entk", "offset": "net", "n_components": 3}.items():
        assert np.array_equal(model.set_params(**{name: value}).predict(X), before)
    assert np.array_equal(model.set_params(net="precomputed").predict(X), before)


def test_a_kernel_of_samples_that_change_afterwards():
    x = X.copy()
    model = NTKRegressor(lambda A, B=None: A @ (A if B is None else B).T).fit(x, y)
    before = model.predict(X)
    x *= 3
    assert np.array_equal(model.predict(X), before)


class TestRankings:
    def test_one_logit_and_two_have_the_same_targets(self):
        one = nn.Linear(4, 1).double()

        class Two(nn.Module):
            def __init__(self):
                super().__init__()
                self.one = one

            def forward(self, x):
                return torch.cat([self.one(x), 0 * x[:, :1]], 1)

        for kernel in ("pntk", "entk_trace"):
            gcv = rank_networks({"one": one, "two": Two()}, X, y > 0, kernel=kernel).gcv
            assert np.isclose(gcv["one"], gcv["two"])

    def test_what_the_targets_are(self):
        nets = {"a": module(), "b": module(1)}
        numbers = rank_networks(nets, X, X[:, 0].round())
        assert np.isclose(
            numbers.gcv["a"],
            NTKRegressor(module(), alpha="gcv").fit(X, X[:, 0].round()).gcv_values_.min(),
        )
        labels = rank_networks(nets, X, y)
        assert rank_networks(nets, X, y[:, None]).gcv == labels.gcv
        assert rank_networks(nets, X, y.astype(float), task="classification").gcv == labels.gcv
        assert rank_networks(nets, X, np.array(["u", "v", "w"])[y]).gcv == labels.gcv
        assert rank_networks(nets, X, y, task="regression").gcv != labels.gcv
        with pytest.raises(ValueError, match="task must be"):
            rank_networks(nets, X, y, task="ranking")

    def test_two_targets_are_no_two_classes(self):
        z = X[:, 1] ** 2
        one = rank_networks({"a": module(1)}, X, z, task="regression").gcv["a"]
        for n in (2, 3):
            Y = np.stack([z] * n, 1)
            several = rank_networks({"a": module(1)}, X, Y, task="regression").gcv["a"]
            assert np.isclose(several, n * one)
        with pytest.raises(ValueError, match="y has shape"):
            rank_networks({"a": module(1)}, X, 1.0)

    def test_a_fitted_net_of_another_task(self):
        ranking = rank_networks({"net": trained(y), "module": module()}, X, np.arange(30) % 5)
        assert set(ranking.order) == {"net", "module"}
        with pytest.raises(ValueError, match="needs as many"):
            rank_networks({"module": module()}, X, np.arange(30) % 5, kernel="entk")


@pytest.mark.parametrize("solver", ["cholesky", "eigh"])
@pytest.mark.parametrize("alpha", [5e-13, 1e-12])
def test_ridges_of_the_size_of_rounding_are_raised(solver, alpha):
    A = rng.normal(size=(40, 6))
    t = rng.normal(size=40)
    model = NTKRegressor("precomputed", alpha=alpha, offset="zero", solver=solver)
    with pytest.warns(UserWarning, match="The kernel is not positive definite with alpha="):
        model.fit(A @ A.T, t)
    expected = A @ np.linalg.lstsq(A, t, rcond=None)[0]
    assert np.abs(model.predict(A @ A.T) - expected).max() < 1e-3
