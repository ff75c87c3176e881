"""How long the kept rows are trained on, and which parameters the kernel is of."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_iris
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from skorch import NeuralNetClassifier
from skorch.callbacks import Callback
from skorch.dataset import ValidSplit
from torch import nn

from sklearn_lpntk import RedundancyPruner
from sklearn_lpntk.inspection import PruningCurveDisplay
from sklearn_lpntk.kernels import empirical_ntk

X, y = load_iris(return_X_y=True)
X = X.astype(np.float32)


class CountSteps(Callback):
    def on_train_begin(self, net, **kwargs):
        self.steps_ = 0

    def on_batch_end(self, net, training=False, **kwargs):
        self.steps_ += training


def make_net(**options):
    return NeuralNetClassifier(
        nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)),
        criterion=nn.CrossEntropyLoss,
        optimizer=torch.optim.Adam,
        lr=0.02,
        callbacks=[("steps", CountSteps())],
        verbose=0,
        **{"max_epochs": 6, "train_split": None, "batch_size": 16} | options,
    )


def steps_of(net):
    return dict(net.callbacks_)["steps"].steps_


@pytest.mark.parametrize(
    ("options", "on_all"),
    [
        ({}, 60),
        ({"train_split": ValidSplit(5, stratified=True)}, 48),
        ({"batch_size": -1}, 6),
        ({"iterator_train__batch_size": 50, "iterator_train__drop_last": True}, 18),
    ],
    ids=["plain", "valid split", "whole batch", "drop last"],
)
@pytest.mark.parametrize("frozen", [False, True])
def test_as_many_steps_as_on_all(options, on_all, frozen):
    net = make_net(**options)
    assert steps_of(make_net(**options).fit(X, y)) == on_all
    scoring = FrozenEstimator(make_net(**options).fit(X, y)) if frozen else net
    pruner = RedundancyPruner(net=scoring, prune_fraction=0.5, budget="steps", random_state=0)
    found = steps_of(pruner.fit(X, y).estimator_)
    assert abs(found - on_all) <= on_all / 12  # epochs are whole
    epochs = pruner.set_params(budget="epochs").fit(X, y).estimator_
    assert epochs.max_epochs == 6
    assert steps_of(epochs) <= on_all


def test_other_estimators_take_no_notice():
    pruner = RedundancyPruner(LogisticRegression(max_iter=500), net=make_net(), random_state=0)
    one, two = (pruner.set_params(budget=b).fit(X, y).predict_proba(X) for b in ("epochs", "steps"))
    np.testing.assert_array_equal(one, two)


def test_curves_of_either_budget():
    pruner = RedundancyPruner(net=make_net(), random_state=0)
    options = {"strategies": ("random",), "fractions": (0.6,), "cv": 3}
    both = [
        PruningCurveDisplay.from_estimator(pruner, X, y, budget=budget, **options)
        for budget in ("epochs", "steps")
    ]
    assert both[0].scores["random"].mean() < both[1].scores["random"].mean()
    assert pruner.budget == "epochs"


def test_the_kernel_is_of_the_named_parameters():
    net = make_net().fit(X, y)
    options = {"net": FrozenEstimator(net), "strategy": "redundant", "random_state": 0}
    pruner = RedundancyPruner(LogisticRegression(max_iter=500), parameters="2", **options).fit(X, y)
    K = empirical_ntk(net, X, y, parameters="2").toarray().astype(np.float64)
    np.fill_diagonal(K, (d := K.diagonal().copy()) * 0 - np.inf)
    np.testing.assert_allclose(pruner.redundancy_, K.max(axis=1) / d, rtol=1e-4)
    whole = RedundancyPruner(LogisticRegression(max_iter=500), **options).fit(X, y)
    assert not np.allclose(whole.redundancy_, pruner.redundancy_, rtol=1e-3)
    with pytest.raises(ValueError, match=r"No trainable parameter is named .absent."):
        RedundancyPruner(parameters="absent", **options).fit(X, y)
