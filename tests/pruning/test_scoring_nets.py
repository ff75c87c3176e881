"""How the scoring net is trained where its training counts, or must not learn labels by heart."""

import warnings

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import make_classification
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from skorch import NeuralNetClassifier
from skorch.callbacks import EarlyStopping, LRScheduler
from skorch.dataset import ValidSplit
from torch import nn
from torch.optim.lr_scheduler import ReduceLROnPlateau
from torch.utils.data import WeightedRandomSampler

from sklearn_lpntk import RedundancyPruner
from sklearn_lpntk._skorch.held_out import HeldOut
from sklearn_lpntk.dynamics import TrainingDynamics
from sklearn_lpntk.pruning._clean import doubt_of
from sklearn_lpntk.pruning._samples import Samples

K = 3
DYNAMIC = ["aum", "ccs", "d2", "forgetting", "small_loss"]


def data(n=150, seed=0):
    rng = np.random.default_rng(seed)
    y = np.arange(n) % K
    return (rng.normal(size=(n, 5)) + 2 * np.eye(5)[y]).astype(np.float32), y


def net(module=None, **options):
    torch.manual_seed(0)
    module = module or nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, K))
    defaults = {"criterion": nn.CrossEntropyLoss, "max_epochs": 6, "lr": 0.1, "verbose": 0}
    return NeuralNetClassifier(module, **defaults | {"train_split": None} | options)


def selected(net, strategy, n=150):
    pruner = RedundancyPruner(net=net, strategy=strategy, random_state=0, prune_fraction=0.5)
    pruner.fit_resample(*data(n))
    assert sorted(pruner.prune_order_) == list(range(n))
    assert pruner.support_.sum() == n - round(0.5 * n)
    return pruner


@pytest.mark.parametrize("strategy", DYNAMIC)
def test_all_rows_are_recorded_whatever_the_net_splits_off(strategy):
    found = selected(net(train_split=ValidSplit(5)), strategy)
    np.testing.assert_array_equal(selected(net(), strategy).prune_order_, found.prune_order_)
    assert not np.isnan(found.to_frame()["score"]).any()


@pytest.mark.parametrize("strategy", DYNAMIC)
def test_rows_that_were_never_visited_are_refused(strategy):
    watched = net(train_split=ValidSplit(5), callbacks=[TrainingDynamics()]).fit(*data())
    with pytest.raises(ValueError, match="which no epoch visited"):
        selected(FrozenEstimator(watched), strategy)


