"""Caching across clones, under a fingerprint of our own.

joblib's hash of a net that holds a module instance changes at every clone, so that a grid
search would never hit. The fingerprint here depends on values only.
"""

import functools
import hashlib
import inspect
import pickle
import types
import warnings

import joblib
import numpy as np
import torch
from joblib import Memory
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_memory
from skorch import NeuralNet


def fingerprint(*values):
    """A hex digest of nested values: arrays, tensors, modules, nets, estimators, functions."""
    digest = hashlib.blake2b(digest_size=20)
    for value in values:
        _feed(digest, value)
    return digest.hexdigest()


def _feed(digest, value):
    digest.update(f"<{type(value).__module__}.{type(value).__qualname__}>".encode())
    if isinstance(value, np.ndarray) and not value.dtype.hasobject:
        digest.update(f"{value.dtype}{value.shape}".encode())
        digest.update(np.ascontiguousarray(value).data)
    elif isinstance(value, torch.Tensor):
        _feed(digest, value.detach().cpu().numpy())
    elif isinstance(value, torch.nn.Module):
        digest.update(repr(value).encode())
        _feed(digest, dict(value.state_dict()))
    elif isinstance(value, NeuralNet):
        _feed(digest, value.get_params(deep=False))
        _feed(digest, getattr(value, "module_", None))
    elif isinstance(value, BaseEstimator):
        _feed(digest, value.get_params(deep=False))
    elif isinstance(value, dict):
        for key in sorted(value, key=repr):
            _feed(digest, key)
            _feed(digest, value[key])
    elif isinstance(value, (list, tuple)):
        for item in value:
            _feed(digest, item)
    elif isinstance(value, functools.partial):
        _feed(digest, (value.func, value.args, value.keywords))
    elif isinstance(value, (type, types.FunctionType, types.BuiltinFunctionType)):
        digest.update(_source_of(value).encode())
    else:
        digest.update(_plain_bytes(value))


def _source_of(value):
    """A class or function by name and, where there is one, by its source."""
    name = f"{value.__module__}.{value.__qualname__}"
    try:
        return name + inspect.getsource(value)
    except (OSError, TypeError):
        return name


def _plain_bytes(value):
    try:
        return joblib.hash(value).encode()
    except (pickle.PicklingError, TypeError, AttributeError):
        return repr(value).encode()


def cached(memory, function, key, *arguments):
    """``function(*arguments)``, read from ``memory`` where ``key`` was computed before.

    ``key`` holds the values on which the result depends.
    """
    memory = check_memory(memory)
    if not isinstance(memory, Memory) or memory.location is None:
        return function(*arguments)
    keyed = memory.cache(_keyed, ignore=["function", "arguments"])
    return keyed(fingerprint(*key), function, arguments)


def _keyed(key, function, arguments):
    return function(*arguments)


def warn_if_never_found(estimator):
    """Warn of a cache that can't hit, since every fit draws other weights."""
    if estimator.memory is not None and estimator.random_state is None:
        warnings.warn(
            "memory= has no effect with random_state=None: every fit draws other weights, so "
            "nothing is found again. Pass an int random_state.",
            UserWarning,
            stacklevel=5,
        )
