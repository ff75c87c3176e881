"""Repairing labels: the flips against recomputation, and what becomes of digits."""

import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.svm import SVC
from sklearn.utils.estimator_checks import parametrize_with_checks

from sklearn_lpntk._gram import Factor
from sklearn_lpntk.infinite import (
    InfiniteWidthNTK,
    LabelRefurbisher,
    RefurbishedClassifier,
    block_diagonalization_error,
    leave_one_out_scores,
)
from sklearn_lpntk.infinite._flips import Labelling, flips_of
from sklearn_lpntk.infinite._labels import interactions
from sklearn_lpntk.kernels import pntk_kernel
from sklearn_lpntk.linearized import NTKClassifier

X, Y = load_digits(return_X_y=True)


def with_wrong_labels(y, share, seed=0):
    rng = np.random.default_rng(seed)
    wrong = rng.permutation(len(y))[: round(share * len(y))]
    noisy = y.copy()
    noisy[wrong] = (noisy[wrong] + rng.integers(1, 10, len(wrong))) % 10
    return noisy, wrong


@pytest.fixture(scope="module")
def small():
    rows = np.random.default_rng(3).permutation(len(X))[:200]
    noisy, _ = with_wrong_labels(Y[rows], 0.2)
    return InfiniteWidthNTK()(X[rows]), noisy


def test_flips_are_exact(small):
    """R, Z and leave-one-out predictions after many flips, against those from the labels anew."""
    H, y = small
    labelling = Labelling(Factor(H, 0.05).inverse(), y, 10)
    rng = np.random.default_rng(0)
    for i in rng.permutation(len(y))[:80]:
        labelling.flip(i, (labelling.columns[i] + rng.integers(1, 10)) % 10)
    again = Labelling(labelling.M, labelling.columns, 10)
    assert_allclose(labelling.R, again.R, rtol=0, atol=1e-12 * np.abs(again.R).max())
    assert_allclose(labelling.Z, again.Z, rtol=0, atol=1e-12 * np.abs(again.Z).max())
    assert_array_equal(labelling.counts, np.bincount(labelling.columns, minlength=10))
    assert_array_equal(labelling.Y, again.Y)
    scores = leave_one_out_scores(H, labelling.columns, ridge=0.05)
    assert_allclose(labelling.leave_one_out, scores, atol=1e-9)
    assert_allclose(again.Z, interactions(again.R, again.columns, again.counts))


def by_brute_force(H, y, ridge, min_margin):
    """The leave-one-out rule with everything computed anew after each change."""
    given, y, is_open = y.copy(), y.copy(), np.ones(len(y), dtype=bool)
    flipped, n_revised = [], 0
    while True:
        scores = leave_one_out_scores(H, y, ridge=ridge)
        own = scores[np.arange(len(y)), y]
        scores[np.arange(len(y)), y] = -np.inf
        may = is_open & (np.bincount(y)[y] > 2)
        margins = np.where(may, scores.max(1) - own, -np.inf)
        i = margins.argmax()
        if not margins[i] > min_margin:
            break
        flipped.append(i)
        y[i] = scores[i].argmax()
        is_open[i] = False
    for _ in range(3):
        for i in flipped:
            if np.bincount(y)[y[i]] <= 2:
                continue
            best = leave_one_out_scores(H, y, ridge=ridge)[i].argmax()
            n_revised += best != y[i]
            y[i] = best
    return y, [(i, given[i], y[i]) for i in flipped if y[i] != given[i]], n_revised


@pytest.mark.filterwarnings("ignore:.* labels were changed")
@pytest.mark.parametrize("min_margin", [0.0, 0.3])
def test_flips_by_brute_force(min_margin):
    rows = np.random.default_rng(5).permutation(len(X))[:120]
    noisy, _ = with_wrong_labels(Y[rows], 0.5)
    H = InfiniteWidthNTK()(X[rows])
    found = LabelRefurbisher("precomputed", min_margin=min_margin, ridge=0.02).fit(H, noisy)
    labels, flips, n_revised = by_brute_force(H, noisy, 0.02, min_margin)
    assert_array_equal(found.labels_, labels)
    assert [tuple(f)[:3] for f in found.flips_.itertuples(index=False)] == flips
    assert len(flips) > 20
    assert n_revised > 0


