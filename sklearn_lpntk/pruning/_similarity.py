"""Similarities within one class: rows and row means, as an array where it fits."""

import numpy as np
from sklearn import get_config

from .._engine.rows import SpeculativeRows


class OperatorRows:
    """Raw kernel of an operator; the whole array where it fits in the working memory."""

    def __init__(self, operator):
        self.operator = operator
        n = operator.shape[0]
        fits = n * n * operator.dtype.itemsize <= get_config()["working_memory"] * 2**20
        self._array = operator.toarray() if fits else None
        self._rows = None if fits else SpeculativeRows(operator.kernel)

    def __len__(self):
        return self.operator.shape[0]

    def row(self, i, priority):
        """Similarity to all; samples of low priority are the likeliest to be asked for next."""
        return self._rows(i, priority) if self._array is None else self._array[i]

    def block(self, rows):
        """Similarity of some to all."""
        return self.operator.block(rows, slice(None)) if self._array is None else self._array[rows]

    def mean(self):
        """Mean over all samples of the class, for each."""
        if self._array is not None:
            return self._array.mean(axis=1, dtype=np.float64)
        return self.operator.matmul(np.full(len(self), 1 / len(self))).astype(np.float64)


class ArrayRows:
    """A kernel that is an array."""

    def __init__(self, K):
        self.K = K

    def __len__(self):
        return len(self.K)

    def restricted(self, rows):
        """That of some samples."""
        return ArrayRows(self.K[np.ix_(rows, rows)])

    def row(self, i, priority):
        return self.K[i]

    def mean(self):
        return self.K.mean(axis=1)


class FeatureRows:
    """Inner products of features."""

    def __init__(self, phi):
        self.phi = phi

    def __len__(self):
        return len(self.phi)

    def restricted(self, rows):
        """Those of some samples."""
        return FeatureRows(self.phi[rows])

    def row(self, i, priority):
        return self.phi @ self.phi[i]

    def mean(self):
        return self.phi @ self.phi.mean(axis=0)


class CosineRows(OperatorRows):
    """Cosines of an operator's features; 0 for a sample without gradient."""

    def __init__(self, operator):
        super().__init__(operator)
        norms = np.sqrt(np.maximum(operator.diag().astype(np.float64), 0))
        self._scale = np.divide(1, norms, out=np.zeros_like(norms), where=norms > 0)

    def row(self, i, priority):
        return _snapped(super().row(i, priority) * (self._scale * self._scale[i]))

    def block(self, rows):
        return _snapped(super().block(rows) * self._scale[rows, None] * self._scale)

    def mean(self):
        if self._array is not None:
            return self._scale * (self._array @ self._scale) / len(self)
        return self._scale * self.operator.matmul(self._scale / len(self))


class EuclideanRows:
    """Negative squared distances of embeddings."""

    def __init__(self, Z):
        self.Z = np.asarray(Z, dtype=np.float64)

    def __len__(self):
        return len(self.Z)

    def row(self, i, priority):
        difference = self.Z - self.Z[i]
        return -np.einsum("ij,ij->i", difference, difference)

    def mean(self):
        # mean_j |z_i - z_j|^2 = |z_i|^2 - 2 z_i . m + mean_j |z_j|^2
        norms = np.einsum("ij,ij->i", self.Z, self.Z)
        return -(norms - 2 * self.Z @ self.Z.mean(axis=0) + norms.mean())


class CosineVectorRows:
    """Cosines of flat inputs."""

    def __init__(self, X):
        X = np.asarray(X, dtype=np.float64).reshape(len(X), -1)
        norms = np.linalg.norm(X, axis=1, keepdims=True)
        self.X = np.divide(X, norms, out=np.zeros_like(X), where=norms > 0)

    def __len__(self):
        return len(self.X)

    def row(self, i, priority):
        return _snapped(self.X @ self.X[i])

    def mean(self):
        return self.X @ self.X.mean(axis=0)


def _snapped(cosines):
    """Exactly 1 for equal samples: rounding must not order what is tied."""
    return np.where(cosines > 1 - 1e-12, 1.0, cosines)
