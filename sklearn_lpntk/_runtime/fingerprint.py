"""Fingerprints of nested values: what a cached result depends on, and nothing else.

joblib's hash of a net that holds a module instance changes at every clone, so that a grid
search would never hit. A fingerprint here depends on values only: on the numbers in arrays,
tensors and modules, and on the code of functions and classes with what that code refers to.
"""

import functools
import hashlib
import pickle
import types
from functools import singledispatch

import joblib
import numpy as np
import torch
from sklearn.base import BaseEstimator
from skorch import NeuralNet

# their code changes with their version only, which is part of every key
LIBRARIES = {"builtins", "collections", "functools", "numpy", "sklearn", "skorch", "torch"}
PLAIN = (
    (types.FunctionType, type, bool, int, float, complex, str, bytes, np.ndarray, torch.Tensor)
    + (tuple, list, dict, set, frozenset, functools.partial, types.SimpleNamespace)
)  # fmt: skip
TORCH_ATTRIBUTES = set(vars(torch.nn.Module()))


def fingerprint(*values):
    """A hex digest of nested values."""
    digest = hashlib.blake2b(digest_size=20)
    _feed(digest, values, set())
    return digest.hexdigest()


def _feed(digest, value, under_way):
    """Feed a value by its type and parts; one that contains itself is fed once."""
    kind = type(value)
    digest.update(f"<{kind.__module__}.{kind.__qualname__}>".encode())
    if id(value) in under_way:
        return
    parts = _parts(value)
    digest.update(f"{len(parts)}:".encode())  # so that nesting counts
    for part in parts:
        if isinstance(part, memoryview):
            digest.update(f"{part.nbytes}:".encode())
            digest.update(part)
        else:
            _feed(digest, part, under_way | {id(value)})


def _text(text):
    return memoryview(text.encode())


@singledispatch
def _parts(value):
    """Raw bytes (as memoryview) and other values that make up a value."""
    if hasattr(value, "__dict__"):
        return [type(value), vars(value)]
    try:
        return [_text(joblib.hash(value))]
    except (pickle.PicklingError, TypeError, AttributeError):
        return [_text(repr(value))]


@_parts.register(types.ModuleType)
def _(value):
    return [_text(value.__name__)]


@_parts.register(np.ndarray)
def _(value):
    if value.dtype.hasobject:
        return [_text(joblib.hash(value))]
    numbers = np.ascontiguousarray(value).reshape(-1).view(np.uint8)
    return [_text(f"{value.dtype}{value.shape}"), memoryview(numbers)]


@_parts.register(torch.Tensor)
def _(value):
    numbers = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
    return [_text(f"{value.dtype}{tuple(value.shape)}"), memoryview(numbers)]


@_parts.register(torch.nn.Module)
def _(value):
    tensors = dict(value.state_dict()) | dict(value.named_buffers())
    return [_text(repr(value)), tensors, *map(_own_attributes, value.modules())]


def _own_attributes(module):
    """Class, attributes and hooks of one module; of a library's own what is public."""
    hidden = ("_",) if _from_library(type(module)) else ()
    own = {
        name: value
        for name, value in vars(module).items()
        if name not in TORCH_ATTRIBUTES and not name.startswith(hidden)
    }
    hooks = *module._forward_hooks.values(), *module._forward_pre_hooks.values()
    return type(module), own, hooks


@_parts.register(BaseEstimator)
def _(value):
    return [value.get_params(deep=False)]


@_parts.register(NeuralNet)
def _(value):
    return [value.get_params(deep=False), getattr(value, "module_", None)]


@_parts.register(dict)
def _(value):
    return [part for key in sorted(value, key=repr) for part in (key, value[key])]


@_parts.register(list)
@_parts.register(tuple)
def _(value):
    return list(value)


@_parts.register(set)
@_parts.register(frozenset)
def _(value):
    return [_text(part) for part in sorted(map(fingerprint, value))]


@_parts.register(functools.partial)
def _(value):
    return [value.func, value.args, value.keywords]


@_parts.register(types.FunctionType)
def _(value):
    name = _text(f"{value.__module__}.{value.__qualname__}")
    if _from_library(value):
        return [name]
    cells = [cell.cell_contents for cell in value.__closure__ or ()]
    defaults = value.__defaults__, value.__kwdefaults__
    return [name, value.__code__, cells, defaults, _globals_used(value)]


@_parts.register(types.CodeType)
def _(value):
    return [value.co_name, value.co_code, value.co_consts, value.co_names]


@_parts.register(types.MethodType)
def _(value):
    return [value.__func__, value.__self__]


@_parts.register(staticmethod)
@_parts.register(classmethod)
def _(value):
    return [value.__func__]


@_parts.register(property)
def _(value):
    return [value.fget, value.fset, value.fdel]


@_parts.register(type)
def _(value):
    name = _text(f"{value.__module__}.{value.__qualname__}")
    if _from_library(value):
        return [name]
    # Python adds names of its own to a class as it goes (__slotnames__)
    return [name, {k: v for k, v in vars(value).items() if _is_own(k, v)}, value.__bases__]


def _is_own(name, value):
    return isinstance(value, types.FunctionType) or not name.startswith(("__", "_abc"))


def _from_library(value):
    return (value.__module__ or "").split(".")[0] in LIBRARIES


def _globals_used(function):
    """What a function takes from its module: other functions, classes and plain values."""
    names, codes = set(), [function.__code__]
    while codes:
        code = codes.pop()
        names |= set(code.co_names)
        codes += [const for const in code.co_consts if isinstance(const, types.CodeType)]
    used = {name: function.__globals__.get(name) for name in names}
    return {name: value for name, value in used.items() if isinstance(value, PLAIN)}
