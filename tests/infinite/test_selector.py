"""Choosing a kernel by its principal components."""

import pickle

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.datasets import load_digits
from sklearn.decomposition import KernelPCA
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.metrics.pairwise import rbf_kernel
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import parametrize_with_checks

from sklearn_lpntk.infinite import ArchitectureSelector, InfiniteWidthNTK, class_distance_ratio
from sklearn_lpntk.infinite._selector import _drawn

X, Y = load_digits(return_X_y=True)
X, Y = X[:300] / 16, Y[:300]
KERNELS = [("shallow", InfiniteWidthNTK(1)), ("deep", InfiniteWidthNTK(20)), ("rbf", rbf_kernel)]


def test_scores_and_components_by_kernel_pca():
    selector = ArchitectureSelector(KERNELS, n_components=3).fit(X, Y)
    scores = []
    for _, kernel in KERNELS:
        pca = KernelPCA(3, kernel="precomputed", eigen_solver="dense")
        scores.append(class_distance_ratio(pca.fit_transform(kernel(X)), Y))
    assert_allclose(selector.scores_, scores, rtol=1e-8)
    assert selector.best_index_ == np.argmax(scores)
    assert selector.best_kernel_ == KERNELS[selector.best_index_][1]
    pca.fit(selector.best_kernel_(X))
    new = pca.transform(selector.best_kernel_(X[:40] + 0.1, X))
    assert_allclose(np.abs(selector.transform(X[:40] + 0.1)), np.abs(new), atol=1e-8)


def test_trailing_components_are_those_of_the_smallest_eigenvalues():
    selector = ArchitectureSelector(KERNELS[:1], components="trailing").fit(X, Y)
    H = KERNELS[0][1](X)
    C = np.eye(300) - 1 / 300
    values = np.linalg.eigvalsh(C @ H @ C)
    P = selector.transform(X)
    assert_allclose((P**2).sum(0), values[1:5][::-1], rtol=1e-6)
    assert selector.results_["explained_variance_ratio"][0] < 0.01


def test_results_are_a_table():
    table = pd.DataFrame(ArchitectureSelector(KERNELS).fit(X, Y).results_)
    assert table["name"].tolist() == ["shallow", "deep", "rbf"]
    assert table["explained_variance_ratio"].between(0, 1).all()
    assert (table["seconds"] > 0).all()


def test_the_caller_may_go_on_using_the_kernel():
    kernel = InfiniteWidthNTK(1)
    selector = ArchitectureSelector([("a", kernel)]).fit(X, Y)
    before = selector.transform(X[:5])
    kernel.set_params(depth=7)
    assert_array_equal(selector.transform(X[:5]), before)


def test_another_score():
    selector = ArchitectureSelector(KERNELS, scoring=lambda P, y: -P.var()).fit(X, Y)
    assert selector.best_index_ == 2


def test_rare_classes_are_drawn():
    columns = np.r_[np.arange(2980) % 2, np.full(10, 2), np.full(10, 3)]
    drawn = columns[_drawn(columns, 100, np.random.RandomState(0))]
    assert np.bincount(drawn)[2:].tolist() == [2, 2]
    assert len(drawn) == 100


def test_a_stratified_draw():
    columns = np.repeat([0, 1, 2], [10, 40, 150])
    rows = _drawn(columns, 60, np.random.RandomState(0))
    assert_array_equal(rows, np.unique(rows))
    assert np.abs(np.bincount(columns[rows]) - [3, 12, 45]).max() <= 1
    selector = ArchitectureSelector(KERNELS, max_samples=100, random_state=0).fit(X, Y)
    again = ArchitectureSelector(KERNELS, max_samples=100, random_state=0).fit(X, Y)
    assert_array_equal(selector.transform(X), again.transform(X))
    other = ArchitectureSelector(KERNELS, max_samples=100, random_state=1).fit(X, Y)
    assert (other.scores_ != selector.scores_).any()


