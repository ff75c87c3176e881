"""Where a kernel matrix comes from: a network's features, a callable, or the caller."""

import copy
import sys

import numpy as np
import torch

from .._engine.inputs import take
from .._engine.kernel import TILE_ROWS, Kernel
from .._engine.sources import Precise, subset
from .._features import extract, features_key, make_extractor
from .._gram import as_matrix, checked_gram, gram_of
from .._operator import KernelOperator
from .._runtime.cache import cached

FEW = 8  # samples by which vanishing sums of outputs are found
CANCELLED = 1e-9  # of the squared norm of a single output's gradient
NAMES = "pntk", "pntk_first", "entk", "entk_trace"
SIDE = 2 * TILE_ROWS["cpu"]  # rows of a tile in double precision


class Features:
    """Tangent features of a network's samples, under one plan and one sketch.

    Parameters
    ----------
    network : Network
    kernel : str
    parameters, n_components, seed, memory
        As for :func:`~sklearn_lpntk.kernels.empirical_ntk`.
    plan : Plan, optional
        That of the training samples, for others.
    """

    def __init__(
        self, network, kernel, parameters=None, n_components=None, seed=None, memory=None, plan=None
    ):
        self.network, self.plan = network, plan
        self._options = {"kernel": kernel, "parameters": parameters}
        self._sketch, self._memory = (n_components, seed), memory

    def __call__(self, inputs):
        """Features of samples as the network takes them."""
        given = self.plan
        extractor = make_extractor(self.network, plan=given, **self._options)

        def compute():
            if given is None and self._options["kernel"] == "pntk":
                self._require_sums(extractor, take(inputs, slice(0, FEW)))
            return extract(extractor, inputs, None, *self._sketch), extractor.plan

        if self._memory is None:
            features, plan = compute()
        else:
            key = self.key(inputs, extractor) | {"plan": repr(given)}
            features, plan = cached(
                self._memory, "tangent features", compute, key, worth=_is_in_memory
            )
        if given is not None and not plan.fits(given):
            raise ValueError(
                "These samples take a path through the network that no training sample took, on "
                "which parameters are used in another way; their features do not fit those of the "
                "training samples. Fit again with such samples among them."
            )
        self.plan = plan
        return features

    def _require_sums(self, extractor, few):
        """Refuse the sum of outputs that add up to a constant: its gradients are rounding."""
        options = self._options | {"kernel": "pntk_first", "plan": extractor.plan}
        if sums_cancel(extractor, make_extractor(self.network, **options), few):
            raise ValueError(
                'kernel="pntk" compares sums of the outputs, and those of this network add up to a '
                "constant, whatever its parameters are (a last softmax, or a normalisation over "
                'the outputs?): take kernel="entk_trace", or "entk".'
            )

    def key(self, inputs, extractor=None):
        """What the features of samples depend on, by name."""
        extractor = extractor or make_extractor(self.network, **self._options)
        return features_key(extractor, [(inputs, None)], *self._sketch)


def sums_cancel(extractor, of_the_first, few):
    """Whether the outputs of a few samples add up to a constant, beside the first output."""
    norms = [of(few).diagonal().double().mean() for of in (extractor, of_the_first)]
    return bool(norms[0] < CANCELLED * norms[1])


def _is_in_memory(found):
    return found[0].in_memory


