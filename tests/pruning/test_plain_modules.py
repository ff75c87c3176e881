"""A plain module as the scoring net: what FrozenEstimator of it in a skorch net gives."""

import copy
import types

import numpy as np
import pytest
import torch
from sklearn.datasets import load_iris
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from skorch import NeuralNetBinaryClassifier, NeuralNetClassifier
from torch import nn

from sklearn_lpntk import LpNTKTransformer, RedundancyPruner
from sklearn_lpntk.kernels import lpntk_kernel

X, y = load_iris(return_X_y=True)


def module(n_logits=3):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.Dropout(), nn.ReLU(), nn.Linear(8, n_logits)).train()


def pruner(net, **options):
    options = {"prune_fraction": 0.4, "random_state": 0} | options
    return RedundancyPruner(LogisticRegression(max_iter=500), net=net, **options)


@pytest.mark.parametrize("strategy", ["herding", "el2n", "k_center", "redundant", "random"])
@pytest.mark.parametrize("n_logits", [3, 1])
def test_it_is_what_a_frozen_net_is(strategy, n_logits):
    kind = NeuralNetClassifier if n_logits > 1 else NeuralNetBinaryClassifier
    criterion = nn.CrossEntropyLoss if n_logits > 1 else nn.BCEWithLogitsLoss
    labels = y if n_logits > 1 else np.minimum(y, 1)
    frozen = FrozenEstimator(kind(module(n_logits), criterion=criterion).initialize())
    expected = pruner(frozen, strategy=strategy).fit(X, labels)
    found = pruner(module(n_logits), strategy=strategy).fit(X, labels)
    np.testing.assert_array_equal(found.prune_order_, expected.prune_order_)


def test_it_comes_back_as_it_was():
    net = module()
    before = copy.deepcopy(net.state_dict())
    pruner(net).fit(X, y)
    assert net.training
    assert all(m.training for m in net)
    for name, value in net.state_dict().items():
        assert torch.equal(value, before[name])


def test_a_grid_with_a_cache(tmp_path):
    search = GridSearchCV(
        pruner(module(), memory=str(tmp_path)),
        {"prune_fraction": [0.2, 0.6], "strategy": ["herding", "random"]},
        cv=3,
        error_score="raise",
    ).fit(X, y)
    assert search.best_score_ > 0.8


def test_the_transformer_takes_one():
    K = LpNTKTransformer(module(), output="kernel", random_state=0).fit_transform(X, y)
    np.testing.assert_allclose(K, lpntk_kernel(module(), X, y), rtol=1e-5)


class Returns(nn.Module):
    """A module whose output is an object or a dict."""

    def __init__(self, how):
        super().__init__()
        self.layers, self.how = module(), how

    def forward(self, x):
        return self.how(self.layers(x))


def as_dict(z):
    return {"logits": z}


def as_object(z):
    return types.SimpleNamespace(logits=z)


@pytest.mark.parametrize("how", [as_dict, as_object])
def test_outputs_that_name_their_logits(how):
    one, two = (LpNTKTransformer(net, random_state=0).fit(X, y) for net in (Returns(how), module()))
    np.testing.assert_allclose(one.transform(X), two.transform(X), rtol=1e-5, atol=1e-6)
    order = pruner(Returns(how)).fit(X, y).prune_order_
    np.testing.assert_array_equal(order, pruner(module()).fit(X, y).prune_order_)


@pytest.mark.parametrize(
    ("net", "match"),
    [
        (nn.Sequential(nn.LazyLinear(3)), "not initialised"),
        (nn.Sequential(nn.Flatten()), "no parameters"),
    ],
    ids=["lazy", "empty"],
)
def test_modules_that_are_refused(net, match):
    with pytest.raises(ValueError, match=match):
        pruner(net).fit(X, y)


def test_bfloat16_is_copied_in_single_precision():
    with pytest.warns(UserWarning, match="bfloat16"):
        found = pruner(module().bfloat16()).fit(X, y)
    assert len(found.support_) == 150


def test_it_can_select_but_not_be_retrained():
    with pytest.raises(TypeError, match="nothing says how to train it: pass estimator="):
        RedundancyPruner(net=module()).fit(X, y)
    kept, labels = RedundancyPruner(net=module(), random_state=0).fit_resample(X, y)
    assert len(kept) == len(labels) == 120


def test_digits_in_half_precision_train_the_default_net():
    from sklearn.datasets import load_digits

    digits, labels = load_digits(return_X_y=True)
    model = RedundancyPruner(random_state=0, strategy="random").fit(
        digits.astype(np.float16), labels
    )
    assert model.score(digits.astype(np.float16), labels) > 0.95
