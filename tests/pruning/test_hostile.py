"""Inputs that once hung the pruner, fooled its cache, or gave wrong labels."""

import copy
import os
import signal
import subprocess
import sys
import textwrap

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn import config_context
from sklearn.base import clone
from sklearn.datasets import load_iris
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_validate
from skorch import NeuralNetBinaryClassifier, NeuralNetClassifier, NeuralNetRegressor
from skorch.callbacks import Callback, EarlyStopping, LRScheduler
from torch import nn
from torch.nn import functional as F

from sklearn_lpntk import LpNTKTransformer, RedundancyPruner
from sklearn_lpntk._runtime.fingerprint import fingerprint

X, y = load_iris(return_X_y=True)
X32 = X.astype(np.float32)


class Module(nn.Module):
    def __init__(self, n_out=3, dtype=torch.float32):
        super().__init__()
        self.hidden = nn.Linear(4, 8, dtype=dtype)
        self.out = nn.Linear(8, n_out, dtype=dtype)
        self.scale = 1.0

    def forward(self, x):
        return self.scale * self.out(torch.relu(self.hidden(x)))


def make_net(kind=NeuralNetClassifier, **options):
    defaults = {
        "module": Module,
        "optimizer": torch.optim.Adam,
        "lr": 0.02,
        "max_epochs": 20,
        "batch_size": 16,
        "iterator_train__shuffle": True,
        "train_split": None,
        "verbose": 0,
    }
    if kind is NeuralNetClassifier:
        defaults["criterion"] = nn.CrossEntropyLoss
    return kind(**defaults | options)


def test_routing_without_metadata_ends():
    with config_context(enable_metadata_routing=True):
        found = RedundancyPruner(LogisticRegression(max_iter=500), net=make_net()).fit(X, y)
        assert found.score(X, y) > 0.9
        cross_validate(found, X, y, cv=2, error_score="raise")


class Interrupt(Callback):
    """Ctrl-C in the second epoch, while the flag is set."""

    armed = False

    def on_epoch_end(self, net, **kwargs):
        if Interrupt.armed and len(net.history) == 2:
            os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize("kind", [RedundancyPruner, LpNTKTransformer])
def test_an_interrupted_training_is_neither_used_nor_cached(kind, tmp_path):
    estimator = kind(
        net=make_net(callbacks=[Interrupt()]), memory=str(tmp_path / "cache"), random_state=0
    )
    Interrupt.armed = True
    with pytest.raises(KeyboardInterrupt):
        estimator.fit(X, y)
    assert not [name for name in vars(estimator) if name.endswith("_")]
    Interrupt.armed = False
    assert len(estimator.fit(X, y).net_.history) == 20
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_early_stopping_is_no_interrupt():
    net = make_net(callbacks=[EarlyStopping(monitor="train_loss", patience=1, threshold=10)])
    found = RedundancyPruner(net=net, random_state=0).fit(X, y)
    assert len(found.net_.history) < 20


