"""Data sets come in the shape that networks take."""

import numpy as np

from sklearn_lpntk import datasets


def test_digits():
    X, y = datasets.load_digit_images()
    assert X.shape == (1797, 1, 8, 8)
    assert X.dtype == np.float32
    assert X.min() == 0
    assert X.max() == 1
    assert sorted(set(y)) == list(range(10))


def test_mnist_is_fetched_and_shaped(monkeypatch):
    def fetch(name, *, version, as_frame, return_X_y, data_home):
        assert (name, version, as_frame, return_X_y) == ("mnist_784", 1, False, True)
        return np.full((3, 784), 255), np.array(["7", "0", "9"])

    monkeypatch.setattr(datasets, "fetch_openml", fetch)
    X, y = datasets.fetch_mnist_images()
    assert X.shape == (3, 1, 28, 28)
    assert X.max() == 1
    assert y.tolist() == [7, 0, 9]
