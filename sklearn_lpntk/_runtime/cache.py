"""Caching across clones, processes and notebooks, under fingerprints of our own."""

import io
import numbers
import pickle
import warnings
from pathlib import Path

import cloudpickle
import sklearn
import skorch
import torch
from joblib import Memory
from sklearn.utils.validation import check_memory
from skorch import NeuralNet

from .._version import __version__
from .files import expanded
from .fingerprint import fingerprint
from .locks import wait_for_lock

VERSIONS = __version__, torch.__version__, skorch.__version__, sklearn.__version__


class _NotStorable(Exception):
    """The result can't be pickled."""


def cached(memory, function, key, *arguments):
    """``function(*arguments)``, read from ``memory`` where ``key`` was computed before.

    ``key`` holds the values on which the result depends. Results are stored by cloudpickle
    (nets of a notebook are classes of ``__main__``), and under a lock, so that of several
    processes one computes and the others read.
    """
    memory = check_memory(expanded(memory) if isinstance(memory, str) else memory)
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
    with wait_for_lock(Path(memory.location) / "locks" / key):
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
