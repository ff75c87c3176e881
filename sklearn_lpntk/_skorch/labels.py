"""Labels of any kind, and the logit columns that stand for them."""

import warnings

import numpy as np
from scipy.special import softmax
from sklearn.frozen import FrozenEstimator
from sklearn.utils.multiclass import check_classification_targets
from skorch import NeuralNetBinaryClassifier

from .._runtime.turns import in_turn
from .nets import modes_kept, n_columns, unfrozen


def checked_classes(y):
    """The sorted labels of a classification target with at least two of them."""
    check_classification_targets(y)
    classes = np.unique(y)
    if len(classes) < 2:
        raise ValueError(
            f"y has one class only ({classes[0]}); a classifier's kernel needs at least two "
            "classes."
        )
    return classes


class ColumnEncoder:
    """Which logit column of a net each class of y has.

    Attributes
    ----------
    classes : ndarray of shape (n_classes,)
        The sorted labels.
    columns : ndarray of shape (n_classes,)
        Their logit columns.
    """

    def __init__(self, classes, columns):
        self.classes, self.columns = np.asarray(classes), np.asarray(columns, dtype=np.int64)

    @classmethod
    def for_net(cls, net, X, y):
        """Columns for a net and the labels it is used with.

        A fitted (frozen) net's columns have a meaning already: integer labels are columns,
        others are looked up in the net's ``classes_``. A net still to be trained gets the
        labels as they are where they are columns of its output, else 0, 1, ... in order.
        """
        classes = np.unique(y)
        known = _known_classes(net)
        if known is not None and not _are_columns(classes):
            return cls(classes, _look_up(classes, known))
        if isinstance(net, FrozenEstimator):
            if not _are_columns(classes):
                raise ValueError(
                    f"y contains the labels {classes[:5].tolist()}; with a frozen net, labels "
                    "must be integers (the net's logit columns): encode them, or give a skorch "
                    "net classes= with the label of every column."
                )
            return cls(classes, classes)
        n_available = n_columns(net, X) or len(classes)
        if n_available < len(classes):
            raise ValueError(
                f"y has {len(classes)} classes, but the net has {n_available} logits; widen its "
                "last layer."
            )
        if _are_columns(classes) and classes[-1] < n_available:
            return cls(classes, classes)
        _warn_of_weights(net, classes)
        return cls(classes, np.arange(len(classes)))

    def encode(self, y):
        """Logit columns of labels."""
        return self.columns[np.searchsorted(self.classes, y)]

    def predict(self, net, X):
        """The labels that the fitted net predicts, among ``classes``."""
        if isinstance(net, NeuralNetBinaryClassifier):  # it has a threshold of its own
            with in_turn(net.module_), modes_kept(net.module_):
                found = net.predict(X)
            position = np.searchsorted(self.columns, found.astype(np.int64))
            return self.classes[np.minimum(position, len(self.classes) - 1)]
        return self.classes[self.probabilities(net, X).argmax(axis=1)]

    def probabilities(self, net, X):
        """Probabilities by the fitted net, in the order of ``classes``, conditioned on them."""
        # data loaders draw a seed, and skorch sets the mode
        with in_turn(net.module_), modes_kept(net.module_):
            proba = net.predict_proba(X)
        proba = proba[:, None] if proba.ndim == 1 else proba
        if (proba < 0).any() or np.abs(proba.sum(axis=1) - 1).max() > 1e-3:
            # skorch knows no link for a criterion of the user's: these are logits
            if proba.shape[1] == 1:
                proba = np.hstack([np.zeros_like(proba), proba])
            return softmax(proba[:, self.columns], axis=1)
        proba = np.maximum(proba[:, self.columns], np.finfo(proba.dtype).tiny)
        return proba / proba.sum(axis=1, keepdims=True)


def _warn_of_weights(net, classes):
    """Warn of class weights that belong to other columns than the labels get."""
    weights = net.get_params(deep=False).get("criterion__weight")
    if weights is not None and len(weights) != len(classes):
        warnings.warn(
            f"criterion__weight has {len(weights)} entries, but y has the {len(classes)} labels "
            f"{classes[:5].tolist()}, which become the columns 0 to {len(classes) - 1} (does a "
            "fold lack a class?): labels would take each other's weights. Encode y as the columns "
            "0..K-1 yourself, or give the net classes= with the label of every column.",
            UserWarning,
            stacklevel=2,
        )


def _are_columns(classes):
    """Whether sorted labels are non-negative integers, in whatever dtype of numbers."""
    if classes.dtype.kind not in "iufb":
        return False
    return classes[0] >= 0 and np.array_equal(classes, classes.astype(np.int64))


def _known_classes(net):
    """The labels of a net's columns where it was told or has learnt them."""
    inner = unfrozen(net)
    if getattr(inner, "classes", None) is not None and len(inner.classes):
        return np.asarray(inner.classes)
    if isinstance(net, FrozenEstimator):
        return getattr(inner, "classes_inferred_", None)
    return None


def _look_up(classes, known):
    missing = np.setdiff1d(classes, known)
    if len(missing):
        raise ValueError(
            f"y contains the labels {missing.tolist()}, which are not among the net's "
            f"classes_ {known.tolist()}."
        )
    order = np.argsort(known)
    return order[np.searchsorted(known[order], classes)]


def require_known(net, classes):
    """Refuse labels that a trained net did not see, where its columns are labels."""
    known = _known_classes(net)
    if known is None or not isinstance(net, FrozenEstimator):
        return
    known = np.unique(known)
    if _are_columns(classes) and not _are_columns(known):
        return  # they are columns
    missing = np.setdiff1d(classes, known)
    if len(missing):
        raise ValueError(
            f"y contains the labels {missing.tolist()}, and the frozen net was trained on "
            f"{known.tolist()}: pass it unfrozen, so that it is trained on these labels, or its "
            "module, of which only the features count."
        )
