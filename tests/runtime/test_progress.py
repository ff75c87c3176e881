"""Progress is shown while work runs, by count and remaining time, wherever work is long."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression

from sklearn_lpntk import FarthestPointClustering, LpNTKTransformer, RedundancyPruner
from sklearn_lpntk._runtime import progress
from sklearn_lpntk.infinite import LabelRefurbisher
from sklearn_lpntk.inspection import (
    ClusterSizeDisplay,
    DifficultyDisplay,
    PruningCurveDisplay,
)
from sklearn_lpntk.kernels import empirical_ntk

X, y = load_iris(return_X_y=True)


@pytest.fixture(autouse=True)
def every_report_is_a_line(monkeypatch):
    monkeypatch.setattr(progress, "INTERVAL", 0.0)


def net():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))


WORK = {
    "kernel": (
        lambda: empirical_ntk(net(), X, y, batch_size=20, verbose=1),
        "[empirical_ntk] compute features: 40 of 150 samples, ",
    ),
    "pruner": (
        lambda: RedundancyPruner(random_state=0, verbose=1).fit(X, y),
        "[RedundancyPruner] train scoring net: 2 of 60 epochs, ",
    ),
    "transformer": (
        lambda: LpNTKTransformer(random_state=0, verbose=1).fit(X, y),
        "[LpNTKTransformer] train net: 2 of 60 epochs, ",
    ),
    "clustering": (
        lambda: FarthestPointClustering(5, verbose=1).fit(X),
        "[FarthestPointClustering] choose centroids: 3 of 5 centroids, ",
    ),
    "refurbisher": (
        lambda: LabelRefurbisher(verbose=1).fit(X, np.where(np.arange(150) % 15 == 0, 1, y)),
        "[LabelRefurbisher] repair labels: ",
    ),
    "clusters": (
        lambda: ClusterSizeDisplay.from_estimator(
            FarthestPointClustering(5, affinity="linear"), X, verbose=1
        ),
        "[ClusterSizeDisplay] draw the null model: 2 of 5 draws, ",
    ),
    "difficulty": (
        lambda: DifficultyDisplay.from_estimator(net(), X, y, n_epochs=2, verbose=1),
        "[DifficultyDisplay] train on subsets: ",
    ),
    "curves": (
        lambda: PruningCurveDisplay.from_estimator(
            RedundancyPruner(LogisticRegression(max_iter=999), random_state=0),
            X,
            y,
            strategies=["random"],
            fractions=[0.5],
            cv=2,
            verbose=1,
        ),
        "[PruningCurveDisplay] cross-validate: 2 of 4 fits, ",
    ),
}


@pytest.mark.parametrize("work", WORK)
def test_lines_while_it_runs(work, capsys):
    run, line = WORK[work]
    run()
    lines = capsys.readouterr().out.splitlines()
    assert any(found.startswith(line) for found in lines)
    assert any(" left" in found for found in lines) or work in ("refurbisher", "difficulty")


def test_results_are_the_same():
    first = RedundancyPruner(random_state=0).fit(X, y)
    again = RedundancyPruner(random_state=0, verbose=1).fit(X, y)
    np.testing.assert_array_equal(first.prune_order_, again.prune_order_)
    assert [type(c) for _, c in again.net_.callbacks_] == [
        type(c) for _, c in first.net_.callbacks_
    ]


def test_nothing_is_said_unasked(capsys):
    RedundancyPruner(random_state=0).fit(X, y)
    empirical_ntk(net(), X, y)
    assert capsys.readouterr().out == ""


def test_durations():
    texts = [progress.duration(s) for s in (0.04, 59.94, 61, 3599, 3661, 90000)]
    assert texts == ["0.0 s", "59.9 s", "1 min 01 s", "59 min 59 s", "1 h 01 min", "25 h 00 min"]


def test_the_remaining_time_is_extrapolated(capsys, monkeypatch):
    clock = iter(np.arange(0.0, 100.0, 10.0))
    monkeypatch.setattr(progress.time, "perf_counter", lambda: next(clock))
    with progress.shown("work"):
        progress.report(1, 4)
        progress.report(2, 4)
    assert capsys.readouterr().out.splitlines() == [
        "work: 1 of 4 samples",
        "work: 2 of 4 samples, 20.0 s left",
        "work: 30.0 s",
    ]


class TestMemoryOfKernels:
    def test_features_are_read_again(self, tmp_path, caplog):
        first = empirical_ntk(net(), X, y, memory=str(tmp_path)).toarray()
        with caplog.at_level("INFO", logger="sklearn_lpntk"):
            again = empirical_ntk(net(), X, y, memory=str(tmp_path)).toarray()
            assert "Cache hit" in caplog.text
            np.testing.assert_array_equal(first, again)
            for changed in ({"kernel": "pntk"}, {"parameters": "2"}, {"n_components": 8}):
                caplog.clear()
                empirical_ntk(net(), X, y, memory=str(tmp_path), random_state=0, **changed)
                assert "Cache miss" in caplog.text
            caplog.clear()
            empirical_ntk(net(), X + 1, y, memory=str(tmp_path))
            assert "Cache miss" in caplog.text

    def test_two_sets_of_samples(self, tmp_path):
        found = [
            empirical_ntk(net(), X[:9], y[:9], X, y, memory=str(tmp_path)).toarray()
            for _ in range(2)
        ]
        np.testing.assert_array_equal(*found)

    def test_clusters_are_read_again(self, tmp_path, caplog):
        first = FarthestPointClustering(5, memory=str(tmp_path)).fit(X)
        with caplog.at_level("INFO", logger="sklearn_lpntk"):
            again = FarthestPointClustering(5, memory=str(tmp_path)).fit(X)
        assert "Cache hit" in caplog.text
        np.testing.assert_array_equal(first.labels_, again.labels_)
