"""Labels that all other samples contradict: found, counted, and told."""

import numpy as np
import pytest
import torch
from sklearn.frozen import FrozenEstimator
from skorch import NeuralNetClassifier
from torch import nn

from sklearn_lpntk import RedundancyPruner
from sklearn_lpntk.pruning._clean import left_out_margins

K = 3


def clouds(n, share, seed=0):
    """Three clouds, a share of the labels wrong."""
    rng = np.random.default_rng(seed)
    right = np.arange(n) % K
    X = (rng.normal(size=(n, 5)) + 4 * np.eye(5)[right]).astype(np.float32)
    wrong = rng.random(n) < share
    return X, np.where(wrong, (right + rng.integers(1, K, n)) % K, right), wrong


@pytest.mark.parametrize("strategy", ["clean_herding", "clean_coverage", "loo_infinite", "loo_rbf"])
@pytest.mark.parametrize("n", [300, 1300])  # below and above the size of the sketch
def test_wrong_labels_go_first(strategy, n):
    X, y, wrong = clouds(n, 0.1)
    pruner = RedundancyPruner(strategy=strategy, prune_fraction=wrong.mean(), random_state=0)
    pruner.fit_resample(X, y)
    assert wrong[pruner.pruned_indices_].mean() > 0.95
    assert pruner.contradicted_[wrong].mean() > 0.95
    assert pruner.contradicted_[~wrong].mean() < 0.02
    score = pruner.to_frame()["score"].to_numpy()
    np.testing.assert_array_equal(score < 0, pruner.contradicted_)
    n_denied = pruner.contradicted_.sum()
    assert (np.diff(score[pruner.prune_order_[:n_denied]]) >= 0).all()


def test_without_wrong_labels_hardly_any_is_contradicted():
    X, y, _ = clouds(300, 0.0)
    pruner = RedundancyPruner(strategy="clean_herding", random_state=0)
    pruner.fit_resample(X, y)
    assert pruner.contradicted_.mean() < 0.01


@pytest.mark.filterwarnings("ignore:The other samples contradict")
def test_a_default_net_does_not_learn_wrong_labels_by_heart():
    """Of few samples, trained to its end, it would: then most wrong labels seem right."""
    X, y, wrong = clouds(120, 0.2)
    scores = []
    for net in (None, overfitted(X, y)):
        pruner = RedundancyPruner(net=net, strategy="clean_herding", random_state=0)
        pruner.fit_resample(X, y)
        scores.append(pruner.contradicted_[wrong].mean())
    assert scores[0] > 0.9
    assert scores[0] > scores[1] + 0.1


def overfitted(X, y):
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Linear(5, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, K)
    )
    options = {"criterion": nn.CrossEntropyLoss, "optimizer": torch.optim.Adam, "train_split": None}
    net = NeuralNetClassifier(module, **options, lr=0.01, max_epochs=200, verbose=0)
    return FrozenEstimator(net.fit(X, y))


@pytest.mark.filterwarnings("ignore:The other samples contradict")
@pytest.mark.parametrize("strategy", ["clean_herding", "clean_coverage", "net_clean_random"])
def test_within_classes_a_rare_one_keeps_its_share(strategy):
    rng = np.random.default_rng(0)
    y = (np.arange(400) < 40).astype(int)  # a tenth, in the midst of the others
    X = rng.normal(size=(400, 5)).astype(np.float32)
    kept, orders = {}, {}
    for scope in ("all", "class"):
        options = {"strategy": strategy, "scope": scope, "prune_fraction": 0.5, "random_state": 0}
        pruner = RedundancyPruner(**options)
        _, labels = pruner.fit_resample(X, y)
        kept[scope] = (labels == 1).sum()
        orders[scope] = [pruner.prune_order_[y[pruner.prune_order_] == k] for k in (0, 1)]
    assert kept["all"] < 5
    assert 19 <= kept["class"] <= 21
    for by_all, by_class in zip(orders["all"], orders["class"], strict=True):
        np.testing.assert_array_equal(by_all, by_class)


def test_the_only_sample_of_a_class_is_not_contradicted():
    margins, _ = left_out_margins(np.array([0, 0, 0, 1, 2, 2, 2]), K=np.eye(7) + np.ones((7, 7)))
    assert np.isinf(margins).tolist() == [False, False, False, True, False, False, False]


def test_outputs_that_add_up_to_a_constant():
    """The gradient of their sum is rounding; the features of each output are taken instead."""

    class Centred(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, K))

        def forward(self, x):
            out = self.layers(x)
            return out - out.mean(1, keepdim=True)

    X, y, wrong = clouds(300, 0.1)
    torch.manual_seed(0)
    pruner = RedundancyPruner(net=Centred(), estimator=None, strategy="clean_herding")
    pruner.fit_resample(X, y)
    assert pruner.contradicted_[wrong].mean() > 0.9
