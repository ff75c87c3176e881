"""NTKRegressor and NTKClassifier: networks of every kind, Pipelines, grids, caches."""

import pickle

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch
from numpy.testing import assert_allclose
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.datasets import load_diabetes, load_digits, load_iris
from sklearn.frozen import FrozenEstimator
from sklearn.kernel_ridge import KernelRidge
from sklearn.model_selection import GridSearchCV, KFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from skorch import NeuralNetBinaryClassifier, NeuralNetClassifier, NeuralNetRegressor
from torch import nn
from torch.utils.data import TensorDataset

from sklearn_lpntk._features import extract
from sklearn_lpntk.infinite import InfiniteWidthNTK
from sklearn_lpntk.kernels import empirical_ntk, entk_kernel
from sklearn_lpntk.linearized import NTKClassifier, NTKRegressor, _kernels

from . import reference

X, y = load_iris(return_X_y=True)
X = (X - X.mean(0)) / X.std(0)
rng = np.random.default_rng(0)
KERNELS = "pntk", "pntk_first", "entk", "entk_trace"


def module(n_outputs=3, width=8):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, width), nn.Tanh(), nn.Linear(width, n_outputs))
    return net.double()


def logits(net, X):
    with torch.no_grad():
        return net(torch.as_tensor(X)).numpy()


def features(net, kernel, X):
    """Tangent features (n, R, d) by automatic differentiation."""
    parameters = dict(net.named_parameters())

    def outputs(parameters, x):
        z = torch.func.functional_call(net, parameters, (x[None],))[0]
        if kernel == "pntk":
            return z.sum(0, keepdim=True) / len(z) ** 0.5
        return z[:1] if kernel == "pntk_first" else z

    J = torch.vmap(torch.func.jacrev(outputs), (None, 0))(parameters, torch.as_tensor(X))
    phi = torch.cat([j.flatten(2) for j in J.values()], 2).detach().numpy()
    if kernel == "entk_trace":
        phi = phi.reshape(len(X), 1, -1) / phi.shape[1] ** 0.5
    return phi


