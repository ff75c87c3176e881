"""Inputs of any kind as dense rows."""

from datetime import UTC, date

import numpy as np
import torch
from scipy.sparse import issparse

from .._engine.inputs import is_lazy, is_many, mapped, n_rows, require_real_numbers
from .datasets import Items, as_array, is_dataset


class SparseRows:
    """Rows of a sparse matrix, dense where they are read."""

    def __init__(self, X):
        self._X, self.shape, self.dtype = X.tocsr(), X.shape, X.dtype

    def __len__(self):
        return self.shape[0]

    def __getitem__(self, rows):
        return self._X[rows].toarray()


def as_inputs(X, name="X"):
    """X as the engine takes it: dense rows, or a dict or tuple of them, and at least one."""
    if is_dataset(X):
        X = Items(X, name).inputs
    X = mapped(as_rows, X) if has_parts(X) else as_rows(X)
    try:
        require_real_numbers(X)
    except ValueError as error:
        raise ValueError(str(error) if name == "X" else f"{name}: {error}") from None
    if n_rows(X) == 0:
        raise ValueError(f"{name} has no samples.")
    return X


def as_one_array(X, name="X"):
    """X as one dense array of numbers, for what compares samples without a network."""
    X = as_inputs(X, name)
    if is_many(X):
        raise ValueError(
            f"{name} has several inputs, and samples are compared in one array here: pass the one "
            "that counts, or all of them side by side."
        )
    return X if isinstance(X, np.ndarray) else as_array(X[:])


def has_parts(X):
    """Whether X is several inputs: a dict, or a tuple of arrays. A list is one array."""
    many = is_many(X) and not (isinstance(X, list) or issparse(X))  # a DOK one is a dict
    return many and (not isinstance(X, tuple) or all(hasattr(part, "shape") for part in X))


def as_rows(X):
    """X as it is where it has rows to be taken, else as an array of numbers, if it holds some."""
    if issparse(X):
        return SparseRows(X)
    if isinstance(X, torch.Tensor) or (is_lazy(X) and not isinstance(X, np.ma.MaskedArray)):
        return X
    if np.ma.is_masked(X):
        raise ValueError("X is a masked array with masked entries; the network needs all of them.")
    X = _numbers_of(X) if hasattr(X, "iloc") else _dense(X)
    if X.dtype == object:
        X = unboxed(X)
    if X.dtype.kind == "f" and X.dtype.itemsize > 8:
        X = X.astype(np.float64)  # torch has no longer ones
    return X if X.dtype.isnative else X.astype(X.dtype.newbyteorder("="))


def _dense(X):
    try:
        return np.asarray(X)
    except ValueError as error:
        raise ValueError(
            f"X is no array: its rows have different shapes ({error}). Pad them to one length, or "
            "pass a data set with a collate_fn that does; of a loader's batch [x, y] pass x and y."
        ) from None


def _numbers_of(frame):
    """A pandas frame or series as an array: integers if all are, else floats, missing ones NaN."""
    require_numbers(frame)
    columns = series_of(frame)
    kinds = {kind_of(column) for column in columns}
    integers = kinds <= {"i", "u"} and not any(c.isna().any() for c in columns)
    dtype = np.int64 if integers else np.float64
    return frame.to_numpy(dtype=dtype, **({} if integers else {"na_value": np.nan}))


def series_of(X):
    """Columns of a frame as series of pandas."""
    X = X if hasattr(X, "iloc") else X.to_pandas()
    columns = [X] if X.ndim == 1 else [X.iloc[:, k] for k in range(X.shape[1])]
    return [_with_dates(column) for column in columns]


def _with_dates(column):
    """Days of arrow, and objects that are dates, as what numpy calls dates."""
    if column.dtype != object and not str(column.dtype).startswith("date"):
        return column
    missing, objects = column.isna(), column.astype(object)
    if missing.all() or not all(isinstance(v, date) for v in objects[~missing]):
        return column
    values = [None if m else _as_utc(v) for v, m in zip(objects, missing)]
    # not by pandas, whose dates may end in the year 2262
    return type(column)(np.array(values, dtype="M8[s]"), index=column.index, name=column.name)


def _as_utc(value):
    if getattr(value, "tzinfo", None) is None:
        return value
    return value.astimezone(UTC).replace(tzinfo=None)


def require_numbers(frame):
    """Refuse a frame with columns that are no numbers."""
    others = [f"{c.name!r} ({c.dtype})" for c in series_of(frame) if kind_of(c) not in "biuf"]
    if others:
        raise ValueError(
            f"X has columns that are no numbers: {', '.join(others)}. The network takes numbers: "
            "encode them, for example with sklearn.preprocessing.OneHotEncoder in a Pipeline that "
            "ends in the net, or leave them out."
        )


def kind_of(column):
    """That of a column's numbers, also where they are objects."""
    kind = getattr(column.dtype, "kind", "O")
    return unboxed(column.to_numpy()).dtype.kind if kind == "O" and len(column) else kind


def unboxed(X):
    """An array of objects as one of the numbers that they are, if they are."""
    try:
        found = np.array(X.tolist())
    except (TypeError, ValueError):
        return X
    return found if found.dtype.kind in "biuf" and found.shape == X.shape else X
