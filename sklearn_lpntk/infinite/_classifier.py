"""RefurbishedClassifier: a classifier on repaired labels."""

from sklearn.base import BaseEstimator, ClassifierMixin, MetaEstimatorMixin, _fit_context, clone
from sklearn.utils import get_tags
from sklearn.utils._param_validation import HasMethods
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted

from .._runtime.fitting import unfitted_on_error
from .._samples.given import require_taking
from ._refurbisher import LabelRefurbisher


def _has(name):
    def check(self):
        getattr(self.estimator_ if hasattr(self, "estimator_") else self.estimator, name)
        return True

    return check


class RefurbishedClassifier(MetaEstimatorMixin, ClassifierMixin, BaseEstimator):
    """A classifier that is fitted to repaired labels.

    Parameters
    ----------
    estimator : classifier
        Cloned, then fitted to the repaired labels.
    refurbisher : LabelRefurbisher, default=None
        None means ``LabelRefurbisher()``; pass one to search its parameters, as
        ``refurbisher__min_margin``.

    Attributes
    ----------
    estimator_ : classifier
        Fitted to the repaired labels.
    refurbisher_ : LabelRefurbisher
        With ``flips_``, what was repaired.
    classes_ : ndarray of shape (n_classes,)
    n_features_in_ : int
        Number of features seen in `fit`.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of features seen in `fit`, where X has string names.

    See Also
    --------
    LabelRefurbisher : The repair, and when it does harm.

    Notes
    -----
    In a cross-validation labels of the training folds are repaired, those of the test folds are as
    they were given: scores on wrong labels say little. Sample weights are not taken.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.svm import SVC
    >>> from sklearn_lpntk.infinite import RefurbishedClassifier
    >>> X, y = load_digits(return_X_y=True)
    >>> noisy = y.copy()
    >>> noisy[:1000:5] = (noisy[:1000:5] + 3) % 10
    >>> plain = SVC(C=100).fit(X[:1000], noisy[:1000])
    >>> repaired = RefurbishedClassifier(SVC(C=100)).fit(X[:1000], noisy[:1000])
    >>> repaired.score(X[1000:], y[1000:]) > plain.score(X[1000:], y[1000:]) + 0.03
    True
    """

    _parameter_constraints = {
        "estimator": [HasMethods(["fit", "predict"])],
        "refurbisher": [HasMethods(["fit_refurbish"]), None],
    }

    def __init__(self, estimator, *, refurbisher=None):
        self.estimator = estimator
        self.refurbisher = refurbisher

    @_fit_context(prefer_skip_nested_validation=False)
    def fit(self, X, y):
        """Repair the labels and fit the classifier to them.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...)
            As for the classifier and :class:`LabelRefurbisher`.
        y : array-like of shape (n_samples,)
            Labels, some of them wrong.

        Returns
        -------
        self : RefurbishedClassifier

        Raises
        ------
        ValueError
            If one of estimator and refurbisher takes a Gram matrix and the other samples, or as
            :meth:`LabelRefurbisher.fit`, which also says what it warns of.
        """
        with unfitted_on_error(self):
            refurbisher = LabelRefurbisher() if self.refurbisher is None else self.refurbisher
            self._check_pairwise(refurbisher)
            require_taking(self.estimator, X)
            self.refurbisher_ = clone(refurbisher)
            labels = self.refurbisher_.fit_refurbish(X, y)
            self.estimator_ = clone(self.estimator).fit(X, labels)
            self.classes_ = getattr(self.estimator_, "classes_", self.refurbisher_.classes_)
            for name in ("n_features_in_", "feature_names_in_"):
                if hasattr(self.refurbisher_, name):
                    setattr(self, name, getattr(self.refurbisher_, name))
        return self

    def _check_pairwise(self, refurbisher):
        """X is a Gram matrix for both, or samples for both."""
        of_matrix = [get_tags(e).input_tags.pairwise for e in (self.estimator, refurbisher)]
        # what wraps other estimators may take a matrix without saying so
        is_wrapper = {"steps", "estimator", "estimators"} & set(
            self.estimator.get_params(deep=False)
        )
        if of_matrix[0] > of_matrix[1] or (of_matrix[0] < of_matrix[1] and not is_wrapper):
            names = ["a Gram matrix" if pairwise else "samples" for pairwise in of_matrix]
            raise ValueError(
                f"estimator takes X as {names[0]} and refurbisher as {names[1]}; for a Gram matrix "
                'set kernel="precomputed" in both.'
            )

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        own, refurbisher = get_tags(self.estimator).input_tags, self.refurbisher
        of_labels = get_tags(refurbisher or LabelRefurbisher()).input_tags
        tags.input_tags.pairwise = own.pairwise
        tags.input_tags.sparse = own.sparse and of_labels.sparse
        tags.input_tags.allow_nan = own.allow_nan and of_labels.allow_nan
        return tags

    def predict(self, X):
        """Predict classes by the fitted classifier.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...)
            As for the classifier and :class:`LabelRefurbisher`.

        Returns
        -------
        labels : ndarray of shape (n_samples,)
        """
        check_is_fitted(self)
        return self.estimator_.predict(X)

    def score(self, X, y, sample_weight=None):
        """The fitted classifier's score: mean accuracy, for most.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...)
            As for the classifier and :class:`LabelRefurbisher`.
        y : array-like of shape (n_samples,)
            Right labels, one hopes: they are not repaired.
        sample_weight : array-like of shape (n_samples,), default=None
            For the classifier's score.

        Returns
        -------
        score : float
        """
        check_is_fitted(self)
        weights = {} if sample_weight is None else {"sample_weight": sample_weight}
        return self.estimator_.score(X, y, **weights)

    @available_if(_has("predict_proba"))
    def predict_proba(self, X):
        """Class probabilities by the fitted classifier.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...)
            As for the classifier and :class:`LabelRefurbisher`.

        Returns
        -------
        probabilities : ndarray of shape (n_samples, n_classes)
        """
        check_is_fitted(self)
        return self.estimator_.predict_proba(X)

    @available_if(_has("decision_function"))
    def decision_function(self, X):
        """Decision values of the fitted classifier.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...)
            As for the classifier and :class:`LabelRefurbisher`.

        Returns
        -------
        values : ndarray of shape (n_samples,) or (n_samples, n_classes)
        """
        check_is_fitted(self)
        return self.estimator_.decision_function(X)
