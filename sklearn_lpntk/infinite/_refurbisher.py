"""LabelRefurbisher: the shell; the loop is in ``_flips``."""

from numbers import Integral, Real

import numpy as np
from scipy.sparse import issparse
from sklearn.base import BaseEstimator, _fit_context
from sklearn.utils._optional_dependencies import check_pandas_support
from sklearn.utils._param_validation import HasMethods, Interval, StrOptions
from sklearn.utils.validation import check_is_fitted

from .._gram import Factor, checked_gram, checked_labels, gram_of
from .._margins import WrongLabels, margins_of
from .._runtime.cache import cached
from .._runtime.fitting import CallbackSupportMixin, FitProgress, unfitted_on_error, with_callbacks
from .._samples.given import given, index_of, like, n_samples_of, rows_of
from .._samples.inputs import as_one_array
from .._samples.preparation import preparation_of
from .._samples.tables import is_table
from ._flips import Labelling, repaired
from ._harm import lost_class, tell_of_harm, wrong_flip_share
from ._kernels import InfiniteWidthNTK, _InfiniteWidthKernel
from ._labels import warn_of_single
from ._standardize import chosen, standardized

RIDGES = {"loo": 0.01, "gradient": 0.3}


def _encoded(X):
    """X as one array of numbers, tables and sparse matrices encoded."""
    X = X if is_table(X) or issparse(X) else as_one_array(X)
    steps = preparation_of(X, 0)
    return X if steps is None else steps.fit_transform(X)


def _inverse(kernel, X, ridge):
    """The inverse of the regularised Gram matrix of samples, or of one that is given."""
    if isinstance(kernel, str):
        H = checked_gram(X)
    else:
        H = gram_of(InfiniteWidthNTK() if kernel is None else kernel, X)
    return Factor(H, ridge).inverse()


