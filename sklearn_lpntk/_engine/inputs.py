"""Data on its way into the network: batches, dtypes, and the forward pass."""

from collections.abc import Mapping

import numpy as np
import torch

from .parameters import is_finite

INTEGER_HINT = (
    "Integers are passed on as they are, for embeddings; for any other network pass "
    "X.astype(numpy.float32). "
)
SEVERAL_HINT = (
    "Pass the inputs that its forward takes: a dict goes to it as keyword arguments, a tuple as "
    "positional ones, to the module of a skorch net as one list. "
)


def is_many(X):
    """Whether X is several inputs: a dict, a tuple or a list of arrays or tensors.

    A dict goes to the network as keyword arguments, a tuple as positional ones, a list as one.
    """
    return isinstance(X, (Mapping, tuple, list))


def parts_of(X):
    """The inputs in X by name: those of a dict, the others by position, or X itself."""
    if isinstance(X, Mapping):
        return dict(X)
    return dict(enumerate(X)) if is_many(X) else {"": X}


def mapped(function, X):
    """What a function makes of each input in X, in the form of X."""
    if isinstance(X, Mapping):
        return {key: function(value) for key, value in X.items()}
    return type(X)(map(function, X)) if is_many(X) else function(X)


def require_real_numbers(X):
    """Refuse anything but dense real arrays and tensors, dicts and tuples of them."""
    for value in parts_of(X).values():
        if isinstance(value, torch.Tensor):
            odd = value.is_complex() or value.is_quantized or value.layout != torch.strided
            if odd or value.ndim == 0:
                raise ValueError(
                    "X must be a dense real tensor with a sample axis; got "
                    f"{value.dtype}, {value.layout} and shape {tuple(value.shape)}. Pass X.real "
                    "of a complex one, X.dequantize() of a quantised one, X.to_dense() of a sparse "
                    "one."
                )
            continue
        value = value if is_lazy(value) else np.asarray(value)
        if np.dtype(value.dtype).kind not in "fiub" or len(value.shape) == 0:
            raise ValueError(
                f"X must hold real numbers; got an array of dtype {value.dtype} and shape "
                f"{value.shape}. Pass a dense numeric array or tensor, or a dict or tuple of "
                "them: encode strings and categories, split complex numbers into real and "
                "imaginary parts."
            )


def is_lazy(X):
    """Whether X is an array of another library, or on disk, whose rows are read by slices."""
    if isinstance(X, (np.ndarray, torch.Tensor)) or hasattr(X, "iloc"):
        return False
    if not all(hasattr(X, name) for name in ("shape", "dtype", "__getitem__", "__len__")):
        return False
    try:
        return np.dtype(X.dtype).kind != "O"
    except TypeError:
        return False


def n_rows(X):
    """Number of samples of an array, a tensor, or a dict or tuple of them."""
    lengths = {key: len(value) for key, value in parts_of(X).items()}
    if not lengths:
        raise ValueError(f"X is an empty {type(X).__name__}; give the network at least one array.")
    if len(set(lengths.values())) > 1:
        raise ValueError(f"The arrays in X have different lengths: {lengths}.")
    return next(iter(lengths.values()))


def take(X, rows):
    """Rows of an array, a tensor, or a dict or tuple of them: a slice or an array of indices."""
    if is_many(X):
        return mapped(lambda part: take(part, rows), X)
    if is_lazy(X) and not isinstance(rows, slice):
        if hasattr(X, "take_rows"):
            return X.take_rows(np.asarray(rows))
        return _take_by_slices(X, np.asarray(rows))
    return X[rows]


def _take_by_slices(X, rows):
    """Rows of an array that knows slices only, by runs of consecutive ones."""
    rows, back = np.unique(rows, return_inverse=True)
    runs = np.split(rows, np.flatnonzero(np.diff(rows) > 1) + 1)
    parts = [np.asarray(X[int(run[0]) : int(run[-1]) + 1]) for run in runs]
    return np.concatenate(parts)[back]


def to_batch(X, rows, dtype, device):
    """Rows of X as tensors: floats in the parameters' dtype, integers as int64."""
    return mapped(lambda part: _to_tensor(part, dtype, device), take(X, rows))


def _to_tensor(value, dtype, device):
    if not isinstance(value, torch.Tensor):
        value = torch.from_numpy(np.array(value))  # a copy: memmapped rows are read-only
    if not value.is_floating_point():
        dtype = torch.bool if value.dtype == torch.bool else torch.int64
    value = value.detach().to(device=device, dtype=dtype)
    if dtype.is_floating_point and not is_finite(value):
        raise ValueError("X contains NaN or infinity; the kernel needs finite inputs.")
    return value


def forward(module, x, prepare=None):
    """Logits of shape (n, K): the module's output, element 0 of a tuple (as in skorch), or what an
    object or a dict calls ``logits`` (as in transformers).

    The module gets a copy of x: it may work in place. ``prepare`` is called with that copy.
    """
    x = mapped(torch.Tensor.clone, x)
    if prepare is not None:
        prepare(x)
    if isinstance(x, Mapping):
        out = logits_in(module(**x))
    else:
        out = logits_in(module(*x) if isinstance(x, tuple) else module(x))
    # one logit a sample, or a squeezed batch of one
    if isinstance(out, torch.Tensor) and out.ndim < 2 and n_rows(x) in (1, out.numel()):
        return out.reshape(n_rows(x), -1)
    return out


def logits_in(out):
    """The logits in what a module returns."""
    if isinstance(out, (tuple, list)):
        return out[0]
    if isinstance(out, Mapping):
        return out.get("logits", out)
    return out if isinstance(out, torch.Tensor) else getattr(out, "logits", out)


def checked_forward(module, x, dtype=None, *, any_shape=False, prepare=None):
    """`forward` whose errors name what was given and what the network looks like."""
    try:
        logits = forward(module, x, prepare)
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, ValueError, IndexError, TypeError) as error:
        hint = SEVERAL_HINT if is_many(x) else "" if x.is_floating_point() else INTEGER_HINT
        raise ValueError(
            f"The network failed on a batch of X with {_describe(x)}, while its first layer "
            f"is {_first_layer(module)}. {hint}Original error: {error}"
        ) from error
    n = n_rows(x)
    tensor = isinstance(logits, torch.Tensor)
    shaped = tensor and (logits.ndim == 2 or (any_shape and logits.ndim > 2))
    if not shaped or len(logits) != n or not logits.numel():
        given = f"shape {tuple(logits.shape)}" if tensor else f"a {type(logits).__name__}"
        raise ValueError(
            "The network must return logits of shape (n_samples, n_logits) or (n_samples,), or "
            "a tuple of which they are the first, or an object or dict that calls them 'logits'; "
            f"for {n} samples it returned {given}. Wrap it in a module that returns them."
        )
    if not logits.is_floating_point():
        raise ValueError(f"The network must return floating point logits; got {logits.dtype}.")
    # an operation by rows, for a recorder sees it
    if logits.device.type != "meta" and not torch.isfinite(logits).all():
        raise ValueError(
            "The network's output contains NaN or infinity (a diverged training?); "
            "its kernel would be meaningless."
        )
    return logits if dtype is None else logits.to(dtype)


def _describe(x):
    if is_many(x):
        return ", ".join(f"{key}: {_describe(value)}" for key, value in parts_of(x).items())
    return f"shape {tuple(x.shape)} and dtype {x.dtype}"


def _first_layer(module):
    for name, child in module.named_modules():
        if child._parameters:
            return f"{name or 'the module itself'}: {child!r}"
    return repr(module)
