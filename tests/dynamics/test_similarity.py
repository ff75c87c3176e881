"""train_test_similarity against the whole kernel, and against real steps."""

import numpy as np
import pytest
import torch
from torch import nn

from sklearn_lpntk.dynamics import predict_update, train_test_similarity
from sklearn_lpntk.kernels import empirical_ntk, lpntk_kernel
from sklearn_lpntk.linearized import NTKClassifier


@pytest.fixture
def problem():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3)).double()
    X = torch.randn(320, 4).double()
    return net, X[:40], np.arange(40) % 3, X[40:], np.arange(280) % 3


def kernel_of(name, net, X, y, X2, y2):
    return empirical_ntk(net, X2, y2, X, y, kernel=name).toarray()


@pytest.mark.parametrize("normalize", [False, True])
def test_partners_are_the_ends_of_the_whole_kernel(problem, normalize):
    net, X, y, X2, y2 = problem
    result = train_test_similarity(*problem, n_partners=3, normalize=normalize)
    assert set(result) == {"lpntk", "loss_gradient"}
    for name, found in result.items():
        K = kernel_of(name, net, X, y, X2, y2)
        if normalize:
            own = empirical_ntk(net, X2, y2, kernel=name).diag()
            other = empirical_ntk(net, X, y, kernel=name).diag()
            K = K / np.sqrt(np.outer(own, other))
        order = np.argsort(K, axis=1)
        np.testing.assert_array_equal(found.harmful, order[:, :3])
        np.testing.assert_array_equal(found.helpful, order[:, ::-1][:, :3])
        for end in ("helpful", "harmful"):
            expected = np.take_along_axis(K, found[end], axis=1)
            np.testing.assert_allclose(found[f"{end}_values"], expected, rtol=1e-9)


def test_helpful_samples_help_and_harmful_ones_hurt(problem):
    """The loss-gradient kernel is minus the change of the loss by a small step."""
    net, X, y, X2, y2 = problem
    found = train_test_similarity(*problem, kernels=["loss_gradient"]).loss_gradient
    for test in range(5):
        for end, sign in (("helpful", 1), ("harmful", -1)):
            u = found[end][test, 0]
            step = predict_update(net, X[[u]], y[[u]], X2[[test]], learning_rate=1e-3)
            gain = step.delta_log_proba[0, y2[test]]
            np.testing.assert_allclose(gain / 1e-3, found[f"{end}_values"][test, 0], rtol=1e-9)
            assert np.sign(gain) == sign


def test_without_test_labels_the_predictions_count(problem):
    net, X, y, X2, _ = problem
    with torch.no_grad():
        predicted = net(X2).argmax(1)
    found, expected = (train_test_similarity(net, X, y, X2, y2) for y2 in (None, predicted))
    np.testing.assert_array_equal(found.lpntk.helpful_values, expected.lpntk.helpful_values)
    one = nn.Linear(4, 1).double()
    with torch.no_grad():
        predicted = (one(X2)[:, 0] > 0).long()
    found, expected = (train_test_similarity(one, X, y % 2, X2, y2) for y2 in (None, predicted))
    np.testing.assert_array_equal(found.lpntk.harmful, expected.lpntk.harmful)


def test_ties_go_to_the_lowest_row(problem):
    net, X, y, X2, y2 = problem
    doubled = torch.cat([X, X])
    found = train_test_similarity(net, doubled, np.tile(y, 2), X2, y2, n_partners=4)
    np.testing.assert_array_equal(found.lpntk.helpful[:, 1::2], found.lpntk.helpful[:, ::2] + 40)


def test_some_parameters_and_callables(problem):
    def confident(logits, y):
        return torch.softmax(logits, 1)

    net, X, y, X2, y2 = problem
    found = train_test_similarity(*problem, kernels=["lpntk", confident], parameters="2")
    K = lpntk_kernel(net, X2, y2, X, y, parameters="2")
    np.testing.assert_array_equal(found.lpntk.helpful[:, 0], K.argmax(axis=1))
    assert found.confident.helpful.shape == (280, 5)


def test_errors(problem):
    net, X, y, X2, y2 = problem
    with pytest.raises(ValueError, match="n_partners=41, but there are 40"):
        train_test_similarity(net, X, y, X2, y2, n_partners=41)
    with pytest.raises(ValueError, match=r"X_test has samples of shape \(3,\)"):
        train_test_similarity(net, X, y, X2[:, :3], y2)
    assert set(train_test_similarity(net, X, y, X2, y2, kernels="lpntk")) == {"lpntk"}
    with pytest.raises(ValueError, match="Two kernels are called '<lambda>'"):
        train_test_similarity(net, X, y, X2, y2, kernels=[lambda z, y: z, lambda z, y: -z])
    with pytest.raises(ValueError, match="several cotangents"):
        train_test_similarity(net, X, y, X2, y2, kernels=["entk"])
    with pytest.raises(ValueError, match="y_train must have shape"):
        train_test_similarity(net, X, y[:3], X2, y2)
    with pytest.raises(ValueError, match="labels must be logit columns"):
        train_test_similarity(net, X, y + 1, X2, y2)


@pytest.mark.parametrize("n_logits", [1, 3])
@pytest.mark.parametrize("labelled", [False, True])
def test_representers_are_the_parts_of_the_linearised_output(n_logits, labelled):
    """All parts of a test sample add up to its output, less the mean of the labels."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, n_logits)).double()
    X, X2 = torch.randn(30, 4).double(), torch.randn(300, 4).double()
    y, y2 = np.arange(30) % max(n_logits, 2), np.arange(300) % max(n_logits, 2)
    with torch.no_grad():
        z = net(X2).numpy()
    wanted = y2 if labelled else (z[:, 0] > 0).astype(int) if n_logits == 1 else z.argmax(1)
    model = NTKClassifier(net, alpha=0.01).fit(X, y)
    found = train_test_similarity(
        net, X, y, X2, y2 if labelled else None, kernels="representer", n_partners=30, alpha=0.01
    ).representer
    total = found.helpful_values.sum(1)
    decision = model.decision_function(X2) - (0 if n_logits == 1 else model.intercept_)
    if n_logits == 1:
        expected = (2 * wanted - 1) * (decision - model.intercept_[0])
    else:
        expected = decision[np.arange(300), wanted]
    np.testing.assert_allclose(total, expected, rtol=1e-8, atol=1e-10)
    assert (np.diff(found.helpful_values) <= 0).all()
    np.testing.assert_array_equal(found.harmful, found.helpful[:, ::-1])


def test_representers_of_labels_that_are_no_columns(problem):
    net, X, y, X2, y2 = problem
    for labels in ((y + 1, y2), (y, y2 - 1)):
        with pytest.raises(ValueError, match="labels must be logit columns from 0 to 2"):
            train_test_similarity(net, X, labels[0], X2, labels[1], kernels="representer")
