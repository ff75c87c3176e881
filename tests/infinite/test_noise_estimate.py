"""How many labels are wrong, told by the labels that were not given."""

import warnings

import numpy as np
import pytest
from sklearn.datasets import load_digits, make_classification, make_moons

from sklearn_lpntk._margins import WrongLabels, margins_of
from sklearn_lpntk.infinite import InfiniteWidthNTK, LabelRefurbisher, leave_one_out_scores

X, Y = load_digits(return_X_y=True)
X, Y = X[:1000], Y[:1000]


@pytest.fixture(scope="module")
def H():
    return InfiniteWidthNTK()(X)


def with_wrong(y, share, seed=0, n_classes=10):
    rng = np.random.default_rng(seed)
    wrong = rng.permutation(len(y))[: round(share * len(y))]
    noisy = y.copy()
    noisy[wrong] = (y[wrong] + rng.integers(1, n_classes, len(wrong))) % n_classes
    return noisy


@pytest.mark.parametrize("share", [0.0, 0.05, 0.1, 0.2, 0.4, 0.7])
def test_calibrated_for_uniform_noise(share, H):
    noisy = with_wrong(Y, share)
    found = WrongLabels.among(leave_one_out_scores(H, noisy), noisy)
    assert found.share == pytest.approx(share, abs=0.01 + 0.12 * share)


@pytest.mark.parametrize("n_classes", [2, 3])
def test_by_its_definition(n_classes):
    rng = np.random.default_rng(0)
    scores, columns = rng.normal(size=(40, n_classes)), rng.integers(0, n_classes, 40)
    given, others = [], []
    for i in range(40):
        for k in range(n_classes):
            margin = scores[i, k] - max(scores[i, j] for j in range(n_classes) if j != k)
            (given if k == columns[i] else others).append(margin)
    found = WrongLabels.among(scores, columns)
    np.testing.assert_allclose(found.margins, given)
    np.testing.assert_allclose(found.others, np.sort(others))
    np.testing.assert_allclose(margins_of(scores, columns), given)
    r = 2 * np.mean(np.array(given) <= np.median(others))
    assert found.share == pytest.approx(r / (1 + r / (n_classes - 1)))
    n = 10
    at = np.sort(given)[n - 1]
    assert found.precision(n) == pytest.approx(
        min(1, found.share * np.mean(np.array(others) <= at) * 40 / n)
    )
    assert np.isnan(found.precision(0))


@pytest.mark.parametrize("share", [0.0, 0.1, 0.3])
def test_no_more_labels_are_changed_than_are_wrong(share, H):
    noisy = with_wrong(Y, share)
    found = LabelRefurbisher("precomputed").fit(H, noisy)
    assert len(found.flips_) <= found.estimated_noise_ * len(Y)
    assert (found.labels_ == Y).mean() >= (0.98 if share else 1.0)
    if share:
        actual = (noisy != Y)[found.flips_["row"]].mean()
        assert found.estimated_precision_ == pytest.approx(actual, abs=0.15)
        assert found.min_margin_ >= 0


def test_on_overlapping_classes_fewer_right_labels_are_changed():
    X, y = make_moons(600, noise=0.35, random_state=0)
    with pytest.warns(UserWarning, match="labels were changed"):
        asked, auto = (LabelRefurbisher(min_margin=m).fit(X, y) for m in (0.3, "auto"))
    assert len(auto.flips_) < 0.6 * len(asked.flips_)
    assert asked.min_margin_ == 0.3


def test_more_if_asked(H):
    noisy = with_wrong(Y, 0.1)
    assert len(LabelRefurbisher("precomputed", max_iter=250).fit(H, noisy).flips_) >= 100
    assert len(LabelRefurbisher("precomputed", max_iter=5).fit(H, noisy).flips_) <= 5


def test_a_rare_class_that_is_lost_is_told():
    X, y = make_classification(
        400, 10, n_informative=4, weights=[0.95], class_sep=0.6, flip_y=0, random_state=0
    )
    with pytest.warns(UserWarning, match="Of 20 labels .*1.* 3 are left"):
        LabelRefurbisher(standardize=True).fit(X, y)


@pytest.mark.parametrize("n_classes", [20, 60])
def test_a_share_is_no_more_than_all(n_classes):
    X = np.random.default_rng(0).normal(size=(60, 3))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = LabelRefurbisher().fit(X, np.arange(60) % n_classes)
    assert 0.5 < found.estimated_noise_ <= 1


def test_equal_rows_tell_nothing():
    with pytest.raises(ValueError, match="All 40 rows of X are equal"):
        LabelRefurbisher().fit(np.ones((40, 3)), np.arange(40) % 2)
