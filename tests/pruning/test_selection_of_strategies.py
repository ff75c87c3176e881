"""Strategies that are chosen by held-out rows, and those of the caller."""

import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.tree import DecisionTreeClassifier
from skorch import NeuralNetClassifier
from skorch.dataset import ValidSplit
from torch import nn
from torch.utils.data import TensorDataset

from sklearn_lpntk import RedundancyPruner
from sklearn_lpntk.dynamics import TrainingDynamics
from sklearn_lpntk.pruning._comparison import Comparison, compared
from sklearn_lpntk.pruning._strategies import name_of

K = 3


def clouds(n, share, seed=0, distance=4.0):
    rng = np.random.default_rng(seed)
    right = np.arange(n) % K
    X = (rng.normal(size=(n, 5)) + distance * np.eye(5)[right]).astype(np.float32)
    wrong = rng.random(n) < share
    return X, np.where(wrong, (right + rng.integers(1, K, n)) % K, right)


class Recorder(ClassifierMixin, BaseEstimator):
    """A tree that notes on which rows it was fitted."""

    seen = []

    def fit(self, X, y):
        self.seen.append(X[:, 0].copy())
        self.tree_ = DecisionTreeClassifier(random_state=0).fit(X, y)
        self.classes_ = self.tree_.classes_
        return self

    def predict(self, X):
        return self.tree_.predict(X)


def test_auto_takes_what_is_best_on_held_out_rows():
    X, y = clouds(400, 0.25)
    tree = DecisionTreeClassifier(random_state=0)
    pruner = RedundancyPruner(tree, strategy="auto", prune_fraction=0.5, random_state=0).fit(X, y)
    assert list(pruner.selection_scores_) == ["herding", "clean_herding", "random"]
    assert pruner.best_strategy_ == "clean_herding"
    assert pruner.selection_scores_["clean_herding"] > pruner.selection_scores_["random"] + 0.1
    alone = RedundancyPruner(tree, strategy="clean_herding", prune_fraction=0.5, random_state=0)
    np.testing.assert_array_equal(pruner.prune_order_, alone.fit(X, y).prune_order_)
    assert pruner.contradicted_.sum() > 50
    np.testing.assert_array_equal(pruner.predict(X), alone.predict(X))


@pytest.mark.filterwarnings("ignore:Choosing rows buys nothing")
def test_held_out_rows_are_never_fitted():
    X, y = clouds(300, 0.2)
    X[:, 0] = np.arange(300) / 100
    Recorder.seen = []
    options = {"strategy": ["random", "herding"], "prune_fraction": 0.4, "random_state": 0}
    RedundancyPruner(Recorder(), **options).fit(X, y)
    *tried, final = Recorder.seen
    assert len(tried) == 2 * 5  # two candidates, five splits of few rows
    for first, second in zip(tried[::2], tried[1::2], strict=True):
        assert len(first) == len(second) == round(0.6 * 240)
        assert len(np.unique(np.concatenate([first, second]))) <= 240
    assert len(final) == 180


@pytest.mark.filterwarnings("ignore:Choosing rows buys nothing")
def test_by_hand():
    """The accuracy is that of the final estimator on a fifth of each class."""
    X, y = clouds(5000, 0.0, distance=1.0)
    pruner = RedundancyPruner(
        LogisticRegression(),
        strategy=["random", "k_center_input"],
        prune_fraction=0.9,
        random_state=3,
    )
    pruner.fit(X, y)
    noted = {}

    def hits_of(strategy, rows, others):
        assert set(rows) | set(others) == set(range(5000))
        assert np.bincount(y[others]).tolist() == [333, 333, 333]
        noted[strategy] = True
        return np.ones(len(others), dtype=bool)

    compared(["a", "b"], y, np.random.default_rng(0), hits_of)
    assert noted == {"a": True, "b": True}
    assert 0.3 < pruner.selection_scores_["random"] < 0.75


def test_it_says_where_random_rows_do_as_well():
    X, y = clouds(200, 0.0, distance=8.0)
    pruner = RedundancyPruner(LogisticRegression(), strategy="auto", random_state=0)
    with pytest.warns(UserWarning, match=r"20% of the rows dropped.*no more than a standard error"):
        pruner.fit(X, y)


def test_a_real_gain_is_no_warning():
    hits = {"a": np.arange(100) < 80, "random": np.arange(100) < 60}
    Comparison(hits).warn_if_random(0.5)
    with pytest.warns(UserWarning, match="buys nothing"):
        Comparison(hits | {"a": np.arange(100) < 60}).warn_if_random(0.5)
    Comparison({"a": hits["a"], "b": hits["random"]}).warn_if_random(0.5)  # no random one


