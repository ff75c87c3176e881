"""LabelRefurbisher: the shell; the loop is in ``_flips``."""

from numbers import Integral, Real

import numpy as np
from sklearn.base import BaseEstimator, _fit_context
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import validate_data

from .._runtime.fitting import unfitted_on_error
from ._flips import Labelling, flips_of, revisions_of
from ._gram import Factor, checked_gram, checked_labels, gram_of, warn
from ._kernels import InfiniteWidthNTK
from ._labels import error_of, warn_of_single

RIDGES = {"loo": 0.01, "gradient": 0.3}
LOW_AGREEMENT = 0.5


class LabelRefurbisher(BaseEstimator):
    """Find and repair wrong labels before any training, with a kernel that knows no labels.

    Kernel regression on all other samples predicts each label; where it prefers another class by a
    margin, the label is flipped, the clearest case first, and all predictions are updated exactly.
    At the end the flipped labels are decided again, now that the others are repaired.

    Parameters
    ----------
    kernel : callable or "precomputed", default=None
        ``kernel(X)`` returns the Gram matrix; "precomputed": X is the Gram matrix. None means
        ``InfiniteWidthNTK()``; pass one to search its parameters, as ``kernel__depth``.
    method : {"loo", "gradient"}, default="loo"
        What is flipped first: the largest leave-one-out margin, or the steepest descent of the
        block-diagonalisation error (Algorithm 1 of [1]_), which is worse in our experiments.
    ridge : float, default=None
        Regularisation in units of the mean of the kernel's diagonal. None means .01 for "loo" and
        .3 for "gradient".
    beta : float, default=1
        Weight of the terms between classes in the error.
    min_margin : float, default=0.3
        A label is flipped where the leave-one-out prediction of another class exceeds that of its
        own by more than this; the indicator of a class is 0 or 1. 0 flips wherever another one is
        preferred; -inf leaves the choice to the gradient alone. Labels that are decided again take
        the best class, by whatever margin.
    max_iter : int, default=None
        The most labels that are flipped in the first pass; later changes of the same labels do not
        count. None means no limit.
    batch_size : int, default=1
        Flips between two comparisons of all samples: more is faster, and a little worse.

    Attributes
    ----------
    labels_ : ndarray of shape (n_samples,)
        The repaired labels of the training data.
    flips_ : structured ndarray of shape (n_flips,)
        What was changed, in the order of the first decision: ``index, old, new``, and the
        ``margin`` of the last one. ``pandas.DataFrame(flips_)`` is a table of it.
    error_path_ : ndarray of shape (n_changes + 1,)
        Block-diagonalisation error before the first change and after each one, those included that
        were taken back; with the ``ridge`` of this estimator.
    loo_accuracy_ : float
        Share of the given labels with which leave-one-out prediction agrees: where it is low, the
        kernel can't learn the task, or most labels are wrong.
    classes_ : ndarray of shape (n_classes,)
    n_features_in_ : int
        Number of features seen in `fit`.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of features seen in `fit`, where X has string names.

    See Also
    --------
    RefurbishedClassifier : Repairs labels in front of a classifier.
    leave_one_out_scores : The predictions.
    RedundancyPruner : ``strategy="clean_coverage"`` drops contradicted samples instead.

    Notes
    -----
    One factorisation serves all flips: a flip changes the label interaction matrix by a matrix of
    rank two, in time linear in the number of samples. No class falls below two samples. With "loo"
    flipped labels are then decided again, at most three times over, until none changes; a label may
    go to a third class, or back. That is not in [1]_: of 2,000 samples of MNIST it restores 79
    instead of 74 % of the wrong labels where 70 % are wrong (8 draws, as many flips as wrong
    labels); up to 30 % it hardly matters.

    Kernels without biases grow with the norms of the samples. Where norms mean nothing, as for
    images, ``sklearn.preprocessing.Normalizer`` in front restores a bit more: a point on MNIST.

    lpNTK itself contains the labels and is no kernel for this;
    :func:`~sklearn_lpntk.kernels.pntk_kernel` of a network that was not trained on these labels is:
    ``kernel=lambda X: pntk_kernel(net, X)``.

    Where leave-one-out prediction agrees with fewer than half of the given labels, `fit` warns.
    Either most labels are wrong, and repairing may help all the same (digits, 70 % wrong: 30 % of
    the labels are right before and 85 % after), or the kernel can't learn the task, and it does
    harm (CIFAR-10, 10 % wrong: 90 and 72 %). The number alone does not tell which.

    References
    ----------
    .. [1] DeOliveira, Gerych and Rundensteiner, "The Surprising Effectiveness of Infinite-Width
       NTKs for Characterizing and Improving Model Training", AAAI.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.datasets import load_digits
    >>> from sklearn_lpntk.infinite import LabelRefurbisher
    >>> X, y = load_digits(return_X_y=True)
    >>> noisy = y.copy()
    >>> noisy[::10] = (noisy[::10] + 3) % 10
    >>> refurbisher = LabelRefurbisher().fit(X, noisy)
    >>> float((noisy == y).mean().round(3)), float((refurbisher.labels_ == y).mean().round(3))
    (0.9, 0.995)
    """

    _parameter_constraints = {
        "kernel": [callable, StrOptions({"precomputed"}), None],
        "method": [StrOptions(set(RIDGES))],
        "ridge": [Interval(Real, 0, None, closed="left"), None],
        "beta": [Interval(Real, 0, None, closed="left")],
        "min_margin": [Interval(Real, None, None, closed="both")],
        "max_iter": [Interval(Integral, 0, None, closed="left"), None],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
    }

    def __init__(
        self,
        kernel=None,
        *,
        method="loo",
        ridge=None,
        beta=1.0,
        min_margin=0.3,
        max_iter=None,
        batch_size=1,
    ):
        self.kernel = kernel
        self.method = method
        self.ridge = ridge
        self.beta = beta
        self.min_margin = min_margin
        self.max_iter = max_iter
        self.batch_size = batch_size

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y):
        """Find the labels to be repaired.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...) or (n_samples, n_samples)
            Samples, or with ``kernel="precomputed"`` their Gram matrix.
        y : array-like of shape (n_samples,)
            Labels, some of them wrong.

        Returns
        -------
        self : LabelRefurbisher

        Raises
        ------
        ValueError
            If y has one class only or does not fit to X, if the Gram matrix is not symmetric,
            finite and positive semidefinite, or if its inverse does not fit into memory.

        Warns
        -----
        UserWarning
            If leave-one-out prediction agrees with fewer than half of the labels, if a class
            has one sample (it is left out of the within-class term), or if the ridge was raised.
        """
        with unfitted_on_error(self):
            X, y = validate_data(self, X, y, dtype=None, allow_nd=True, ensure_min_samples=2)
            H = self._gram_of(X)
            self.classes_, columns = checked_labels(y, len(H))
            ridge = RIDGES[self.method] if self.ridge is None else self.ridge
            labelling = Labelling(Factor(H, ridge).inverse(), columns, len(self.classes_))
            warn_of_single(labelling.counts, self.classes_)
            self._warn_of_low_agreement(labelling)
            self._flip(labelling, y.dtype)
        return self

    def _gram_of(self, X):
        if isinstance(self.kernel, str):
            return checked_gram(X)
        return gram_of(InfiniteWidthNTK() if self.kernel is None else self.kernel, X)

    def _warn_of_low_agreement(self, labelling):
        agrees = labelling.leave_one_out.argmax(axis=1) == labelling.columns
        self.loo_accuracy_ = float(agrees.mean())
        if self.loo_accuracy_ < LOW_AGREEMENT:
            warn(
                f"Leave-one-out prediction by this kernel agrees with {self.loo_accuracy_:.0%} of "
                "the given labels. Either most labels are wrong, or the kernel can't learn the "
                "task, and then repairing does harm; compare another kernel, or look at flips_ "
                "before using labels_."
            )

    def _flip(self, labelling, dtype):
        given, margins = labelling.columns.copy(), {}
        path = [error_of(labelling.Z, labelling.counts, self.beta)]
        for i, _, margin in self._changes(labelling, margins):
            margins[i] = margin
            path.append(error_of(labelling.Z, labelling.counts, self.beta))
        self.labels_ = self.classes_[labelling.columns]
        rows = [i for i in margins if labelling.columns[i] != given[i]]
        fields = [("index", np.int64), ("old", dtype), ("new", dtype), ("margin", np.float64)]
        self.flips_ = np.empty(len(rows), dtype=fields)
        self.flips_["index"], self.flips_["margin"] = rows, [margins[i] for i in rows]
        self.flips_["old"], self.flips_["new"] = self.classes_[given[rows]], self.labels_[rows]
        self.error_path_ = np.array(path)

    def _changes(self, labelling, flipped):
        n = len(labelling.columns)
        yield from flips_of(
            labelling,
            method=self.method,
            beta=self.beta,
            min_margin=self.min_margin,
            max_flips=n if self.max_iter is None else self.max_iter,
            batch_size=self.batch_size,
        )
        if self.method == "loo":
            yield from revisions_of(labelling, list(flipped))

    def fit_refurbish(self, X, y):
        """Find the labels to be repaired, and return the repaired ones.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...) or (n_samples, n_samples)
            As for `fit`.
        y : array-like of shape (n_samples,)
            Labels, some of them wrong.

        Returns
        -------
        labels : ndarray of shape (n_samples,)

        Raises
        ------
        ValueError
            As `fit`, which also says what it warns of.
        """
        return self.fit(X, y).labels_

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        tags.target_tags.one_d_labels = True
        tags.input_tags.pairwise = isinstance(self.kernel, str)
        tags.input_tags.three_d_array = True
        return tags
