"""``map`` over joblib's workers: threads, processes, or a Dask cluster.

joblib schedules; what is added is that heavy functions are sent to a worker once, and that the
loss of a worker process costs the calls that were under way and not the run.
"""

import functools
import os
import tempfile
import warnings
from collections import deque
from concurrent.futures import CancelledError
from concurrent.futures.process import BrokenProcessPool

import cloudpickle
from joblib import Parallel, delayed, effective_n_jobs

LOST = (BrokenProcessPool, CancelledError)  # by loky; by Dask, with what a worker held alone
LOSSES = 5  # times in a row that workers may be lost without a call that succeeds


def parallel_map(n_jobs=None):
    """``map(function, iterable)`` over workers, or None where there is only one.

    ``n_jobs=None`` is what ``joblib.parallel_config`` says, as everywhere in scikit-learn.
    """
    return None if effective_n_jobs(n_jobs) == 1 else ParallelMap(n_jobs)


class ParallelMap:
    """Yields ``function(job)`` for every job, in their order.

    Attributes
    ----------
    in_threads : bool
        Whether the workers share the memory of this process.
    """

    def __init__(self, n_jobs=None):
        self._options = {
            "n_jobs": n_jobs,
            "prefer": "threads",
            "batch_size": 1,
            "return_as": "generator",
        }
        backend = Parallel(**self._options)._backend
        self.in_threads = getattr(backend, "supports_sharedmem", False)
        self._scatters = type(backend).__name__ == "DaskDistributedBackend"

    def __call__(self, function, jobs):
        if self.in_threads or self._scatters:  # Dask scatters large arguments by itself
            yield from self._run(function, jobs)
            return
        with tempfile.TemporaryDirectory(prefix="sklearn_lpntk-") as folder:
            file = os.path.join(folder, "function")
            with open(file, "wb") as out:
                cloudpickle.dump(function, out)
            yield from self._run(_Sent(file), jobs)

    def _run(self, function, jobs):
        waiting, jobs, losses = deque(), iter(jobs), 0
        while True:
            calls = (delayed(_call)(function, job) for job in _kept(waiting, jobs))
            try:
                for result in Parallel(**self._options)(calls):
                    waiting.popleft()
                    losses = 0
                    yield result
                return
            except LOST:
                losses += 1
                if losses > LOSSES:
                    raise
                warnings.warn(
                    "A worker process or its results were lost (killed, or out of memory); what it "
                    "was at is computed again.",
                    RuntimeWarning,
                    stacklevel=2,
                )


def can_travel(value):
    """Whether a value can be sent to another process; a warning says why it can't."""
    try:
        cloudpickle.dumps(value)
        return True
    except Exception as error:  # whatever a class raises when it is pickled
        warnings.warn(
            f"{type(value).__name__} can't be sent to other processes, so its features are "
            f"computed in this one: {error}",
            RuntimeWarning,
            stacklevel=4,
        )
        return False


def _kept(waiting, jobs):
    """Jobs whose results were lost, then new ones, which are kept until theirs are here."""
    yield from list(waiting)
    for job in jobs:
        waiting.append(job)
        yield job


def _call(function, job):
    return function(job)


class _Sent:
    """A function in a file, which each worker reads once."""

    def __init__(self, file):
        self._file = file

    def __call__(self, job):
        return _load(self._file)(job)


@functools.lru_cache(maxsize=1)
def _load(file):
    with open(file, "rb") as stream:
        return cloudpickle.load(stream)