def test_the_gradient_rule_is_algorithm_1(small):
    """Without a margin it takes the steepest descent, from the initial labels, each sample once."""
    from sklearn_lpntk.infinite import block_diagonalization_gradient

    H, y = small
    options = {"method": "gradient", "ridge": 0.3, "min_margin": -np.inf, "max_iter": 30}
    found = LabelRefurbisher("precomputed", **options).fit(H, y)
    labels, initial = y.copy(), y
    for index, old, new, _ in found.flips_.itertuples(index=False):
        G = block_diagonalization_gradient(H, labels, ridge=0.3, count_gradient=True)
        d = (-G).max(1) + G[np.arange(len(y)), initial]
        d[labels != initial] = -np.inf
        assert index == d.argmax()
        assert (old, new) == (labels[index], (-G[index]).argmax())
        labels[index] = new
    assert_array_equal(found.labels_, labels)


def test_what_is_told_of_the_flips(small):
    H, y = small
    found = LabelRefurbisher("precomputed").fit(H, y)
    table = found.flips_
    assert list(table.columns) == ["row", "old", "new", "margin"]
    assert table["row"].is_unique
    assert_array_equal(table.index, table["row"])
    assert_array_equal(found.labels_[table["row"]], table["new"])
    assert_array_equal(y[table["row"]], table["old"])
    assert (table["margin"] > 0).all()
    assert (table["margin"] > 0.3).mean() > 0.9  # all but those that were decided again
    untouched = np.setdiff1d(np.arange(len(y)), table["row"])
    assert_array_equal(found.labels_[untouched], y[untouched])
    assert len(found.error_path_) >= len(table) + 1
    ends = [block_diagonalization_error(H, z, ridge=0.01) for z in (y, found.labels_)]
    assert_allclose(found.error_path_[[0, -1]], ends, rtol=1e-9)
    assert found.loo_accuracy_ == (leave_one_out_scores(H, y).argmax(1) == y).mean()


class TestDigits:
    @pytest.mark.parametrize("seed", range(4))
    def test_a_fifth_of_the_labels_wrong(self, seed):
        noisy, wrong = with_wrong_labels(Y, 0.2, seed)
        options = {"min_margin": 0, "max_iter": len(wrong)}
        labels = LabelRefurbisher(**options).fit_refurbish(X, noisy)
        assert (labels[wrong] == Y[wrong]).mean() >= 0.97

    def test_right_labels_are_left_alone(self):
        assert len(LabelRefurbisher().fit(X, Y).flips_) <= 0.01 * len(Y)

    def test_batches_do_nearly_the_same(self):
        noisy, _ = with_wrong_labels(Y, 0.2)
        singly, batched = (LabelRefurbisher(batch_size=b).fit_refurbish(X, noisy) for b in (1, 20))
        assert (singly == batched).mean() > 0.99

    @pytest.mark.parametrize("kind", ["text", "object", "bool", "float"])
    def test_labels_of_any_kind(self, kind):
        rows = slice(400)
        noisy, _ = with_wrong_labels(Y[rows], 0.1)
        wanted = LabelRefurbisher().fit(X[rows], noisy)
        names = {
            "text": np.array([f"digit {k}" for k in range(10)]),
            "object": np.array([f"digit {k}" for k in range(10)], dtype=object),
            "bool": np.arange(10) % 2 == 1,
            "float": np.arange(10) + 1.0,
        }[kind]
        found = LabelRefurbisher().fit(X[rows], names[noisy])
        assert found.labels_.dtype == names.dtype
        assert set(found.flips_["new"]) <= set(names.tolist())
        if kind != "bool":
            assert_array_equal(found.labels_, names[wanted.labels_])

    def test_images_and_tables(self):
        noisy, _ = with_wrong_labels(Y[:300], 0.1)
        wanted = LabelRefurbisher().fit_refurbish(X[:300], noisy)
        images = LabelRefurbisher().fit_refurbish(X[:300].reshape(-1, 8, 8), noisy)
        table = LabelRefurbisher().fit(pd.DataFrame(X[:300]).add_prefix("p"), pd.Series(noisy))
        assert_array_equal(images, wanted)
        assert_array_equal(table.labels_, wanted)
        assert table.feature_names_in_[3] == "p3"

    def test_any_kernel(self):
        noisy, _ = with_wrong_labels(Y, 0.1)
        labels = LabelRefurbisher(lambda A: np.exp(-0.001 * ((A[:, None] - A) ** 2).sum(2)))
        labels = labels.fit_refurbish(X[:600], noisy[:600])
        assert (labels != Y[:600]).mean() < 0.03


