"""RedundancyPruner as an estimator: labels, nets, errors, attributes."""

import pickle

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from sklearn import config_context
from sklearn.base import clone
from sklearn.datasets import load_iris, make_blobs
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.svm import LinearSVC
from skorch import NeuralNetBinaryClassifier, NeuralNetClassifier
from skorch.callbacks import Callback, Checkpoint
from skorch.dataset import ValidSplit
from torch import nn

from sklearn_lpntk import LpNTKTransformer, RedundancyPruner
from sklearn_lpntk.datasets import load_digit_images
from sklearn_lpntk.pruning._strategies import STRATEGIES

X, y = load_iris(return_X_y=True)
X32 = X.astype(np.float32)
NAMES = np.array(["setosa", "versicolor", "virginica"])


def make_module(n_in=4, n_out=3):
    return nn.Sequential(nn.Linear(n_in, 8), nn.ReLU(), nn.Linear(8, n_out))


def make_net(kind=NeuralNetClassifier, **options):
    options = {
        "module": make_module,
        "max_epochs": 20,
        "batch_size": 16,
        "train_split": None,
    } | options
    if kind is NeuralNetClassifier:
        options.setdefault("criterion", nn.CrossEntropyLoss)
    common = {"lr": 0.02, "optimizer": torch.optim.Adam, "train_split": None, "verbose": 0}
    return kind(**common | {"iterator_train__shuffle": True} | options)


def pruner(**options):
    return RedundancyPruner(**{"net": make_net(), "random_state": 0} | options)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_strategy_fits_and_predicts(strategy):
    found = pruner(strategy=strategy, prune_fraction=0.3).fit(X, y)
    assert found.support_.sum() == len(found.sample_indices_) == 105
    assert sorted(found.prune_order_) == list(range(150))
    np.testing.assert_array_equal(
        np.sort(np.concatenate([found.sample_indices_, found.pruned_indices_])), np.arange(150)
    )
    np.testing.assert_array_equal(found.get_support(indices=True), found.sample_indices_)
    assert set(found.predict(X)) <= set(y)
    assert found.score(X, y) > 0.6
    assert hasattr(found, "net_") == STRATEGIES[strategy].needs_net
    assert hasattr(found, "redundancy_") == strategy.startswith("redundant")
    assert hasattr(found, "labels_") == ("head" in strategy)


@pytest.mark.parametrize("strategy", ["redundant", "head", "redundant+head"])
def test_the_papers_recipe(strategy):
    found = pruner(strategy=strategy, prune_fraction="auto", n_clusters=8).fit(X, y)
    head = 0
    if strategy != "redundant":
        head = round(0.1 * np.bincount(found.labels_[found.labels_ >= 0]).max())
    n_redundant = getattr(found, "n_redundant_", 0)
    assert len(found.pruned_indices_) == min(n_redundant + head, 147)
    if strategy == "redundant":
        assert not hasattr(found, "redundancy_")  # it decides only


def test_refits_are_bit_identical_and_leave_the_global_generators_alone():
    torch.manual_seed(5)
    np.random.seed(5)
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    first, second = pruner().fit(X, y), pruner().fit(X, y)
    assert torch.equal(before[0], torch.get_rng_state())
    np.testing.assert_array_equal(before[1], np.random.get_state()[1])
    np.testing.assert_array_equal(first.prune_order_, second.prune_order_)
    np.testing.assert_array_equal(first.predict_proba(X), second.predict_proba(X))