def test_in_a_pipeline_of_images_and_pickled():
    images = X.reshape(-1, 8, 8)
    pipeline = make_pipeline(
        ArchitectureSelector(KERNELS[:2], n_components=8), LogisticRegression()
    )
    assert pipeline.fit(images, Y).score(images, Y) > 0.8
    selector = pickle.loads(pickle.dumps(pipeline[0]))
    assert_allclose(selector.transform(images), pipeline[0].transform(images))
    assert selector.get_feature_names_out()[0] == "architectureselector0"


class TestErrors:
    @pytest.mark.parametrize("kernels", [[], [("a", "rbf")], [rbf_kernel], [("a", "b", "c")]])
    def test_kernels(self, kernels):
        with pytest.raises(ValueError, match="one or more pairs"):
            ArchitectureSelector(kernels).fit(X, Y)

    @pytest.mark.parametrize("score", [np.nan, None])
    def test_scores(self, score):
        with pytest.raises(ValueError, match=r"kernel 'shallow' must be a number.*(nan|None)"):
            ArchitectureSelector(KERNELS, scoring=lambda P, y: score).fit(X, Y)

    def test_names_twice(self):
        with pytest.raises(ValueError, match="must be unique; got"):
            ArchitectureSelector([("a", rbf_kernel), ("a", rbf_kernel)]).fit(X, Y)

    def test_too_many_components(self):
        with pytest.raises(ValueError, match="n_components=300 needs more samples"):
            ArchitectureSelector(KERNELS, n_components=300).fit(X, Y)

    def test_a_class_is_no_kernel(self):
        with pytest.raises(ValueError, match="'a' can't be scored: kernel is the class Infinite"):
            ArchitectureSelector([("a", InfiniteWidthNTK)]).fit(X, Y)
        with pytest.raises(ValueError, match="pairs"):
            ArchitectureSelector([(1, InfiniteWidthNTK())]).fit(X, Y)

    def test_a_failed_fit_leaves_nothing(self):
        selector = ArchitectureSelector(KERNELS).fit(X, Y)
        before = set(vars(ArchitectureSelector(KERNELS)))
        with pytest.raises(ValueError, match="one class only"):
            selector.fit(X, np.zeros(300))
        assert set(vars(selector)) - before <= {"n_features_in_"}
        with pytest.raises(NotFittedError):
            selector.get_feature_names_out()

    def test_kernels_without_components(self):
        flat = [*KERNELS, ("flat", lambda A, B=None: np.ones((len(A), len(A if B is None else B))))]
        with pytest.raises(ValueError, match=r"'flat' can't be scored: .* variance in its leading"):
            ArchitectureSelector(flat).fit(X, Y)
        linear = [("linear", lambda A, B=None: A @ (A if B is None else B).T)]
        with pytest.raises(ValueError, match=r"'linear' can't be scored: .*trailing 4 .* low rank"):
            ArchitectureSelector(linear, components="trailing").fit(X, Y)
        assert ArchitectureSelector(linear).fit(X, Y).scores_[0] > 1
        wrong = [("wrong", lambda A, B=None: A)]
        with pytest.raises(ValueError, match="'wrong' can't be scored: H must be a Gram matrix"):
            ArchitectureSelector(wrong).fit(X, Y)

    def test_too_few_samples_for_the_classes(self):
        with pytest.raises(
            ValueError, match=r"max_samples=19 is too few for 10 classes; .* 20, or"
        ):
            ArchitectureSelector(KERNELS, max_samples=19).fit(X, Y)
        assert len(ArchitectureSelector(KERNELS, max_samples=20).fit(X, Y).scores_) == 3

    def test_one_class(self):
        with pytest.raises(ValueError, match="one class only"):
            ArchitectureSelector(KERNELS).fit(X, np.zeros(300))


@parametrize_with_checks([ArchitectureSelector(KERNELS[:2], n_components=2)])
def test_scikit_learn_checks(estimator, check):
    check(estimator)