@pytest.mark.parametrize(
    "options",
    [
        {"callbacks": "disable"},
        {"callbacks": [("sklearn_lpntk", EarlyStopping())]},
        {"callbacks__valid_loss": None},
        {"train_split": lambda dataset, y=None: (dataset, None)},
        {"train_split": ValidSplit(3)},
        {"iterator_train__sampler": WeightedRandomSampler(np.ones(150), 150)},
        {"max_epochs": 0},
        {"batch_size": -1},
        {"batch_size": 119},  # 120 rows are left of 150
    ],
)
def test_nets_that_stop_early_in_their_own_way(options):
    module = nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, K))
    given = net(module, **options)
    before = given.get_params(deep=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = selected(given, "clean_herding")
    assert given.get_params(deep=False) == before
    assert found.net_.train_split is given.train_split
    assert all("stop_early" not in name for name, _ in found.net_.callbacks_)
    clone(found.net_)


@pytest.mark.filterwarnings("ignore:The other samples contradict")
def test_it_stops_where_the_loss_of_held_out_rows_rises():
    torch.manual_seed(0)
    found = selected(net(max_epochs=200, lr=1.0), "clean_herding")
    losses = found.net_.history[:, "valid_loss"]
    assert len(losses) < 200
    assert np.argmin(losses) == len(losses) - 3


def test_held_out_rows_leave_no_batch_of_one():
    y = np.repeat([0, 1], [75, 75])
    for size, rest in ((119, 121), (128, 120)):
        train, held = HeldOut(size)(torch.arange(150), y)
        assert len(train) == rest
        assert len(train) + len(held) == 150
    assert not set(train.indices) & set(held.indices)


def test_no_batch_is_no_training():
    given = net(iterator_train__drop_last=True, batch_size=128)
    with pytest.raises(ValueError, match="no batch of training rows"):
        selected(given, "clean_herding")


@pytest.mark.parametrize("strategy", ["herding", "clean_herding", "el2n", "moderate"])
def test_classes_of_one_row(strategy):
    X, y = np.eye(5, dtype=np.float32), np.array(list("abcde"))
    RedundancyPruner(strategy=strategy, random_state=0, prune_fraction=0.0).fit(X, y)


def test_nothing_can_be_compared_on_classes_of_one_row():
    pruner = RedundancyPruner(LogisticRegression(), strategy=["random", "k_center_input"])
    with pytest.raises(ValueError, match="every class has one row only"):
        pruner.fit(np.eye(5), list("abcde"))


@pytest.mark.parametrize("strategy", ["clean_herding", "clean_coverage", "loo_infinite", "loo_rbf"])
@pytest.mark.parametrize("n", [30, 1200])
def test_constant_inputs_contradict_nothing(strategy, n):
    X, y = np.ones((n, 3), dtype=np.float32), np.arange(n) % 2
    pruner = RedundancyPruner(LogisticRegression(), strategy=strategy, random_state=0).fit(X, y)
    assert not pruner.contradicted_.any()


def rare(n=600):
    X, y = make_classification(
        n, 10, n_informative=4, weights=[0.95], class_sep=0.6, flip_y=0, random_state=0
    )
    return X.astype(np.float32), y


@pytest.mark.parametrize("strategy", ["clean_herding", "loo_rbf"])
def test_a_rare_class_that_vanishes_is_told(strategy, tmp_path):
    X, y = rare()
    pruner = RedundancyPruner(strategy=strategy, random_state=0, memory=str(tmp_path))
    for _ in range(2):  # from the cache, too
        with pytest.warns(UserWarning, match=r"\d+ of 30 of class 1: .* scope='class'") as told:
            pruner.fit_resample(X, y)
        assert told[0].filename == __file__
    assert pruner.contradicted_[y == 1].mean() > 0.5
    for given in (strategy, ["clean_herding", "loo_rbf"]):
        path = pruner.set_params(strategy=given).prune_path
        with pytest.warns(UserWarning, match="of class 1"):
            list(path(X, y, [0.5]))
    pruner.set_params(strategy=strategy, scope="class").fit_resample(
        X, y
    )  # tells of nothing that is lost


def test_classes_that_vanish_are_named():
    names = np.array(["a"] * 60 + ["few"] * 3 + ["b"] * 8 + ["c"] * 8 + ["d"] * 9 + ["two"] * 2)
    denied = names != "a"
    denied[-4] = False  # one of d
    samples = Samples(None, None, np.zeros(90, int), {"scope": "all"}, None, names=names)
    told = doubt_of(samples, denied)
    assert "3 of 3 of class few" in told
    assert "8 of 8 of class b, 8 of 8 of class c" in told.replace("3 of 3 of class few, ", "")
    assert "and most of 1 other classes" in told
    assert "two" not in told
    samples.options["scope"] = "class"
    assert doubt_of(samples, denied) is None


def watching():
    """Callbacks that need the loss of held-out rows."""
    return [EarlyStopping(patience=2), LRScheduler(ReduceLROnPlateau, monitor="valid_loss")]


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize("strategy", ["aum", "d2", "forgetting", ["small_loss", "random"]])
@pytest.mark.filterwarnings("ignore:Choosing rows buys nothing")
def test_callbacks_that_watch_held_out_rows(strategy, which):
    """Strategies that look at the training record all rows, and validate those of the net."""
    X, y = data()
    own = net().set_params(train_split=ValidSplit(3), callbacks=[watching()[which]])
    pruner = RedundancyPruner(net=own, strategy=strategy, random_state=0).fit(X, y)
    recorded = dict(pruner.net_.callbacks_)["sklearn_lpntk_recorded"]
    assert recorded.aum_.shape == (len(y),)
    assert not np.isnan(recorded.aum_).any()
    assert "valid_loss" in pruner.net_.history[-1]
    assert pruner.net_.train_split.cv == 3


def test_ways_of_training_that_do_not_go_together():
    with pytest.raises(
        ValueError, match=r"'clean_herding' needs a net that stops early, and 'aum'"
    ):
        RedundancyPruner(strategy=["aum", "clean_herding"]).fit_resample(*data())


def test_a_plain_module_can_not_be_compared():
    module = nn.Linear(5, K)
    pruner = RedundancyPruner(net=module, strategy="auto")
    for call in (pruner.fit_resample, lambda X, y: pruner.prune_path(X, y, [0.5])):
        with pytest.raises(TypeError, match="nothing says how to train it"):
            call(*data())


@pytest.mark.filterwarnings("ignore:Choosing rows buys nothing")
def test_a_path_scores_once():
    pruner = RedundancyPruner(LogisticRegression(), net=net(), strategy=["random", "herding"])
    X, y = data()
    kept = list(pruner.prune_path(X, y, iter([0.2, 0.5])))
    assert [len(rows) for rows in kept] == [120, 75]


def test_scores_of_a_list_of_one():
    pruner = RedundancyPruner(strategy=["redundant"], random_state=0)
    pruner.fit_resample(*data())
    frame = pruner.to_frame()
    np.testing.assert_array_equal(frame["score"], frame["redundancy"])