class TestLabels:
    def test_strings(self):
        plain, named = pruner().fit(X, y), pruner().fit(X, NAMES[y])
        np.testing.assert_array_equal(NAMES[plain.predict(X)], named.predict(X))
        assert named.classes_.tolist() == NAMES.tolist()

    @pytest.mark.parametrize("values", [[1, 2, 3], [-1, 0, 1], [10, 20, 30]])
    def test_any_integers(self, values):
        labels = np.array(values)[y]
        found = pruner(prune_fraction=0.1).fit(X, labels)
        assert found.score(X, labels) > 0.8
        np.testing.assert_allclose(found.predict_proba(X).sum(axis=1), 1, rtol=1e-5)

    def test_more_logits_than_classes(self):
        net = make_net(module__n_out=7)
        labels = np.array([0, 4, 6])[y]
        found = pruner(net=net).fit(X, labels)
        assert found.predict_proba(X).shape == (150, 3)
        assert set(found.predict(X)) <= {0, 4, 6}

    def test_binary_net_with_string_labels(self):
        net = make_net(NeuralNetBinaryClassifier, module__n_out=1)
        labels = NAMES[y[:100]]
        found = pruner(net=net).fit(X[:100], labels)
        assert found.score(X[:100], labels) > 0.9
        assert found.predict_proba(X[:100]).shape == (100, 2)

    def test_frozen_net_on_a_fold_that_lacks_a_class(self):
        net = FrozenEstimator(make_net(max_epochs=30).fit(X32, y))
        fold = y != 1
        for strategy in ("herding", "el2n", "redundant"):
            found = RedundancyPruner(net=net, strategy=strategy, random_state=0)
            found.fit(X[fold], y[fold])
            assert found.classes_.tolist() == [0, 2]
            assert set(found.predict(X[fold])) == {0, 2}
            assert found.score(X[fold], y[fold]) > 0.9
        scores = RedundancyPruner(net=net, strategy="el2n", random_state=0).fit(X[fold], y[fold])
        error = net.predict_proba(X32[fold]) - np.eye(3)[y[fold]]
        expected = np.argsort(np.linalg.norm(error, axis=1), kind="stable")
        np.testing.assert_array_equal(scores.prune_order_, expected)

    def test_frozen_binary_net_with_floats_or_bools(self):
        labels = (y[:100] == 1).astype(np.float32)
        net = make_net(NeuralNetBinaryClassifier, module__n_out=1).fit(X32[:100], labels)
        for own in (labels, labels.astype(bool), labels.astype(int)):
            found = RedundancyPruner(net=FrozenEstimator(net), random_state=0).fit(X[:100], own)
            assert found.score(X[:100], own) > 0.9

    def test_frozen_net_with_names_for_its_columns(self):
        net = make_net(classes=list(NAMES)).fit(X32, y)
        found = RedundancyPruner(net=FrozenEstimator(net), random_state=0).fit(X, NAMES[y])
        assert found.score(X, NAMES[y]) > 0.6
        unnamed = FrozenEstimator(make_net().fit(X32, y))
        with pytest.raises(ValueError, match="not among the net's classes_"):
            RedundancyPruner(net=unnamed).fit(X, NAMES[y])


class TestData:
    def test_frames_come_back_as_frames(self):
        names = [f"f{i}" for i in range(4)]
        frame, series = pd.DataFrame(X, columns=names), pd.Series(NAMES[y], name="species")
        kept, labels = pruner().fit_resample(frame, series)
        assert isinstance(kept, pd.DataFrame)
        assert isinstance(labels, pd.Series)
        rows = pruner().fit(X, NAMES[y]).sample_indices_
        pd.testing.assert_frame_equal(kept, frame.iloc[rows])
        pd.testing.assert_series_equal(labels, series.iloc[rows])
        kept, labels = pruner().fit_resample(pl.from_pandas(frame), pl.Series(NAMES[y]))
        assert isinstance(kept, pl.DataFrame)
        assert kept.equals(pl.from_pandas(frame)[rows.tolist()])
        assert isinstance(labels, pl.Series)
        assert labels.to_list() == NAMES[y][rows].tolist()

    def test_the_final_estimator_sees_the_frame(self):
        frame = pd.DataFrame(X, columns=[f"f{i}" for i in range(4)])
        found = pruner(estimator=LogisticRegression(max_iter=500)).fit(frame, y)
        assert found.estimator_.feature_names_in_.tolist() == ["f0", "f1", "f2", "f3"]
        assert found.predict(frame).shape == (150,)

    def test_images_with_the_default_net(self):
        images, digits = load_digit_images()
        found = RedundancyPruner(prune_fraction=0.5, random_state=0)
        found.fit(images[:600], digits[:600])
        assert found.score(images[600:], digits[600:]) > 0.85

    def test_integer_data_for_an_embedding_net(self):
        def module():
            return nn.Sequential(nn.Embedding(20, 4), nn.Flatten(), nn.Linear(12, 2))

        tokens = np.random.default_rng(0).integers(0, 20, size=(80, 3))
        labels = (tokens[:, 0] > 9).astype(int)
        kept, _ = pruner(net=make_net(module=module)).fit_resample(tokens, labels)
        assert kept.dtype == tokens.dtype

    def test_double_net(self):
        net = make_net(module=make_module().double())
        assert pruner(net=net).fit(X, y).net_.module_[0].weight.dtype == torch.float64


