"""Data on its way into the network: batches, dtypes, and the forward pass."""

from collections.abc import Mapping

import numpy as np
import torch


def n_rows(X):
    """Number of samples of an array, a tensor, or a dict of them."""
    if isinstance(X, Mapping):
        lengths = {key: len(value) for key, value in X.items()}
        if not lengths:
            raise ValueError("X is an empty dict; give the network at least one array.")
        if len(set(lengths.values())) > 1:
            raise ValueError(f"The arrays in X have different lengths: {lengths}.")
        return next(iter(lengths.values()))
    return len(X)


def take(X, rows):
    """Rows of an array, a tensor, or a dict of them."""
    if isinstance(X, Mapping):
        return {key: value[rows] for key, value in X.items()}
    return X[rows]


def to_batch(X, rows, dtype, device):
    """Rows of X as tensors: floats in the parameters' dtype, integers as int64."""
    batch = take(X, rows)
    if isinstance(batch, Mapping):
        return {key: _to_tensor(value, dtype, device) for key, value in batch.items()}
    return _to_tensor(batch, dtype, device)


def _to_tensor(value, dtype, device):
    if not isinstance(value, torch.Tensor):
        value = torch.from_numpy(np.array(value))  # a copy: memmapped rows are read-only
    if value.is_floating_point():
        value = value.to(device=device, dtype=dtype)
        if device.type != "meta" and not torch.isfinite(value).all():
            raise ValueError("X contains NaN or infinity; the kernel needs finite inputs.")
        return value.detach()
    if value.dtype == torch.bool:
        return value.to(device)
    return value.to(device=device, dtype=torch.int64)


def forward(module, x):
    """Logits of shape (n, K): the module's output, or element 0 of a tuple (as in skorch)."""
    out = module(**x) if isinstance(x, Mapping) else module(x)
    if isinstance(out, (tuple, list)):
        out = out[0]
    return out.unsqueeze(1) if out.ndim == 1 else out


def checked_forward(module, x):
    """`forward` whose errors name what was given and what the network looks like."""
    try:
        logits = forward(module, x)
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, IndexError, TypeError) as error:
        raise ValueError(
            f"The network failed on a batch of X with {_describe(x)}, while its first layer "
            f"is {_first_layer(module)}. Original error: {error}"
        ) from error
    n = n_rows(x)
    if not isinstance(logits, torch.Tensor) or logits.ndim != 2 or logits.shape[0] != n:
        shape = tuple(logits.shape) if isinstance(logits, torch.Tensor) else type(logits)
        raise ValueError(
            f"The network must return logits of shape (n_samples, n_logits) or (n_samples,); "
            f"for {n} samples it returned {shape}."
        )
    if logits.device.type != "meta" and not torch.isfinite(logits).all():
        raise ValueError(
            "The network's output contains NaN or infinity (a diverged training?); "
            "its kernel would be meaningless."
        )
    return logits


def _describe(x):
    if isinstance(x, Mapping):
        return ", ".join(f"{key}: {_describe(value)}" for key, value in x.items())
    return f"shape {tuple(x.shape)} and dtype {x.dtype}"


def _first_layer(module):
    for name, child in module.named_modules():
        if child._parameters:
            return f"{name or 'the module itself'}: {child!r}"
    return repr(module)
