"""Inputs of any kind as dense rows."""

from collections.abc import Mapping

import numpy as np
import torch
from scipy.sparse import issparse

from .._engine.inputs import is_lazy, n_rows, require_real_numbers


def as_inputs(X, name="X"):
    """X as the engine takes it: dense rows, or a dict of them, and at least one."""
    if issparse(X):
        raise ValueError(
            f"{name} is sparse; the network takes dense arrays: pass {name}.toarray()."
        )
    X = {k: as_rows(v) for k, v in X.items()} if isinstance(X, Mapping) else as_rows(X)
    try:
        require_real_numbers(X)
    except ValueError as error:
        raise ValueError(str(error) if name == "X" else f"{name}: {error}") from None
    if n_rows(X) == 0:
        raise ValueError(f"{name} has no samples.")
    return X


def as_rows(X):
    """X as it is where it has rows to be taken, else as an array."""
    return X if isinstance(X, torch.Tensor) or is_lazy(X) else np.asarray(X)