@pytest.mark.parametrize("offset", ["net", "mean", "zero", "centred"])
@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("solver", ["cholesky", "eigh", "cg"])
def test_a_module_by_least_squares_on_its_gradients(kernel, offset, solver, monkeypatch):
    from sklearn_lpntk.linearized import _iterative

    monkeypatch.setattr(_iterative, "TOLERANCE", 1e-11)
    net, Y = module(), rng.normal(size=(40, 3))
    model = NTKRegressor(net, kernel=kernel, offset=offset, alpha=0.01, solver=solver)
    model.fit(X[:40], Y)
    phi = features(net, kernel, X)
    shift = 0.01 * reference.mean_diagonal(phi[:40], np.ones(40), offset)
    f0 = logits(net, X) if offset == "net" else np.zeros((len(X), 3))
    predict = reference.fitted(phi[:40], Y - f0[:40], shift, offset)
    assert_allclose(model.predict(X), predict(phi) + f0, rtol=1e-8, atol=1e-9)
    if solver != "cg":
        left = reference.left_out(phi[:40], Y - f0[:40], shift, offset)
        assert_allclose(model.loo_predictions_, left + f0[:40], rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("weighted", [False, True])
def test_kernel_ridge_of_scikit_learn(weighted):
    net, Y = module(), rng.normal(size=(60, 2))
    w = rng.uniform(0.5, 2, size=60) if weighted else None
    K = empirical_ntk(net, X, kernel="pntk").toarray()
    scale = np.average(K.diagonal()[:60], weights=w)
    ridge = KernelRidge(kernel="precomputed", alpha=0.01 * scale)
    expected = ridge.fit(K[:60, :60], Y, w).predict(K[:, :60])
    options = {"alpha": 0.01, "offset": "zero"}
    ours = NTKRegressor(net, **options).fit(X[:60], Y, w)
    assert_allclose(ours.predict(X), expected, rtol=1e-10, atol=1e-10)
    assert_allclose(ours.dual_coef_, ridge.dual_coef_, rtol=1e-9)
    given = NTKRegressor("precomputed", **options).fit(K[:60, :60], Y, w)
    assert_allclose(given.predict(K[:, :60]), expected, rtol=1e-10, atol=1e-10)

    def kernel(A, B=None):
        return empirical_ntk(net, A, X2=B, kernel="pntk").toarray()

    called = NTKRegressor(kernel, **options).fit(X[:60], Y, w)
    assert_allclose(called.predict(X), expected, rtol=1e-10, atol=1e-10)


def test_what_is_given_is_not_written_to():
    K = empirical_ntk(module(), X, kernel="pntk").toarray()
    before = K.copy()
    NTKClassifier("precomputed", offset="centred").fit(K, y)
    assert_allclose(K, before, rtol=0)


def test_the_trace_is_the_mean_over_logits():
    net = module()
    full = np.einsum("nmkk->nm", entk_kernel(net, X)) / 3
    assert_allclose(empirical_ntk(net, X, kernel="entk_trace").toarray(), full, rtol=1e-10)


@pytest.mark.parametrize("kernel", KERNELS)
def test_predictions_by_features_and_by_their_sums(kernel, monkeypatch):
    """Which is smaller decides; both are the kernel with the training samples."""
    net, found = module(), []
    for kind, size in ((_kernels.OfSums, 10**12), (_kernels.OfFeatures, 0)):
        monkeypatch.setattr(_kernels.TangentKernel, "n_bytes", size)
        model = NTKClassifier(net, kernel=kernel, alpha=0.1).fit(X[::2], y[::2])
        assert isinstance(model._predictor, kind)
        found.append(pickle.loads(pickle.dumps(model)).decision_function(X))
    assert_allclose(*found, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("solver", ["cholesky", "cg"])
def test_features_that_do_not_fit_into_memory(kernel, solver, monkeypatch):
    from sklearn_lpntk import _features

    net, options = module(), {"kernel": kernel, "solver": solver, "random_state": 0, "alpha": 0.1}
    expected = NTKClassifier(net, **options).fit(X, y)
    monkeypatch.setattr(_features, "limit_of", lambda device: 1)
    found = NTKClassifier(net, **options).fit(X, y)
    assert_allclose(found.decision_function(X), expected.decision_function(X), atol=1e-9)


def test_a_kernel_matrix_that_does_not_fit_is_never_made(monkeypatch):
    from sklearn_lpntk.linearized import _fit

    net = module()
    expected = NTKClassifier(net).fit(X, y).decision_function(X)
    monkeypatch.setattr(_fit, "limit_of", lambda device: 3 * 8 * 100**2)
    monkeypatch.setattr(_kernels.TangentKernel, "gram", None)
    model = NTKClassifier(net, random_state=0).fit(X, y)
    assert model.n_iter_ > 0
    assert not hasattr(model, "loo_predictions_")
    assert_allclose(model.decision_function(X), expected, atol=1e-4)
    with pytest.raises(ValueError, match=r"need the eigenvalues .* pass n_components="):
        NTKClassifier(net, alpha="gcv").fit(X, y)


class TestSketches:
    def test_it_is_the_regression_on_the_sketched_kernel(self):
        net = module(width=64)
        options = {"n_components": 50, "random_state": 0, "alpha": "loo", "offset": "centred"}
        primal = NTKClassifier(net, **options).fit(X, y)
        dual = NTKClassifier(net, solver="eigh", **options).fit(X, y)
        assert primal.alpha_ == dual.alpha_
        for name in ("loo_predictions_", "gcv_values_"):
            assert_allclose(getattr(primal, name), getattr(dual, name), rtol=1e-5, atol=1e-6)
        assert_allclose(primal.decision_function(X), dual.decision_function(X), atol=1e-5)
        assert not hasattr(primal, "dual_coef_")

    def test_it_comes_near_the_whole_kernel(self):
        net = module(width=64)
        exact = NTKClassifier(net, alpha=0.1).fit(X, y).decision_function(X)
        errors = [
            np.abs(
                NTKClassifier(net, alpha=0.1, n_components=m, random_state=0)
                .fit(X, y)
                .decision_function(X)
                - exact
            ).mean()
            for m in (16, 128)
        ]
        assert errors[1] < errors[0] / 2

    @pytest.mark.parametrize("kernel", KERNELS)
    def test_every_kernel(self, kernel):
        model = NTKClassifier(module(width=32), kernel=kernel, n_components=100, random_state=0)
        assert model.fit(X, y).score(X, y) > 0.9


class TestLabels:
    def test_strings_and_order(self):
        names = np.array(["setosa", "versicolor", "virginica"])[y]
        model = NTKClassifier(module(), alpha=0.01).fit(X, names)
        assert model.classes_.tolist() == sorted(set(names))
        assert model.score(X, names) > 0.9

    def test_two_classes(self):
        two = y < 2
        for net in (module(2), module(1), module(5)):
            model = NTKClassifier(net, alpha=0.01).fit(X[two], y[two] == 1)
            decision = model.decision_function(X)
            assert decision.shape == (150,)
            assert ((decision > 0) == model.predict(X)).all()
            assert model.score(X[two], y[two] == 1) > 0.9

    def test_one_logit_is_its_own_regression(self):
        """+-1 on the logit, which is what one-hot labels are on the difference of two."""
        two, net = y < 2, module(1)
        for kernel in KERNELS:
            model = NTKClassifier(net, kernel=kernel, offset="net", alpha=0.1)
            model.fit(X[two], y[two])
            assert model.dual_coef_.shape == (100, 1)
            assert model.score(X[two], y[two]) > 0.9

    @pytest.mark.parametrize("kernel", ["entk", "pntk"])
    def test_columns_of_a_net_that_has_more(self, kernel):
        """Labels 1 and 4 of a net of five logits: outputs of classes, targets of all logits."""
        labels = np.where(y == 0, 1, 4)
        model = NTKClassifier(module(5), kernel=kernel, offset="net", alpha=0.01).fit(X, labels)
        assert model.dual_coef_.shape == (150, 5)
        assert model.loo_predictions_.shape == (150, 2)
        assert model.score(X, labels) > 0.95

    def test_more_classes_than_logits_need_no_columns(self):
        assert NTKClassifier(module(2), alpha=0.01).fit(X, y).score(X, y) > 0.9

    def test_probabilities_by_calibration(self):
        model = CalibratedClassifierCV(NTKClassifier(module(), alpha=0.01), cv=3)
        proba = model.fit(X, y).predict_proba(X)
        assert proba.shape == (150, 3)
        assert not hasattr(NTKClassifier(), "predict_proba")


def classifier(**options):
    return NeuralNetClassifier(
        nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3)),
        criterion=nn.CrossEntropyLoss,
        train_split=None,
        verbose=0,
        max_epochs=5,
        lr=0.1,
        **options,
    )