class TangentKernel:
    """The kernel of features, with products in double precision.

    Attributes
    ----------
    n_rows : int
        Rows of a sample.
    """

    def __init__(self, features):
        self.features, self.n_rows = features, features.n_cotangents
        self._operator = KernelOperator._of(self._kernel(features))

    @staticmethod
    def _kernel(left, right=None):
        side = max(1, SIDE // left.n_cotangents)
        known = (side, side) if left.in_memory and left.device.type == "cpu" else None
        left = Precise(left)
        right = left if right is None else Precise(right)
        return Kernel(left, right, schedule=known)

    @classmethod
    def matrix(cls, left, right=None):
        """The kernel of all pairs of samples of features, an array of its own."""
        return KernelOperator._of(cls._kernel(left, right)).toarray()

    @property
    def n_bytes(self):
        """Memory that the features take."""
        return self.features.sample_bytes * self.features.n_samples

    def gram(self):
        """The whole matrix, an array of its own."""
        return self._operator.toarray()

    def diagonal(self):
        """Its diagonal."""
        return self._operator.diag()

    def matmul(self, V):
        """The product with V."""
        return self._operator.matmul(V)

    def columns(self, samples):
        """The columns of some samples: (N R, n R)."""
        return self.matrix(self.features, subset(self.features, torch.from_numpy(samples)))

    def phi(self):
        """The features of a sketch as one array (N R, m)."""
        if not self.features.in_memory:
            raise MemoryError(
                "The sketch does not fit into half of the free memory; take fewer n_components."
            )
        return _columns_of(self.features)

    def predictor(self, solution):
        """What predicts from the features of other samples."""
        if solution.weights is not None:
            return OfSketch(solution.weights)
        dual = torch.from_numpy(np.ascontiguousarray(solution.dual)).to(self.features.device)
        size = 8 * dual.shape[1] * sum(self.features.columns.values())
        if self.features.in_memory and self.n_bytes < size:
            return OfFeatures(self.features, dual)
        return OfSums(self._operator.kernel.combined(dual), dual.shape[1])


class OfSums:
    """Predicts by the flat gradients ``phi(X)' dual``, one for each output."""

    def __init__(self, sums, n_columns):
        self.sums, self.n_columns = sums, n_columns

    def __call__(self, features):
        kernel = TangentKernel._kernel(features)
        return kernel.images(self.sums, self.n_columns).cpu().numpy()

    def __sizeof__(self):
        return object.__sizeof__(self) + sum(8 * s.numel() for s in self.sums.values())


class OfFeatures:
    """Predicts by products with the features of the training samples, where these are smaller."""

    def __init__(self, features, dual):
        self.features, self.dual = features, dual

    def __call__(self, features):
        kernel = TangentKernel._kernel(features, self.features)
        out = np.zeros((kernel.shape[0], self.dual.shape[1]))
        for rows, cols, tile in kernel.product(kernel.left, kernel.right):
            out[rows] += (tile @ self.dual[cols]).cpu().numpy()
        return out

    def __sizeof__(self):
        return object.__sizeof__(self) + sys.getsizeof(self.features)


def _columns_of(features):
    """The only factor of a sketch, without a copy."""
    (factor,) = features.factors.values()
    return factor.materialise().phi.cpu().numpy()


class OfSketch:
    """Predicts by the coefficients of a sketch's components."""

    def __init__(self, weights):
        self.weights = weights

    def __call__(self, features):
        steps = range(0, features.n_samples, SIDE)
        parts = (features.take(slice(s, min(s + SIDE, features.n_samples))) for s in steps)
        return np.concatenate([_columns_of(part) @ self.weights for part in parts])


class GivenKernel:
    """A callable ``kernel(X, Y)``, or with ``None`` a matrix that is given in place of samples."""

    n_rows = 1

    def __init__(self, function, X, memory=None):
        self.function, self.X, self._memory = function, X, memory

    def gram(self):
        """The whole matrix, an array of its own."""
        if self.function is None:
            if np.shape(self.X)[0] != np.shape(self.X)[1]:
                raise ValueError(
                    f'With net="precomputed" X is the kernel of the training samples with each '
                    f"other and must be square; got shape {np.shape(self.X)}."
                )
            return np.array(checked_gram(self.X))
        key = {"kernel": self.function, "X": self.X}
        return np.array(cached(self._memory, "kernel matrix", gram_of, key, self.function, self.X))

    def predictor(self, solution):
        """What predicts from other samples, or from their kernel with the training samples."""
        X = None if self.function is None else copy.deepcopy(self.X)  # it may change
        return OfKernel(self.function, X, solution.dual)


class OfKernel:
    """Predicts by the kernel with the training samples."""

    def __init__(self, function, X, dual):
        self.function, self.X, self.dual = function, X, dual

    def __call__(self, X):
        K = X if self.function is None else self.function(X, self.X)
        K = as_matrix(K).astype(np.float64, copy=False)
        if K.ndim != 2 or K.shape[1] != len(self.dual):
            what = 'X, with net="precomputed",' if self.function is None else "What kernel(X, Y)"
            raise ValueError(
                f"{what} has shape {K.shape}; it must have a row for every sample and a column for "
                f"each of the {len(self.dual)} training samples."
            )
        if not np.isfinite(K).all():
            raise ValueError("The kernel of these samples contains NaN or infinity.")
        return K @ self.dual
