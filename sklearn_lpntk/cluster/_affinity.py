"""Affinities of feature vectors: the diagonal, single rows, and blocks of a similarity."""

import numpy as np
from scipy.spatial.distance import cdist
from sklearn.preprocessing import normalize
from sklearn.utils import check_array


class EuclideanAffinity:
    """Negative squared distances, by differences: equal rows are exactly equally far."""

    def __init__(self, X):
        self.X = X
        self.diagonal = np.zeros(len(X), dtype=X.dtype)

    def row(self, i, similarity=None):
        difference = self.X - self.X[i]
        return -np.einsum("ij,ij->i", difference, difference)

    @staticmethod
    def block(X, Y):
        return -cdist(X, Y, "sqeuclidean")


class LinearAffinity:
    """Inner products."""

    def __init__(self, X):
        self.X = X
        self.diagonal = np.einsum("ij,ij->i", X, X)

    def row(self, i, similarity=None):
        return self.X @ self.X[i]

    @staticmethod
    def block(X, Y):
        return X @ Y.T


class CosineAffinity(LinearAffinity):
    """Cosines; a sample's with itself is exactly 1, or 0 for a row of zeros."""

    def __init__(self, X):
        self.X = normalize(X)
        self.diagonal = self.X.any(axis=1).astype(self.X.dtype)

    def row(self, i, similarity=None):
        row = super().row(i, similarity)
        row[i] = self.diagonal[i]
        return row

    @staticmethod
    def block(X, Y):
        return normalize(X) @ normalize(Y).T


class ArrayAffinity:
    """A given similarity matrix."""

    def __init__(self, K):
        self.K = K
        self.diagonal = K.diagonal()

    def row(self, i, similarity=None):
        return self.K[i]


AFFINITIES = {
    "euclidean": EuclideanAffinity,
    "linear": LinearAffinity,
    "cosine": CosineAffinity,
}


def check_similarity(K, name):
    """A square, symmetric similarity, or a ValueError that says what it is instead."""
    if K.ndim != 2 or K.shape[0] != K.shape[1]:
        raise ValueError(
            f"{name} must be a square matrix of similarities of shape (n_samples, n_samples); "
            f"got shape {K.shape}. Features go with affinity='euclidean', 'linear' or 'cosine'."
        )
    gap = np.abs(K - K.T).max()
    if gap > 1e-4 * np.abs(K).max():
        raise ValueError(
            f"{name} must be symmetric (to 1e-4 of its largest entry): K[i, j] and K[j, i] "
            f"differ by up to {gap:.3g}. Pass (K + K.T) / 2 if that is what you mean."
        )
    return K


def callable_block(affinity, X, Y):
    """``affinity(X, Y)``, checked to be a block of similarities."""
    block = check_array(affinity(X, Y), input_name="affinity(X, Y)")
    if block.shape != (len(X), len(Y)):
        raise ValueError(
            f"The affinity callable must return an array of shape {(len(X), len(Y))} for "
            f"{len(X)} and {len(Y)} rows; it returned {block.shape}."
        )
    return block