class TestNets:
    def test_a_skorch_net_is_trained_and_a_frozen_one_is_not(self):
        X32 = X.astype(np.float32)
        net = classifier()
        model = NTKClassifier(net, random_state=0).fit(X, y)
        assert model.net_.history
        assert not hasattr(net, "module_")
        model = NTKClassifier(FrozenEstimator(classifier().fit(X32, y)), offset="net").fit(X, y)
        assert model.score(X, y) > 0.9

    def test_the_module_can_change_afterwards(self):
        net = module()
        model = NTKClassifier(net).fit(X, y)
        before = model.decision_function(X)
        with torch.no_grad():
            net[0].weight.mul_(3)
        assert_allclose(model.decision_function(X), before)

    def test_a_pipeline_that_ends_in_a_net(self):
        pipe = make_pipeline(StandardScaler(), classifier())
        raw = load_iris().data
        model = NTKClassifier(pipe, random_state=0).fit(raw, y)
        assert model.score(raw, y) > 0.9

    @pytest.mark.parametrize("squeezed", [False, True])
    def test_a_skorch_regressor(self, squeezed):
        X, y = load_diabetes(return_X_y=True)
        X, y = X.astype(np.float32) * 20, (y - y.mean()) / y.std()
        layers = [nn.Linear(10, 16), nn.Tanh(), nn.Linear(16, 1)]
        net = NeuralNetRegressor(
            nn.Sequential(*layers, *([nn.Flatten(0)] if squeezed else [])),
            train_split=None,
            verbose=0,
            max_epochs=30,
            lr=0.05,
        )
        scores = [
            NTKRegressor(net, alpha="gcv", offset=offset, random_state=0)
            .fit(X[:300], y[:300])
            .score(X[300:], y[300:])
            for offset in ("net", "mean")
        ]
        assert min(scores) > 0.3

    def test_the_default_regressor_in_any_unit(self):
        X, y = load_diabetes(return_X_y=True)
        scores = [
            NTKRegressor(offset="net", alpha=1.0, random_state=0)
            .fit(X[:300], y[:300] * unit)
            .score(X[300:], y[300:] * unit)
            for unit in (1e-6, 1.0, 1e6)
        ]
        assert_allclose(scores, scores[1], atol=1e-3)

    def test_several_outputs(self):
        X, y = load_diabetes(return_X_y=True)
        Y = np.stack([y, -1000 * y], 1)
        model = NTKRegressor(alpha="loo", random_state=0).fit(X[:300], Y[:300])
        assert model.predict(X).shape == (442, 2)
        assert model.loo_predictions_.shape == (300, 2)
        assert model.score(X[300:], Y[300:]) > 0.1

    def test_a_net_of_one_logit_that_is_trained(self):
        two = y < 2
        net = NeuralNetBinaryClassifier(
            nn.Linear(4, 1), criterion=nn.BCEWithLogitsLoss, train_split=None, verbose=0
        )
        model = NTKClassifier(net, random_state=0).fit(X[two], y[two])
        assert model.score(X[two], y[two]) > 0.9

    def test_infinite_width(self):
        digits, labels = load_digits(return_X_y=True)
        model = NTKClassifier(InfiniteWidthNTK(), alpha="loo").fit(digits[:800], labels[:800])
        assert model.score(digits[800:], labels[800:]) > 0.93
        images = NTKClassifier(InfiniteWidthNTK(), alpha="loo")
        images.fit(digits[:800].reshape(-1, 8, 8), labels[:800])
        assert_allclose(images.loo_predictions_, model.loo_predictions_)

    def test_sparse_samples_that_lie_in_few_directions(self):
        """Others may lie in the directions that training samples have only by rounding."""
        rng = np.random.default_rng(0)
        low = sp.csr_array(rng.normal(size=(40, 2)) @ rng.normal(size=(2, 30)))
        model = NTKClassifier(random_state=0).fit(low, np.arange(40) % 2)
        assert np.abs(model.decision_function(sp.csr_array(rng.normal(size=(40, 30))))).max() < 100

    def test_tensors_that_carry_gradients(self):
        net, inputs = module(), torch.as_tensor(X).requires_grad_()
        expected = NTKClassifier(net).fit(X, y).decision_function(X)
        assert_allclose(NTKClassifier(net).fit(inputs, y).decision_function(inputs), expected)
        scale = torch.tensor(2.0, requires_grad=True)

        def kernel(A, B=None):
            return scale * torch.as_tensor(A @ (A if B is None else B).T)

        assert NTKClassifier(kernel).fit(X, y).score(X, y) > 0.8

    def test_a_data_set_with_several_targets(self):
        Y = np.stack([X[:, 0], -X[:, 1]], 1)
        items = TensorDataset(torch.as_tensor(X), torch.as_tensor(Y))
        found = NTKRegressor(module()).fit(items).predict(X)
        assert_allclose(found, NTKRegressor(module()).fit(X, Y).predict(X))
        column = TensorDataset(torch.as_tensor(X), torch.as_tensor(Y[:, :1]))
        assert NTKRegressor(module()).fit(column).predict(X).shape == (150, 1)

    def test_a_table_with_categories(self):
        table = pd.DataFrame({"a": X[:, 3], "b": pd.Categorical(np.where(y == 0, "u", "v"))})
        model = NTKClassifier(random_state=0).fit(table, y)
        assert model.score(table, y) > 0.9


