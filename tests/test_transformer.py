"""LpNTKTransformer: features are the kernel's, labels given and predicted, leaks shown."""

import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_iris, make_classification
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from skorch import NeuralNetClassifier
from torch import nn

from sklearn_lpntk import FarthestPointClustering, LpNTKTransformer, _features
from sklearn_lpntk.datasets import load_digit_images
from sklearn_lpntk.kernels import empirical_ntk, lpntk_kernel

X, y = load_iris(return_X_y=True)
X32 = X.astype(np.float32)
D = 4 * 8 + 8 + 8 * 3 + 3


def make_module():
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3))


def make_net(**options):
    options = {"module": make_module, "criterion": nn.CrossEntropyLoss, "lr": 0.05} | options
    return NeuralNetClassifier(
        **options, max_epochs=10, train_split=None, verbose=0, iterator_train__shuffle=True
    )


def transformer(**options):
    return LpNTKTransformer(**{"net": make_net(), "random_state": 0} | options)


def test_inner_products_are_the_kernel():
    found = transformer()
    phi = found.fit_transform(X, y)
    assert phi.shape == (150, D) == (150, found.n_components_)
    assert phi.dtype == np.float32
    np.testing.assert_allclose(phi @ phi.T, lpntk_kernel(found.net_, X32, y), rtol=1e-4)
    other = found.transform(X[:10], y[:10])
    np.testing.assert_allclose(other, phi[:10], rtol=1e-5, atol=1e-6)


def test_kernel_output():
    found = transformer(output="kernel")
    K = found.fit_transform(X, y)
    np.testing.assert_array_equal(K, lpntk_kernel(found.net_, X32, y))
    np.testing.assert_allclose(found.transform(X[:10], y[:10]), K[:10], rtol=1e-5)
    assert found.n_components_ == 150
    again = pickle.loads(pickle.dumps(found))
    np.testing.assert_array_equal(again.transform(X[:10], y[:10]), found.transform(X[:10], y[:10]))


def test_without_labels_the_nets_predictions_count():
    found = transformer().fit(X, y)
    predicted = found.net_.predict(X32)
    np.testing.assert_array_equal(found.transform(X), found.transform(X, predicted))
    wrong = predicted != y
    assert wrong.any()
    given = found.transform(X, y)
    differs = np.abs(given - found.transform(X)).max(axis=1) > 1e-3
    np.testing.assert_array_equal(differs, wrong)


def test_auto_writes_small_features_out_and_sketches_large_ones():
    assert transformer().fit(X, y).n_components_ == D
    assert transformer(n_components=32).fit(X, y).n_components_ == 32
    images, digits = load_digit_images()
    auto = LpNTKTransformer(random_state=0).fit(images[:200], digits[:200])
    assert auto.n_components_ == 4096
    phi = auto.transform(images[:200], digits[:200])
    K = lpntk_kernel(auto.net_, images[:200], digits[:200])
    norms = np.sqrt(np.outer(K.diagonal(), K.diagonal()))
    error = (phi @ phi.T - K) / norms
    assert np.sqrt((error**2).mean()) < np.sqrt(2 / 4096) * 1.2
    exact = LpNTKTransformer(n_components=None, random_state=0).fit(images[:200], digits[:200])
    assert exact.n_components_ == sum(p.numel() for p in exact.net_.module_.parameters())


