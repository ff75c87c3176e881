"""Inputs of any kind as dense rows."""

from collections.abc import Mapping

import numpy as np
import torch
from scipy.sparse import issparse

from .._engine.inputs import is_lazy, n_rows, require_real_numbers
from .datasets import Items, is_dataset


def as_inputs(X, name="X"):
    """X as the engine takes it: dense rows, or a dict of them, and at least one."""
    if issparse(X):
        raise ValueError(
            f"{name} is sparse; the network takes dense arrays: pass {name}.toarray()."
        )
    if is_dataset(X):
        X = Items(X, name).inputs
    X = {k: as_rows(v) for k, v in X.items()} if isinstance(X, Mapping) else as_rows(X)
    try:
        require_real_numbers(X)
    except ValueError as error:
        raise ValueError(str(error) if name == "X" else f"{name}: {error}") from None
    if n_rows(X) == 0:
        raise ValueError(f"{name} has no samples.")
    return X


def as_rows(X):
    """X as it is where it has rows to be taken, else as an array of numbers, if it holds some."""
    if isinstance(X, torch.Tensor) or (is_lazy(X) and not isinstance(X, np.ma.MaskedArray)):
        return X
    if np.ma.is_masked(X):
        raise ValueError("X is a masked array with masked entries; the network needs all of them.")
    X = _numbers_of(X) if hasattr(X, "iloc") else np.asarray(X)
    if X.dtype == object:
        X = _unboxed(X)
    return X if X.dtype.isnative else X.astype(X.dtype.newbyteorder("="))


def _numbers_of(frame):
    """A pandas frame or series as an array: integers if all are, else floats, missing ones NaN."""
    columns = [frame] if frame.ndim == 1 else [frame.iloc[:, k] for k in range(frame.shape[1])]
    kinds = [_kind(column) for column in columns]
    others = [f"{c.name!r} ({c.dtype})" for c, kind in zip(columns, kinds) if kind not in "biuf"]
    if others:
        raise ValueError(
            f"X has columns that are no numbers: {', '.join(others)}. The network takes numbers: "
            "encode them, for example with sklearn.preprocessing.OneHotEncoder, or leave them out."
        )
    integers = {*kinds} <= {"i", "u"} and not any(c.isna().any() for c in columns)
    dtype = np.int64 if integers else np.float64
    return frame.to_numpy(dtype=dtype, **({} if integers else {"na_value": np.nan}))


def _kind(column):
    """That of a column's numbers, also where they are objects."""
    kind = getattr(column.dtype, "kind", "O")
    return _unboxed(column.to_numpy()).dtype.kind if kind == "O" and len(column) else kind


def _unboxed(X):
    """An array of objects as one of the numbers that they are, if they are."""
    try:
        found = np.array(X.tolist())
    except (TypeError, ValueError):
        return X
    return found if found.dtype.kind in "biuf" and found.shape == X.shape else X