def test_wide_networks_are_their_linearisation():
    """Observation I: gradient descent on the squares follows the flow of the tangent kernel."""
    few, Y = X[::5], np.eye(3)[y[::5]]
    inputs, targets = torch.as_tensor(few), torch.as_tensor(Y)

    def gap(width):
        net, rate = module(width=width), 1 / width  # the kernel grows with the width
        model = NTKRegressor(net, kernel="entk", offset="net", alpha=0.0, time=500 * rate)
        model.fit(few, Y)
        optimizer = torch.optim.SGD(net.parameters(), lr=rate)
        for _ in range(500):
            optimizer.zero_grad()
            (((net(inputs) - targets) ** 2).sum() / (2 * len(few))).backward()
            optimizer.step()
        return np.linalg.norm(model.predict(X) - logits(net, X)) / np.linalg.norm(logits(net, X))

    gaps = [gap(width) for width in (16, 256, 2048)]
    assert gaps[2] < gaps[1] / 2 < gaps[0] / 4
    assert gaps[2] < 0.1


class TestPipelinesAndGrids:
    def test_in_a_pipeline_and_a_grid(self, tmp_path):
        raw, labels = load_iris(return_X_y=True)
        pipe = make_pipeline(StandardScaler(), NTKClassifier(classifier(), random_state=0))
        grid = GridSearchCV(
            pipe, {"ntkclassifier__alpha": [1e-3, 1.0], "ntkclassifier__kernel": ["pntk", "entk"]}
        )
        assert grid.fit(raw, labels).best_score_ > 0.9

    def test_a_grid_computes_the_features_of_a_fold_once(self, tmp_path, monkeypatch):
        counted = []
        monkeypatch.setattr(_kernels, "extract", lambda *args: counted.append(1) or extract(*args))
        model = NTKClassifier(classifier(), memory=str(tmp_path), random_state=0)
        grid = GridSearchCV(model, {"alpha": [1e-3, 1e-2, 1e-1]}, cv=KFold(3, shuffle=True))
        grid.set_params(cv=KFold(3, shuffle=True, random_state=0), refit=False)
        grid.fit(X, y)
        assert len(counted) == 2 * 3  # training and test samples of every fold

    def test_a_precomputed_kernel_is_cut_by_cross_validation(self):
        K = empirical_ntk(module(), X, kernel="pntk").toarray()
        cv = KFold(5, shuffle=True, random_state=0)
        given = cross_val_score(NTKClassifier("precomputed", alpha=0.01), K, y, cv=cv)
        assert_allclose(given, cross_val_score(NTKClassifier(module(), alpha=0.01), X, y, cv=cv))

    def test_clone_and_verbose(self, capsys):
        model = clone(NTKClassifier(module(), verbose=1)).fit(X, y)
        assert model.alpha_ == 1e-3
        assert "[NTKClassifier] solve" in capsys.readouterr().out

    def test_metadata(self):
        w = np.where(y == 2, 0.0, 1.0)
        model = NTKClassifier(module(), alpha=0.01).fit(X, y, sample_weight=w)
        assert set(model.predict(X)) == {0, 1}
