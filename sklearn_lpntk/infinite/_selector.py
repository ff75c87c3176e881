"""ArchitectureSelector: which kernel separates the classes best in a few components."""

import time
from numbers import Integral, Real

import numpy as np
from scipy.linalg import eigh
from sklearn.base import (
    BaseEstimator,
    ClassNamePrefixFeaturesOutMixin,
    TransformerMixin,
    _fit_context,
    clone,
)
from sklearn.preprocessing import KernelCenterer
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_is_fitted

from .._gram import checked_labels, gram_of
from .._runtime.fitting import unfitted_on_error
from .._samples.given import given
from .._samples.inputs import as_one_array
from ._entanglement import class_distance_ratio

SCORINGS = {"class_distance_ratio": class_distance_ratio}


class ArchitectureSelector(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Choose an architecture by how well its kernel separates the classes, before any training.

    Each kernel projects the samples on a few of its principal components; the one in which classes
    are farthest apart, compared with their own extent, is chosen.

    Parameters
    ----------
    kernels : list of (str, callable)
        Names and kernels; ``kernel(X, Y)`` returns the Gram matrix, as those of
        :class:`InfiniteWidthNTK` do.
    n_components : int, default=4
        Principal components of each kernel.
    components : {"leading", "trailing"}, default="leading"
        Those of the largest eigenvalues, or of the smallest ones, as in [1]_ (mostly noise:
        classes are not separated there).
    scoring : {"class_distance_ratio"} or callable, default="class_distance_ratio"
        ``scoring(P, y)`` of the projected samples; the largest is the best.
    max_samples : int, default=2000
        If there are more samples, this many are drawn, stratified by class: eigenvectors take
        cubic time.
    random_state : int, RandomState instance or None, default=None
        For that draw.

    Attributes
    ----------
    scores_ : ndarray of shape (n_kernels,)
        In the order of ``kernels``.
    best_index_ : int
        The largest score; the first one of equals.
    best_kernel_ : callable
        A clone of the one given.
    results_ : dict of ndarray
        ``name, score``, ``explained_variance_ratio`` (of the components together) and ``seconds``
        (on the clock, of the kernel, its components and the score);
        ``pandas.DataFrame(results_)`` is a table of it.
    n_features_in_ : int
        Number of features seen in `fit`.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of features seen in `fit`, where X has string names.

    See Also
    --------
    class_distance_ratio : The score.

    Notes
    -----
    A score compares kernels on the same samples. It says how far classes lie apart under the
    kernel's geometry, not how accurate a trained network of this architecture will be.

    References
    ----------
    .. [1] DeOliveira, Gerych and Rundensteiner, "The Surprising Effectiveness of Infinite-Width
       NTKs for Characterizing and Improving Model Training", AAAI.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn_lpntk.infinite import ArchitectureSelector, InfiniteWidthNTK
    >>> X, y = load_digits(return_X_y=True)
    >>> kernels = [(f"depth {d}", InfiniteWidthNTK(d)) for d in (1, 10)]
    >>> selector = ArchitectureSelector(kernels, max_samples=500, random_state=0).fit(X, y)
    >>> selector.results_["name"][selector.best_index_]
    'depth 10'
    >>> selector.transform(X).shape
    (1797, 4)
    """

    _parameter_constraints = {
        "kernels": [list, tuple],
        "n_components": [Interval(Integral, 1, None, closed="left")],
        "components": [StrOptions({"leading", "trailing"})],
        "scoring": [StrOptions(set(SCORINGS)), callable],
        "max_samples": [Interval(Integral, 2, None, closed="left")],
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        kernels,
        *,
        n_components=4,
        components="leading",
        scoring="class_distance_ratio",
        max_samples=2000,
        random_state=None,
    ):
        self.kernels = kernels
        self.n_components = n_components
        self.components = components
        self.scoring = scoring
        self.max_samples = max_samples
        self.random_state = random_state

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y):
        """Score all kernels and keep the best one's components.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...)
            Samples.
        y : array-like of shape (n_samples,)
            Their labels.

        Returns
        -------
        self : ArchitectureSelector

        Raises
        ------
        ValueError
            If ``kernels`` is empty or holds anything but pairs of unique names and callables, if
            there are no more samples than components, if ``max_samples`` is less than two for each
            class, if y has one class, if a kernel returns no Gram matrix or has no variance in its
            components, or if a score is no number.
        """
        with unfitted_on_error(self):
            named = self._named_kernels()
            X, y = given(self, X, y, any_dtype=True)
            X = X if isinstance(X, np.ndarray) else as_one_array(X)
            classes, columns = checked_labels(y, len(X))
            if self.max_samples < 2 * len(classes):
                raise ValueError(
                    f"max_samples={self.max_samples} is too few for {len(classes)} classes; give "
                    f"two samples for each, {2 * len(classes)}, or more."
                )
            rows = _drawn(columns, self.max_samples, check_random_state(self.random_state))
            X, y = X[rows], y[rows]
            if len(X) <= self.n_components:
                raise ValueError(
                    f"n_components={self.n_components} needs more samples than that; there are "
                    f"{len(X)}."
                )
            found, results = zip(*(self._scored(*pair, X, y) for pair in named), strict=True)
            self._keep(named, found, results)
        return self

    def _scored(self, name, kernel, X, y):
        """The components of a kernel, and a row of the results."""
        start = time.perf_counter()
        scoring = SCORINGS.get(self.scoring, self.scoring)
        try:
            components = _Components(kernel, X, self.n_components, self.components)
            score = scoring(components.of_fit(), y)
        except (ValueError, TypeError) as error:
            kind = ValueError if isinstance(error, ValueError) else TypeError
            raise kind(f"The kernel {name!r} can't be scored: {error}") from error
        if not isinstance(score, Real) or np.isnan(score):
            raise ValueError(
                f"The score of the kernel {name!r} must be a number; scoring={scoring!r} "
                f"returned {score!r}."
            )
        return components, (name, float(score), components.explained, time.perf_counter() - start)

    def _keep(self, named, found, results):
        names = ("name", "score", "explained_variance_ratio", "seconds")
        columns = zip(*results, strict=True)
        self.results_ = {k: np.array(v) for k, v in zip(names, columns, strict=True)}
        self.results_["name"] = self.results_["name"].astype(object)
        self.scores_ = self.results_["score"]
        self.best_index_ = int(np.argmax(self.scores_))
        self.best_kernel_ = clone(named[self.best_index_][1], safe=False)
        self._best_ = found[self.best_index_]
        self._n_features_out = self.n_components

    def _named_kernels(self):
        pairs = list(self.kernels)
        are_pairs = all(
            isinstance(p, tuple | list) and len(p) == 2 and isinstance(p[0], str) for p in pairs
        )
        if not pairs or not are_pairs or not all(callable(k) for _, k in pairs):
            raise ValueError(
                "kernels must be a list of one or more pairs (name, kernel), a string and a "
                f"callable as InfiniteWidthNTK(); got {self.kernels!r:.100}."
            )
        names = [name for name, _ in pairs]
        if len(set(names)) < len(names):
            raise ValueError(f"The names of kernels must be unique; got {names}.")
        return [(name, clone(kernel, safe=False)) for name, kernel in pairs]

    def transform(self, X):
        """Project samples on the components of the best kernel.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...)
            Samples.

        Returns
        -------
        P : ndarray of shape (n_samples, n_components)
        """
        check_is_fitted(self)
        X, _ = given(self, X, reset=False, any_dtype=True)
        return self._best_.transform(X)

    def __sklearn_is_fitted__(self):
        return hasattr(self, "best_index_")

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        tags.input_tags.three_d_array = tags.input_tags.sparse = True
        return tags


def _drawn(columns, n, rng):
    """Rows of a draw in which every class has its share, and two at least, in order."""
    if len(columns) <= n:
        return np.arange(len(columns))
    order = rng.permutation(len(columns))
    within = np.empty(len(columns))
    for c in np.unique(columns):
        mine = order[columns[order] == c]
        within[mine] = (np.arange(len(mine)) + 0.5) / len(mine)
        within[mine[:2]] = -1
    return np.sort(order[np.argsort(within[order], kind="stable")[:n]])


class _Components:
    """Some principal components of a kernel on samples."""

    def __init__(self, kernel, X, n_components, which):
        self.kernel, self.X = kernel, X
        H = gram_of(kernel, X)
        self.centerer = KernelCenterer().fit(H)
        largest = np.abs(H).max()
        H = self.centerer.transform(H)
        n = len(H)
        # the smallest eigenvalue of a centred matrix is the zero of the constant vector
        first, last = (n - n_components, n - 1) if which == "leading" else (1, n_components)
        values, vectors = eigh(H, subset_by_index=[first, last])
        signs = np.sign(vectors[np.abs(vectors).argmax(0), np.arange(vectors.shape[1])])
        self.values = np.maximum(values[::-1], 0)
        self.vectors = (vectors * signs)[:, ::-1]
        # what is left of a constant kernel, or beyond the rank of another, is rounding
        self.values[self.values <= n * np.finfo(float).eps * largest] = 0
        if not self.values.any():
            raise ValueError(
                f"it has no variance in its {which} {n_components} components; its centred Gram "
                "matrix is constant or of low rank."
            )
        self.explained = float(self.values.sum() / np.trace(H))

    def of_fit(self):
        return self.vectors * np.sqrt(self.values)

    def transform(self, X):
        K = self.centerer.transform(np.asarray(self.kernel(X, self.X), dtype=np.float64))
        scale = np.sqrt(self.values)
        inverse = np.divide(1.0, scale, out=np.zeros_like(scale), where=scale > 0)
        return K @ (self.vectors * inverse)
