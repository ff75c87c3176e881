"""The pruner where people use it: Pipelines, grids, caches, callbacks, imbalanced-learn."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from imblearn.ensemble import BalancedBaggingClassifier
from imblearn.pipeline import Pipeline as ImbalancedPipeline
from joblib import Memory, parallel_config
from sklearn.base import clone
from sklearn.datasets import load_iris
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedKFold, cross_validate
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from skorch import NeuralNetClassifier
from skorch.callbacks import Callback
from torch import nn

from sklearn_lpntk import RedundancyPruner
from sklearn_lpntk._runtime.fingerprint import fingerprint

X, y = load_iris(return_X_y=True)
COUNTER = "LPNTK_TEST_TRAININGS"  # a file with one line for each training, in any process


class CountTrainings(Callback):
    def on_train_begin(self, net, **kwargs):
        with open(os.environ[COUNTER], "a") as file:
            file.write("trained\n")


@pytest.fixture
def trainings(tmp_path, monkeypatch):
    path = tmp_path / "trainings"
    monkeypatch.setenv(COUNTER, str(path))
    return lambda: len(path.read_text().splitlines()) if path.exists() else 0


def make_module(n_hidden=8):
    return nn.Sequential(nn.Linear(4, n_hidden), nn.ReLU(), nn.Linear(n_hidden, 3))


def make_net(module=make_module, **options):
    return NeuralNetClassifier(
        module,
        criterion=nn.CrossEntropyLoss,
        optimizer=torch.optim.Adam,
        lr=0.02,
        max_epochs=5,
        train_split=None,
        iterator_train__shuffle=True,
        callbacks=[CountTrainings()],
        verbose=0,
        **options,
    )


def pruner(**options):
    defaults = {"net": make_net(), "random_state": 0}
    return RedundancyPruner(LogisticRegression(max_iter=500), **defaults | options)


FRACTIONS = list(np.linspace(0, 0.7, 8))


@pytest.mark.parametrize("module", [make_module, make_module()], ids=["class", "instance"])
def test_a_grid_trains_the_net_once_a_fold(module, trainings, tmp_path):
    model = Pipeline(
        [
            ("scale", StandardScaler()),
            ("prune", pruner(net=make_net(module), memory=str(tmp_path / "cache"))),
        ]
    )
    search = GridSearchCV(model, {"prune__prune_fraction": FRACTIONS}, cv=3, error_score="raise")
    search.fit(X, y)
    assert trainings() == 3 + 1
    assert search.score(X, y) > 0.9
    assert search.best_estimator_["prune"].net_.module_ is not None


def test_strategies_share_the_net_and_orders_are_cached(trainings, tmp_path):
    memory = Memory(tmp_path / "cache", verbose=0)
    grid = {"strategy": ["herding", "coverage", "redundant", "el2n"], "prune_fraction": FRACTIONS}
    GridSearchCV(pruner(memory=memory), grid, cv=3, refit=False, error_score="raise").fit(X, y)
    assert trainings() == 3
    stored = list((tmp_path / "cache").rglob("output.pkl"))
    assert len(stored) == 3 * (1 + 4)


def test_a_hit_returns_what_was_computed(tmp_path):
    plain = pruner().fit(X, y)
    for _ in range(2):
        found = clone(pruner(memory=str(tmp_path))).fit(X, y)
        np.testing.assert_array_equal(found.prune_order_, plain.prune_order_)
        for a, b in zip(
            found.net_.module_.parameters(), plain.net_.module_.parameters(), strict=True
        ):
            assert torch.equal(a, b)


@pytest.mark.parametrize(
    "changed",
    [
        {"net": make_net(module__n_hidden=9)},
        {"net": make_net(batch_size=7)},
        {"random_state": 1},
    ],
)
def test_another_net_or_seed_is_another_key(changed, trainings, tmp_path):
    pruner(memory=str(tmp_path / "cache")).fit(X, y)
    pruner(memory=str(tmp_path / "cache"), **changed).fit(X, y)
    pruner(memory=str(tmp_path / "cache")).fit(X + 1, y)
    assert trainings() == 3


def test_fingerprints_survive_clones_and_tell_values_apart():
    net = make_net(make_module())
    assert fingerprint(net) == fingerprint(clone(net)) == fingerprint(clone(clone(net)))
    assert fingerprint(net) != fingerprint(make_net(make_module()))
    assert fingerprint(np.arange(4)) != fingerprint(np.arange(4).reshape(2, 2))
    assert fingerprint([1, [2, 3]]) != fingerprint([1, 2, 3])
    assert fingerprint(1) != fingerprint(1.0)
    assert fingerprint({"a": 1, "b": 2}) == fingerprint({"b": 2, "a": 1})
    assert fingerprint(lambda: 1) != fingerprint(lambda: 2)


def test_a_cache_without_a_seed_is_warned_of(tmp_path):
    for state in (None, np.random.RandomState(0)):
        with pytest.warns(UserWarning, match=r"memory= has no effect with random_state="):
            pruner(memory=str(tmp_path), random_state=state).fit(X, y)


def test_grid_in_two_processes(tmp_path, trainings):
    search = GridSearchCV(
        pruner(memory=str(tmp_path / "cache")),
        {"prune_fraction": [0.1, 0.5], "strategy": ["herding", "random"]},
        cv=3,
        n_jobs=2,
        error_score="raise",
    ).fit(X, y)
    serial = GridSearchCV(search.estimator, search.param_grid, cv=3, error_score="raise").fit(X, y)
    np.testing.assert_array_equal(
        search.cv_results_["mean_test_score"], serial.cv_results_["mean_test_score"]
    )


def test_cross_validate_with_a_frozen_net(trainings):
    net = FrozenEstimator(make_net().fit(X.astype(np.float32), y))
    folds = StratifiedKFold(5)
    result = cross_validate(
        pruner(net=net), X, y, cv=folds, return_estimator=True, error_score="raise"
    )
    assert result["test_score"].mean() > 0.85
    assert trainings() == 1


def test_threads_change_nothing():
    one, two = (pruner(n_jobs=jobs, strategy="coverage").fit(X, y) for jobs in (None, 2))
    np.testing.assert_array_equal(one.prune_order_, two.prune_order_)


def with_dropout():
    return nn.Sequential(nn.Linear(4, 8), nn.PReLU(), nn.Dropout(), nn.Linear(8, 3))


@pytest.mark.parametrize("cached", [False, True], ids=["plain", "memory"])
@pytest.mark.parametrize("frozen", [False, True], ids=["trained", "frozen"])
def test_a_grid_in_threads_is_the_serial_one(frozen, cached, trainings, tmp_path):
    """They share the frozen net and the generators that training draws from."""
    net = make_net(with_dropout)
    scoring = FrozenEstimator(net.fit(X.astype(np.float32), y)) if frozen else net
    grid = {"prune_fraction": [0.2, 0.6], "strategy": ["coverage", "herding", "el2n"]}

    def fitted(backend, n_jobs):
        memory = str(tmp_path / backend) if cached else None
        model = RedundancyPruner(make_net(with_dropout), net=scoring, memory=memory, random_state=0)
        with parallel_config(backend, n_jobs=n_jobs):
            search = GridSearchCV(model, grid, cv=3, error_score="raise").fit(X, y)
            again = GridSearchCV(model, grid, cv=3, error_score="raise").fit(X, y)
        for one in (search, again):
            yield one.cv_results_["mean_test_score"], one.best_estimator_.prune_order_

    serial = list(fitted("loky", 1))
    for found in fitted("threading", 4):
        for ours, expected in zip(found, serial[0], strict=True):
            np.testing.assert_array_equal(ours, expected)


class TestImbalancedLearn:
    def test_first_in_the_middle_and_last(self):
        sampler = pruner(prune_fraction=0.4)
        direct = LogisticRegression(max_iter=500)
        first = ImbalancedPipeline(
            [("prune", sampler), ("scale", StandardScaler()), ("final", clone(direct))]
        ).fit(X, y)
        rows = clone(sampler).fit(X, y).sample_indices_
        expected = make_pipeline(StandardScaler(), clone(direct)).fit(X[rows], y[rows])
        np.testing.assert_array_equal(first.predict_proba(X), expected.predict_proba(X))
        middle = ImbalancedPipeline(
            [("scale", StandardScaler()), ("prune", clone(sampler)), ("final", clone(direct))]
        ).fit(X, y)
        assert middle.score(X, y) > 0.9
        last = ImbalancedPipeline([("scale", StandardScaler()), ("prune", clone(sampler))])
        assert last.fit(X, y).score(X, y) > 0.9
        kept, labels = clone(last).fit_resample(X, y)
        assert len(kept) == len(labels) == 90

    def test_ensembles_take_it_as_a_sampler(self):
        ensemble = BalancedBaggingClassifier(
            LogisticRegression(max_iter=500),
            sampler=RedundancyPruner(net=make_net(), prune_fraction=0.3),
            n_estimators=2,
            random_state=0,
        )
        assert ensemble.fit(X, y).score(X, y) > 0.85


class TestCallbacks:
    """scikit-learn's experimental protocol, where it is there."""

    callback = pytest.importorskip("sklearn.callback")

    def test_stages_are_reported(self):
        seen = []

        class Log:
            def setup(self, estimator, context):
                seen.append("setup")

            def teardown(self, estimator, context):
                seen.append("teardown")

            def on_fit_task_begin(self, estimator, context):
                seen.append(context.task_name)

            def on_fit_task_end(self, estimator, context):
                pass

        pruner().set_callbacks(Log()).fit(X, y)
        assert [name for name in seen if name != "part"] == [
            "setup",
            "fit",
            "train scoring net",
            "order samples by herding",
            "fit final estimator",
            "teardown",
        ]
        assert seen.count("part") == 2 * 20  # of a stage without callbacks of its own

    def test_the_progress_bar_runs_through_a_pipeline(self, capsys):
        pytest.importorskip("rich")
        model = make_pipeline(StandardScaler(), pruner())
        model.set_callbacks(self.callback.ProgressBar())
        model.fit(X, y)
        assert model.score(X, y) > 0.9


def test_nothing_is_written_outside_the_cache(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pruner().fit(X, y)
    assert list(Path(tmp_path).iterdir()) == []


@pytest.fixture(autouse=True)
def _counter_exists(monkeypatch):
    if COUNTER not in os.environ:
        monkeypatch.setenv(COUNTER, os.devnull)
