"""The pruner's ways past memory: sketches, refinement, stores, features anew."""

import logging

import numpy as np
import pytest
import sklearn
import torch
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import GridSearchCV
from skorch import NeuralNetClassifier
from torch import nn

from sklearn_lpntk import RedundancyPruner, _features
from sklearn_lpntk._engine.features import Features
from sklearn_lpntk.exceptions import StoreMismatchError
from sklearn_lpntk.pruning import _similarity

N = 240
KERNEL_STRATEGIES = [
    "herding",
    "coverage",
    "clean_coverage",
    "redundant",
    "head",
    "redundant+head",
    "keep_head",
    "grand",
]


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    y = np.arange(N) % 3
    return (rng.normal(size=(N, 8)) + 2 * np.eye(8)[y]).astype(np.float32), y


@pytest.fixture(scope="module")
def net(data):
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(8, 32), nn.Tanh(), nn.Linear(32, 3))
    options = {"criterion": nn.CrossEntropyLoss, "max_epochs": 3, "lr": 0.1, "verbose": 0}
    return FrozenEstimator(NeuralNetClassifier(module, **options).fit(*data))


def pruned(data, net, **options):
    pruner = RedundancyPruner(**{"net": net, "random_state": 0} | options)
    pruner.fit_resample(*data)
    return pruner


def assert_same(found, expected):
    np.testing.assert_array_equal(found.prune_order_, expected.prune_order_)
    for name in ("redundancy_", "dominators_", "labels_", "cluster_centers_indices_"):
        if hasattr(expected, name):
            np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))


@pytest.mark.filterwarnings("ignore:The other samples contradict")
@pytest.mark.parametrize("strategy", KERNEL_STRATEGIES)
def test_stores_change_nothing(strategy, data, net, tmp_path):
    plain = pruned(data, net, strategy=strategy)
    for _ in range(2):
        assert_same(pruned(data, net, strategy=strategy, store=tmp_path), plain)


@pytest.mark.filterwarnings("ignore:The other samples contradict")
@pytest.mark.parametrize("strategy", KERNEL_STRATEGIES)
def test_features_computed_anew(strategy, data, net, monkeypatch):
    plain = pruned(data, net, strategy=strategy, prune_fraction=0.5)
    monkeypatch.setattr(_features, "limit_of", lambda device: 100)
    monkeypatch.setattr(_similarity, "get_config", lambda: {"working_memory": 0})
    found = pruned(data, net, strategy=strategy, prune_fraction=0.5)
    # the features are those of other batches, which agree to rounding
    assert (found.support_ == plain.support_).mean() > 0.95


@pytest.mark.parametrize("strategy", ["herding", "coverage"])
def test_rows_on_demand_change_nothing(strategy, data, net, monkeypatch):
    plain = pruned(data, net, strategy=strategy)
    monkeypatch.setattr(_similarity, "get_config", lambda: {"working_memory": 0})
    assert (pruned(data, net, strategy=strategy).support_ == plain.support_).all()


def test_a_large_sketch_finds_nearly_the_same(data, net):
    plain = pruned(data, net, strategy="redundant", prune_fraction=0.5)
    sketched = pruned(data, net, strategy="redundant", prune_fraction=0.5, n_components=8192)
    assert (plain.support_ == sketched.support_).mean() > 0.85
    assert (plain.redundancy_ != sketched.redundancy_).any()


@pytest.mark.parametrize("scope", ["all", "class"])
@pytest.mark.parametrize("strategy", ["redundant", "redundant+head"])
def test_refined_scores_are_exact_entries(strategy, scope, data, net):
    plain = pruned(data, net, strategy=strategy, scope=scope)
    rough = pruned(data, net, strategy=strategy, scope=scope, n_components=64)
    refined = pruned(data, net, strategy=strategy, scope=scope, n_components=64, refine=True)
    # at most the exact score, and often that very score
    assert (refined.redundancy_ <= plain.redundancy_).all()
    same = refined.redundancy_ == plain.redundancy_
    assert same.mean() > 0.4
    assert not (rough.redundancy_ == plain.redundancy_).any()
    np.testing.assert_array_equal(refined.dominators_[same], plain.dominators_[same])
    # what it calls redundant is
    assert set(np.flatnonzero(refined.dominators_ >= 0)) <= set(
        np.flatnonzero(plain.dominators_ >= 0)
    )


