"""Kernels of infinitely wide networks as scikit-learn kernel objects; the loops are elsewhere."""

from numbers import Integral, Real

import numpy as np
import torch
from sklearn import get_config
from sklearn.gaussian_process.kernels import Kernel
from sklearn.utils import check_array
from sklearn.utils._param_validation import Interval, StrOptions, validate_parameter_constraints

from .._runtime.memory import available
from .._samples.inputs import as_one_array
from ._activations import ACTIVATIONS
from ._recursions import Convolutional, Dense, gram

POSITIVE = Interval(Real, 0, None, closed="neither")
NOT_NEGATIVE = Interval(Real, 0, None, closed="left")
AT_LEAST_ONE = Interval(Integral, 1, None, closed="left")


class _InfiniteWidthKernel(Kernel):
    """What the kernels share: checks, tiles, memory, and scikit-learn's protocol."""

    _parameter_constraints = {
        "depth": [AT_LEAST_ONE],
        "activation": [StrOptions(set(ACTIVATIONS))],
        "weight_std": [POSITIVE],
        "bias_std": [NOT_NEGATIVE],
        "kind": [StrOptions({"ntk", "nngp"})],
        "dtype": [StrOptions({"float32", "float64"})],
        "device": [str, torch.device, None],
        "block_size": [AT_LEAST_ONE],
    }

    def __call__(self, X, Y=None, eval_gradient=False):
        """The kernel of every pair of samples.

        Parameters
        ----------
        X : array-like of shape (n_samples_X, ...)
            Samples: one array of numbers, or what becomes one.
        Y : array-like of shape (n_samples_Y, ...), default=None
            None means X, at half the work.
        eval_gradient : bool, default=False
            Whether the gradient for scikit-learn's hyperparameters is wanted too. There are none;
            see :class:`TunableNTK`.

        Returns
        -------
        K : ndarray of shape (n_samples_X, n_samples_Y)
        gradient : ndarray of shape (n_samples_X, n_samples_X, 0)
            With ``eval_gradient=True``.

        Raises
        ------
        ValueError
            If a parameter or the device is not allowed, if the samples have another shape or are
            not finite, or if the kernel does not fit into memory.
        """
        if eval_gradient and Y is not None:
            raise ValueError("The gradient is defined for Y=None only.")
        Y = None if Y is X else Y
        rule, X1 = self._prepared(X, "X")
        X2 = None if Y is None else self._prepared(Y, "Y")[1]
        if X2 is not None and X1.shape[1:] != X2.shape[1:]:
            raise ValueError(
                f"X has samples of shape {tuple(X1.shape[1:])} and Y of "
                f"{tuple(X2.shape[1:])}; they must be equal."
            )
        shape = len(X1), len(X1) if X2 is None else len(X2)
        _require_memory(shape, X1.element_size(), torch.device("cpu"), "The kernel")
        K = torch.empty(shape, dtype=X1.dtype)
        with torch.no_grad():
            gram(rule, X1, X2, self._tile_side(rule, X1), K)
        return (K.numpy(), np.empty((*shape, 0))) if eval_gradient else K.numpy()

    def diag(self, X):
        """The kernel of each sample with itself.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...)
            Samples: one array of numbers, or what becomes one.

        Returns
        -------
        diagonal : ndarray of shape (n_samples,)

        Raises
        ------
        ValueError
            As for the kernel of pairs.
        """
        rule, X = self._prepared(X, "X")
        self._tile_side(rule, X)  # raises where not even one pair fits into memory
        with torch.no_grad():
            return rule.diagonal(X).cpu().numpy()

    def is_stationary(self):
        """Whether the kernel depends on differences of samples only: it does not.

        Returns
        -------
        is_stationary : bool
        """
        return False

    def __repr__(self):
        given = ", ".join(f"{k}={v!r}" for k, v in self.get_params().items())
        return f"{type(self).__name__}({given})"

    def _prepared(self, X, name):
        """The layer recursion, and X as a tensor."""
        params = self.get_params(deep=False)
        validate_parameter_constraints(self._parameter_constraints, params, type(self).__name__)
        X = X if isinstance(X, np.ndarray) else as_one_array(X, name)
        X = check_array(X, dtype=self.dtype, allow_nd=True, input_name=name)
        if 0 in X.shape[1:]:
            raise ValueError(f"{name} has samples of shape {X.shape[1:]}, without any feature.")
        if not X.flags.writeable or min(X.strides) < 0:
            X = X.copy()  # torch warns of the first and refuses the second
        X = self._shaped(X, name)
        rule = self._rule()
        try:
            X = torch.as_tensor(X, device=self.device)
        except (RuntimeError, AssertionError, TypeError) as error:
            raise ValueError(
                f"device={self.device!r} can't be used here: {str(error).splitlines()[0]} "
                "(None means the CPU.)"
            ) from error
        with torch.no_grad():  # the tangent kernel is the larger one, at most so many times
            bounds = [q * (self.depth + 1) for q in rule.variances(X)]
        if not all(bound.isfinite().all() for bound in bounds):
            raise ValueError(
                f"The kernel overflows in {self.dtype}: {name} has values up to "
                f"{X.abs().max():.3g}. Scale it down."
            )
        return rule, X

    def _common(self):
        return {
            "depth": self.depth,
            "activation": self.activation,
            "w2": self.weight_std**2,
            "b2": self.bias_std**2,
            "with_tangent": self.kind == "ntk",
        }

    def _tile_side(self, rule, X):
        """Samples on a side of a tile: it fits into a cache, and scikit-learn's working memory."""
        of_pair = rule.size_of_pair(X) * X.element_size()
        _require_memory((1, of_pair), 1, X.device, "A single pair of samples")
        at_most = get_config()["working_memory"] * 2**20 / of_pair
        n_pairs = min(self.block_size**2 / rule.positions_of_pair(X), at_most)
        return max(1, int(n_pairs**0.5))