class TestCache:
    def test_closures_are_part_of_the_key(self, tmp_path):
        def weighted(weights):
            return lambda logits, labels: torch.full_like(logits, 1.0) * torch.tensor(weights)

        kernels = [weighted([1.0, s, 0.0]) for s in (1.0, -1.0)]
        assert fingerprint(kernels[0]) != fingerprint(kernels[1])
        assert fingerprint(kernels[0]) == fingerprint(weighted([1.0, 1.0, 0.0]))
        cached, plain = (
            [
                RedundancyPruner(net=make_net(), kernel=kernel, memory=memory, random_state=0)
                .fit(X, y)
                .prune_order_
                for kernel in kernels
            ]
            for memory in (str(tmp_path), None)
        )
        np.testing.assert_array_equal(cached, plain)
        assert (plain[0] != plain[1]).any()

    def test_plain_attributes_of_a_module_are_part_of_the_key(self):
        torch.manual_seed(0)
        one = Module()
        other = clone(make_net(module=one)).module
        assert fingerprint(one) == fingerprint(other)
        other.scale = 9.0
        assert fingerprint(one) != fingerprint(other)

    def test_what_a_function_takes_from_its_module_is_part_of_the_key(self):
        source = "def kernel(z, y): return helper(z) * ALPHA\ndef helper(z): return z{}\nALPHA = {}"
        keys = set()
        for helper, alpha in (("", 1), ("", 2), (" + 1", 1)):
            names = {"__name__": "own"}
            exec(source.format(helper, alpha), names)
            keys.add(fingerprint(names["kernel"]))
        assert len(keys) == 3

    def test_all_code_of_a_class_is_part_of_the_key(self):
        def make(value):
            class Own:
                constant = value

                @property
                def p(self):
                    return value

                @staticmethod
                def s():
                    return value

            return Own

        assert fingerprint(make(1)) == fingerprint(make(1)) != fingerprint(make(2))
        copy.copy(make(1)())  # Python notes slot names in the class
        assert fingerprint(make(1)()) != fingerprint(make(2)())

    def test_nesting_is_part_of_the_key(self):
        assert fingerprint([[1], 2]) != fingerprint([[1, 2]])
        assert fingerprint({"a": {"b": 1}, "c": 2}) != fingerprint({"a": {"b": 1, "c": 2}})

    def test_a_value_that_contains_itself(self):
        loop = [1]
        loop.append(loop)
        assert fingerprint(loop) == fingerprint(loop)

    def test_stateful_callbacks_do_not_spoil_the_hits(self, tmp_path):
        net = make_net(callbacks=[LRScheduler("StepLR", step_size=3)])
        for _ in range(3):
            pruner = RedundancyPruner(net=clone(net), memory=str(tmp_path), random_state=0)
            pruner.fit(X, y)
        assert len(list(tmp_path.rglob("output.pkl"))) == 2

    def test_what_cannot_be_stored_is_computed_with_one_warning(self, tmp_path):
        class Unpicklable(Callback):
            def __deepcopy__(self, memo):
                return self

            def __reduce__(self):
                raise TypeError("no")

        pruner = RedundancyPruner(
            net=make_net(callbacks=[Unpicklable()]), memory=str(tmp_path), random_state=0
        )
        with pytest.warns(UserWarning, match=r"memory= could not store a result"):
            pruner.fit(X, y)
        assert pruner.score(X, y) > 0.8

    def test_a_script_with_its_own_module_and_two_processes(self, tmp_path):
        """Classes of ``__main__`` are stored, and the processes share one training a fold."""
        script = tmp_path / "script.py"
        script.write_text(
            textwrap.dedent(
                """
                import sys, torch, numpy as np
                from torch import nn
                from skorch import NeuralNetClassifier
                from skorch.callbacks import Callback
                from sklearn.datasets import load_iris
                from sklearn.linear_model import LogisticRegression
                from sklearn.model_selection import GridSearchCV
                from sklearn_lpntk import RedundancyPruner

                class Count(Callback):
                    def on_train_begin(self, net, **kwargs):
                        with open(sys.argv[1] + "/trainings", "a") as file:
                            file.write("x")

                class Own(nn.Sequential):
                    def __init__(self):
                        super().__init__(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))

                if __name__ == "__main__":
                    net = NeuralNetClassifier(Own, criterion=nn.CrossEntropyLoss, verbose=0,
                        train_split=None, max_epochs=2, callbacks=[Count()])
                    X, y = load_iris(return_X_y=True)
                    folder = sys.argv[1]
                    GridSearchCV(
                        RedundancyPruner(LogisticRegression(max_iter=500), net=net,
                            memory=folder + "/cache", random_state=0),
                        {"prune_fraction": [0.0, 0.1, 0.2, 0.3]}, cv=3, n_jobs=2,
                        error_score="raise",
                    ).fit(X, y)
                """
            ).replace('sys.argv[1] + "/trainings"', repr(str(tmp_path / "trainings")))
        )
        done = subprocess.run(
            [sys.executable, script, str(tmp_path)], capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, done.stderr
        assert "Traceback" not in done.stderr
        assert len((tmp_path / "trainings").read_text()) == 3 + 1


class TestLabels:
    def test_names_of_columns_in_any_order(self):
        named = make_net().fit(X32, y)
        named.classes = ["c", "b", "a"]
        names = np.array(["c", "b", "a"])[y]
        plain = FrozenEstimator(make_net().fit(X32, y))
        plain.estimator.module_.load_state_dict(named.module_.state_dict())
        options = {"strategy": "el2n", "random_state": 0}
        expected = RedundancyPruner(LogisticRegression(), net=plain, **options)
        found = RedundancyPruner(LogisticRegression(), net=FrozenEstimator(named), **options)
        np.testing.assert_array_equal(
            found.fit_resample(X, names)[0], expected.fit_resample(X, y)[0]
        )

    @pytest.mark.parametrize("kind", [RedundancyPruner, LpNTKTransformer])
    def test_a_criterion_that_skorch_does_not_know(self, kind):
        class Focal(nn.Module):
            def forward(self, logits, target):
                return F.cross_entropy(logits, target)

        net = make_net(criterion=Focal)
        if kind is RedundancyPruner:
            found = kind(net, prune_fraction=0.0, random_state=0).fit(X, y)
            np.testing.assert_array_equal(found.predict(X), found.estimator_.predict(X32))
            proba = found.predict_proba(X)
            assert (proba >= 0).all()
            np.testing.assert_allclose(proba.sum(axis=1), 1, rtol=1e-5)
        else:
            found = kind(net, random_state=0).fit(X, y)
            expected = found.transform(X, found.net_.predict(X32))
            np.testing.assert_array_equal(found.transform(X), expected)

    def test_the_threshold_of_a_binary_net(self):
        net = make_net(NeuralNetBinaryClassifier, module__n_out=1, threshold=0.9, max_epochs=3)
        labels = np.array(["no", "yes"])[(y == 2).astype(int)]
        found = RedundancyPruner(net, random_state=0).fit(X, labels)
        expected = np.array(["no", "yes"])[found.estimator_.predict(X32).astype(int)]
        np.testing.assert_array_equal(found.predict(X), expected)
        assert (found.predict(X) == "yes").sum() < (found.predict_proba(X)[:, 1] > 0.5).sum()

    def test_too_few_logits(self):
        with pytest.raises(ValueError, match=r"y has 3 classes, but the net has 2 logits"):
            RedundancyPruner(net=make_net(module__n_out=2)).fit(X, y)

    @pytest.mark.parametrize("strategy", ["el2n", "herding"])
    def test_label_beyond_a_frozen_nets_columns(self, strategy):
        net = FrozenEstimator(make_net().fit(X32, y))
        with pytest.raises(ValueError, match=r"y contains \[5\]"):
            RedundancyPruner(net=net, strategy=strategy).fit(X, np.where(y == 2, 5, y))


class TestNets:
    @pytest.mark.parametrize("kind", [RedundancyPruner, LpNTKTransformer])
    def test_a_double_net_given_as_a_class(self, kind):
        found = kind(net=make_net(module__dtype=torch.float64), random_state=0).fit(X, y)
        assert found.net_.module_.out.weight.dtype == torch.float64

    def test_a_frozen_final_net(self):
        final = FrozenEstimator(make_net().fit(X32, y))
        found = RedundancyPruner(final, random_state=0).fit(X, y)
        np.testing.assert_array_equal(found.predict(X), final.predict(X32))

    def test_a_frozen_net_is_retrained_from_scratch(self):
        net = make_net(module=Module(), max_epochs=100).fit(X32, y)
        net.set_params(max_epochs=0)
        before = {k: v.clone() for k, v in net.module_.state_dict().items()}
        found = RedundancyPruner(net=FrozenEstimator(net), random_state=0).fit(X, y)
        assert net.score(X32, y) > 0.9
        assert found.score(X, y) < 0.75
        for name, value in net.module_.state_dict().items():
            assert torch.equal(value, before[name])

    def test_a_regressor_is_no_scoring_net(self):
        net = make_net(NeuralNetRegressor)
        with pytest.raises(TypeError, match=r"skorch classifier.*got NeuralNetRegressor"):
            RedundancyPruner(net=net).fit(X, y)

    def test_integers_for_a_net_that_takes_numbers(self):
        with pytest.raises(ValueError, match=r"for embeddings.*X.astype\(numpy.float32\)"):
            RedundancyPruner(net=make_net()).fit((10 * X).astype(np.uint8), y)

    def test_small_integers_for_an_embedding(self):
        def module():
            return nn.Sequential(nn.Embedding(20, 4), nn.Flatten(), nn.Linear(12, 2))

        tokens = np.random.default_rng(0).integers(0, 20, size=(80, 3)).astype(np.uint8)
        found = RedundancyPruner(net=make_net(module=module), random_state=0)
        kept, _ = found.fit_resample(tokens, (tokens[:, 0] > 9).astype(int))
        assert kept.dtype == np.uint8

    def test_a_frame_of_integers_that_is_read_only(self):
        frame = pd.DataFrame((10 * X).astype(int)).astype(np.float32)
        assert RedundancyPruner(net=make_net(), random_state=0).fit(frame, y).score(frame, y) > 0.6


class TestPaths:
    def test_a_path_scores_though_the_pruner_would_only_decide(self):
        pruner = RedundancyPruner(
            net=make_net(), strategy="redundant", prune_fraction="auto", random_state=0
        )
        fractions = ["auto", 0.1, 0.6]
        for fraction, kept in zip(fractions, pruner.prune_path(X, y, fractions), strict=True):
            direct = clone(pruner).set_params(prune_fraction=fraction).fit(X, y)
            if fraction == "auto":  # which of a class's last rows stays may differ
                assert len(kept) == len(direct.sample_indices_)
            else:
                np.testing.assert_array_equal(kept, direct.sample_indices_)

    def test_a_path_refuses_what_fit_refuses_and_at_once(self):
        pruner = RedundancyPruner(net=make_net())
        with pytest.raises(ValueError, match="needs a fraction"):
            pruner.prune_path(X, y, ["auto"])
        with pytest.raises(ValueError, match="prune_fraction"):
            pruner.prune_path(X, y, [0.5, 1.5])


def test_signed_zeros_are_twins():
    data = np.concatenate([X, [[0.0, 1, 1, 1], [-0.0, 1, 1, 1]]])
    labels = np.concatenate([y, [0, 0]])
    plain = RedundancyPruner(net=make_net(), strategy="redundant", random_state=0)
    assert plain.fit(data, labels).dominators_[151] >= 0


def test_twins_are_visited_last_and_in_order():
    data, labels = np.repeat(X[::3], 2, axis=0), np.repeat(y[::3], 2)
    found = RedundancyPruner(net=make_net(), strategy="coverage", random_state=0)
    order = found.fit(data, labels).prune_order_[::-1]
    for c in range(3):
        own = [i for i in order if labels[i] == c]
        distinct = len(np.unique(data[labels == c], axis=0))
        assert own[distinct:] == sorted(own[distinct:])


def test_n_clusters_matter_only_to_strategies_that_cluster():
    RedundancyPruner(net=make_net(), n_clusters=500, random_state=0).fit(X, y)


def test_a_frozen_net_that_was_never_trained():
    net = NeuralNetClassifier(nn.Linear(4, 3), criterion=nn.CrossEntropyLoss)
    with pytest.raises(NotFittedError, match="not fitted yet"):
        RedundancyPruner(net=FrozenEstimator(net)).fit(np.random.rand(30, 4), np.arange(30) % 3)


def test_class_weights_of_a_fold_that_lacks_a_class():
    weights = torch.tensor([1.0, 2.0, 5.0])
    net = NeuralNetClassifier(
        nn.Linear(4, 3), criterion=nn.CrossEntropyLoss, criterion__weight=weights, verbose=0,
        train_split=None, max_epochs=1,
    )  # fmt: skip
    X, y = load_iris(return_X_y=True)
    names, rows = np.array(["a", "b", "c"])[y], y != 1
    model = RedundancyPruner(LogisticRegression(max_iter=500), net=net, random_state=0)
    model.fit(X, names)  # every label has its weight
    model.fit(X[rows], y[rows])  # integers are columns
    with pytest.warns(UserWarning, match=r"3 entries, but y has the 2 labels \['a', 'c'\]"):
        model.fit(X[rows], names[rows])
