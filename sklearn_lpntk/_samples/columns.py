"""Labels as logit columns."""

import numpy as np
import torch


def as_columns(y, n, names=("X", "y")):
    """Labels of n samples as an int64 array of logit columns."""
    y = np.asarray(y.cpu() if isinstance(y, torch.Tensor) else y)
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.shape != (n,):
        raise ValueError(
            f"{names[1]} must have shape ({n},), one logit column a sample; got {y.shape}."
        )
    y = np.array(y.tolist()) if y.dtype == object else y
    if not np.issubdtype(y.dtype, np.number) and y.dtype != bool:
        raise ValueError(
            f"{names[1]} must hold logit columns, integers from 0; got dtype {y.dtype}. Encode "
            "labels first, for example with sklearn.preprocessing.LabelEncoder."
        )
    columns = y.astype(np.int64)
    if not np.array_equal(columns, y):
        raise ValueError(f"{names[1]} must hold integers (logit columns); got {y.dtype} values.")
    return columns