class TestLimits:
    def test_no_class_falls_below_two(self):
        """Class 2 consists of three samples that look like others."""
        y = np.where(np.isin(np.arange(60), [3, 20, 40]), 2, Y[:60] % 2)
        found = LabelRefurbisher(min_margin=-np.inf, batch_size=7).fit(X[:60], y)
        assert np.bincount(found.labels_).min() >= 2

    def test_a_class_of_one_sample(self):
        y = np.where(np.arange(60) == 5, 2, Y[:60] % 2)
        with pytest.warns(UserWarning, match=r"classes \[2\] have one sample"):
            found = LabelRefurbisher(min_margin=0).fit(X[:60], y)
        assert found.labels_[5] == 2

    def test_at_most_so_many(self):
        noisy, _ = with_wrong_labels(Y[:300], 0.3)
        assert len(LabelRefurbisher(max_iter=7, batch_size=4).fit(X[:300], noisy).flips_) == 7
        none = LabelRefurbisher(max_iter=0).fit(X[:300], noisy)
        assert len(none.flips_) == 0
        assert list(none.flips_.columns) == ["row", "old", "new", "margin"]
        assert_array_equal(none.labels_, noisy)

    def test_each_sample_once(self):
        noisy, _ = with_wrong_labels(Y[:200], 0.5)
        labelling = Labelling(Factor(InfiniteWidthNTK()(X[:200]), 0.01).inverse(), noisy, 10)
        options = {"method": "loo", "beta": 1.0, "max_flips": 10**6, "batch_size": 3}
        flips = list(flips_of(labelling, min_margin=-np.inf, **options))
        assert len({f[0] for f in flips}) == len(flips)

    def test_a_kernel_that_does_not_know_the_task(self):
        y = np.random.default_rng(0).integers(0, 10, 300)
        with pytest.warns(UserWarning, match=r"agrees with \d+% of the given labels"):
            LabelRefurbisher().fit(X[:300], y)

    def test_fit_again_after_a_failure(self):
        found = LabelRefurbisher().fit(X[:100], Y[:100])
        with pytest.raises(ValueError, match="one class only"):
            found.fit(X[:100], np.zeros(100))
        assert not hasattr(found, "labels_")

    def test_pickle(self):
        found = LabelRefurbisher().fit(X[:100], Y[:100])
        assert_array_equal(pickle.loads(pickle.dumps(found)).labels_, found.labels_)


class TestErrors:
    @pytest.mark.parametrize(
        ("params", "name"),
        [
            ({"method": "gradients"}, "method"),
            ({"ridge": -0.1}, "ridge"),
            ({"beta": -1}, "beta"),
            ({"min_margin": None}, "min_margin"),
            ({"min_margin": np.nan}, "min_margin"),
            ({"max_iter": -1}, "max_iter"),
            ({"batch_size": 0}, "batch_size"),
            ({"kernel": "ntk"}, "kernel"),
        ],
    )
    def test_parameters(self, params, name):
        with pytest.raises(ValueError, match=f"The '{name}' parameter"):
            LabelRefurbisher(**params).fit(X[:50], Y[:50])

    def test_a_class_is_no_kernel(self):
        with pytest.raises(ValueError, match="kernel is the class InfiniteWidthNTK; pass an"):
            LabelRefurbisher(InfiniteWidthNTK).fit(X[:50], Y[:50])

    def test_samples_for_a_gram_matrix(self):
        with pytest.raises(ValueError, match="H must be a Gram matrix"):
            LabelRefurbisher("precomputed").fit(X[:50], Y[:50])