class TestFinalEstimator:
    def test_the_nets_own_split_and_checkpoint_are_respected(self, tmp_path):
        split = ValidSplit(5, stratified=True)
        best = Checkpoint(monitor="valid_loss_best", load_best=True, dirname=str(tmp_path))
        net = make_net(train_split=split, callbacks=[best], lr=0.3)
        found = pruner(net=net).fit(X, y).net_
        # the history of a checkpoint that was loaded ends with its epoch
        losses = found.history[:, "valid_loss"]
        assert 1 < len(losses) < 20
        assert losses[-1] == min(losses)

    def test_a_net_that_emits_probabilities_can_be_pruned_for_without_scores(self):
        def module():
            return nn.Sequential(make_module(), nn.Softmax(1))

        net = make_net(module=module, criterion=nn.NLLLoss)
        assert pruner(net=net, strategy="random").fit(X, y).score(X, y) > 0.6

    def test_another_classifier(self):
        found = pruner(estimator=LogisticRegression(max_iter=500)).fit(X, y)
        direct = LogisticRegression(max_iter=500)
        direct.fit(X[found.support_], y[found.support_])
        np.testing.assert_array_equal(found.predict_proba(X), direct.predict_proba(X))
        np.testing.assert_array_equal(found.decision_function(X), direct.decision_function(X))
        assert found.score(X, y) == direct.score(X, y)

    def test_methods_are_those_of_the_estimator(self):
        assert not hasattr(pruner(), "decision_function")
        assert hasattr(pruner(), "predict_proba")
        assert not hasattr(pruner(estimator=LinearSVC()), "predict_proba")
        assert not hasattr(pruner(), "transform")

    def test_a_skorch_estimator_scores_too(self):
        found = RedundancyPruner(make_net(), random_state=0).fit(X, NAMES[y])
        assert found.net_.module_[0].weight.shape == (8, 4)
        assert found.score(X, NAMES[y]) > 0.8

    def test_a_module_instance(self):
        assert pruner(net=make_net(module=make_module())).fit(X, y).score(X, y) > 0.6

    @pytest.mark.filterwarnings("ignore")  # torch.compile warns of its own insides
    def test_a_compiled_net(self):
        net = make_net(compile=True, compile__backend="eager")  # needs no C++ compiler
        compiled = pruner(net=net, prune_fraction=0.5).fit(X, y)
        plain = pruner(prune_fraction=0.5).fit(X, y)
        np.testing.assert_array_equal(compiled.prune_order_, plain.prune_order_)

    def test_sample_weight_is_sliced(self):
        weight = np.random.default_rng(0).uniform(0.1, 5, size=150)
        found = pruner(estimator=LogisticRegression(max_iter=500))
        found.fit(X, y, sample_weight=weight)
        kept = found.support_
        direct = LogisticRegression(max_iter=500).fit(X[kept], y[kept], sample_weight=weight[kept])
        np.testing.assert_array_equal(found.predict_proba(X), direct.predict_proba(X))

    def test_sample_weight_is_routed(self):
        weight = np.random.default_rng(0).uniform(0.1, 5, size=150)
        with config_context(enable_metadata_routing=True):
            final = LogisticRegression(max_iter=500)
            final.set_fit_request(sample_weight=True).set_score_request(sample_weight=True)
            found = pruner(estimator=final).fit(X, y, sample_weight=weight)
            score = found.score(X, y, sample_weight=weight)
        kept = found.support_
        direct = LogisticRegression(max_iter=500).fit(X[kept], y[kept], sample_weight=weight[kept])
        np.testing.assert_array_equal(found.predict_proba(X), direct.predict_proba(X))
        assert score == direct.score(X, y, sample_weight=weight)

    def test_fit_resample_fits_no_final_estimator(self):
        found = pruner()
        kept, labels = found.fit_resample(X, y)
        np.testing.assert_array_equal(kept, X[found.support_])
        np.testing.assert_array_equal(labels, y[found.support_])
        with pytest.raises(NotFittedError):
            found.predict(X)


