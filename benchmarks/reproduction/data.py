"""The data sets, cut into training, validation and test parts, with wrong labels on demand."""

from dataclasses import dataclass

import numpy as np

from sklearn_lpntk.datasets import fetch_mnist_images, load_digit_images

N_TRAIN = {"digits": 1147, "mnist": 10_000, "cifar": 9_000}
N_VALIDATION = {"digits": 200, "mnist": 1_000, "cifar": 1_000}


@dataclass
class Split:
    """One draw: labels of ``y`` and ``y_validation`` may be wrong, those of the test are not."""

    X: np.ndarray
    y: np.ndarray
    X_validation: np.ndarray
    y_validation: np.ndarray
    X_test: np.ndarray
    y_test: np.ndarray
    is_wrong: np.ndarray  # of y


def load(name, cifar=None):
    """(X, y, X_test, y_test) of a data set; the last two are None where no test set is fixed."""
    if name == "digits":
        X, y = load_digit_images()
        return _centred(X), y, None, None
    if name == "mnist":
        X, y = fetch_mnist_images()
        return _centred(X[:60_000]), y[:60_000], _centred(X[60_000:]), y[60_000:]
    with np.load(cifar) as file:
        X, X_test = (
            _centred(file[key].transpose(0, 3, 1, 2).astype(np.float32) / 255)
            for key in ("X_train", "X_test")
        )
        return X, file["y_train"].astype(np.int64), X_test, file["y_test"].astype(np.int64)


def _centred(X):
    return (X - np.float32(0.5)) * 2


def split(data, name, seed, *, noise=0.0, n_train=None):
    """One draw of training, validation and test parts.

    A share ``noise`` of the training and validation labels is replaced by another class, drawn
    uniformly.
    """
    X, y, X_test, y_test = data
    rng = np.random.default_rng([seed, 7])
    rows = rng.permutation(len(X))
    n_train = N_TRAIN[name] if n_train is None else n_train
    train, rest = rows[:n_train], rows[n_train:]
    validation, rest = rest[: N_VALIDATION[name]], rest[N_VALIDATION[name] :]
    if X_test is None:
        X_test, y_test = X[rest], y[rest]
    noisy = {
        part: _with_noise(y[idx], noise, rng) for part, idx in (("t", train), ("v", validation))
    }
    return Split(
        X[train],
        noisy["t"],
        X[validation],
        noisy["v"],
        X_test,
        y_test,
        is_wrong=noisy["t"] != y[train],
    )


def _with_noise(y, noise, rng):
    wrong = rng.permutation(len(y))[: round(noise * len(y))]
    y = y.copy()
    y[wrong] = (y[wrong] + rng.integers(1, 10, len(wrong))) % 10
    return y