def _require_memory(shape, itemsize, device, what):
    """Refuse an array that can't be had, before it is allocated."""
    free = available(device)
    needed = shape[0] * shape[1] * itemsize
    if free is not None and needed > free:
        n = int((free / itemsize) ** 0.5)
        raise ValueError(
            f"{what} needs {needed / 2**30:.3g} GiB, and {free / 2**30:.3g} GiB are free. "
            + (f"Up to {n:,} samples would fit" if shape[0] > 1 else "Smaller images would fit")
            + '; dtype="float32" takes half.'
        )


class InfiniteWidthNTK(_InfiniteWidthKernel):
    """Tangent kernel of an infinitely wide fully connected network, before any training.

    A callable kernel object: for ``SVC(kernel=...)``, and as a kernel of Gaussian processes also
    for ``KernelRidge``, ``KernelPCA`` and ``GaussianProcessClassifier``, which evaluate it at once.

    Parameters
    ----------
    depth : int, default=2
        Number of nonlinearities: 1 is dense, nonlinearity, dense.
    activation : {"relu", "erf"}, default="relu"
    weight_std : float, default=sqrt(2)
        Weights have the standard deviation ``weight_std / sqrt(n_inputs)``.
    bias_std : float, default=0
        Standard deviation of the biases.
    kind : {"ntk", "nngp"}, default="ntk"
        The tangent kernel (NTK: training all layers), or the covariance of the outputs at
        initialisation (NNGP: training the last one).
    dtype : {"float64", "float32"}, default="float64"
        float32 takes half the memory and half the time. Pairs of samples that are nearly
        multiples of each other have a relative error of 1e-3 then, of 1e-8 in float64.
    device : str or torch.device, default=None
        Where it is computed; None is the CPU. The result is an array in main memory.
    block_size : int, default=512
        Samples on a side of a tile, which should fit into the cache of a processor; on a GPU take
        thousands.

    See Also
    --------
    InfiniteWidthConvNTK : Of a convolutional network.
    TunableNTK : With scales that a Gaussian process can fit.
    sklearn_lpntk.kernels.entk_kernel : Of a network of finite width, trained or not.

    Notes
    -----
    In the parametrisation of [1]_: ``K = weight_std**2 x.x' / d + bias_std**2`` and Theta = K at
    the inputs; each layer makes ``K <- weight_std**2 E[s(u) s(v)] + bias_std**2`` and
    ``Theta <- K + weight_std**2 Theta E[s'(u) s'(v)]`` for (u, v) of covariance K. The
    expectations are arc-cosine formulas [2]_ for ReLU, those of [3]_ for erf. The diagonal has a
    recursion of its own, since the formulas are ill-conditioned there.

    References
    ----------
    .. [1] Jacot, Gabriel and Hongler, "Neural Tangent Kernel: Convergence and Generalization in
       Neural Networks", 2018. arXiv:1806.07572
    .. [2] Cho and Saul, "Kernel Methods for Deep Learning", 2009.
    .. [3] Williams, "Computing with Infinite Networks", 1997.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.svm import SVC
    >>> from sklearn_lpntk.infinite import InfiniteWidthNTK
    >>> X, y = load_digits(return_X_y=True)
    >>> kernel = InfiniteWidthNTK(depth=2)
    >>> kernel(X[:3]).round(1).shape
    (3, 3)
    >>> SVC(kernel=kernel).fit(X[:1000], y[:1000]).score(X[1000:], y[1000:]) > 0.95
    True
    """

    def __init__(
        self,
        depth=2,
        activation="relu",
        *,
        weight_std=2**0.5,
        bias_std=0.0,
        kind="ntk",
        dtype="float64",
        device=None,
        block_size=512,
    ):
        self.depth = depth
        self.activation = activation
        self.weight_std = weight_std
        self.bias_std = bias_std
        self.kind = kind
        self.dtype = dtype
        self.device = device
        self.block_size = block_size

    def _shaped(self, X, name):
        return X.reshape(len(X), -1)

    def _rule(self):
        return Dense(**self._common())


