"""Checked Gram matrices and labels, and Cholesky factors of regularised Gram matrices."""

import sys
import warnings
from numbers import Real

import numpy as np
import torch
from scipy.linalg import cho_solve
from scipy.linalg.lapack import dpotrf, dpotri, dtrtri
from sklearn.utils import check_array, column_or_1d
from sklearn.utils.multiclass import check_classification_targets

from ._runtime.memory import available
from ._samples.given import n_samples_of
from ._samples.labels import require_classes

JITTERS = (0, 1e-10, 1e-8, 1e-6, 1e-5, 1e-4)  # added to the ridge where H is PSD but for rounding
BLOCK = 256  # rows that are compared with, or copied from, the other triangle at once


def checked_gram(H):
    """A Gram matrix as a finite, square, symmetric array of float64.

    Raises
    ------
    ValueError
        If it is anything else, or if its copy in double precision does not fit into memory.
    """
    if getattr(H, "dtype", None) != np.float64 and np.ndim(H) == 2:
        require_memory(len(H), "Converting")
    H = check_array(H, dtype=np.float64, input_name="H", ensure_min_samples=2)
    if H.shape[0] != H.shape[1]:
        raise ValueError(
            f"H must be a Gram matrix of shape (n_samples, n_samples); got {H.shape}. To pass "
            "samples, evaluate a kernel first: H = InfiniteWidthNTK()(X)."
        )
    return _symmetric(H)


def _symmetric(H):
    """H, or where it is asymmetric by rounding the mean of it and its transpose."""
    norms = np.sqrt(np.abs(np.diag(H)))
    norms = np.maximum(norms, 1e-6 * norms.max() or 1.0)
    is_exact = True
    for r, c in _blocks_below(len(H)):
        difference = np.abs(H[r, c] - H[c, r].T)
        if not difference.any():
            continue
        is_exact = False
        i, j = np.unravel_index((difference / norms[r, None] / norms[c]).argmax(), difference.shape)
        i, j = r.start + i, c.start + j
        if abs(H[i, j] - H[j, i]) > 1e-4 * norms[i] * norms[j]:
            raise ValueError(
                f"H must be symmetric; H[{i}, {j}] is {H[i, j]:.5g} and H[{j}, {i}] is "
                f"{H[j, i]:.5g}, where the diagonal has {H[i, i]:.3g} and {H[j, j]:.3g}."
            )
    if is_exact:
        return H
    require_memory(len(H), "Symmetrising")
    mean = H + H.T
    mean /= 2
    return mean


def as_matrix(K):
    """What a callable kernel returns, as an array."""
    return K.detach().cpu().numpy() if isinstance(K, torch.Tensor) else np.asarray(K)


def gram_of(kernel, X):
    """The checked Gram matrix of samples under a callable kernel."""
    if isinstance(kernel, type):
        raise ValueError(f"kernel is the class {kernel.__name__}; pass an instance of it.")
    if isinstance(kernel, torch.nn.Module):
        raise TypeError(
            f"kernel is a network, {type(kernel).__name__}; pass its kernel, "
            "lambda X: sklearn_lpntk.kernels.pntk_kernel(net, X), or a fitted "
            "sklearn_lpntk.linearized.NTKClassifier of it."
        )
    H = checked_gram(as_matrix(getattr(kernel, "kernel_matrix", kernel)(X)))
    if len(H) != n_samples_of(X):
        raise ValueError(
            f"kernel gives {len(H)} rows for {n_samples_of(X)} samples; one a sample is needed: of "
            'a linearised network take kernel="pntk" or "entk_trace".'
        )
    return H


def _blocks_below(n):
    """Rows and columns of blocks that cover the lower triangle; they fit into a cache."""
    starts = range(0, n, BLOCK)
    return [(slice(r, r + BLOCK), slice(c, c + BLOCK)) for r in starts for c in starts if c <= r]


def checked_labels(y, n_samples, classes=None):
    """Classes and the column of each label; at least two classes.

    Parameters
    ----------
    y : array-like of shape (n_samples,)
        Their labels.
    n_samples : int
    classes : array-like, default=None
        All classes, where y may lack some.

    Returns
    -------
    classes : ndarray of shape (n_classes,)
        Sorted.
    columns : ndarray of shape (n_samples,)
    """
    y = column_of_labels(y)
    if len(y) != n_samples:
        raise ValueError(f"y has {len(y)} labels, and H is of {n_samples} samples.")
    given = np.unique(y)
    classes = given if classes is None else np.unique(classes)
    missing = np.setdiff1d(given, classes)
    if len(missing):
        raise ValueError(f"y has the labels {missing.tolist()}, which are not in classes.")
    if len(classes) < 2:
        raise ValueError(
            f"y has one class only ({classes[0]}); labels can be compared with two classes or more."
        )
    return classes, np.searchsorted(classes, y)


def column_of_labels(y):
    """Labels of classes as an array of one dimension, none of them missing."""
    require_classes(y)
    y = column_or_1d(y, warn=True)
    check_classification_targets(y)
    return y


