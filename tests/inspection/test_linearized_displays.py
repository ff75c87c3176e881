"""GCVDisplay, SpectrumDisplay and QueryCurveDisplay."""

import matplotlib
import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from sklearn.datasets import load_diabetes, load_digits
from torch import nn

from sklearn_lpntk.inspection import GCVDisplay, QueryCurveDisplay, SpectrumDisplay
from sklearn_lpntk.kernels import entk_kernel
from sklearn_lpntk.linearized import NTKClassifier, NTKRegressor, gcv_score

matplotlib.use("Agg")
X, y = load_digits(return_X_y=True)
X, X_test, y, y_test = X[:120] / 16, X[120:200] / 16, y[:120], y[120:200]


@pytest.fixture(autouse=True)
def figures_closed():
    yield
    matplotlib.pyplot.close("all")


def module(n_outputs=10):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(X.shape[1], 16), nn.Tanh(), nn.Linear(16, n_outputs))
    return net.double()


@pytest.mark.parametrize("offset", ["mean", "zero", "centred", "net"])
@pytest.mark.parametrize("kernel", ["pntk", "entk"])
def test_risks_are_those_of_refitted_estimators(offset, kernel):
    alphas, options = [1e-4, 1e-2, 1.0], {"offset": offset, "kernel": kernel}
    display = GCVDisplay.from_estimator(
        NTKClassifier(module(), **options).fit(X, y), X, y, X_test, y_test, alphas=alphas
    )
    for k, alpha in enumerate(alphas):
        model = NTKClassifier(module(), alpha=alpha, **options).fit(X, y)
        outputs = [model.decision_function(A) for A in (X, X_test)]
        risks = [((np.eye(10)[t] - f) ** 2).sum(1).mean() for t, f in zip((y, y_test), outputs)]
        assert_allclose([display.train_risk[k], display.test_risk[k]], risks, rtol=1e-6)
        assert_allclose(display.gcv[k], model.gcv_values_[0], rtol=1e-8)


def test_numbers_and_a_matrix_and_no_test_samples():
    data, target = load_diabetes(return_X_y=True)
    model = NTKRegressor(alpha="gcv", random_state=0).fit(data[:200], target[:200])
    display = GCVDisplay.from_estimator(model, data[:200], target[:200])
    assert display.test_risk is None
    assert len(display.ax_.lines) == 3
    assert_allclose(display.gcv, model.gcv_values_)
    K = model.kernel_matrix(data[:200])
    given = NTKRegressor("precomputed", alpha="gcv").fit(K, target[:200])
    again = GCVDisplay.from_estimator(given, K, target[:200])
    assert_allclose(again.gcv, display.gcv)
    score = gcv_score(K, target[:200] - target[:200].mean(), display.alphas)
    assert_allclose(score.gcv, display.gcv)


@pytest.mark.parametrize("offset", ["mean", "centred"])
@pytest.mark.parametrize("kernel", ["pntk", "entk"])
def test_the_spectrum(offset, kernel):
    model = NTKClassifier(module(), kernel=kernel, offset=offset).fit(X, y)
    display = SpectrumDisplay.from_estimator(model, X, y)
    n = len(model.kernel_matrix(X))
    assert len(display.eigenvalues) == (n if offset == "mean" else n - n // 120)
    assert (np.diff(display.eigenvalues) <= 1e-12).all()
    assert_allclose(display.shares.sum(), 1)
    if (offset, kernel) == ("mean", "entk"):
        full = entk_kernel(module(), X).transpose(0, 2, 1, 3).reshape(n, n)
        w = np.linalg.eigvalsh(full)[::-1]
        assert_allclose(display.eigenvalues, w / w.mean(), atol=1e-9)
    title = display.axes_[1].get_title()
    assert title.startswith("90 % of the labels lie in")
    assert f"of {len(display.shares)} directions" in title


def test_labels_in_the_leading_direction():
    """Targets that are the leading eigenvector lie in one direction."""
    K = NTKRegressor(module(1)).fit(X, y).kernel_matrix(X)
    leading = np.linalg.eigh(K)[1][:, -1]
    model = NTKRegressor("precomputed", offset="zero").fit(K, leading)
    shares = SpectrumDisplay.from_estimator(model, K, leading).shares
    assert_allclose(shares[0], 1)


def test_query_curves():
    scores = {
        "random": [[0.5, 0.6, 0.7], [0.5, 0.7, 0.8]],
        "margin": [[0.5, 0.7, 0.9], [0.5, 0.8, 0.9]],
        "one run": [0.5, 0.6, 0.7],
    }
    display = QueryCurveDisplay.from_results([20, 30, 40], scores)
    lines = {line.get_label(): line for line in display.ax_.lines}
    assert_allclose(lines["random"].get_ydata(), [0.5, 0.65, 0.75])
    assert lines["random"].get_linestyle() == "--"
    assert len(display.ax_.collections) == 2  # bands
    band = display.ax_.collections[1].get_paths()[0].vertices[:, 1]
    assert_allclose(band.max(), 0.9)
    assert "1 to 2 runs" in display.ax_.get_title()
    assert len({line.get_color() for line in display.ax_.lines}) == 3


def test_refused():
    with pytest.raises(ValueError, match="a score for each of n_labels"):
        QueryCurveDisplay.from_results([20, 30], {"random": [0.5]})
    with pytest.raises(ValueError, match="at least one strategy"):
        QueryCurveDisplay.from_results([20, 30], {})
    with pytest.raises(TypeError, match="fitted NTKClassifier"):
        GCVDisplay.from_estimator(object(), X, y)
    with pytest.raises(ValueError, match="which fit has not seen"):
        SpectrumDisplay.from_estimator(NTKClassifier(module()).fit(X, y % 3), X, y)


def test_weights_and_targets_of_another_shape():
    w = np.r_[np.full(60, 10.0), np.zeros(60)]
    model = NTKClassifier(module(), alpha="gcv").fit(X, y, sample_weight=w)
    display = GCVDisplay.from_estimator(model, X, y, X_test, y_test, sample_weight=w)
    assert_allclose(display.gcv, model.gcv_values_, rtol=1e-7)
    assert len(SpectrumDisplay.from_estimator(model, X, y, sample_weight=w).shares) == 60
    one = NTKRegressor(module(1)).fit(X, X[:, 10])
    for target, message in (
        (np.ones((80, 4)), "4 outputs, and fit had 1"),
        (np.ones(7), "each of the 80 samples; got 7"),
        (None, "got none"),
    ):
        with pytest.raises(ValueError, match=message):
            GCVDisplay.from_estimator(one, X, X[:, 10], X_test, target)
    column = GCVDisplay.from_estimator(NTKClassifier(module()).fit(X, y), X, y[:, None])
    assert column.gcv.shape == (41,)
    with pytest.raises(ValueError, match="as many in every run"):
        QueryCurveDisplay.from_results([20, 30], {"random": [[0.5], [0.5, 0.6]]})
