"""The query strategy in scikit-activeml's own loop."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal
from sklearn.datasets import load_digits
from torch import nn

pytest.importorskip("skactiveml")
from skactiveml.classifier import ParzenWindowClassifier, SkorchClassifier
from skactiveml.utils import MISSING_LABEL, is_labeled, is_unlabeled

from sklearn_lpntk.active import LookaheadQuery
from sklearn_lpntk.active.skactiveml import NTKLookahead

X, y_true = load_digits(return_X_y=True)
X, y_true = (X[:300] / 16).astype(np.float32), y_true[:300]


class Net(nn.Sequential):
    def __init__(self, n_outputs=10):
        super().__init__(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, n_outputs))


def classifier(missing_label=MISSING_LABEL, classes=tuple(range(10))):
    return SkorchClassifier(
        module=Net,
        neural_net_param_dict={
            "train_split": None,
            "verbose": 0,
            "optimizer": torch.optim.Adam,
            "max_epochs": 20,
            "lr": 0.01,
        },
        classes=list(classes),
        missing_label=missing_label,
    )


def partly(n=20, missing=MISSING_LABEL, labels=y_true):
    y = np.full(len(labels), missing, dtype=None if missing is not None else object)
    y[:n] = labels[:n]
    return y


@pytest.mark.parametrize("batch", ["top", "sequential"])
def test_in_the_loop(batch):
    """Five cycles of five labels, as scikit-activeml's tutorials write them."""
    y, clf = partly(), classifier()
    strategy = NTKLookahead(batch=batch, random_state=0)
    for cycle in range(5):
        torch.manual_seed(cycle)
        clf.fit(X, y)
        indices = strategy.query(X=X, y=y, clf=clf, fit_clf=False, batch_size=5)
        assert is_unlabeled(y[indices]).all()
        assert len(set(indices)) == 5
        y[indices] = y_true[indices]
    assert is_labeled(y).sum() == 45
    assert clf.score(X, y_true) > 0.5


def test_it_is_our_query():
    y, clf = partly(), classifier().fit(X, partly())
    ours = LookaheadQuery(clf.neural_net_.module_).fit(X[:20], y_true[:20])
    expected, scores = ours.query(X[20:], 4, return_utilities=True)
    strategy = NTKLookahead(outputs="logits", random_state=0)
    indices, utilities = strategy.query(
        X, y, clf, fit_clf=False, batch_size=4, return_utilities=True
    )
    assert_array_equal(indices, expected + 20)
    assert utilities.shape == (4, 300)
    assert np.isnan(utilities[:, :20]).all()
    np.testing.assert_allclose(utilities[0, 20:], scores)
    for step in range(4):
        assert_array_equal(np.isnan(utilities[step, indices]), np.arange(4) < step)
        assert np.nanargmax(utilities[step]) == indices[step]


def test_networks_trained_with_cross_entropy_count_by_their_probabilities():
    y, clf = partly(), classifier().fit(X, partly())
    found, named, other = (
        NTKLookahead(**options, random_state=0).query(X, y, clf, False, batch_size=8)
        for options in ({}, {"outputs": "probabilities"}, {"outputs": "logits"})
    )
    assert_array_equal(found, named)
    assert set(found) != set(other)


def test_candidates_by_index_and_as_samples():
    y, clf = partly(), classifier().fit(X, partly())
    strategy = NTKLookahead(random_state=0)
    by_index = strategy.query(X, y, clf, fit_clf=False, candidates=np.arange(100, 150))
    as_samples, utilities = strategy.query(
        X, y, clf, fit_clf=False, candidates=X[100:150], return_utilities=True
    )
    assert_array_equal(by_index, as_samples + 100)
    assert utilities.shape == (1, 50)


def test_words_for_labels_and_for_missing_ones():
    names = np.array([f"digit {k}" for k in range(10)])
    y = partly(missing="nan", labels=names[y_true])
    y = np.where(np.arange(300) < 20, names[y_true], "nan")
    clf = classifier("nan", names)
    torch.manual_seed(0)
    found = NTKLookahead(missing_label="nan", random_state=0).query(X, y, clf)
    assert y[found] == "nan"


def test_fit_clf_fits_a_clone():
    clf = classifier()
    NTKLookahead(random_state=0).query(X, partly(), clf)
    assert not hasattr(clf, "neural_net_")


def test_what_is_refused():
    strategy, y = NTKLookahead(random_state=0), partly()
    with (
        pytest.raises(ValueError, match="All samples have labels"),
        pytest.warns(match="batch_size"),
    ):
        strategy.query(X, y_true.astype(float), classifier())
    with pytest.raises(ValueError, match="label some first"):
        strategy.query(X, np.full(300, np.nan), classifier())
    with pytest.raises(ValueError, match="must not contain labeled"):
        strategy.query(X, y, classifier(), candidates=[0, 100])
    with pytest.raises(TypeError, match="is not fitted; pass fit_clf=True"):
        strategy.query(X, y, classifier(), fit_clf=False)
    with pytest.warns(UserWarning, match="larger than max_candidates=3"):
        found = NTKLookahead(max_candidates=3, random_state=0).query(
            X, y, classifier(), batch_size=5
        )
    assert len(found) == 3
    with pytest.raises(TypeError, match="must be a SkorchClassifier"):
        strategy.query(X, y, ParzenWindowClassifier(classes=list(range(10))))