class LabelRefurbisher(CallbackSupportMixin, BaseEstimator):
    """Find and repair wrong labels before any training, with a kernel that knows no labels.

    Kernel regression on all other samples predicts each label; where it prefers another class by a
    margin, the label is flipped, the clearest case first, and all predictions are updated exactly.
    At the end the flipped labels are decided again, now that the others are repaired.

    Parameters
    ----------
    kernel : callable, fitted linearised network or "precomputed", default=None
        ``kernel(X)`` returns the Gram matrix; of a fitted
        :class:`~sklearn_lpntk.linearized.NTKClassifier` or ``NTKRegressor`` its kernel counts (in
        what is cloned, pass a ``FrozenEstimator`` of it); "precomputed": X is the Gram matrix.
        None means ``InfiniteWidthNTK()``; pass one to search its parameters, as ``kernel__depth``.
    method : {"loo", "gradient"}, default="loo"
        What is flipped first: the largest leave-one-out margin, or the steepest descent of the
        block-diagonalisation error (Algorithm 1 of [1]_), which is worse in our experiments.
    ridge : float, default=None
        Regularisation in units of the mean of the kernel's diagonal. None means .01 for "loo" and
        .3 for "gradient".
    beta : float, default=1
        Weight of the terms between classes in the error.
    min_margin : float or "auto", default="auto"
        A label is flipped where the leave-one-out prediction of another class exceeds that of its
        own by more than this; the indicator of a class is 0 or 1. 0 flips wherever another one is
        preferred; -inf leaves the choice to the gradient alone. "auto": by more than as many labels
        are doubted as ``estimated_noise_`` says are wrong. Labels that are decided again take the
        best class, by whatever margin.
    max_iter : int, default=None
        The most labels that are flipped in the first pass; later changes of the same labels do not
        count. None means no limit, and with ``min_margin="auto"`` as many as are estimated to be
        wrong.
    batch_size : int, default=1
        Flips between two comparisons of all samples: more is faster, and a little worse.
    standardize : {"auto", True, False}, default="auto"
        Whether the columns of a table get mean 0 and variance 1 in front of an infinite-width
        kernel. "auto" takes what leave-one-out predicts the given labels by with the larger margin,
        on up to 2,000 rows. Images and other kernels are left alone. With "auto" or True tables
        may have categories, strings and missing values, which are encoded, and X may be sparse.
    memory : str or joblib.Memory, default=None
        Caches the inverse of the Gram matrix, which takes all of the time. The folder holds
        pickles: open only those that you trust.
    verbose : int, default=0
        Print a line for each stage of a fit, how far it has come, and what was changed.

    Attributes
    ----------
    labels_ : array-like of shape (n_samples,)
        The repaired labels of the training data, in the form of y: a series with its index, a
        tensor, or an ndarray.
    flips_ : pandas.DataFrame of shape (n_flips, 4)
        What was changed, in the order of the first decision, under the index of X or y where these
        have one: the position ``row``, the labels ``old`` and ``new``, and the ``margin`` of the
        last decision.
    label_quality_ : ndarray of shape (n_samples,)
        How well each given label goes with the repaired labels of all others: 1 where
        leave-one-out prediction is sure of it, 0 where it is sure of another one, .5 at a tie.
    estimated_noise_ : float
        Estimated share of wrong labels, by the margins that labels have which were not given.
        Calibrated where wrong labels are any other class and the task can be learned; too low
        where they are a similar class, too high where classes overlap.
    estimated_precision_ : float
        Estimated share of wrong ones among as many labels of the least margins as were changed, by
        the same; nan without flips, and not to be relied on below 10. What the flips make of them
        is another question, which ``wrong_flip_share_`` answers; where the two disagree, believe
        the worse one.
    min_margin_ : float
        The margin that was asked for.
    wrong_flip_share_ : float
        Estimated share of the flips that make a label wrong, or another wrong one; nan without
        flips, and not to be relied on below 10. Above one half repairing does harm, and `fit`
        warns where that is more than 1 % of all labels.
    standardized_ : bool
        Whether columns were standardised.
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

    lpNTK itself contains the labels and is no kernel for this; the kernel of a network that was not
    trained on these labels is: ``kernel=NTKClassifier(net).fit(X, y)`` of a module ``net``, or
    ``lambda X: pntk_kernel(net, X)``. One that was trained on them agrees with the wrong ones, too.

    Where classes overlap, right labels of hard samples are changed, too, and on data without wrong
    labels nothing else can happen. ``wrong_flip_share_`` says how likely: labels that are known by
    now are made wrong on purpose and repaired, and the margins of all flips are compared with
    those. On six sets that had no part in it the estimate is off by .2 in the mean. It can't tell
    where a kernel that can't learn the task makes labels agree with itself; there predictions
    agree with few of the given labels, and `fit` warns that no number tells. Look at `review`
    before you use ``labels_`` where it is high.

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
    >>> noisy[::10] = (noisy[::10] + np.random.default_rng(0).integers(1, 10, 180)) % 10
    >>> refurbisher = LabelRefurbisher().fit(X, noisy)
    >>> float((noisy == y).mean().round(3)), float((refurbisher.labels_ == y).mean().round(3))
    (0.9, 0.992)
    """

    _parameter_constraints = {
        "kernel": [callable, HasMethods(["kernel_matrix"]), StrOptions({"precomputed"}), None],
        "method": [StrOptions(set(RIDGES))],
        "ridge": [Interval(Real, 0, None, closed="left"), None],
        "beta": [Interval(Real, 0, None, closed="left")],
        "min_margin": [Interval(Real, None, None, closed="both"), StrOptions({"auto"})],
        "max_iter": [Interval(Integral, 0, None, closed="left"), None],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
        "standardize": [StrOptions({"auto"}), "boolean"],
        "memory": [str, HasMethods(["cache"]), None],
        "verbose": ["verbose"],
    }

    def __init__(
        self,
        kernel=None,
        *,
        method="loo",
        ridge=None,
        beta=1.0,
        min_margin="auto",
        max_iter=None,
        batch_size=1,
        standardize="auto",
        memory=None,
        verbose=0,
    ):
        self.kernel = kernel
        self.method = method
        self.ridge = ridge
        self.beta = beta
        self.min_margin = min_margin
        self.max_iter = max_iter
        self.batch_size = batch_size
        self.standardize = standardize
        self.memory = memory
        self.verbose = verbose

    @with_callbacks
    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y=None):
        """Find the labels to be repaired.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...) or (n_samples, n_samples)
            Samples: an array, a table, a data set of arrays, or what a callable kernel takes; with
            ``kernel="precomputed"`` their Gram matrix.
        y : array-like of shape (n_samples,)
            Labels, some of them wrong. None takes those of a data set's items.

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
            If more than half of the repairs are likely wrong, if too few of the given labels are
            predicted for that to be told, if a class loses most of its labels, if one has a single
            sample (it is left out of the within-class term), or if the ridge was raised.
        """
        with unfitted_on_error(self):
            progress = FitProgress(self, 3, X, y, verbose=self.verbose)
            self._names, form = index_of(X, y), y
            ours, any_dtype = self._is_ours, not (self._is_ours or isinstance(self.kernel, str))
            X, y = given(self, X, y, tables=self._takes_tables, any_dtype=any_dtype)
            self.classes_, columns = checked_labels(y, n_samples_of(X))
            ridge = RIDGES[self.method] if self.ridge is None else self.ridge
            with progress.stage("invert the Gram matrix"):
                X = self._scaled(X, columns, ridge) if ours else X
                key = {"kernel": self.kernel, "X": X, "ridge": ridge}
                M = cached(self.memory, "inverse", _inverse, key, self.kernel, X, ridge)
            labelling = Labelling(M, columns, len(self.classes_))
            warn_of_single(labelling.counts, self.classes_)
            agrees = labelling.leave_one_out.argmax(axis=1) == columns
            self.loo_accuracy_ = float(agrees.mean())
            wrong = self._estimated(labelling, columns)
            with progress.stage("repair labels"):
                found = self._repaired(labelling)
            with progress.stage("estimate the harm"):
                share = wrong_flip_share(labelling, found.first, self._repaired, self.min_margin_)
            self._store(labelling, columns, found, form)
            self.estimated_precision_ = wrong.precision(len(found.rows))
            self.wrong_flip_share_ = share
            lost = lost_class(columns, labelling.columns, self.classes_)
            told = tell_of_harm(len(found.rows), len(columns), share, self.loo_accuracy_, lost)
            if self.verbose:
                print(f"[{type(self).__name__}] {told}")
            progress.end()
        return self

    @property
    def _is_ours(self):
        return self.kernel is None or isinstance(self.kernel, _InfiniteWidthKernel)

    @property
    def _takes_tables(self):
        return self._is_ours and self.standardize is not False

    def _scaled(self, X, columns, ridge):
        """X as the infinite-width kernel takes it, its columns standardised where that is due."""
        X = _encoded(X)
        if (X[:1] == X).all():
            raise ValueError(
                f"All {len(X)} rows of X are equal: nothing tells whose label is wrong."
            )
        self.standardized_ = False
        if X.ndim == 2:
            kernel = InfiniteWidthNTK() if self.kernel is None else self.kernel
            K = len(self.classes_)
            X, self.standardized_ = chosen(kernel, X, columns, K, ridge, self.standardize)
        return X

    def _as_compared(self, X):
        """The samples of `fit`, as the kernel got them."""
        if not self._is_ours:
            return X
        X = _encoded(X)
        return standardized(X) if self.standardized_ else X

    def _estimated(self, labelling, columns):
        """How many labels are wrong, and by what margin and how often labels are flipped."""
        wrong = WrongLabels.among(labelling.leave_one_out, columns)
        self.estimated_noise_, is_auto = wrong.share, self.min_margin == "auto"
        self.min_margin_ = wrong.least_margin() if is_auto else float(self.min_margin)
        self._max_flips = wrong.count if is_auto and self.max_iter is None else self.max_iter
        return wrong

    def _repaired(self, labelling):
        return repaired(
            labelling,
            method=self.method,
            beta=self.beta,
            min_margin=self.min_margin_,
            max_iter=self._max_flips,
            batch_size=self.batch_size,
        )

    def _store(self, labelling, given, found, form):
        """Keep what was found, in the caller's terms."""
        scores, rows = labelling.leave_one_out, found.rows
        old, new = self.classes_[given[rows]], self.classes_[labelling.columns[rows]]
        self._flips = rows, old, new, found.last
        self.labels_ = like(form, self.classes_[labelling.columns])
        self.error_path_ = found.error_path
        self.label_quality_ = np.clip((1 + margins_of(scores, given)) / 2, 0, 1)
        self._best = self.classes_[scores.argmax(axis=1)]

    @property
    def flips_(self):
        """What was changed, as a frame."""
        check_is_fitted(self, "_flips")
        pd = check_pandas_support("LabelRefurbisher.flips_")
        rows, old, new, margin = self._flips
        index = pd.RangeIndex(len(self.label_quality_)) if self._names is None else self._names
        columns = {"row": rows, "old": old, "new": new, "margin": margin}
        return pd.DataFrame(columns, index=index.take(rows))

    def review(self, X, n=20):
        """The samples whose labels are the first to be looked at, the most doubtful one first.

        Parameters
        ----------
        X : as for `fit`
            The same samples; the columns of a frame come along.
        n : int, default=20
            The most rows.

        Returns
        -------
        frame : pandas.DataFrame of shape (min(n, n_samples), ...)
            Under the index of X or y where these have one: the position ``row``, the ``label``
            given, the one that leave-one-out prediction ``suggested`` prefers, the ``quality`` of
            the given one, whether it was ``changed``, and the columns of a frame.

        Raises
        ------
        ValueError
            If X has another number of samples, or n is no int of at least 1.
        """
        check_is_fitted(self)
        pd = check_pandas_support("LabelRefurbisher.review")
        if not isinstance(n, Integral) or n < 1:
            raise ValueError(f"n must be an int of at least 1; got {n!r}.")
        if n_samples_of(X) != len(self.label_quality_):
            raise ValueError(
                f"X has {n_samples_of(X)} samples, and the labels are those of "
                f"{len(self.label_quality_)}: pass the X that fit got."
            )
        own = getattr(X, "index", None) if hasattr(X, "iloc") else None
        if own is not None and self._names is not None and not own.equals(self._names):
            raise ValueError(
                "The index of X is another one than in fit, or in another order, so that labels "
                "would stand beside other rows: pass X.loc[index] in the order of fit."
            )
        rows = np.argsort(self.label_quality_, kind="stable")[:n]
        index = pd.RangeIndex(len(self.label_quality_)) if self._names is None else self._names
        changed, labels = np.isin(rows, self._flips[0]), self._given_labels()
        columns = {
            "row": rows,
            "label": labels[rows],
            "suggested": self._best[rows],
            "quality": self.label_quality_[rows],
            "changed": changed,
        }
        frame = pd.DataFrame(columns, index=index.take(rows))
        if not hasattr(X, "iloc"):
            return frame
        features = rows_of(X, rows).set_axis(frame.index)
        features.columns = [f"{c} of X" if c in columns else c for c in features.columns]
        return pd.concat([frame, features], axis=1)

    def _given_labels(self):
        labels = np.asarray(self.labels_).copy()
        labels[self._flips[0]] = self._flips[1]
        return labels

    def fit_refurbish(self, X, y=None):
        """Find the labels to be repaired, and return the repaired ones.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...) or (n_samples, n_samples)
            As for `fit`.
        y : array-like of shape (n_samples,)
            Labels, some of them wrong.

        Returns
        -------
        labels : array-like of shape (n_samples,)
            As ``labels_``.

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
        tags.input_tags.sparse = self._is_ours
        tags.input_tags.allow_nan = self._takes_tables
        return tags
