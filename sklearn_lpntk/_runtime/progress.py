"""How far long work has come, shown while it runs.

A loop says ``report(done, total)``; what becomes of that is decided by who began the work. Nothing
is shown of work on other threads or in other processes.
"""

import time
from contextlib import contextmanager
from contextvars import ContextVar

INTERVAL = 5.0  # seconds between two lines
_LISTENER = ContextVar("listener", default=None)


def report(done, total=None, what="samples"):
    """So many of so many are done; ``total`` is None where it is not known."""
    listener = _LISTENER.get()
    if listener is not None:
        listener(done, total, what)


def counted(results, total, what="samples"):
    """Results of an iterable, one after the other, with reports."""
    for done, result in enumerate(results, 1):
        yield result
        report(done, total, what)


def is_heard():
    """Whether a report would go anywhere."""
    return _LISTENER.get() is not None


@contextmanager
def listening(listener):
    """All reports go to a callable ``(done, total, what)``, and no others."""
    token = _LISTENER.set(listener)
    try:
        yield
    finally:
        _LISTENER.reset(token)


@contextmanager
def also_listening(listener):
    """Reports go to a callable, and where they went before."""
    before = _LISTENER.get()

    def both(*args):
        listener(*args)
        if before is not None:
            before(*args)

    with listening(both):
        yield


@contextmanager
def shown(title, *, verbose=1):
    """Lines with count and remaining time while the work runs, and how long it took."""
    if not verbose:
        yield
        return
    lines = Lines(title)
    with listening(lines):
        yield
    lines.end()


class Lines:
    """Prints a line every few seconds."""

    def __init__(self, title):
        self.title, self.began = title, time.perf_counter()
        self._last, self._since = self.began, {}

    def __call__(self, done, total, what):
        now = time.perf_counter()
        begun, start = self._since.get(what, (now, done))
        if total is None or done < start or what not in self._since:
            self._since[what] = begun, start = now, done
        if now - self._last < INTERVAL:
            return
        self._last = now
        count = f"{done:,}" if total is None else f"{done:,} of {total:,}"
        left = ""
        if total is not None and done > start:
            left = f", {duration((total - done) * (now - begun) / (done - start))} left"
        print(f"{self.title}: {count} {what}{left}", flush=True)

    def end(self):
        print(f"{self.title}: {duration(time.perf_counter() - self.began)}", flush=True)


def duration(seconds):
    """Seconds as a person reads them."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {seconds:02} s"
