"""A kernel of infinite width with scales that a Gaussian process can fit."""

import numpy as np
from sklearn.base import clone
from sklearn.gaussian_process.kernels import Hyperparameter, Kernel

from ._kernels import InfiniteWidthConvNTK, InfiniteWidthNTK

SCALES = ("weight_std", "bias_std")
STEP = 5e-3  # of log scales, per layer: large, as near samples have a rounding error of 1e-8
STENCIL = {-2: 1 / 12, -1: -2 / 3, 1: 2 / 3, 2: -1 / 12}  # central difference of order four


class TunableNTK(Kernel):
    """Infinite-width kernel whose weight and bias scales a Gaussian process fits.

    Parameters
    ----------
    kernel : InfiniteWidthNTK or InfiniteWidthConvNTK, default=None
        None means ``InfiniteWidthNTK(bias_std=0.1)``.
    weight_std_bounds : pair of floats or "fixed", default=(0.1, 10)
        Of the scale itself, not of its logarithm; "fixed" leaves it as it is in ``kernel``.
    bias_std_bounds : pair of floats or "fixed", default=(1e-3, 10)
        The same; a ``bias_std`` of 0 is fixed in any case: it has no logarithm.

    See Also
    --------
    InfiniteWidthNTK : For everything that fits no scales.

    Notes
    -----
    ``theta`` holds the logarithms of the scales that are not fixed, weights first. Gradients are
    central differences of order four in double precision, with a relative error of about 1e-8;
    of pairs that are nearly parallel, as all are in deep networks with biases, 1e-5. A ReLU
    network without biases has a kernel proportional to ``weight_std**(2 * (depth + 1))``: there
    the scale is the only thing that is fitted. Kernels in float32 are too coarse for a process
    with little noise.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.gaussian_process import GaussianProcessRegressor
    >>> from sklearn_lpntk.infinite import TunableNTK
    >>> X, y = load_digits(return_X_y=True)
    >>> kernel = TunableNTK(bias_std_bounds="fixed")
    >>> process = GaussianProcessRegressor(kernel, alpha=0.1, normalize_y=True)
    >>> process = process.fit(X[:100] / 16, y[:100])
    >>> process.kernel_.theta.shape
    (1,)
    """

    def __init__(self, kernel=None, *, weight_std_bounds=(0.1, 10.0), bias_std_bounds=(1e-3, 10.0)):
        self.kernel = kernel
        self.weight_std_bounds = weight_std_bounds
        self.bias_std_bounds = bias_std_bounds

    @property
    def _inner(self):
        kernel = InfiniteWidthNTK(bias_std=0.1) if self.kernel is None else self.kernel
        if not isinstance(kernel, InfiniteWidthNTK | InfiniteWidthConvNTK):
            raise ValueError(
                "kernel must be an InfiniteWidthNTK or InfiniteWidthConvNTK, whose scales are "
                f"fitted; got {kernel!r}."
            )
        return kernel

    @property
    def hyperparameters(self):
        """The scales, as scikit-learn's hyperparameters.

        Returns
        -------
        hyperparameters : list of Hyperparameter
        """
        inner, found = self._inner, []
        for name in SCALES:
            bounds = getattr(self, f"{name}_bounds")
            _check_bounds(bounds, f"{name}_bounds")
            bounds = "fixed" if getattr(inner, name) == 0 else bounds
            found.append(Hyperparameter(name, "numeric", bounds))
        return found

    @property
    def _free(self):
        return [h.name for h in self.hyperparameters if not h.fixed]

    @property
    def theta(self):
        """Logarithms of the free scales.

        Returns
        -------
        theta : ndarray of shape (n_dims,)
        """
        return np.log([getattr(self._inner, name) for name in self._free])

    @theta.setter
    def theta(self, theta):
        scales = np.exp(theta).tolist()
        self.kernel = clone(self._inner).set_params(**dict(zip(self._free, scales, strict=True)))

    def get_params(self, deep=True):
        """The parameters, and with ``deep=True`` those of the kernel, as ``kernel__...``.

        Parameters
        ----------
        deep : bool, default=True
            Whether parameters of the kernel inside are among them.

        Returns
        -------
        params : dict
        """
        params = super().get_params()
        if deep and self.kernel is not None:
            params |= {f"kernel__{k}": v for k, v in self.kernel.get_params().items()}
        return params

    def set_params(self, **params):
        """Set parameters; ``kernel__...`` those of the kernel, also where it is None.

        Parameters
        ----------
        **params
            By name.

        Returns
        -------
        self : TunableNTK
        """
        before, self.kernel = self.kernel, params.pop("kernel", self.kernel)
        try:
            if any(name.startswith("kernel__") for name in params):
                self.kernel = self._inner
            return super().set_params(**params)
        except Exception:
            self.kernel = before
            raise

    def __call__(self, X, Y=None, eval_gradient=False):
        """The kernel, and its gradient by ``theta``.

        Parameters
        ----------
        X : array-like of shape (n_samples_X, ...)
            Samples: one array of numbers, or what becomes one.
        Y : array-like of shape (n_samples_Y, ...), default=None
        eval_gradient : bool, default=False
            Only with Y=None.

        Returns
        -------
        K : ndarray of shape (n_samples_X, n_samples_Y)
        gradient : ndarray of shape (n_samples_X, n_samples_X, n_dims)
            With ``eval_gradient=True``.

        Raises
        ------
        ValueError
            For a gradient with Y, for another kind of kernel, for bounds that are none, or as the
            kernel.
        """
        if not eval_gradient:
            return self._inner(X, Y)
        if Y is not None:
            raise ValueError("The gradient is defined for Y=None only.")
        K = self._inner(X)
        gradient = np.empty((*K.shape, self.n_dims))
        precise = clone(self._inner).set_params(dtype="float64")
        step = STEP / (precise.depth + 1)
        for k, name in enumerate(self._free):
            scale = getattr(precise, name)
            gradient[..., k] = sum(
                weight / step * clone(precise).set_params(**{name: scale * np.exp(m * step)})(X)
                for m, weight in STENCIL.items()
            )
        return K, gradient

    def diag(self, X):
        """The kernel of each sample with itself.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...)
            Samples: one array of numbers, or what becomes one.

        Returns
        -------
        diagonal : ndarray of shape (n_samples,)
        """
        return self._inner.diag(X)

    def is_stationary(self):
        """Whether the kernel depends on differences of samples only: it does not.

        Returns
        -------
        is_stationary : bool
        """
        return False

    def __repr__(self):
        return f"{type(self).__name__}({self.kernel!r})"


def _check_bounds(bounds, name):
    if isinstance(bounds, str) and bounds == "fixed":
        return
    try:
        low, high = bounds
        is_pair = 0 < low < high < np.inf
    except (TypeError, ValueError):
        is_pair = False
    if not is_pair:
        raise ValueError(f'{name} must be "fixed" or a pair 0 < low < high; got {bounds!r}.')