def warn(message, category=UserWarning):
    """Warn at the caller's line, outside of this library and of scikit-learn."""
    level, frame = 2, sys._getframe(1)
    while frame.f_back and frame.f_globals.get("__name__", "").split(".")[0] in (
        "sklearn_lpntk",
        "sklearn",
    ):
        level, frame = level + 1, frame.f_back
    warnings.warn(message, category, stacklevel=level)


def one_hot(columns, n_classes):
    """The label matrix Y of shape (n_samples, n_classes)."""
    return np.eye(n_classes)[columns]


def checked_number(value, name, *, above=None, at_least=None):
    """A finite number in a range, or a ValueError."""
    is_number = isinstance(value, Real) and np.isfinite(value)
    if above is not None and not (is_number and value > above):
        raise ValueError(f"{name} must be a number above {above}; got {value!r}.")
    if at_least is not None and not (is_number and value >= at_least):
        raise ValueError(f"{name} must be a number of at least {at_least}; got {value!r}.")
    return value


class Factor:
    """Cholesky factor of ``H + ridge scale I``; one serves all labellings of the same samples.

    Parameters
    ----------
    H : ndarray of shape (n_samples, n_samples)
        Checked.
    ridge : float
        In units of ``scale``.
    scale : float, default=None
        None means the mean of the diagonal of H.
    option : str
        What the caller calls the ridge.

    Attributes
    ----------
    ridge : float
        As given, or larger where H was not positive definite with it.
    """

    def __init__(self, H, ridge, *, scale=None, option="ridge"):
        require_memory(len(H), "Factorising")
        scale = np.trace(H) / len(H) if scale is None else scale
        if not scale > 0:
            raise ValueError(f"The mean of the diagonal of H is {scale:.3g}; it must be positive.")
        A = np.empty_like(H, order="F")
        for jitter in JITTERS:
            self.ridge = ridge + jitter
            np.copyto(A, H.T)
            A.flat[:: len(H) + 1] += self.ridge * scale
            largest = A.diagonal().max()
            self._chol, failed = dpotrf(A, lower=1, clean=0, overwrite_a=1)
            if not failed and is_sound(self._chol, largest):
                break
        else:
            raise not_positive(ridge, self.ridge, option)
        if jitter:
            warn_of_jitter(ridge, self.ridge, option)

    @property
    def lower(self):
        """The factor as a triangular matrix."""
        return np.tril(self._chol)

    def solve(self, Y):
        """M Y, with M the inverse."""
        return cho_solve((self._chol, True), Y, check_finite=False)

    def inverse(self):
        """M itself, symmetric; the factor is used up."""
        M, failed = dpotri(self._chol, lower=1, overwrite_c=1)
        del self._chol
        assert not failed
        for r, c in _blocks_below(len(M)):
            block = M[r, c] if r != c else np.tril(M[r, c]) + np.tril(M[r, c], -1).T
            M[c, r] = block.T
        return M

    def inverse_root(self):
        """A matrix V with ``V V' = M``; the factor is used up."""
        L, failed = dtrtri(self._chol, lower=1, overwrite_c=1)
        del self._chol
        assert not failed
        return np.tril(L).T

    def inverse_blocks(self, size):
        """The blocks of M of so many rows on its diagonal; the factor is used up."""
        L, failed = dtrtri(self._chol, lower=1, overwrite_c=1)
        del self._chol
        assert not failed
        blocks = np.empty((len(L) // size, size, size))
        step = max(1, BLOCK // size)
        for start in range(0, len(blocks), step):
            cols = slice(start * size, min(start + step, len(blocks)) * size)
            part = L[cols.start :, cols]
            n = part.shape[1]
            part[:n] = np.tril(part[:n])
            part = part.reshape(len(part), -1, size)
            np.einsum("kia,kib->iab", part, part, out=blocks[start : start + step], optimize=True)
        return blocks


def is_sound(L, largest):
    """Whether the pivots of a Cholesky factor are more than rounding of the largest entry."""
    return L.diagonal().min() ** 2 > max(1e-11, 20 * len(L) * np.finfo(float).eps) * largest


def not_positive(ridge, highest, option):
    """The error of a matrix that is no Gram matrix."""
    return ValueError(
        f"{_what(option)} is not positive semidefinite: its Cholesky factorisation fails with "
        f"{option}={ridge:g} and up to {highest:.3g} of the mean of its diagonal. It is no Gram "
        f"matrix of a kernel, or one of too little precision: then raise {option}."
    )


def warn_of_jitter(ridge, taken, option):
    """Say that a larger ridge was taken."""
    what = _what(option)
    warn(f"{what} is not positive definite with {option}={ridge:g}; {taken:.3g} was taken.")


def _what(option):
    """What a user calls the matrix: that of a function, or an estimator's kernel."""
    return "H" if option == "ridge" else "The kernel"


def require_memory(n, what):
    """Refuse a matrix of doubles that can't be had, before it is allocated."""
    free = available(torch.device("cpu"))
    needed = 8 * n * n
    if free is not None and needed > free:
        raise ValueError(
            f"{what} H of {n:,} samples needs {needed / 2**30:.3g} GiB more, and "
            f"{free / 2**30:.3g} GiB are free; up to {int((free / 8) ** 0.5):,} samples would fit."
        )