class TestQueries:
    def test_prune_path_is_fit_at_every_fraction(self):
        fractions = [0.0, 0.1, 0.5, 0.9]
        for fraction, kept in zip(fractions, pruner().prune_path(X, y, fractions), strict=True):
            found = pruner(prune_fraction=fraction).fit(X, y)
            np.testing.assert_array_equal(kept, found.sample_indices_)

    def test_frame(self):
        found = pruner(strategy="redundant+head").fit(X, y)
        frame = found.to_frame()
        assert frame.columns.tolist() == [
            "kept",
            "prune_rank",
            "stand_in",
            "cosine",
            "redundancy",
            "dominator",
            "cluster",
        ]
        np.testing.assert_array_equal(
            frame["prune_rank"].to_numpy()[found.prune_order_], range(150)
        )
        assert frame.sort_values("prune_rank")["kept"].iloc[:30].sum() == 0

    @pytest.mark.parametrize("strategy", ["el2n", "grand"])
    def test_frame_lists_scores(self, strategy):
        found = pruner(strategy=strategy).fit(X, y)
        scores = found.to_frame()["score"].to_numpy()
        assert (np.diff(scores[found.prune_order_]) >= 0).all()

    def test_a_pickle_holds_neither_data_nor_factors(self):
        blobs, labels = make_blobs(4000, n_features=50, random_state=0)
        found = RedundancyPruner(prune_fraction=0.5, random_state=0).fit(blobs, labels)
        dumped = pickle.dumps(found)
        for array in (blobs, blobs.astype(np.float32)):
            assert array[0].tobytes() not in dumped
        assert len(dumped) < blobs.nbytes / 2
        np.testing.assert_array_equal(pickle.loads(dumped).predict(blobs), found.predict(blobs))

    def test_verbose_prints_the_stages(self, capsys):
        pruner(verbose=1).fit(X, y)
        lines = capsys.readouterr().out.splitlines()
        assert [line.split(":")[0] for line in lines] == [
            "[RedundancyPruner] train scoring net",
            "[RedundancyPruner] order samples by herding",
            "[RedundancyPruner] fit final estimator",
        ]


