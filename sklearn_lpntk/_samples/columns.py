"""Labels as logit columns."""

import numpy as np
import torch

from .._engine.inputs import n_rows
from .datasets import labels_of
from .labels import require_no_gaps


def columns_of(inputs, y, names=("X", "y")):
    """Labels as `as_columns`; None takes those that a data set gives with its inputs."""
    y = labels_of(inputs) if y is None else y
    if y is None:
        raise ValueError(
            f"{names[1]} is None, and {names[0]} has no labels of its own: pass {names[1]}, the "
            "logit column of each sample."
        )
    return as_columns(y, n_rows(inputs), names)


def as_columns(y, n, names=("X", "y")):
    """Labels of n samples as an int64 array of logit columns."""
    y = np.asarray(y.cpu() if isinstance(y, torch.Tensor) else y)
    require_no_gaps(y.ravel(), names[1])
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.shape != (n,):
        raise ValueError(
            f"{names[1]} must have shape ({n},), one logit column a sample; got {y.shape}. Of "
            f"one-hot rows pass {names[1]}.argmax(axis=1)."
        )
    y = np.array(y.tolist()) if y.dtype == object else y
    if not np.issubdtype(y.dtype, np.number) and y.dtype != bool:
        raise ValueError(
            f"{names[1]} must hold logit columns, integers from 0; got dtype {y.dtype}. Encode "
            "labels first, for example with sklearn.preprocessing.LabelEncoder."
        )
    columns = y.astype(np.int64)
    if not np.array_equal(columns, y):
        raise ValueError(
            f"{names[1]} must hold integers (logit columns); got {y.dtype} values. Of a regression "
            "target pass classes, for example by sklearn.preprocessing.KBinsDiscretizer."
        )
    return columns
