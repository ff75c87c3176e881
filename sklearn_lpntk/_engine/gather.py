"""From an extractor and data to a source: in memory, in a store, or computed at every use."""

import time
import warnings

import torch

from ..exceptions import DamagedStoreWarning
from .features import Features, slices
from .inputs import n_rows, take
from .store import Store, StoredFeatures
from .task import Task
from .trace import PlanChanged

SHARD_BATCHES = 4  # batches in a task


def gather(extractor, X, y, *, sketch=None, limit=None, map=None):
    """Features in memory, or computed at every use where they would exceed ``limit`` bytes.

    ``map(function, iterable)`` may run the calls anywhere; without one, batch follows batch.
    """
    shards = slices(n_rows(X), SHARD_BATCHES * extractor.batch_size)
    if map is None or len(shards) < 2:
        return extractor(X, y, sketch=sketch, limit=limit)
    while True:
        known = set(extractor.plan.autograd)
        first = _shard(extractor, sketch, _rows(X, y, shards[0]))  # settles the plan
        if limit is not None and first[0].sample_bytes * n_rows(X) > limit:
            return extractor(X, y, sketch=sketch, limit=limit)
        jobs = (_rows(X, y, rows) for rows in shards[1:])
        parts = [first, *map(Task(_shard, extractor, sketch), jobs)]
        for _, found in parts:
            extractor.plan.autograd |= found
        if extractor.plan.autograd == known | first[1]:
            extractor.warn()
            return Features.cat([features for features, _ in parts])


def gather_in_store(extractor, X, y, *, sketch, path, identity, map=map):
    """Features in a store, those that are missing computed first."""
    store, plan = Store(path, identity, n_rows(X), extractor.batch_size), extractor.plan
    if store.plan is None:
        head = _rows(X, y, slice(0, extractor.batch_size))
        store.begin(_shard(extractor, sketch, head)[0].sample_bytes)
    plan.autograd |= set(store.merge(plan.autograd))
    extractor.tracer.prepare()
    _compute_again(store.drop_damaged(), store)
    while missing := store.missing:
        jobs = ((i, _rows(X, y, store.shards[i])) for i in missing)
        for found in map(Task(_fill, store, extractor, sketch), jobs):
            plan.autograd |= found
        plan.autograd |= set(store.merge(plan.autograd))
        if len(store.missing) == len(missing):
            time.sleep(0.2)  # other processes are at work on these
    extractor.warn()
    return StoredFeatures(store, extractor.tracer.device)


def _compute_again(damaged, store):
    if damaged:
        warnings.warn(
            f"{len(damaged)} files of the store {store.path} are not what was written, and are "
            f"computed again: {damaged[:3]}. The disk may be failing.",
            DamagedStoreWarning,
            stacklevel=5,
        )


def _rows(X, y, rows):
    labels = None if y is None else torch.as_tensor(y)[rows]
    return take(X, rows), labels


def _shard(extractor, sketch, data):
    """Features of some rows, and the parameters that took the autograd rule for them."""
    while True:
        try:
            batches = list(extractor.batches(*data, sketch))
            return Features.cat(batches), set(extractor.plan.autograd)
        except PlanChanged:
            continue


def _fill(store, extractor, sketch, job):
    """Compute a shard and add it to the store, unless another process does.

    Returns the parameters that take the autograd rule: where others found more of them, the
    shard is left to be computed under their plan.
    """
    number, data = job
    plan = store.plan
    try:
        with store.claim(number) as mine:
            if mine and store.file(number) is None:
                features, autograd = _shard(extractor, sketch, data)
                if store.merge(autograd) == sorted(autograd) == plan:
                    store.write(number, features)
    except FileNotFoundError:
        if (store.path / "manifest.json").exists() and store.merge([]) == plan:
            raise  # else the folder of an old plan went away under us
    return set(store.plan)
