"""Image data sets in the shape that networks take: (n_samples, channels, height, width)."""

import numpy as np
from sklearn.datasets import fetch_openml, load_digits

__all__ = ["fetch_mnist_images", "load_digit_images"]


def load_digit_images():
    """scikit-learn's bundled digits as images.

    Returns
    -------
    X : ndarray of shape (1797, 1, 8, 8), float32 in [0, 1]
    y : ndarray of shape (1797,), int64

    Examples
    --------
    >>> from sklearn_lpntk.datasets import load_digit_images
    >>> X, y = load_digit_images()
    >>> X.shape, X.max()
    ((1797, 1, 8, 8), np.float32(1.0))
    """
    X, y = load_digits(return_X_y=True)
    return (X / 16).astype(np.float32).reshape(-1, 1, 8, 8), y.astype(np.int64)


def fetch_mnist_images(*, data_home=None):
    """MNIST as images, downloaded from OpenML at the first call and cached by scikit-learn.

    Parameters
    ----------
    data_home : str, default=None
        Where to cache, as in :func:`~sklearn.datasets.fetch_openml`.

    Returns
    -------
    X : ndarray of shape (70000, 1, 28, 28), float32 in [0, 1]
        The first 60,000 are the usual training set.
    y : ndarray of shape (70000,), int64
    """
    X, y = fetch_openml(
        "mnist_784", version=1, as_frame=False, return_X_y=True, data_home=data_home
    )
    return (X / 255).astype(np.float32).reshape(-1, 1, 28, 28), y.astype(np.int64)