@pytest.mark.filterwarnings("ignore:Choosing rows buys nothing")
class TestDoors:
    def test_a_net_of_the_caller(self):
        X, y = clouds(150, 0.1)
        net = NeuralNetClassifier(
            nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, K)),
            criterion=nn.CrossEntropyLoss, max_epochs=3, lr=0.1, train_split=None, verbose=0,
        )  # fmt: skip
        for pruner in (
            RedundancyPruner(net=net, strategy="auto", budget="steps", random_state=0),
            RedundancyPruner(net, strategy="auto", random_state=0),
        ):
            assert pruner.fit(X, y).best_strategy_ in pruner.selection_scores_
            assert pruner.predict(X).shape == (150,)

    def test_frames_strings_and_data_sets(self):
        X, y = clouds(150, 0.1)
        names = np.array(["a", "b", "c"])[y]
        frame = pd.DataFrame(X).add_prefix("x")
        pruner = RedundancyPruner(LogisticRegression(), strategy="auto", random_state=0)
        assert set(pruner.fit(frame, names).predict(frame)) <= set("abc")
        own = RedundancyPruner(strategy="auto", random_state=0).fit(frame, names)
        assert set(own.predict(frame)) <= set("abc")
        data = TensorDataset(torch.from_numpy(X), torch.from_numpy(y))
        found = RedundancyPruner(strategy="auto", random_state=0)
        kept, _ = found.fit_resample(data)
        assert len(kept) == 120

    def test_sample_weights_go_along(self):
        X, y = clouds(150, 0.1)
        pruner = RedundancyPruner(LogisticRegression(), strategy="auto", random_state=0)
        pruner.fit(X, y, sample_weight=np.ones(150))

    def test_a_path_chooses_for_each_fraction(self):
        X, y = clouds(150, 0.1)
        pruner = RedundancyPruner(LogisticRegression(), strategy="auto", random_state=0)
        kept = [len(rows) for rows in pruner.prune_path(X, y, [0.2, 0.6])]
        assert kept == [120, 60]

    def test_in_a_grid(self):
        X, y = clouds(150, 0.1)
        pruner = RedundancyPruner(LogisticRegression(), random_state=0)
        grid = {"strategy": ["auto", "random", ["herding", "random"]], "prune_fraction": [0.5]}
        GridSearchCV(pruner, grid, cv=2, error_score="raise").fit(X, y)

    def test_the_only_row_of_a_class(self):
        X, y = clouds(90, 0.0)
        y[0] = 7
        pruner = RedundancyPruner(LogisticRegression(), strategy="auto", random_state=0).fit(X, y)
        assert 7 in y[pruner.sample_indices_]


# -- functions of the caller --------------------------------------------------------------


def nearest_to_the_mean(samples):
    """Keep what lies nearest to the mean of its class, in the last layer's inputs."""
    Z, distance = samples.embeddings, np.empty(len(samples))
    for rows in samples.classes:
        distance[rows] = np.linalg.norm(Z[rows] - Z[rows].mean(axis=0), axis=1)
    return np.argsort(-distance)


def test_a_function_orders_the_samples():
    X, y = clouds(90, 0.1)
    pruner = RedundancyPruner(strategy=nearest_to_the_mean, prune_fraction=0.5, random_state=0)
    pruner.fit_resample(X, y)
    assert sorted(pruner.prune_order_) == list(range(90))
    assert pruner.support_.sum() == 45
    assert pruner.net_ is not None


def test_what_a_function_may_look_at():
    X, y = clouds(90, 0.1)

    def look(samples):
        assert len(samples) == 90
        assert samples.logits.shape == (90, K)
        assert samples.embeddings.shape == (90, 64)
        assert samples.operator().shape == (90, 90)
        assert samples.vectors().shape == (90, 5)
        assert samples.dynamics is None
        np.testing.assert_array_equal(samples.columns, y)
        return samples.rng.permutation(90)

    RedundancyPruner(strategy=look, random_state=0).fit_resample(X, y)


@pytest.mark.filterwarnings("ignore:Choosing rows buys nothing")
def test_functions_among_candidates():
    X, y = clouds(120, 0.2)
    candidates = ["random", nearest_to_the_mean, nearest_to_the_mean]
    pruner = RedundancyPruner(LogisticRegression(), strategy=candidates, random_state=0).fit(X, y)
    names = ["random", "nearest_to_the_mean", "nearest_to_the_mean-2"]
    assert list(pruner.selection_scores_) == names
    assert len(set(list(pruner.selection_scores_.values())[1:])) == 1


