"""From an extractor and data to a source: in memory, in a store, or computed at every use."""

import time
import warnings

import torch

from .._runtime.progress import counted, report
from ..exceptions import DamagedStoreWarning
from .extract import Findings
from .features import Collected, Features
from .inputs import n_rows, take
from .plan import Plan, Refuted, require_alike, settle
from .products import slices
from .store import Store, StoredFeatures
from .task import Task

SHARD_BATCHES = 4  # batches in a task


def gather(extractor, X, y, *, sketch=None, limit=None, map=None):
    """Features in memory, or computed at every use where they would exceed ``limit`` bytes.

    ``map(function, iterable)`` may run the calls anywhere; without one, batch follows batch.
    """
    if map is None:
        return extractor(X, y, sketch=sketch, limit=limit)
    shards = slices(n_rows(X), SHARD_BATCHES * extractor.rows_of_a_batch(X))
    if len(shards) < 2:
        return extractor(X, y, sketch=sketch, limit=limit)
    head = _shard(extractor, sketch, extractor.plan, _rows(X, y, shards[0]))
    if limit is not None and head[0].sample_bytes * n_rows(X) > limit:
        extractor.plan = head[1]
        return extractor(X, y, sketch=sketch, limit=limit)

    def attempt(plan):
        known = plan == head[1]
        jobs = (_rows(X, y, rows) for rows in shards[known:])
        found = map(Task(_shard, extractor, sketch, plan), jobs)
        found = counted(found, len(shards) - known, "batches of features")
        parts = [*([head] if known else []), *found]
        _agree(plan, [found for _, found, _ in parts])
        structure = {}
        for features, _, _ in parts:
            require_alike(plan, structure, features.structure)
        return parts

    parts, extractor.plan = settle(attempt, head[1])
    extractor.warn(_together(findings for _, _, findings in parts))
    return Features.cat([features for features, _, _ in parts])


def gather_in_store(extractor, X, y, *, sketch, path, identity, map=map):
    """Features in a store, those that are missing computed first."""
    store = Store(path, identity, n_rows(X), extractor.rows_of_a_batch(X))
    if store.plan is None:
        head = _rows(X, y, slice(0, store.batch_size))
        store.begin(_shard(extractor, sketch, extractor.plan, head)[0].sample_bytes)
    _compute_again(store.drop_damaged(), store)

    def attempt(plan):
        plan = plan | _plan_of(store.merge(_entries(plan)))
        everything = []
        while missing := store.missing:
            jobs = ((i, _rows(X, y, store.shards[i])) for i in missing)
            for found, findings in map(Task(_fill, store, extractor, sketch, plan), jobs):
                _agree(plan, [found])
                everything.append(findings)
                done = len(store.shards) - len(missing) + len(everything)
                report(min(done, len(store.shards)), len(store.shards), "batches of features")
            _agree(plan, [_plan_of(store.merge(_entries(plan)))])
            if len(store.missing) == len(missing):
                time.sleep(0.2)  # other processes are at work on these
        structure = {}
        for i in range(len(store.shards)):
            require_alike(plan, structure, store.read(i).structure)
        return everything

    findings, extractor.plan = settle(attempt, extractor.plan)
    extractor.warn(_together(findings))
    return StoredFeatures(store, extractor.parameter.device)


def _agree(plan, others):
    """Refute a plan where other processes found that more is wrong."""
    merged = plan
    for other in others:
        merged = merged | other
    if not merged.fits(plan):
        raise Refuted(merged)


def _together(findings):
    findings = list(findings)
    known = [f.probabilities for f in findings if f.probabilities is not None]
    return Findings(bool(known) and all(known), set().union(*(f.slow for f in findings)))


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


def _shard(extractor, sketch, plan, data):
    """Features of some rows, the plan that they needed, and what was found."""

    def attempt(plan):
        sink = Collected(n_rows(data[0]))
        return sink, extractor.run(plan, *data, sink, sketch=sketch)

    (sink, findings), plan = settle(attempt, plan)
    return sink.features(), plan.laid_out(findings.structure), findings


def _fill(store, extractor, sketch, plan, job):
    """Compute a shard and add it to the store, unless another process does.

    Returns the plan: where others found more parameters for the autograd rule, the shard is
    left to be computed under theirs.
    """
    (number, data), agreed, findings = job, store.plan, Findings(None)
    try:
        with store.claim(number) as mine:
            if mine and store.file(number) is None:
                features, plan, findings = _shard(extractor, sketch, plan, data)
                if store.merge(_entries(plan)) == _entries(plan) == agreed:
                    store.write(number, features)
    except FileNotFoundError:
        if (store.path / "manifest.json").exists() and store.merge([]) == agreed:
            raise  # else the folder of an old plan went away under us
    return plan | _plan_of(store.plan), findings


def _entries(plan):
    """What processes must agree on, as texts for a manifest."""
    return sorted(f"{what} {n}" for what in ("apart", "autograd") for n in getattr(plan, what))


def _plan_of(entries):
    pairs = [entry.split(" ", 1) for entry in entries]
    found = {what: frozenset(n for w, n in pairs if w == what) for what in ("apart", "autograd")}
    return Plan(**found)
