"""A kernel of infinite width with scales that a Gaussian process can fit."""

import numpy as np
from sklearn.base import clone
from sklearn.gaussian_process.kernels import Hyperparameter, Kernel

from ._kernels import InfiniteWidthNTK

SCALES = ("weight_std", "bias_std")
STEP = 1e-5  # of log scales: errors of rounding and of truncation are both near 1e-10


class TunableNTK(Kernel):
    """Infinite-width kernel whose weight and bias scales a Gaussian process fits.

    Parameters
    ----------
    kernel : InfiniteWidthNTK or InfiniteWidthConvNTK, default=None
        None means ``InfiniteWidthNTK(bias_std=0.1)``.
    weight_std_bounds : pair of floats or "fixed", default=(0.1, 10)
    bias_std_bounds : pair of floats or "fixed", default=(1e-3, 10)
        A ``bias_std`` of 0 is fixed in any case: it has no logarithm.

    See Also
    --------
    InfiniteWidthNTK : For everything that fits no scales.

    Notes
    -----
    ``theta`` holds the logarithms of the scales that are not fixed, weights first. Gradients are
    central differences in double precision, with a relative error of about 1e-8; of duplicate
    samples, where the kernel is ill-conditioned, up to 1e-2. A ReLU network without
    biases has a kernel proportional to ``weight_std**(2 * (depth + 1))``: there the scale is the
    only thing that is fitted.

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
        return InfiniteWidthNTK(bias_std=0.1) if self.kernel is None else self.kernel

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

        Returns
        -------
        params : dict
        """
        params = super().get_params()
        if deep and self.kernel is not None:
            params |= {f"kernel__{k}": v for k, v in self.kernel.get_params().items()}
        return params

    def __call__(self, X, Y=None, eval_gradient=False):
        """The kernel, and its gradient by ``theta``.

        Parameters
        ----------
        X : array-like of shape (n_samples_X, ...)
        Y : array-like of shape (n_samples_Y, ...), default=None
        eval_gradient : bool, default=False
            Only with Y=None.

        Returns
        -------
        K : ndarray of shape (n_samples_X, n_samples_Y)
        gradient : ndarray of shape (n_samples_X, n_samples_X, n_dims)
            With ``eval_gradient=True``.
        """
        if not eval_gradient:
            return self._inner(X, Y)
        if Y is not None:
            raise ValueError("The gradient is defined for Y=None only.")
        K = self._inner(X)
        gradient = np.empty((*K.shape, self.n_dims))
        precise = clone(self._inner).set_params(dtype="float64")
        for k, name in enumerate(self._free):
            scale = getattr(precise, name)
            above, below = (
                clone(precise).set_params(**{name: scale * np.exp(s)})(X) for s in (STEP, -STEP)
            )
            gradient[..., k] = (above - below) / (2 * STEP)
        return K, gradient

    def diag(self, X):
        """The kernel of each sample with itself.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...)

        Returns
        -------
        diagonal : ndarray of shape (n_samples,)
        """
        return self._inner.diag(X)

    def is_stationary(self):
        """Not a function of differences of samples.

        Returns
        -------
        is_stationary : bool
        """
        return False

    def __repr__(self):
        return f"{type(self).__name__}({self._inner!r})"