def test_decisions_take_fewer_entries_than_scores(data, net, monkeypatch):
    """prune_fraction="auto" asks which rows are redundant, and not how much."""
    sizes, gram = [], Features.gram

    def counted(left, right):
        sizes.append(left.n_samples * right.n_samples)
        return gram(left, right)

    monkeypatch.setattr(Features, "gram", counted)
    with sklearn.config_context(working_memory=0.01):  # small tiles
        decided = pruned(data, net, strategy="redundant", prune_fraction="auto")
        for_decisions = sum(sizes)
        sizes.clear()
        scored = pruned(data, net, strategy="redundant", prune_fraction=0.5)
    assert for_decisions < 0.8 * sum(sizes)
    assert decided.n_redundant_ == scored.n_redundant_
    assert not hasattr(decided, "redundancy_")


def test_refining_decides_too(data, net):
    options = {"strategy": "redundant", "prune_fraction": "auto", "n_components": 64}
    exact = pruned(data, net, strategy="redundant", prune_fraction="auto")
    refined = pruned(data, net, refine=True, **options)
    assert set(refined.pruned_indices_) <= set(exact.pruned_indices_)
    assert refined.n_redundant_ <= exact.n_redundant_


def test_the_log_says_what_was_chosen(data, net, caplog):
    with caplog.at_level(logging.INFO, logger="sklearn_lpntk"):
        pruned(data, net)
        pruned(data, net, n_components=32)
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 2
    assert lines[0].startswith("Exact features of 240 samples and 387 parameters")
    assert lines[1].startswith("Sketched (32 components) features of 240 samples")


class TestErrors:
    def test_a_stored_sketch_needs_a_seed(self, data, net, tmp_path):
        options = {"store": tmp_path, "n_components": 8, "random_state": None}
        with pytest.raises(ValueError, match="Pass an int random_state"):
            pruned(data, net, **options)

    def test_the_path_checks_too(self, data, net):
        with pytest.raises(ValueError, match="refine=True"):
            RedundancyPruner(net=net, refine=True).prune_path(*data, [0.5])

    def test_refine_without_a_sketch(self, data, net):
        with pytest.raises(ValueError, match=r"refine=True .* Set n_components"):
            pruned(data, net, refine=True)

    @pytest.mark.parametrize(
        ("name", "value"),
        [("n_components", 0), ("refine", "yes"), ("precision", "half"), ("store", 3)],
    )
    def test_bad_values(self, name, value, data, net):
        with pytest.raises(ValueError, match=f"'{name}' parameter"):
            pruned(data, net, **{name: value})

    def test_a_store_of_other_data(self, data, net, tmp_path):
        X, y = data
        pruned(data, net, store=tmp_path)
        with pytest.raises(StoreMismatchError, match="differs: data X"):
            pruned((X + 1, y), net, store=tmp_path)


def test_precision_is_deprecated(data, net):
    with pytest.warns(FutureWarning, match="no effect and will be removed"):
        pruned(data, net, strategy="redundant", precision="screened")


def test_a_grid_over_what_costs(data, net, tmp_path):
    """The parameters clone, and those that change nothing share one cached order."""
    pruner = RedundancyPruner(net=net, strategy="redundant", memory=str(tmp_path), random_state=0)
    search = GridSearchCV(
        clone(pruner), {"n_jobs": [None, 1], "n_components": [None, 64]}, cv=2
    ).fit(*data)
    assert len(search.cv_results_["params"]) == 4
    stored = list(tmp_path.rglob("output.pkl"))
    assert len(stored) == (2 + 1) * 1 + 2  # an order a fold and sketch, and the best again
