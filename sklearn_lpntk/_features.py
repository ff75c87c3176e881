"""Features of labelled samples, for the kernel functions and the estimators alike."""

import logging
import numbers
import os
from pathlib import Path

import numpy as np
from sklearn import get_config
from sklearn.utils import check_random_state

from ._engine.extract import Extractor
from ._engine.gather import gather, gather_in_store
from ._engine.inputs import n_rows
from ._engine.objectives import find_objective
from ._engine.sketch import Sketch
from ._operator import KernelOperator
from ._runtime.files import expanded
from ._runtime.fingerprint import NoFingerprintError, fingerprint
from ._runtime.memory import limit_of
from ._runtime.parallel import can_travel, parallel_map
from ._samples.columns import as_columns
from ._samples.datasets import labels_of
from ._samples.digest import data_digest

_LOGGER = logging.getLogger("sklearn_lpntk")


def operator_of(features, other=None):
    """The kernel of features, in tiles of scikit-learn's ``working_memory``."""
    return KernelOperator(features, other, working_memory=get_config()["working_memory"])


def workers_of(*operators, n_jobs=None):
    """``{"map": ...}`` for work on the operators, empty where it stays in this thread."""
    workers = parallel_map(n_jobs)
    if workers is None or (workers.in_threads and not all(o.kernel.in_threads for o in operators)):
        return {}
    return {"map": workers}


def make_extractor(network, *, kernel="lpntk", parameters=None, batch_size="auto", plan=None):
    """The engine's extractor for a `Network`."""
    number = isinstance(batch_size, numbers.Integral) and batch_size >= 1
    if not number and batch_size != "auto":
        raise ValueError(f"batch_size must be 'auto' or an int of at least 1; got {batch_size!r}.")
    return Extractor(
        network.module,
        find_objective(kernel),
        parameters=parameters,
        batch_size=int(batch_size) if number else batch_size,
        plan=plan,
    )


def sketch_seed(n_components, random_state):
    """The seed of a sketch, or None where there is none to draw."""
    if n_components is None:
        return None
    if not isinstance(n_components, numbers.Integral) or n_components < 1:
        raise ValueError(
            f"n_components must be None or an int of at least 1; got {n_components!r}."
        )
    return int(check_random_state(random_state).randint(np.iinfo(np.int32).max))


def extract(
    extractor, X, y=None, n_components=None, seed=None, *, store=None, n_jobs=None, names=("X", "y")
):
    """Features of labelled inputs: in memory, in a store, or computed anew at every use."""
    y = labels_of(X) if y is None and extractor.objective.needs_y else y
    y = _check_columns(extractor, y, n_rows(X), names)
    sketch = None if n_components is None else Sketch(int(n_components), seed)
    workers = parallel_map(n_jobs)
    # threads would share the network while it is recorded
    if workers is not None and (workers.in_threads or not can_travel(extractor.module)):
        workers = None
    limit = limit_of(extractor.parameter.device)
    if store is not None:
        run = {} if workers is None else {"map": workers}
        identity = store_identity(extractor, X, y, sketch)
        found = gather_in_store(
            extractor, X, y, sketch=sketch, path=store, identity=identity, **run
        )
    else:
        found = gather(extractor, X, y, sketch=sketch, limit=limit, map=workers)
    _log_choice(extractor, found, sketch, store, limit)
    return found


def _log_choice(extractor, found, sketch, store, limit):
    """One line that says how the features are kept, and why."""
    size = found.n_samples * found.sample_bytes
    if store is not None:
        how = f"in the store {store}, as asked"
    elif found.in_memory:
        how = "in memory, where they fit"
    else:
        how = (
            "computed anew at every use, since half of the free memory is "
            f"{limit / 2**30:.3g} GiB; store= or n_components= would be faster"
        )
    _LOGGER.info(
        "%s features of %d samples and %d parameters, %.3g kB a sample, %.3g GiB: %s.",
        "Exact" if sketch is None else f"Sketched ({sketch.n_components} components)",
        found.n_samples,
        extractor.n_parameters,
        found.sample_bytes / 1e3,
        size / 2**30,
        how,
    )


def store_path(store, name):
    """Folder of one set of samples in a store."""
    if not isinstance(store, (str, os.PathLike)) or not str(store):
        raise TypeError(f"store must be None or a path of a folder; got {store!r}.")
    return Path(expanded(store)) / name


def store_identity(extractor, X, y, sketch):
    """What the features in a store depend on, part by part."""
    objective = extractor.objective
    code = objective.source or objective.function
    return {
        "network": _fingerprint_for_store(extractor.module, "network"),
        "data X": data_digest(X),
        "labels y": "none" if y is None else data_digest(y),
        "kernel": f"{objective.name} {_fingerprint_for_store(code, 'kernel')}",
        "dtype": str(extractor.parameter.dtype),
        "parameters": fingerprint(list(extractor.names)),
        "sketch": "none"
        if sketch is None
        else f"{sketch.n_components} components of seed {sketch.seed}",
    }


def features_key(extractor, data, n_components, seed):
    """What features of some (X, y) depend on, by name, for a cache."""
    objective = extractor.objective
    key = {
        "network": extractor.module,
        "kernel": (objective.name, objective.source or objective.function),
        "parameters": list(extractor.names),
        "sketch": (n_components, seed),
    }
    for k, (X, y) in enumerate(data):
        y = labels_of(X) if y is None and objective.needs_y else y
        key |= {f"X {k}": data_digest(X), f"y {k}": None if y is None else np.asarray(y)}
    return key


def _fingerprint_for_store(value, what):
    try:
        return fingerprint(value)
    except NoFingerprintError as error:
        raise ValueError(
            f"store= can't tell whether a later run has the same {what}, since it depends on "
            f"something without a value that could be compared: {error}. Keep that out of what "
            f"the {what} refers to, or pass store=None."
        ) from error


def _check_columns(extractor, y, n, names):
    if y is not None:
        return as_columns(y, n, names)
    if extractor.objective.needs_y:
        raise ValueError(
            f"kernel={extractor.objective.name!r} compares labelled samples: pass "
            f"{names[1]}, the logit column of each sample of {names[0]}; or use "
            "kernel='pntk', which needs no labels."
        )
    return None