@pytest.mark.filterwarnings("ignore:Choosing rows buys nothing")
@pytest.mark.parametrize("as_list", [False, True])
def test_a_function_reads_the_training_of_its_rows(as_list):
    X, y = clouds(120, 0.2)
    seen = []

    def by_aum(samples):
        np.testing.assert_array_equal(samples.X, X[samples.rows])
        seen.append((samples.rows, samples.dynamics.aum_, samples.dynamics.losses_))
        return np.argsort(samples.dynamics.aum_)

    net = recorded_net()
    strategy = [by_aum, "random"] if as_list else by_aum
    pruner = RedundancyPruner(net=net, strategy=strategy, random_state=0).fit(X, y)
    whole = next(c for _, c in pruner.net_.callbacks_ if isinstance(c, TrainingDynamics))
    assert len(seen[0][0]) == (96 if as_list else 120)
    for rows, aum, losses in seen:
        np.testing.assert_array_equal(aum, whole.aum_[rows])
        np.testing.assert_array_equal(losses, whole.losses_[:, rows])


def recorded_net(**options):
    torch.manual_seed(0)
    return NeuralNetClassifier(
        nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, K)),
        criterion=nn.CrossEntropyLoss, verbose=0, max_epochs=2, callbacks=[TrainingDynamics()],
        **({"train_split": None} | options),
    )  # fmt: skip


def test_a_function_is_not_given_what_no_epoch_visited():
    X, y = clouds(120, 0.2)
    pruner = RedundancyPruner(
        net=recorded_net(train_split=ValidSplit(5)),
        strategy=lambda samples: np.argsort(samples.dynamics.aum_),
    )
    with pytest.raises(ValueError, match="no aum_ of some samples, which no epoch visited"):
        pruner.fit_resample(X, y)


def test_a_function_with_numbers_of_its_own():
    X, y = clouds(120, 0.2)
    scores = np.arange(120)[::-1]
    strategy = [lambda samples: np.argsort(scores), "random"]
    with pytest.raises(ValueError, match=r"given those 96 of the 120 rows .* samples.rows"):
        RedundancyPruner(strategy=strategy).fit(X, y)
    strategy = [lambda samples: np.argsort(scores[samples.rows]), "random"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pruner = RedundancyPruner(strategy=strategy, random_state=0).fit(X, y)
    assert list(pruner.selection_scores_) == ["<lambda>", "random"]


def test_nothing_is_told_where_nothing_is_dropped():
    X, y = clouds(120, 0.2)
    RedundancyPruner(LogisticRegression(), strategy=["loo_rbf", "random"], prune_fraction=0.0).fit(
        X, y
    )


def test_a_function_that_is_called_as_a_control():
    def random(samples):
        return np.arange(len(samples))

    assert name_of(random) == "random (callable)"


def test_a_function_is_cached_by_what_it_does(tmp_path):
    X, y = clouds(90, 0.1)
    pruner = RedundancyPruner(strategy=nearest_to_the_mean, memory=str(tmp_path), random_state=0)
    first = pruner.fit_resample(X, y)[0]
    np.testing.assert_array_equal(pruner.fit_resample(X, y)[0], first)


@pytest.mark.parametrize(
    ("returned", "what"),
    [
        ([0, 1, 2], r"returned array\(\[0, 1, 2\]\) of shape \(3,\)"),
        (np.zeros(90, dtype=int), "it returned row 0 90 times"),
        (np.arange(90) / 2, "of dtype float64"),
        (np.arange(90).astype(object), "of dtype object"),
        (np.ones(90, dtype=bool), "of dtype bool"),
        (np.arange(1, 91), "it returned row 90"),
        (np.arange(-1, 89), "it returned row -1"),
        (None, "all rows"),
    ],
)
def test_what_is_no_order(returned, what):
    X, y = clouds(90, 0.1)
    with pytest.raises(ValueError, match=what):
        RedundancyPruner(strategy=lambda samples: returned).fit_resample(X, y)


@pytest.mark.parametrize(
    ("strategy", "what"),
    [
        ("typo", "strategy"),
        (["herding", "typo"], "strategy must name strategies among .*'typo'"),
        ([], "empty list"),
        (3, "strategy"),
        (["herding", 3], "got 3"),
        (["auto"], "got 'auto'"),
    ],
)
def test_strategies_that_do_not_exist(strategy, what):
    X, y = clouds(90, 0.1)
    with pytest.raises(ValueError, match=what):
        RedundancyPruner(strategy=strategy).fit_resample(X, y)


def test_auto_twice():
    X, y = clouds(90, 0.1)
    with pytest.raises(ValueError, match="needs a fraction"):
        RedundancyPruner(strategy="auto", prune_fraction="auto").fit_resample(X, y)
