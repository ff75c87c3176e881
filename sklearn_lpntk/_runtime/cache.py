"""Caching across clones, processes and notebooks, under fingerprints of our own."""

import io
import logging
import numbers
import pickle
import warnings
from collections import Counter
from pathlib import Path

import cloudpickle
import sklearn
import skorch
import torch
from joblib import Memory
from sklearn.utils.validation import check_memory
from skorch import NeuralNet

from .._version import __version__
from .entries import DamagedEntryError, Entries
from .files import expanded
from .fingerprint import NoFingerprintError, fingerprint
from .locks import wait_for_lock

VERSIONS = __version__, torch.__version__, skorch.__version__, sklearn.__version__
CHANGES = 2  # of a part during its own computation: once may be something that is set up late
_LOGGER = logging.getLogger("sklearn_lpntk")
_changes, _warned = Counter(), set()  # in this process, by a key's part and its value's name


def cached(memory, what, function, key, *arguments, worth=None):
    """``function(*arguments)``, read from ``memory`` where ``key`` was computed before.

    ``what`` says what the result is. ``key`` holds the values on which it depends, by name.
    Results are stored by cloudpickle (nets of a notebook are classes of ``__main__``), and under
    a lock, so that of several processes one computes and the others read. ``worth(result)`` may
    say that one is not to be kept.
    """
    memory = check_memory(expanded(memory) if isinstance(memory, str) else memory)
    if not isinstance(memory, Memory) or memory.location is None:
        return function(*arguments)
    parts = _digests_or_warning(what, key)
    if parts is None:
        return function(*arguments)
    folder, name = Path(memory.location), fingerprint(parts)
    entries = Entries(folder / "joblib" / "sklearn_lpntk")
    with wait_for_lock(folder / "locks" / name):
        found, result = _find(entries, name, what, parts)
        if not found:
            result = function(*arguments)
            if worth is not None and not worth(result):
                return result
            _keep(entries, name, parts, result)
            _warn_if_changed(what, key, parts)
    return result


def _digests_or_warning(what, key):
    try:
        return _digests(what, key)
    except NoFingerprintError as error:
        warnings.warn(
            f"memory= is not used for the {what}, which is computed again at every fit, because "
            f"it depends on something without a value that could be compared: {error}",
            UserWarning,
            stacklevel=3,
        )


def _digests(what, key):
    """A digest of each part of a key, by name."""
    parts = {"result": what, "versions": fingerprint(VERSIONS)}
    for name, value in key.items():
        try:
            parts[name] = fingerprint(value)
        except NoFingerprintError as error:
            raise error.inside(name) from None
    return parts


def _find(entries, name, what, parts):
    """Whether there is a sound entry, and its value; the log says so."""
    try:
        data = entries.read(name)
        if data is not None:
            value = _loads(data)
            _LOGGER.info("Cache hit: the %s is read from %s.", what, entries.file(name))
            return True, value
    except DamagedEntryError as error:
        warnings.warn(
            f"A file of memory=, {entries.file(name)}, is damaged, so the {what} is computed "
            f"again and replaces it: {error}",
            UserWarning,
            stacklevel=3,
        )
    if _LOGGER.isEnabledFor(logging.INFO):
        differing = entries.nearest(parts)
        why = "there is no entry yet"
        if differing is not None:
            why = f"the nearest entry differs in {', '.join(differing) or 'nothing but its damage'}"
        _LOGGER.info("Cache miss: the %s is computed; %s.", what, why)
    return False, None


def _loads(data):
    try:
        return pickle.loads(data)
    except Exception as error:  # whatever the classes inside raise
        raise DamagedEntryError(f"it can't be unpickled ({error!r})") from error


def _keep(entries, name, parts, result):
    try:
        entries.write(name, parts, _dumps(result))
    except Exception as error:  # whatever the classes inside raise, or the disk
        warnings.warn(
            f"memory= could not store a result, which will be computed again: {error}",
            UserWarning,
            stacklevel=3,
        )


def _warn_if_changed(what, key, parts):
    """Warn of a part that computing the result changes: the next call will miss, too."""
    try:
        now = _digests(what, key)
    except NoFingerprintError:
        return
    for name in (name for name in parts if now[name] != parts[name]):
        of = name, getattr(key[name], "__qualname__", type(key[name]).__qualname__)
        _changes[what, of] += 1
        if _changes[what, of] == CHANGES and of not in _warned:
            _warned.add(of)
            warnings.warn(
                f"memory= can't find the {what} again: what it depends on, {name}, is another "
                "value after each fit than before, for example a counter in the module of a "
                "class that every call changes. Keep such a thing in an attribute that is set in "
                "__init__, or out of the code.",
                UserWarning,
                stacklevel=3,
            )


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