class TestRefurbishedClassifier:
    def test_it_is_the_classifier_on_repaired_labels(self):
        noisy, _ = with_wrong_labels(Y[:600], 0.2)
        meta = RefurbishedClassifier(SVC()).fit(X[:600], noisy)
        alone = SVC().fit(X[:600], LabelRefurbisher().fit_refurbish(X[:600], noisy))
        assert_array_equal(meta.predict(X), alone.predict(X))
        assert_allclose(meta.decision_function(X), alone.decision_function(X))
        assert meta.score(X[600:], Y[600:]) == alone.score(X[600:], Y[600:])
        assert not hasattr(meta, "predict_proba")
        assert len(meta.refurbisher_.flips_) > 50

    def test_precomputed_in_a_cross_validation(self):
        noisy, _ = with_wrong_labels(Y[:300], 0.1)
        H = InfiniteWidthNTK()(X[:300])
        meta = RefurbishedClassifier(
            SVC(kernel="precomputed"), refurbisher=LabelRefurbisher("precomputed")
        )
        scores = cross_val_score(meta, H, noisy, cv=3, error_score="raise")
        assert scores.mean() > 0.7

    def test_one_takes_samples_and_the_other_a_matrix(self):
        H = InfiniteWidthNTK()(X[:100])
        for estimator, refurbisher in (
            (SVC(kernel="precomputed"), None),
            (SVC(), LabelRefurbisher("precomputed")),
        ):
            meta = RefurbishedClassifier(estimator, refurbisher=refurbisher)
            with pytest.raises(ValueError, match='set kernel="precomputed" in both'):
                meta.fit(H, Y[:100])

    def test_a_pipeline_that_takes_a_matrix(self):
        H = InfiniteWidthNTK()(X[:100])
        pipeline = make_pipeline("passthrough", SVC(kernel="precomputed"))
        meta = RefurbishedClassifier(pipeline, refurbisher=LabelRefurbisher("precomputed"))
        assert meta.fit(H, Y[:100]).score(H, Y[:100]) > 0.9

    def test_a_weighted_score(self):
        meta = RefurbishedClassifier(SVC()).fit(X[:300], Y[:300])
        weights = np.arange(300.0)
        wanted = meta.estimator_.score(X[300:600], Y[300:600], weights)
        assert meta.score(X[300:600], Y[300:600], sample_weight=weights) == wanted

    def test_in_a_pipeline_and_a_grid(self):
        noisy, _ = with_wrong_labels(Y[:600], 0.2)
        pipeline = make_pipeline(
            PCA(20), RefurbishedClassifier(LogisticRegression(), refurbisher=LabelRefurbisher())
        )
        name = "refurbishedclassifier__refurbisher__min_margin"
        search = GridSearchCV(clone(pipeline), {name: [0.3, 10.0]}, cv=3, error_score="raise")
        search.fit(X[:600] / 16, noisy)
        assert search.best_params_[name] == 0.3
        assert search.score(X[600:] / 16, Y[600:]) > 0.85
        assert search.predict_proba(X[:5] / 16).shape == (5, 10)


@parametrize_with_checks(
    [
        LabelRefurbisher(),
        LabelRefurbisher(method="gradient"),
        RefurbishedClassifier(LogisticRegression()),
    ]
)
@pytest.mark.filterwarnings("ignore:.* labels were changed")
@pytest.mark.filterwarnings("ignore:The classes .* have one sample")
def test_scikit_learn_checks(estimator, check):
    check(estimator)


class TestKernelOfALinearisedNetwork:
    def drawn(self):
        X, y = load_digits(return_X_y=True)
        X, y = X[:300] / 16, y[:300]
        noisy = np.where(np.arange(300) % 5 == 0, (y + 3) % 10, y)
        torch.manual_seed(0)
        net = torch.nn.Sequential(
            torch.nn.Linear(64, 128), torch.nn.ReLU(), torch.nn.Linear(128, 10)
        )
        return net.double(), X, y, noisy

    def test_it_repairs_labels(self):
        net, X, y, noisy = self.drawn()
        model = NTKClassifier(net).fit(X, noisy)
        refurbisher = LabelRefurbisher(kernel=model).fit(X, noisy)
        assert (refurbisher.labels_ == y).mean() > 0.9
        called = LabelRefurbisher(kernel=lambda X: pntk_kernel(net, X)).fit(X, noisy)
        np.testing.assert_array_equal(refurbisher.labels_, called.labels_)

    def test_frozen_in_what_is_cloned(self):
        net, X, y, noisy = self.drawn()
        model = FrozenEstimator(NTKClassifier(net).fit(X, noisy))
        pipe = RefurbishedClassifier(SVC(), refurbisher=LabelRefurbisher(kernel=model))
        assert pipe.fit(X, noisy).score(X, y) > 0.93
        with pytest.raises(NotFittedError, match="not fitted"):
            clone(LabelRefurbisher(kernel=model.estimator)).fit(X, noisy)

    def test_several_rows_a_sample_are_refused(self):
        net, X, _, noisy = self.drawn()
        model = NTKClassifier(net, kernel="entk").fit(X[:40], noisy[:40])
        with pytest.raises(ValueError, match=r"400 rows for 40 samples.*entk_trace"):
            LabelRefurbisher(kernel=model).fit(X[:40], noisy[:40])