class InfiniteWidthConvNTK(_InfiniteWidthKernel):
    """Tangent kernel of an infinitely wide convolutional network, before any training.

    Parameters
    ----------
    depth : int, default=2
        Number of nonlinearities, each after a convolution.
    activation, weight_std, bias_std, kind, dtype, device
        As for :class:`InfiniteWidthNTK`.
    image_shape : tuple of int, (channels, height, width)
        Of a sample; rows of X are such images, flat or not. Images without channels need an axis
        for them: ``X[:, None]``.
    kernel_size : int, default=3
        Side of the window.
    stride : int, default=1
        Of every convolution.
    readout : {"flatten", "average"}, default="flatten"
        What is before the last dense layer: all positions, or their mean (global average pooling).
        "average" needs the covariance of all pairs of positions, ``(height * width)**2`` numbers
        for each pair of samples: for small images or few samples.
    block_size : int, default=512
        A tile has ``block_size**2`` pairs of positions, or fewer where scikit-learn's
        ``working_memory`` wants it so: the cache of a processor should hold them.

    See Also
    --------
    InfiniteWidthNTK : Of a fully connected network.

    Notes
    -----
    Convolutions are padded with zeros to "same" size, as many before as after, or one more after;
    their sum over the window is divided by its size, at the border too [1]_.

    References
    ----------
    .. [1] Arora et al., "On Exact Computation with an Infinitely Wide Neural Net", 2019.
       arXiv:1904.11955

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn_lpntk.infinite import InfiniteWidthConvNTK
    >>> X, y = load_digits(return_X_y=True)
    >>> kernel = InfiniteWidthConvNTK(depth=1, image_shape=(1, 8, 8))
    >>> kernel(X[:3], X[:5]).shape
    (3, 5)
    """

    _parameter_constraints = _InfiniteWidthKernel._parameter_constraints | {
        "image_shape": [tuple, list],
        "kernel_size": [AT_LEAST_ONE],
        "stride": [AT_LEAST_ONE],
        "readout": [StrOptions({"flatten", "average"})],
    }

    def __init__(
        self,
        depth=2,
        activation="relu",
        *,
        image_shape,
        kernel_size=3,
        stride=1,
        readout="flatten",
        weight_std=2**0.5,
        bias_std=0.0,
        kind="ntk",
        dtype="float64",
        device=None,
        block_size=512,
    ):
        self.depth = depth
        self.activation = activation
        self.image_shape = image_shape
        self.kernel_size = kernel_size
        self.stride = stride
        self.readout = readout
        self.weight_std = weight_std
        self.bias_std = bias_std
        self.kind = kind
        self.dtype = dtype
        self.device = device
        self.block_size = block_size

    def _shaped(self, X, name):
        shape = tuple(self.image_shape)
        if len(shape) != 3 or any(not isinstance(n, Integral) or n < 1 for n in shape):
            raise ValueError(
                f"image_shape must be three numbers, (channels, height, width); got {shape}."
            )
        if X.shape[1:] not in (shape, (np.prod(shape),)):
            raise ValueError(
                f"{name} has samples of shape {X.shape[1:]}; image_shape={shape} needs images of "
                f"this shape, or rows of {np.prod(shape)} numbers."
            )
        return X.reshape(-1, *shape)

    def _rule(self):
        return Convolutional(
            kernel_size=self.kernel_size,
            stride=self.stride,
            pooled=self.readout == "average",
            **self._common(),
        )


def infinite_ntk_kernel(X, Y=None, **params):
    """Kernel of an infinitely wide network, as a function.

    Parameters
    ----------
    X : array-like of shape (n_samples_X, ...)
        Samples: one array of numbers, or what becomes one.
    Y : array-like of shape (n_samples_Y, ...), default=None
        None means X, at half the work.
    **params
        Those of :class:`InfiniteWidthNTK`, or with ``image_shape=`` those of
        :class:`InfiniteWidthConvNTK`.

    Returns
    -------
    K : ndarray of shape (n_samples_X, n_samples_Y)

    Raises
    ------
    ValueError
        If a parameter or the device is not allowed, if the samples have another shape or are not
        finite, or if the kernel does not fit into memory.

    See Also
    --------
    InfiniteWidthNTK : The same as an object for scikit-learn's kernel methods.

    Examples
    --------
    >>> from sklearn_lpntk.infinite import infinite_ntk_kernel
    >>> infinite_ntk_kernel([[1.0, 0.0], [0.0, 2.0]], depth=1).round(4)
    array([[2.    , 0.6366],
           [0.6366, 8.    ]])
    """
    kind = InfiniteWidthConvNTK if "image_shape" in params else InfiniteWidthNTK
    return kind(**params)(X, Y)