class TestErrors:
    @pytest.mark.parametrize("fraction", [1, 1.0, -0.1, np.nan, "all"])
    def test_prune_fraction(self, fraction):
        with pytest.raises(ValueError, match=r"'prune_fraction'.*in the range \[0.0, 1.0\)"):
            pruner(prune_fraction=fraction).fit(X, y)

    def test_a_fraction_that_would_empty_a_class(self):
        labels = np.where(np.arange(150) < 3, 1, 0)
        found = pruner(strategy="el2n", prune_fraction=0.99).fit(X, labels)
        assert found.support_.sum() == 2
        assert set(labels[found.support_]) == {0, 1}
        rare = [i for i in found.prune_order_ if labels[i] == 1]
        assert found.support_[rare[-1]]  # the least redundant one stays

    def test_auto_without_a_recipe(self):
        with pytest.raises(ValueError, match=r"strategy='herding' needs a fraction"):
            pruner(prune_fraction="auto").fit(X, y)

    def test_net_that_emits_probabilities(self):
        with pytest.raises(ValueError, match=r"NLLLoss.*CrossEntropyLoss"):
            pruner(net=make_net(criterion=nn.NLLLoss)).fit(X, y)

    def test_net_that_is_no_net(self):
        with pytest.raises(TypeError, match="net must be a skorch classifier"):
            pruner(net=LogisticRegression()).fit(X, y)

    def test_data_that_does_not_fit_the_net(self):
        net = make_net(module__n_in=5)
        with pytest.raises(ValueError, match=r"shape \(2, 4\).*first layer is 0: Linear\(in_f"):
            pruner(net=net).fit(X, y)
        with pytest.raises(ValueError, match=r"first layer is 0: Linear\(in_features=5"):
            LpNTKTransformer(net).fit(X, y)
        with pytest.raises(ValueError, match=r"first layer is 0: Linear\(in_features=5"):
            RedundancyPruner(net, strategy="random").fit(X, y)

    @pytest.mark.parametrize("kind", [RedundancyPruner, LpNTKTransformer])
    def test_nets_that_cannot_be_trained(self, kind):
        with pytest.raises(ValueError, match="has no parameters"):
            kind(net=make_net(module=nn.Tanh)).fit(X[:, :3], y)
        with pytest.raises(ValueError, match="All parameters of the network are frozen"):
            kind(net=make_net(module=make_module().requires_grad_(False))).fit(X, y)

    @pytest.mark.parametrize("strategy", ["el2n", "k_center", "herding"])
    def test_nets_that_depend_on_the_batch(self, strategy):
        def module():
            norm = nn.BatchNorm1d(4, track_running_stats=False)
            return nn.Sequential(norm, nn.Linear(4, 3))

        with pytest.raises(ValueError, match="BatchNorm without running statistics"):
            pruner(net=make_net(module=module), strategy=strategy).fit(X, y)

    def test_regressors(self):
        with pytest.raises(TypeError, match=r"must be a classifier; got LinearRegression"):
            pruner(estimator=LinearRegression()).fit(X, y)

    def test_one_class(self):
        with pytest.raises(ValueError, match="one class only"):
            pruner().fit(X, np.zeros(150))

    def test_more_clusters_than_samples(self):
        with pytest.raises(ValueError, match="n_clusters=151 is more than n_samples=150"):
            pruner(strategy="head", n_clusters=151).fit(X, y)

    def test_targets_and_data_of_other_kinds(self):
        with pytest.raises(ValueError, match="Unknown label type: continuous"):
            pruner().fit(X, X[:, 0])
        with pytest.raises(ValueError, match="argmax"):
            pruner().fit(X, np.eye(3, dtype=int)[y])
        with pytest.raises(ValueError, match="NaN"):
            pruner().fit(np.where(X > 7, np.nan, X), y)

    def test_a_diverged_net(self):
        class Diverge(Callback):
            def on_train_end(self, net, **kwargs):
                torch.nn.init.constant_(net.module_[2].weight, torch.nan)

        with pytest.raises(ValueError, match=r"NaN or infinity \(a diverged training\?\)"):
            pruner(net=make_net(callbacks=[Diverge()])).fit(X, y)

    def test_label_unknown_to_a_frozen_net(self):
        net = FrozenEstimator(make_net().fit(X32, y))
        with pytest.raises(ValueError, match=r"y contains \[3\], but the network has 3 logit"):
            RedundancyPruner(net=net).fit(X, y + 1)

    @pytest.mark.parametrize("interrupt", [KeyboardInterrupt, RuntimeError])
    def test_an_interrupted_fit_leaves_it_unfitted(self, interrupt):
        class Interrupt(Callback):
            def on_epoch_end(self, net, **kwargs):
                raise interrupt

        found = pruner().fit(X, y)
        found.set_params(net=make_net(callbacks=[Interrupt()]))
        if interrupt is KeyboardInterrupt:
            # skorch itself swallows the interrupt of a training and keeps the net
            found.set_params(kernel=_interrupting_cotangent)
        with pytest.raises(interrupt):
            found.fit(X, y)
        assert not [name for name in vars(found) if name.endswith("_")]
        with pytest.raises(NotFittedError):
            found.predict(X)


def _interrupting_cotangent(logits, labels):
    raise KeyboardInterrupt


def test_clone_keeps_every_parameter():
    original = pruner(strategy="coverage", kernel="pntk", memory=None, n_jobs=2)
    assert clone(original).get_params(deep=False).keys() == original.get_params(deep=False).keys()
    assert clone(original).strategy == "coverage"