def test_the_sketch_is_the_same_for_new_samples():
    found = transformer(n_components=16).fit(X, y)
    phi = found.fit_transform(X, y)
    np.testing.assert_allclose(found.transform(X[3:9], y[3:9]), phi[3:9], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kernel", ["pntk", "pntk_first", "loss_gradient"])
def test_other_kernels(kernel):
    found = transformer(kernel=kernel)
    phi = found.fit_transform(X, y)
    expected = empirical_ntk(found.net_, X32, y, kernel=kernel).toarray()
    np.testing.assert_allclose(phi @ phi.T, expected, rtol=1e-3, atol=1e-4)


def test_several_cotangents_stand_side_by_side():
    def two(logits, labels):
        return torch.stack([logits, -logits], 1)

    phi = transformer(kernel=two).fit_transform(X, y)
    assert phi.shape == (150, 2 * D)
    np.testing.assert_allclose(phi[:, :D], -phi[:, D:])


def test_labelled_features_leak_and_unlabelled_ones_do_not():
    """Random labels: nothing can be learnt, so any training score above chance is a leak."""
    rng = np.random.default_rng(0)
    data, _ = make_classification(300, random_state=0)
    labels = rng.integers(0, 2, 300)
    frozen = FrozenEstimator(
        make_net(module=lambda: nn.Sequential(nn.Linear(20, 4), nn.Tanh(), nn.Linear(4, 2))).fit(
            data[:100].astype(np.float32), labels[:100]
        )
    )
    scores = {}
    for kernel in ("lpntk", "pntk"):
        model = make_pipeline(
            LpNTKTransformer(frozen, kernel=kernel), LogisticRegression(C=0.1, max_iter=2000)
        )
        model.fit(data[100:200], labels[100:200])
        transformed = model[0].transform(data[100:200], labels[100:200])
        scores[kernel] = model[-1].score(transformed, labels[100:200])
    assert scores["lpntk"] > 0.95
    assert scores["pntk"] < 0.85


def test_clusters_of_labelled_samples():
    by_features = make_pipeline(transformer(), FarthestPointClustering(6, affinity="linear")).fit(
        X, y
    )
    by_kernel = make_pipeline(
        transformer(output="kernel"), FarthestPointClustering(6, affinity="precomputed")
    ).fit(X, y)
    assert (by_features[-1].labels_ == by_kernel[-1].labels_).mean() > 0.99


def test_pandas_out_and_names():
    frame = pd.DataFrame(X, columns=[f"f{i}" for i in range(4)])
    found = transformer(n_components=5).set_output(transform="pandas")
    out = found.fit_transform(frame, y)
    assert out.columns.tolist() == [f"lpntktransformer{i}" for i in range(5)]
    assert found.feature_names_in_.tolist() == frame.columns.tolist()
    assert found.transform(frame).shape == (150, 5)


def test_string_labels_and_frozen_nets():
    names = np.array(["a", "b", "c"])[y]
    plain, named = transformer().fit(X, y), transformer().fit(X, names)
    np.testing.assert_array_equal(plain.transform(X, y), named.transform(X, names))
    frozen = LpNTKTransformer(FrozenEstimator(plain.net_))
    np.testing.assert_array_equal(frozen.fit_transform(X, y), plain.transform(X, y))
    fold = y != 1
    lacking = LpNTKTransformer(FrozenEstimator(plain.net_)).fit(X[fold], y[fold])
    np.testing.assert_allclose(
        lacking.transform(X[fold], y[fold]), plain.transform(X[fold], y[fold]), rtol=1e-5, atol=1e-6
    )


def test_refits_are_bit_identical():
    first, second = (clone(transformer()).fit_transform(X, y) for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_errors():
    with pytest.raises(ValueError, match=r"NLLLoss.*CrossEntropyLoss"):
        transformer(net=make_net(criterion=nn.NLLLoss)).fit(X, y)
    with pytest.raises(TypeError, match="net must be a skorch classifier"):
        transformer(net=LogisticRegression()).fit(X, y)
    with pytest.raises(ValueError, match="one class only"):
        transformer().fit(X, np.ones(150))
    with pytest.raises(ValueError, match="requires y"):
        transformer().fit(X, None)
    with pytest.raises(NotFittedError):
        transformer().transform(X)
    found = transformer().fit(X, y)
    with pytest.raises(ValueError, match=r"among \[0, 1, 2\]"):
        found.transform(X, y + 1)
    with pytest.raises(ValueError, match="X has 3 features"):
        found.transform(X[:, :3])


@pytest.mark.filterwarnings("ignore::sklearn_lpntk.exceptions.AutogradRuleWarning")
def test_a_path_that_no_training_sample_took_is_refused():
    class Branching(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.out = nn.Linear(4, 4), nn.Linear(4, 3)

        def forward(self, x):
            h, far = torch.tanh(self.a(x)), x[:, :1] > 100
            if far.any():
                h = torch.where(far, torch.tanh(nn.functional.linear(h, self.a.weight)), h)
            return self.out(h)

    found = transformer(net=make_net(module=Branching), output="kernel").fit(X, y)
    assert found.transform(X[:8], y[:8]).shape == (8, 150)
    with pytest.raises(ValueError, match="a path through the network that no training sample"):
        found.transform(X[:7] + 200, y[:7])


def test_an_interrupted_fit_leaves_it_unfitted():
    def interrupting(logits, labels):
        raise KeyboardInterrupt

    found = transformer().fit(X, y)
    with pytest.raises(KeyboardInterrupt):
        found.set_params(kernel=interrupting).fit(X, y)
    assert not [name for name in vars(found) if name.endswith("_")]


def test_features_that_do_not_fit_are_refused_and_kernels_are_not(monkeypatch):
    X, y = load_iris(return_X_y=True)
    expected = LpNTKTransformer(output="kernel", random_state=0).fit_transform(X, y)
    monkeypatch.setattr(_features, "limit_of", lambda device: 1000)
    with pytest.raises(MemoryError, match=r"150 samples with \d+ features .*n_components='auto'"):
        LpNTKTransformer(n_components=None, random_state=0).fit_transform(X, y)
    kernel = LpNTKTransformer(output="kernel", random_state=0)
    np.testing.assert_allclose(kernel.fit_transform(X, y), expected, rtol=1e-3)
    np.testing.assert_allclose(kernel.transform(X, y), expected, rtol=1e-3)
