"""Caching across clones, processes and notebooks, under a fingerprint of our own.

joblib's hash of a net that holds a module instance changes at every clone, so that a grid
search would never hit. The fingerprint here depends on values only.
"""

import functools
import hashlib
import io
import numbers
import pickle
import types
import warnings
from contextlib import contextmanager
from pathlib import Path

import cloudpickle
import joblib
import numpy as np
import sklearn
import skorch
import torch
from joblib import Memory
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_memory
from skorch import NeuralNet

from ._version import __version__

try:
    import fcntl
except ImportError:  # Windows: two processes may then compute the same entry
    fcntl = None


# code that changes with its version only, which is part of every key
LIBRARIES = {"builtins", "collections", "functools", "numpy", "sklearn", "skorch", "torch"}
VERSIONS = __version__, torch.__version__, skorch.__version__, sklearn.__version__
PLAIN = types.FunctionType, type, bool, int, float, complex, str, bytes, tuple, np.ndarray


class _Fingerprint:
    """Feeds nested values into a digest; containers by length, so that nesting counts."""

    def __init__(self):
        self.digest = hashlib.blake2b(digest_size=20)
        self._open = set()  # ids of the objects being fed: one may refer to itself

    def feed(self, value):
        self.digest.update(f"<{type(value).__module__}.{type(value).__qualname__}>".encode())
        if id(value) in self._open:
            return
        self._open.add(id(value))
        self._feed_contents(value)
        self._open.discard(id(value))

    def _feed_contents(self, value):
        if isinstance(value, np.ndarray) and not value.dtype.hasobject:
            self._text(f"{value.dtype}{value.shape}")
            self.digest.update(np.ascontiguousarray(value).data)
        elif isinstance(value, torch.Tensor):
            self.feed(value.detach().cpu().numpy())
        elif isinstance(value, torch.nn.Module):
            self._many([repr(value), dict(value.state_dict())])
            self._many([self._plain_attributes(child) for child in value.modules()])
        elif isinstance(value, NeuralNet):
            self._many([value.get_params(deep=False), getattr(value, "module_", None)])
        elif isinstance(value, BaseEstimator):
            self.feed(value.get_params(deep=False))
        elif isinstance(value, dict):
            self._many([part for key in sorted(value, key=repr) for part in (key, value[key])])
        elif isinstance(value, (list, tuple)):
            self._many(value)
        elif isinstance(value, functools.partial):
            self._many([value.func, value.args, value.keywords])
        elif isinstance(value, types.FunctionType):
            cells = [cell.cell_contents for cell in value.__closure__ or ()]
            self._text(f"{value.__module__}.{value.__qualname__}")
            if not _from_library(value):
                self._many([value.__code__, cells, value.__defaults__, value.__kwdefaults__])
                self.feed(_globals_used(value))
        elif isinstance(value, types.CodeType):
            self._many([value.co_name, value.co_code, value.co_consts, value.co_names])
        elif isinstance(value, types.MethodType):
            self._many([value.__func__, value.__self__])
        elif isinstance(value, type):
            self._text(f"{value.__module__}.{value.__qualname__}")
            if not _from_library(value):
                # Python adds names of its own to a class as it goes (__slotnames__)
                own = {k: v for k, v in vars(value).items() if _is_own(k, v)}
                self._many([own, value.__bases__])
        elif isinstance(value, (staticmethod, classmethod)):
            self.feed(value.__func__)
        elif isinstance(value, property):
            self._many([value.fget, value.fset, value.fdel])
        elif hasattr(value, "__dict__") and not isinstance(value, types.ModuleType):
            self._many([type(value), vars(value)])
        else:
            self._text(_plain_hash(value))

    def _many(self, values):
        self._text(str(len(values)))
        for value in values:
            self.feed(value)

    def _text(self, text):
        self.digest.update(f"{len(text)}:{text}".encode())

    def _plain_attributes(self, module):
        own = {k: v for k, v in vars(module).items() if not k.startswith("_") and k != "training"}
        return [type(module), own]


def fingerprint(*values):
    """A hex digest of nested values: arrays, tensors, modules, nets, estimators, functions."""
    digest = _Fingerprint()
    digest.feed(values)
    return digest.digest.hexdigest()


def _from_library(value):
    return (value.__module__ or "").split(".")[0] in LIBRARIES


def _is_own(name, value):
    return isinstance(value, types.FunctionType) or not name.startswith(("__", "_abc"))


def _globals_used(function):
    """What a function takes from its module: other functions, classes and plain values."""
    names, codes = set(), [function.__code__]
    while codes:
        code = codes.pop()
        names |= set(code.co_names)
        codes += [const for const in code.co_consts if isinstance(const, types.CodeType)]
    used = {name: function.__globals__.get(name) for name in names}
    return {name: value for name, value in used.items() if isinstance(value, PLAIN)}


def _plain_hash(value):
    try:
        return joblib.hash(value)
    except (pickle.PicklingError, TypeError, AttributeError):
        return repr(value)


class _NotStorable(Exception):
    """The result can't be pickled."""


def cached(memory, function, key, *arguments):
    """``function(*arguments)``, read from ``memory`` where ``key`` was computed before.

    ``key`` holds the values on which the result depends. Results are stored by cloudpickle
    (nets of a notebook are classes of ``__main__``), and under a lock, so that of several
    processes one computes and the others read.
    """
    memory = check_memory(memory)
    if not isinstance(memory, Memory) or memory.location is None:
        return function(*arguments)
    key, computed = fingerprint(VERSIONS, *key), []

    def compute():
        computed.append(function(*arguments))
        try:
            return _dumps(computed[0])
        except Exception as error:
            raise _NotStorable(str(error)) from error

    keyed = memory.cache(_call, ignore=["compute"])
    with _lock(memory, key):
        try:
            stored = keyed(key, compute)
        except _NotStorable as error:
            warnings.warn(
                f"memory= could not store a result, which will be computed again: {error}",
                UserWarning,
                stacklevel=2,
            )
    return computed[0] if computed else pickle.loads(stored)


class _Pickler(cloudpickle.Pickler):
    """Pickles skorch nets by their attributes.

    skorch's own state is pickled by reference inside, which a worker process can't follow
    to a module class of ``__main__``.
    """

    def reducer_override(self, obj):
        if isinstance(obj, NeuralNet):
            return _blank, (type(obj),), vars(obj), None, None, _set_attributes
        return super().reducer_override(obj)


def _blank(cls):
    return cls.__new__(cls)


def _set_attributes(net, attributes):
    vars(net).update(attributes)


def _dumps(value):
    with io.BytesIO() as file:
        _Pickler(file).dump(value)
        return file.getvalue()


def _call(key, compute):
    return compute()


@contextmanager
def _lock(memory, key):
    """Hold a file lock, which the system drops should the process die."""
    if fcntl is None:
        yield
        return
    folder = Path(memory.location) / "locks"
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / key, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def warn_if_never_found(estimator):
    """Warn of a cache that can't hit, since every fit draws other weights."""
    seeded = isinstance(estimator.random_state, numbers.Integral)
    if estimator.memory is not None and not seeded:
        warnings.warn(
            f"memory= has no effect with random_state={estimator.random_state}: every fit draws "
            "other weights, so nothing is found again. Pass an int random_state.",
            UserWarning,
            stacklevel=2,
        )
